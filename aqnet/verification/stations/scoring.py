"""Scoring forecast stores at the stations of a network, with baselines from each one's own past."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from aqnet.data.parallel import Workers
from aqnet.data.splits import Split
from aqnet.errors import CoverageError, explain
from aqnet.progress import Progress, silent
from aqnet.variables import TARGETS
from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Design, Scoreboard
from aqnet.verification.scoring import THRESHOLDS_UG_M3, refuse_names_twice
from aqnet.verification.stations.analysis import AnalysisFields, analysis_at_stations
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.places import StationPlaces, station_members
from aqnet.verification.stations.representativeness import station_record
from aqnet.verification.stations.rules import StationRules, fit_station_rules
from aqnet.verification.stations.sampling import Sampling
from aqnet.verification.store.checks import common_axes
from aqnet.verification.store.reader import ForecastStore

__all__ = ["ANALYSIS", "score_stations"]

# Not a forecast: the field that fields are scored against, at the valid time, in the cell.
ANALYSIS = "analysis at the station"
_TASK = 240  # init times; sums do not depend on how many processes share the tasks


@dataclass(frozen=True, eq=False)
class _Work:
    """What every process needs; S stations in the order of `observed`."""

    stores: tuple[ForecastStore, ...]
    samplings: tuple[Sampling, ...]
    observed: Observations
    rules: StationRules
    analysis: Observations | None
    groups: Groups
    design: Design
    times: np.ndarray


def score_stations(
    stores: ForecastStore | Sequence[ForecastStore],
    observations: Observations,
    *,
    sampling: str = "bilinear",
    outside: str = "refuse",
    baselines: Sequence[str] = ("persistence",),
    fit: Split | None = None,
    analysis: AnalysisFields | None = None,
    members: Mapping[str, np.ndarray] | None = None,
    elevation_m: np.ndarray | None = None,
    lead_times_h: Sequence[int] | None = None,
    pollutants: Sequence[str] | None = None,
    thresholds: Mapping[str, Sequence[float]] | None = THRESHOLDS_UG_M3,
    utc_offset_h: float = 8.0,
    workers: int = 0,
    progress: Progress = silent,
) -> Scoreboard:
    """Score forecasts and baselines at stations, on common pairs, each station weighing the same.

    Parameters
    ----------
    stores : ForecastStore or several
        With names of their own; their grids may differ.
    observations : Observations
        Of any network: from `aqnet.verification.stations.tables.read_observations`, or from a
        converter of `aqnet.verification.stations.sources`.
    sampling : str
        "nearest" or "bilinear"; see `sample_stations`.
    outside : str
        Stations that a store has no values at, and series without a climatology (see `fit`):
        "refuse", or "drop" and list in the record.
    baselines : sequence of str
        Of `STATISTICAL`, from each station's own past.
    fit : Split, optional
        Training period of climatologies and damping factors; needed by all baselines but
        persistence. With it anomaly correlations are kept.
    analysis : AnalysisFields, optional
        Adds `ANALYSIS`: its errors are the spread between station and cell, which no forecast of
        cells can be expected to beat.
    members : mapping of name to (H, W) bool, optional
        Groups of cells of the first store's grid, such as regions; a station belongs to those of
        its cell. Groups by withholding, network and class of station are always there.
    elevation_m : (H, W), optional
        Of these cells, for the difference in height.
    lead_times_h, pollutants, thresholds, utc_offset_h, workers, progress
        As `aqnet.verification.scoring.score`.

    Returns
    -------
    Scoreboard
        With the sums of every station. `record` has "stations": see `station_record`.

    Raises
    ------
    GridError
        Stations are outside, if refused; names them.
    CoverageError
        No station, init time or pair is left, or a series has no climatology, if refused.
    StoreError
        Two forecasts of one name.
    LeadTimeError, ParameterError, VerificationError
        As `score`.
    """
    stores = (stores,) if isinstance(stores, ForecastStore) else tuple(stores)
    names = (
        *(store.name for store in stores),
        *baselines,
        *(() if analysis is None else (ANALYSIS,)),
    )
    refuse_names_twice(names)
    places = StationPlaces.of(
        stores, analysis, observations.stations, sampling, outside, elevation_m
    )
    held = observations.take(places.kept)
    mask = np.ones(len(places.kept), dtype=bool)
    times, leads, chosen = common_axes(stores, mask, lead_times_h, pollutants)
    rules, unfitted = fit_station_rules(held, times, leads, chosen, baselines, fit, utc_offset_h)
    held = _without(held, chosen, unfitted, outside)
    s = held.stations
    grouped = station_members(s, {n: m.ravel()[places.of_stores[0].cell]
                                  for n, m in (members or {}).items()})  # fmt: skip
    groups = Groups(s.lat, s.lon, np.ones(len(s)), grouped, utc_offset_h)
    design = design_of(groups, names, leads, chosen, thresholds, anomalies=fit is not None,
                       each_place=True, weight="one a station")  # fmt: skip
    valid = times[:, None] + np.asarray(leads).astype("timedelta64[h]")
    span = held.between(times.min(), valid.max())
    seen = None if analysis is None else analysis_at_stations(analysis, places.of_analysis, valid)
    work = _Work(stores, places.of_stores, span, rules, seen, groups, design, times)
    board = _score_tasks(work, workers, progress)
    board.record = {"stations": station_record(
        places.of_stores, [store.name for store in stores], span.only(valid), chosen,
        places.dropped, unfitted, fit, seen)}  # fmt: skip
    return board


def _score_tasks(work: _Work, workers: int, progress: Progress) -> Scoreboard:
    board, times = Scoreboard(work.design), work.times
    tasks = list(pairwise([*range(0, len(times), _TASK), len(times)]))
    with Workers(workers, work) as pool:
        for done, part in enumerate(pool.map(_score_part, tasks), start=1):
            board = board.merge(part)
            progress("init times scored", done / len(tasks))
    if not board.weight.any():
        raise CoverageError(
            explain("nothing to score", expected="observations at the valid times that all "
                    "forecasts have", found=f"init times {times[0]} to {times[-1]}, observations "
                    f"{work.observed.times[0]} to {work.observed.times[-1]}, missing pairs "
                    f"{ {n: int(m.sum()) for n, m in board.missing.items()} }",
                    remedy="give observations of the period, or leave out what lacks forecasts")
        )  # fmt: skip
    return board


# ---- what belongs together


def _without(
    observations: Observations, pollutants: Sequence[str], unfitted: np.ndarray, outside: str
) -> Observations:
    """Observations without the series that have no climatology."""
    if not unfitted.any():
        return observations
    if outside != "drop":
        ids = observations.stations.ids
        shown = [f"{pollutants[p]} at {ids[s]}" for p, s in np.argwhere(unfitted)[:5]]
        raise CoverageError(
            explain(f"{int(unfitted.sum())} series have no climatology",
                    expected="a quarter of the hours of every calendar month that is forecast, in "
                    "the training period", found=", ".join(shown), remedy="leave them out by "
                    "outside='drop' (--outside drop), or take persistence alone as baseline")
        )  # fmt: skip
    values = observations.values.copy()
    for row, lost in zip([TARGETS.index(name) for name in pollutants], unfitted, strict=True):
        values[:, row, lost] = np.nan
    return replace(observations, values=values)


# ---- one process


def _score_part(work: _Work, task: tuple[int, int]) -> Scoreboard:
    adder, design = BlockAccumulator(work.design, work.groups), work.design
    channels = [TARGETS.index(name) for name in design.pollutants]
    leads = np.asarray(design.lead_times_h).astype("timedelta64[h]")
    rules = [name for name in design.forecasts[len(work.stores) :] if name != ANALYSIS]
    for times in _blocks(work, *task):
        valid = times[:, None] + leads
        forecasts = {
            store.name: _read(store, sampling, design, times)
            for store, sampling in zip(work.stores, work.samplings, strict=True)
        }
        forecasts |= work.rules(rules, times)
        if work.analysis is not None:
            forecasts[ANALYSIS] = work.analysis.at(valid)[:, :, channels]
        usual = work.rules.climatology(valid) if design.anomalies else None
        adder.add(times, forecasts, work.observed.at(valid)[:, :, channels], usual)
    return adder.board


def _blocks(work: _Work, start: int, stop: int) -> Iterator[np.ndarray]:
    """Init times of a task, in pieces that one read of the first store gives."""
    store, times = work.stores[0], work.times[start:stop]
    block = np.searchsorted(store.init_times, times) // int(store.attributes["block"])
    yield from np.split(times, np.flatnonzero(np.diff(block)) + 1)


def _read(
    store: ForecastStore, sampling: Sampling, design: Design, times: np.ndarray
) -> np.ndarray:
    """(n, L, P, S) float32 of init times that the store has."""
    rows = np.searchsorted(store.init_times, times)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    parts = [
        np.stack([
            sampling(store.read(slice(int(run[0]), int(run[-1]) + 1), design.lead_times_h, name,
                                cells=True))
            for name in design.pollutants
        ], axis=2)
        for run in runs
    ]  # fmt: skip
    return np.concatenate(parts)
