"""Scoring daily products of forecast stores at the stations of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aqnet.errors import ParameterError, explain
from aqnet.progress import Progress, silent
from aqnet.verification.days.products import BEIJING_OFFSET_H
from aqnet.verification.days.scores import day_maker
from aqnet.verification.days.scoring import DayScoring
from aqnet.verification.days.sources import StationForecasts, StationTruth
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Scoreboard
from aqnet.verification.scoring import refuse_names_twice
from aqnet.verification.standards import Edition
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.places import StationPlaces, station_members
from aqnet.verification.stations.representativeness import station_record
from aqnet.verification.store.checks import common_axes
from aqnet.verification.store.reader import ForecastStore

__all__ = ["score_station_days"]


def score_station_days(
    stores: ForecastStore | Sequence[ForecastStore],
    observations: Observations,
    *,
    standard: str | Edition,
    products: Sequence[str] | None = None,
    composite: bool = False,
    sampling: str = "bilinear",
    outside: str = "refuse",
    baselines: Sequence[str] = ("persistence",),
    members: Mapping[str, np.ndarray] | None = None,
    elevation_m: np.ndarray | None = None,
    lead_times_h: Sequence[int] | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> Scoreboard:
    """Score daily products at stations, each weighing the same.

    Parameters
    ----------
    stores, observations, sampling, outside, members, elevation_m
        As in `aqnet.verification.stations.scoring.score_stations`.
    standard, products, composite, lead_times_h, workers, progress
        As in `aqnet.verification.days.scores.score_days`.
    baselines : sequence of str
        "persistence" or nothing: the last whole day of the station.

    Returns
    -------
    Scoreboard
        With the sums of every station; `record` has "stations", as that of `score_stations`.

    Raises
    ------
    ParameterError
        Another baseline.
    StoreError, GridError, CoverageError, LeadTimeError, StandardError, VerificationError
        As those two.
    """
    stores = (stores,) if isinstance(stores, ForecastStore) else tuple(stores)
    if unknown := set(baselines) - {"persistence"}:
        raise ParameterError(
            explain("a baseline of days at stations cannot be made", expected="persistence",
                    found=sorted(unknown), remedy="leave it out, or score hours")
        )  # fmt: skip
    refuse_names_twice([*(store.name for store in stores), *baselines])
    maker = day_maker(standard, products, composite)
    places = StationPlaces.of(stores, None, observations.stations, sampling, outside, elevation_m)
    held = observations.take(places.kept)
    everywhere = np.ones(len(places.kept), dtype=bool)
    times, leads, _ = common_axes(stores, everywhere, lead_times_h, maker.pollutants)
    s, cell = held.stations, places.of_stores[0].cell
    grouped = station_members(s, {n: m.ravel()[cell] for n, m in (members or {}).items()})
    scoring = DayScoring.of(
        [StationForecasts(*pair) for pair in zip(stores, places.of_stores, strict=True)],
        StationTruth(held), Groups(s.lat, s.lon, np.ones(len(s)), grouped, BEIJING_OFFSET_H),
        maker, times, leads, composite=composite, baselines=baselines, each_place=True,
        weight="one a station",
    )  # fmt: skip
    board = scoring.board(workers, progress)
    names = [store.name for store in stores]
    unfitted = np.zeros((len(maker.pollutants), len(s)), dtype=bool)
    span = held.between(times.min(), times.max() + np.timedelta64(max(leads), "h"))
    told = station_record(
        places.of_stores, names, span, maker.pollutants, places.dropped, unfitted, None
    )
    board.record = {"stations": told}
    return board
