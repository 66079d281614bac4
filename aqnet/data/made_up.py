"""Yearly stores of made-up fields at any size, to measure and to show readers with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aqnet.data.years.format import YearSpec
from aqnet.data.years.writer import write_year
from aqnet.grid import GRIDS, Grid
from aqnet.variables import DYNAMIC, STATIC, VARIABLES

__all__ = ["static_stack", "write_made_up_year"]

_HOUR = np.timedelta64(1, "h")
# Mean and amplitude of a wave, and noise, in the units of `aqnet.variables`.
_WEATHER = {
    "u": (1.0, 4.0, 0.3),
    "v": (-0.5, 4.0, 0.3),
    "temp": (285.0, 12.0, 0.3),
    "rh": (55.0, 25.0, 2.0),
    "psfc": (92_000.0, 6_000.0, 30.0),
}
_MEDIAN = {"pm25": 40.0, "pm10": 75.0, "so2": 15.0, "no2": 25.0, "co": 700.0, "o3": 60.0}


def _made_up_hour(hour: int, grid: Grid, seed: int) -> np.ndarray:
    """(11, H, W) float32: travelling waves and noise; a pure function of its arguments."""
    lat, lon = grid.mesh()
    rng = np.random.default_rng([seed, hour])
    fields = np.empty((len(DYNAMIC), *grid.shape), np.float32)
    for place, name in enumerate(DYNAMIC):
        noise = rng.standard_normal(grid.shape, dtype=np.float32)
        phase = 2 * np.pi * hour / (50 + 7 * place) + place
        wave = np.sin(lat / (3 + place % 4) + phase) * np.cos(lon / (6 + place % 3) - 0.6 * phase)
        wave += 0.3 * np.sin(2 * np.pi * (hour + lon / 15) / 24)
        if name in _WEATHER:
            mean, amplitude, scatter = _WEATHER[name]
            fields[place] = mean + amplitude * wave + scatter * noise
        else:
            fields[place] = _MEDIAN[name] * np.exp(0.6 * wave + 0.05 * noise)
    humidity = DYNAMIC.index("rh")
    fields[humidity] = fields[humidity].clip(1, 100)
    return fields


def static_stack(grid: Grid, **known: np.ndarray | float) -> np.ndarray:
    """Static fields (S, H, W) in the order `STATIC`: what is given, made up where it is not.

    Parameters
    ----------
    grid : Grid
    known : (H, W) or a number
        Static variables by name. Latitude and longitude are those of the grid; what else is
        missing is a slope from its smallest to its largest valid value.
    """
    known |= dict(zip(("lat2d", "lon2d"), grid.mesh(), strict=True))
    slope = np.linspace(0, 1, grid.shape[0])[:, None]
    for name in STATIC:
        low, high = VARIABLES[name].valid_min, VARIABLES[name].valid_max
        known.setdefault(name, low + (high - low) * slope)
    return np.stack([np.broadcast_to(known[name], grid.shape) for name in STATIC])


def _made_up_place(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Static fields (S, H, W), and a mask of 35 % of the cells, as much as China's."""
    lat, lon = grid.mesh()
    y, x = (np.linspace(-1, 1, n) for n in grid.shape)
    mask = (y[:, None] / 0.67) ** 2 + ((x[None] - 0.05) / 0.67) ** 2 < 1
    hill = np.exp(-(((lat - lat.mean()) / 6) ** 2) - ((lon - lon.min() - 15) / 12) ** 2)
    people = np.exp(-(((lat - lat.mean()) / 8) ** 2) - ((lon - lon.max() + 15) / 10) ** 2)
    return static_stack(grid, elevation=2500 * hill, population=800 * people), mask


def write_made_up_year(
    path: str | Path,
    start_label: str,
    hours: int,
    grid: str = "china",
    seed: int = 0,
    missing: dict[int, str] | None = None,
) -> Path:
    """Write a yearly store of made-up smooth fields with noise; return its path.

    Parameters
    ----------
    path : path
    start_label : str
        First label, Beijing time: "2013-01-01T00".
    hours : int
    grid : str
        Name of a regular grid of `aqnet.grid.GRIDS`.
    seed : int
        Hours of stores with one seed continue each other.
    missing : dict, optional
        Row of the store: reason why the hour is missing.
    """
    times = np.datetime64(start_label, "h") - 8 * _HOUR + np.arange(hours)
    attributes = {
        "title": "made-up fields",
        "manifest": "made-up",
        "manifest_sha256": "0" * 64,
        "manifest_content": {},
        "synthetic": True,
        "utc_offset_h": 8.0,
        "licence": "none",
        "attribution": "none",
        "recipe": {"command": "aqnet bench loader", "settings": {"seed": seed}},
    }
    year, place = int(start_label[:4]), GRIDS[grid]
    spec = YearSpec(year, times, place, *_made_up_place(place), attributes)
    stamps = times.astype(np.int64).tolist()
    write_year(
        path,
        spec,
        lambda rows: np.stack([_made_up_hour(stamp, place, seed) for stamp in stamps[rows]]),
        missing,
    )
    return Path(path)
