"""Regions and terrain: the right places are in them, on any grid, in any orientation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aqnet.data.geography import china_static
from aqnet.errors import DataError
from aqnet.grid import GRIDS, Grid
from aqnet.lambert_grid import CAQRA_GRID
from aqnet.verification.regions import (
    TERRAIN,
    china_groups,
    load_regions,
    region_masks,
    slope_m_per_km,
    terrain_masks,
)

GRID = GRIDS["china"]
# (lat, lon) of places and the region that they lie in; None for none
PLACES = {
    "Shijiazhuang": (38.04, 114.7, "north_china_plain"),
    "Zhengzhou": (34.75, 113.9, "north_china_plain"),
    "Shanghai": (31.23, 121.3, "yangtze_delta"),
    "Guangzhou": (23.13, 113.26, "pearl_delta"),
    "Chengdu": (30.66, 104.06, "sichuan_basin"),
    "Chongqing": (29.56, 106.5, "sichuan_basin"),
    "Xi'an": (34.34, 108.94, "fenwei_plain"),
    "Linfen": (36.08, 111.5, "fenwei_plain"),
    "Taklamakan": (39.0, 83.0, "tarim_basin"),
    "Lhasa": (29.65, 91.1, "tibetan_plateau"),
    "Xining": (36.6, 100.5, "tibetan_plateau"),
    "Harbin": (45.8, 126.5, None),
    "Wuhan": (30.6, 114.3, None),
    "Kunming": (25.0, 102.7, None),
    "Urumqi": (43.8, 87.6, None),
}


@pytest.fixture(scope="module")
def elevation():
    static = china_static(GRID)
    return static["elevation"].values


@pytest.fixture(scope="module")
def masks(elevation):
    return region_masks(GRID, elevation)


@pytest.mark.parametrize("place", PLACES)
def test_places_lie_in_their_region(masks, place):
    lat, lon, region = PLACES[place]
    row, col = np.abs(GRID.lat - lat).argmin(), np.abs(GRID.lon - lon).argmin()
    found = {name for name, mask in masks.items() if mask[row, col]}
    assert found == ({region} if region else set())


def test_the_seven_regions_say_how_they_were_drawn(masks):
    regions = load_regions()
    assert len(regions) == 7 and set(masks) == {r.name for r in regions}
    assert all(r.drawn and r.source and r.title for r in regions)
    assert (np.sum(list(masks.values()), axis=0) <= 1).all()  # none overlap


def test_masks_turn_with_the_grid(elevation, masks):
    turned = Grid("turned", GRID.lat[::-1], GRID.lon)
    found = region_masks(turned, elevation[::-1])
    terrain, other = terrain_masks(GRID, elevation), terrain_masks(turned, elevation[::-1])
    for name, mask in masks.items():
        assert (found[name][::-1] == mask).all()
    for name, mask in terrain.items():
        assert (other[name][::-1] == mask).all()


def test_masks_on_the_projected_grid_cover_the_same_area(masks):
    flat = np.full(CAQRA_GRID.shape, 100.0)
    found = region_masks(CAQRA_GRID, flat)
    assert not found["tibetan_plateau"].any()  # too low
    same = region_masks(GRID, np.full(GRID.shape, 100.0))
    for name in ("sichuan_basin", "pearl_delta", "north_china_plain"):
        area = [
            (g.cell_area_km2[m]).sum() for g, m in ((CAQRA_GRID, found[name]), (GRID, same[name]))
        ]
        assert area[0] == pytest.approx(area[1], rel=0.1)  # border cells of 15 and 25 km


def test_every_cell_with_a_slope_has_one_class_of_terrain(elevation):
    count = np.sum(list(terrain_masks(GRID, elevation).values()), axis=0)
    known = np.isfinite(slope_m_per_km(GRID, elevation))
    assert (count == known).all()
    assert set(china_groups(GRID, elevation)) >= set(TERRAIN)


def test_the_slope_of_a_plane_is_its_gradient():
    lat, lon = GRID.mesh()
    north = slope_m_per_km(GRID, 111.19 * lat)  # 1 m per km
    assert north == pytest.approx(1.0, rel=1e-3)
    east = slope_m_per_km(GRID, 111.19 * lon)
    np.testing.assert_allclose(east, 1 / np.cos(np.deg2rad(lat)), rtol=1e-3)


def test_bad_files_and_elevations_are_refused(tmp_path, elevation):
    path = tmp_path / "regions.geojson"
    for content in ("nothing", json.dumps({"features": [{"properties": {}, "geometry": None}]})):
        path.write_text(content)
        with pytest.raises(DataError, match="holds no regions"):
            load_regions(path)
    with pytest.raises(DataError, match="not one of this grid"):
        region_masks(GRID, elevation[:-1])
