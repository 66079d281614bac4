"""The file of a checkpoint: two parts of tensors and plain values, digests over their content.

A zip archive as torch.save writes it: readable with `weights_only=True`, hence without code, and
mapped into memory, so that the state of the optimiser costs nothing where it is not asked for. The
digests are over names, types, shapes and values: equal content has equal digests in any file.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from aqnet.errors import explain
from aqnet.io import atomic_file, require_free_space
from aqnet.model.attention import ModelError

__all__ = ["CHECKPOINT_VERSION", "FORECASTER", "TRAINING", "read_parts", "write_parts"]

CHECKPOINT_VERSION = 3  # since 3: one layout for all kinds of models, identity, training state
FORECASTER, TRAINING = "forecaster", "training"  # the two parts
_KEYS = {"version", "digests", FORECASTER, TRAINING}
_PLAIN = (bool, int, float, str, type(None))
# What zipfile and torch.load raise for archives with damage or code, found by flipping bits.
_DAMAGE = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, ValueError,
           OSError, EOFError, LookupError)  # fmt: skip
_SLACK = 1 << 20  # bytes of an archive beside its tensors, estimated from above


# ---- what can be stored


def _unstorable(where: str, found: str) -> ModelError:
    return ModelError(
        explain(
            f"checkpoint: {where} cannot be stored",
            expected="dense tensors, numeric arrays, numbers, text, true/false, None, and lists, "
            "tuples and dicts of these",
            found=found,
            remedy="convert it: `.item()` for a numpy scalar, `.tolist()` for an array of text",
        )
    )


def _tensor(value: torch.Tensor, where: str) -> torch.Tensor:
    if value.layout != torch.strided or value.is_meta:
        raise _unstorable(where, f"a {value.layout} tensor on {value.device}")
    value = value.detach().cpu().contiguous()
    # torch.save writes the whole storage of a view
    whole = value.untyped_storage().nbytes() == value.nbytes
    return value if whole else value.clone()


def _array(value: np.ndarray, where: str) -> torch.Tensor:
    try:
        return torch.tensor(value)
    except (TypeError, ValueError) as error:
        raise _unstorable(where, f"an array of {value.dtype}: {error}") from error


def _stored(value: object, where: str) -> object:
    """The same tree with CPU tensors for arrays, and plain dicts; nothing that needs code to read.

    Parameters
    ----------
    value : tensor, array, plain value, or dict, list, tuple of these
    where : str
        Name of the value, for messages.

    Raises
    ------
    ModelError
        Names the first value that is of another type (numpy scalars are).
    """
    if isinstance(value, torch.Tensor):
        return _tensor(value, where)
    if isinstance(value, np.ndarray):
        return _array(value, where)
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise _unstorable(f"a key of {where}", f"{key!r:.60} ({type(key).__name__})")
        return {k: _stored(v, f"{where}.{k}") for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_stored(v, f"{where}[{i}]") for i, v in enumerate(value))
    # the exact type: a numpy float64 is a float, but only numpy can unpickle it
    if type(value) not in _PLAIN:
        raise _unstorable(where, f"{value!r:.60} ({type(value).__name__})")
    return value


# ---- digest


def _feed(state: hashlib._Hash, value: object) -> None:
    if isinstance(value, torch.Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        state.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        state.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=repr):  # keys are text or integers
            state.update(f"{key!r}:".encode())
            _feed(state, value[key])
    elif isinstance(value, (list, tuple)):
        state.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(f"{type(value).__name__} {value!r};".encode())


def _digest(*parts: object) -> str:
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def _digests(forecaster: object, training: object) -> dict[str, str | None]:
    own = _digest(CHECKPOINT_VERSION, forecaster)
    # of both: a training state goes with its weights
    return {FORECASTER: own, TRAINING: None if training is None else _digest(own, training)}


# ---- file


def _bytes_of(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes + 512  # alignment and headers of a record
    if isinstance(value, dict):
        return sum(_bytes_of(v) for v in value.values())
    return sum(_bytes_of(v) for v in value) if isinstance(value, (list, tuple)) else 0


def write_parts(path: str | Path, forecaster: dict, training: dict | None) -> str:
    """Write a file, whole or not at all; tensors go to the disk one by one.

    Parameters
    ----------
    path : path
        An existing file is replaced when the new one is complete and on the disk.
    forecaster, training : dict
        Dicts, lists and tuples of tensors, numeric arrays, numbers, text, true/false and None.

    Returns
    -------
    str
        SHA-256 of the content of `forecaster`.

    Raises
    ------
    ModelError
        A value cannot be stored.
    StorageFullError
        No room; an older file is untouched.
    """
    parts = {
        FORECASTER: _stored(forecaster, FORECASTER),
        TRAINING: _stored(training, TRAINING),
    }
    digests = _digests(parts[FORECASTER], parts[TRAINING])
    require_free_space(path, _bytes_of(parts) + _SLACK)
    with atomic_file(path) as stream:
        torch.save({"version": CHECKPOINT_VERSION, "digests": digests, **parts}, stream)
    return digests[FORECASTER]


def _unreadable(path: Path, problem: str, expected: object, found: object, remedy: str = ""):
    remedy = remedy or "use another copy of the file, or train again (`aqnet run`)"
    return ModelError(
        explain(f"checkpoint: {path} {problem}", expected=expected, found=found, remedy=remedy)
    )


def _mapped(path: Path) -> object:
    """Content of the archive, tensors mapped from the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if "/data/" not in name:  # tensors; the digests are for them
                    archive.read(name)  # checks its CRC
        return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except _DAMAGE as problem:
        found = f"{type(problem).__name__}: {problem}".splitlines()[0]
        raise _unreadable(
            path, "cannot be read", "a whole checkpoint without code", found
        ) from problem


