"""Hours that days are made of: forecasts and truth at the places that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqnet.data.climatology import HarmonicClimatology
from aqnet.grid import local_clock
from aqnet.variables import TARGETS
from aqnet.verification.days.products import (
    BEIJING_OFFSET_H,
    air_quality_index,
    beijing_hours,
    pollutant_days,
)
from aqnet.verification.days.sums import DayFields
from aqnet.verification.scoring import CellTruth
from aqnet.verification.standards import Edition
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.sampling import Sampling
from aqnet.verification.store.reader import ForecastStore

__all__ = [
    "CellForecasts",
    "ProductMaker",
    "StationForecasts",
    "StationTruth",
    "first_day",
    "lead_positions",
]


def first_day(init_time: np.datetime64) -> np.datetime64:
    """First Beijing date all of whose hours end after an init time (UTC), datetime64[D]."""
    local = local_clock(init_time, BEIJING_OFFSET_H).astype("datetime64[h]")
    return (local + np.timedelta64(23, "h")).astype("datetime64[D]")


def lead_positions(time: np.datetime64, leads: Sequence[int]) -> np.ndarray:
    """(D, 24) int: positions in `leads` of the hours of the whole days after an init time."""
    place = {lead: position for position, lead in enumerate(leads)}
    first = int((beijing_hours(first_day(time))[0] - time) / np.timedelta64(1, "h"))
    found = []
    while all(lead in place for lead in range(first, first + 24)):
        found.append([place[lead] for lead in range(first, first + 24)])
        first += 24
    return np.array(found, dtype=int).reshape(-1, 24)


@dataclass(frozen=True, eq=False)
class CellForecasts:
    """Hours of a forecast store at the cells of a mask (H, W)."""

    store: ForecastStore
    mask: np.ndarray

    @property
    def name(self) -> str:
        """How tables call the forecast."""
        return self.store.name

    @property
    def places(self) -> int:
        """C."""
        return int(self.mask.sum())

    def read(self, rows: slice, leads: list[int], pollutant: str) -> np.ndarray:
        """(n, L, C) float32, ug/m3, gases at 273.15 K."""
        values = self.store.read(rows, leads, pollutant, cells=True)
        cells = self.mask[self.store.mask]
        return values if cells.all() else values[..., cells]


@dataclass(frozen=True, eq=False)
class StationForecasts:
    """Hours of a forecast store at stations."""

    store: ForecastStore
    sampling: Sampling

    @property
    def name(self) -> str:
        """How tables call the forecast."""
        return self.store.name

    @property
    def places(self) -> int:
        """C."""
        return len(self.sampling.stations)

    def read(self, rows: slice, leads: list[int], pollutant: str) -> np.ndarray:
        """As `CellForecasts.read`."""
        return self.sampling(self.store.read(rows, leads, pollutant, cells=True))


@dataclass(frozen=True, eq=False)
class StationTruth:
    """Hours that stations observed."""

    observed: Observations

    def read(self, times: np.ndarray, pollutants: tuple[str, ...]) -> np.ndarray:
        """As `CellTruth.read`."""
        return self.observed.at(times)[:, [TARGETS.index(name) for name in pollutants]]


@dataclass(frozen=True, eq=False)
class ProductMaker:
    """Makes days of hours.

    Attributes
    ----------
    standard : Edition
    products : tuple of (product, pollutant)
        "mean_24h", "mda8" or "max_1h" of a pollutant; the index is ("index", "").
    """

    standard: Edition
    products: tuple[tuple[str, str], ...]

    @property
    def pollutants(self) -> tuple[str, ...]:
        """Pollutants whose hours are needed; all for the index."""
        named = {name for _, name in self.products}
        return tuple(name for name in TARGETS if name in named or "" in named)

    def parts(self, hours: np.ndarray, pollutant: str, *, whole: bool = False) -> dict:
        """(product, pollutant) to (D, C) from hours (D, 24, C) at 273.15 K."""
        hours = self.standard.from_store_state(hours[..., None], (pollutant,))[..., 0]
        found = pollutant_days(hours, pollutant, self.standard, whole=whole)
        return {(product, pollutant): values for product, values in found.items()}

    def fields(self, parts: dict) -> list[DayFields]:
        """Each day of `parts` of all `pollutants` together."""
        shape = next(iter(parts.values())).shape
        primary = np.zeros((len(TARGETS), *shape), dtype=bool)
        if ("index", "") in self.products:
            aqi, primary = air_quality_index(parts, self.standard)
            parts = parts | {("index", ""): aqi}
        values = np.stack([parts[product] for product in self.products], axis=1)
        return [DayFields(values[d], primary[:, d]) for d in range(shape[0])]

    def of_day(self, hours: np.ndarray) -> DayFields:
        """From the hours (24, P, C) of one day, `pollutants` in their order."""
        parts = {}
        for p, name in enumerate(self.pollutants):
            parts |= self.parts(hours[None, :, p], name)
        return self.fields(parts)[0]

    def of_truth(
        self, truth: CellTruth | StationTruth, day: np.datetime64, shift_h: int = 0
    ) -> DayFields:
        """Of the hours of a Beijing date, or of hours that ended `shift_h` before them."""
        return self.of_day(truth.read(beijing_hours(day) - shift_h, self.pollutants))

    def of_climatology(self, usual: HarmonicClimatology, day: np.datetime64) -> DayFields:
        """Of the usual values (P, C) of the hours of a date; never negative."""
        return self.of_day(np.maximum(usual(beijing_hours(day)), 0.0))
