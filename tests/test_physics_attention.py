"""Physics attention: every bias, alone and together, against the dense float64 oracle."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import scaled_dot_product_attention

from aqnet.model import physics_attention as physics
from aqnet.model import sorted_attention
from aqnet.model.attention import (
    ModelError,
    PhysicalContext,
    PlainAttention,
    SelfAttention,
    WindowedAttention,
    pick_tokens,
    take_tokens,
)
from aqnet.model.check_attention import (
    NARROW_KM,
    Sizes,
    check_cases,
    errors_against_oracle,
    made_up_context,
    on_device,
    tolerance,
)
from aqnet.model.physics_attention import (
    PhysicsAttention,
    PhysicsConfig,
    footprint,
    parameter_groups,
    strength_parameters,
)
from aqnet.model.position import Geometry, geometry, lat_lon
from aqnet.model.sorted_attention import dense_attention

torch.set_num_threads(1)
FLOAT = (torch.float64, torch.float32, torch.bfloat16)
configs = st.builds(
    PhysicsConfig,
    elevation=st.sampled_from(["off", "receiver_uphill", "source_uphill"]),
    plume=st.sampled_from(["off", "learned", "lead"]),
    ridge=st.booleans(),
    position=st.sampled_from(["none", "rotary"]),
    elevation_start=st.sampled_from([(1.0,), (0.01, 5.0)]),
    plume_sigma_km=st.sampled_from([(80.0, 125.0, 200.0, 900.0), (900.0, 2000.0)]),
)
shapes = st.builds(
    Sizes,
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    tokens=st.sampled_from([1, 2, 3, 17, 64, 101]),
    head_dim=st.sampled_from([8, 10, 24, 96, 128]),
    rank=st.integers(1, 9),
)
terrains = st.sampled_from(["random", "flat", "ties", "extreme"])


def degrees(place: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Latitudes and longitudes of tokens."""
    lat, lon = lat_lon(place.centre[0], place.up)
    return lat.rad2deg(), (lon + place.centre[1]).rad2deg()


def terrain(context: PhysicalContext, kind: str) -> PhysicalContext:
    """Elevation of a kind: as made up, all equal, few values, or a factor beyond the earth's."""
    z = context.elevation
    kinds = {"random": z, "flat": 0 * z + 700, "ties": (z / 2000).round() * 2000, "extreme": 20 * z}
    return dataclasses.replace(context, elevation=kinds[kind])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(configs, shapes, terrains, st.sampled_from(FLOAT), st.integers(0, 99))
def test_outputs_and_all_gradients_are_those_of_the_oracle(config, sizes, kind, dtype, seed):
    context = terrain(made_up_context(sizes, seed), kind)
    errors = errors_against_oracle(config, sizes, dtype, seed=seed, context=context)
    assert max(errors.values()) <= tolerance(dtype, full_domain=True), errors


@settings(max_examples=40, deadline=None, derandomize=True)
@given(configs, st.integers(0, 99), st.integers(1, 60))
def test_small_biases_in_float32(config, seed, tokens):
    # within 300 km and with wide plumes no bias exceeds 10 nats
    config = config.model_copy(
        update={"plume_sigma_km": (300.0,), "elevation_start": (0.5,), "ridge_start": (0.1,)}
    )
    sizes = Sizes(tokens=tokens, batch=2)
    wide = made_up_context(sizes, seed)
    lat, lon = degrees(wide.geometry)
    place = geometry(36 + (lat - 36) / 15, 104 + (lon - 104) / 20)
    near = dataclasses.replace(wide, geometry=place, wind=wide.wind / 5)
    oracle = PhysicsAttention(4, config).double()
    assert torch.as_tensor(oracle.rows(near)).abs().max() < 10
    errors = errors_against_oracle(config, sizes, torch.float32, seed=seed, context=near)
    assert max(errors.values()) <= tolerance(torch.float32, full_domain=False), errors


@pytest.mark.parametrize("dtype", [*FLOAT, torch.float16])
def test_the_check_for_a_users_device(dtype):
    rows = check_cases("cpu", "cpu", dtype, Sizes(tokens=301))
    assert len(rows) == 7
    assert [row for row in rows if row[1] > row[2]] == []


