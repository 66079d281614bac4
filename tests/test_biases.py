"""Biases of terrain and wind: physical sense on the dense form, positions on the sphere."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from aqnet.grid import EARTH_RADIUS_KM, distance_km
from aqnet.model.attention import ModelError, PhysicalContext
from aqnet.model.biases import (
    ElevationBarrier,
    Plume,
    RidgeBarrier,
    Strength,
    elevation_rows,
    plume_features,
    plume_rows,
    ridge_features,
    ridge_rows,
)
from aqnet.model.check_attention import Sizes, made_up_context
from aqnet.model.position import (
    departure_points,
    geometry,
    lat_lon,
    relative_bucket,
    rotary_angles,
    rotate,
)
from aqnet.model.sorted_attention import fused_attention

torch.set_num_threads(1)


@dataclasses.dataclass(frozen=True)
class Placed(PhysicalContext):
    """A context that remembers latitudes and longitudes."""

    lat: torch.Tensor | None = None
    lon: torch.Tensor | None = None


def placed(lat, lon, elevation, wind) -> Placed:
    return Placed(geometry(lat, lon), elevation, wind, lat=lat, lon=lon)


def degrees(place, up) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of unit vectors in the frame of a geometry."""
    lat, lon = lat_lon(place.centre[0], up)
    return np.rad2deg(lat.numpy()), np.rad2deg(lon.numpy() + place.centre[1])


def china(rows: int = 24, columns: int = 40, wind=(0.0, 0.0)) -> Placed:
    """Tokens on a regular grid, uniform wind, terrain of waves."""
    lat, lon = torch.meshgrid(
        torch.linspace(18, 54, rows).double(), torch.linspace(74, 135, columns).double(),
        indexing="ij",
    )  # fmt: skip
    lat, lon = lat.flatten(), lon.flatten()
    z = 2000 + 2000 * torch.sin(lat / 3) * torch.cos(lon / 5)
    uniform = torch.tensor(wind).double().expand(1, len(lat), 2)
    return placed(lat, lon, z, uniform)


def at(context: Placed, lat: float, lon: float) -> int:
    return int(((context.lat - lat) ** 2 + (context.lon - lon) ** 2).argmin())


def to_all(context: Placed, lat: float, lon: float) -> tuple:
    """Arguments of `distance_km` from one place to all tokens."""
    return lat, lon, context.lat.numpy(), context.lon.numpy()


# ---- positions


def test_positions_and_directions_on_the_sphere():
    place, context = geometry(china().lat, china().lon), china()
    exact = EARTH_RADIUS_KM * (place.up - torch.tensor([1.0, 0, 0]).double())
    assert (place.centred - exact).abs().max() <= 0.0625
    chord = (exact[7] - exact).norm(dim=-1).numpy()
    arc = 2 * EARTH_RADIUS_KM * np.arcsin(chord / (2 * EARTH_RADIUS_KM))
    expected = distance_km(*to_all(context, context.lat[7].item(), context.lon[7].item()))
    np.testing.assert_allclose(arc, expected, atol=1e-6)
    # a step east is along `east`, a step north along `north`
    step = 1e-6
    east = geometry(
        torch.full((2,), 30.0).double(), torch.tensor([100.0, 100.0 + step], dtype=torch.float64)
    )
    moved = (east.up[1] - east.up[0]) / np.deg2rad(step) / math.cos(np.deg2rad(30))
    torch.testing.assert_close(moved, east.east[0], atol=1e-5, rtol=0)
    north = geometry(
        torch.tensor([30.0, 30.0 + step], dtype=torch.float64), torch.tensor([100.0, 100.0])
    )
    moved = (north.up[1] - north.up[0]) / np.deg2rad(step)
    torch.testing.assert_close(moved, north.north[0], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0, 359), st.floats(0.1, 20), st.floats(0.5, 12),
    st.floats(25, 45), st.floats(90, 120),
)  # fmt: skip
def test_the_departure_point_is_upwind_by_speed_times_time(bearing, speed, hours, lat, lon):
    context = china()
    i = at(context, lat, lon)
    angle = math.radians(bearing)
    wind = speed * torch.tensor([math.sin(angle), math.cos(angle)]).double().expand(1, 960, 2)
    points = departure_points(context.geometry, wind, torch.tensor([[hours]]).double())
    y, x = degrees(context.geometry, points[0, 0, i] / EARTH_RADIUS_KM)
    away = distance_km(context.lat[i].item(), context.lon[i].item(), y, x)
    np.testing.assert_allclose(away, 3.6 * speed * hours, rtol=1e-6)
    back = math.degrees(math.atan2(
        math.sin(math.radians(x - float(context.lon[i]))) * math.cos(math.radians(y)),
        math.cos(math.radians(float(context.lat[i]))) * math.sin(math.radians(y))
        - math.sin(math.radians(float(context.lat[i]))) * math.cos(math.radians(y))
        * math.cos(math.radians(x - float(context.lon[i]))),
    ))  # fmt: skip
    assert abs((back - bearing) % 360 - 180) < 1e-3  # initial bearing of the great circle


