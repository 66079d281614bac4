"""Forecasts that see a station's own past: the four of the first comparison, at any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd

import numpy as np

from aqnet.data.climatology import HarmonicClimatology, fit_climatology
from aqnet.data.history import MIN_SHARE_KNOWN, History, rows_of
from aqnet.data.splits import HISTORY_H, Split, init_times
from aqnet.data.stations.analysis import MAX_CARRY_H, carry_forward
from aqnet.errors import CoverageError, ParameterError, explain
from aqnet.grid import local_clock
from aqnet.model.statistical import (
    STATISTICAL,
    StatisticalForecasts,
    fit_statistical,
    situation_at,
)
from aqnet.variables import TARGETS
from aqnet.verification.stations.network import Observations

__all__ = ["StationRules", "fit_station_rules", "months_known"]

_PAIRS = 6_000_000  # values of a truth to fit damping factors on: 300 MB with what they need


@dataclass(frozen=True, eq=False)
class StationRules:
    """Rules of `STATISTICAL` at S stations, P pollutants and L lead times.

    Attributes
    ----------
    times : (T,) datetime64[h]
        UTC, every hour that a forecast may see.
    carried : (T, P, S) float32
        ug/m3; gaps of up to 3 h hold the last value.
    lead_times_h : tuple of int
    history : History or None
        About the climatology of each station; None: nothing was fitted.
    fitted : StatisticalForecasts or None
    """

    times: np.ndarray
    carried: np.ndarray
    lead_times_h: tuple[int, ...]
    history: History | None = None
    fitted: StatisticalForecasts | None = None

    def __call__(self, names: Sequence[str], init_times: np.ndarray) -> dict[str, np.ndarray]:
        """Forecasts (n, L, P, S) by name, ug/m3; NaN where what a rule sees is unknown."""
        rows, found = rows_of(self.times, init_times), {}
        fitted = [name for name in names if name != "persistence"]
        if "persistence" in names:
            now = self.carried[rows][:, None]
            shape = (len(rows), len(self.lead_times_h), *now.shape[2:])
            found["persistence"] = np.broadcast_to(now, shape)
        if fitted:
            situation = situation_at(self.history, rows, self.lead_times_h)
            found |= {name: self.fitted(name, situation) for name in fitted}
        return found

    def climatology(self, valid_times: np.ndarray) -> np.ndarray | None:
        """(n, L, P, S) at valid times (n, L), ug/m3; None if nothing was fitted."""
        if self.history is None:
            return None
        usual = self.history.climatology(valid_times.ravel())
        return usual.reshape(*valid_times.shape, *usual.shape[1:])


def months_known(times: np.ndarray, values: np.ndarray, utc_offset_h: float) -> np.ndarray:
    """(12, ...) bool: at least a quarter of the hours of a calendar month are known.

    Times (T,) datetime64 UTC, values (T, ...) with NaN; months of the local clock, January first,
    over all years together. A month without hours is not known.
    """
    month = local_clock(times, utc_offset_h).astype("datetime64[M]").astype(int) % 12
    known = np.zeros((12, *values.shape[1:]), dtype=bool)
    for number in np.unique(month):
        known[number] = np.isfinite(values[month == number]).mean(0) >= MIN_SHARE_KNOWN
    return known


def fit_station_rules(
    observations: Observations,
    times: np.ndarray,
    lead_times_h: tuple[int, ...],
    pollutants: Sequence[str],
    names: Sequence[str],
    fit: Split | None,
    utc_offset_h: float,
) -> tuple[StationRules, np.ndarray]:
    """Rules for some init times.

    Climatologies are fitted for each station on its own hours in `fit`; damping factors are one
    per lead time and pollutant, from the stations that are not withheld (from all, if all are).
    With few stations from every hour, with many from hours spread over the period. In memory are
    about 40 bytes an hour, pollutant and station.

    Parameters
    ----------
    observations : Observations
    times : (N,) datetime64[h]
        Init times to come, UTC.
    lead_times_h, pollutants : sequence
    names : sequence of str
        Of `STATISTICAL`.
    fit : Split or None
        Training period. None: nothing is fitted, persistence alone.
    utc_offset_h : float
        Clock of the climatology.

    Returns
    -------
    rules : StationRules
    unfitted : (P, S) bool
        Series without a climatology: in a month that is to be forecast they have less than a
        quarter of its hours in `fit`.

    Raises
    ------
    ParameterError
        Unknown names, or rules that need `fit`.
    CoverageError
        No series of a pollutant can be fitted.
    """
    _check_names(names, fit)
    first, last = times.min(), times.max() + np.timedelta64(max(lead_times_h), "h")
    channels = [TARGETS.index(name) for name in pollutants]
    unfitted = np.zeros((len(channels), len(observations.stations)), dtype=bool)
    if fit is None:
        held = observations.between(first - np.timedelta64(MAX_CARRY_H, "h"), last)
        carried = carry_forward(held.values[:, channels])[0]
        return StationRules(held.times, carried, tuple(lead_times_h)), unfitted
    held = observations.between(min(fit.start, first - np.timedelta64(HISTORY_H, "h")),
                                max(fit.end - np.timedelta64(1, "h"), last))  # fmt: skip
    values = held.values[:, channels]
    valid = np.unique(times[:, None] + np.asarray(lead_times_h).astype("timedelta64[h]"))
    inside = fit.contains(held.times)
    climatology, unfitted = _climatology(
        held.times[inside], values[inside], fit, valid, pollutants, utc_offset_h
    )
    carried = carry_forward(values)[0]
    history = History.build(held.times, carried, climatology)
    withheld = observations.stations.withheld
    used = ~withheld if not withheld.all() else withheld
    truth = np.where(used, values, np.nan)
    if set(names) - {"persistence", "climatology"}:
        fitted = _damping(history, truth, tuple(lead_times_h), fit)
    else:  # closed forms: nothing to fit
        shape = (len(STATISTICAL), len(lead_times_h), len(channels), 3)
        fitted = StatisticalForecasts(tuple(lead_times_h), np.zeros(shape))
    return StationRules(held.times, carried, tuple(lead_times_h), history, fitted), unfitted


def _check_names(names: Sequence[str], fit: Split | None) -> None:
    lacking = [name for name in names if name not in STATISTICAL]
    needs = [name for name in names if name != "persistence"] if fit is None else []
    if lacking or needs:
        raise ParameterError(
            explain("a baseline at stations cannot be made", found=list(names),
                    expected=f"some of {STATISTICAL}; all but persistence need a training period",
                    remedy="name a manifest, whose training split is used, or leave them out")
        )  # fmt: skip


def _climatology(
    times: np.ndarray, values: np.ndarray, fit: Split, valid: np.ndarray,
    pollutants: Sequence[str], utc_offset_h: float,
) -> tuple[HarmonicClimatology, np.ndarray]:  # fmt: skip
    """Climatology (K, P, S), NaN where it cannot be fitted, and where that is."""
    asked = np.unique(local_clock(valid, utc_offset_h).astype("datetime64[M]").astype(int) % 12)
    known = months_known(times, values, utc_offset_h)
    usable = known[asked].all(0)
    if empty := [n for n, some in zip(pollutants, usable.any(1), strict=True) if not some]:
        dark = [f"{m + 1:02d}" for m in asked if not known[m].any()]
        raise CoverageError(
            explain(f"no station has a climatology of {', '.join(empty)}",
                    expected="in the training period a quarter of the hours of every calendar "
                    "month that is forecast", found=f"training {fit.start} to {fit.end}, months "
                    f"without observations: {', '.join(dark) or 'none for all pollutants'}",
                    remedy="give observations of the training period too, or leave out all "
                    "baselines but persistence")
        )  # fmt: skip
    some = fit_climatology(times, values[:, usable], fit, utc_offset_h)
    coefficients = np.full((len(some.coefficients), *usable.shape), np.nan)
    coefficients[:, usable] = some.coefficients
    whole = HarmonicClimatology(coefficients, utc_offset_h, some.annual, some.diurnal)
    return whole, ~usable


def _damping(
    history: History, truth: np.ndarray, leads: tuple[int, ...], fit: Split
) -> StatisticalForecasts:
    """Damping factors from init times that are spread over all hours of the day."""
    times = init_times(fit, max(leads), HISTORY_H)
    values = len(times) * len(leads) * truth[0].size
    least = -(-values // _PAIRS)
    times = times[:: next(step for step in count(least) if gcd(step, 24) == 1)]
    rows = rows_of(history.times, times)
    later = np.stack([truth[rows + lead] for lead in leads], axis=1)
    return fit_statistical(history, times, later, leads, fit)
