"""Terrain, people, borders and mean winds of China, on any grid; shipped in data_manifests/china.

`pack_geography` writes the shipped files from their sources. The readers check the SHA-256 of
every file against `files.json` beside it. Regridding is by area: a cell takes from each cell of
the source in proportion to the area they share.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely
import xarray as xr

from aqnet.errors import ChecksumError, CoverageError, DataError, explain
from aqnet.grid import Grid, cell_edges
from aqnet.io import repository_root, sha256_file

__all__ = [
    "BORDER_CREDIT",
    "area_overlap",
    "china_polygon",
    "china_static",
    "geography_folder",
    "monthly_winds",
    "outlines",
    "polygon_share",
]

BORDER_CREDIT = "Made with Natural Earth; its land boundaries are de-facto lines"
_FILES = ("geography.nc", "china.geojson", "outlines.geojson", "winds.nc")


# ---- files


def geography_folder() -> Path:
    """Folder of the shipped files: `data_manifests/china` of the repository."""
    return repository_root() / "data_manifests" / "china"


def _checked(name: str, folder: str | Path | None) -> Path:
    """Path of a shipped file whose content is the one that was packed."""
    folder = geography_folder() if folder is None else Path(folder)
    path, record = folder / name, folder / "files.json"
    missing = [str(p) for p in (path, record) if not p.is_file()]
    if missing:
        raise DataError(
            explain(
                f"no geography in {folder}",
                expected=f"files.json, {', '.join(_FILES)}",
                found=f"missing: {', '.join(missing)}",
                remedy="restore data_manifests/china from the repository (git checkout)",
            )
        )
    expected, found = json.loads(record.read_text())[name], sha256_file(path)
    if found != expected:
        raise ChecksumError(
            explain(
                f"{path} is not the file that was packed",
                expected=f"sha256 {expected}",
                found=f"sha256 {found}",
                remedy="restore data_manifests/china from the repository (git checkout)",
            )
        )
    return path


def _open(name: str, folder: str | Path | None) -> xr.Dataset:
    with xr.open_dataset(_checked(name, folder)) as source:
        return source.load()


# ---- regridding by area


def area_overlap(target_edges, source_edges) -> np.ndarray:
    """Lengths that the intervals of two axes share.

    Parameters
    ----------
    target_edges : array, shape (n + 1,)
    source_edges : array, shape (m + 1,)
        Monotonic, ascending or descending, in the same coordinate. For areas on the sphere, the
        coordinate is the longitude, and the sine of the latitude: a cell's area is the product.

    Returns
    -------
    numpy.ndarray, float64, shape (n, m)
        Not negative; the area shared by two cells is the product of those of their axes.
    """
    a, b = np.asarray(target_edges, dtype=np.float64), np.asarray(source_edges, dtype=np.float64)
    low = np.maximum.outer(np.minimum(a[:-1], a[1:]), np.minimum(b[:-1], b[1:]))
    high = np.minimum.outer(np.maximum(a[:-1], a[1:]), np.maximum(b[:-1], b[1:]))
    return np.maximum(high - low, 0.0)


def _sine(lat_deg: np.ndarray) -> np.ndarray:
    return np.sin(np.deg2rad(lat_deg))


def _area_mean(field: np.ndarray, lat: np.ndarray, lon: np.ndarray, grid: Grid) -> np.ndarray:
    """Mean by area of a field of cells over the cells of a grid; NaN where not fully covered."""
    lat_edges, lon_edges = grid.edges()
    rows = area_overlap(_sine(lat_edges), _sine(cell_edges(lat)))
    cols = area_overlap(lon_edges, cell_edges(lon))
    area = np.outer(np.abs(np.diff(_sine(lat_edges))), np.abs(np.diff(lon_edges)))
    covered = np.outer(rows.sum(1), cols.sum(1)) / area
    # The edges are decimal numbers: 1e-9 of a cell absorbs their rounding.
    return np.where(covered > 1 - 1e-9, rows @ field @ cols.T / area, np.nan)


# ---- the polygon of China


def china_polygon(folder: str | Path | None = None) -> shapely.Geometry:
    """China with Taiwan, Hong Kong and Macao: (lon, lat) in degrees, Natural Earth 1:50m."""
    features = json.loads(_checked("china.geojson", folder).read_text())["features"]
    return shapely.union_all([shapely.from_geojson(json.dumps(f["geometry"])) for f in features])


def polygon_share(shape: shapely.Geometry, grid: Grid) -> np.ndarray:
    """Share of every cell's area that lies in a polygon.

    Parameters
    ----------
    shape : shapely geometry
        (lon, lat) in degrees.
    grid : Grid

    Returns
    -------
    numpy.ndarray, float64, shape (H, W)
        0 to 1. Exact for straight edges in the equal-area plane of longitude and sine of
        latitude, in which a straight border of 10 km is bent by about 2 m.
    """
    plane = shapely.transform(
        shape, lambda p: np.column_stack([p[:, 0], np.rad2deg(_sine(p[:, 1]))])
    )
    lat_edges, lon_edges = grid.edges()
    y, west, east = np.rad2deg(_sine(lat_edges)), lon_edges[:-1], lon_edges[1:]
    west, east = np.minimum(west, east), np.maximum(west, east)
    share = np.zeros(grid.shape)
    for row, pair in enumerate(pairwise(y)):
        low, high = sorted(pair)
        # Cutting out the row first makes the polygons small: much faster than cell by cell.
        band = shapely.intersection(plane, shapely.box(west.min(), low, east.max(), high))
        share[row] = _shares(band, shapely.box(west, low, east, high))
    return share


def _shares(band: shapely.Geometry, cells: np.ndarray) -> np.ndarray:
    shapely.prepare(band)
    share = shapely.covers(band, cells).astype(np.float64)
    border = shapely.intersects(band, cells) & (share == 0)
    part = shapely.area(shapely.intersection(band, cells[border]))
    share[border] = np.clip(part / shapely.area(cells[border]), 0.0, 1.0)
    return share


# ---- static fields


def _missing_text(grid: Grid, fields: dict[str, np.ndarray]) -> str:
    """Which cells have no value, and why; empty if all have one."""
    parts = []
    for name, field in fields.items():
        gone = np.isnan(field)
        if gone.any():
            lat2d, lon2d = grid.mesh()
            parts.append(
                f"{name}: {gone.sum()} cells between {lat2d[gone].min():.2f} and "
                f"{lat2d[gone].max():.2f} N, {lon2d[gone].min():.2f} and {lon2d[gone].max():.2f} E"
            )
    return "; ".join(parts) + (" (the source does not reach there)" if parts else "")


def china_static(grid: Grid, folder: str | Path | None = None) -> xr.Dataset:
    """Elevation, population density and share of China of every cell of a grid.

    Parameters
    ----------
    grid : Grid
        Any orientation.
    folder : path, optional
        Folder of the files; that of the repository if not given.

    Returns
    -------
    xarray.Dataset, dims (lat, lon), in the orientation of the grid
        `elevation` (m, float32, sea 0), `population` (persons/km2, float32, of the whole cell's
        area; sea without people is 0), `china_share` (0 to 1, float64, by area), `mask` (bool,
        share of 0.5 and more). A cell that a source does not cover entirely is NaN, and
        `attrs["missing"]` says where (empty: none).

    Raises
    ------
    CoverageError
        The sources cover no cell of the grid.
    DataError, ChecksumError
        A file is missing or is not the one that was packed.
    """
    source = _open("geography.nc", folder)
    lat, lon = source["lat"].values, source["lon"].values
    people = _persons_per_area(source)
    fields = {
        "elevation": _area_mean(source["elevation"].values.astype(np.float64), lat, lon, grid),
        "population": _area_mean(
            people, source["lat_population"].values, source["lon_population"].values, grid
        ),
    }
    _require_some(grid, fields, lat, lon)
    share = polygon_share(china_polygon(folder), grid)
    data = {name: _array(field, source[name].attrs) for name, field in fields.items()}
    units = {"units": "1", "credit": BORDER_CREDIT, "licence": "public domain"}
    data["china_share"] = (("lat", "lon"), share, units)
    data["mask"] = (("lat", "lon"), share >= 0.5, units)
    return xr.Dataset(
        data,
        coords={
            "lat": ("lat", grid.lat, {"units": "degree_north"}),
            "lon": ("lon", grid.lon, {"units": "degree_east"}),
        },
        attrs={
            "title": f"Static fields of the grid {grid.name}",
            "grid_digest": grid.digest,
            "missing": _missing_text(grid, fields),
        },
    )


def _persons_per_area(source: xr.Dataset) -> np.ndarray:
    """Persons per km2 of the whole cell; the source counts by land and has NaN over sea."""
    density = source["population"].values.astype(np.float64)
    return np.nan_to_num(density, nan=0.0) * source["land_share"].values


def _array(field: np.ndarray, source: dict) -> tuple:
    attrs = {name: source[name] for name in ("units", "credit", "licence")}
    attrs["method"] = "mean by area over the cells of the source"
    return ("lat", "lon"), field.astype(np.float32), attrs


def _require_some(grid: Grid, fields: dict, lat: np.ndarray, lon: np.ndarray) -> None:
    if all(np.isfinite(field).any() for field in fields.values()):
        return
    raise CoverageError(
        explain(
            f"no static field reaches the grid {grid.name}",
            expected=f"cells within {lat.min():g} to {lat.max():g} N, "
            f"{lon.min():g} to {lon.max():g} E",
            found=f"{grid.lat.min():g} to {grid.lat.max():g} N, "
            f"{grid.lon.min():g} to {grid.lon.max():g} E",
            remedy="choose a grid in China, or pack other sources with pack_geography",
        )
    )


# ---- lines and winds


def outlines(folder: str | Path | None = None) -> list[np.ndarray]:
    """Coasts and land boundaries for maps of East Asia.

    Returns
    -------
    list of numpy.ndarray, float64, shape (n, 2)
        Longitude and latitude, degrees; Natural Earth 1:50m, de-facto lines (`BORDER_CREDIT`).
    """
    features = json.loads(_checked("outlines.geojson", folder).read_text())["features"]
    return [np.array(line) for f in features for line in f["geometry"]["coordinates"]]


def monthly_winds(folder: str | Path | None = None) -> xr.Dataset:
    """Mean winds over East Asia, for simulations.

    Returns
    -------
    xarray.Dataset
        `u`, `v` (month, lat, lon): surface, mean of 1982 to 1992, m/s towards east and north;
        `u_std`, `v_std`: standard deviation of that month between the years, m/s (FNOC, 2.5
        degrees). `u_850`, `v_850` (month_aloft, lat_aloft, lon_aloft): January and July at
        850 hPa, m/s (ERA-Interim). `month`, `month_aloft`: 1 to 12. Rows from south to north.

    Raises
    ------
    DataError, ChecksumError
        The file is missing or is not the one that was packed.
    """
    return _open("winds.nc", folder)
