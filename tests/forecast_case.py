"""Small forecast stores of made-up values, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aqnet.grid import Grid
from aqnet.variables import TARGETS
from aqnet.verification.forecast_plan import ForecastPlan, write_forecasts

GRID = Grid("small", np.linspace(42, 35, 8), np.arange(100.0, 112.0))  # north to south
LEADS = (12, 24)
PROVENANCE = {
    "title": "made-up forecasts",
    "kind": "baseline",
    "name": "made-up",
    "source": {"rule": "none"},
    "data": {"manifest": "none"},
    "run": "none",
    "code": {"aqnet": "0"},
    "synthetic": True,
    "weather": "none",
}


def small_mask() -> np.ndarray:
    """(8, 12) bool: not symmetric."""
    mask = np.ones(GRID.shape, bool)
    mask[:3, :5] = False
    return mask


def init_times(count: int = 20) -> np.ndarray:
    """Every 6 h from 2014-01-01, with a gap of a day after the fourth."""
    times = np.datetime64("2014-01-01T00", "h") + 6 * np.arange(count).astype("timedelta64[h]")
    times[4:] += np.timedelta64(24, "h")
    return times


def made_up_forecast(times: np.ndarray, leads=LEADS, shape=GRID.shape) -> np.ndarray:
    """(n, L, 6, H, W) float32, ug/m3: a pure function of time, lead, pollutant and cell."""
    hours = np.asarray(times).astype("datetime64[h]").astype(np.int64)
    found = np.empty((len(hours), len(leads), len(TARGETS), *shape), np.float32)
    for i, hour in enumerate(hours.tolist()):
        for j, lead in enumerate(leads):
            rng = np.random.default_rng((hour, lead))
            found[i, j] = rng.gamma(2.0, 20.0, size=found.shape[2:])
    return found


def small_plan(count: int = 20, **changes) -> ForecastPlan:
    """A plan of `made_up_forecast`."""
    parts = {
        "times": init_times(count),
        "skipped": (),
        "lead_times_h": LEADS,
        "grid": GRID,
        "mask": small_mask(),
        "provenance": PROVENANCE,
        "forecast": made_up_forecast,
        "batch": 3,
    }
    return ForecastPlan(**parts | changes)


def small_store(path: Path, count: int = 20, block: int = 6, **changes) -> Path:
    """Write a store of `small_plan`."""
    write_forecasts(small_plan(count, **changes), path, block=block, echo=lambda line: None)
    return path
