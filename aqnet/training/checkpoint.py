"""Checkpoints: weights with everything that gives them meaning, readable on any machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from aqnet.data.normalisation import Normaliser
from aqnet.errors import explain
from aqnet.io import sha256_json
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.forecast_model import ForecastModel
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.training.checkpoint_archive import CHECKPOINT_VERSION
from aqnet.training.checkpoint_file import (
    Checkpoint,
    Code,
    Progress,
    read_checkpoint,
    write_checkpoint,
)
from aqnet.training.identity import Identity
from aqnet.training.identity_difference import identity_differences
from aqnet.variables import DYNAMIC, STATIC

if TYPE_CHECKING:
    from aqnet.model.statistical import StatisticalForecasts

__all__ = [
    "CHECKPOINT_VERSION",
    "Checkpoint",
    "Code",
    "LoadedForecaster",
    "Progress",
    "build_model",
    "check_fits",
    "fill_model",
    "load_checkpoint",
    "read_checkpoint",
    "set_share",
    "write_checkpoint",
]

_KINDS = ("stations", "grid")


def check_fits(
    checkpoint: Checkpoint, identity: Identity, config: ModelConfig | None = None
) -> None:
    """Refuse a checkpoint that was trained on something else.

    Parameters
    ----------
    checkpoint : Checkpoint
    identity : Identity
        Of what is here.
    config : ModelConfig, optional
        Of the model here, to refuse other `ModelConfig.settings` as well: a dropout has no weights.

    Raises
    ------
    ModelError
        Data, grid, mask, variables, statistics, wind scan, terrain or settings differ; says which
        and how.
    """
    if checkpoint.identity is None:
        raise ModelError(
            explain("the checkpoint does not say what it was trained on",
                    expected="a record of its data", found="; ".join(checkpoint.notes) or "none",
                    remedy="train it here (`aqnet run`): imported weights have no such record")
        )  # fmt: skip
    found = identity_differences(checkpoint.identity, identity)
    if config is not None:
        both = [each.settings() for each in (checkpoint.config, config)]
        found |= {n: (a, both[1][n]) for n, a in both[0].items() if a != both[1][n]}
    _refuse(found, "the checkpoint was trained with other", "as trained", "here",
            "open what it was trained on, or train again on what is here")  # fmt: skip


def _refuse(found: dict[str, tuple], problem: str, one: str, two: str, remedy: str) -> None:
    if not found:
        return
    sides = ["; ".join(f"{name}: {both[i]}" for name, both in found.items()) for i in (0, 1)]
    raise ModelError(
        explain(f"{problem}: {', '.join(found)}", expected=f"{one}: {sides[0]}",
                found=f"{two}: {sides[1]}", remedy=remedy)
    )  # fmt: skip


def fill_model(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put in the weights of a checkpoint.

    Raises
    ------
    ModelError
        A name, shape or type is not exactly the model's.
    """
    sides = [
        {n: (*v.shape, str(v.dtype).removeprefix("torch.")) for n, v in each.items()}
        for each in (model.state_dict(), state)
    ]
    differ = sorted(n for n in {*sides[0], *sides[1]} if sides[0].get(n) != sides[1].get(n))
    if differ:
        shown = [{n: side.get(n, "nothing") for n in differ[:4]} for side in sides]
        raise ModelError(
            explain(f"the weights do not fit the configuration: {len(differ)} names differ",
                    expected=shown[0], found=shown[1],
                    remedy="read it with the aqnet that wrote it (`aqnet checkpoint inspect`)")
        )  # fmt: skip
    model.load_state_dict(state)


def _of_stations() -> type[ForecastModel]:
    # A training on fields opens no file of it: hundreds of processes start at once.
    from aqnet.model.forecaster import Forecaster

    return Forecaster


def build_model(checkpoint: Checkpoint) -> ForecastModel:
    """The model of a checkpoint in evaluation mode, built from the checkpoint alone.

    Raises
    ------
    ModelError
        An unknown kind, arrays that are missing, or weights whose names, shapes or types are not
        exactly the model's.
    """
    if checkpoint.kind not in _KINDS:
        raise ModelError(
            explain("a checkpoint of an unknown kind", expected=" or ".join(_KINDS),
                    found=checkpoint.kind, remedy="read it with the aqnet that wrote it")
        )  # fmt: skip
    kind = GridForecaster if checkpoint.kind == "grid" else _of_stations()
    model = kind.from_arrays(checkpoint.config, checkpoint.arrays)
    fill_model(model, checkpoint.state)
    return model.eval()


