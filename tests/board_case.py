"""Small scoreboards of made-up forecasts, long enough for intervals, for tests of reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Scoreboard, save_scoreboard

POLLUTANTS, LEADS, HOURS, PLACES = ("pm25", "o3"), (12, 24), 1300, 6
THRESHOLDS = {"pm25": (75.0,), "o3": (60.0,)}
RECORD = {
    "command": ["aqnet", "score", "model a.zarr", "--manifest", "made-up"],
    "directory": "somewhere",
    "stores": [{"path": "model a.zarr", "digest": "7e" * 32, "name": "a", "title": "made up",
                "run": "20260101T000000-train", "checkpoint": "5a" * 32, "synthetic": True}],
    "truth": {"manifest": "made-up", "digest": "3c" * 32, "folder": "data", "synthetic": True},
    "edition": None, "code": {"aqnet": "0.1.0", "commit": "abc"}, "written": "2026-01-01T00:00Z",
}  # fmt: skip


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Red noise along axis 0 with an e-folding time of 20 h."""
    phi, x = np.exp(-1 / 20), rng.standard_normal(shape)
    for t in range(1, shape[0]):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x


def made_up_board(model: str = "a", size: float = 0.5, stations: bool = False) -> Scoreboard:
    """Forecast `model` of an error of `size`, persistence and climatology, on one truth."""
    rng = np.random.default_rng(5)
    shape = (HOURS, len(LEADS), len(POLLUTANTS), PLACES)
    truth, common = 60 + 25 * noise(rng, *shape), 20 * noise(rng, *shape)
    own = np.random.default_rng(int(size * 1000))
    forecasts = {
        model: truth + size * (common + 8 * noise(own, *shape)),
        "persistence": truth + common * 1.1,
        "climatology": np.where(np.arange(2)[:, None], 55.0, 65.0) + 0 * truth,
    }
    forecasts["persistence"][:5] = np.nan
    lat = np.linspace(30, 40, PLACES)
    groups = Groups(lat, lat + 75, np.ones(PLACES), {"sichuan_basin": np.arange(PLACES) < 2})
    weight = {"weight": "one a station"} if stations else {}
    design = design_of(groups, tuple(forecasts), LEADS, POLLUTANTS, THRESHOLDS, each_place=True,
                       **weight)  # fmt: skip
    adder = BlockAccumulator(design, groups)
    adder.add(np.datetime64("2018-01-01T00", "h") + np.arange(HOURS), forecasts, truth)
    adder.board.record = RECORD | ({"stations": station_record()} if stations else {})
    return adder.board


def station_record() -> dict:
    """As of a network of six stations, one withheld, with a name that needs care."""
    rows = [
        {"id": f"<{n}>", "network": "made-up", "class": "urban", "withheld": n == 3,
         "lat": 30.0 + n, "lon": 110.0, "distance_km": 3.2, "height_difference_m": None}
        for n in range(PLACES)
    ]  # fmt: skip
    return {"sampling": "bilinear", "table": rows, "outside": {"X1": "no cell"}, "unfitted": {}}


def board_file(folder: Path, name: str, **changes) -> Path:
    """Save `made_up_board` and return its path."""
    save_scoreboard(made_up_board(**changes), folder / name)
    return folder / name
