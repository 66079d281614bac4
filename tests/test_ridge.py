"""Ridge matrix: the formula on all pairs, its factors, and the file that holds them."""

from __future__ import annotations

import dataclasses
import re
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.cli import main
from aqnet.data.geography import china_static
from aqnet.grid import GRIDS, Grid, GridError
from aqnet.model import ridge
from aqnet.model.array_cache import CacheError, read_arrays, write_arrays
from aqnet.model.ridge import (
    RidgeSpec,
    factor_ridge,
    load_ridge,
    patch_elevation,
    ridge_errors,
    ridge_matrix,
    ridge_path,
    ridge_spec,
    save_ridge,
    verify_ridge,
)


def crossings(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[float, float]]:
    """Where the straight way crosses the lines between the ends, along its longer direction."""
    steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
    share = np.arange(1, steps) / max(steps, 1)
    return [(a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1])) for s in share]


def height(z: np.ndarray, r: float, c: float) -> float:
    """Bilinear terrain."""
    r0, c0 = min(int(r + 1e-9), z.shape[0] - 2), min(int(c + 1e-9), z.shape[1] - 2)
    y, x = r - r0, c - c0
    return ((1 - y) * ((1 - x) * z[r0, c0] + x * z[r0, c0 + 1])
            + y * ((1 - x) * z[r0 + 1, c0] + x * z[r0 + 1, c0 + 1]))  # fmt: skip


def one_by_one(z: np.ndarray) -> np.ndarray:
    """The formula, pair by pair."""
    places = [(r, c) for r in range(z.shape[0]) for c in range(z.shape[1])]
    out = np.zeros((z.size, z.size))
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            tops = [height(z, *p) for p in crossings(a, b)]
            out[i, j] = max(0.0, max(tops, default=-np.inf) - max(z[a], z[b]))
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(2, 7), st.integers(0, 99))
def test_the_matrix_is_the_formula(rows, columns, seed):
    z = np.random.default_rng(seed).uniform(0, 5000, (rows, columns))
    matrix = ridge_matrix(z)
    np.testing.assert_allclose(matrix, one_by_one(z), atol=2e-3)
    np.testing.assert_array_equal(matrix, matrix.T)


def test_raising_a_ridge_changes_exactly_the_pairs_whose_way_crosses_it():
    rng = np.random.default_rng(1)
    z = rng.uniform(0, 100, (9, 12))
    raised, column = z.copy(), 5
    raised[2:7, column] += 3000
    changed = np.abs(ridge_matrix(raised) - ridge_matrix(z)) > 1e-3
    places = [(r, c) for r in range(9) for c in range(12)]
    on_ridge = np.array([c == column and 2 <= r < 7 for r, c in places])
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            ways = crossings(a, b)
            over = any(abs(c - column) < 1 - 1e-9 and 1 < r < 7 for r, c in ways)
            ends = on_ridge[i] or on_ridge[j]
            if not ends:
                assert changed[i, j] == over, (a, b)
            elif changed[i, j]:  # an end that rises can only take away a climb beyond both ends
                assert ridge_matrix(raised)[i, j] <= ridge_matrix(z)[i, j] or over


def test_a_constant_added_to_all_elevations_changes_nothing():
    z = np.random.default_rng(0).uniform(0, 3000, (6, 8))
    np.testing.assert_allclose(ridge_matrix(z + 1000), ridge_matrix(z), atol=1e-3)


def test_two_basins_behind_a_ridge():
    z = np.zeros((5, 11))
    z[:, 5], z[:, 8:] = 2000, 500
    matrix = ridge_matrix(z).reshape(5, 11, 5, 11)
    assert matrix[2, 2, 2, 7] == 2000 and matrix[2, 2, 2, 9] == 1500
    assert matrix[2, 0, 2, 4] == 0 and matrix[2, 8, 2, 10] == 0
    assert matrix[2, 2, 2, 5] == 0  # the climb to the ridge itself is the elevation barrier's


