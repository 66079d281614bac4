"""Fields behind a report: forecasts of a store beside the truth, and what is drawn below them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from aqnet.data.geography import outlines
from aqnet.data.years.year_set import YearSet
from aqnet.errors import StoreError, explain
from aqnet.grid import Grid, distance_km
from aqnet.metrics import VerificationError
from aqnet.variables import DYNAMIC, STATIC
from aqnet.verification.scoreboard import Scoreboard
from aqnet.verification.store.reader import ForecastStore

__all__ = ["Fields", "place_fields"]


@dataclass(frozen=True, eq=False)
class Fields:
    """A forecast store and the yearly stores of its truth, on one grid.

    Raises
    ------
    StoreError
        They are on different grids.
    """

    store: ForecastStore
    truth: YearSet
    mask: np.ndarray = field(init=False)
    lines: list = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.store.grid.digest != self.truth.grid.digest:
            raise StoreError(
                explain(f"{self.store.path} is on another grid than the truth",
                        expected=self.truth.grid.shape, found=self.store.grid.shape,
                        remedy="give the truth that the store was scored against")
            )  # fmt: skip
        object.__setattr__(self, "mask", self.store.mask & self.truth.mask)
        object.__setattr__(self, "lines", outlines())

    @property
    def grid(self) -> Grid:
        """Grid of both."""
        return self.store.grid

    @property
    def elevation_m(self) -> np.ndarray:
        """(H, W), m."""
        return self.truth.static[STATIC.index("elevation")]

    def truth_at(self, times: np.ndarray, pollutant: str) -> np.ndarray:
        """(n, H, W) ug/m3 at hours in UTC; NaN for hours that are not there."""
        return self._each(times, lambda hour: self._truth(hour, pollutant), self.grid.shape)

    def forecast_at(self, times: np.ndarray, pollutant: str, lead_h: int) -> np.ndarray:
        """(n, H, W) ug/m3, valid at `times`; NaN where the store has no such init time."""
        return self._each(
            times, lambda hour: self._forecast(hour, pollutant, lead_h), self.grid.shape
        )

    def means(self, times: np.ndarray, pollutant: str, cells: np.ndarray) -> np.ndarray:
        """(n,): mean of the truth over cells, weighted by area [unit of the pollutant].

        NaN for an hour that lacks one of them.
        """
        weight = self.grid.cell_area_km2[cells] / self.grid.cell_area_km2[cells].sum()
        return self._each(times, lambda hour: self._truth(hour, pollutant)[cells] @ weight, ())

    def strip(
        self, times: np.ndarray, *, pollutant: str, row: int, columns: np.ndarray,
        lead_h: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(n, W): a row of cells, of the truth or, with `lead_h`, of the forecast."""

        def one(hour: np.datetime64) -> np.ndarray:
            if lead_h is None:
                return self._truth(hour, pollutant)[row, columns]
            return self._forecast(hour, pollutant, lead_h)[row, columns]

        return self._each(times, one, (int(columns.sum()),))

    @staticmethod
    def _each(times: np.ndarray, one: Callable, shape: tuple[int, ...]) -> np.ndarray:
        """An hour at a time: all variables of a long period would not fit into memory."""
        found = np.full((len(times), *shape), np.nan)
        for i, hour in enumerate(np.asarray(times).astype("datetime64[h]")):
            found[i] = one(hour)
        return found

    def _truth(self, hour: np.datetime64, pollutant: str) -> np.ndarray:
        row = int(np.searchsorted(self.truth.times, hour))
        if row == len(self.truth.times) or self.truth.times[row] != hour:
            return np.full(self.grid.shape, np.nan)
        field = self.truth.read(slice(row, row + 1))[0, DYNAMIC.index(pollutant)]
        return np.where(self.mask, field, np.nan)

    def _forecast(self, hour: np.datetime64, pollutant: str, lead_h: int) -> np.ndarray:
        init = hour - np.timedelta64(lead_h, "h")
        row = int(np.searchsorted(self.store.init_times, init))
        if row == len(self.store.init_times) or self.store.init_times[row] != init:
            return np.full(self.grid.shape, np.nan)
        return np.where(self.mask, self.store.read(row, lead_h, pollutant), np.nan)

    def valid_times(self, lead_h: int) -> np.ndarray:
        """Times for which there are a forecast of this lead and the truth, UTC."""
        self.store.lead_index(lead_h)
        valid = self.store.init_times + np.timedelta64(lead_h, "h")
        return valid[np.isin(valid, self.truth.times)]

    def within(self, lat: float, lon: float, radius_km: float) -> np.ndarray:
        """(H, W) bool: cells whose centre is at most so far from a place.

        Raises
        ------
        VerificationError
            None is.
        """
        near = self.mask & (distance_km(*self.grid.mesh(), lat, lon) <= radius_km)
        if not near.any():
            raise VerificationError(
                explain("no cell is near this place", expected=f"cells within {radius_km:g} km "
                        f"of {lat:g} N, {lon:g} E", found=f"grid {self.grid.name}",
                        remedy="leave this page out")
            )  # fmt: skip
        return near


def place_fields(board: Scoreboard, fields: Fields, forecast: str) -> dict[str, np.ndarray]:
    """RMSE, bias and number of pairs of every cell, all times together.

    Returns
    -------
    dict of str to numpy.ndarray
        rmse, bias: (L, P, H, W) [unit of the pollutant], NaN where nothing was scored.

    Raises
    ------
    VerificationError
        The board does not keep places, or has another number of them than the fields.
    """
    cells = int(fields.mask.sum())
    if board.design.each_place != cells:
        raise VerificationError(
            explain("the board has no map of these cells", expected=f"sums of {cells} cells",
                    found=f"{board.design.each_place} places", remedy="give the store and the "
                    "truth that were scored, together with no other store of another mask")
        )  # fmt: skip
    sums = board.sums["place"][forecast]
    found = {}
    for name, values in (("rmse", sums.rmse()), ("bias", sums.bias())):
        found[name] = np.full((*board.design.cells, *fields.grid.shape), np.nan)
        found[name][..., fields.mask] = values
    return found
