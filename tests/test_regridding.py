"""Weights between grids: exact where they should be, mass kept, caches that do not lie."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.source.regridding import (
    METHODS,
    MIN_KNOWN_SHARE,
    area_weights,
    bilinear_weights,
    cached_weights,
    rotate_wind,
    weights_file,
)
from aqnet.errors import ChecksumError
from aqnet.grid import EARTH_RADIUS_KM, GRIDS, Grid
from aqnet.lambert_grid import LambertGrid
from aqnet.variables import TARGETS

CAQRA_PROJECTION = (25.0, 40.0, 34.0, 105.0, 6_370_000.0)
X, Y = 45e3 * (np.arange(80) - 39.5), 45e3 * (np.arange(60) - 29.5)
SOURCE = LambertGrid("45 km", X, Y, *CAQRA_PROJECTION)
NORTH_FIRST = LambertGrid("45 km, north first", X, Y[::-1], *CAQRA_PROJECTION)
TARGET = GRIDS["china_32x64"]
FINER = GRIDS["china_64x128"]


@functools.cache
def weights(method: str, target: str = "china_32x64"):
    return METHODS[method](SOURCE, GRIDS[target])


def noise(seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Concentrations that differ by a factor of 20 from cell to cell."""
    return np.random.default_rng(seed).lognormal(3, sigma, SOURCE.shape)


# ---- constants and lines


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=50, deadline=None)
@given(value=st.floats(-(2.0**100), 2.0**100, width=32))
def test_constants_are_exact(method, value):
    field = np.full((2, *SOURCE.shape), value, np.float32)
    field[:, 20:25, 30:50] = np.nan
    found = weights(method).apply(field)
    assert found.dtype == np.float32 and found.shape == (2, *TARGET.shape)
    known = np.isfinite(found)
    assert known.sum() > 1000 and (found[known] == np.float32(value)).all()


def test_fields_that_are_linear_on_the_map_are_exact():
    def line(x, y):
        return 273.15 + 8e-6 * x - 1.3e-5 * y

    field = line(*np.meshgrid(SOURCE.x_m, SOURCE.y_m))
    found = weights("bilinear").apply(field)
    expected = line(*SOURCE.to_xy(*TARGET.mesh()))
    known = np.isfinite(found)
    assert known.sum() > 700
    assert np.abs(found - expected)[known].max() < 1e-5
    # an area mean of a line is its value at the centre of mass, near the centre of the cell
    mean = weights("area").apply(field)
    assert np.abs(mean - expected)[known & (weights("area").coverage > 0.999)].max() < 0.05


def test_nothing_is_extrapolated():
    x, y = SOURCE.to_xy(*TARGET.mesh())
    inside = (np.abs(x) <= X.max()) & (np.abs(y) <= Y.max())
    np.testing.assert_array_equal(weights("bilinear").coverage > 0, inside)
    np.testing.assert_allclose(weights("bilinear").coverage[inside], 1, atol=1e-12)
    assert np.isnan(weights("bilinear").apply(noise())[~inside]).all()


# ---- mass


def box_mass(field: np.ndarray, box: tuple, points: int = 12) -> float:
    """Total of field times area over a box (south, north, west, east), by many small squares."""
    south, north, west, east = box
    offset = ((np.arange(points) + 0.5) / points - 0.5) * 45e3
    x = (X[:, None] + offset).reshape(-1)
    y = (Y[:, None] + offset).reshape(-1)
    lat, lon = SOURCE.to_latlon(*np.meshgrid(x, y))
    inside = (lat > south) & (lat < north) & (lon > west) & (lon < east)
    fine = np.repeat(np.repeat(field, points, 0), points, 1)
    area = np.repeat(np.repeat(SOURCE.cell_area_km2, points, 0), points, 1) / points**2
    return float((fine * area * inside).sum())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["smooth", "spiky"])
