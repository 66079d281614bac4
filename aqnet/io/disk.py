"""Room on the disk: asked for before a write, and explained when it runs out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aqnet.errors import StorageFullError, explain

__all__ = ["explain_full_disk", "require_free_space"]

_FULL = {
    errno.ENOSPC: "the file system is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit (ulimit -f) is reached",
}


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
