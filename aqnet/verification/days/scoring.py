"""How days are scored at the same places: what is kept apart, and the work of one process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.parallel import Workers
from aqnet.errors import CoverageError, explain
from aqnet.grid import local_clock
from aqnet.metrics import VerificationError
from aqnet.progress import Progress
from aqnet.verification.accumulate import design_of
from aqnet.verification.days.products import BEIJING_OFFSET_H, beijing_hours
from aqnet.verification.days.sources import (
    CellForecasts,
    ProductMaker,
    StationForecasts,
    StationTruth,
    first_day,
    lead_positions,
)
from aqnet.verification.days.sums import DayAdder, DayFields
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Design, Scoreboard
from aqnet.verification.scoring import CellTruth

__all__ = ["AQI", "COMPOSITE", "ONE_INITIALISATION", "PRODUCTS", "DayScoring"]

AQI = "AQI"
PRODUCTS = {
    "PM2.5 24 h mean": ("mean_24h", "pm25"),
    "PM10 24 h mean": ("mean_24h", "pm10"),
    "SO2 24 h mean": ("mean_24h", "so2"),
    "NO2 24 h mean": ("mean_24h", "no2"),
    "CO 24 h mean": ("mean_24h", "co"),
    "O3 daily maximum 8 h mean": ("mda8", "o3"),
    "O3 daily maximum 1 h mean": ("max_1h", "o3"),
    AQI: ("index", ""),
}
ONE_INITIALISATION = "one initialisation"
COMPOSITE = "composite of fixed lead times"
_AQI_LIMIT = 100.0  # a day above it does not meet the standard
_TASK = 60  # init times or days of a task: sums do not depend on the number of processes


@dataclass(frozen=True, eq=False)
class DayScoring:
    """What every process needs to score days at the same places.

    Attributes
    ----------
    forecasts : tuple of CellForecasts or StationForecasts
    truth : CellTruth or StationTruth
    groups : Groups
    design : Design
    maker : ProductMaker
    climatology : HarmonicClimatology or None
    leads : tuple of int
        Hours, of all stores.
    times : (N,) datetime64
        Init times, or the days of a composite.
    """

    forecasts: tuple[CellForecasts | StationForecasts, ...]
    truth: CellTruth | StationTruth
    groups: Groups
    design: Design
    maker: ProductMaker
    climatology: HarmonicClimatology | None
    leads: tuple[int, ...]
    times: np.ndarray

    @property
    def baselines(self) -> tuple[str, ...]:
        """Forecasts of the design beside the stores."""
        return self.design.forecasts[len(self.forecasts) :]

    @staticmethod
    def of(
        forecasts: Sequence[CellForecasts | StationForecasts], truth: CellTruth | StationTruth,
        groups: Groups, maker: ProductMaker, times: np.ndarray, leads: tuple[int, ...], *,
        composite: bool, baselines: Sequence[str], each_place: bool, weight: str,
        climatology: HarmonicClimatology | None = None,
    ) -> DayScoring:  # fmt: skip
        """Of init times (N,), UTC; VerificationError if no whole day has hourly lead times."""
        names = (*(one.name for one in forecasts), *baselines)
        design = _design(groups, names, leads, times, maker, composite)
        design = replace(design, each_place=groups.lat.size * each_place, weight=weight)
        times = _composite_days(times, leads) if composite else times
        return DayScoring(tuple(forecasts), truth, groups, design, maker, climatology, leads, times)

    def board(self, workers: int, progress: Progress) -> Scoreboard:
        """Score on `workers` processes, 0 is this one; CoverageError without any pair."""
        board, count = Scoreboard(self.design), len(self.times)
        tasks = list(pairwise([*range(0, count, _TASK), count]))
        part = _score_forecasts if self.design.lead_days else _score_composites
        with Workers(workers, self) as pool:
            for done, found in enumerate(pool.map(part, tasks), start=1):
                board = board.merge(found)
                progress("days scored", done / len(tasks))
        if not board.weight.any():
            raise CoverageError(
                explain("no day to score", expected="days of the forecasts with enough hours of "
                        "truth", found=f"init times or days {self.times[0]} to {self.times[-1]}",
                        remedy="give truth of the valid times")
            )  # fmt: skip
        return board


def _design(
    groups: Groups, forecasts: tuple[str, ...], leads: tuple[int, ...], times: np.ndarray,
    maker: ProductMaker, composite: bool,
) -> Design:  # fmt: skip
    names = {product: name for name, product in PRODUCTS.items()}
    shown = tuple(names[product] for product in maker.products)
    limits = {
        name: (_AQI_LIMIT if name == AQI else maker.standard.limit(*PRODUCTS[name]),)
        for name in shown
    }
    design = design_of(groups, forecasts, leads, shown, limits)
    design = replace(design, edition=maker.standard.name, days=COMPOSITE)
    if composite:
        return design
    whole = max(len(lead_positions(time, leads)) for time in times)
    if not whole:
        raise VerificationError(
            explain("no whole day has hourly lead times", expected="for example 1 to 48 h",
                    found=list(leads), remedy="forecast with hourly lead times (aqnet forecast), "
                    "or score a composite of fixed lead times, named as such")
        )  # fmt: skip
    index = AQI if AQI in shown else ""
    days = tuple(range(1, whole + 1))
    return replace(design, days=ONE_INITIALISATION, lead_times_h=(), lead_days=days, index=index)


def _composite_days(times: np.ndarray, leads: tuple[int, ...]) -> np.ndarray:
    """Beijing dates that any lead time has an hour of, datetime64[D]."""
    ends = (times[:, None] + np.asarray(leads).astype("timedelta64[h]")).ravel()
    return np.unique((local_clock(ends, BEIJING_OFFSET_H) - np.timedelta64(1, "s"))
                     .astype("datetime64[D]"))  # fmt: skip


# ---- one process


class _Kept:
    """Days made once while init times go by."""

    def __init__(self, make: Callable[[np.datetime64], DayFields], size: int) -> None:
        self._make, self._size, self._held = make, size, OrderedDict()

    def __call__(self, day: np.datetime64) -> DayFields:
        if day not in self._held:
            self._held[day] = self._make(day)
            if len(self._held) > self._size:
                self._held.popitem(last=False)
        return self._held[day]


def _score_forecasts(work: DayScoring, task: tuple[int, int]) -> Scoreboard:
    adder = DayAdder(work.design, work.groups)
    number = len(work.design.lead_days)
    observed = _Kept(lambda day: work.maker.of_truth(work.truth, day), number + 3)
    usual = _Kept(lambda day: work.maker.of_climatology(work.climatology, day), number + 3)
    for time, own in _forecast_days(work, work.times[slice(*task)]):
        days = first_day(time) + np.arange(number)
        there = [d < min(len(fields) for fields in own.values()) for d in range(number)]
        if "persistence" in work.baselines:
            last = local_clock(time, BEIJING_OFFSET_H).astype("datetime64[D]") - 1
            own["persistence"] = [observed(last)] * number
        if "climatology" in work.baselines:
            own["climatology"] = [usual(day) for day in days]
        padded = {name: [*fields, *[None] * (number - len(fields))] for name, fields in own.items()}
        truth = [observed(day) if here else None for day, here in zip(days, there, strict=True)]
        adder.add(time, days, padded, truth)
    return adder.board


def _forecast_days(
    work: DayScoring, times: np.ndarray
) -> Iterator[tuple[np.datetime64, dict[str, list[DayFields]]]]:
    """Init times and the whole days of each store, read in the blocks of the first store."""
    store = work.forecasts[0].store
    block = np.searchsorted(store.init_times, times) // int(store.attributes["block"])
    for some in np.split(times, np.flatnonzero(np.diff(block)) + 1):
        made = {f.name: _days_of(work.maker, f, some, work.leads) for f in work.forecasts}
        for i, time in enumerate(some):
            yield time, {name: days[i] for name, days in made.items()}


def _days_of(
    maker: ProductMaker,
    forecast: CellForecasts | StationForecasts,
    times: np.ndarray,
    leads: tuple[int, ...],
) -> list[list[DayFields]]:
    """For each init time its whole days."""
    rows = np.searchsorted(forecast.store.init_times, times)
    positions = [lead_positions(time, leads) for time in times]
    parts: list[dict] = [{} for _ in times]
    for name in maker.pollutants:
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            part = slice(int(rows[run[0]]), int(rows[run[-1]]) + 1)
            values = forecast.read(part, list(leads), name)
            for i, hours in zip(run, values, strict=True):
                if positions[i].size:
                    parts[i] |= maker.parts(hours[positions[i]], name, whole=True)
    return [maker.fields(found) if found else [] for found in parts]


def _score_composites(work: DayScoring, task: tuple[int, int]) -> Scoreboard:
    adder, leads = DayAdder(work.design, work.groups), work.design.lead_times_h
    for day in work.times[slice(*task)]:
        truth = work.maker.of_truth(work.truth, day)
        own = {f.name: [_composite(work.maker, f, day, lead) for lead in leads]
               for f in work.forecasts}  # fmt: skip
        if "persistence" in work.baselines:
            own["persistence"] = [work.maker.of_truth(work.truth, day, lead) for lead in leads]
        if "climatology" in work.baselines:
            own["climatology"] = [work.maker.of_climatology(work.climatology, day)] * len(leads)
        midnight = beijing_hours(day)[0] - np.timedelta64(1, "h")
        adder.add(midnight, np.full(len(leads), day), own, [truth] * len(leads))
    return adder.board


def _composite(
    maker: ProductMaker,
    forecast: CellForecasts | StationForecasts,
    day: np.datetime64,
    lead: int,
) -> DayFields:
    """A date of hours that were each forecast `lead` hours before; NaN where one is not there."""
    wanted, axis = beijing_hours(day) - np.timedelta64(lead, "h"), forecast.store.init_times
    rows = np.searchsorted(axis, wanted).clip(max=len(axis) - 1)
    there = np.flatnonzero(axis[rows] == wanted)
    hours = np.full((24, len(maker.pollutants), forecast.places), np.nan)
    if there.size:
        part = slice(int(rows[there[0]]), int(rows[there[-1]]) + 1)
        inside = rows[there] - part.start
        for p, name in enumerate(maker.pollutants):
            hours[there, p] = forecast.read(part, [lead], name)[inside, 0]
    return maker.of_day(hours)