def test_mass_of_each_pollutant_is_kept(name, kind):
    seed = TARGETS.index(name)
    x, y = np.meshgrid(X, Y)
    waves = 40 * np.exp(np.sin(x / 3e5 + seed) * np.cos(y / 4e5 - seed))
    field = waves if kind == "smooth" else noise(seed)
    rows, cols = slice(4, 23), slice(16, 49)  # inside both grids
    lat, lon = TARGET.edges()
    box = (lat[rows.start], lat[rows.stop], lon[cols.start], lon[cols.stop])
    assert weights("area").coverage[rows, cols].min() > 0.9999
    # areas of the target on the sphere of the source
    area = TARGET.cell_area_km2 * (SOURCE.radius_m / 1e3 / EARTH_RADIUS_KM) ** 2
    found = (weights("area").apply(field) * area)[rows, cols].sum()
    assert abs(found / box_mass(field, box) - 1) < 5e-4


def test_every_source_cell_inside_gives_all_its_area():
    matrix = weights("area").matrix
    area = TARGET.cell_area_km2 * (SOURCE.radius_m / 1e3 / EARTH_RADIUS_KM) ** 2
    given_km2 = (matrix.T @ area.reshape(-1)).reshape(SOURCE.shape)
    lat, lon = SOURCE.mesh()
    inside = (lat > 18.5) & (lat < 53.5) & (lon > 74) & (lon < 135)
    np.testing.assert_allclose(given_km2[inside], SOURCE.cell_area_km2[inside], rtol=1e-6)


def test_shares_are_those_of_scattered_points():
    rng = np.random.default_rng(0)
    lat_edges, lon_edges = TARGET.edges()
    dense = weights("area").matrix
    for row, col in [(10, 20), (23, 30), (12, 46), (20, 10)]:
        sines = np.sin(np.deg2rad(lat_edges[row : row + 2]))
        lat = np.rad2deg(np.arcsin(rng.uniform(*sines, 40_000)))  # uniform in area
        lon = rng.uniform(*lon_edges[col : col + 2], 40_000)
        x, y = SOURCE.to_xy(lat, lon)
        i, j = (np.rint((a - axis[0]) / 45e3).astype(int) for a, axis in ((y, Y), (x, X)))
        inside = (i >= 0) & (i < Y.size) & (j >= 0) & (j < X.size)
        counted = np.bincount((i * X.size + j)[inside], minlength=X.size * Y.size) / 40_000
        found = dense[[row * TARGET.shape[1] + col]].toarray()[0]
        assert np.abs(found - counted).max() < 0.01
        assert abs(found.sum() - inside.mean()) < 0.01


# ---- orientation


@pytest.mark.parametrize("method", METHODS)
def test_orientation_of_target_and_source_does_not_matter(method):
    field, south_first = noise(), weights(method).apply(noise())
    flipped = Grid("north first", TARGET.lat[::-1], TARGET.lon)
    turned = METHODS[method](SOURCE, flipped).apply(field)
    np.testing.assert_allclose(turned[::-1], south_first, rtol=1e-9)
    from_north = METHODS[method](NORTH_FIRST, TARGET).apply(field[::-1])
    np.testing.assert_allclose(from_north, south_first, rtol=1e-9)


# ---- unknown cells


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_is_over_the_known_part_and_half_must_be_known(method):
    field = noise()
    field[np.random.default_rng(1).random(SOURCE.shape) < 0.4] = np.nan
    found = weights(method).apply(field)
    dense = weights(method).matrix.toarray()
    known = np.isfinite(field).reshape(-1)
    share = dense[:, known].sum(1)
    total = dense[:, known] @ field.reshape(-1)[known]
    expected = np.where(share >= MIN_KNOWN_SHARE, total / np.maximum(share, 1e-9), np.nan)
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-9)
    some = np.isfinite(expected)
    assert 0.1 < some.mean() < 0.4 and (share[~some] > 0).any()


def test_each_field_has_its_own_unknown_cells():
    fields = np.stack([noise(0), noise(1), noise(2)])
    fields[1, 10:40] = np.nan
    together = weights("area").apply(fields)
    for field, found in zip(fields, together, strict=True):
        np.testing.assert_array_equal(weights("area").apply(field), found)


def test_a_cell_half_outside_the_source_follows_the_same_rule():
    coverage = weights("area").coverage
    assert coverage.max() < 1 + 1e-4 and ((coverage > 0.05) & (coverage < 0.95)).sum() > 50
    found = weights("area").apply(noise())
    np.testing.assert_array_equal(np.isfinite(found), coverage >= MIN_KNOWN_SHARE)


