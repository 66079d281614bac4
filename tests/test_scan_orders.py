"""Orders along the wind: permutations, directions, symmetries, borders of regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.grid import EARTH_RADIUS_KM, GRIDS, Grid, GridError
from aqnet.model.scan_orders import (
    KINDS,
    ScanSpec,
    build_orders,
    nearest_sector,
    region_bounds,
    scan_spec,
    sector_directions,
)


def made_grid(rows: int, cols: int, south_first: bool = True, lat0: float = 30.0) -> Grid:
    """A grid of rows x cols patches of 2 x 2 cells of half a degree."""
    lat = lat0 + 0.5 * np.arange(2 * rows)
    return Grid("made", lat if south_first else lat[::-1], 100 + 0.5 * np.arange(2 * cols))


def patch_mesh(spec: ScanSpec) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of the tokens."""
    geometry = spec.grid.patches(spec.patch_size)
    rows, cols = np.nonzero(spec.active)
    return geometry.lat[rows], geometry.lon[cols]


@st.composite
def specs(draw) -> ScanSpec:
    """Any small specification, with regions that need not divide the grid and inactive patches."""
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    grid = made_grid(rows, cols, draw(st.booleans()), draw(st.sampled_from([-60.0, 0.0, 45.0])))
    active = np.array(draw(st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols)))
    active[draw(st.integers(0, rows * cols - 1))] = True
    regions = draw(st.integers(1, rows)), draw(st.integers(1, cols))
    sectors = draw(st.sampled_from([4, 8, 16, 32]))
    return scan_spec(grid, 2, regions, sectors, draw(st.integers(1, 4)), active.reshape(rows, cols))


