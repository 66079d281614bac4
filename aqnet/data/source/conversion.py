"""From an hour on the source's grid to an hour of a store: checks, wind, gases, regridding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.data.manifest import GridManifest
from aqnet.data.source.caqra import HourFields, HourSource, native_name
from aqnet.data.source.regridding import RegridWeights, cached_weights, rotate_wind
from aqnet.errors import CoverageError, FieldError, explain
from aqnet.grid import Grid, GridError
from aqnet.lambert_grid import LambertGrid
from aqnet.units import check_field, gas_reference_factor
from aqnet.variables import DYNAMIC, GASES, TARGETS

__all__ = [
    "Conversion",
    "check_mesh",
    "convert_hour",
    "decided",
    "filled_cells",
    "undecided",
]

_POLLUTANTS = [DYNAMIC.index(name) for name in DYNAMIC if name in TARGETS]
_WEATHER = [DYNAMIC.index(name) for name in DYNAMIC if name not in TARGETS]
_U, _V, _PSFC = (DYNAMIC.index(name) for name in ("u", "v", "psfc"))
# Meshes are float32: 100 m is far above their rounding and far below a cell.
_SAME_PLACE_DEGREES = 1e-3
# Over China, a day of the source gives -0.998 (-0.99 on 32 x 64 cells), upside down -0.40; from
# west to east reversed +0.50. In terrain with a smaller spread the weather would matter.
_TERRAIN_CORRELATION = -0.9
_FLAT_M = 300.0


@dataclass(frozen=True, eq=False)
class Conversion:
    """What all hours of a source have in common.

    Attributes
    ----------
    manifest : GridManifest
    lat2d, lon2d : (Hs, Ws) float64
        Mesh of the first file; every file must have it.
    rotation_rad : (Hs, Ws) float64 or None
        Turns wind along the grid to east and north; None where the source has it so already.
    area, bilinear : RegridWeights
        For concentrations and for weather.
    land : (H, W) bool
        Cells inside the polygons of China.
    elevation : (H, W) float
        Of the target cells, m; NaN where unknown.
    source_grid : dict
        JSON description of the source's grid.
    mask : (H, W) bool or None
        Of the cells of China, those that every hour fills; None while they are being decided.
    decided_by : str
        Name of the file that decided the mask.
    """

    manifest: GridManifest
    lat2d: np.ndarray
    lon2d: np.ndarray
    rotation_rad: np.ndarray | None
    area: RegridWeights
    bilinear: RegridWeights
    land: np.ndarray
    elevation: np.ndarray
    source_grid: dict
    mask: np.ndarray | None = None
    decided_by: str = ""

    def described(self) -> dict:
        """What was decided from the source, as JSON values, for the recipe of the store."""
        return {
            "source_grid": self.source_grid,
            "area_weights_sha256": self.area.digest,
            "bilinear_weights_sha256": self.bilinear.digest,
            "wind_rotated": self.rotation_rad is not None,
            "mask_decided_by": self.decided_by,
            "cells_of_china": int(self.land.sum()),
            "cells_of_the_mask": int(self.mask.sum()),
        }


def undecided(
    manifest: GridManifest, hour: HourFields, target: Grid, static: xr.Dataset, weights: Path
) -> Conversion:
    """The conversion of a source with the mesh of `hour`, before its mask is decided.

    Parameters
    ----------
    manifest : GridManifest
    hour : HourFields
    target : Grid
    static : xarray.Dataset
        `mask` (inside the polygons of China) and `elevation` (m) of the target cells.
    weights : path
        Folder of cached weights.

    Raises
    ------
    GridError
        The mesh is not a Lambert grid of the source's projection.
    ChecksumError
        Cached weights are damaged.
    """
    source = LambertGrid.from_latlon(hour.lat2d, hour.lon2d, f"the source grid of {manifest.name}")
    rotation = source.rotation_rad() if manifest.wind_reference == "grid" else None
    area, bilinear = (cached_weights(m, source, target, weights) for m in ("area", "bilinear"))
    axes = {name: [float(a[0]), float(a[1] - a[0]), a.size] for name, a in
            (("x_m", source.x_m), ("y_m", source.y_m))}  # fmt: skip
    grid = {"digest": source.digest, "first, step, number": axes}
    land, elevation = static["mask"].values, static["elevation"].values
    mesh = (hour.lat2d, hour.lon2d)
    return Conversion(manifest, *mesh, rotation, area, bilinear, land, elevation, grid)


def decided(conversion: Conversion, hour: HourFields, source: HourSource) -> Conversion:
    """The conversion with the mask that an hour decides: cells of China that it covers.

    Raises
    ------
    UnitError, FieldError
        The hour cannot be used.
    CoverageError
        It covers no cell of China.
    """
    fields = convert_hour(conversion, hour, source.label, source.name)
    mask = filled_cells(conversion, fields)
    if not mask.any():
        message = explain(
            f"{source.name} covers no cell of China",
            expected="values of all variables inside the polygons of China",
            found="; ".join(
                f"{name}: {int(np.isfinite(field[conversion.land]).sum())} cells"
                for name, field in zip(DYNAMIC, fields, strict=True)
            ),
            remedy="check the source, its lat2d and lon2d, and the grid of the manifest",
        )
        raise CoverageError(message)
    return replace(conversion, mask=mask, decided_by=native_name(source.label))


def check_mesh(conversion: Conversion, hour: HourFields, where: str) -> None:
    """Refuse an hour on another grid than the first file's.

    Raises
    ------
    GridError
        Another shape, other places, or rows or columns the other way round.
    """
    first, here = (np.stack([c.lat2d, c.lon2d]) for c in (conversion, hour))
    if first.shape == here.shape and _same_places(first, here):
        return
    found = f"{here.shape[1:]} cells at other places"
    for axis, name in ((1, "rows"), (2, "columns")):
        if first.shape == here.shape and _same_places(first, np.flip(here, axis)):
            found = f"the same cells, {name} in the opposite order"
    message = explain(
        f"{where} is on another grid than the first file of the year",
        expected=f"lat2d and lon2d as there, {first.shape[1:]} cells",
        found=found,
        remedy="take the file out of the folder, or ingest files of one grid at a time",
    )
    raise GridError(message)


def _same_places(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < _SAME_PLACE_DEGREES)


def convert_hour(
    conversion: Conversion, hour: HourFields, label: np.datetime64, where: str
) -> np.ndarray:
    """Bring an hour to the grid and the conventions of a store.

    Concentrations are averaged over the area of the target cells, so that mass is kept; weather
    is interpolated bilinearly. Temperature and pressure keep the height of the source's terrain.

    Parameters
    ----------
    conversion : Conversion
    hour : HourFields
    label : datetime64
        Local time of the source; the reference state of gases depends on it.
    where : str
        Name of the file, for messages.

    Returns
    -------
    (11, H, W) float32
        Wind to east and north, gases at 273.15 K, units of the lexicon.

    Raises
    ------
    GridError
        The file is on another grid.
    UnitError, FieldError
        Values cannot be what they are said to be, a cell of the mask has none, or surface
        pressure does not fall with the height of the terrain (rows upside down).
    CoverageError
        It covers cells of China outside the mask.
    """
    check_mesh(conversion, hour, where)
    for name, values in zip(DYNAMIC, hour.values, strict=True):
        check_field(name, values, where)
    fields = hour.values.astype(np.float64)
    if conversion.rotation_rad is not None:
        fields[[_U, _V]] = rotate_wind(fields[_U], fields[_V], conversion.rotation_rad)
    factor = gas_reference_factor(np.array([label]), conversion.manifest.reference_state)[0]
    fields[[DYNAMIC.index(name) for name in GASES]] *= factor
    regridded = np.empty((len(DYNAMIC), *conversion.area.target_shape), dtype=np.float32)
    regridded[_POLLUTANTS] = conversion.area.apply(fields[_POLLUTANTS])
    regridded[_WEATHER] = conversion.bilinear.apply(fields[_WEATHER])
    _check_filled(conversion, regridded, where)
    _check_terrain(conversion, regridded[_PSFC], where)
    return regridded


def _check_terrain(conversion: Conversion, psfc: np.ndarray, where: str) -> None:
    """Rows or columns the wrong way round show in the pressure, which falls with the height."""
    found = _likeness(psfc, conversion)
    if not found > _TERRAIN_CORRELATION:
        return
    turned = {"rows": psfc[::-1], "columns": psfc[:, ::-1]}
    likeness = {name: _likeness(field, conversion) for name, field in turned.items()}
    better = [f"with the {name} reversed {r:.3f}" for name, r in likeness.items()]
    message = explain(
        f"{where}: surface pressure does not follow the terrain",
        expected=f"a correlation of its logarithm with the elevation below {_TERRAIN_CORRELATION}",
        found=f"{found:.3f}; {', '.join(better)}",
        remedy="lat2d and lon2d do not belong to the fields (rows upside down, transposed, "
        "shifted): correct or remove the file",
    )
    raise FieldError(message)


def _likeness(psfc: np.ndarray, conversion: Conversion) -> float:
    """Correlation of log pressure and elevation over China; -1 where the terrain is flat."""
    known = conversion.land & np.isfinite(psfc) & np.isfinite(conversion.elevation)
    z, pressure = conversion.elevation[known], psfc[known]
    if not z.size or z.std() < _FLAT_M:
        return -1.0
    return float(np.corrcoef(np.log(pressure), z)[0, 1])


def filled_cells(conversion: Conversion, fields: np.ndarray) -> np.ndarray:
    """Cells of the polygon mask in which all 11 variables have a value, (H, W) bool."""
    return conversion.land & np.isfinite(fields).all(axis=0)


def _check_filled(conversion: Conversion, fields: np.ndarray, where: str) -> None:
    mask = conversion.mask
    if mask is None or np.array_equal(filled_cells(conversion, fields), mask):
        return
    gaps = np.isnan(fields[:, mask]).sum(axis=1)
    found = [f"{n}: {g} cells without value" for n, g in zip(DYNAMIC, gaps, strict=True) if g]
    more = int((filled_cells(conversion, fields) & ~mask).sum())
    found += [f"{more} cells more"] if more else []
    # Then it may be the first hour that has gaps: a question of the whole year, not of this hour.
    kind = CoverageError if more else FieldError
    message = explain(
        f"{where} covers other cells than the first readable hour",
        expected=f"values in the {int(mask.sum())} cells of the mask that {conversion.decided_by} "
        "decided, and in no other cell of China",
        found="; ".join(found),
        remedy="look at both files, and take the one that is wrong out of the folder",
    )
    raise kind(message)