def test_integers_do_not_become_integers():
    assert (
        weights("bilinear")
        .apply(np.arange(SOURCE.shape[0] * SOURCE.shape[1]).reshape(SOURCE.shape))
        .dtype
        == np.float64
    )


# ---- wind


def test_wind_along_the_grid_turns_to_east_and_north():
    angle = SOURCE.rotation_rad()
    u, v = rotate_wind(np.zeros(SOURCE.shape), np.ones(SOURCE.shape), angle)
    # West of the central meridian true north lies to the right of grid y: a wind along grid y
    # blows a little to the west.
    assert (u[:, 0] < -0.1).all() and (u[:, -1] > 0.1).all()
    assert np.abs(u[:, 39:41]).max() < 0.01
    np.testing.assert_allclose(np.hypot(u, v), 1)
    # the direction in which the place moves when it goes along grid y
    x, y = np.meshgrid(X, Y)
    lat, lon = SOURCE.to_latlon(x, y)
    lat_up, lon_up = SOURCE.to_latlon(x, y + 100)
    east, north = (lon_up - lon) * np.cos(np.deg2rad(lat)), lat_up - lat
    np.testing.assert_allclose(u, east / np.hypot(east, north), atol=1e-4)
    np.testing.assert_allclose(v, north / np.hypot(east, north), atol=1e-4)


def test_wind_at_the_western_border_turns_by_twenty_degrees():
    wide = LambertGrid("wide", np.array([-3.2e6, 0]), np.array([0, 1e6]), *CAQRA_PROJECTION)
    u, v = rotate_wind(np.zeros((2, 2)), np.full((2, 2), 5.0), wide.rotation_rad())
    assert 18 < np.rad2deg(np.arctan2(-u[1, 0], v[1, 0])) < 24
    np.testing.assert_allclose([u[:, 1], v[:, 1]], [[0, 0], [5, 5]], atol=1e-9)


# ---- cache


def test_weights_are_cached_and_read_back(tmp_path, monkeypatch):
    made = cached_weights("area", SOURCE, TARGET, tmp_path)
    assert made.digest == weights("area").digest
    monkeypatch.setitem(METHODS, "area", None)  # not computed again
    again = cached_weights("area", SOURCE, TARGET, tmp_path)
    assert again.digest == made.digest
    np.testing.assert_array_equal(again.apply(noise()), made.apply(noise()))
    with np.load(weights_file("area", SOURCE, TARGET, tmp_path), allow_pickle=False) as file:
        assert "weights" in file.files


@pytest.mark.parametrize("damage", ["byte", "truncated", "empty", "text"])
def test_a_damaged_cache_is_refused_and_stays(tmp_path, damage):
    cached_weights("bilinear", SOURCE, TARGET, tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {
        "byte": bytes(content),
        "truncated": bytes(content[: len(content) // 2]),
        "empty": b"",
        "text": b"not weights",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ChecksumError, match="delete this file"):
        cached_weights("bilinear", SOURCE, TARGET, tmp_path)
    assert path.read_bytes() == damaged[damage]


def test_changed_weights_with_a_sound_archive_are_refused(tmp_path):
    cached_weights("bilinear", SOURCE, TARGET, tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["weights"][5] += 1e-6
    np.savez(path, **arrays)
    with pytest.raises(ChecksumError, match="sha256"):
        cached_weights("bilinear", SOURCE, TARGET, tmp_path)


def test_weights_of_other_grids_are_refused(tmp_path):
    cached_weights("bilinear", SOURCE, TARGET, tmp_path)
    (path,) = tmp_path.iterdir()
    path.rename(weights_file("bilinear", SOURCE, FINER, tmp_path))
    with pytest.raises(ChecksumError, match="these grids"):
        cached_weights("bilinear", SOURCE, FINER, tmp_path)


def test_the_digest_depends_on_weights_and_grids():
    found = {
        weights("area").digest,
        weights("bilinear").digest,
        area_weights(NORTH_FIRST, TARGET).digest,
        bilinear_weights(SOURCE, GRIDS["beijing"]).digest,
    }
    assert len(found) == 4
