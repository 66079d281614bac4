"""Locks on files and folders, which the kernel drops when the process that holds one dies.

A process number would not do: it is reused, and it means nothing on another host or in another
container of the same file system.

Over NFS the kernel turns these locks into locks of the server, and an exclusive one needs a file
that is open for writing (flock(2)). A folder cannot be opened so: there its lock may be refused, or
hold on this host alone. Do not rely on two hosts seeing each other's folders as locked.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from aqnet.errors import AqnetError, explain

__all__ = ["lock_existing", "lock_folder", "try_lock", "unlock_folder"]


def try_lock(descriptor: int, path: Path) -> bool:
    """Lock what is open as `descriptor`; False if another process holds it.

    Raises
    ------
    AqnetError
        The file system of `path` has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        message = explain(
            f"cannot lock {path}",
            expected="a file system with file locks (flock)",
            found=os.strerror(error.errno),
            remedy="point AQNET_DATA and AQNET_RUNS to a file system with locks "
            "(on Lustre: mounted with the option `flock`)",
        )
        raise AqnetError(message) from error
    return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the opened entry (a cleaner may have removed it meanwhile)."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """Open for writing, as NFS wants it for a lock, where that can be."""
    try:
        return os.open(path, os.O_RDWR)
    except (IsADirectoryError, PermissionError):  # a folder, or what another user has left
        return os.open(path, os.O_RDONLY)


def lock_existing(path: Path) -> int | None:
    """Open and lock `path`; None if another process holds it or it is gone."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None
    mine = False
    try:
        mine = try_lock(descriptor, path) and _is_open_at(descriptor, path)
    finally:
        if not mine:
            os.close(descriptor)
    return descriptor if mine else None


def lock_folder(path: str | Path) -> int | None:
    """Create a folder if need be and hold it, until `unlock_folder` or the end of this process.

    Processes forked meanwhile hold it too, so that a killed parent's workers are waited for.

    Parameters
    ----------
    path : path
        Folder; missing parents are created.

    Returns
    -------
    int or None
        Descriptor for `unlock_folder`; None if another process holds the folder.

    Raises
    ------
    AqnetError
        The file system has no locks.
    """
    path = Path(path).absolute()
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # renamed or removed by its holder
            continue
        if not try_lock(descriptor, path):
            os.close(descriptor)
            return None
        if _is_open_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def unlock_folder(descriptor: int) -> None:
    """Let go of a folder held by `lock_folder`, for processes forked meanwhile too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
