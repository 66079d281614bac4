"""Transport and terrain of the twin: conservation, positivity, direction, blocking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from aqnet.data.twin.terrain_flow import CellGeometry, TerrainFlow, face_fluxes
from aqnet.data.twin.transport import Transport

ROWS, COLS = 20, 30
HOUR = 3600.0


@pytest.fixture(scope="module")
def geometry() -> CellGeometry:
    return CellGeometry(np.linspace(20, 50, ROWS + 1), np.linspace(80, 130, COLS + 1))


def random_psi(seed: int, speed: float, closed: bool = False) -> np.ndarray:
    """Streamfunction of a flow of some m/s (a cell is 160 km), m2/s."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((ROWS + 1, COLS + 1)), 2.5)
    psi = noise / np.abs(np.diff(noise, axis=0)).std() * speed * 1.6e5
    if closed:
        psi[[0, -1]] = 0
        psi[:, [0, -1]] = 0
    return psi


def blob(geometry: CellGeometry, row: int = 10, col: int = 15) -> np.ndarray:
    y, x = np.mgrid[:ROWS, :COLS]
    shape = np.exp(-((y - row) ** 2 + (x - col) ** 2) / 6.0)
    return np.stack([shape, 3.0 * (np.hypot(y - row, x - col) < 3)]).astype(np.float32)


def total(amount: np.ndarray, geometry: CellGeometry) -> np.ndarray:
    return (amount.astype(np.float64) * geometry.area).sum((1, 2))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), speed=st.floats(0.5, 25.0))
def test_a_uniform_field_stays_uniform_in_any_flow(seed, speed):
    geometry = CellGeometry(np.linspace(20, 50, ROWS + 1), np.linspace(80, 130, COLS + 1))
    transport = Transport(geometry, np.array([7.0]))
    amount = np.full((1, ROWS, COLS), 7.0, np.float32)
    flux = face_fluxes(random_psi(seed, speed))
    for _ in range(6):
        transport.advect(amount, *flux, HOUR)
    np.testing.assert_allclose(amount, 7.0, rtol=2e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), speed=st.floats(0.5, 25.0))
def test_amounts_stay_positive_and_within_what_there_was(seed, speed):
    geometry = CellGeometry(np.linspace(20, 50, ROWS + 1), np.linspace(80, 130, COLS + 1))
    transport = Transport(geometry, np.zeros(2))
    amount = blob(geometry)
    most = amount.max((1, 2))
    flux = face_fluxes(random_psi(seed, speed))
    for _ in range(6):
        transport.advect(amount, *flux, HOUR)
    assert amount.min() >= 0
    assert (amount.max((1, 2)) <= most * 1.02).all()


def test_a_closed_domain_loses_nothing_in_a_day(geometry):
    transport, amount = Transport(geometry, np.zeros(2)), blob(geometry)
    before = total(amount, geometry)
    flux = face_fluxes(random_psi(3, 12.0, closed=True))
    came_in = sum(transport.advect(amount, *flux, HOUR) for _ in range(24))
    assert np.abs(came_in).max() == 0
    np.testing.assert_allclose(total(amount, geometry), before, rtol=1e-6)


def test_what_changes_in_an_open_domain_came_through_its_border(geometry):
    transport, amount = Transport(geometry, np.array([0.5, 0.0])), blob(geometry)
    before = total(amount, geometry)
    flux = face_fluxes(random_psi(4, 12.0))
    came_in = sum(transport.advect(amount, *flux, HOUR) for _ in range(24))
    change = total(amount, geometry) - before
    assert np.abs(change / before).max() > 0.05, "nothing passed the border: no test"
    np.testing.assert_allclose(change, came_in, atol=1e-6 * before.max())