def test_calm_air_stays_where_it_is_and_its_gradient_is_finite():
    context, tau = china(), torch.tensor([[6.0]]).double().requires_grad_()
    points = departure_points(context.geometry, context.wind, tau)
    torch.testing.assert_close(
        points[0, 0], context.geometry.up * EARTH_RADIUS_KM, atol=1e-6, rtol=0
    )
    points.sum().backward()
    assert torch.isfinite(tau.grad).all()


def test_rotary_position_depends_on_the_way_only():
    context = china()
    angles = rotary_angles(context.geometry, 24, 130.0, 20000.0)
    q, k = torch.randn(2, 1, 24).double()
    score = rotate(q.expand(960, -1), *angles) @ rotate(k.expand(960, -1), *angles).T
    one, other = 5 * 40 + 3, 14 * 40 + 30
    step = 2 * 40 + 4
    torch.testing.assert_close(score[one, one + step], score[other, other + step])
    torch.testing.assert_close(score.diagonal(), (q * k).sum().expand(960))


@pytest.mark.parametrize("size", [8, 9, 10, 96])
def test_rotation_keeps_lengths_and_types(size):
    angles = rotary_angles(china().geometry, size, 130.0, 20000.0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.randn(2, 3, 960, size, dtype=dtype)
        turned = rotate(x, *angles)
        assert turned.dtype == dtype and turned.shape == x.shape
        norms = (y.float().norm(dim=-1) for y in (turned, x))
        torch.testing.assert_close(*norms, atol=2e-2, rtol=2e-2)


def test_buckets_are_those_of_t5():
    # bidirectional, 32 buckets, largest distance 128; from the published formula, by hand
    expected = {0: 0, 1: 17, -1: 1, 7: 23, -7: 7, 8: 24, -8: 8, 11: 24, 12: 25, 16: 26, 23: 27,
                32: 28, 64: 30, 127: 31, -127: 15, 4000: 31}  # fmt: skip
    offsets = torch.tensor(list(expected)).float()
    assert relative_bucket(offsets).tolist() == list(expected.values())


# ---- elevation barrier


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-500, 9000, width=32), min_size=2, max_size=20), st.floats(0, 10))
def test_the_elevation_barrier_is_its_formula(heights, alpha):
    z = torch.tensor(heights).double()
    n = len(z)
    context = placed(torch.zeros(n), torch.zeros(n), z, torch.zeros(1, n, 2))
    strength = torch.tensor([alpha], dtype=torch.float64)
    receiver = elevation_rows(context, strength, "receiver_uphill")[0, 0]
    source = elevation_rows(context, strength, "source_uphill")[0, 0]
    for i in range(n):
        for j in range(n):
            climb = -alpha * max(0.0, float(z[i] - z[j])) / 1000
            assert abs(receiver[i, j] - climb) < 1e-9
            assert abs(source[j, i] - climb) < 1e-9


