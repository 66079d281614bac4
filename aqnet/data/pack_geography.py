"""Pack the shipped geography of China from its sources into data_manifests/china."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import shapely
import xarray as xr

from aqnet.data.geography import polygon_share
from aqnet.data.static import write_nc
from aqnet.errors import DataError, explain
from aqnet.grid import Grid
from aqnet.io import atomic_write_bytes, atomic_write_json, sha256_file

__all__ = ["pack_geography"]

_CREDIT = {
    "elevation": (
        "m",
        "MIT (KnowAir) and BSD-3-Clause (pvlib); terrain tiles: Mapzen attributions",
        "KnowAir altitude grid (Wang et al. 2020, doi:10.1145/3397536.3422208) in 100-128 E, "
        "16-48 N; pvlib altitude (Mapzen terrain tiles: SRTM, GMTED2010, ETOPO1) elsewhere",
    ),
    "population": (
        "persons/km2",
        "CC BY 4.0",
        "CIESIN, Columbia University, 2018: Gridded Population of the World, Version 4 (GPWv4): "
        "Population Density, Revision 11, year 2020, doi:10.7927/H49C6VHW",
    ),
    "land": ("1", "public domain", "Natural Earth 1:50m coastlines, version 4.1.0"),
    "surface": (
        "m/s",
        "public domain",
        "US Navy FNOC monthly winds 1982-1992, NOAA/PMEL Ferret data sets",
    ),
    "aloft": (
        "m/s",
        "CC BY 4.0",
        "ECMWF ERA-Interim (Dee et al. 2011, doi:10.1002/qj.828), monthly climatology; "
        "contains modified ECMWF data",
    ),
}
# Window of the outlines, degrees: the grids china and reference with a margin.
_WINDOW = (68.0, 8.0, 142.0, 57.0)
_WIND_STEP = 0.01  # m/s; the winds are monthly means with a spread of 1 m/s


def _credited(kind: str, long_name: str) -> dict[str, str]:
    units, licence, credit = _CREDIT[kind]
    return {"units": units, "long_name": long_name, "licence": licence, "credit": credit}


def _load(path: str | Path, *names: str) -> xr.Dataset:
    with xr.open_dataset(path) as source:
        lost = [name for name in names if name not in source]
        if lost:
            raise DataError(
                explain(
                    f"{path} cannot be packed",
                    expected=f"the variables {', '.join(names)}",
                    found=f"no {', '.join(lost)}",
                    remedy="give the file that LICENCE-DATA.md names as the source",
                )
            )
        return source[list(names)].load()


def _axis(name: str, values: np.ndarray) -> tuple:
    units = "degree_north" if name.startswith("lat") else "degree_east"
    return name, np.round(values.astype(np.float64), 6), {"units": units}


# ---- terrain and people


def _land(lines: shapely.Geometry, people: xr.DataArray) -> shapely.Geometry:
    """Land between coastlines: pieces of the window in which people are counted, and islets."""
    lat2d, lon2d = np.meshgrid(people.lat.values, people.lon.values, indexing="ij")
    window = shapely.box(lon2d.min() - 1, lat2d.min() - 1, lon2d.max() + 1, lat2d.max() + 1)
    cut = shapely.union(shapely.intersection(lines, window), window.boundary)
    pieces = np.array(shapely.get_parts(shapely.polygonize(list(shapely.get_parts(cut)))))
    centres = shapely.points(lon2d.reshape(-1), lat2d.reshape(-1))
    piece, centre = shapely.STRtree(centres).query(pieces, predicate="contains")
    counted = np.isfinite(people.values.reshape(-1))[centre]
    known = np.bincount(piece, minlength=pieces.size)
    inhabited = np.bincount(piece, weights=counted, minlength=pieces.size)
    # A piece without a centre is an island smaller than a cell: the sea is one large piece.
    return shapely.union_all(pieces[(known == 0) | (inhabited > known / 2)])


def _land_share(lines_geojson: str | Path, people: xr.DataArray) -> np.ndarray:
    coast = [
        shapely.from_geojson(json.dumps(f["geometry"]))
        for f in _features(lines_geojson)
        if f["properties"]["kind"] == "coastline"
    ]
    grid = Grid("population", people.lat.values, people.lon.values)
    share = polygon_share(_land(shapely.union_all(coast), people), grid)
    return np.round(share, 3).astype(np.float32)


def _geography(
    orography_nc: str | Path, population_nc: str | Path, lines_geojson: str | Path
) -> xr.Dataset:
    z = _load(orography_nc, "z")["z"].sortby(["lat", "lon"])
    people = _load(population_nc, "popdens")["popdens"].sortby(["lat", "lon"])
    cells, offset = ("lat", "lon"), ("lat_population", "lon_population")
    elevation = np.round(z.values).astype(np.int16)
    return xr.Dataset(
        {
            "elevation": (cells, elevation, _credited("elevation", "mean of the cell, sea 0")),
            "population": (
                offset,
                people.values.astype(np.float32),
                _credited("population", "persons per km2 of land, NaN over sea, year 2020"),
            ),
            "land_share": (
                offset,
                _land_share(lines_geojson, people),
                _credited("land", "share of the cell's area that is land, lakes included"),
            ),
        },
        coords={
            "lat": _axis("lat", z.lat.values),
            "lon": _axis("lon", z.lon.values),
            "lat_population": _axis("lat_population", people.lat.values),
            "lon_population": _axis("lon_population", people.lon.values),
        },
        attrs={"title": "Terrain and population of China, cell means of 0.25 degrees"},
    )


# ---- winds


def _winds(surface_nc: str | Path, aloft_nc: str | Path) -> xr.Dataset:
    surface = _load(surface_nc, "u", "v").sortby(["lat", "lon"])
    aloft = _load(aloft_nc, "u", "v").sel(level=850, drop=True).sortby(["lat", "lon"])
    aloft = aloft.rename(month="month_aloft", lat="lat_aloft", lon="lon_aloft")
    months = surface.groupby("time.month")
    mean, spread = months.mean("time"), months.std("time", ddof=1)
    years = f"{surface.time.dt.year.values.min()} to {surface.time.dt.year.values.max()}"
    data, there = {}, ("month", "lat", "lon")
    for name, towards in (("u", "east"), ("v", "north")):
        text = f"surface wind towards {towards}, mean of {years}"
        data[name] = (there, _rounded(mean[name]), _credited("surface", text))
        text = f"standard deviation of the month's wind towards {towards} between {years}"
        data[f"{name}_std"] = (there, _rounded(spread[name]), _credited("surface", text))
        text = f"wind towards {towards} at 850 hPa"
        values = _rounded(aloft[name])
        data[f"{name}_850"] = (aloft[name].dims, values, _credited("aloft", text))
    coords = {name: _axis(name, mean[name].values) for name in ("lat", "lon")}
    coords |= {name: _axis(name, aloft[name].values) for name in ("lat_aloft", "lon_aloft")}
    coords["month"] = ("month", np.arange(1, 13))
    coords["month_aloft"] = ("month_aloft", aloft["month_aloft"].values.astype(np.int64))
    return xr.Dataset(data, coords=coords, attrs={"title": "Mean winds over East Asia"})


def _rounded(values: xr.DataArray) -> np.ndarray:
    return (np.round(values.values / _WIND_STEP) * _WIND_STEP).astype(np.float32)


# ---- borders


def _features(path: str | Path) -> list[dict]:
    return json.loads(Path(path).read_text(encoding="utf-8"))["features"]


def _geojson(features: list[tuple[dict, shapely.Geometry]]) -> bytes:
    """A feature collection with 4 decimals (10 m; the source is for maps of 1:50 million)."""
    data = {"type": "FeatureCollection", "features": []}
    for properties, geometry in features:
        shape = json.loads(shapely.to_geojson(geometry), parse_float=lambda x: round(float(x), 4))
        data["features"].append({"type": "Feature", "properties": properties, "geometry": shape})
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _china(polygons_geojson: str | Path) -> bytes:
    wanted = ("China", "Taiwan", "Hong Kong", "Macao")
    shapes = {
        f["properties"]["name"]: shapely.from_geojson(json.dumps(f["geometry"]))
        for f in _features(polygons_geojson)
    }
    lost = [name for name in wanted if name not in shapes or not shapes[name].is_valid]
    if lost:
        raise DataError(
            explain(
                f"{polygons_geojson} is not the source of the polygons",
                expected=f"valid polygons of {', '.join(wanted)}",
                found=f"missing or invalid: {', '.join(lost)}",
                remedy="give the file that LICENCE-DATA.md names as the source",
            )
        )
    return _geojson([({"name": name}, shapes[name]) for name in wanted])


def _lines(lines_geojson: str | Path) -> bytes:
    kept = []
    for feature in _features(lines_geojson):
        lines = shapely.from_geojson(json.dumps(feature["geometry"]))
        cut = shapely.get_parts(shapely.intersection(lines, shapely.box(*_WINDOW)))
        kept.append((feature["properties"], shapely.multilinestrings(list(cut))))
    return _geojson(kept)


# ---- all of it


def pack_geography(
    orography_nc: str | Path,
    population_nc: str | Path,
    polygons_geojson: str | Path,
    lines_geojson: str | Path,
    surface_winds_nc: str | Path,
    aloft_winds_nc: str | Path,
    folder: str | Path,
) -> None:
    """Write the geography files and the record of their SHA-256; equal sources, equal bytes.

    Parameters
    ----------
    orography_nc : path
        Variable `z` (m, sea 0): means of the cells around `lat`, `lon`.
    population_nc : path
        Variable `popdens` (persons/km2, NaN over sea): means of the cells around `lat`, `lon`.
    polygons_geojson : path
        Features named China, Taiwan, Hong Kong and Macao (Natural Earth).
    lines_geojson : path
        Coasts and land boundaries (Natural Earth).
    surface_winds_nc : path
        `u`, `v` (time, lat, lon), monthly means of several years, m/s (FNOC).
    aloft_winds_nc : path
        `u`, `v` (month, level, lat, lon), m/s, with the level 850 hPa (ERA-Interim).
    folder : path
        Receives geography.nc, china.geojson, outlines.geojson, winds.nc, files.json.

    Raises
    ------
    DataError
        A source lacks a variable or a polygon.
    StorageFullError
        No room for the files.
    """
    folder = Path(folder)
    tables = {
        "geography.nc": _geography(orography_nc, population_nc, lines_geojson),
        "winds.nc": _winds(surface_winds_nc, aloft_winds_nc),
    }
    texts = {"china.geojson": _china(polygons_geojson), "outlines.geojson": _lines(lines_geojson)}
    for name, data in tables.items():
        small = {"zlib": True, "complevel": 9, "shuffle": True}
        winds = {"dtype": "int16", "scale_factor": _WIND_STEP, "_FillValue": -32768}
        kind = winds if name == "winds.nc" else {"_FillValue": None}
        encoding = dict.fromkeys(data.data_vars, small | kind)
        coordinates = {c: {"_FillValue": None} for c in data.coords}
        write_nc(data, folder / name, encoding | coordinates)
    for name, text in texts.items():
        atomic_write_bytes(folder / name, text)
    names = sorted([*tables, *texts])
    atomic_write_json(folder / "files.json", {n: sha256_file(folder / n) for n in names})
