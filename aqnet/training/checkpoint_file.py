"""What a checkpoint holds, and its way to a file and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

import aqnet
from aqnet.code_state import GitState, git_state
from aqnet.config import Config
from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.training.checkpoint_archive import FORECASTER, TRAINING, read_parts, write_parts
from aqnet.training.identity import Identity

__all__ = ["Checkpoint", "Code", "Progress", "read_checkpoint", "write_checkpoint"]

# What torch.compile and DistributedDataParallel put before the names of weights.
_WRAPPED = re.compile(r"module\.|(.*\.)?_orig_mod\.")


class Code(Config):
    """Code that wrote a checkpoint."""

    aqnet: str  # version
    torch: str  # version
    git: GitState  # state of the repository

    @classmethod
    @cache  # what was imported stays what it was
    def running(cls) -> Code:
        """The code of this process."""
        git = git_state(Path(aqnet.__file__).parent)
        return cls(aqnet=aqnet.__version__, torch=str(torch.__version__), git=git)


class Progress(Config):
    """Where in its training a model was; `val_loss` None: not judged."""

    step: int = 0  # optimiser steps
    epoch: int = 0  # epochs done
    val_loss: float | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A forecaster, and optionally the state of its training.

    Attributes
    ----------
    kind : "stations" or "grid"
        Of the forecaster.
    config : ModelConfig
    state : dict of tensors
        `state_dict` of the model, without wrappers.
    arrays : dict of numpy arrays
        `arrays` of the model: statistics, static fields, grid, mask, ridges, scan.
    identity : Identity or None
        What it was trained on; None for weights that were imported and do not say.
    progress : Progress
    parent : str or None
        `sha256` of the checkpoint that training started from.
    trained_with : dict or None
        Settings that decided what training computed, see `aqnet.training.state.what_decides`;
        None for what was not trained here, and in the first files of version 3.
    extra : dict
        Plain values and numeric arrays beside the model, see `Problem.extra`.
    training : dict or None
        Plain values and tensors that resuming needs.
    notes : tuple of str
    code : Code
    sha256, training_sha256 : str or None
        Digests of the content, set by reading.
    """

    kind: str
    config: ModelConfig
    state: dict[str, torch.Tensor]
    arrays: dict[str, np.ndarray]
    identity: Identity | None
    progress: Progress = field(default_factory=Progress)
    parent: str | None = None
    trained_with: dict | None = None
    extra: dict = field(default_factory=dict)
    training: dict | None = None
    notes: tuple[str, ...] = ()
    code: Code = field(default_factory=Code.running)
    sha256: str | None = None
    training_sha256: str | None = None


class _Header(Config):
    """What of a checkpoint is text."""

    kind: str
    config: ModelConfig
    identity: Identity | None
    progress: Progress
    parent: str | None
    trained_with: dict | None = None  # not in the first files of version 3
    notes: tuple[str, ...]
    code: Code


# ---- files


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, whole or not at all; the old file stays until the new one is on disk.

    Returns
    -------
    str
        SHA-256 of the content without the training state: names, types, shapes and values, not
        the bytes of the file.

    Raises
    ------
    ModelError
        A value that cannot be stored, or names of weights with the prefix of a wrapper.
    StorageFullError
        No room; an older file is untouched.
    """
    wrapped = [name for name in checkpoint.state if _WRAPPED.match(name)]
    if wrapped:
        raise ModelError(
            explain(
                "the weights are those of a wrapper (torch.compile, DDP)",
                expected="the names of the model's own state_dict",
                found=f"{len(wrapped)} such names: {wrapped[0]}, ...",
                remedy="pass the state_dict of the unwrapped model",
            )
        )
    header = _Header(**{name: getattr(checkpoint, name) for name in _Header.model_fields})
    forecaster = {
        "header": header.model_dump_json(),
        "state": checkpoint.state,
        "arrays": checkpoint.arrays,
        "extra": checkpoint.extra,
    }
    return write_parts(path, forecaster, checkpoint.training)


def _numbers(value: object) -> object:
    """Stored arrays as numpy again."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_numbers(v) for v in value)
    return value


def _header(path: str | Path, text: str) -> _Header:
    try:
        return _Header.model_validate_json(text)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        message = explain(
            f"checkpoint: {path} has a description that this aqnet does not know",
            expected="values that its configuration models accept",
            found="; ".join(found),
            remedy="read it with the aqnet that wrote it, or a later one",
        )
        raise ModelError(message) from error


def read_checkpoint(path: str | Path, training: bool = False) -> Checkpoint:
    """Read a checkpoint and check every byte of what is asked for.

    Parameters
    ----------
    path : path
    training : bool
        Read the training state as well; otherwise it is not touched.

    Raises
    ------
    ModelError
        No such file, cut, damaged, with code in it, or of another version.
    """
    forecaster, state, digests = read_parts(path, training)
    header = _header(path, forecaster["header"])
    return Checkpoint(
        **{name: getattr(header, name) for name in _Header.model_fields},
        state=forecaster["state"],
        arrays=_numbers(forecaster["arrays"]),
        extra=_numbers(forecaster["extra"]),
        training=state,
        sha256=digests[FORECASTER],
        training_sha256=digests[TRAINING],
    )