def test_a_constant_added_to_all_elevations_changes_nothing():
    context = made_up_context(Sizes(tokens=60))
    core = ElevationBarrier(2)
    for dtype in (torch.float64, torch.float32):
        core = core.to(dtype)
        raised = dataclasses.replace(context, elevation=context.elevation + 1234.5)
        torch.testing.assert_close(core.rows(raised), core.rows(context), atol=1e-6, rtol=0)


def test_metres_are_meant():
    n = 2
    context = placed(
        torch.zeros(n), torch.zeros(n), torch.tensor([3000.0, 0.0]), torch.zeros(1, n, 2)
    )
    rows = elevation_rows(context, torch.ones(1), "receiver_uphill")[0, 0]
    torch.testing.assert_close(rows, torch.tensor([[0.0, -3.0], [0.0, 0.0]]))


def test_unknown_direction_and_start_are_errors():
    with pytest.raises(ModelError, match="receiver_uphill"):
        ElevationBarrier(2, "uphill")
    with pytest.raises(ModelError, match="'learned', 'lead'"):
        Plume(2, "fixed")
    for start in ((), (0.0,), (1.0, -1.0)):
        with pytest.raises(ModelError, match="positive"):
            Strength(2, start)


# ---- plume


def test_the_plume_is_a_gaussian_of_the_chord():
    context = china(wind=(4.0, -3.0))
    gamma, tau = torch.tensor([[1 / (2 * 150.0**2)]]).double(), torch.tensor([[8.0]]).double()
    rows = plume_rows(context, gamma, tau)[0, 0]
    points = departure_points(context.geometry, context.wind, tau)[0, 0] / EARTH_RADIUS_KM
    y, x = degrees(context.geometry, points)
    i = at(context, 35, 105)
    arc = distance_km(*to_all(context, y[i], x[i]))
    chord = 2 * EARTH_RADIUS_KM * np.sin(arc / 2 / EARTH_RADIUS_KM)
    # places are rounded to 1/8 km
    np.testing.assert_allclose(rows[i], -gamma.item() * chord**2, rtol=1e-3, atol=1e-2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from([63.0, 300.0, 3000.0]), st.floats(0.1, 60))
def test_features_are_the_rows_up_to_a_constant_of_the_row(seed, sigma, hours):
    context = made_up_context(Sizes(tokens=50, batch=2), seed)
    gamma, tau = (torch.tensor([[x]]).double() for x in (1 / (2 * sigma**2), hours))
    fq, fk = plume_features(context, gamma, tau)
    difference = fq @ fk.transpose(-1, -2) - plume_rows(context, gamma, tau)
    spread = difference.amax(-1) - difference.amin(-1)
    assert spread.max() < 1e-8


def test_turning_the_wind_turns_the_footprint():
    # tokens on rings around a receiver, a quarter turn apart: the footprint moves to the next ones
    bearing = torch.arange(0, 360, 15).double().deg2rad()
    reach = torch.tensor([150.0, 300, 450, 600]).double() / EARTH_RADIUS_KM
    b, r = (x.flatten() for x in torch.meshgrid(bearing, reach, indexing="ij"))
    lat0, lon0 = math.radians(34), math.radians(105)
    lat = torch.asin(math.sin(lat0) * r.cos() + math.cos(lat0) * r.sin() * b.cos())
    lon = lon0 + torch.atan2(
        b.sin() * r.sin() * math.cos(lat0), r.cos() - math.sin(lat0) * lat.sin()
    )
    lat = torch.cat([torch.tensor([lat0]).double(), lat]).rad2deg()
    lon = torch.cat([torch.tensor([lon0]).double(), lon]).rad2deg()
    turned = torch.roll(torch.arange(96).view(24, 4), 6, dims=0).flatten() + 1  # by 90 degrees
    plume, weights = Plume(4).double(), []
    for wind in ((7.0, 2.0), (2.0, -7.0)):  # the second is the first turned clockwise
        uniform = torch.tensor(wind).double().expand(1, 97, 2)
        context = placed(lat, lon, torch.zeros(97), uniform)
        rows = plume.rows(context, torch.tensor([0]))[0, :, 0].detach()
        weights.append(torch.softmax(rows, -1))
    torch.testing.assert_close(weights[1][:, 1:], weights[0][:, turned], atol=2e-3, rtol=0)
    assert (weights[1] - weights[0]).abs().max() > 0.1


