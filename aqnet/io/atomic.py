"""Writes of files and folders that either happen completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aqnet.errors import TargetExistsError, explain
from aqnet.io.disk import explain_full_disk
from aqnet.io.locks import lock_existing, try_lock

__all__ = [
    "atomic_directory",
    "atomic_file",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "draft_folder",
    "place_folder",
]


# ---- temporary neighbours
#
# A temporary entry `.NAME.new-XXXX` (or `.NAME.old-XXXX` while a folder is being replaced) holds a
# lock on itself while its process lives, so an entry that can be locked is a leftover.


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear_leftovers(path: Path) -> None:
    """Remove temporary entries of dead processes; put back a folder caught while replaced."""
    for kind in ("old", "new"):
        for leftover in sorted(path.parent.glob(f".{path.name}.{kind}-*")):
            descriptor = lock_existing(leftover)
            if descriptor is None:
                continue
            if kind == "old" and not path.exists():
                leftover.rename(path)
            else:
                _remove(leftover)
            os.close(descriptor)


def _new_neighbour(path: Path, *, directory: bool) -> tuple[Path, int]:
    """Create and lock a temporary entry beside `path`; retry if a cleaner took it first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    while True:
        temporary = path.parent / f".{path.name}.new-{secrets.token_hex(4)}"
        if directory:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        descriptor = lock_existing(temporary)
        if descriptor is not None:
            return temporary, descriptor


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_tree(folder: Path) -> None:
    for entry in folder.rglob("*"):
        if not entry.is_symlink():
            _fsync(entry)
    _fsync(folder)


# ---- atomic writes


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file piece by piece; it gets its name when it is complete and on the disk.

    Parameters
    ----------
    path : path
        File to write; missing parent folders are created.

    Yields
    ------
    binary file
        Of a temporary neighbour. On any exception it is removed and `path` is untouched.

    Raises
    ------
    StorageFullError
        Disk, quota or file size limit.
    """
    path = Path(path).absolute()
    with explain_full_disk(path):
        temporary, descriptor = _new_neighbour(path, directory=False)
        try:
            with temporary.open("wb") as stream:
                yield stream
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path : path
        File to write; missing parent folders are created.
    data : bytes
        Whole content.

    Raises
    ------
    StorageFullError
        Disk, quota or file size limit; the old file is untouched.
    """
    with atomic_file(path) as stream:
        stream.write(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | Path, obj: object) -> None:
    """Write `obj` as indented JSON with sorted keys; see `atomic_write_bytes`.

    Raises
    ------
    ValueError
        `obj` holds NaN or infinity, which JSON does not have: use None.
    """
    text = json.dumps(obj, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    atomic_write_text(path, text + "\n")


def _exists_error(path: Path) -> TargetExistsError:
    message = explain(
        f"{path} exists already",
        expected="a free name",
        found=f"an existing {'folder' if path.is_dir() else 'file'}",
        remedy="delete it, choose another name, or ask for it to be replaced (--force)",
    )
    return TargetExistsError(message)


def _place(temporary: Path, path: Path) -> None:
    """Rename to a free name; another process may have taken it since it was looked at."""
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise _exists_error(path) from error


def _replace(temporary: Path, path: Path) -> None:
    """Swap folders. Killed between the renames, `_clear_leftovers` puts the old one back."""
    old = path.parent / f".{path.name}.old-{secrets.token_hex(4)}"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try_lock(descriptor, path)
        path.rename(old)
        try:
            _place(temporary, path)
        except BaseException:
            old.rename(path)
            raise
        _remove(old)
    finally:
        os.close(descriptor)


@contextmanager
def draft_folder(path: str | Path) -> Iterator[Path]:
    """Lend a locked folder beside `path`, for a library that writes its files in place.

    Parameters
    ----------
    path : path
        What is being written, for the name and to put back a folder that was caught while it was
        replaced; missing parent folders are created.

    Yields
    ------
    pathlib.Path
        Temporary folder on the same file system. It is removed at the end, unless it was renamed;
        what a killed process left is removed by the next call.

    Raises
    ------
    StorageFullError
        A write in the block met a full disk, quota or file size limit.
    """
    path = Path(path).absolute()
    with explain_full_disk(path):
        folder, descriptor = _new_neighbour(path, directory=True)
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder)
            os.close(descriptor)


@contextmanager
def atomic_directory(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Build a folder beside its place and rename it there when it is complete.

    Parameters
    ----------
    path : path
        Folder to create; missing parent folders are created.
    replace : bool
        Put the new folder in the place of an existing one (which stays until the new one is
        complete). Without it, an existing `path` is an error before anything is written.

    Yields
    ------
    pathlib.Path
        Temporary folder on the same file system. It is removed on any exception
        (KeyboardInterrupt too); what a killed process left is removed by the next call.

    Raises
    ------
    StorageFullError
        A write in the block met a full disk, quota or file size limit.
    TargetExistsError
        `path` exists and `replace` is false.
    """
    path = Path(path).absolute()
    with draft_folder(path) as temporary:
        if path.exists() and not replace:
            raise _exists_error(path)
        yield temporary
        _fsync_tree(temporary)
        if path.exists() and replace:
            _replace(temporary, path)
        else:
            _place(temporary, path)
        _fsync(path.parent)


def place_folder(temporary: str | Path, path: str | Path) -> None:
    """Give a complete folder its final name, after its bytes have reached the disk.

    Parameters
    ----------
    temporary, path : path
        On one file system; `path` must be free.

    Raises
    ------
    TargetExistsError
        `path` exists.
    StorageFullError
        Disk or quota, met when the bytes were written out.
    """
    temporary, path = Path(temporary).absolute(), Path(path).absolute()
    with explain_full_disk(path):
        _fsync_tree(temporary)
        _place(temporary, path)
        _fsync(path.parent)
