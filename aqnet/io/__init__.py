"""Files: writes that happen completely or not at all, locks, digests, and where things live."""

from aqnet.io.atomic import (
    atomic_directory,
    atomic_file,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    draft_folder,
    place_folder,
)
from aqnet.io.digests import sha256_file, sha256_json
from aqnet.io.disk import explain_full_disk, require_free_space
from aqnet.io.locks import lock_folder, unlock_folder
from aqnet.io.places import (
    data_root,
    repository_root,
    runs_root,
    station_store,
    stores_folder,
)

__all__ = [
    "atomic_directory",
    "atomic_file",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "data_root",
    "draft_folder",
    "explain_full_disk",
    "lock_folder",
    "place_folder",
    "repository_root",
    "require_free_space",
    "runs_root",
    "sha256_file",
    "sha256_json",
    "station_store",
    "stores_folder",
    "unlock_folder",
]
