"""Tiled attention against the dense form: outputs and all gradients, whatever the tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.model import tiled_attention as tiled
from aqnet.model import tiles
from aqnet.model.check_attention import Sizes, check_cases
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.sorted_attention import KERNEL_OF, dense_attention, fused_attention


def small(patch: pytest.MonkeyPatch, tile: int = 6, block: int = 2) -> None:
    patch.setattr(tiles, "TILE", tile)
    patch.setattr(tiles, "BLOCK", block)


@pytest.fixture
def small_tiles(monkeypatch):
    small(monkeypatch)


def inputs(batch: int, heads: int, n: int, d: int, rank: int, seed: int = 0, dtype=torch.float64):
    """q, k, v, features of queries and of keys, height, alpha; features of keys are shared."""
    make = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_()

    tokens = [normal(batch, heads, n, d) for _ in range(3)]
    height = normal(batch, n).detach()
    return *tokens, normal(batch, heads, n, rank), normal(1, 1, n, rank), height, normal(heads)


def dense(q, k, v, f, g, height, alpha):
    h = height if height.dim() == 2 else height[None]
    climb = torch.relu(h[:, None, :] - h[:, :, None])[:, None]
    return dense_attention(q, k, v, f @ g.transpose(-1, -2) - alpha[:, None, None] * climb)


def compare(q, k, v, f, g, height, alpha, atol: float = 1e-11) -> None:
    have = fused_attention(q, k, v, [(f, g)], height, alpha, kernel="tiled")
    want = dense(q, k, v, f, g, height, alpha)
    torch.testing.assert_close(have, want, atol=atol, rtol=0)
    grad, leaves = torch.randn_like(want), (q, k, v, f, g, alpha)
    pairs = (torch.autograd.grad(x, leaves, grad) for x in (have, want))
    for x, y in zip(*pairs, strict=True):
        torch.testing.assert_close(x, y, atol=atol, rtol=0)


@settings(
    max_examples=30, deadline=None, derandomize=True,
)  # fmt: skip
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_it_is_the_dense_form(batch, heads, n, rank, per_sample):
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        *tensors, height, alpha = inputs(batch, heads, n, 8, rank, seed=n)
        compare(*tensors, height if per_sample else height[0], alpha)


@pytest.mark.parametrize("scores", [1, 6 * 6 * 2, 6 * 6 * 4, 2**18])
@pytest.mark.parametrize("n", [5, 9])
def test_samples_and_heads_may_share_a_tile(scores, n, small_tiles, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_SCORES", scores)
    compare(*inputs(5, 3, n, 8, 2))


def test_few_tokens_take_few_tiles():
    groups, n = 53 * 8, 64
    q = torch.empty(53, 8, n, 16)
    laid = tiles.lay_out(1.0, q, q, q, q, q, None, torch.empty(8))
    found = list(tiles.row_tiles(laid))
    assert len(found) == 7 and sum(at.stop - at.start for at, _, _ in found) == groups


def test_equal_heights_and_without_heights(small_tiles):
    q, k, v, f, g, height, alpha = inputs(1, 2, 23, 8, 3)
    compare(q, k, v, f, g, height.sign(), alpha)
    have = fused_attention(q, k, v, [(f, g)], kernel="tiled")
    want = dense_attention(q, k, v, f @ g.transpose(-1, -2))
    torch.testing.assert_close(have, want, atol=1e-12, rtol=0)
    leaves, grad = (q, k, v, f, g), torch.randn_like(have)
    pairs = (torch.autograd.grad(x, leaves, grad) for x in (have, want))
    for x, y in zip(*pairs, strict=True):
        torch.testing.assert_close(x, y, atol=1e-11, rtol=0)


def test_features_of_keys_without_a_gradient(small_tiles):
    q, k, v, f, g, height, alpha = inputs(1, 2, 23, 8, 3)
    full = fused_attention(q, k, v, [(f, g)], height, alpha, kernel="tiled")
    part = fused_attention(q, k, v, [(f, g.detach())], height, alpha, kernel="tiled")
    leaves, grad = (q, k, v, f, alpha), torch.randn_like(full)
    pairs = (torch.autograd.grad(x, leaves, grad) for x in (full, part))
    for x, y in zip(*pairs, strict=True):
        torch.testing.assert_close(x, y, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [Sizes(2, 3, 301, 32), Sizes(3, 1, 1, 8)])
def test_all_biases_within_the_tolerances(dtype, sizes):
    rows = check_cases("cpu", "tiled", dtype, sizes)
    assert len(rows) == 7
    assert [row for row in rows if row[1] > row[2]] == []


def test_16_bit_whatever_the_tiles(monkeypatch):
    small(monkeypatch, 100, 25)
    rows = check_cases("cpu", "tiled", torch.bfloat16, Sizes(2, 2, 301, 32))
    assert [row for row in rows if row[1] > row[2]] == []


def test_logits_of_16_bit_inputs_are_not_rounded_to_16_bit():
    # |q . k| of 300 in bfloat16 is known to 1: weights would be wrong by a factor of e
    q, k, v, f, g, height, alpha = inputs(1, 1, 300, 96, 0)
    q, k, v = (x.detach().bfloat16() for x in (6 * q, 6 * k, v))
    have = fused_attention(q, k, v, [], height[0], alpha, kernel="tiled")
    want = dense(*(x.double() for x in (q, k, v)), f, g, height[0], alpha)
    assert (have - want).abs().max() < 0.02 * want.abs().max()


def test_outputs_have_the_dtype_of_the_queries_and_no_second_derivative():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        q, k, v, f, g, height, alpha = inputs(1, 2, 9, 8, 2, dtype=dtype)
        out = fused_attention(q, k, v, [(f, g)], height, alpha, kernel="tiled")
        grads = torch.autograd.grad(out.sum(), (q, k, v, alpha), create_graph=True)
        assert out.dtype == dtype and {x.dtype for x in grads} == {dtype}
        with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
            torch.autograd.grad(grads[0].sum(), q)


def test_it_is_the_default_of_a_configuration_on_a_cpu():
    assert PhysicsConfig().kernel == "by_device" and set(KERNEL_OF.values()) == {
        "tiled",
        "efficient",
    }


def test_weights_that_are_nothing_are_zero_and_cost_nothing():
    scores = torch.tensor([0.0, -1.0, -38.0, -40.0, -130.0, -200.0, -torch.inf, torch.nan])
    weights = tiled._weights(scores.clone())
    assert weights[:3].tolist() == [1, 0.5, 2.0**-38] and weights[3:7].tolist() == [0] * 4
    assert weights[7].isnan(), "what is not a number must be seen by the training"
    assert 0 < scores[4].exp2() < torch.finfo(torch.float32).tiny, "subnormal without the limit"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_many_of_the_least_weights_as_there_are_tokens_change_no_sum(dtype):
    least = tiled.least_log2(dtype)
    assert least == (-39 if dtype == torch.float32 else -68)
    assert 1 + 2**15 * torch.tensor(2.0**least, dtype=dtype) == 1


@pytest.mark.parametrize("which", range(3))
def test_what_is_not_a_number_reaches_output_and_gradients(which, small_tiles):
    *tensors, height, alpha = inputs(1, 2, 23, 8, 3, dtype=torch.float32)
    with torch.no_grad():
        tensors[which][0, 1, 11, 3] = torch.nan
    out = fused_attention(*tensors[:3], [tensors[3:]], height, alpha, kernel="tiled")
    gradients = torch.autograd.grad(out.sum(), tensors[:3])
    assert out[0, 1].isnan().any() and not out[0, 0].isnan().any()
    assert any(x[0, 1].isnan().any() for x in gradients)


def test_barriers_as_high_as_those_of_tibet(small_tiles):
    *tensors, height, alpha = inputs(1, 2, 23, 8, 3)
    compare(*tensors, height * 5, alpha.abs().detach().mul(40).requires_grad_())


# ---- blocks that are left out


def on_a_line(n: int, reach: float, dtype=torch.float64, batch: int = 1):
    """Inputs whose weights fade with the distance on a line, in random orders; the places."""
    make = torch.Generator().manual_seed(n)
    q, k, v, _, _, height, alpha = inputs(batch, 2, n, 8, 1, seed=n, dtype=dtype)
    place = torch.stack([torch.randperm(n, generator=make) for _ in range(batch)])[..., None]
    place = place.to(dtype)
    one = torch.ones_like(place)
    f = torch.cat([2 * place, -one, -place.square()], dim=-1) / reach**2
    g = torch.cat([place, place.square(), one], dim=-1)
    f, g = f[:, None].repeat(1, 2, 1, 1), g[:, None]
    return q, k, v, f.requires_grad_(), g.requires_grad_(), height, alpha.abs().detach(), place


@pytest.mark.parametrize("n", [23, 24, 61])
@pytest.mark.parametrize("reach", [0.3, 1.0, 100.0])
@pytest.mark.parametrize(("scores", "batch"), [(1, 1), (2**18, 1), (1, 3), (2**18, 3)])
def test_leaving_out_what_weighs_nothing_changes_nothing(
    n, reach, scores, batch, small_tiles, monkeypatch
):
    monkeypatch.setattr(tiles, "TILE_SCORES", scores)
    q, k, v, f, g, height, alpha, place = on_a_line(n, reach, batch=batch)
    leaves, grad = (q, k, v, f, g, alpha.requires_grad_()), inputs(batch, 2, n, 8, 1, seed=1)[0]
    with tiled.count_pairs() as pairs:
        have = fused_attention(q, k, v, [(f, g)], height, alpha, kernel="tiled", places=place)
        have = (have, *torch.autograd.grad(have, leaves, grad))
    want = dense(q, k, v, f, g, height, alpha)
    want = (want, *torch.autograd.grad(want, leaves, grad))
    assert pairs.all == 2 * batch * n * n and pairs.kept <= pairs.summed
    assert (pairs.kept < 0.8 * pairs.all) == (reach < 100)
    for x, y in zip(have, want, strict=True):
        torch.testing.assert_close(x, y, atol=1e-9 * float(y.detach().abs().max()), rtol=0)


def test_only_an_order_by_place_leaves_much_out(small_tiles):
    *tensors, height, alpha, place = on_a_line(61, 1.0)
    kept = []
    for places in (None, place):
        with tiled.count_pairs() as pairs:
            out = fused_attention(*tensors[:3], [tensors[3:]], height, alpha, places=places)
            assert pairs.all == 0, "counted with the gradients"
            out.sum().backward()
        kept.append(pairs.kept / pairs.all)
    assert kept[0] > 0.75 and kept[1] < 0.5


def test_nothing_is_counted_after_the_count(small_tiles):
    *tensors, height, alpha, _ = on_a_line(23, 1.0)
    with tiled.count_pairs() as pairs:
        pass
    fused_attention(*tensors[:3], [tensors[3:]], height, alpha).sum().backward()
    assert (pairs.all, pairs.kept) == (0, 0) and tiled._COUNTS == []


@pytest.mark.parametrize("which", range(3))
def test_what_is_not_a_number_is_not_left_out_far_away(which, small_tiles):
    *tensors, height, alpha, place = on_a_line(61, 0.3, torch.float32)
    last = int(place.argmax())
    with torch.no_grad():
        tensors[which][0, 1, last, 3] = torch.nan
    out = fused_attention(*tensors[:3], [tensors[3:]], height, alpha, places=place)
    if which == 1:  # a key: all scores with it
        assert out[0, 1].isnan().all()
    else:
        assert out[0, 1, last].isnan().any()
    assert not out[0, 0].isnan().any()
    gradients = torch.autograd.grad(out.sum(), tensors[:3])
    assert any(x[0, 1].isnan().any() for x in gradients)


@pytest.mark.parametrize("step", [1.0, -1.0, 0.0])
def test_tiles_wholly_above_or_below(step, small_tiles):
    *tensors, _, alpha = inputs(1, 2, 23, 8, 3)
    compare(*tensors, step * torch.arange(23.0, dtype=torch.float64)[None], alpha)


def test_a_height_that_is_not_a_number_is_seen(small_tiles):
    *tensors, height, alpha = inputs(1, 2, 23, 8, 3)
    for which in (3, 20):
        for heights in (torch.zeros_like(height), -torch.arange(23.0).double()[None]):
            heights[0, which] = torch.nan
            out = fused_attention(
                *tensors[:3], [tensors[3:]], heights, alpha, places=height[..., None]
            )
            assert out.isnan().all()


# ---- order


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 3), st.booleans())
def test_an_order_is_of_all_tokens(n, axes, batched):
    make = torch.Generator().manual_seed(n)
    places = torch.randn(*([2] if batched else []), n, axes, generator=make)
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        order = tiles.compact_order(places)
    assert (order is None) == (n <= 6)
    if order is not None:
        assert order.shape == places.shape[:-1]
        assert torch.equal(order.sort(-1).values, torch.arange(n).expand_as(order))


def test_tiles_and_blocks_of_an_order_are_compact(small_tiles):
    side = torch.arange(12.0)
    places = torch.cartesian_prod(side, side)
    places = places[torch.randperm(144, generator=torch.Generator().manual_seed(0))]
    order = tiles.compact_order(places)
    both = torch.stack([places, places.flip(0)])
    for x, found in zip((places, *both), (order, *tiles.compact_order(both)), strict=True):
        for size, longest in ((6, 3.0), (2, 1.0)):
            spans = [x[part].amax(0) - x[part].amin(0) for part in found.split(size)]
            assert max(float(span.max()) for span in spans) <= longest
