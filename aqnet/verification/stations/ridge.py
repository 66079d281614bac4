"""The fifth yardstick: an hourly ridge regression on means over the assimilated stations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aqnet.data.climatology import calendar_features, fit_climatology
from aqnet.data.history import History
from aqnet.data.normalisation import target_channels
from aqnet.data.splits import HISTORY_H, check_no_crossing
from aqnet.data.stations.samples import (
    DAY_H,
    MONTH_H,
    ForecastSamples,
    GriddedFields,
    StationRecords,
)
from aqnet.model.regression import (
    RIDGE_PENALTY,
    apply_hourly_regression,
    fit_hourly_regression,
)
from aqnet.model.statistical import StatisticalForecasts, situation_at
from aqnet.variables import DYNAMIC, TARGETS

__all__ = ["StationRidge", "fit_station_ridge"]


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