@pytest.mark.parametrize(("east", "north"), [(8.0, 0.0), (-8.0, 0.0), (0.0, 8.0), (0.0, -8.0)])
def test_wind_carries_downwind_at_its_speed(geometry, east, north):
    transport, amount = Transport(geometry, np.zeros(2)), blob(geometry)
    lat, lon = np.deg2rad(geometry.lat_edges)[:, None], np.deg2rad(geometry.lon_edges)[None]
    metres = 6.371e6
    # u = -dpsi/dy; v = dpsi/dx, with psi linear in longitude the wind grows as 1 / cos(lat)
    psi = -east * metres * lat + north * metres * np.cos(np.deg2rad(35)) * lon
    flux = face_fluxes(np.broadcast_to(psi, (ROWS + 1, COLS + 1)))

    def centre():
        weight = amount[0] * geometry.area
        return [np.average(np.broadcast_to(axis, weight.shape), weights=weight)
                for axis in (geometry.lat[:, None], geometry.lon[None])]  # fmt: skip

    start = centre()
    for _ in range(24):
        transport.advect(amount, *flux, HOUR)
    moved_lat, moved_lon = np.subtract(centre(), start)
    km_per_degree = 111.2
    assert moved_lat * km_per_degree == pytest.approx(north * 86.4, abs=45)
    expected_lon = east * 86.4 / (km_per_degree * np.cos(np.deg2rad(start[0])))
    assert moved_lon == pytest.approx(expected_lon, abs=0.35)


def test_diffusion_conserves_smooths_and_stops_at_closed_faces(geometry):
    transport, amount = Transport(geometry, np.zeros(2)), blob(geometry)
    before = total(amount, geometry)
    x, y = np.full((ROWS, COLS + 1), 3e5), np.full((ROWS + 1, COLS), 3e5)
    x[:, 18] = 0  # a wall along the whole column
    east_before = total(amount[..., 18:], _part(geometry, 18))
    for _ in range(24):
        transport.diffuse(amount, x, y, HOUR)
    np.testing.assert_allclose(total(amount, geometry), before, rtol=1e-6)
    np.testing.assert_allclose(total(amount[..., 18:], _part(geometry, 18)), east_before, rtol=1e-5)
    assert amount.min() >= 0
    assert amount[0].max() < 0.8


def _part(geometry: CellGeometry, first: int) -> CellGeometry:
    return CellGeometry(geometry.lat_edges, geometry.lon_edges[first:])


def ridge(height: float) -> np.ndarray:
    """A north-south wall with a gap in its northern quarter."""
    terrain = np.zeros((ROWS, COLS))
    terrain[:15, 14:16] = height
    return terrain


def westerly(geometry: CellGeometry) -> np.ndarray:
    lat = np.deg2rad(geometry.lat_edges)[:, None]
    return np.broadcast_to(-10.0 * 6.371e6 * lat, (ROWS + 1, COLS + 1)).copy()


def test_a_ridge_turns_the_flow_into_its_gap(geometry):
    psi = westerly(geometry)
    flow = TerrainFlow(geometry, ridge(2000.0), 30.0, 500.0, 160e3)
    free, blocked = face_fluxes(psi)[0], face_fluxes(psi + flow.correction(psi))[0]
    over, through = blocked[2:13, 14] / free[2:13, 14], blocked[17:, 14] / free[17:, 14]
    assert over.max() < 0.6
    assert through.mean() > 1.15
    x, y = face_fluxes(psi + flow.correction(psi))
    divergence = np.diff(x, axis=1) + np.diff(y, axis=0)
    assert np.abs(divergence).max() < 1e-9 * np.abs(x).max()


def test_without_resistance_or_terrain_nothing_is_blocked(geometry):
    psi = westerly(geometry)
    open_flow = TerrainFlow(geometry, ridge(2000.0), 0.0, 500.0, 160e3)
    flat_flow = TerrainFlow(geometry, ridge(0.0), 30.0, 500.0, 160e3)
    assert not open_flow.correction(psi).any()
    np.testing.assert_allclose(flat_flow.correction(psi), 0, atol=1e-6 * np.abs(psi).max())


def test_the_streamfunction_of_a_rotational_wind_is_found(geometry):
    psi = random_psi(5, 8.0)
    flow = TerrainFlow(geometry, ridge(0.0), 30.0, 500.0, 160e3)
    x, y = face_fluxes(psi)
    u = 0.5 * (x[:, 1:] + x[:, :-1]) / geometry.dy
    v = 0.5 * (y[1:] + y[:-1]) / geometry.dx
    found = face_fluxes(flow.fit(u, v))
    inner = (slice(2, -2), slice(2, -2))
    error = (found[0] - x)[inner].std() / x[inner].std()
    assert error < 0.25  # the means over two faces that went in are smoother than psi
