"""Forecasts of a split, of the model and its rivals, at stations and on the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from aqnet.data.climatology import fit_climatology
from aqnet.data.history import History, rows_of
from aqnet.data.normalisation import target_channels
from aqnet.data.samples import (
    DAY_H,
    MONTH_H,
    ForecastSamples,
    GriddedFields,
    StationRecords,
    calendar_features,
    observed_at,
)
from aqnet.data.splits import HISTORY_H, check_no_crossing
from aqnet.errors import explain
from aqnet.grid import Grid
from aqnet.metrics import VerificationError
from aqnet.model.regression import (
    RIDGE_PENALTY,
    apply_hourly_regression,
    fit_hourly_regression,
)
from aqnet.model.statistical import STATISTICAL, Situation, StatisticalForecasts, situation_at
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.training.setup import batches
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.scores import ASSIMILATED, GRID, WITHHELD, Scorecard

__all__ = [
    "FORECASTS",
    "SEES_MORE",
    "YARDSTICKS",
    "SplitForecasts",
    "StationRidge",
    "fields_at",
    "fit_station_ridge",
    "forecast_split",
    "require_same_store",
    "sample_at_stations",
]

MODEL, FULL, REGRESSION, RIDGE = "model", "full correction", "regression alone", "ridge"
FORECASTS = (MODEL, FULL, REGRESSION, *STATISTICAL, RIDGE)
# Forecasts beside the four that the model is tested against, each with its own Holm correction.
YARDSTICKS = (RIDGE, REGRESSION)
SEES_MORE = {
    MODEL: "gridded analyses up to t (assimilated stations only) and their trailing means; sampled "
    "at the station from the gridded forecast",
    FULL: "the same model with its whole correction instead of the chosen share",
    REGRESSION: "the model's statistical start with its whole hourly regression: no transformer",
    RIDGE: "an hourly ridge regression on means over the assimilated stations, domain-mean weather "
    "and their trailing means, added to the best statistical forecast at the place",
}


# ---- the fifth yardstick


@dataclass(frozen=True)
class StationRidge:
    """Ridge correction from means over the assimilated stations, the same at every place.

    Attributes
    ----------
    means : History of (T, 6)
        Network means of the pollutants, ug/m3.
    spread : (6,)
        Standard deviation of their anomalies in the training split, ug/m3.
    weights : (L, K, V + 1, 6)
    """

    means: History
    spread: np.ndarray
    weights: np.ndarray

    def correction(
        self, fields: GriddedFields, rows: np.ndarray, lead_times_h: tuple[int, ...]
    ) -> np.ndarray:
        """Correction (N, L, 6) of the best statistical forecast, ug/m3."""
        z, scale = _network_predictors(self.means, self.spread, fields, rows)
        calendar = _calendar(fields, rows, lead_times_h)
        return apply_hourly_regression(self.weights, z, calendar) * scale[:, None]


def _calendar(fields: GriddedFields, rows: np.ndarray, leads: tuple[int, ...]) -> np.ndarray:
    ahead = fields.history.times[rows][:, None] + np.asarray(leads).astype("timedelta64[h]")
    return calendar_features(ahead, float(fields.lon.mean()))


def _network_predictors(
    means: History, spread: np.ndarray, fields: GriddedFields, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised predictors (N, 34) and the unit of the correction (N, 6), ug/m3."""
    scale = spread * fields.level_ratio[rows][:, target_channels()]
    level = means.mean_anomaly(rows, HISTORY_H)
    departures = [means.anomalies[rows], means.mean_anomaly(rows, DAY_H)]
    departures += [means.mean_anomaly(rows, MONTH_H)]
    weather = [i for i, name in enumerate(DYNAMIC) if name not in TARGETS]
    z = [(d - level) / scale for d in departures] + [level / scale]
    z += [_domain_mean(fields, rows, weather, hours) for hours in (1, DAY_H)]
    return np.concatenate(z, axis=1), scale


def _domain_mean(
    fields: GriddedFields, rows: np.ndarray, variables: list[int], hours: int
) -> np.ndarray:
    means = [
        fields.history.mean_anomaly(rows[i : i + 1000], hours)[:, variables].mean(axis=(2, 3))
        for i in range(0, len(rows), 1000)
    ]
    return np.concatenate(means) / fields.normaliser.spread[variables]