@dataclass(frozen=True, eq=False)
class LoadedForecaster:
    """A forecaster from a checkpoint, ready to be judged.

    Attributes
    ----------
    checkpoint : Checkpoint
    model : ForecastModel, in evaluation mode
    normaliser : Normaliser
    statistical : StatisticalForecasts or None
    chosen : (L, 6) array of str or None
        Statistical forecast that is corrected, per lead time and pollutant. Both None for fields.
    """

    checkpoint: Checkpoint
    model: ForecastModel
    normaliser: Normaliser
    statistical: StatisticalForecasts | None
    chosen: np.ndarray | None

    @property
    def store_sha256(self) -> str:
        """Content of the stores it was trained on; of several, the SHA-256 of their digests."""
        if self.checkpoint.identity is None:
            return "not recorded"
        digests = [digest for _, digest in self.checkpoint.identity.stores]
        return digests[0] if len(digests) == 1 else sha256_json(digests)


def _check_own(checkpoint: Checkpoint, model: ForecastModel) -> None:
    """What the model was built from is what the record of its training names."""
    if checkpoint.identity is None:
        return
    held: dict = model.domain.digests() | {"normaliser_sha256": model.normaliser.digest}
    # arrays and weights know a variable by its place alone
    held |= {"variables": DYNAMIC, "static_variables": STATIC}
    other = identity_differences(checkpoint.identity, checkpoint.identity.model_copy(update=held))
    _refuse(other, "the checkpoint does not hold what it was trained on", "as trained", "held",
            "train again, or read it with the aqnet that wrote it")  # fmt: skip


def _statistical(checkpoint: Checkpoint) -> tuple[StatisticalForecasts, np.ndarray]:
    from aqnet.model.statistical import StatisticalForecasts  # as `_of_stations`

    names, extra = ("statistical", "chosen"), checkpoint.extra
    if not set(names) <= set(extra):
        raise ModelError(
            explain("a checkpoint for stations without its statistical forecasts",
                    expected=" and ".join(names), found=", ".join(extra) or "nothing",
                    remedy="write it with the `extra` of its training problem")
        )  # fmt: skip
    leads = checkpoint.config.lead_times_h
    return StatisticalForecasts(leads, extra["statistical"]), np.array(extra["chosen"])


def load_checkpoint(path: str | Path) -> LoadedForecaster:
    """Read a checkpoint and build its forecaster, from this file alone.

    Raises
    ------
    ModelError
        As `read_checkpoint` and `build_model`; or grid, mask, scan, terrain, normaliser or the
        order of the variables are not those that the record of its training names.
    """
    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint)
    _check_own(checkpoint, model)
    statistical = chosen = None
    if checkpoint.kind == "stations":
        statistical, chosen = _statistical(checkpoint)
    return LoadedForecaster(checkpoint, model, model.normaliser, statistical, chosen)


def set_share(path: str | Path, share: float) -> None:
    """Set the share of the correction that a stored forecaster applies, 0 to 1.

    `best.ckpt` is a link to one of the best checkpoints; from then on it is a file of its own, and
    that one stays as it was trained and judged, with the whole correction.

    Raises
    ------
    ModelError
        The share is outside [0, 1], the file is no checkpoint, or its model corrects nothing.
    """
    if not 0 <= share <= 1:
        raise ModelError(
            explain("no share of a correction", expected="a number from 0 to 1",
                    found=share, remedy="correct `correction_share`")
        )  # fmt: skip
    checkpoint = read_checkpoint(path, training=True)
    if "share" not in checkpoint.state:
        raise ModelError(
            explain(f"{path} holds no share of a correction", expected="a forecaster for stations",
                    found=f"kind {checkpoint.kind!r}", remedy="leave `correction_share` alone")
        )  # fmt: skip
    state = checkpoint.state | {"share": torch.full_like(checkpoint.state["share"], share)}
    write_checkpoint(path, replace(checkpoint, state=state))
