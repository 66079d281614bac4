"""The loss of a trained forecaster of fields on a fixed set of init times, for paired comparisons.

Every run of an experiment is judged on the same init times and cells, in the units of its own
normaliser and in those of the constants with which the original system was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.years.reader import YearSet, open_years
from aqnet.errors import CoverageError, explain
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.variables import DYNAMIC, STATIC, TARGETS
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.forecast_fields import plan_field_rule, plan_fields
from aqnet.verification.forecast_plan import ForecastPlan, Period
from aqnet.verification.groups import ALL, Groups
from aqnet.verification.regions import china_groups
from aqnet.verification.scoreboard import Scoreboard

__all__ = ["MODEL", "ORIGINAL_UG_M3", "PERSISTENCE", "judge_fixed_set", "normalised_loss"]

MODEL, PERSISTENCE = "model", "persistence"
# Standard deviations that the original system divided by: set by hand, not measured.
ORIGINAL_UG_M3 = {"pm25": 15.0, "pm10": 25.0, "so2": 5.0, "no2": 15.0, "co": 100.0, "o3": 20.0}
_BLOCK = 64  # init times in memory at once


def judge_fixed_set(
    loaded: LoadedForecaster,
    manifest: GridManifest,
    folder: str | Path | None = None,
    every_h: int = 8,
    split: str = "validation",
    echo: Callable[[str], None] = print,
    device: str = "cpu",
) -> Scoreboard:
    """Score a forecaster and persistence on the same init times of a split.

    Parameters
    ----------
    loaded : LoadedForecaster
        Of kind "grid".
    manifest : GridManifest
    folder : path, optional
        Of the stores.
    every_h : int
        Hours between init times; divides a day.
    split : str
    echo : callable
        Takes progress lines.
    device : str
        Of torch, for the forecaster.

    Returns
    -------
    Scoreboard
        Forecasts `MODEL` and `PERSISTENCE`; every cell has weight 1, as in the training's loss;
        groups: all, regions of China, classes of terrain.

    Raises
    ------
    StoreError, LeadTimeError, CoverageError
        As `plan_fields`; or no init time is left.
    """
    period = Period(split=split, every_h=every_h)
    own = plan_fields(loaded, manifest, period, name=MODEL, folder=folder, device=device)
    own.spec()  # refuses a plan without init times
    leads = own.lead_times_h
    rule = plan_field_rule(PERSISTENCE, manifest, period, leads, folder=folder)
    years = open_years(manifest, folder)
    groups = _groups(years)
    design = design_of(groups, (MODEL, PERSISTENCE), leads, TARGETS, weight="1 a cell")
    into = Accumulator(design, groups)
    times = own.times[np.isin(own.times, rule.times)]
    for first in range(0, len(times), _BLOCK):
        part = times[first : first + _BLOCK]
        forecasts = {
            name: _values(plan, part) for name, plan in ((MODEL, own), (PERSISTENCE, rule))
        }
        into.add(part, forecasts, _truth(years, part, leads))
        echo(f"{first + len(part)} of {len(times)} init times")
    return into.board


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
    rows = np.searchsorted(years.times, needed).clip(max=len(years.times) - 1)
    if (lacking := needed[years.times[rows] != needed]).size:
        raise CoverageError(
            explain("the stores lack hours of the truth", expected="every valid time of the split",
                    found=f"{lacking.size} absent, the first {lacking[0]} UTC",
                    remedy="choose another split, or add the stores of these years")
        )  # fmt: skip
    values = years.read(rows)
    at = [DYNAMIC.index(name) for name in TARGETS]
    return values[:, at][..., years.mask][place.reshape(valid.shape)]


def normalised_loss(board: Scoreboard, forecast: str, spread_ug_m3: dict[str, float]) -> float:
    """Mean over lead times and pollutants of the squared error over the squared spread [1]."""
    series = board.squares[forecast][..., board.design.groups.index(ALL)].sum(0)
    weight = board.weight[..., board.design.groups.index(ALL)].sum(0)
    spread = np.array([spread_ug_m3[name] for name in board.design.pollutants])
    return float((series / weight / spread**2).mean())
