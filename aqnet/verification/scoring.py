"""Scoring forecast stores against the fields of yearly stores, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.parallel import Workers
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, ParameterError, StoreError, explain
from aqnet.progress import Progress, silent
from aqnet.variables import DYNAMIC
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Design, Scoreboard
from aqnet.verification.store.checks import common_axes
from aqnet.verification.store.reader import ForecastStore

__all__ = [
    "BASELINES",
    "THRESHOLDS_UG_M3",
    "WINDOWS",
    "CellTruth",
    "check_forecasts",
    "packed_climatology",
    "score",
]

BASELINES = ("persistence", "climatology")
# Numbers of GB 3095-2012 (class 2) and HJ 633-2012, here applied to *hourly* values, for which the
# standards have no limit of particles: events of this size, not exceedances of a standard.
THRESHOLDS_UG_M3 = {
    "pm25": (75.0, 150.0),
    "pm10": (150.0, 350.0),
    "so2": (150.0, 500.0),
    "no2": (80.0, 200.0),
    "co": (4000.0, 10000.0),
    "o3": (160.0, 200.0),
}
WINDOWS = (3, 9)  # cells; 80 and 240 km on the grid `china`
# Init times of a task: its sums do not depend on how many processes share the tasks.
_TASK = 240


@dataclass(frozen=True, eq=False)
class _Work:
    """What every process needs; places are the cells of `mask`."""

    stores: tuple[ForecastStore, ...]
    truth: YearSet
    groups: Groups
    mask: np.ndarray
    design: Design
    climatology: HarmonicClimatology | None
    times: np.ndarray


def score(
    stores: ForecastStore | Sequence[ForecastStore],
    truth: YearSet,
    members: Mapping[str, np.ndarray] | None = None,
    *,
    baselines: Sequence[str] = ("persistence",),
    climatology: HarmonicClimatology | None = None,
    lead_times_h: Sequence[int] | None = None,
    pollutants: Sequence[str] | None = None,
    thresholds: Mapping[str, Sequence[float]] | None = THRESHOLDS_UG_M3,
    windows: Sequence[int] = WINDOWS,
    each_place: bool = True,
    utc_offset_h: float = 8.0,
    workers: int = 0,
    progress: Progress = silent,
) -> Scoreboard:
    """Score forecasts and baselines on common pairs.

    Parameters
    ----------
    stores : ForecastStore or several
        With names of their own, on the grid of the truth. Cells that all stores and the truth
        have, and init times that all stores have, are scored.
    truth : YearSet
        Hours that are not there, and NaN, do not count.
    members : mapping of name to (H, W) bool
        Groups of cells, for example `aqnet.verification.regions.china_groups`.
    baselines : sequence of str
        Of `BASELINES`, beside the stores: persistence of the truth at the init time, and
        `climatology`.
    climatology : HarmonicClimatology, optional
        Of the 11 dynamic variables on the grid (`Statistics.climatology`), fitted on training
        hours alone. With it anomaly correlations are kept.
    lead_times_h, pollutants : sequence, optional
        Default those of the stores, which then must not differ.
    thresholds : mapping of pollutant to ug/m3, or None
        Of events. `windows`: of the fractions skill score, odd numbers of cells; may be empty.
    each_place : bool
        Keep the sums of every cell, all times together, for maps.
    utc_offset_h : float
        Clock of seasons and hours.
    workers : int
        Processes; 0 is this one. The result has the same bits for any number >= 1.
    progress : callable
        Called with a text and the share done.

    Raises
    ------
    StoreError
        Another grid than the truth's, no common cell, or two forecasts of one name.
    CoverageError
        No common init time, other pollutants in one store than in another, or no pair at all.
    LeadTimeError
        A store lacks a lead time, or has others and `lead_times_h` does not choose.
    VerificationError
        Bad thresholds, windows or groups.
    """
    stores = (stores,) if isinstance(stores, ForecastStore) else tuple(stores)
    check_forecasts(stores, truth, baselines, climatology)
    mask = reduce(np.logical_and, [store.mask for store in stores], truth.mask)
    times, leads, names = common_axes(stores, mask, lead_times_h, pollutants)
    groups = Groups.of_grid(truth.grid, mask, members, utc_offset_h)
    forecasts = (*(store.name for store in stores), *baselines)
    design = design_of(groups, forecasts, leads, names, thresholds,
                       windows if thresholds else (), anomalies=climatology is not None,
                       each_place=each_place)  # fmt: skip
    work = _Work(stores, truth, groups, mask, design,
                 packed_climatology(climatology, names, mask), times)  # fmt: skip
    board = Scoreboard(design)
    tasks = list(pairwise([*range(0, len(times), _TASK), len(times)]))
    with Workers(workers, work) as pool:
        for done, part in enumerate(pool.map(_score_part, tasks), start=1):
            board = board.merge(part)
            progress("init times scored", done / len(tasks))
    if not board.weight.any():
        raise CoverageError(
            explain("nothing to score", expected="truth at the valid times of the forecasts",
                    found=f"init times {times[0]} to {times[-1]}, truth {truth.times[0]} to "
                    f"{truth.times[-1]}", remedy="open the years of the valid times")
        )  # fmt: skip
    return board


# ---- what belongs together


def refuse_names_twice(names: Sequence[str]) -> None:
    """StoreError if two forecasts, stores or baselines, have one name."""
    if len(set(names)) < len(names):
        raise StoreError(
            explain("forecasts need names of their own", expected="no name twice",
                    found=list(names),
                    remedy="leave out a store or the baseline of the same name")
        )  # fmt: skip


def check_forecasts(
    stores: Sequence[ForecastStore], truth: YearSet, baselines: Sequence[str], climatology: object
) -> None:
    """Refuse stores and baselines that cannot be scored together; see `score`."""
    names = [*(store.name for store in stores), *baselines]
    for store in stores:
        if store.grid.digest != truth.grid.digest:
            grids = [(g.name, g.shape, g.digest[:12]) for g in (truth.grid, store.grid)]
            raise StoreError(
                explain(f"{store.path} is on another grid than the truth", expected=grids[0],
                        found=grids[1], remedy="regrid the forecasts (aqnet forecast-store "
                        "import), or open the truth on their grid")
            )  # fmt: skip
    if not stores:
        raise StoreError(
            explain("there is nothing to score", expected="at least one store", found="none",
                    remedy="give the folder of a forecast store")
        )  # fmt: skip
    refuse_names_twice(names)
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown or ("climatology" in baselines and climatology is None):
        raise ParameterError(
            explain("a baseline cannot be made", expected=f"some of {BASELINES}; climatology "
                    "needs the argument `climatology`", found=list(baselines),
                    remedy="give it, leave the baseline out, or write it as a store")
        )  # fmt: skip


def packed_climatology(
    climatology: HarmonicClimatology | None, pollutants: Sequence[str], mask: np.ndarray
) -> HarmonicClimatology | None:
    """The climatology of the pollutants at the scored cells, (K, P, C)."""
    if climatology is None:
        return None
    c, rows = climatology, [DYNAMIC.index(name) for name in pollutants]
    if c.coefficients.shape[1:] != (len(DYNAMIC), *mask.shape):
        raise ParameterError(
            explain("the climatology is not one of this grid", found=c.coefficients.shape,
                    expected=f"coefficients (K, {len(DYNAMIC)}, {mask.shape[0]}, {mask.shape[1]})",
                    remedy="give `climatology` of the statistics of the truth's manifest")
        )  # fmt: skip
    packed = np.ascontiguousarray(c.coefficients[:, rows][..., mask])
    return HarmonicClimatology(packed, c.utc_offset_h, c.annual, c.diurnal)


# ---- one process


class _Hours:
    """Values (P, C) of hours, each got once while init times go by."""

    def __init__(self, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self._read, self._held = read, {}

    def at(self, times: np.ndarray) -> np.ndarray:
        """(*times.shape, P, C); hours before the first of `times` are forgotten."""
        for hour in [h for h in self._held if h < times.min()]:
            del self._held[hour]
        wanted = np.unique(times)
        lacking = np.array([t for t in wanted if t not in self._held], dtype="datetime64[h]")
        for some in np.array_split(lacking, -(-lacking.size // 24)) if lacking.size else ():
            self._held.update(zip(some, self._read(some), strict=True))
        found = np.stack([self._held[t] for t in times.ravel()])
        return found.reshape(*times.shape, *found.shape[1:])


@dataclass(frozen=True, eq=False)
class CellTruth:
    """Hours of yearly stores at the cells of a mask (H, W)."""

    years: YearSet
    mask: np.ndarray

    def read(self, times: np.ndarray, pollutants: Sequence[str]) -> np.ndarray:
        """(n, P, C) float32, ug/m3, gases at 273.15 K; NaN where an hour is not there."""
        channels, rows = [DYNAMIC.index(name) for name in pollutants], self.years.rows_at(times)
        found = np.full((len(times), len(channels), int(self.mask.sum())), np.nan, np.float32)
        if (there := rows >= 0).any():
            found[there] = self.years.read(rows[there])[:, channels][..., self.mask]
        return found


def _read_store(store: ForecastStore, work: _Work, times: np.ndarray) -> np.ndarray:
    """(n, L, P, C) float32 of init times that the store has."""
    rows, cells = np.searchsorted(store.init_times, times), work.mask[store.mask]
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    leads, names = work.design.lead_times_h, work.design.pollutants
    found = np.empty((len(rows), len(leads), len(names), int(cells.sum())), np.float32)
    for p, name in enumerate(names):
        first = 0
        for run in runs:
            part = slice(int(run[0]), int(run[-1]) + 1)
            values = store.read(part, leads, name, cells=True)
            found[first : first + run.size, :, p] = values if cells.all() else values[..., cells]
            first += run.size
    return found


def _blocks(work: _Work, start: int, stop: int) -> Iterator[np.ndarray]:
    """Init times of a task, in pieces that one read of the first store gives."""
    store, times = work.stores[0], work.times[start:stop]
    size = int(store.attributes["block"])
    block = np.searchsorted(store.init_times, times) // size
    yield from np.split(times, np.flatnonzero(np.diff(block)) + 1)


def _score_part(work: _Work, task: tuple[int, int]) -> Scoreboard:
    adder = Accumulator(work.design, work.groups, work.mask)
    cells, usual = CellTruth(work.truth, work.mask), None
    truth = _Hours(lambda times: cells.read(times, work.design.pollutants))
    if work.climatology is not None:
        # The forecast `climatology` then has no anomalies, not even where harmonics are negative.
        usual = _Hours(lambda times: np.maximum(work.climatology(times), 0).astype(np.float32))
    leads = np.asarray(work.design.lead_times_h).astype("timedelta64[h]")
    baselines = work.design.forecasts[len(work.stores) :]
    for times in _blocks(work, *task):
        valid = times[:, None] + leads
        forecasts = {store.name: _read_store(store, work, times) for store in work.stores}
        normal = None if usual is None else usual.at(valid)
        both = truth.at(np.concatenate([times[:, None], valid], axis=1))
        if "persistence" in baselines:
            forecasts["persistence"] = np.broadcast_to(both[:, :1], both[:, 1:].shape)
        if "climatology" in baselines:
            forecasts["climatology"] = normal
        adder.add(times, forecasts, both[:, 1:], normal)
    return adder.board
