"""Files of precomputed arrays that say what they were computed from and prove they are whole.

One safetensors file (no code can hide in it). Its only metadata entry is a JSON header: kind,
version, spec (everything the arrays were computed from) and the SHA-256 of the spec and the arrays.
Equal content gives equal bytes: no time, host or path is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aqnet.errors import AqnetError, explain
from aqnet.io import atomic_write_bytes, require_free_space

__all__ = ["CacheError", "array_digest", "read_arrays", "write_arrays"]

_HEADER = "aqnet"  # one metadata key: safetensors writes several in an arbitrary order


class CacheError(AqnetError):
    """A file of precomputed arrays is missing, damaged, or made for something else."""


def _canonical(obj: object) -> str:
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)


def array_digest(kind: str, version: int, spec: dict, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of spec and arrays (names, types, shapes, bytes), 64 hexadecimal digits."""
    digest = hashlib.sha256(_canonical([kind, version, spec]).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(_canonical([name, array.dtype.str, array.shape]).encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def write_arrays(
    path: str | Path, kind: str, version: int, spec: dict, arrays: dict[str, np.ndarray]
) -> str:
    """Write arrays, whole or not at all.

    Parameters
    ----------
    path : path
        Usually NAME.safetensors; an existing file is replaced.
    kind : str
        What it is, by the command group that builds it: "terrain", "wind-scan".
    version : int
        Of the algorithm and of the layout; a reader refuses others.
    spec : dict
        Everything the arrays were computed from, as JSON (no NaN; tuples become lists).
    arrays : dict of numpy arrays
        Booleans, integers or floats, little endian.

    Returns
    -------
    str
        content_sha256.

    Raises
    ------
    StorageFullError
        No room; nothing is written then.
    CacheError
        The folder cannot be written.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    spec = json.loads(_canonical(spec))
    digest = array_digest(kind, version, spec, whole)
    header = {"kind": kind, "version": version, "spec": spec, "content_sha256": digest}
    data = save(whole, metadata={_HEADER: _canonical(header)})
    try:
        require_free_space(path, len(data))
        atomic_write_bytes(path, data)
    except OSError as error:  # a full disk is a StorageFullError already
        remedy = "choose a folder that can be written"
        raise _error(Path(path), "cannot be written", "a writable folder", error, remedy) from error
    return digest


def read_arrays(
    path: str | Path,
    kind: str,
    version: int,
    spec: dict | None = None,
    *,
    command: Callable[[], str] | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Read arrays and check every byte of them.

    Parameters
    ----------
    path : path
    kind, version : str, int
        What the file must be.
    spec : dict, optional
        What it must have been computed from; None takes any.
    command : callable, optional
        Gives what builds the file; called for a message alone. By default `aqnet KIND build`.

    Returns
    -------
    spec : dict
    arrays : dict of numpy arrays

    Raises
    ------
    CacheError
        Missing; unreadable; cut short or otherwise not such a file; another kind, version or spec;
        or its content is not the content that was written.
    """
    path = Path(path)

    def remedy() -> str:
        return f"build it with `{command() if command else f'aqnet {kind} build'}`"

    if not path.is_file():
        raise _error(path, "is missing", f"a file of kind {kind!r}", "no such file", remedy())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _error(
            path, "cannot be read", "a readable file", error, "make it readable"
        ) from error
    try:
        header, arrays = _header(data), load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _error(
            path,
            "is not a whole file of arrays",
            "the bytes that were written",
            f"{len(data)} bytes; {error}",
            remedy(),
        ) from error
    _check_header(path, header, kind, version, spec, remedy)
    digest = array_digest(kind, version, header["spec"], arrays)
    if digest != header["content_sha256"]:
        expected, found = f"content {header['content_sha256'][:16]}...", f"{digest[:16]}..."
        raise _error(path, "is damaged", expected, found, remedy())
    return header["spec"], arrays


def _header(data: bytes) -> dict:
    """Header of a safetensors file: 8 bytes of length, then JSON."""
    if len(data) < 8:
        raise ValueError("shorter than the length of its header")
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_HEADER])
    wanted = {"kind": str, "version": int, "spec": dict, "content_sha256": str}
    for name, type_ in wanted.items():
        if not isinstance(header[name], type_):
            raise ValueError(f"{name} of the header is not a {type_.__name__}")
    return header


def _check_header(
    path: Path,
    header: dict,
    kind: str,
    version: int,
    spec: dict | None,
    remedy: Callable[[], str],
) -> None:
    if header["kind"] != kind:
        raise _error(path, "is something else", f"kind {kind!r}", repr(header["kind"]), remedy())
    if header["version"] != version:
        raise _error(path, "has another version", version, header["version"], remedy())
    if spec is None:
        return
    wanted, found = json.loads(_canonical(spec)), header["spec"]
    names = [n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n)]
    if wanted != found:
        raise _error(
            path,
            f"was computed from something else ({', '.join(names)})",
            {n: wanted.get(n, "nothing") for n in names},
            {n: found.get(n, "nothing") for n in names},
            remedy(),
        )


def _error(path: Path, problem: str, expected: object, found: object, remedy: str) -> CacheError:
    return CacheError(explain(f"{path} {problem}", expected=expected, found=found, remedy=remedy))
