"""Copies in the run folder of all that decides a submitted run: later edits change nothing.

::

    staged/              what the job sees as its repository
        aqnet/           package, with the state of its work tree in git_state.json
        data_manifests/, settings.ini
        notebook.ipynb, script.py, parameters.yaml, profile.yaml
        data -> ...      other folders of the repository, for relative paths in parameters
    staged.sha256        digests of these files, which the job checks before it starts
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import aqnet
from aqnet.code_state import GIT_STATE, git_state
from aqnet.io import atomic_directory, atomic_write_json, atomic_write_text
from aqnet.jobs.runs.results import digest_lines

__all__ = ["DIGESTS", "STAGED", "stage"]

STAGED, DIGESTS = "staged", "staged.sha256"
_NOT_CODE = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


def _copy_code(folder: Path, root: Path, package: Path) -> None:
    shutil.copytree(package, folder / "aqnet", ignore=_NOT_CODE)
    state = git_state(package).model_dump(mode="json")
    atomic_write_json(folder / "aqnet" / GIT_STATE, state)
    shutil.copytree(root / "data_manifests", folder / "data_manifests", ignore=_NOT_CODE)
    shutil.copyfile(root / "settings.ini", folder / "settings.ini")


def _link_others(folder: Path, root: Path) -> None:
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry.resolve(), target_is_directory=True)


def _seal(folder: Path) -> str:
    """Take away the right to write; return the lines of `sha256sum`."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(parent) / name for name in sorted(names)]
    for path in found:
        path.chmod(0o444)
    return digest_lines(folder, found, f"{STAGED}/")


def stage(run: Path, root: Path, files: Mapping[str, str]) -> None:
    """Fill `staged/` of a run folder.

    Parameters
    ----------
    run : Path
        Run folder.
    root : Path
        Repository.
    files : mapping
        Text by file name, besides the code: script, parameters, ...

    Raises
    ------
    TargetExistsError
        Something is staged there already.
    StorageFullError
        No room; nothing is left behind.
    """
    with atomic_directory(run / STAGED) as folder:
        _copy_code(folder, root, Path(aqnet.__file__).parent)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        digests = _seal(folder)
        _link_others(folder, root)
    atomic_write_text(run / DIGESTS, digests)
    (run / DIGESTS).chmod(0o444)
