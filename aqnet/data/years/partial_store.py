"""A Zarr store in progress beside its place: a journal of finished parts, resumable after any end.

The partial folder `.NAME.partial` holds the store to be, and beside it a journal with a file for
each finished part: so the store can get its name without touching the journal first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from aqnet.errors import StoreBusyError, StoreError, explain
from aqnet.io import atomic_write_json, explain_full_disk, lock_folder, place_folder

__all__ = [
    "CHUNK_NAMES",
    "STORE",
    "finished_parts",
    "hold",
    "make_empty",
    "partial_folder",
    "place",
    "read_begun",
    "read_entry",
    "refuse_difference",
    "rewriting",
    "write_small",
]

STORE, JOURNAL, BEGUN = "store", "journal", "begun.json"
CHUNK_NAMES = {"name": "default", "separator": "."}  # one file a chunk, no nested folders


def partial_folder(path: str | Path) -> Path:
    """Where the store that will be `path` is being written."""
    path = Path(path).absolute()
    return path.parent / f".{path.name}.partial"


def hold(partial: Path, path: Path) -> int:
    """Lock the folder, for `unlock_folder`; StoreBusyError if another process has it."""
    descriptor = lock_folder(partial)
    if descriptor is None:
        raise StoreBusyError(
            explain(f"{path} is being written", expected="one writer at a time",
                    found=f"another process holds {partial}, {finished_parts(partial)} finished "
                    "parts", remedy="wait until it ends, or stop it; what it has finished is kept")
        )  # fmt: skip
    return descriptor


def refuse_difference(path: Path, expected: Mapping, found: Mapping) -> None:
    """StoreError that names what differs between the store to write and the one that is there."""
    keys = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if keys:
        raise StoreError(
            explain(f"{path} holds something else: {', '.join(keys)}",
                    expected="; ".join(f"{key}: {expected.get(key)}" for key in keys),
                    found="; ".join(f"{key}: {found.get(key)}" for key in keys),
                    remedy="delete it if it is to be written anew, or choose another name")
        )  # fmt: skip


# ---- the beginning


def make_empty(partial: Path, identity: Mapping, fill: Callable[[zarr.Group], None]) -> None:
    """Empty journal, and a store that `fill` gives its arrays; whatever was there goes.

    `BEGUN` comes last: a half-made beginning is not resumed.
    """
    for name in (JOURNAL, STORE):
        if (partial / name).exists():
            shutil.rmtree(partial / name)
    fill(zarr.create_group(partial / STORE, zarr_format=3))
    atomic_write_json(partial / JOURNAL / BEGUN, dict(identity))


def write_small(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dimensions: Sequence[str],
    attributes: Mapping | None = None,
) -> None:
    """Write an array that is one chunk, in place of an existing one."""
    group.create_array(
        name,
        data=values,
        dimension_names=dimensions or None,
        chunks=values.shape,
        chunk_key_encoding=CHUNK_NAMES,
        attributes=dict(attributes or {}),
        overwrite=True,
    )


def _read_json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_begun(partial: Path) -> dict | None:
    """Identity of the store in progress; None if there is none."""
    return _read_json(partial / JOURNAL / BEGUN)


# ---- parts


def finished_parts(partial: Path) -> int:
    """Number of parts in the journal."""
    return len(list((partial / JOURNAL).glob("[0-9]*.json")))


def read_entry(partial: Path, number: int, files: Sequence[str]) -> dict | None:
    """What is known of a finished part; None if it is not finished or its files are others.

    `files`: of the part, inside the store. One without any value does not exist.
    """
    entry = _read_json(partial / JOURNAL / f"{number}.json")
    sizes = [_size(partial / STORE / file) for file in files]
    return entry if entry is not None and entry["bytes"] == sizes else None


@contextmanager
def rewriting(partial: Path, number: int, files: Sequence[str]) -> Iterator[dict]:
    """Write the files of a part in the block, which fills the entry that vouches for them.

    Raises
    ------
    StorageFullError
        Disk, quota or file size limit; the part is not finished then.
    """
    journal, paths = partial / JOURNAL / f"{number}.json", [partial / STORE / f for f in files]
    entry: dict = {}
    with explain_full_disk(partial):
        # zarr merges into the shard that is there, and fails if that one is cut short
        for former in (journal, *paths):
            former.unlink(missing_ok=True)
        yield entry
        # After the files have reached the disk.
        atomic_write_json(journal, entry | {"bytes": [_synced_size(path) for path in paths]})


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _synced_size(path: Path) -> int:
    """Bytes of a file, once they are on the disk."""
    if path.exists():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    return _size(path)


# ---- the end


def place(partial: Path, path: Path) -> None:
    """Give the complete store its name, and remove the rest of the folder."""
    for stray in (partial / STORE).rglob("*.partial"):  # what zarr left when it was killed
        stray.unlink()
    place_folder(partial / STORE, path)
    shutil.rmtree(partial)
