"""Small yearly stores of made-up smooth fields, for tests of everything that reads stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aqnet.data.made_up import static_stack
from aqnet.data.years.format import YearSpec, year_times
from aqnet.data.years.writer import write_year
from aqnet.grid import GRIDS, Grid
from aqnet.variables import DYNAMIC

OFFSET_H = 8.0
# mean, amplitude of a smooth wave in space and time, noise; in the units of aqnet.variables
WEATHER = {
    "u": (1.0, 4.0, 0.3),
    "v": (-0.5, 4.0, 0.3),
    "temp": (285.0, 12.0, 0.3),
    "rh": (55.0, 25.0, 2.0),
    "psfc": (92_000.0, 6_000.0, 30.0),
}
POLLUTANT_MEDIAN = {"pm25": 40, "pm10": 75, "so2": 15, "no2": 25, "co": 700, "o3": 60}  # ug/m3


def made_up_mask(grid: Grid) -> np.ndarray:
    """(H, W) bool: an ellipse, not symmetric, of about 40 % of the cells."""
    y, x = (np.linspace(-1, 1, n) for n in grid.shape)
    return ((y[:, None] + 0.05) / 0.72) ** 2 + ((x[None] - 0.08) / 0.7) ** 2 < 1


def made_up_static(grid: Grid) -> np.ndarray:
    """(S, H, W) float32, order `STATIC`: with a hill [m] and a town [persons/km2]."""
    lat, lon = grid.mesh()
    elevation = 2500 * np.exp(-(((lat - lat.mean()) / 6) ** 2) - ((lon - lon.min() - 15) / 12) ** 2)
    population = 800 * np.exp(-(((lat - lat.mean()) / 8) ** 2) - ((lon - lon.max() + 15) / 10) ** 2)
    static = static_stack(grid, elevation=elevation, population=population)
    return static.astype(np.float32)


def made_up_fields(times: np.ndarray, grid: Grid, seed: int = 0) -> np.ndarray:
    """(T, 11, H, W) float32: waves that travel, a daily cycle, noise; no missing values.

    A pure function of hour, grid and seed: years made apart continue each other.
    """
    rng = np.random.default_rng(seed)
    lat, lon = (np.deg2rad(axis) for axis in grid.mesh())
    hours = np.asarray(times).astype("datetime64[h]").astype(np.int64)
    fields = np.empty((len(hours), len(DYNAMIC), *grid.shape), np.float32)
    for index, name in enumerate(DYNAMIC):
        k, m, period, phase = rng.uniform((3, 3, 40, 0), (9, 9, 90, 2 * np.pi))
        for row, hour in enumerate(hours.tolist()):
            noise = np.random.default_rng((seed, index, hour)).normal(size=grid.shape)
            wave = np.sin(k * lat + m * lon + 2 * np.pi * hour / period + phase)
            wave = 0.7 * wave + 0.3 * np.sin(2 * np.pi * hour / 24 + phase)
            if name in WEATHER:
                mean, amplitude, scatter = WEATHER[name]
                field = mean + amplitude * wave + scatter * noise
                fields[row, index] = np.clip(field, 0.5, 100) if name == "rh" else field
            else:
                fields[row, index] = POLLUTANT_MEDIAN[name] * np.exp(0.8 * wave + 0.05 * noise)
    return fields


def made_up_spec(
    year: int = 2013,
    days: int | None = 4,
    grid: str = "china_32x64",
    start_label: str | None = None,
    **attributes: object,
) -> YearSpec:
    """`days` days from `start_label` (local time) on; the whole year with days=None."""
    times = year_times(year, OFFSET_H)
    if start_label is not None:
        first = np.datetime64(start_label, "h") - np.timedelta64(int(OFFSET_H), "h")
        times = times[times >= first]
    if days is not None:
        times = times[: 24 * days]
    described = {
        "title": "made-up fields",
        "manifest": "made-up",
        "manifest_sha256": "0" * 64,
        "manifest_content": {},
        "synthetic": True,
        "utc_offset_h": OFFSET_H,
        "licence": "none",
        "attribution": "tests",
        "recipe": {"command": "tests/made_up_years.py", "settings": {}},
    }
    place = GRIDS[grid]
    static, mask = made_up_static(place), made_up_mask(place)
    return YearSpec(year, times, place, static, mask, described | attributes)


def make_year(
    folder: str | Path,
    year: int = 2013,
    days: int | None = 4,
    grid: str = "china_32x64",
    seed: int = 0,
    start_label: str | None = None,
    missing: dict[int, str] | None = None,
    **attributes: object,
) -> Path:
    """Write a small store `data_YEAR_GRID_masked.zarr` and return its path.

    Parameters
    ----------
    folder : path
    year, days, grid, seed
        Days from the first hour of the year, or from `start_label`; None for all of it.
    start_label : str, optional
        First label, local time: "2013-12-28T00".
    missing : dict, optional
        Row of the store: reason why the hour is missing.
    **attributes
        In place of those of `made_up_spec`, e.g. ``manifest_sha256=...``.
    """
    spec = made_up_spec(year, days, grid, start_label, **attributes)
    path = Path(folder) / f"data_{year}_{grid}_masked.zarr"
    write_year(path, spec, lambda rows: made_up_fields(spec.times[rows], spec.grid, seed), missing)
    return path
