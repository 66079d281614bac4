"""Regridding of elevation and population."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr

from aqnet.data.static import (
    elevation_of_cells,
    pack_static,
    population_of_cells,
    read_static,
    write_nc,
)
from aqnet.errors import DataError
from aqnet.grid import GRIDS, Grid
from aqnet.io.locks import lock_existing

BEIJING = GRIDS["beijing"]
NORTH_FIRST = Grid("north first", BEIJING.lat[::-1], BEIJING.lon)


def points(offset: float = 0.0) -> xr.DataArray:
    """Elevation 1000 (lat - 39) + 200 (lon - 116) at multiples of 0.05 degrees, plus offset."""
    lat = 39.0 + 0.05 * np.arange(45) + offset
    lon = 115.2 + 0.05 * np.arange(49) + offset
    plane = 1000 * (lat[:, None] - 39) + 200 * (lon[None, :] - 116)
    return xr.DataArray(plane, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), name="z")


def density() -> xr.DataArray:
    """A different number in every cell of 0.25 degrees."""
    lat, lon = 39.125 + 0.25 * np.arange(8), 115.125 + 0.25 * np.arange(10)
    values = np.arange(80.0).reshape(8, 10)
    return xr.DataArray(
        values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), name="popdens"
    )


@pytest.mark.parametrize("grid", [BEIJING, NORTH_FIRST])
def test_elevation_of_a_plane_is_exact_at_the_centres(grid):
    lat2d, lon2d = grid.mesh()
    expected = 1000 * (lat2d - 39) + 200 * (lon2d - 116)
    np.testing.assert_allclose(elevation_of_cells(points(), grid), expected, atol=1e-2)


def test_elevation_with_another_registration_is_refused():
    with pytest.raises(DataError, match="registration"):
        elevation_of_cells(points(offset=0.02), BEIJING)


@pytest.mark.parametrize("grid", [BEIJING, NORTH_FIRST])
def test_population_keeps_the_number_of_persons(grid):
    field = population_of_cells(density(), grid)
    # The block of 5 x 5 cells inside the coarse cell centred at 40.125, 116.375.
    lat2d, lon2d = grid.mesh()
    block = (abs(lat2d - 40.125) < 0.125) & (abs(lon2d - 116.375) < 0.125)
    assert block.sum() == 25
    assert set(field[block].tolist()) == {float(density().sel(lat=40.125, lon=116.375))}


def test_population_must_nest_and_have_values():
    shifted = Grid("shifted", BEIJING.lat + 0.02, BEIJING.lon)
    with pytest.raises(DataError, match="population density"):
        population_of_cells(density(), shifted)
    holes = density().where(density() != float(density().sel(lat=40.125, lon=116.375)))
    with pytest.raises(DataError, match="25 cells without a value"):
        population_of_cells(holes, BEIJING)


def test_pack_static_round_trip(tmp_path):
    points().to_netcdf(tmp_path / "z.nc")
    density().to_netcdf(tmp_path / "p.nc")
    pack_static(tmp_path / "z.nc", tmp_path / "p.nc", BEIJING, tmp_path / "static.nc")
    with xr.open_dataset(tmp_path / "static.nc") as static:
        np.testing.assert_array_equal(static.elevation, elevation_of_cells(points(), BEIJING))
        np.testing.assert_array_equal(static.population, population_of_cells(density(), BEIJING))
        assert static.elevation_wide.shape == (45, 49)


def test_drafts_of_killed_processes_are_cleared_and_of_others_not(tmp_path):
    target = tmp_path / "x.nc"
    dead, alive = (tmp_path / f".x.nc.new-{name}" for name in ("dead", "alive"))
    for draft in (dead, alive):
        draft.mkdir()
        (draft / "draft.nc").write_bytes(b"half")
    held = lock_existing(alive)
    write_nc(points().to_dataset(), target, {})
    assert sorted(tmp_path.iterdir()) == sorted([alive, target])
    os.close(held)
    write_nc(points().to_dataset(), target, {})
    assert list(tmp_path.iterdir()) == [target]


def test_a_shipped_file_of_another_grid_is_named(manifest, monkeypatch):
    monkeypatch.setattr(type(manifest), "grid_object", lambda self: NORTH_FIRST)
    with pytest.raises(DataError, match=r"of another grid(.|\n)*north first") as caught:
        read_static(manifest)
    assert "regrid" not in str(caught.value)
