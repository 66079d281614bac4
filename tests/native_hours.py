"""Small hourly files as CAQRA's, for tests of what reads them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import netCDF4
import numpy as np
import yaml

from aqnet.data.geography import china_static
from aqnet.data.manifest import GridManifest, load_manifest
from aqnet.data.source.caqra import native_name, write_native_hour
from aqnet.grid import GRIDS
from aqnet.lambert_grid import LambertGrid
from aqnet.variables import DYNAMIC

CAQRA = Path(__file__).resolve().parents[1] / "data_manifests" / "caqra.yaml"
# The extent of CAQRA in cells of 90 km.
X, Y = 90e3 * (np.arange(72) - 35.5), 90e3 * (np.arange(56) - 27.5)
GRID = LambertGrid("90 km", X, Y, 25.0, 40.0, 34.0, 105.0, 6_370_000.0)
FIRST = np.datetime64("2013-01-01T00", "h")  # local label


def labels(hours: int, start: np.datetime64 = FIRST) -> np.ndarray:
    """`hours` labels from `start` on."""
    return start + np.arange(hours)


@functools.cache
def terrain() -> np.ndarray:
    """Elevation at the centres of GRID, m; that of the nearest cell outside China's grid."""
    grid = GRIDS["china_64x128"]
    elevation = china_static(grid)["elevation"].values
    lat, lon = GRID.mesh()
    row = np.abs(lat[..., None] - grid.lat).argmin(-1)
    col = np.abs(lon[..., None] - grid.lon).argmin(-1)
    return elevation[row, col]


def physical_fields(label: np.datetime64) -> dict[str, np.ndarray]:
    """Smooth fields in units of the lexicon that change from hour to hour."""
    hour = (np.datetime64(label, "h") - FIRST).astype(int)
    x, y = np.meshgrid(X, Y)
    wave = np.sin(x / 9e5 + 2 * np.pi * hour / 30) * np.cos(y / 7e5)
    psfc = 101_325 * np.exp(-terrain() / 8000) + 500 * wave
    fields = {"u": 2 + 3 * wave, "v": -1 + 2 * wave, "temp": 280 + 10 * wave, "psfc": psfc}
    fields["rh"] = 50 + 20 * wave
    medians = {"pm10": 70, "so2": 15, "no2": 25, "co": 700, "o3": 60, "pm25": 40}
    fields |= {name: m * np.exp(0.7 * wave) for name, m in medians.items()}
    return {name: fields[name] for name in DYNAMIC}


def write_hours(folder: Path, which: Iterable[np.datetime64], **options: object) -> list[Path]:
    """Write one file an hour; `options` of `write_native_hour`."""
    paths = [Path(folder) / native_name(label) for label in which]
    for path, label in zip(paths, which, strict=True):
        write_native_hour(path, physical_fields(label), GRID, **options)
    return paths


def change(path: Path, name: str, how: Callable, units: str | None = None) -> None:
    """Replace a variable of a file by `how` of it, and its unit attribute ("" removes it)."""
    with netCDF4.Dataset(path, "a") as dataset:
        variable = dataset[name]
        variable[:] = how(variable[:])
        if units == "":
            variable.delncattr("units")
        elif units is not None:
            variable.units = units


def small_manifest(**changes: object) -> GridManifest:
    """CAQRA's manifest on 32 x 64 cells."""
    return load_manifest(CAQRA).model_copy(update={"grid": "china_32x64"} | changes)


def manifest_file(folder: Path, **changes: object) -> Path:
    """The same as a YAML file."""
    content = small_manifest(**changes).model_dump(mode="json")
    path = Path(folder) / "manifests" / "caqra.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
