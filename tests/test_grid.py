"""Distance, grids in both orientations, interpolation, clocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.grid import GRIDS, Grid, GridError, distance_km, local_clock, local_solar_hour

BEIJING = GRIDS["beijing"]


# Great circles on a sphere of 6371 km: degrees of arc times 111.19493 km.
@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        ((0, 0), (0, 90), 10007.543),
        ((0, 0), (90, 0), 10007.543),
        ((40, 116), (41, 116), 111.195),
        ((0, 179.5), (0, -179.5), 111.195),
        ((60, 0), (60, 180), 60 * 111.19493),
        ((-30, 10), (30, -170), 20015.087),
    ],
)
def test_distance_against_exact_arcs(one, other, km):
    assert distance_km(*one, *other) == pytest.approx(km, abs=0.01)


def test_distance_between_airports():
    # BNA to LAX, the worked example of the haversine formula: 2886.44 km at R = 6371 km.
    assert distance_km(36.12, -86.67, 33.94, -118.40) == pytest.approx(2886.44, abs=0.05)


def test_distance_broadcasts_and_resolves_metres():
    table = distance_km(np.zeros((3, 1)), 0.0, np.arange(4.0), 0.0)
    assert table.shape == (3, 4)
    assert distance_km(40.0, 116.0, 40.0 + 1e-5, 116.0) * 1000 == pytest.approx(1.1119, rel=1e-3)


def test_beijing_grid():
    assert BEIJING.shape == (16, 16)
    assert BEIJING.lat[[0, -1]].tolist() == pytest.approx([39.725, 40.475])
    assert BEIJING.lon[[0, -1]].tolist() == pytest.approx([116.025, 116.775])
    lat2d, lon2d = BEIJING.mesh()
    assert lat2d[0, 5] == BEIJING.lat[0] and lon2d[0, 5] == BEIJING.lon[5]
    with pytest.raises(ValueError, match="read-only"):
        BEIJING.lat[0] = 0.0


def test_cell_areas_add_up_to_the_sphere():
    world = Grid("world", -87.5 + 5 * np.arange(36), 2.5 + 5 * np.arange(72))
    assert world.cell_area_km2.shape == (36, 72)
    assert world.cell_area_km2.sum() == pytest.approx(4 * np.pi * 6371.0**2)
    north_first = Grid("world", world.lat[::-1], world.lon)
    np.testing.assert_allclose(north_first.cell_area_km2, world.cell_area_km2[::-1])


def interpolate(grid: Grid, field: np.ndarray, lat, lon) -> np.ndarray:
    indices, weights = grid.bilinear(lat, lon)
    return (field.reshape(-1)[indices] * weights).sum(-1)


@settings(deadline=None)  # the machine may be busy
@given(
    coefficients=st.tuples(*[st.floats(-10, 10)] * 4),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    flip_lat=st.booleans(),
    flip_lon=st.booleans(),
)
def test_bilinear_is_exact_on_bilinear_fields(coefficients, x, y, flip_lat, flip_lon):
    lat, lon = BEIJING.lat[:: -1 if flip_lat else 1], BEIJING.lon[:: -1 if flip_lon else 1]
    grid = Grid("flipped", lat, lon)
    a, b, c, d = coefficients

    def field(north, east):
        return a + b * (north - 40) + c * (east - 116) + d * (north - 40) * (east - 116)

    place = 39.725 + 0.75 * y, 116.025 + 0.75 * x
    # d bends inside a cell only along the diagonal, which bilinear interpolation holds exactly.
    assert interpolate(grid, field(*grid.mesh()), *place)[0] == pytest.approx(field(*place))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_weights_are_a_mean_of_neighbours(places):
    lat = np.array([39.725 + 0.75 * y for y, _ in places])
    lon = np.array([116.025 + 0.75 * x for _, x in places])
    indices, weights = BEIJING.bilinear(lat, lon)
    assert indices.shape == weights.shape == (len(places), 4) and indices.dtype == np.int64
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1)
    lat2d, lon2d = BEIJING.mesh()
    used = weights > 1e-6
    near = np.abs(lat2d.reshape(-1)[indices] - lat[:, None]) < 0.05 + 1e-6
    near &= np.abs(lon2d.reshape(-1)[indices] - lon[:, None]) < 0.05 + 1e-6
    assert near[used].all()


@pytest.mark.parametrize(("lat", "lon"), [(39.70, 116.4), (40.0, 116.80), (np.nan, 116.4)])
def test_a_place_outside_is_an_error(lat, lon):
    with pytest.raises(GridError, match="1 places lie outside the grid's l"):
        BEIJING.bilinear([40.0, lat], [116.4, lon])


@pytest.mark.parametrize("axis", [[1.0], [1.0, 2.0, 4.0], [1.0, 1.0, 1.0]])
def test_an_irregular_axis_is_an_error(axis):
    with pytest.raises(GridError, match="not a regular axis"):
        Grid("bad", np.array(axis), BEIJING.lon)


def test_local_solar_hour():
    noon = np.datetime64("2016-06-21T12:00")
    assert local_solar_hour(noon, 0.0) == 12
    assert local_solar_hour(noon, 120.0) == 20
    assert local_solar_hour(noon, -120.0) == 4
    assert local_solar_hour(noon, 180.0) == 0
    # just before midnight at Greenwich: the remainder of -1e-17 rounds to 24.0, which is no hour
    assert local_solar_hour(np.datetime64("2016-06-21T00:00"), -1e-16) == 0
    # 16:00 UTC is midnight on the clock in Beijing, a quarter of an hour earlier by the sun.
    midnight = np.datetime64("2016-06-21T16:00")
    assert local_solar_hour(midnight, 116.4) == pytest.approx(23.76)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(-(2**31), 2**31), st.floats(-180, 180))
def test_local_solar_hour_stays_in_a_day(seconds, lon):
    hour = local_solar_hour(np.datetime64(seconds, "s"), lon)
    assert 0 <= hour < 24
    late = local_solar_hour(np.datetime64(seconds + 3600, "s"), lon)
    assert (late - hour) % 24 == pytest.approx(1, abs=1e-6)


def test_local_solar_hour_of_times_and_places():
    times = np.datetime64("2016-01-01T00", "h") + np.arange(24)
    table = local_solar_hour(times[:, None], np.array([0.0, 15.0]))
    assert table.shape == (24, 2)
    np.testing.assert_allclose(table[:, 1], (np.arange(24) + 1) % 24)


def test_local_clock_moves_the_date():
    utc = np.array(["2015-02-28T15:00", "2015-02-28T16:00"], dtype="datetime64[h]")
    local = local_clock(utc, 8)
    assert local.astype("datetime64[D]").astype(str).tolist() == ["2015-02-28", "2015-03-01"]
    assert local_clock(utc, 5.5)[0] == np.datetime64("2015-02-28T20:30")


# ---- orientation, edges, patches


def flipped(grid: Grid, rows: bool, cols: bool) -> tuple[Grid, tuple[slice, slice]]:
    """The same cells in another order, and the index that does the same to a field."""
    index = tuple(slice(None, None, -1 if turn else 1) for turn in (rows, cols))
    return Grid("flipped", grid.lat[index[0]], grid.lon[index[1]]), index


def test_named_grids():
    assert set(GRIDS) == {"beijing", "china", "china_64x128", "china_32x64", "reference"}
    for name, grid in GRIDS.items():
        assert grid.name == name
    for name, shape in (("china", (128, 256)), ("china_64x128", (64, 128)),
                        ("china_32x64", (32, 64))):  # fmt: skip
        grid = GRIDS[name]
        assert grid.shape == shape and grid.orientation == "south_to_north"
        lat, lon = grid.edges()
        assert (lat[0], lat[-1], lon[0], lon[-1]) == pytest.approx((17.5, 54.5, 73.0, 136.0))
    lat, lon = GRIDS["reference"].edges()
    assert GRIDS["reference"].orientation == "north_to_south"
    assert (lat[0], lat[-1], lon[0], lon[-1]) == pytest.approx((53.0, 10.0, 78.0, 134.0))
    assert GRIDS["reference"].shape == (128, 256)


def test_digest_is_of_the_cells_and_not_of_the_name():
    china = GRIDS["china"]
    assert Grid("other", china.lat, china.lon).digest == china.digest
    assert Grid("noise", china.lat + 1e-12, china.lon).digest == china.digest
    digests = {g.digest for g in GRIDS.values()}
    digests |= {flipped(china, True, False)[0].digest, flipped(china, False, True)[0].digest}
    assert len(digests) == len(GRIDS) + 2 and all(len(d) == 64 for d in digests)


@settings(deadline=None)  # the machine may be busy
@given(st.booleans(), st.booleans(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1))
def test_a_flipped_grid_gives_flipped_results(rows, cols, size, seed):
    grid = GRIDS["china_32x64"]
    other, index = flipped(grid, rows, cols)
    np.testing.assert_allclose(other.cell_area_km2, grid.cell_area_km2[index], rtol=1e-12)
    for mine, theirs, turn in zip(other.edges(), grid.edges(), index, strict=True):
        np.testing.assert_allclose(mine, theirs[turn])
    mask = np.random.default_rng(seed).random(grid.shape) < 0.03
    one, two = grid.patches(size), other.patches(size)
    for name, turn in (("lat", index[0]), ("lon", index[1]), ("east_km", index[0]),
                       ("north_km", index[0])):  # fmt: skip
        np.testing.assert_allclose(getattr(two, name), getattr(one, name)[turn])
    active = grid.active_patches(mask, size)
    np.testing.assert_array_equal(other.active_patches(mask[index], size), active[index])
    field = np.random.default_rng(seed).normal(size=grid.shape)
    places = [20.3, 33.7, 51.1], [80.2, 101.9, 129.4]
    np.testing.assert_allclose(
        interpolate(other, field[index], *places), interpolate(grid, field, *places)
    )
    coarse = other.coarsened(size, "coarse") if size > 1 else other
    np.testing.assert_allclose(coarse.lat, one.lat[index[0]])


def test_patches_of_the_reference_grid():
    grid = GRIDS["reference"]
    patches = grid.patches(2)
    assert patches.shape == (64, 128) and patches.size == 2
    assert patches.lat[0] == pytest.approx(grid.lat[:2].mean()) and patches.lat[0] > 50
    # extents against great circles between the edges
    lat, lon = grid.edges()
    north = distance_km(lat[0:-2:2], 100.0, lat[2::2], 100.0)
    np.testing.assert_allclose(patches.north_km, north, rtol=1e-9)
    east = distance_km(patches.lat, lon[0], patches.lat, lon[2])
    np.testing.assert_allclose(patches.east_km, east, rtol=1e-5)  # arc against parallel
    lat2d, lon2d = patches.mesh()
    assert lat2d.shape == (64, 128) and lon2d[0, 3] == patches.lon[3]


def test_patch_numbers_are_row_major():
    index = BEIJING.patches(4).index
    assert index.shape == (16, 16) and index.dtype == np.int64
    assert index[0, 3] == 0 and index[0, 4] == 1 and index[4, 0] == 4 and index[15, 15] == 15
    lat2d, _ = BEIJING.mesh()
    sums = np.bincount(index.reshape(-1), lat2d.reshape(-1)).reshape(4, 4) / 16
    np.testing.assert_allclose(sums[:, 0], BEIJING.patches(4).lat)


def test_a_patch_is_active_with_one_cell():
    mask = np.zeros((16, 16), bool)
    assert not BEIJING.active_patches(mask, 4).any()
    mask[5, 15] = True
    active = BEIJING.active_patches(mask, 4)
    assert active.sum() == 1 and active[1, 3]
    for wrong in (mask[:8], mask.astype(float)):
        with pytest.raises(GridError, match="not one of the grid"):
            BEIJING.active_patches(wrong, 4)


@pytest.mark.parametrize("size", [0, 3, 5])
def test_patches_must_divide_the_grid(size):
    with pytest.raises(GridError, match=f"16 cells of lat do not divide into blocks of {size}"):
        BEIJING.patches(size)
