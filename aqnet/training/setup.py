"""What is fitted before gradient descent: statistical forecasts, their choice, the regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from aqnet.data.stations.samples import (
    ForecastSamples,
    GriddedFields,
    StationRecords,
    observed_at,
)
from aqnet.errors import DataError, explain
from aqnet.grid import Grid
from aqnet.metrics import ErrorSums, lowest_rmse
from aqnet.model.config import ModelConfig
from aqnet.model.domain import Domain
from aqnet.model.forecaster import Forecaster
from aqnet.model.regression import fit_hourly_regression
from aqnet.model.statistical import (
    STATISTICAL,
    StatisticalForecasts,
    fit_statistical,
    situation_at,
)
from aqnet.training.config import TrainingConfig
from aqnet.training.seeds import derive
from aqnet.variables import TARGETS

__all__ = ["Preparation", "batches", "choose_start", "prepare"]

_BATCH = 512


@dataclass(frozen=True)
class Preparation:
    """A forecaster ready for gradient descent, and what it was built from.

    Attributes
    ----------
    model : Forecaster
    statistical : StatisticalForecasts
        Fitted at the assimilated stations, training split.
    chosen : (L, 6) array of str
        Statistical forecast with the lowest RMSE in the validation year, per cell.
    residual_variance : (L, 6) float64
        Mean square of the normalised residual of the start, training split [1].
    scored : (L, 6) float64
        Number of scored cells of the training split.
    """

    model: Forecaster
    statistical: StatisticalForecasts
    chosen: np.ndarray
    residual_variance: np.ndarray
    scored: np.ndarray

    @property
    def loss_weights(self) -> torch.Tensor:
        """Weights (L, 6) of squared errors in the sum over all scored cells, over their number.

        Each lead time and pollutant then counts the same, however many of its cells are scored,
        and a loss of 1 is that of the uncorrected start on the training split.
        """
        weights = self.scored.mean() / (self.scored * self.residual_variance)
        return torch.as_tensor(weights, dtype=torch.float32)


def batches(samples: ForecastSamples, size: int = _BATCH) -> Iterator[dict[str, torch.Tensor]]:
    """All samples of a split in order, in batches."""
    for start in range(0, len(samples), size):
        yield samples.__getitems__(range(start, min(start + size, len(samples))))


def choose_start(
    statistical: StatisticalForecasts, stations: StationRecords, validation: ForecastSamples
) -> np.ndarray:
    """Index (L, 6) into STATISTICAL: lowest RMSE at the assimilated stations, validation year.

    Choosing among fixed forecasts, like choosing a checkpoint, is what the validation split is
    for; nothing is fitted on it.
    """
    leads = statistical.lead_times_h
    situation = situation_at(stations.history, validation.rows, leads)
    truth = observed_at(stations, validation.rows, leads)[..., ~stations.withheld]
    found = []
    for name in STATISTICAL:
        forecast = statistical(name, situation)[..., ~stations.withheld]
        known = np.isfinite(forecast)
        sums = ErrorSums(truth.shape[1:3])
        sums.update(np.where(known, forecast, 0.0), np.where(known, truth, np.nan))
        found.append(sums)
    return lowest_rmse(found)


def _residuals(model: Forecaster, samples: ForecastSamples) -> Iterator[dict[str, np.ndarray]]:
    """Per batch: domain-mean channels, calendar, normalised residual of the start and weights."""
    for batch in batches(samples):
        residual = (batch["target"] - model.start(batch)) / model.scale(batch) * batch["weight"]
        cells = batch["weight"].sum((3, 4))
        yield {
            "predictors": model.channels(batch).mean((2, 3)).numpy(),
            "calendar": batch["calendar"].numpy() * model.config.calendar,
            "square": residual.square().sum((0, 3, 4)).double().numpy(),
            "weight": cells.sum(0).double().numpy(),
            "mean": (residual.sum((3, 4)) / torch.where(cells > 0, cells, torch.nan)).numpy(),
        }


def _require_scored(scored: np.ndarray, leads: tuple[int, ...]) -> None:
    empty = [f"{TARGETS[p]} at {leads[lead]} h" for lead, p in np.argwhere(scored == 0)]
    if empty:
        raise DataError(
            explain(
                "a pollutant has no truth in the training split",
                expected="scored cells of each pollutant at each lead time",
                found=f"none of {', '.join(empty)}",
                remedy="look at the targets of the store, or choose another training period",
            )
        )


@torch.no_grad()
@threadpool_limits.wrap(limits=1, user_api="blas")
def prepare(
    fields: GriddedFields,
    stations: StationRecords,
    grid: Grid,
    model_config: ModelConfig,
    training: TrainingConfig,
) -> Preparation:
    """Fit what has a closed form, on the training split, and build the model around it.

    Parameters
    ----------
    fields : GriddedFields
    stations : StationRecords
    grid : Grid
        Of the fields.
    model_config : ModelConfig
    training : TrainingConfig
        Gives the ridge penalty and the seed of the initial weights.

    Raises
    ------
    DataError
        A pollutant is never known in the training split at a lead time.
    """
    leads = model_config.lead_times_h
    train = ForecastSamples(fields, "train", leads)
    validation = ForecastSamples(fields, "validation", leads)
    truth = observed_at(stations, train.rows, leads)
    truth[..., stations.withheld] = np.nan  # a pair without truth is not used in the fit
    statistical = fit_statistical(
        stations.history, train.times, truth, leads, fields.splits["train"]
    )
    chosen = choose_start(statistical, stations, validation)
    start = np.take_along_axis(statistical.weights, chosen[None, ..., None], axis=0)[0]
    torch.manual_seed(derive(training.seed, "model"))
    domain = Domain(grid, np.ones(grid.shape, dtype=bool), fields.static)
    model = Forecaster(model_config, domain, fields.normaliser, start)
    parts = list(_residuals(model, train))
    if model_config.linear_part:
        z, calendar, mean = (
            np.concatenate([part[name] for part in parts])
            for name in ("predictors", "calendar", "mean")
        )
        model.set_linear_part(fit_hourly_regression(z, calendar, mean, training.ridge_penalty))
    square, scored = (sum(part[name] for part in parts) for name in ("square", "weight"))
    _require_scored(scored, leads)
    names = np.array(STATISTICAL)[chosen]
    return Preparation(model, statistical, names, square / scored, scored)
