"""The analysis at stations: what a perfect forecast of the fields would score there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aqnet.data.store import AnalysisStore
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, explain
from aqnet.grid import Grid
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.sampling import Sampling

__all__ = ["AnalysisFields", "analysis_at_stations"]


@dataclass(frozen=True, eq=False)
class AnalysisFields:
    """Hourly fields of the six pollutants.

    Attributes
    ----------
    grid, mask : Grid, (H, W) bool
    times : (T,) datetime64[h], UTC
    read : callable
        ``read(rows)``: (n, 6, N) ug/m3 of the N active cells, NaN where there is no value.
    """

    grid: Grid
    mask: np.ndarray
    times: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]

    @staticmethod
    def of_years(years: YearSet) -> AnalysisFields:
        """Of yearly stores."""
        channels = [DYNAMIC.index(name) for name in TARGETS]

        def read(rows: np.ndarray) -> np.ndarray:
            return years.read(rows)[:, channels][..., years.mask]

        return AnalysisFields(years.grid, years.mask, years.times, read)

    @staticmethod
    def of_store(store: AnalysisStore, grid: Grid) -> AnalysisFields:
        """Of an analysis of stations; hours without an analysis are NaN."""
        targets = store.read("targets")

        def read(rows: np.ndarray) -> np.ndarray:
            return targets[rows].reshape(len(rows), len(TARGETS), -1)

        return AnalysisFields(grid, np.ones(grid.shape, dtype=bool), store.times, read)


def analysis_at_stations(
    analysis: AnalysisFields, sampling: Sampling, valid_times: np.ndarray
) -> Observations:
    """The fields at the stations, every hour of the valid times.

    CoverageError if the analysis has none of them.
    """
    wanted, axis = np.unique(valid_times), analysis.times
    rows = np.searchsorted(axis, wanted).clip(max=len(axis) - 1)
    rows = rows[axis[rows] == wanted]
    if not rows.size:
        raise CoverageError(
            explain("the analysis has no valid time", expected=f"{wanted[0]} to {wanted[-1]}",
                    found=f"{axis[0]} to {axis[-1]}", remedy="open the years of the valid times")
        )  # fmt: skip
    times = np.arange(wanted[0], wanted[-1] + np.timedelta64(1, "h"), dtype="datetime64[h]")
    values = np.full((len(times), len(TARGETS), len(sampling.stations)), np.nan, np.float32)
    for some in np.array_split(rows, -(-rows.size // 24)):
        values[(axis[some] - times[0]).astype(int)] = sampling(analysis.read(some))
    return Observations(sampling.stations, times, values)
