"""New run folders: a free name, and what stands in them before the first start."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import yaml

import aqnet
from aqnet.code_state import git_state
from aqnet.errors import TargetExistsError
from aqnet.io import atomic_directory
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.runs.naming import RUN_DIR, parameters_hash
from aqnet.jobs.runs.record import Provenance, RunRecord, dump

__all__ = ["make_folder", "make_new_folder"]


def make_folder(
    path: Path, record: RunRecord, parameters: Mapping[str, Value], package: Path | None = None
) -> Path:
    """Make the folder of a run, whole or not at all; `package`: of aqnet, if not this one.

    Raises
    ------
    TargetExistsError
        `path` exists.
    StorageFullError
        No room.
    """
    values = {k: v for k, v in parameters.items() if k != RUN_DIR}
    provenance = Provenance(
        parameters_sha256=parameters_hash(parameters),
        aqnet=aqnet.__version__,
        git=git_state(package or Path(aqnet.__file__).parent),
    )
    with atomic_directory(path) as folder:
        (folder / "checkpoints").mkdir()
        (folder / "parameters.yaml").write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        dump(folder / "provenance.json", provenance)
        dump(folder / "run.json", record)
    return path


def make_new_folder(
    root: Path, record: RunRecord, parameters: Mapping[str, Value], package: Path | None = None
) -> Path:
    """Make a folder below `root`, named after time, notebook and parameters."""
    digest = parameters_hash(parameters)[:8]
    base = f"{record.created:%Y%m%dT%H%M%S}-{record.notebook}-{digest}"
    for count in itertools.count(1):
        path = root / (base if count == 1 else f"{base}-{count}")
        try:
            return make_folder(path, record, parameters, package)
        except TargetExistsError:
            continue
    raise AssertionError("itertools.count does not end")
