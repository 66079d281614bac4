"""Daily products of one pollutant, and the index of a day, from hours in Beijing days."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aqnet.grid import local_clock
from aqnet.variables import TARGETS
from aqnet.verification.standards import Edition

__all__ = ["BEIJING_OFFSET_H", "air_quality_index", "beijing_hours", "by_day", "pollutant_days"]

BEIJING_OFFSET_H = 8.0
_OZONE = "o3"


def by_day(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hours (T, ...) with their ends (T,), UTC, sorted into days.

    Returns
    -------
    hours : (D, 24, ...) float64
        NaN for missing hours; position 0 is the hour that ends at 1:00 Beijing time.
    days : (D,) datetime64[D]
        Beijing dates, from the first to the last.
    """
    start = local_clock(times, BEIJING_OFFSET_H).astype("datetime64[h]") - np.timedelta64(1, "h")
    day = start.astype("datetime64[D]")
    days = np.arange(day.min(), day.max() + 1)
    hours = np.full((len(days), 24, *values.shape[1:]), np.nan)
    hours[(day - days[0]).astype(int), (start - day).astype(int)] = values
    return hours, days


def beijing_hours(day: np.datetime64) -> np.ndarray:
    """(24,) datetime64[h], UTC: ends of the hours of a Beijing date; no summer time since 1992."""
    midnight = np.asarray(day).astype("datetime64[D]").astype("datetime64[h]")
    return midnight + np.arange(1, 25) - int(BEIJING_OFFSET_H)


def pollutant_days(
    hours: np.ndarray, pollutant: str, standard: Edition, *, whole: bool = False
) -> dict[str, np.ndarray]:
    """Daily products of one pollutant.

    Parameters
    ----------
    hours : (D, 24, ...)
        ug/m3 at the reference state of the edition; position 0 ends at 1:00. NaN missing.
    pollutant : str
    standard : Edition
    whole : bool
        A day needs all its hours. Forecasts of one initialisation: what is not there lies beyond
        the last lead time, always in the same hours, and no rule of validity is meant for that.

    Returns
    -------
    dict of product to (D, ...) float64
        "mean_24h"; of ozone also "mda8" and "max_1h". NaN where a rule is not met.
    """
    known = np.isfinite(hours)
    enough = known.sum(1) >= (24 if whole else standard.rule("hours_of_a_day"))
    found = {"mean_24h": np.where(enough, _mean(hours, known), np.nan)}
    if pollutant == _OZONE:
        largest = _mda8(hours, known, standard)
        # No edition has a rule for the hourly maximum: that of the daily mean is used.
        highest = np.where(known, hours, -np.inf).max(1)
        found["mda8"] = np.where(enough, largest, np.nan) if whole else largest
        found["max_1h"] = np.where(enough, highest, np.nan)
    return found


def air_quality_index(
    values: Mapping[tuple[str, str], np.ndarray], standard: Edition
) -> tuple[np.ndarray, np.ndarray]:
    """Air quality index of days, and who makes it.

    Parameters
    ----------
    values : mapping of (product, pollutant) to (...)
        Of `Edition.indicators`, ug/m3 at the reference state of the edition.
    standard : Edition

    Returns
    -------
    aqi : (...) float64
        Largest individual index; NaN unless all indicators are valid. (HJ 633-2026 5.3.1 would
        publish an index above 100 without them: a comparison needs the same pollutants.)
    primary : (P, ...) bool
        Of `TARGETS`: those with the largest index, if that is above 50.

    Raises
    ------
    StandardError
        The edition has no breakpoints.
    """
    each = dict.fromkeys(TARGETS)
    for product, name in standard.indicators():
        if (product, name) in values:
            concentration = values[product, name]
            index = standard.iaqi(product, name, concentration)
            # Beyond the table of this product the other one decides; unknown stays unknown.
            index = np.where(np.isnan(index) & ~np.isnan(concentration), -np.inf, index)
            each[name] = index if each[name] is None else np.maximum(each[name], index)
        else:
            each[name] = np.full(np.shape(next(iter(values.values()))), np.nan)
    found = np.stack(list(each.values()))
    complete = ~np.isnan(found).any(0)
    aqi = np.where(complete, found.max(0), np.nan)
    return aqi, (found == aqi) & (aqi > 50)


def _mean(hours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean along axis 1 of what is known; NaN where nothing is."""
    count = known.sum(1)
    return np.where(count > 0, np.where(known, hours, 0).sum(1) / np.maximum(count, 1), np.nan)


def _mda8(ozone: np.ndarray, known: np.ndarray, standard: Edition) -> np.ndarray:
    """Largest mean of 8 h that ends from 8:00 to 24:00 of the same day, (D, ...).

    A day with fewer valid means than the rule has counts only if the maximum exceeds the limit.
    """
    counts, sums = (
        np.cumsum(np.concatenate([np.zeros_like(x[:, :1]), x], axis=1), axis=1)
        for x in (known.astype(np.int64), np.where(known, ozone, 0.0))
    )
    number = counts[:, 8:] - counts[:, :-8]  # of the hours that end at 1:00 to 8:00 first
    valid = number >= standard.rule("hours_of_8")
    means = (sums[:, 8:] - sums[:, :-8]) / np.maximum(number, 1)
    largest = np.where(valid, means, -np.inf).max(1)
    enough = valid.sum(1) >= standard.rule("means_of_8h")
    enough |= largest > standard.limit("mda8", _OZONE)
    return np.where(enough & np.isfinite(largest), largest, np.nan)
