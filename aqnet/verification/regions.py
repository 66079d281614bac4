"""Regions of China and classes of terrain, as masks on any grid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from aqnet.errors import DataError, explain
from aqnet.grid import EARTH_RADIUS_KM, Grid
from aqnet.lambert_grid import LambertGrid

__all__ = [
    "TERRAIN",
    "Region",
    "china_groups",
    "load_regions",
    "region_masks",
    "slope_m_per_km",
    "terrain_masks",
]

_FILE = Path(__file__).parent / "tables" / "regions.geojson"
# Classes by slope [m/km] and height [m], ours: half-open intervals that leave no gap. Slopes are
# those of the cell means of a grid: on 25 km they are a tenth of what a hiker sees.
TERRAIN = {
    "plain": ((0.0, 4.0), (-500.0, 500.0)),
    "high plain": ((0.0, 4.0), (500.0, 9000.0)),
    "hills": ((4.0, 12.0), (-500.0, 9000.0)),
    "mountains": ((12.0, np.inf), (-500.0, 9000.0)),
}


@dataclass(frozen=True)
class Region:
    """A region of `tables/regions.geojson`.

    Attributes
    ----------
    name, title : str
        Key and text for tables.
    polygon : shapely geometry
        (lon, lat), degrees.
    min_elevation_m, max_elevation_m : float
        Heights of cells that belong to it, both inclusive; infinite without a limit.
    drawn, source : str
        How the polygon was drawn, and after which definition.
    """

    name: str
    title: str
    polygon: shapely.Geometry
    min_elevation_m: float
    max_elevation_m: float
    drawn: str
    source: str


def load_regions(path: str | Path | None = None) -> tuple[Region, ...]:
    """Regions of a GeoJSON file; default the one of the package.

    Raises
    ------
    DataError
        No such file, or a feature that is no valid polygon or lacks a property.
    """
    path = Path(path or _FILE)
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        regions = tuple(_region(feature) for feature in features)
    except (OSError, ValueError, KeyError, TypeError, shapely.GEOSException) as problem:
        raise DataError(
            explain(f"{path} holds no regions", expected="a FeatureCollection of valid polygons, "
                    "with name, title, min_elevation_m, max_elevation_m, drawn and source",
                    found=repr(problem), remedy="give another file, or install aqnet again")
        ) from problem  # fmt: skip
    return regions


def _region(feature: dict) -> Region:
    p, polygon = feature["properties"], shapely.from_geojson(json.dumps(feature["geometry"]))
    if polygon.geom_type not in ("Polygon", "MultiPolygon") or not polygon.is_valid:
        raise ValueError(f"{p['name']}: {polygon.geom_type}, {shapely.is_valid_reason(polygon)}")
    low, high = p["min_elevation_m"], p["max_elevation_m"]
    limits = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
    return Region(p["name"], p["title"], polygon, *limits, p["drawn"], p["source"])


def _check_elevation(grid: Grid | LambertGrid, elevation_m: np.ndarray) -> np.ndarray:
    elevation = np.asarray(elevation_m, dtype=np.float64)
    if elevation.shape != grid.shape:
        raise DataError(
            explain("the elevation is not one of this grid", expected=grid.shape,
                    found=elevation.shape, remedy="give the static field of the same store")
        )  # fmt: skip
    return elevation


def region_masks(
    grid: Grid | LambertGrid, elevation_m: np.ndarray, regions: tuple[Region, ...] | None = None
) -> dict[str, np.ndarray]:
    """(H, W) bool for each region: centre in its polygon, elevation within its heights.

    Parameters
    ----------
    grid : Grid or LambertGrid
    elevation_m : (H, W)
        Mean height of the cells; NaN belongs to no region with a limit.
    regions : tuple of Region, optional
        Default `load_regions()`.
    """
    elevation, (lat, lon) = _check_elevation(grid, elevation_m), grid.mesh()
    masks = {}
    for region in load_regions() if regions is None else regions:
        inside = shapely.contains_xy(region.polygon, lon, lat)
        open_ended = np.isinf([region.min_elevation_m, region.max_elevation_m]).all()
        fits = (elevation >= region.min_elevation_m) & (elevation <= region.max_elevation_m)
        masks[region.name] = inside & (fits | open_ended)
    return masks


def slope_m_per_km(grid: Grid | LambertGrid, elevation_m: np.ndarray) -> np.ndarray:
    """(H, W): length of the gradient of the cell means, m/km.

    Central differences over two cells (one at the edge, and beside a cell without elevation the
    slope is NaN): relief below the size of a cell is not seen, so slopes of two grids differ.
    """
    elevation = _check_elevation(grid, elevation_m)
    if isinstance(grid, LambertGrid):  # lengths on the map are true within 3 % over China
        return np.hypot(*np.gradient(elevation, grid.y_m / 1e3, grid.x_m / 1e3))
    lat, _ = grid.mesh()
    km = np.deg2rad(1.0) * EARTH_RADIUS_KM
    north = np.gradient(elevation, grid.lat * km, axis=0)
    east = np.gradient(elevation, grid.lon * km, axis=1) / np.cos(np.deg2rad(lat))
    return np.hypot(north, east)


def terrain_masks(grid: Grid | LambertGrid, elevation_m: np.ndarray) -> dict[str, np.ndarray]:
    """(H, W) bool for each class of `TERRAIN`; a cell without slope is in none."""
    elevation, slope = _check_elevation(grid, elevation_m), slope_m_per_km(grid, elevation_m)
    return {
        name: (slope >= s[0]) & (slope < s[1]) & (elevation >= h[0]) & (elevation < h[1])
        for name, (s, h) in TERRAIN.items()
    }


def china_groups(grid: Grid | LambertGrid, elevation_m: np.ndarray) -> dict[str, np.ndarray]:
    """Regions and classes of terrain together, for `aqnet.verification.scoring.score`."""
    return region_masks(grid, elevation_m) | terrain_masks(grid, elevation_m)
