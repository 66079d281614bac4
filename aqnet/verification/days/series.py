"""Daily products of series in memory: means, 8-hour ozone, exceedances and the index.

For exploring, and as the reference that the scoring of whole stores (`ProductMaker`, block by
block) is tested against.

Days are Beijing days: an hour belongs to the day in which it ends, 24:00 included. A daily forecast
is made of the hours of *one* initialisation. A series of hours that each come from another
initialisation is a composite: it may be compared with observations, but it is not a forecast of a
day, and no index is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.variables import TARGETS
from aqnet.verification.days.products import air_quality_index, by_day, pollutant_days
from aqnet.verification.standards import Edition, StandardError, edition

__all__ = ["Days", "composite_days", "forecast_days", "observed_days"]

_OZONE = "o3"


@dataclass(frozen=True, eq=False)
class Days:
    """Daily products; NaN where a rule of validity is not met.

    Attributes
    ----------
    label : str
        What the days are made of; stands in every table.
    is_composite : bool
        Hours from several initialisations.
    edition : Edition
    pollutants : tuple of str
    days : (D,) datetime64[D]
        Beijing dates.
    mean_24h : (D, P, ...) float64
        ug/m3, at the reference state of the hours given.
    mda8, max_1h : (D, ...) float64
        Of ozone, ug/m3; all NaN without ozone.
    """

    label: str
    is_composite: bool
    edition: Edition
    pollutants: tuple[str, ...]
    days: np.ndarray
    mean_24h: np.ndarray
    mda8: np.ndarray
    max_1h: np.ndarray

    def product(self, product: str, pollutant: str) -> np.ndarray:
        """(D, ...) of one pollutant, ug/m3. Raises VerificationError."""
        known = pollutant in self.pollutants and (product == "mean_24h" or pollutant == _OZONE)
        if product not in ("mean_24h", "mda8", "max_1h") or not known:
            raise VerificationError(
                explain("no such daily product", found=f"{product} of {pollutant}",
                        expected=f"mean_24h of {self.pollutants}; mda8 and max_1h of {_OZONE}",
                        remedy="choose among them")
            )  # fmt: skip
        if product == "mean_24h":
            return self.mean_24h[:, self.pollutants.index(pollutant)]
        return getattr(self, product)

    def exceeds(self, product: str, pollutant: str) -> np.ndarray:
        """(D, ...) float64: 1 above the limit of the edition, 0 not, NaN unknown."""
        values = self.product(product, pollutant)
        above = values > self.edition.limit(product, pollutant)
        return np.where(np.isnan(values), np.nan, above)

    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Air quality index, and who makes it.

        Returns
        -------
        aqi : (D, ...) float64
            Largest individual index; NaN unless all indicators of the edition are valid.
        primary : (D, P, ...) bool
            Primary pollutants: those with the largest index, if that is above 50.

        Raises
        ------
        StandardError
            The days are a composite, or the edition has no breakpoints.
        """
        if self.is_composite:
            raise StandardError(
                explain("a composite of fixed lead times has no air quality index",
                        expected="observations, or the hourly forecasts of one initialisation",
                        found=self.label, remedy="use forecast_days with hourly lead times")
            )  # fmt: skip
        values = {
            (product, name): self.product(product, name)
            for product, name in self.edition.indicators()
            if name in self.pollutants
        }
        aqi, primary = air_quality_index(values, self.edition)
        rows = [TARGETS.index(name) for name in self.pollutants]
        return aqi, np.moveaxis(primary[rows], 0, 1)

    def table(self) -> pd.DataFrame:
        """One row per day (first place only if there are several axes): products and edition."""
        first = (slice(None), *(0,) * (self.mda8.ndim - 1))
        columns = {f"mean_24h_{n}": self.product("mean_24h", n)[first] for n in self.pollutants}
        columns |= {"mda8_o3": self.mda8[first], "max_1h_o3": self.max_1h[first]}
        frame = pd.DataFrame({"day": self.days, **columns})
        return frame.assign(of=self.label, edition=self.edition.name)