def _mean_over_stations(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def fit_station_ridge(
    fields: GriddedFields,
    stations: StationRecords,
    statistical: StatisticalForecasts,
    start: np.ndarray,
    penalty: float = RIDGE_PENALTY,
) -> StationRidge:
    """Fit the yardstick on the training split.

    Parameters
    ----------
    fields : GriddedFields
        Give the weather (domain means) and the level ratio.
    stations : StationRecords
    statistical : StatisticalForecasts
    start : (L, 6, 3)
        Weights of the statistical forecast that is corrected.
    penalty : float
        Of the ridge regression; the yardstick keeps its own, whatever the model was given.
    """
    kept = ~stations.withheld
    split = fields.splits["train"]
    train = split.contains(stations.times)
    values = stations.history.anomalies + stations.history.climatology(stations.times)
    values = np.where(stations.history.known, values, np.nan)[..., kept]
    mean = _mean_over_stations(values)
    offset = fields.normaliser.utc_offset_h
    means = History.build(
        stations.times, mean, fit_climatology(stations.times[train], mean[train], split, offset)
    )
    spread = means.anomalies[train].std(axis=0, dtype=np.float64)
    leads = statistical.lead_times_h
    rows = ForecastSamples(fields, "train", leads).rows
    check_no_crossing("the ridge yardstick", stations.times[rows + max(leads)], split)
    observed = _mean_over_stations(stations.observed[..., kept])
    truth = np.stack([observed[rows + h] for h in leads], axis=1)
    residual = truth - statistical.combine(start, situation_at(means, rows, leads))
    z, scale = _network_predictors(means, spread, fields, rows)
    calendar = _calendar(fields, rows, leads)
    weights = fit_hourly_regression(z, calendar, residual / scale[:, None], penalty)
    return StationRidge(means, spread, weights)


# ---- forecasts


@dataclass(frozen=True)
class SplitForecasts:
    """Scores of a split, and the forecasts at stations that made them.

    Attributes
    ----------
    card : Scorecard
    times : (N,) datetime64[h], UTC
        Init times.
    at_stations : dict of name to (N, L, 6, S), ug/m3
    observed : (N, L, 6, S), ug/m3
    """

    card: Scorecard
    times: np.ndarray
    at_stations: dict[str, np.ndarray]
    observed: np.ndarray


@torch.no_grad()
def _model_fields(
    loaded: LoadedForecaster, batch: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """The model, its whole correction and its regression on the grid: (B, L, 6, H, W), ug/m3."""
    model = loaded.model
    start, scale = model.start(batch), model.scale(batch)
    calendar = batch["calendar"] * model.config.calendar
    linear = model.linear_part(model.channels(batch), calendar) * model.config.linear_part
    change, plain = scale * model.correction(batch), (scale * linear).expand_as(start)
    found = {MODEL: start + model.share * change, FULL: start + change, REGRESSION: start + plain}
    return {name: field.clamp_min(0).numpy() for name, field in found.items()}


def _statistical_fields(
    loaded: LoadedForecaster, batch: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    at = target_channels()
    situation = Situation(
        batch["now"].numpy(), batch["future"].numpy(),
        batch["anomaly"].numpy()[:, at], batch["level"].numpy()[:, at],
    )  # fmt: skip
    found = {name: loaded.statistical(name, situation) for name in STATISTICAL}
    return found | {"start": loaded.statistical.combine(_start_weights(loaded), situation)}


def _start_weights(loaded: LoadedForecaster) -> np.ndarray:
    return loaded.model.start_weights.double().numpy()


def sample_at_stations(grid: Grid, stations: StationRecords, field: np.ndarray) -> np.ndarray:
    """Bilinear values (..., S) of fields (..., H, W) at all stations."""
    cells, weights = grid.bilinear(stations.lat, stations.lon)
    flat = field.reshape(*field.shape[:-2], -1)
    return (flat[..., cells] * weights).sum(axis=-1)


def _station_baselines(
    loaded: LoadedForecaster, stations: StationRecords, rows: np.ndarray
) -> dict[str, np.ndarray]:
    situation = situation_at(stations.history, rows, loaded.statistical.lead_times_h)
    found = {name: loaded.statistical(name, situation) for name in STATISTICAL}
    return found | {"start": loaded.statistical.combine(_start_weights(loaded), situation)}


def require_same_store(loaded: LoadedForecaster, fields: GriddedFields) -> None:
    """VerificationError if a checkpoint for stations was trained on another store or splits."""
    trained = f"content {loaded.store_sha256}, normaliser {loaded.normaliser.digest}"
    found = f"content {fields.digest}, normaliser {fields.normaliser.digest}"
    if trained != found:
        message = explain(
            "the checkpoint was trained on another store or other splits",
            expected=trained,
            found=found,
            remedy="evaluate on what it was trained on, or train again",
        )
        raise VerificationError(message)


def forecast_split(
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    ridge: StationRidge,
    grid: Grid,
    split: str,
    *,
    on_grid: bool,
    stride: int = 1,
    echo: Callable[[str], None] = print,
) -> SplitForecasts:
    """Make and score all forecasts of a split.

    Parameters
    ----------
    loaded : LoadedForecaster
    fields : GriddedFields
    stations : StationRecords
    ridge : StationRidge
    grid : Grid
    split : str
        "validation" or "test".
    on_grid : bool
        Score the fields as well, in the cells whose analysis is good enough.
    stride : int
        Use every stride-th init time (for quick looks; a test needs 1).
    echo : callable
        Takes progress lines.

    Raises
    ------
    VerificationError
        The checkpoint belongs to another store.
    """
    require_same_store(loaded, fields)
    leads = loaded.statistical.lead_times_h
    samples = ForecastSamples(fields, split, leads)
    samples.rows, samples.times = samples.rows[::stride], samples.times[::stride]
    card = Scorecard(FORECASTS, leads)
    parts: list[dict[str, np.ndarray]] = []
    for done, part in _parts(loaded, fields, stations, ridge, grid, samples, card, on_grid):
        parts.append(part)
        echo(f"  {split}: {done} of {len(samples)} init times")
    at_stations = {name: np.concatenate([p[name] for p in parts]) for name in FORECASTS}
    observed = observed_at(stations, samples.rows, leads)
    for place, chosen in ((ASSIMILATED, ~stations.withheld), (WITHHELD, stations.withheld)):
        shown = {name: values[..., chosen] for name, values in at_stations.items()}
        card.accumulate(place, samples.times, shown, observed[..., chosen])
    return SplitForecasts(card, samples.times, at_stations, observed)


def _parts(
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    ridge: StationRidge,
    grid: Grid,
    samples: ForecastSamples,
    card: Scorecard,
    on_grid: bool,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Forecasts at stations per batch; the grid is scored on the way."""
    leads, first = loaded.statistical.lead_times_h, 0
    for batch in batches(samples):
        rows = samples.rows[first : first + len(batch["hours"])]
        first += len(rows)
        correction = ridge.correction(fields, rows, leads)
        model = _model_fields(loaded, batch)
        part = {name: sample_at_stations(grid, stations, field) for name, field in model.items()}
        own = _station_baselines(loaded, stations, rows)
        part[RIDGE] = np.maximum(own.pop("start") + correction[..., None], 0.0)
        if on_grid:
            gridded = _statistical_fields(loaded, batch)
            lifted = gridded.pop("start") + correction[..., None, None]
            gridded |= model | {RIDGE: np.maximum(lifted, 0.0)}
            truth = np.where(batch["weight"] > 0, batch["target"], np.nan)
            flat = {name: _cells(gridded[name]) for name in FORECASTS}
            card.accumulate(GRID, fields.history.times[rows], flat, _cells(truth))
        yield first, part | own


def _cells(field: np.ndarray) -> np.ndarray:
    return field.reshape(*field.shape[:-2], -1)


def fields_at(
    loaded: LoadedForecaster, fields: GriddedFields, init_times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model and analysis on the grid for a few init times of the test split.

    Returns
    -------
    forecast, truth : (N, L, 6, H, W), ug/m3
    scored : (N, L, 6, H, W) bool

    Raises
    ------
    VerificationError
        An init time has no sample (invalid inputs, or outside the split).
    """
    leads = loaded.statistical.lead_times_h
    samples = ForecastSamples(fields, "test", leads)
    wanted = rows_of(fields.history.times, init_times)
    if missing := sorted(set(wanted.tolist()) - set(samples.rows.tolist())):
        found = [str(fields.history.times[row]) for row in missing]
        message = explain(
            "no sample at these init times",
            expected="init times of the test split with valid inputs",
            found=found,
            remedy="choose other times",
        )
        raise VerificationError(message)
    index = np.searchsorted(samples.rows, wanted)
    batch = samples.__getitems__(index)
    truth = np.stack([fields.targets[wanted + h] for h in leads], axis=1)
    return _model_fields(loaded, batch)[MODEL], truth, batch["weight"].numpy() > 0
