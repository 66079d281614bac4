"""The Lambert grid: areas, the angle to true north, places there and back, grids of meshes."""

from __future__ import annotations

import numpy as np
import pytest

from aqnet.grid import GRIDS, GridError
from aqnet.lambert_grid import CAQRA_GRID, LambertGrid


def lambert(lat_1=25.0, lat_2=40.0, lon_0=105.0, step=150e3, shape=(20, 26)) -> LambertGrid:
    y, x = (step * (np.arange(n) - (n - 1) / 2) for n in shape)
    return LambertGrid("test", x, y, lat_1, lat_2, 34.0, lon_0, 6_370_000.0)


def spherical_area_km2(lat, lon, radius_km: float) -> float:
    """Area of a polygon of great circles, from the solid angle of its triangles.

    Van Oosterom and Strackee (1983), IEEE Trans. Biomed. Eng. 30, 125-126.
    """
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    p = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], -1)
    p0, p1, p2 = p[0], p[1:-1], p[2:]
    volume = (p0 * np.cross(p1, p2)).sum(-1)
    whole = 1 + p1 @ p0 + (p1 * p2).sum(-1) + p2 @ p0
    return abs(2 * np.arctan2(volume, whole).sum()) * radius_km**2


def outline(grid: LambertGrid, row: int, col: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude along the edge of a cell."""
    y, x = grid.edges()
    s = np.linspace(0, 1, n, endpoint=False)
    x0, x1, y0, y1 = x[col], x[col + 1], y[row], y[row + 1]
    along = [x0 + s * (x1 - x0), np.full(n, x1), x1 + s * (x0 - x1), np.full(n, x0)]
    up = [np.full(n, y0), y0 + s * (y1 - y0), np.full(n, y1), y1 + s * (y0 - y1)]
    return grid.to_latlon(np.concatenate(along), np.concatenate(up))


@pytest.mark.parametrize("grid", [CAQRA_GRID, lambert(), lambert(30.0, 30.0, -98.0)])
def test_lambert_areas_against_polygons_on_the_sphere(grid):
    area = grid.cell_area_km2
    assert area.shape == grid.shape
    for row in (0, grid.shape[0] // 2, grid.shape[0] - 1):
        for col in (0, grid.shape[1] // 3, grid.shape[1] - 1):
            true = spherical_area_km2(*outline(grid, row, col), grid.radius_m / 1000)
            assert area[row, col] == pytest.approx(true, rel=2e-5)


def test_lambert_areas_add_up():
    # 10 x 10 cells of 15 km inside one of 150 km, and the scale 1 on the standard parallels
    y, x = (15e3 * (np.arange(n) - (n - 1) / 2) for n in (200, 260))
    fine = LambertGrid("fine", x, y, 25.0, 40.0, 34.0, 105.0, 6_370_000.0).cell_area_km2
    sums = fine.reshape(20, 10, 26, 10).sum((1, 3))
    np.testing.assert_allclose(lambert().cell_area_km2, sums, rtol=1e-6)
    for parallel in (25.0, 40.0):
        row = abs(CAQRA_GRID.mesh()[0] - parallel).argmin(0)[216]
        assert CAQRA_GRID.cell_area_km2[row, 216] == pytest.approx(225.0, rel=2e-3)
    assert CAQRA_GRID.cell_area_km2[169, 216] > 225  # between the parallels the map is too small


@pytest.mark.parametrize("grid", [CAQRA_GRID, lambert(), lambert(30.0, 30.0, -98.0)])
def test_rotation_against_a_step_to_the_north_and_to_the_east(grid):
    lat, lon = grid.mesh()
    angle = grid.rotation_rad()
    x, y = grid.to_xy(lat, lon)
    north = np.stack(grid.to_xy(lat + 1e-4, lon)) - (x, y)
    np.testing.assert_allclose(np.arctan2(-north[0], north[1]), angle, atol=1e-6)
    east = np.stack(grid.to_xy(lat, lon + 1e-4)) - (x, y)
    np.testing.assert_allclose(np.arctan2(east[1], east[0]), angle, atol=1e-5)


def test_rotation_reaches_twenty_degrees_at_the_western_border():
    lat, lon = 39.3, 73.6  # westernmost place of China
    x, y = CAQRA_GRID.to_xy(lat, lon)
    row, col = abs(CAQRA_GRID.y_m - y).argmin(), abs(CAQRA_GRID.x_m - x).argmin()
    degrees = np.rad2deg(CAQRA_GRID.rotation_rad()[row, col])
    assert -18 < degrees < -16  # n = 0.54: 31 degrees of longitude
    assert np.rad2deg(CAQRA_GRID.rotation_rad()[:, 38]).min() == pytest.approx(-20, abs=1.5)
    # A wind along grid y: a step along grid y must go where the docstring's formula says.
    g = CAQRA_GRID.rotation_rad()[row, col]
    east, north = np.sin(g), np.cos(g)
    lat1, lon1 = CAQRA_GRID.to_latlon(CAQRA_GRID.x_m[col], CAQRA_GRID.y_m[row] + 1000.0)
    lat0, lon0 = CAQRA_GRID.to_latlon(CAQRA_GRID.x_m[col], CAQRA_GRID.y_m[row])
    moved = (lon1 - lon0) * np.cos(np.deg2rad(lat0)), lat1 - lat0
    assert np.arctan2(*moved) == pytest.approx(np.arctan2(east, north), abs=1e-3)


def test_projection_there_and_back():
    lat, lon = CAQRA_GRID.mesh()
    x, y = CAQRA_GRID.to_xy(lat, lon)
    np.testing.assert_allclose(x, np.broadcast_to(CAQRA_GRID.x_m, x.shape), atol=1e-4)
    np.testing.assert_allclose(y.T, np.broadcast_to(CAQRA_GRID.y_m, y.T.shape), atol=1e-4)
    # Snyder (1987), p. 296, sphere of radius 1: 33 and 45 N, origin 23 N 96 W, place 35 N 75 W.
    one = LambertGrid("snyder", [0.0, 1.0], [0.0, 1.0], 33.0, 45.0, 23.0, -96.0, 1.0)
    assert one.to_xy(35.0, -75.0) == pytest.approx((0.2966785, 0.2462112), abs=1e-7)


def test_nominal_caqra_grid_is_centred_on_34_n_105_e():
    assert CAQRA_GRID.shape == (339, 432) and CAQRA_GRID.orientation == "south_to_north"
    assert CAQRA_GRID.to_xy(34.0, 105.0) == pytest.approx((0.0, 0.0), abs=1e-6)
    for axis, lean in ((CAQRA_GRID.x_m, 0.0), (CAQRA_GRID.y_m, 7500.0)):
        # half-odd multiples of 15 km, where the cells of the published window lie
        np.testing.assert_allclose(axis % 15e3, 7500.0)
        assert axis[0] + axis[-1] == pytest.approx(2 * lean)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("cols", [False, True])
def test_from_latlon_finds_the_grid_in_any_orientation(rows, cols):
    index = tuple(slice(None, None, -1 if turn else 1) for turn in (rows, cols))
    window = LambertGrid("w", CAQRA_GRID.x_m[38:367][index[1]], CAQRA_GRID.y_m[53:324][index[0]],
                         25.0, 40.0, 34.0, 105.0, 6_370_000.0)  # fmt: skip
    lat, lon = (m[53:324, 38:367][index] for m in CAQRA_GRID.mesh())
    found = LambertGrid.from_latlon(lat.astype("f4")[None], lon.astype("f4")[None], "found")
    assert found.digest == window.digest and found.name == "found"
    assert found.orientation == ("north_to_south" if rows else "south_to_north")
    np.testing.assert_allclose(
        found.rotation_rad(), CAQRA_GRID.rotation_rad()[53:324, 38:367][index]
    )
    np.testing.assert_allclose(found.cell_area_km2, CAQRA_GRID.cell_area_km2[53:324, 38:367][index])
    rough = LambertGrid.from_latlon(lat.round(2), lon.round(2), "two decimals")
    assert abs(rough.x_m - window.x_m).max() < 100 and abs(rough.y_m - window.y_m).max() < 100


def wrong_meshes() -> dict[str, tuple]:
    lat, lon = (m[100:140, 100:150] for m in CAQRA_GRID.mesh())
    bent = lat.copy()
    bent[20, 30] += 0.02
    gap = lon.copy()
    gap[0, 0] = np.nan
    return {
        "another projection": GRIDS["china"].mesh(),
        "other parallels": lambert(30.0, 60.0).mesh(),
        "swapped": (lon, lat),
        "transposed": (lat.T, lon.T),
        "one cell moved": (bent, lon),
        "a missing value": (lat, gap),
        "one dimension": (lat[0], lon[0]),
        "shapes": (lat[:-1], lon),
        "rows out of order": (lat[[1, 0, *range(2, 40)]], lon[[1, 0, *range(2, 40)]]),
        "constant": (np.full((5, 5), 35.0), np.full((5, 5), 105.0)),
    }


@pytest.mark.parametrize("kind", wrong_meshes())
def test_from_latlon_refuses_another_mesh(kind):
    with pytest.raises(GridError, match=r"not a mesh of this Lambert|does not advance"):
        LambertGrid.from_latlon(*wrong_meshes()[kind], "wrong")


def test_lambert_digest_holds_every_parameter():
    grid = lambert()
    others = [lambert(26.0), lambert(lat_2=41.0), lambert(lon_0=106.0), lambert(step=151e3)]
    moved = LambertGrid("m", grid.x_m, grid.y_m, 25.0, 40.0, 35.0, 105.0, 6_370_000.0)
    round_earth = LambertGrid("r", grid.x_m, grid.y_m, 25.0, 40.0, 34.0, 105.0, 6_371_000.0)
    assert len({g.digest for g in (grid, *others, moved, round_earth)}) == 7
    again = LambertGrid("n", grid.x_m, grid.y_m, 25, 40, 34, 105, 6370000)
    assert again.digest == grid.digest
    with pytest.raises(GridError, match="regular axis"):
        LambertGrid("bad", [0.0, 1.0, 3.0], grid.y_m, 25, 40, 34, 105, 6370000)
