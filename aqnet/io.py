"""Files: writes that either happen completely or not at all, digests, and where things live."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aqnet.errors import AqnetError, StorageFullError, TargetExistsError, explain

__all__ = [
    "atomic_directory",
    "atomic_file",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "data_root",
    "explain_full_disk",
    "lock_folder",
    "place_folder",
    "repository_root",
    "require_free_space",
    "runs_root",
    "sha256_file",
    "sha256_json",
    "unlock_folder",
]

_FULL = {
    errno.ENOSPC: "the file system is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit (ulimit -f) is reached",
}
_ROOT_MARKS = ("settings.ini", "data_manifests")


# ---- room on the disk


def _existing_parent(path: Path) -> Path:
    path = Path(path).absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def _free_text(path: Path) -> str:
    free = shutil.disk_usage(_existing_parent(path)).free
    return f"{free / 1e6:.1f} MB free on the file system of {path}"


def _full_errno(error: BaseException | None) -> int | None:
    """Find a full-disk errno in `error` or in what caused it (libraries wrap OSError)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def explain_full_disk(path: str | Path) -> Iterator[None]:
    """Turn a full disk, quota or file size limit met in the block into a StorageFullError.

    Parameters
    ----------
    path : path
        What is being written, for the message.

    Raises
    ------
    StorageFullError
        An OSError of that kind was raised, directly or as the cause of another error.
    """
    try:
        yield
    except StorageFullError:
        raise
    except Exception as error:
        code = _full_errno(error)
        if code is None:
            raise
        message = explain(
            f"cannot write {path}: {_FULL[code]}",
            expected="room for the whole file or folder",
            found=f"{_free_text(Path(path))}; {os.strerror(code)}",
            remedy="delete old folders under runs/ or data/, raise the quota or `ulimit -f`, "
            "or point AQNET_DATA and AQNET_RUNS to another file system; then run again",
        )
        raise StorageFullError(message) from error


def require_free_space(path: str | Path, needed_bytes: int) -> None:
    """Refuse to start a write for which there is no room.

    Parameters
    ----------
    path : path
        Where the write will happen; it need not exist yet.
    needed_bytes : int
        Expected size, bytes.

    Raises
    ------
    StorageFullError
        Fewer than `needed_bytes` are free.
    """
    if shutil.disk_usage(_existing_parent(Path(path))).free >= needed_bytes:
        return
    message = explain(
        f"not enough room to write {path}",
        expected=f"{needed_bytes / 1e6:.1f} MB free",
        found=_free_text(Path(path)),
        remedy="delete old folders under runs/ or data/, "
        "or point AQNET_DATA and AQNET_RUNS to another file system",
    )
    raise StorageFullError(message)


# ---- temporary neighbours
#
# A temporary entry `.NAME.new-XXXX` (or `.NAME.old-XXXX` while a folder is being replaced) is
# held by an flock on itself. The kernel drops the lock when the process dies, whatever kills
# it, so an entry that can be locked is a leftover. A process number would not do: it is reused,
# and it means nothing on another host or in another container of the same file system.


def _try_lock(descriptor: int, path: Path) -> bool:
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


def _lock_existing(path: Path) -> int | None:
    """Open and lock `path`; None if another process holds it or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    mine = False
    try:
        mine = _try_lock(descriptor, path) and _is_open_at(descriptor, path)
    finally:
        if not mine:
            os.close(descriptor)
    return descriptor if mine else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear_leftovers(path: Path) -> None:
    """Remove temporary entries of dead processes; put back a folder caught while replaced."""
    for kind in ("old", "new"):
        for leftover in sorted(path.parent.glob(f".{path.name}.{kind}-*")):
            descriptor = _lock_existing(leftover)
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
        descriptor = _lock_existing(temporary)
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
        _try_lock(descriptor, path)
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
    with explain_full_disk(path):
        temporary, descriptor = _new_neighbour(path, directory=True)
        try:
            if path.exists() and not replace:
                raise _exists_error(path)
            yield temporary
            _fsync_tree(temporary)
            if path.exists() and replace:
                _replace(temporary, path)
            else:
                _place(temporary, path)
            _fsync(path.parent)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
            os.close(descriptor)


# ---- folders that outlive the process that builds them


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
        if not _try_lock(descriptor, path):
            os.close(descriptor)
            return None
        if _is_open_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def unlock_folder(descriptor: int) -> None:
    """Let go of a folder held by `lock_folder`, for processes forked meanwhile too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


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


# ---- digests


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(obj: object) -> str:
    """SHA-256 of `obj` as canonical JSON (sorted keys, no spaces, UTF-8, no NaN).

    Raises
    ------
    ValueError
        `obj` holds NaN or infinity.
    TypeError
        `obj` holds something that JSON does not have.
    """
    text = json.dumps(
        obj, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# ---- places


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


def runs_root() -> Path:
    """Folder of the run folders: $AQNET_RUNS, or `runs` in the repository."""
    given = os.environ.get("AQNET_RUNS")
    return Path(given).absolute() if given else repository_root() / "runs"
