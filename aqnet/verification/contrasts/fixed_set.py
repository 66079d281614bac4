"""The loss of a trained forecaster on a fixed set of init times, for paired comparisons.

Every run of an experiment is judged on the same init times and the same cells or stations, in the
units of its own normaliser and in those of the constants with which the original system was
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.history import rows_of
from aqnet.data.manifest import Manifest
from aqnet.data.splits import splits_of
from aqnet.data.stations.samples import load_stations, observed_at
from aqnet.data.store import open_store
from aqnet.data.years.year_set import YearSet, open_years
from aqnet.errors import CoverageError, ParameterError, StoreError, explain
from aqnet.io import station_store
from aqnet.model.statistical import situation_at
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.variables import DYNAMIC, STATIC, TARGETS
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.contrasts.runs import MODEL
from aqnet.verification.forecast_fields import plan_field_rule, plan_fields
from aqnet.verification.forecast_plan import ForecastPlan, Period
from aqnet.verification.forecast_stations import plan_stations
from aqnet.verification.forecasts import sample_at_stations, station_groups
from aqnet.verification.groups import ALL, Groups
from aqnet.verification.regions import china_groups
from aqnet.verification.scoreboard import Scoreboard

__all__ = [
    "ORIGINAL_UG_M3",
    "PERSISTENCE",
    "judge_fixed_set",
    "normalised_loss",
    "spread_of",
]

PERSISTENCE = "persistence"
# Standard deviations that the original system divided by: set by hand, not measured.
ORIGINAL_UG_M3 = {"pm25": 15.0, "pm10": 25.0, "so2": 5.0, "no2": 15.0, "co": 100.0, "o3": 20.0}
_BLOCK = 64  # init times in memory at once


def judge_fixed_set(
    loaded: LoadedForecaster,
    manifest: GridManifest | Manifest,
    data: str | Path | None = None,
    every_h: int = 8,
    split: str = "validation",
    echo: Callable[[str], None] = print,
    device: str = "cpu",
) -> Scoreboard:
    """Score a forecaster and persistence on the same init times of a split.

    Parameters
    ----------
    loaded : LoadedForecaster
    manifest : GridManifest or Manifest
        Of fields, or of stations, as the forecaster was trained on.
    data : path, optional
        Folder of the yearly stores, or the store of the stations; None: the usual place.
    every_h : int
        Hours between init times; divides a day.
    split : str
    echo : callable
        Takes progress lines.
    device : str
        Of torch, for a forecaster of fields.

    Returns
    -------
    Scoreboard
        Forecasts `MODEL` and `PERSISTENCE`. Of fields: every cell has weight 1, as in the
        training's loss; groups: all, regions of China, classes of terrain. Of stations: the
        forecast at the stations, against what they observed, where their last value is known too;
        weight 1 a station; groups: all, those that the analysis uses, those withheld from it.

    Raises
    ------
    StoreError, LeadTimeError, CoverageError, VerificationError
        As `plan_fields` or `plan_stations`; or no init time is left.
    ParameterError
        A forecaster for stations on another device than the CPU.
    """
    period = Period(split=split, every_h=every_h)
    if loaded.model.kind == "grid":
        return _judge_fields(loaded, manifest, period, data, echo, device)
    if device != "cpu":
        raise ParameterError(
            explain("a forecaster for stations runs on the CPU", expected="device cpu",
                    found=device, remedy="leave the device out")
        )  # fmt: skip
    return _judge_stations(loaded, manifest, period, data, echo)


def _score(
    into: Accumulator,
    times: np.ndarray,
    forecasts: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    truth: Callable[[np.ndarray], np.ndarray],
    echo: Callable[[str], None],
) -> Scoreboard:
    """Add init times block by block; `forecasts` and `truth` give (n, L, 6, C) ug/m3 of some."""
    for first in range(0, len(times), _BLOCK):
        part = times[first : first + _BLOCK]
        into.add(part, {name: values(part) for name, values in forecasts.items()}, truth(part))
        echo(f"{first + len(part)} of {len(times)} init times")
    return into.board


# ---- fields


def _judge_fields(
    loaded: LoadedForecaster, manifest: GridManifest, period: Period, folder: str | Path | None,
    echo: Callable[[str], None], device: str,
) -> Scoreboard:  # fmt: skip
    own = plan_fields(loaded, manifest, period, name=MODEL, folder=folder, device=device)
    own.spec()  # refuses a plan without init times
    leads = own.lead_times_h
    rule = plan_field_rule(PERSISTENCE, manifest, period, leads, folder=folder)
    years = open_years(manifest, folder)
    _require_stores(loaded, years)
    groups = _groups(years)
    design = design_of(groups, (MODEL, PERSISTENCE), leads, TARGETS, weight="1 a cell")
    plans = {MODEL: own, PERSISTENCE: rule}
    return _score(
        Accumulator(design, groups),
        own.times[np.isin(own.times, rule.times)],
        {name: lambda times, plan=plan: _values(plan, times) for name, plan in plans.items()},
        lambda times: _truth(years, times, leads),
        echo,
    )


def _require_stores(loaded: LoadedForecaster, years: YearSet) -> None:
    """Refuse stores that were written anew since the training: runs would not be comparable."""
    trained = dict(loaded.checkpoint.identity.stores)
    others = {s.path.name: (trained.get(s.path.name), s.digest) for s in years.stores
              if trained.get(s.path.name) != s.digest}  # fmt: skip
    if others:
        raise StoreError(
            explain(f"not the stores of the training: {', '.join(others)}",
                    expected={name: pair[0] for name, pair in others.items()},
                    found={name: pair[1] for name, pair in others.items()},
                    remedy="train again on these stores, or judge on those of the training")
        )  # fmt: skip


def _groups(years: YearSet) -> Groups:
    members = china_groups(years.grid, years.static[STATIC.index("elevation")])
    found = Groups.of_grid(years.grid, years.mask, members)
    own = {name: found.members[name] for name in found.names if name != ALL}
    return Groups(found.lat, found.lon, np.ones(found.lat.size), own, found.utc_offset_h)


def _values(plan: ForecastPlan, times: np.ndarray) -> np.ndarray:
    """(n, L, 6, C) ug/m3."""
    parts = (times[i : i + plan.batch] for i in range(0, len(times), plan.batch))
    return np.concatenate([plan.forecast(part)[..., plan.mask] for part in parts])


def _truth(years: YearSet, times: np.ndarray, leads: tuple[int, ...]) -> np.ndarray:
    valid = times[:, None] + np.asarray(leads).astype("timedelta64[h]")
    needed, place = np.unique(valid, return_inverse=True)
    rows = years.rows_at(needed)
    if (lacking := needed[rows < 0]).size:
        raise CoverageError(
            explain("the stores lack hours of the truth", expected="every valid time of the split",
                    found=f"{lacking.size} absent, the first {lacking[0]} UTC",
                    remedy="choose another split, or add the stores of these years")
        )  # fmt: skip
    values = years.read(rows)
    at = [DYNAMIC.index(name) for name in TARGETS]
    return values[:, at][..., years.mask][place.reshape(valid.shape)]


# ---- stations


def _judge_stations(
    loaded: LoadedForecaster, manifest: Manifest, period: Period, store: str | Path | None,
    echo: Callable[[str], None],
) -> Scoreboard:  # fmt: skip
    path = station_store(manifest.name, store)
    plan = plan_stations(loaded, manifest, period, name=MODEL, store=path)
    plan.spec()  # refuses a plan without init times
    opened, leads = open_store(path, manifest), plan.lead_times_h
    stations = load_stations(opened, splits_of(manifest))

    def model(times: np.ndarray) -> np.ndarray:
        return sample_at_stations(plan.grid, stations, plan.forecast(times))

    def persistence(times: np.ndarray) -> np.ndarray:
        rows = rows_of(stations.times, times)
        return loaded.statistical(PERSISTENCE, situation_at(stations.history, rows, leads))

    def truth(times: np.ndarray) -> np.ndarray:
        return observed_at(stations, rows_of(stations.times, times), leads)

    groups = station_groups(stations, opened.utc_offset_h)
    design = design_of(groups, (MODEL, PERSISTENCE), leads, TARGETS, weight="1 a station")
    into = BlockAccumulator(design, groups)
    return _score(into, plan.times, {MODEL: model, PERSISTENCE: persistence}, truth, echo)


# ---- the loss


def spread_of(loaded: LoadedForecaster) -> dict[str, float]:
    """What the loss of a forecaster divides by, for each pollutant [ug/m3].

    Of fields: the spread of the normaliser, which the training divides by as well. Of stations: the
    standard deviation about the harmonic climatology over the hours and cells of the training
    split. Their training divides by that times the level of the last 60 days, and weights lead
    times and pollutants by what the statistical start leaves: its loss is another one.
    """
    if loaded.model.kind == "grid":
        values = loaded.model.prepare.target_spread[:, 0]
    else:
        values = loaded.model.spread[loaded.model.at]
    return dict(zip(TARGETS, values.double().tolist(), strict=True))


def normalised_loss(board: Scoreboard, forecast: str, spread_ug_m3: dict[str, float]) -> float:
    """Mean over lead times and pollutants of the squared error over the squared spread [1]."""
    series = board.squares[forecast][..., board.design.groups.index(ALL)].sum(0)
    weight = board.weight[..., board.design.groups.index(ALL)].sum(0)
    spread = np.array([spread_ug_m3[name] for name in board.design.pollutants])
    return float((series / weight / spread**2).mean())
