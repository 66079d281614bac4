"""Values that no air can have: below zero, or more PM2.5 than PM10."""

from __future__ import annotations

import numpy as np

from aqnet.data.years.format import stamp
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, StoreError, explain
from aqnet.grid import Grid
from aqnet.progress import Progress, silent
from aqnet.variables import DYNAMIC
from aqnet.verification.store.reader import ForecastStore

__all__ = ["VALUE_CHECKS", "Tally", "check_store", "check_truth", "require_same_grid"]

# Size [ug/m3] from which a violation is more than noise of sensors and rounding.
LARGE_UG_M3 = 1.0
VALUE_CHECKS = {
    "negative": "values below 0; size: how far below [ug/m3]. Models and the writer of stores cut "
    "off at 0 or refuse; how many values are exactly there says how much was cut (at_limit)",
    "pm25_above_pm10": "PM2.5 above PM10 of the same cell and time; size: PM2.5 - PM10 [ug/m3]. "
    "Rounding in a store keeps the order of two values, so it makes no violation",
    "at_limit": "values that are exactly 0, or PM2.5 exactly equal to PM10",
}


class Tally:
    """Counts and sizes of violations.

    Attributes
    ----------
    values, violations, large, at_limit : int
        Values looked at; those whose size is above 0, above 1 ug/m3, and exactly 0.
    worst : float
        Largest size [ug/m3], 0 without a violation; `where`: its time, latitude and longitude.
    """

    def __init__(self) -> None:
        self.values = self.violations = self.large = self.at_limit = 0
        self.total, self.worst, self.where = 0.0, 0.0, None

    def add(self, size: np.ndarray, times: np.ndarray, places: np.ndarray) -> None:
        """Count sizes (n, N) [ug/m3] at init times (n,) and places (N, 2) [degrees]; NaN: none."""
        over = size > 0
        self.values += int(np.isfinite(size).sum())
        self.violations += int(over.sum())
        self.large += int((size > LARGE_UG_M3).sum())
        self.at_limit += int((size == 0).sum())
        self.total += float(size[over].sum(dtype=np.float64))
        if over.any() and (largest := float(np.nanmax(size))) > self.worst:
            row, place = np.unravel_index(np.nanargmax(size), size.shape)
            self.worst = largest
            lat, lon = places[place].tolist()
            self.where = {"time": stamp(times[row]), "lat": lat, "lon": lon}

    def row(self, **labels: object) -> dict:
        """Plain values for a table, after `labels`."""
        return labels | {
            "values": self.values,
            "violations": self.violations,
            "share": self.violations / self.values if self.values else None,
            "above_1_ug_m3": self.large,
            "at_limit": self.at_limit,
            "mean_size_ug_m3": self.total / self.violations if self.violations else 0.0,
            "worst_ug_m3": self.worst,
            "worst_at": self.where,
        }


def _places(grid: Grid, mask: np.ndarray) -> np.ndarray:
    return np.stack([axis[mask] for axis in grid.mesh()], axis=-1)


def _sizes(values: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """(check, pollutant): sizes of violations, of the values of each pollutant."""
    found = {("negative", name): -each for name, each in values.items()}
    if {"pm25", "pm10"} <= set(values):
        particles = (values[name].astype(np.float64) for name in ("pm25", "pm10"))
        found["pm25_above_pm10", "pm25"] = np.subtract(*particles)
    return found


def check_store(
    store: ForecastStore, progress: Progress = silent
) -> list[dict]:
    """Count what is below zero and where PM2.5 exceeds PM10, by lead time.

    Returns
    -------
    list of dict
        Rows of `Tally.row` with check, pollutant, lead_h and of ("forecast"); times are init
        times. A store without PM2.5 or PM10 has no row of that check.
    """
    tallies: dict[tuple, Tally] = {}
    places, blocks = _places(store.grid, store.mask), store.blocks()
    for done, rows in enumerate(blocks, start=1):
        read = {n: store.read(rows, None, n, cells=True) for n in store.pollutants}
        for key, sizes in _sizes(read).items():
            for at, lead in enumerate(store.lead_times_h):
                tally = tallies.setdefault((*key, lead), Tally())
                tally.add(sizes[:, at], store.init_times[rows], places)
        progress("values of the forecast", done / len(blocks))
    return [
        tally.row(check=check, pollutant=name, lead_h=lead, of="forecast")
        for (check, name, lead), tally in tallies.items()
    ]


def check_truth(
    truth: YearSet,
    store: ForecastStore,
    progress: Progress = silent,
) -> list[dict]:
    """The same of the truth at the valid times of a store, each hour once: the yardstick.

    Returns
    -------
    list of dict
        As `check_store`, with lead_h None and of "truth"; times are valid times.

    Raises
    ------
    StoreError
        Another grid.
    CoverageError
        The truth has none of the valid times.
    """
    require_same_grid(store, truth)
    wanted = np.flatnonzero(np.isin(truth.times, store.valid_times))
    if not wanted.size:
        raise CoverageError(
            explain("the truth has none of the valid times of the forecast",
                    expected=f"{stamp(store.valid_times.min())} to "
                    f"{stamp(store.valid_times.max())}",
                    found=f"{stamp(truth.times[0])} to {stamp(truth.times[-1])}",
                    remedy="give the manifest of the truth of these years")
        )  # fmt: skip
    mask = store.mask & truth.mask
    tallies: dict[tuple, Tally] = {}
    places = _places(store.grid, mask)
    for done, row in enumerate(wanted.tolist(), start=1):
        hour = truth.read(slice(row, row + 1))[0][:, mask]
        read = {n: hour[None, DYNAMIC.index(n)] for n in store.pollutants}
        for key, size in _sizes(read).items():
            tallies.setdefault(key, Tally()).add(size, truth.times[row : row + 1], places)
        progress("values of the truth", done / len(wanted))
    return [
        tally.row(check=check, pollutant=name, lead_h=None, of="truth")
        for (check, name), tally in tallies.items()
    ]


def require_same_grid(store: ForecastStore, truth: YearSet) -> None:
    """StoreError unless forecast and truth are on one grid and share cells."""
    shared = store.grid.digest == truth.grid.digest and (store.mask & truth.mask).any()
    if not shared:
        raise StoreError(
            explain("forecast and truth are not on one grid",
                    expected=f"{truth.grid.name} {truth.grid.shape}, {int(truth.mask.sum())} cells",
                    found=f"{store.grid.name} {store.grid.shape}, {int(store.mask.sum())} cells",
                    remedy="give the manifest of the truth on the grid of the forecast")
        )  # fmt: skip