def _check_layout(path: Path, content: object) -> dict:
    """The content of a file of this version; an error that says what it is instead."""
    version, found = None, f"a {type(content).__name__}"
    if isinstance(content, dict):
        names = sorted(map(str, content))
        found = f"{len(names)} entries: {', '.join(names[:10])}{', ...' * (len(names) > 10)}"
        version = content.get("version") if type(content.get("version")) is int else None
    if version in (1, 2):
        remedy = (
            "train again with `aqnet run`, or evaluate it with the code it was trained with: "
            "provenance.json of its run folder names the commit"
        )
        raise _unreadable(
            path, f"is of version {version}", f"version {CHECKPOINT_VERSION}", found, remedy
        )
    if version is not None and version > CHECKPOINT_VERSION:
        remedy = "read it with the aqnet that wrote it, or a later one"
        expected, found = f"version {CHECKPOINT_VERSION}", f"version {version}"
        raise _unreadable(path, "was written by a later aqnet", expected, found, remedy)
    if version != CHECKPOINT_VERSION or set(content) != _KEYS:
        remedy = "for a state dict of the published model: `aqnet checkpoint import`"
        raise _unreadable(path, "is no checkpoint of aqnet", sorted(_KEYS), found, remedy)
    return content


def _own(value: object) -> object:
    """A copy in memory: nothing keeps pointing into the file, which may be replaced."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _own(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_own(v) for v in value)
    return value


def read_parts(path: str | Path, training: bool) -> tuple[dict, dict | None, dict]:
    """Read a file and check every byte of what is asked for.

    Parameters
    ----------
    path : path
    training : bool
        Read the training state too; otherwise it is not touched.

    Returns
    -------
    forecaster, training : dict
        `training` is None if it is not asked for or not there.
    digests : dict
        SHA-256 by part; None for a part that the file does not have.

    Raises
    ------
    ModelError
        No such file, cut, damaged, with code in it, or of another version or layout.
    """
    path = Path(path)
    if not path.is_file():
        raise _unreadable(path, "does not exist", "a file", "nothing", "check the path, or train")
    content = _check_layout(path, _mapped(path))
    wanted = content[TRAINING] if training else None
    found, digests = _digests(content[FORECASTER], wanted), content["digests"]
    for part in (FORECASTER, TRAINING) if training else (FORECASTER,):
        if digests[part] != found[part]:
            raise _unreadable(path, f"is damaged ({part})", digests[part], found[part])
    return _own(content[FORECASTER]), _own(wanted), digests