# ---- factors


def test_enough_numbers_give_the_matrix():
    z = np.random.default_rng(0).uniform(0, 3000, (4, 5))
    matrix = ridge_matrix(z)
    left, right = factor_ridge(matrix, z.shape, 20, sweeps=30)
    assert np.abs(left @ right.T - matrix).max() < 20


def test_weights_make_near_pairs_better():
    z = patch_elevation(GRIDS["china_32x64"], 2)
    matrix = ridge_matrix(z)
    plain, near = (
        ridge_errors(matrix, *factor_ridge(matrix, z.shape, 8, p), z.shape) for p in (0.0, 2.0)
    )
    assert near["near_rms_m"] < 0.6 * plain["near_rms_m"]
    assert plain["relative"] < near["relative"] < 1.5 * plain["relative"]


def test_errors_are_of_all_and_of_near_pairs():
    z = np.random.default_rng(0).uniform(0, 3000, (6, 12))
    matrix = ridge_matrix(z)
    zero = np.zeros((72, 1), np.float32)
    errors = ridge_errors(matrix, zero, zero, z.shape)
    assert errors["relative"] == errors["near_relative"] == 1
    assert errors["largest_m"] == pytest.approx(matrix.max())
    r, c = np.divmod(np.arange(72), 12)
    near = np.hypot(r[:, None] - r, c[:, None] - c) <= 4
    assert errors["near_largest_m"] == pytest.approx(matrix[near].max())
    assert errors["near_rms_m"] == pytest.approx(np.sqrt((matrix[near] ** 2).mean()))


def test_flat_terrain_has_no_ridges():
    left, right = factor_ridge(ridge_matrix(np.full((4, 6), 100.0)), (4, 6), 3)
    assert not left.any() and not right.any()
    assert set(ridge_errors(np.zeros((24, 24)), left, right, (4, 6)).values()) == {0.0}


# ---- the file


@pytest.fixture(scope="module")
def spec() -> RidgeSpec:
    return ridge_spec(GRIDS["china_32x64"], rank=5)


@pytest.fixture
def path(spec, tmp_path):
    path = ridge_path(spec, tmp_path)
    save_ridge(path, spec)
    return path


def test_built_read_and_verified(spec, path):
    factors = load_ridge(path, spec)
    assert factors.left.shape == factors.right.shape == (16 * 32, 5)
    matrix = ridge_matrix(spec.elevation)
    expected = ridge_errors(matrix, factors.left, factors.right, spec.elevation.shape)
    assert factors.errors == pytest.approx(expected, rel=1e-5)
    assert verify_ridge(path).header == spec.header
    assert path.name == "china_32x64-p2-r5.safetensors"


def test_the_usual_place_holds_what_is_not_the_default(spec, tmp_path):
    unusual = dataclasses.replace(spec, near_power=1.0, sweeps=6)
    assert ridge_path(unusual, tmp_path).name == "china_32x64-p2-r5-w1-s6.safetensors"


def test_verification_of_another_terrain_or_grid_is_refused(spec, path):
    save_ridge(path, dataclasses.replace(spec, elevation=spec.elevation + 1))
    with pytest.raises(CacheError, match=r"\(elevation_sha256\)"):
        verify_ridge(path)
    save_ridge(path, dataclasses.replace(spec, grid="mars"))
    with pytest.raises(CacheError, match="unknown grid"):
        verify_ridge(path)


def test_building_again_gives_the_same_bytes(spec, path, tmp_path):
    save_ridge(tmp_path / "again", spec)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_another_terrain_or_rank_is_refused(spec, path):
    lifted = dataclasses.replace(spec, elevation=spec.elevation + 1)
    with pytest.raises(CacheError, match=r"\(elevation_sha256\)"):
        load_ridge(path, lifted)
    with pytest.raises(CacheError, match=r"\(rank\)(.|\n)*aqnet terrain build .*--rank 6"):
        load_ridge(path, dataclasses.replace(spec, rank=6))
    with pytest.raises(CacheError, match=r"\(grid_sha256\)"):
        load_ridge(path, dataclasses.replace(spec, grid_sha256="0" * 64))