def test_a_longer_lead_looks_further_upwind_and_never_out_of_the_domain():
    leads = torch.tensor([6.0, 12, 24, 48, 96, 400]).double()
    context = dataclasses.replace(china(wind=(9.0, 5.0)), lead_time_h=leads)
    context = dataclasses.replace(context, wind=context.wind.expand(6, -1, -1))
    plume = Plume(3, "lead", lead_share=(0.1, 0.5, 1.0)).double()
    from aqnet.model.biases import plume_scales

    _, tau = plume_scales(plume, context)
    assert (tau.diff(dim=0) > 0).all() and (tau < plume.cap_h).all()
    points = departure_points(context.geometry, context.wind, tau.detach()) / EARTH_RADIUS_KM
    lat, lon = degrees(context.geometry, points)
    assert lat.min() >= 18 - 1e-6 and lat.max() <= 54 + 1e-6
    assert lon.min() >= 74 - 1e-6 and lon.max() <= 135 + 1e-6
    i = at(context, 45, 120)
    away = distance_km(context.lat[i].item(), context.lon[i].item(), lat[..., i], lon[..., i])
    assert (np.diff(away, axis=0) > -1e-6).all() and (np.diff(away[:4], axis=0) > 0).all()
    weights = torch.softmax(plume.rows(context, torch.tensor([i])), -1)[:, :, 0].detach()
    east = (weights * context.lon).sum(-1)
    assert (east.diff(dim=0) < 1e-6).all() and (east[0] > east[-1]).all()


def test_a_longer_travel_time_makes_the_plume_wider():
    from aqnet.model.biases import plume_scales

    short, long = (Plume(1, tau_h=(t,), diffusivity_m2_s=(1e5,)) for t in (3.0, 30.0))
    context = china()
    assert plume_scales(long, context)[0] < plume_scales(short, context)[0]
    # sigma^2 = 80^2 + 2 K tau, K = 1e5 m2/s = 360 km2/h
    gamma = plume_scales(short, context)[0]
    torch.testing.assert_close(gamma, torch.tensor([[1 / (2 * (6400 + 2 * 360 * 3.0))]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_strengths_of_zero_give_plain_attention_and_still_have_gradients(dtype):
    context = made_up_context(Sizes(tokens=40))
    zero = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
    tau = torch.full((1, 2), 6.0, dtype=dtype)
    assert not plume_rows(context, zero, tau).any()
    assert not elevation_rows(context, zero[0], "receiver_uphill").any()
    assert not ridge_rows(context, zero[0]).any()
    features = [plume_features(context, zero, tau), ridge_features(context, zero[0])]
    q, k, v = torch.randn(3, 1, 2, 40, 16, dtype=dtype)
    height = -context.elevation / 1000
    have = fused_attention(q, k, v, features, height, zero[0])
    want = scaled_dot_product_attention(q, k, v)
    assert (have - want).abs().max() < (1e-14 if dtype == torch.float64 else 2e-6)
    (slope,) = torch.autograd.grad(have.sum(), zero)
    assert torch.isfinite(slope).all() and (slope != 0).all()


# ---- ridge barrier


def test_ridge_features_are_its_rows():
    context = made_up_context(Sizes(tokens=30, rank=5))
    alpha = torch.tensor([0.3, 2.0]).double()
    fq, fk = ridge_features(context, alpha)
    rows = ridge_rows(context, alpha)
    torch.testing.assert_close(fq @ fk.transpose(-1, -2), rows)
    left, right = context.ridge
    torch.testing.assert_close(rows[0, 1], -2.0 * (left @ right.T) / 1000)
    torch.testing.assert_close(ridge_rows(context, alpha, torch.tensor([3])), rows[:, :, 3:4])


def test_a_missing_ridge_matrix_is_an_error():
    with pytest.raises(ModelError, match="aqnet terrain build"):
        RidgeBarrier(2).rows(china())
