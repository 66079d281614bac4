"""Checkpoints: weights with everything that gives them meaning, readable without pickle."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from aqnet.data.normalisation import Normaliser, arrays_of, normaliser_of_arrays
from aqnet.errors import DataError, explain
from aqnet.io import atomic_write_bytes
from aqnet.model.attention import ModelError
from aqnet.model.forecaster import Forecaster, ForecasterConfig
from aqnet.model.statistical import StatisticalForecasts

__all__ = [
    "CHECKPOINT_VERSION",
    "LoadedForecaster",
    "load_checkpoint",
    "save_checkpoint",
    "set_share",
]

CHECKPOINT_VERSION = 2  # since 2: numbers of harmonics of the normaliser
_KEYS = ("version", "config", "state", "normaliser", "normaliser_sha256", "statistical",
         "chosen", "static", "store_sha256", "residual_variance")


class LoadedForecaster:
    """A forecaster from a checkpoint.

    Attributes
    ----------
    model : Forecaster, in evaluation mode
    normaliser : Normaliser
    statistical : StatisticalForecasts
    chosen : (L, 6) array of str
        Statistical forecast that is corrected, per lead time and pollutant.
    store_sha256 : str
        Content of the store it was trained on.
    """

    def __init__(self, content: dict) -> None:
        config = _config_of(content["config"])
        self.normaliser = _normaliser_of(content["normaliser"])
        if self.normaliser.digest != content["normaliser_sha256"]:
            raise _unusable("the normaliser is damaged", content["normaliser_sha256"],
                            self.normaliser.digest)
        self.statistical = StatisticalForecasts(
            tuple(config.lead_times_h), content["statistical"].numpy()
        )
        self.chosen = np.array(content["chosen"])
        self.store_sha256 = content["store_sha256"]
        start = content["state"]["start_weights"].numpy()
        self.model = Forecaster(config, self.normaliser, content["static"].numpy(), start)
        _fill(self.model, content["state"])
        self.model.eval()


def _unusable(problem: str, expected: object, found: object) -> ModelError:
    remedy = "train again: aqnet run nbs/train/beijing.ipynb"
    return ModelError(explain(f"checkpoint: {problem}", expected=expected, found=found,
                              remedy=remedy))


def _config_of(text: str) -> ForecasterConfig:
    try:
        return ForecasterConfig.model_validate_json(text)
    except ValidationError as error:
        wrong = [".".join(map(str, problem["loc"])) for problem in error.errors()]
        known = sorted(ForecasterConfig.model_fields)
        raise _unusable("the configuration is not valid", f"values of {known}",
                        f"problems with {wrong}") from error


def _normaliser_of(tensors: dict[str, torch.Tensor]) -> Normaliser:
    try:
        return normaliser_of_arrays({name: v.numpy() for name, v in tensors.items()})
    except DataError as error:
        raise _unusable("the normaliser is damaged", "fields that fit each other",
                        str(error).splitlines()[0]) from error


def _fill(model: Forecaster, state: dict[str, torch.Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        differ = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
        raise _unusable("the weights do not fit the configuration",
                        {n: expected.get(n) for n in differ}, {n: found.get(n) for n in differ})
    model.load_state_dict(state)


def save_checkpoint(
    path: str | Path,
    model: Forecaster,
    normaliser: Normaliser,
    statistical: StatisticalForecasts,
    chosen: np.ndarray,
    static: np.ndarray,
    store_sha256: str,
    residual_variance: np.ndarray,
) -> None:
    """Write a checkpoint in one piece; tensors and plain values only.

    Raises
    ------
    StorageFullError
        No room; an older file is untouched.
    """
    arrays = {name: torch.as_tensor(v) for name, v in arrays_of(normaliser).items()}
    content = {
        "version": CHECKPOINT_VERSION,
        "config": model.config.model_dump_json(),
        "state": {k: v.detach().cpu() for k, v in model.state_dict().items()},
        "normaliser": arrays,
        "normaliser_sha256": normaliser.digest,
        "statistical": torch.as_tensor(statistical.weights),
        "chosen": chosen.tolist(),
        "static": torch.as_tensor(static),
        "store_sha256": store_sha256,
        "residual_variance": torch.as_tensor(residual_variance),
    }
    _write(path, content)


def _write(path: str | Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write_bytes(path, buffer.getvalue())


def set_share(path: str | Path, share: float) -> None:
    """Set the share of the correction that a stored forecaster applies, 0 to 1.

    Raises
    ------
    ModelError
        The share is outside [0, 1], or the file is not a checkpoint.
    """
    if not 0 <= share <= 1:
        raise ModelError(explain("no share of a correction", expected="a number from 0 to 1",
                                 found=share, remedy="correct `correction_share`"))
    load_checkpoint(path)
    content = _read(Path(path))
    content["state"]["share"] = torch.tensor(float(share))
    _write(path, content)


def _read(path: Path) -> object:
    """What the file holds: an archive with checksums, of tensors and plain values."""
    expected = "a checkpoint as save_checkpoint writes it"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        content = None if damaged else torch.load(path, weights_only=True, map_location="cpu")
    except (zipfile.BadZipFile, pickle.UnpicklingError) as problem:
        found = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
        raise _unusable(f"{path} cannot be read", expected, found) from problem
    if damaged:
        raise _unusable(f"{path} cannot be read", expected, f"a wrong checksum of {damaged}")
    return content


def load_checkpoint(path: str | Path) -> LoadedForecaster:
    """Read a checkpoint of `save_checkpoint`.

    Raises
    ------
    ModelError
        No such file, cut or damaged, not a checkpoint of this version, or the normaliser does
        not match its hash.
    """
    path = Path(path)
    if not path.is_file():
        raise _unusable(f"{path} does not exist", "a file", "nothing")
    content = _read(path)
    if not isinstance(content, dict) or set(content) != set(_KEYS):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise _unusable(f"{path} has another layout", sorted(_KEYS), found)
    if content["version"] != CHECKPOINT_VERSION:
        raise _unusable(f"{path} is of another version", CHECKPOINT_VERSION, content["version"])
    return LoadedForecaster(content)