def test_missing_and_damaged_files_name_the_command(spec, path):
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 4
    path.write_bytes(whole)
    with pytest.raises(CacheError, match=r"damaged(.|\n)*aqnet terrain build"):
        load_ridge(path, spec)
    path.unlink()
    with pytest.raises(CacheError, match=r"missing(.|\n)*aqnet terrain build --grid china_32x64"):
        load_ridge(path, spec)


def test_the_command_in_an_error_builds_what_was_asked_for(tmp_path):
    spec, path = ridge_spec(GRIDS["china_32x64"], 4, 3, 1.5, 6), tmp_path / "a b.safetensors"
    with pytest.raises(CacheError) as missing:
        load_ridge(path, spec)
    command = shlex.split(re.search("`aqnet (.*?)`", str(missing.value))[1])
    assert CliRunner().invoke(main, command).exit_code == 0
    assert load_ridge(path, spec).header == spec.header


def test_verification_computes_the_ridges_again(spec, path):
    header, arrays = read_arrays(path, "terrain", ridge.RIDGE_VERSION)
    arrays["left"] = arrays["left"] * 1.05
    write_arrays(path, "terrain", ridge.RIDGE_VERSION, header, arrays)
    load_ridge(path, spec)  # a well-formed file
    with pytest.raises(CacheError, match="not those of the terrain"):
        verify_ridge(path)


def test_verification_refuses_worse_factors_that_state_their_own_errors(spec, path):
    header, arrays = read_arrays(path, "terrain", ridge.RIDGE_VERSION)
    arrays["left"] = arrays["left"] * 0
    errors = ridge_errors(
        ridge_matrix(spec.elevation), arrays["left"], arrays["right"], spec.elevation.shape
    )
    arrays["errors"] = np.array([errors[name] for name in ridge.ERROR_NAMES])
    write_arrays(path, "terrain", ridge.RIDGE_VERSION, header, arrays)
    with pytest.raises(CacheError, match="not those of the terrain"):
        verify_ridge(path)


def test_a_grid_that_does_not_fit_is_an_error():
    with pytest.raises(GridError, match="patches of 5"):
        patch_elevation(GRIDS["china_32x64"], 5)


def test_gaps_in_the_terrain_are_an_error():
    south = Grid("south", np.linspace(10, 20, 8), np.linspace(100, 110, 8))
    with pytest.raises(GridError, match="without elevation"):
        patch_elevation(south, 2)


@pytest.mark.slow
def test_the_full_grid_of_patches_in_time():
    import time

    start = time.process_time()
    spec = ridge_spec(GRIDS["china"])
    matrix = ridge_matrix(spec.elevation)
    factors = factor_ridge(matrix, spec.elevation.shape, spec.rank)
    assert time.process_time() - start < 180  # seconds of one core
    errors = ridge_errors(matrix, *factors, spec.elevation.shape)
    assert errors["relative"] < 0.15 and errors["near_rms_m"] < 60


def test_other_terrain_than_the_real_one_is_verified_with_it(tmp_path):
    grid = GRIDS["china_32x64"]
    hills = np.random.default_rng(0).gamma(2.0, 500.0, grid.shape)
    spec = ridge_spec(grid, 4, 6, elevation=hills)
    save_ridge(tmp_path / "hills.safetensors", spec)
    verify_ridge(tmp_path / "hills.safetensors", hills)
    with pytest.raises(CacheError, match="--manifest NAME --patch-size 4 --rank 6 "):
        verify_ridge(tmp_path / "hills.safetensors")
    real = ridge_spec(grid, 4, 6)
    stored = china_static(grid).elevation.values
    assert ridge_spec(grid, 4, 6, elevation=stored).header == real.header
