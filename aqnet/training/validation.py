"""Judging a model on the whole validation split, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric import Fabric

from aqnet.errors import RunError, explain
from aqnet.metrics import FIELDS, ErrorSums
from aqnet.model.forecast_model import ForecastModel
from aqnet.training.loss import CellLoss, by_lead

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """Outcome over all samples; cells of a lead time and pollutant that has none are NaN.

    Attributes
    ----------
    loss : float
        Weighted sum over all known cells divided by their number [1], as in training.
    losses : (L, 6) float64
        The same of each lead time and pollutant [1].
    errors : ErrorSums
        Of the raw forecast, before negative concentrations are cut off, cells (L, 6), ug/m3; for
        RMSE, MAE and bias (the correlation would need forecast and truth).
    rmse : (L, 6) float64
        Of `errors`, ug/m3.
    """

    loss: float
    losses: np.ndarray
    errors: ErrorSums

    @property
    def rmse(self) -> np.ndarray:
        """Root mean square error of each lead time and pollutant, ug/m3."""
        return self.errors.rmse()


def _sums(model: ForecastModel, loss: CellLoss, batch: dict) -> torch.Tensor:
    """Loss, cells, and error, its square and size in ug/m3, (5, L, 6) float64."""
    terms, leads = model.terms(batch), len(loss.weights)
    error = terms.error.double()
    physical = terms.scale * error
    parts = [loss(error), terms.weight.double(), physical, physical.square(), physical.abs()]
    sums = [by_lead(values, terms.lead, leads) for values in torch.stack(parts).sum((-2, -1))]
    return torch.stack([sums[0] * loss.weights, *sums[1:]])


def _error_sums(
    cells: np.ndarray, total: np.ndarray, squares: np.ndarray, size: np.ndarray
) -> ErrorSums:
    """Reduced sums as `ErrorSums`, so that logs and reports share their scores."""
    mean = total / np.where(cells > 0, cells, 1.0)
    zero = np.zeros(cells.shape)
    moments = dict.fromkeys(FIELDS, zero) | {"n": cells, "weight": cells, "mean_d": mean}
    moments["m_dd"] = np.maximum(squares - cells * mean**2, 0.0)
    return ErrorSums(cells.shape).add_moments(moments | {"sum_abs": size})


@torch.no_grad()
def judge(
    model: ForecastModel,
    loss: CellLoss,
    batches: Iterable[dict],
    fabric: Fabric,
    pause: Callable[[int], None] = lambda number: None,
) -> Judgement:
    """Judge a model; each rank brings its part of the samples, each sample once.

    Sums are float64 and reduced once at the end, so neither the batch size nor the number of
    processes matters beyond rounding. Ranks may have different numbers of batches.

    Parameters
    ----------
    model : ForecastModel
    loss : CellLoss
    batches : iterable of dict
        Of this rank.
    fabric : Fabric
    pause : callable
        Called with the number of batches done, after each.

    Raises
    ------
    RunError
        The outcome is not finite, or no cell is known. It is never replaced by a number.
    """
    sums = torch.zeros((5, *loss.weights.shape), dtype=torch.float64, device=fabric.device)
    training = model.training
    model.eval()
    for number, batch in enumerate(batches, start=1):
        with fabric.autocast():
            sums += _sums(model, loss, fabric.to_device(batch))
        pause(number)
    model.train(training)
    total, cells, *errors = fabric.all_reduce(sums, reduce_op="sum").cpu().numpy()
    value = float(total.sum() / cells.sum()) if cells.sum() else float("nan")
    if not np.isfinite(value):
        raise RunError(
            explain("the validation loss is not finite", expected="a number",
                    found=f"{value}, over {int(cells.sum())} known cells",
                    remedy="lower learning_rate; look at the validation split for missing values")
        )  # fmt: skip
    known = np.where(cells > 0, cells, np.nan)
    return Judgement(value, total / known, _error_sums(cells, *errors))
