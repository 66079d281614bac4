"""Paths of air through a smoothed wind field, and plumes that follow them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_case import inputs, network, shaken

from aqnet.grid import GRIDS, distance_km
from aqnet.model.attention import ModelError
from aqnet.model.biases import Plume
from aqnet.model.paths import WindField, path_points
from aqnet.model.physics_attention import PhysicsConfig, strength_parameters
from aqnet.model.position import departure_points, geometry, lat_lon
from aqnet.training.optimisation import group_of

CHINA = GRIDS["china_32x64"]
MIDDLE = math.radians((CHINA.lon[0] + CHINA.lon[-1]) / 2)
LAT, LON = (torch.tensor(x.ravel()) for x in CHINA.mesh())
PLACE = geometry(LAT, LON)
PATH = PhysicsConfig(plume_steps=3, plume_wind_factor=2.0, plume_turning_deg=10.0)


def uniform(u: float, v: float) -> torch.Tensor:
    return torch.tensor([u, v])[None, :, None, None].expand(1, 2, *CHINA.shape).clone()


def points(wind, hours, turning=0.0, steps=4, smooth_km=0.0):
    flow = WindField(CHINA, MIDDLE, smooth_km)(wind)
    tau = torch.tensor([[float(hours)]]).double()
    return path_points(PLACE, flow, tau, torch.tensor([turning]).double(), steps)[0, 0]


def degrees(found):
    lat, lon = lat_lon(PLACE.centre[0], found / found.norm(dim=-1, keepdim=True))
    return np.rad2deg(lat.numpy()), np.rad2deg(lon.numpy() + PLACE.centre[1])


# ---- the wind field


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), width=st.floats(0, 300), share=st.floats(0.05, 1))
def test_a_mean_of_known_winds_stays_between_them(seed, width, share):
    rng = np.random.default_rng(seed)
    wind = torch.tensor(rng.normal(0, 5, (2, 2, *CHINA.shape)), dtype=torch.float32)
    gone = torch.tensor(rng.random((2, *CHINA.shape)) > share)
    wind = torch.where(gone[:, None], torch.nan, wind)
    smooth = WindField(CHINA, MIDDLE, width)(wind).wind
    assert smooth.isfinite().all()
    known = torch.nan_to_num(wind)
    assert smooth.amax() <= known.amax().clamp_min(0) + 1e-4
    assert smooth.amin() >= known.amin().clamp_max(0) - 1e-4


def test_a_wind_of_which_one_part_is_missing_is_not_known():
    wind = uniform(5.0, 1.0)
    wind[0, 1, 10, 10] = torch.nan
    smooth = WindField(CHINA, MIDDLE, 0.0)(wind).wind
    assert not smooth[0, :, 10, 10].any() and (smooth[0, 0] == 5).sum() == smooth[0, 0].numel() - 1


@pytest.mark.parametrize("flip", [False, True])
def test_rows_may_run_either_way(flip):
    grid = CHINA
    if flip:
        grid = type(CHINA)("flipped", CHINA.lat[::-1].copy(), CHINA.lon)
    wind = torch.zeros(1, 2, *grid.shape)
    wind[0, 0] = torch.tensor(np.broadcast_to(grid.lat[:, None] / 10, grid.shape).copy())
    tau, still = torch.tensor([[1.0]]).double(), torch.zeros(1).double()
    found = path_points(PLACE, WindField(grid, MIDDLE, 0.0)(wind), tau, still, 1)[0, 0]
    lon = degrees(found)[1]
    inner = (LON > 90) & (LON < 125)
    east = np.deg2rad(LON.numpy() - lon) * 6371 * np.cos(np.deg2rad(LAT.numpy()))
    np.testing.assert_allclose(east[inner], LAT[inner] / 10 * 3.6, rtol=1e-4)


# ---- paths


@settings(max_examples=20, deadline=None)
@given(u=st.floats(-8, 8), v=st.floats(-8, 8), hours=st.floats(0.5, 12))
def test_a_uniform_wind_takes_air_as_far_as_it_says(u, v, hours):
    lat, lon = degrees(points(uniform(u, v), hours, steps=6))
    inner = (LAT.numpy() - 36) ** 2 / 64 + (LON.numpy() - 105) ** 2 / 200 < 1
    far = distance_km(LAT.numpy(), LON.numpy(), lat, lon)[inner]
    np.testing.assert_allclose(far, math.hypot(u, v) * hours * 3.6, rtol=0.02, atol=0.5)


@settings(max_examples=20, deadline=None)
@given(u=st.floats(-8, 8), v=st.floats(-8, 8), turn=st.floats(-60, 60))
def test_turning_the_wind_is_turning_the_wind(u, v, turn):
    a = math.radians(turn)
    turned = (u * math.cos(a) + v * math.sin(a), v * math.cos(a) - u * math.sin(a))
    one, other = points(uniform(u, v), 9, a), points(uniform(*turned), 9)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_paths_end_at_the_border_of_the_domain():
    lat, lon = degrees(points(uniform(30.0, -30.0), 120, steps=5))
    assert lon.min() >= LON.min() - 1e-6 and lat.max() <= LAT.max() + 1e-6


def test_a_single_step_is_nearly_the_straight_way():
    wind = uniform(3.0, -4.0)
    straight = departure_points(
        PLACE, wind.flatten(2).transpose(1, 2).double(), torch.tensor([[6.0]]).double()
    )[0, 0]
    inner = (LAT - 36).abs() < 12
    assert (points(wind, 6, steps=1) - straight)[inner].norm(dim=-1).max() < 3  # km of 108


# ---- in the network


def test_a_network_that_follows_paths_learns_their_angle():
    model = network(physics=PATH).train()
    model(**inputs()).square().sum().backward()
    names = [name for name in strength_parameters(model) if "turning" in name]
    assert len(names) == 2  # a block each
    for name in names:
        owner = model.get_submodule(name.rpartition(".")[0])
        assert owner.raw.grad.abs().min() > 0 and group_of(name, owner) == "strengths"


def test_the_angle_starts_where_it_is_told():
    start = Plume(3, steps=2, turning_deg=12.0).turning()
    torch.testing.assert_close(start.rad2deg(), torch.full((3,), 12.0))


def test_a_factor_of_zero_is_distance_alone():
    still = PhysicsConfig(plume_wind_factor=0.0, elevation="off")
    given = inputs()
    model = shaken(network(physics=still))
    calm = model(**given | {"wind": torch.zeros_like(given["wind"])})
    assert torch.equal(model(**given), calm)
    moving = shaken(network(physics=PhysicsConfig(elevation="off")))
    assert not torch.allclose(moving(**given), calm, atol=1e-6)


def test_windows_have_the_wind_field_of_their_sample():
    from aqnet.model.config import ScanConfig

    given = inputs()
    model = shaken(network(physics=PATH, scan=ScanConfig(window=8)))
    together = model(**given)
    for b in range(2):
        alone = model(**{name: x[b : b + 1] for name, x in given.items()})
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-5, rtol=1e-5)


def test_fused_and_dense_attention_agree_on_paths():
    given = inputs()
    models = [
        shaken(network(physics=PATH.model_copy(update={"method": method})))
        for method in ("fused", "dense")
    ]
    torch.testing.assert_close(*(model(**given) for model in models), atol=2e-5, rtol=1e-4)


def test_a_path_without_a_wind_field_is_refused():
    from aqnet.model.check_attention import Sizes, made_up_context

    plume = Plume(2, steps=2)
    with pytest.raises(ModelError, match="a path needs the wind field"):
        plume.rows(made_up_context(Sizes(1, 2, 12, 8)))


def test_a_straight_plume_does_not_turn():
    with pytest.raises(ValueError, match="plume_turning_deg needs plume_steps"):
        PhysicsConfig(plume_turning_deg=12.0)