def narrow(monkeypatch) -> None:
    """Compute 16 bit in 16 bit on the CPU, as the kernels of a GPU do."""
    kernel = dataclasses.replace(sorted_attention.KERNELS["cpu"], widens=False)
    monkeypatch.setitem(sorted_attention.KERNELS, "cpu", kernel)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_kernels_with_gradients_in_float32(dtype, monkeypatch):
    narrow(monkeypatch)
    rows = check_cases("cpu", "cpu", dtype, Sizes(tokens=301, batch=2))
    assert [row for row in rows if row[1] > row[2]] == []


def test_the_check_sees_an_error(monkeypatch):
    narrow(monkeypatch)

    def plain(a, b, dtype):
        return a.to(dtype), b.to(dtype)

    monkeypatch.setattr(sorted_attention, "_split", plain)
    rows = {row[0]: row for row in check_cases("cpu", "cpu", torch.bfloat16, Sizes(tokens=301))}
    assert rows["plume, narrow"][1] > 10 * rows["plume, narrow"][2]


def test_gradcheck():
    config = PhysicsConfig(ridge=True, plume="lead")
    context = made_up_context(Sizes(tokens=5, batch=2, rank=2))
    core = PhysicsAttention(2, config).double()
    names, values = zip(*core.named_parameters(), strict=True)

    def call(q, k, v, *learned):
        return torch.func.functional_call(
            core, dict(zip(names, learned, strict=True)), (q, k, v, context)
        )

    tensors = [torch.randn(2, 2, 5, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    learned = [v.detach().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(call, (*tensors, *learned))


@pytest.mark.parametrize("method", ["fused", "blockwise", "dense"])
def test_an_active_subset_is_the_attention_of_its_tokens(method):
    sizes = Sizes(tokens=80, batch=2)
    context, config = made_up_context(sizes), PhysicsConfig(ridge=True, method=method, block=7)
    layer = SelfAttention(32, 4, partial(PhysicsAttention, config=config)).double()
    tokens, keep = torch.randn(2, 80, 32).double(), torch.randperm(80)[:33]
    some = take_tokens(context, keep)
    straight, order = layer(tokens[:, keep], some), torch.randperm(33)
    turned = layer(tokens[:, keep][:, order], take_tokens(some, order))
    torch.testing.assert_close(turned, straight[:, order], atol=1e-10, rtol=0)


# ---- an order of its own in each sample


def results(core, tensors, context, grad) -> dict[str, torch.Tensor]:
    """Output and all gradients."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out, learned = core(*leaves, context), dict(core.named_parameters())
    back = torch.autograd.grad(out, [*leaves, *learned.values()], grad)
    return dict(zip(("output", "q", "k", "v", *learned), (out.detach(), *back), strict=True))


def turned(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Tokens of (B, heads, N, d) in the order (B, N)."""
    return pick_tokens(x.transpose(1, 2), order, 2).transpose(1, 2)


def assert_an_order_goes_through(config: PhysicsConfig, context: PhysicalContext, seed: int):
    """The same numbers whatever order the tokens of each sample stand in."""
    torch.manual_seed(seed)
    batch, n = context.wind.shape[:2]
    core = PhysicsAttention(2, config).double()
    if core.relative is not None:
        torch.nn.init.normal_(core.relative.table)
    *tensors, grad = torch.randn(4, batch, 2, n, 8).double()
    order = torch.stack([torch.randperm(n) for _ in range(batch)])
    want = results(core, tensors, context, grad)
    moved = [turned(x, order) for x in (*tensors, grad)]
    have = results(core, moved[:3], take_tokens(context, order), moved[3])
    place = order.argsort(1)
    for name, x in want.items():
        y = turned(have[name], place) if name in ("output", "q", "k", "v") else have[name]
        torch.testing.assert_close(y, x, atol=1e-8 * max(1.0, x.abs().max().item()), rtol=0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    configs, st.sampled_from(["fused", "blockwise", "dense"]), terrains, st.integers(1, 3),
    st.sampled_from([1, 2, 9, 40]), st.integers(0, 99),
)  # fmt: skip
def test_each_sample_may_have_an_order_of_its_own(config, method, kind, batch, tokens, seed):
    config = config.model_copy(update={"method": method, "block": 7})
    context = terrain(made_up_context(Sizes(tokens=tokens, batch=batch, rank=3), seed), kind)
    assert_an_order_goes_through(config, context, seed)


@pytest.mark.parametrize(
    "switches",
    [
        {"position": "bucketed"},
        {"position": "bucketed", "stretch": True},
        {"elevation_clamp": 0.4},
    ],
)
@pytest.mark.parametrize("method", ["blockwise", "dense"])
def test_so_do_the_parts_of_the_published_form(switches, method):
    config = PhysicsConfig(ridge=True, method=method, block=11, **switches)
    assert_an_order_goes_through(config, made_up_context(Sizes(tokens=40, batch=2)), 0)


def test_gradcheck_with_an_order_in_each_sample():
    context = made_up_context(Sizes(tokens=5, batch=2, rank=2))
    context = take_tokens(context, torch.stack([torch.randperm(5) for _ in range(2)]))
    core = PhysicsAttention(2, PhysicsConfig(ridge=True)).double()
    tensors = [torch.randn(2, 2, 5, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: core(q, k, v, context), tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_order_in_each_sample_is_within_the_tolerances(dtype):
    sizes = Sizes(tokens=101, batch=2)
    config = PhysicsConfig(ridge=True, plume_sigma_km=NARROW_KM)
    order = torch.stack([torch.randperm(101) for _ in range(2)])
    context = take_tokens(made_up_context(sizes), order)
    errors = errors_against_oracle(config, sizes, dtype, context=context)
    assert max(errors.values()) <= tolerance(dtype, full_domain=True), errors


# ---- windows


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    configs, st.booleans(), st.integers(2, 50), st.sampled_from([1, 2, 31, 32, 45]),
    st.integers(1, 2), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_windows_are_the_dense_form_under_a_mask(config, plain, window, n, batch, shift, seed):
    torch.manual_seed(seed)
    context = made_up_context(Sizes(tokens=n, batch=batch, rank=3), seed)
    if seed % 2:  # as the lanes give it: an order in each sample
        context = take_tokens(context, torch.stack([torch.randperm(n) for _ in range(batch)]))
    make = PlainAttention if plain else partial(PhysicsAttention, config=config)
    core = WindowedAttention(2, make, window=window, shift=shift).double()
    oracle = PhysicsAttention(2, config).double()
    if not plain:
        oracle.load_state_dict(core.core.state_dict())
    block = (torch.arange(n) - (window // 2 if shift else 0)).div(window, rounding_mode="floor")
    mask = torch.zeros(n, n).double().masked_fill(block[:, None] != block, -torch.inf)
    *tensors, grad = torch.randn(4, batch, 2, n, 8).double()

    def masked(q, k, v, context):
        if plain:
            return dense_attention(q, k, v, mask)
        q, k = physics.turned(config, q, k, context)
        return dense_attention(q, k, v, oracle.rows(context) + mask)

    masked.named_parameters = list if plain else oracle.named_parameters
    want = results(masked, tensors, context, grad)
    have = results(core, tensors, context, grad)
    have = {name.removeprefix("core."): x for name, x in have.items()}
    assert have.keys() == want.keys()
    for name, x in want.items():
        limit = 1e-8 * max(1.0, x.abs().max().item())
        torch.testing.assert_close(have[name], x, atol=limit, rtol=0)


def test_a_window_needs_two_tokens():
    with pytest.raises(ModelError, match="2 tokens or more"):
        WindowedAttention(2, PlainAttention, window=1)


def test_windows_inside_self_attention():
    make = partial(PhysicsAttention, config=PhysicsConfig(ridge=True))
    core = partial(WindowedAttention, make_core=make, window=16, shift=True)
    layer, context = SelfAttention(32, 4, core), made_up_context(Sizes(tokens=50, batch=2))
    tokens = torch.randn(2, 50, 32, requires_grad=True)
    layer(tokens, context)[:, 8].sum().backward()  # the first token of the first whole block
    reached = tokens.grad.abs().sum((0, 2)).nonzero().flatten()
    assert reached.tolist() == list(range(8, 24))


# ---- the published form


def test_the_clamp_holds_the_bias_from_below():
    context = made_up_context(Sizes(tokens=60))
    free = PhysicsConfig(elevation="source_uphill", plume="off", position="none")
    held = free.model_copy(update={"elevation_clamp": 0.7})
    rows = [PhysicsAttention(2, c).elevation.rows(context) for c in (free, held)]
    assert rows[0].min() < -0.7
    assert torch.equal(rows[1], rows[0].clamp(-0.7, 0))
    core = PhysicsAttention(2, held)
    assert core.method == "blockwise"
    q, k, v = torch.randn(3, 1, 2, 60, 8)
    want = dense_attention(q, k, v, rows[1])
    torch.testing.assert_close(core(q, k, v, context), want, atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="elevation_clamp"):
        PhysicsAttention(2, held.model_copy(update={"method": "fused"}))
    off = held.model_copy(update={"elevation": "off", "method": "fused"})
    assert PhysicsAttention(2, off).method == "fused"


def test_the_stretched_position_needs_the_size_of_the_domain():
    context = dataclasses.replace(made_up_context(Sizes(tokens=9)), patch_span=None)
    core = PhysicsAttention(2, PhysicsConfig(position="bucketed", stretch=True))
    with pytest.raises(ModelError, match="patch_span"):
        core(*torch.randn(3, 1, 2, 9, 8), context)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["dense", "blockwise"])
def test_every_method_takes_16_bit(method, dtype):
    context, (q, k, v) = made_up_context(Sizes(tokens=40)), torch.randn(3, 1, 4, 40, 8).to(dtype)
    core = PhysicsAttention(4, PhysicsConfig(ridge=True, method=method, block=16))
    have = core(q, k, v, context)
    want = core(q.float(), k.float(), v.float(), context)
    assert have.dtype == dtype
    assert (have - want).abs().max() < 1e-2 * want.abs().max()


def test_bucketed_position_under_autocast():
    layer = SelfAttention(
        32, 4, partial(PhysicsAttention, config=PhysicsConfig(position="bucketed"))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.randn(1, 40, 32), made_up_context(Sizes(tokens=40))).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_samples_do_not_mix():
    context = made_up_context(Sizes(tokens=40, batch=3))
    q, k, v = torch.randn(3, 3, 4, 40, 8).double()
    core = PhysicsAttention(4, PhysicsConfig(plume="lead", ridge=True)).double()
    alone = dataclasses.replace(
        context, wind=context.wind[1:2], lead_time_h=context.lead_time_h[1:2]
    )
    expected = core(q[1:2], k[1:2], v[1:2], alone)
    torch.testing.assert_close(core(q, k, v, context)[1:2], expected)


def test_everything_off_is_plain_attention():
    config = PhysicsConfig(elevation="off", plume="off", position="none")
    q, k, v = torch.randn(3, 2, 4, 30, 8)
    core = PhysicsAttention(4, config)
    assert not strength_parameters(core)
    have = core(q, k, v, made_up_context(Sizes(tokens=30, batch=2)))
    assert torch.equal(have, scaled_dot_product_attention(q, k, v))


@settings(max_examples=15, deadline=None)
@given(configs, st.sampled_from([False, True]), st.integers(1, 70))
def test_bucketed_position_by_blocks(config, stretch, block):
    config = config.model_copy(
        update={"position": "bucketed", "stretch": stretch, "block": block, "method": None}
    )
    sizes = Sizes(tokens=50, head_dim=8)
    context = made_up_context(sizes)
    core = PhysicsAttention(4, config).double()
    assert core.method == "blockwise"
    torch.nn.init.normal_(core.relative.table)
    dense = copy.deepcopy(core)
    dense.method = "dense"
    results = []
    for method in (core, dense):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 4, 50, 8).double().requires_grad_() for _ in range(3))
        out = method(q, k, v, context)
        learned = [*method.parameters()]
        results.append([out, *torch.autograd.grad(out.square().sum(), [q, k, v, *learned])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_the_bucketed_table_is_learned_and_is_not_a_strength():
    core = PhysicsAttention(2, PhysicsConfig(position="bucketed"))
    assert core.relative.table.shape == (2, 32 * 32)
    assert "relative.table" not in strength_parameters(core)


def test_strengths_have_their_own_group():
    config = PhysicsConfig(ridge=True)
    layer = SelfAttention(32, 4, partial(PhysicsAttention, config=config))
    names = strength_parameters(layer)
    expected = {"elevation.alpha", "plume.sigma", "plume.diffusivity", "plume.travel"}
    assert set(names) == {f"core.{n}.raw" for n in expected | {"ridge.alpha"}}
    weights, strengths = parameter_groups(layer, 1e-4, 1e-2, 0.05)
    assert (weights["lr"], weights["weight_decay"]) == (1e-4, 0.05)
    assert (strengths["lr"], strengths["weight_decay"]) == (1e-2, 0.0)
    together = [*weights["params"], *strengths["params"]]
    assert {id(p) for p in together} == {id(p) for p in layer.parameters()}
    assert len(together) == len(list(layer.parameters()))
    plain = SelfAttention(32, 4)
    assert len(parameter_groups(plain, 1e-4, 1e-2, 0.05)) == 1


def test_strengths_stay_positive_whatever_the_optimiser_does():
    core = PhysicsAttention(3, PhysicsConfig(ridge=True))
    for value in (-80.0, 80.0):
        for raw in strength_parameters(core).values():
            raw.data.fill_(value)
        assert (core.elevation.alpha() > 0).all() and (core.plume.sigma() > 0).all()


def test_under_autocast_the_biases_stay_in_float32():
    sizes = Sizes(tokens=90, head_dim=24)
    context = made_up_context(sizes)
    layer = SelfAttention(96, 4, partial(PhysicsAttention, config=PhysicsConfig(ridge=True)))
    tokens = torch.randn(1, 90, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(tokens, context)
    low.float().sum().backward()
    exact = layer(tokens, context)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 2e-2 * exact.abs().max()
    assert all(p.grad.dtype == torch.float32 for p in strength_parameters(layer).values())


def test_state_and_configuration_round_trip():
    config = PhysicsConfig(ridge=True, plume_sigma_km=(70.0,))
    core, again = PhysicsAttention(2, config), PhysicsAttention(2, PhysicsConfig(ridge=True))
    again.load_state_dict(core.state_dict())
    torch.testing.assert_close(again.plume.sigma(), torch.full((2,), 70.0))
    assert PhysicsConfig(**config.model_dump()) == config


def test_errors_name_the_choices():
    place = geometry(torch.zeros(3), torch.zeros(3))
    bare = PhysicalContext(place, torch.zeros(3), torch.zeros(1, 3, 2))
    q, k, v = torch.randn(3, 1, 2, 3, 8)
    for switches, expected in (
        ({"ridge": True}, "aqnet terrain build"),
        ({"plume": "lead"}, "plume = 'learned'"),
        ({"position": "bucketed"}, "position = 'rotary'"),
        ({"kernel": "flash"}, "'efficient'"),
    ):
        with pytest.raises(ModelError, match=expected):
            PhysicsAttention(2, PhysicsConfig(**switches))(q, k, v, bare)
    with pytest.raises(ModelError, match="method 'blockwise'"):
        PhysicsAttention(2, PhysicsConfig(position="bucketed", method="fused"))
    with pytest.raises(ValidationError, match="'by_device', 'tiled', 'cpu', 'efficient' or 'fl"):
        PhysicsConfig(kernel="fast")


def test_a_configuration_names_the_kernels_there_are():
    names = get_args(PhysicsConfig.model_fields["kernel"].annotation)
    assert names == ("by_device", *sorted_attention.KERNELS)


def test_a_footprint_is_the_softmax_of_the_bias():
    context = made_up_context(Sizes(tokens=30, batch=2))
    core = PhysicsAttention(3, PhysicsConfig()).double()
    w = footprint(core, context, torch.tensor([4, 7]))
    assert w.shape == (2, 3, 2, 30)
    torch.testing.assert_close(w, torch.softmax(core.rows(context), -1)[:, :, [4, 7]].detach())
    uniform = PhysicsAttention(3, PhysicsConfig(elevation="off", plume="off"))
    flat = footprint(uniform, context, torch.tensor([0]))
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 30))


def test_a_footprint_is_made_on_the_device_of_the_context():
    context = on_device(made_up_context(Sizes(tokens=30)), "meta")
    core = PhysicsAttention(3, PhysicsConfig(plume="off")).to("meta")
    w = footprint(core, context, torch.tensor([4, 7], device="meta"))
    assert w.device.type == "meta" and w.shape == (1, 3, 2, 30)


@pytest.mark.slow
def test_the_full_size_against_the_oracle():
    """N = 8,192 in float32: the oracle in float64 for some receivers, by blocks."""
    sizes = Sizes(tokens=8192, heads=2, head_dim=96, rank=14)
    context = made_up_context(sizes)
    core = PhysicsAttention(2, PhysicsConfig(ridge=True, plume_sigma_km=NARROW_KM))
    q, k, v = torch.randn(3, 1, 2, 8192, 96)
    with torch.no_grad():
        have = core(q, k, v, context)
        exact = copy.deepcopy(core).double()
        exact.method = "blockwise"
        want = exact(q.double(), k.double(), v.double(), context)
    assert (have - want).abs().max() < 2e-4 * want.abs().max()