# ---- making days


def observed_days(
    times: np.ndarray, values: np.ndarray, pollutants: Sequence[str], standard: str | Edition
) -> Days:
    """Days of observations or of an analysis.

    Parameters
    ----------
    times : (T,) datetime64[h]
        UTC, ends of hours, each once, in any order; hours that are not there are missing.
    values : (T, P, ...)
        ug/m3 at the reference state of the edition (`Edition.from_store_state`), NaN missing.
    pollutants : sequence of str
    standard : str or Edition
        Whose rules of validity, limits and breakpoints apply.

    Raises
    ------
    StandardError
        Unknown edition, or one without rules of validity.
    VerificationError
        Wrong shapes, or an hour given twice.
    """
    return _days("observations", times, values, pollutants, edition(standard))


def forecast_days(
    init_time: np.datetime64,
    lead_times_h: Sequence[int],
    values: np.ndarray,
    pollutants: Sequence[str],
    standard: str | Edition,
) -> Days:
    """Days of the forecasts (L, P, ...) of one initialisation (UTC) with hourly lead times.

    Only days with all 24 hours are valid.

    Raises
    ------
    VerificationError
        The lead times are not consecutive hours: a day cannot be made of samples of it.
    StandardError
        As `observed_days`.
    """
    leads = np.asarray(lead_times_h)
    if leads.size < 2 or (np.diff(leads) != 1).any():
        raise VerificationError(
            explain("daily products need hourly lead times", expected="consecutive hours, such as "
                    "1 to 48 h", found=leads.tolist(), remedy="forecast with hourly lead times, "
                    "or label a composite of fixed lead times as one (composite_days)")
        )  # fmt: skip
    start = np.datetime64(init_time, "h")
    label = f"forecast from {start} UTC"
    times = start + leads.astype("timedelta64[h]")
    return _days(label, times, values, pollutants, edition(standard), whole=True)


def composite_days(
    init_times: np.ndarray,
    lead_time_h: int,
    values: np.ndarray,
    pollutants: Sequence[str],
    standard: str | Edition,
) -> Days:
    """Days of hours (N, P, ...) that were each forecast `lead_time_h` hours before (labelled so).

    Has daily means and exceedances, for comparison with observed days; `Days.index` refuses.
    """
    times = np.asarray(init_times).astype("datetime64[h]") + np.timedelta64(int(lead_time_h), "h")
    label = f"composite of {int(lead_time_h)} h forecasts of many initialisations"
    return _days(label, times, values, pollutants, edition(standard), is_composite=True)


def _days(
    label: str, times: np.ndarray, values: np.ndarray, pollutants: Sequence[str],
    standard: Edition, *, is_composite: bool = False, whole: bool = False,
) -> Days:  # fmt: skip
    times, values = np.asarray(times).astype("datetime64[h]"), np.asarray(values, np.float64)
    pollutants = tuple(pollutants)
    shape = (times.size, len(pollutants))
    if times.ndim != 1 or not times.size or values.shape[:2] != shape:
        raise VerificationError(
            explain("hours and values do not fit", expected=f"values {shape} (hours, pollutants)",
                    found=f"{times.shape} hours, values {values.shape}", remedy="put time first")
        )  # fmt: skip
    if np.unique(times).size < times.size:
        raise VerificationError(
            explain("an hour is given twice", expected="each hour once", remedy="leave one out",
                    found=f"{times.size - np.unique(times).size} repeated")
        )  # fmt: skip
    grid, days = by_day(times, values)
    each = [pollutant_days(grid[:, :, p], name, standard, whole=whole)
            for p, name in enumerate(pollutants)]  # fmt: skip
    mean = np.stack([found["mean_24h"] for found in each], axis=1)
    ozone = dict(zip(pollutants, each, strict=True)).get(_OZONE, {})
    unknown = np.full((len(days), *values.shape[2:]), np.nan)
    mda8, highest = (ozone.get(product, unknown) for product in ("mda8", "max_1h"))
    return Days(label, is_composite, standard, pollutants, days, mean, mda8, highest)
