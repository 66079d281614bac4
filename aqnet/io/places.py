"""Where the repository, the data and the runs are."""

from __future__ import annotations

import os
from pathlib import Path

from aqnet.errors import AqnetError, explain

__all__ = ["data_root", "repository_root", "runs_root", "station_store", "stores_folder"]

_ROOT_MARKS = ("settings.ini", "data_manifests")


def _is_root(folder: Path) -> bool:
    return all((folder / mark).exists() for mark in _ROOT_MARKS)


def repository_root() -> Path:
    """Folder of the aqnet repository: $AQNET_ROOT, or the first parent that looks like it.

    Returns
    -------
    pathlib.Path
        Folder that holds `settings.ini` and `data_manifests`.

    Raises
    ------
    AqnetError
        $AQNET_ROOT is not such a folder, or no parent of the working directory is.
    """
    given = os.environ.get("AQNET_ROOT")
    here = Path.cwd()
    candidates = [Path(given).absolute()] if given else [here, *here.parents]
    for folder in candidates:
        if _is_root(folder):
            return folder
    where = f"AQNET_ROOT={given}" if given else f"the working directory {here} and its parents"
    message = explain(
        "cannot find the aqnet repository",
        expected=f"a folder that holds {' and '.join(_ROOT_MARKS)}",
        found=f"none at {where}",
        remedy="run from inside the repository, or set AQNET_ROOT to its folder",
    )
    raise AqnetError(message)


def data_root() -> Path:
    """Folder of the data stores: $AQNET_DATA, or `data` in the repository."""
    given = os.environ.get("AQNET_DATA")
    return Path(given).absolute() if given else repository_root() / "data"


def station_store(name: str, given: str | Path | None = None) -> Path:
    """Store of the stations of a manifest: the one given, or NAME.zarr in the data folder."""
    return Path(given) if given else data_root() / f"{name}.zarr"


def stores_folder(name: str, given: str | Path | None = None) -> Path:
    """Folder of the yearly stores of a manifest: the one given, or NAME in the data folder."""
    return Path(given) if given else data_root() / name


def runs_root(given: str | Path | None = None) -> Path:
    """Folder of the run folders: the one given, $AQNET_RUNS, or `runs` in the repository."""
    given = given if given is not None else os.environ.get("AQNET_RUNS")
    return Path(given).absolute() if given else repository_root() / "runs"
