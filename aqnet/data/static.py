"""Static fields of a grid: elevation and population density, packed from their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.data.manifest import Manifest
from aqnet.errors import DataError, explain
from aqnet.grid import Grid
from aqnet.io import atomic_write_bytes, draft_folder, require_free_space
from aqnet.variables import STATIC

__all__ = [
    "elevation_of_cells",
    "pack_static",
    "population_of_cells",
    "read_static",
    "stacked_static",
    "write_nc",
]

_ELEVATION_CREDIT = (
    "KnowAir altitude grid, Wang et al. 2020 (PM2.5-GNN, doi:10.1145/3397536.3422208), "
    "github.com/shuowang-ai/PM2.5-GNN, MIT licence; its authors do not name the elevation model"
)
_POPULATION_CREDIT = (
    "CIESIN, Columbia University, 2018: Gridded Population of the World, Version 4 (GPWv4): "
    "Population Density, Revision 11, year 2020, doi:10.7927/H49C6VHW, CC BY 4.0; regridded"
)


def write_nc(dataset: xr.Dataset, path: str | Path, encoding: dict) -> None:
    """Write a NetCDF4 file, whole or not at all; equal data give equal bytes.

    Raises
    ------
    StorageFullError
        There is less room than the uncompressed data need.
    """
    require_free_space(path, dataset.nbytes)
    # The library writes in place, so: a draft beside the target, then one atomic write. Its
    # in-memory files are no way out: they hold the time of writing, and sha256 would change.
    with draft_folder(path) as folder:
        draft = folder / "draft.nc"
        dataset.to_netcdf(draft, format="NETCDF4", engine="netcdf4", encoding=encoding)
        content = draft.read_bytes()
    atomic_write_bytes(path, content)


def _require(name: str, condition: bool, expected: str, found: object) -> None:
    if not condition:
        remedy = "use a source that covers the grid with this registration"
        raise DataError(
            explain(f"cannot regrid {name}", expected=expected, found=found, remedy=remedy)
        )


def elevation_of_cells(z: xr.DataArray, grid: Grid) -> np.ndarray:
    """Mean elevation of cells whose corners are points of a raster.

    Parameters
    ----------
    z : xarray.DataArray, dims (lat, lon), ascending
        Elevation at points, m.
    grid : Grid

    Returns
    -------
    numpy.ndarray, float32, shape (H, W)
        Mean of the four corner points, m: the cell mean of the bilinear surface through them.

    Raises
    ------
    DataError
        The corners of the cells are not points of the raster.
    """
    found = {}
    for name, edges in zip(("lat", "lon"), grid.edges(), strict=True):
        places = np.abs(z[name].values[None, :] - edges[:, None])
        worst = places.min(1).max()
        _require(
            "elevation",
            worst < 1e-4,
            f"raster points on the cells' {name} edges",
            f"edges up to {worst:.4f} degrees away from a point",
        )
        found[name] = places.argmin(1)
    corner = z.values.astype(np.float64)[np.ix_(found["lat"], found["lon"])]
    mean = (corner[:-1, :-1] + corner[1:, :-1] + corner[:-1, 1:] + corner[1:, 1:]) / 4
    return mean.astype(np.float32)


def population_of_cells(density: xr.DataArray, grid: Grid) -> np.ndarray:
    """Population density of the coarser cell that each cell of the grid lies in.

    Parameters
    ----------
    density : xarray.DataArray, dims (lat, lon)
        Cell means, persons/km2.
    grid : Grid

    Returns
    -------
    numpy.ndarray, float32, shape (H, W)
        persons/km2; conserves the number of persons where the grid fills the coarser cells.

    Raises
    ------
    DataError
        A cell of the grid crosses a border of the coarser cells, or has no value.
    """
    for name, axis in (("lat", grid.lat), ("lon", grid.lon)):
        centre = density[name].values
        reach = np.abs(axis[:, None] - centre[None, :]).min(1) + abs(axis[1] - axis[0]) / 2
        limit = abs(centre[1] - centre[0]) / 2
        _require(
            "population density",
            reach.max() < limit + 1e-6,
            f"cells inside one coarser cell each ({name}, half width {limit:.4f} degrees)",
            f"a cell that reaches {reach.max():.4f} degrees from the nearest centre",
        )
    field = density.sel(lat=grid.lat, lon=grid.lon, method="nearest").values
    _require(
        "population density",
        bool(np.isfinite(field).all()),
        "a value in every cell",
        f"{int(np.isnan(field).sum())} cells without a value",
    )
    return field.astype(np.float32)


def pack_static(
    elevation_nc: str | Path, population_nc: str | Path, grid: Grid, out_nc: str | Path
) -> None:
    """Write the static fields of a grid and the wider terrain around it.

    Parameters
    ----------
    elevation_nc : path
        Variable `z` (m) at points `lat`, `lon`: the KnowAir altitude grid.
    population_nc : path
        Variable `popdens` (persons/km2), cell means: GPWv4.11.
    grid : Grid
    out_nc : path
        NetCDF4 file to write, whole or not at all.

    Raises
    ------
    DataError
        A source does not cover the grid, or its points do not fit the grid's cells.
    """
    with xr.open_dataset(elevation_nc) as source:
        z = source["z"].sortby(["lat", "lon"]).load()
    with xr.open_dataset(population_nc) as source:
        density = source["popdens"].sortby(["lat", "lon"]).load()
    data = _static_dataset(z, elevation_of_cells(z, grid), population_of_cells(density, grid), grid)
    packed = {
        name: {"zlib": True, "complevel": 9, "shuffle": True, "_FillValue": None}
        for name in data.data_vars
    }
    write_nc(data, out_nc, packed | {name: {"_FillValue": None} for name in data.coords})


def _static_dataset(
    z: xr.DataArray, elevation: np.ndarray, population: np.ndarray, grid: Grid
) -> xr.Dataset:
    cells, wide = ("lat", "lon"), ("lat_wide", "lon_wide")
    return xr.Dataset(
        {
            "elevation": (
                cells,
                elevation,
                {
                    "units": "m",
                    "credit": _ELEVATION_CREDIT,
                    "licence": "MIT",
                    "method": "mean of the four raster points at the corners of the cell",
                },
            ),
            "population": (
                cells,
                population,
                {
                    "units": "persons/km2",
                    "credit": _POPULATION_CREDIT,
                    "licence": "CC BY 4.0",
                    "method": "density of the 0.25 degree cell that the cell lies in",
                },
            ),
            "elevation_wide": (
                wide,
                z.values.astype(np.int16),
                {
                    "units": "m",
                    "credit": _ELEVATION_CREDIT,
                    "licence": "MIT",
                    "method": "raster points as in the source, for maps",
                },
            ),
        },
        coords={
            "lat": ("lat", grid.lat, {"units": "degree_north"}),
            "lon": ("lon", grid.lon, {"units": "degree_east"}),
            "lat_wide": ("lat_wide", z.lat.values.round(4), {"units": "degree_north"}),
            "lon_wide": ("lon_wide", z.lon.values.round(4), {"units": "degree_east"}),
        },
        attrs={"title": f"Static fields of the grid {grid.name}"},
    )


def read_static(manifest: Manifest) -> xr.Dataset:
    """Elevation and population density on the grid of a manifest.

    Parameters
    ----------
    manifest : Manifest

    Returns
    -------
    xarray.Dataset
        `elevation` (m) and `population` (persons/km2), dims (lat, lon), float32;
        `elevation_wide` (m), dims (lat_wide, lon_wide), int16, for maps.

    Raises
    ------
    ChecksumError, DataError
        The file is not the one of the manifest, is missing, or has another grid.
    """
    manifest.verify(content="static")
    with xr.open_dataset(manifest.path("static")) as source:
        data = source.load()
    grid = manifest.grid_object()
    same = data["elevation"].shape == grid.shape and all(
        np.allclose(data[name].values, axis, atol=1e-6)
        for name, axis in (("lat", grid.lat), ("lon", grid.lon))
    )
    if not same:
        raise DataError(
            explain(
                f"{manifest.path('static').name} holds the static fields of another grid",
                expected=f"the {grid.shape} cells of grid {grid.name}",
                found=f"{data['elevation'].shape} cells, other centres",
                remedy=f"pack it for {grid.name}, or name its own grid in the manifest",
            )
        )
    return data


def stacked_static(fields: xr.Dataset) -> np.ndarray:
    """Static variables of a grid, (len(STATIC), H, W), in the order of `STATIC`.

    Parameters
    ----------
    fields : xarray.Dataset, dims (lat, lon)
        Of `china_static` or `read_static`: static variables by their names, in their units.
        Latitude and longitude of the cells are those of the coordinates.
    """
    lat2d, lon2d = np.meshgrid(fields["lat"].values, fields["lon"].values, indexing="ij")
    places = {"lat2d": lat2d, "lon2d": lon2d}
    return np.stack([places[n] if n in places else fields[n].values for n in STATIC])