@settings(deadline=None, max_examples=60)
@given(specs())
def test_every_order_is_a_permutation_and_the_opposite_wind_reverses_it(spec):
    orders = build_orders(spec)
    tokens = np.arange(int(spec.active.sum()))
    for kind in KINDS:
        for sector in range(spec.sectors):
            order = orders.order(kind, sector)
            assert np.array_equal(np.sort(order), tokens)
            opposite = orders.order(kind, (sector + spec.sectors // 2) % spec.sectors)
            assert np.array_equal(opposite[::-1], order)


@settings(deadline=None, max_examples=60)
@given(specs())
def test_the_domain_order_never_goes_upwind_of_its_sector(spec):
    orders = build_orders(spec)
    lat, lon = patch_mesh(spec)
    scale = np.cos(np.deg2rad(lat.mean()))
    position = np.deg2rad(EARTH_RADIUS_KM) * np.stack([lon * scale, lat], axis=1)
    for sector, direction in enumerate(sector_directions(spec.sectors)):
        along = (position @ direction)[orders.order("domain", sector)]
        assert np.diff(along, prepend=along[0]).min() > -0.0021  # keys are rounded to 1 m


@settings(deadline=None, max_examples=60)
@given(specs())
def test_one_region_is_the_domain(spec):
    whole = scan_spec(spec.grid, 2, (1, 1), spec.sectors, spec.lane_patches, spec.active)
    orders = build_orders(whole)
    for sector in range(spec.sectors):
        assert np.array_equal(orders.order("region", sector), orders.order("domain", sector))


@pytest.mark.parametrize("south_first", [True, False])
@pytest.mark.parametrize("kind", ["domain", "region"])
def test_west_and_south_winds_on_both_orientations(south_first, kind):
    spec = scan_spec(made_grid(8, 12, south_first), 2, (1, 1))
    orders = build_orders(spec)
    lat, lon = patch_mesh(spec)
    assert (np.diff(lon[orders.order(kind, nearest_sector(5.0, 0.0, 16))]) >= 0).all()
    assert (np.diff(lon[orders.order(kind, nearest_sector(-5.0, 0.0, 16))]) <= 0).all()
    assert (np.diff(lat[orders.order(kind, nearest_sector(0.0, 5.0, 16))]) >= 0).all()
    assert (np.diff(lat[orders.order(kind, nearest_sector(0.0, -5.0, 16))]) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sector", range(16))
def test_flipped_rows_give_the_same_path(kind, sector):
    """The places visited are the same whichever way the rows run, up to ties."""
    paths = []
    for south_first in (True, False):
        spec = scan_spec(made_grid(8, 6, south_first), 2, (4, 3))
        lat, lon = patch_mesh(spec)
        order = build_orders(spec).order(kind, sector)
        direction = sector_directions(16)[sector]
        scale = np.cos(np.deg2rad(spec.grid.patches(2).lat.mean()))
        along = np.stack([lon * scale, lat], axis=1) @ direction
        paths.append(along[order] if kind == "domain" else np.stack([lat, lon])[:, order])
    if kind == "domain" or sector % 4:  # no ties inside a region or a lane
        assert np.allclose(*paths, atol=1e-5)


@pytest.mark.parametrize("sector", range(16))
def test_a_quarter_turn_of_wind_and_grid_keeps_the_keys(sector):
    """A square of patches on the equator, turned with the wind: the same keys along the order."""
    axis = 0.5 * (np.arange(12) - 5.5)
    spec = scan_spec(Grid("square", axis, axis), 2, (2, 2))
    orders = build_orders(spec)
    lat, lon = patch_mesh(spec)
    plane = np.deg2rad(EARTH_RADIUS_KM) * np.stack([lon, lat], axis=1)
    turned = np.stack([-plane[:, 1], plane[:, 0]], axis=1)  # by a quarter turn, east to north
    key = np.rint(1000 * plane @ sector_directions(16)[sector])
    key_turned = np.rint(1000 * turned @ sector_directions(16)[(sector + 4) % 16])
    assert np.array_equal(key, key_turned)
    # The token that a turned one lands on has its rank, in every group of equal keys.
    lands_on = [int(np.argmin(np.abs(plane - place).sum(1))) for place in turned]
    ranks = orders.rank("domain_rank")
    there = np.sort(ranks[(sector + 4) % 16][lands_on])
    assert np.array_equal(there, np.sort(ranks[sector]))
    order = np.argsort(ranks[(sector + 4) % 16][lands_on])
    assert np.array_equal(key[order], np.sort(key))


@settings(deadline=None, max_examples=200)
@given(st.floats(-np.pi, np.pi), st.floats(0.01, 60), st.sampled_from([4, 8, 16, 32]))
def test_the_nearest_sector_is_within_half_a_sector(angle, speed, sectors):
    sector = nearest_sector(speed * np.cos(angle), speed * np.sin(angle), sectors)
    off = (angle - 2 * np.pi * sector / sectors + np.pi) % (2 * np.pi) - np.pi
    assert abs(off) <= np.pi / sectors + 1e-9


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 2 * np.pi), st.sampled_from([(4, 4), (5, 3), (8, 8)]))
def test_steps_against_the_true_wind_are_bounded(angle, regions):
    """Inside a region: its extent times the sine of half a sector, and the rounding."""
    spec = scan_spec(made_grid(16, 16), 2, regions)
    true = np.array([np.cos(angle), np.sin(angle)])
    orders = build_orders(spec)
    order = orders.order("region", int(nearest_sector(*true, 16)))
    lat, lon = patch_mesh(spec)
    for region in range(orders.region_size.size):
        inside = order[orders.region[order] == region]
        scale = np.cos(np.deg2rad(lat[inside].mean()))
        place = np.deg2rad(EARTH_RADIUS_KM) * np.stack([lon[inside] * scale, lat[inside]], axis=1)
        extent = np.hypot(*np.ptp(place, axis=0))
        assert np.diff(place @ true).min(initial=0) >= -extent * np.sin(np.pi / 16) - 0.002


def test_regions_own_their_blocks():
    spec = scan_spec(made_grid(7, 9), 2, (3, 4))
    region = build_orders(spec).region.reshape(7, 9)
    rows, cols = region_bounds(7, 3), region_bounds(9, 4)
    for r in range(3):
        for c in range(4):
            assert (region[rows[r] : rows[r + 1], cols[c] : cols[c + 1]] == 4 * r + c).all()


def test_lanes_are_bands_along_the_wind():
    spec = scan_spec(made_grid(12, 12), 2, (3, 3), lane_patches=3)
    orders = build_orders(spec)
    lat, lon = patch_mesh(spec)
    order = orders.order("lanes", 0)  # a west wind: lanes of three rows, each from west to east
    lanes = order.reshape(4, 36)
    for lane in lanes:
        assert len(np.unique(lat[lane])) == 3
        assert (np.diff(lon[lane]) >= 0).all()


def test_full_grid_is_small_and_quick():
    orders = build_orders(scan_spec(GRIDS["china"]))
    arrays = (
        orders.region,
        orders.region_rank,
        orders.local_rank,
        orders.domain_rank,
        orders.lane_rank,
    )
    assert sum(a.nbytes for a in arrays) < 500_000
    assert orders.local_rank.dtype == np.uint8 and orders.domain_rank.dtype == np.uint16


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"regions": (9, 2)}, "1 to 8 bands of rows"),
        ({"regions": (0, 2)}, "1 to 8 bands of rows"),
        ({"sectors": 6}, "multiple of 4"),
        ({"sectors": 364}, "from 4 to 360"),
        ({"lane_patches": 0}, "1 patch or more"),
        ({"active": np.zeros((8, 8), bool)}, "at least one patch"),
        ({"active": np.ones((4, 4), bool)}, r"shape \(8, 8\)"),
        ({"patch_size": 3}, "patch"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, names):
    with pytest.raises(GridError, match=names):
        scan_spec(made_grid(8, 8), **{"regions": (2, 2), **change})
