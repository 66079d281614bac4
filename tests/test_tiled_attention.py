"""Tiled attention against the dense form: outputs and all gradients, whatever the tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.model import tiled_attention as tiled
from aqnet.model.check_attention import Sizes, check_cases
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.sorted_attention import KERNEL_OF, dense_attention, fused_attention

SMALL = {"TILE_ROWS": 7, "TILE_KEYS": 5}


@pytest.fixture
def small_tiles(monkeypatch):
    for name, size in SMALL.items():
        monkeypatch.setattr(tiled, name, size)


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
        for name, size in SMALL.items():
            patch.setattr(tiled, name, size)
        *tensors, height, alpha = inputs(batch, heads, n, 8, rank, seed=n)
        compare(*tensors, height if per_sample else height[0], alpha)


@pytest.mark.parametrize("scores", [1, 5 * 7 * 2, 5 * 7 * 4, 2**18])
@pytest.mark.parametrize("n", [5, 9])
def test_samples_and_heads_may_share_a_tile(scores, n, small_tiles, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_SCORES", scores)
    compare(*inputs(5, 3, n, 8, 2))


def test_few_tokens_take_few_tiles():
    groups, n = 53 * 8, 64
    q = torch.empty(53, 8, n, 16)
    laid = tiled._lay_out(1.0, q, q, q, q, q, None, torch.empty(8))
    tiles = list(tiled._tiles(laid))
    assert len(tiles) == 7 and sum(at.stop - at.start for at, _, _ in tiles) == groups


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
    monkeypatch.setattr(tiled, "TILE_ROWS", 100)
    monkeypatch.setattr(tiled, "TILE_KEYS", 70)
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
    scores = torch.tensor([0.0, -1.0, -63.0, -65.0, -130.0, -200.0, -torch.inf, torch.nan])
    weights = tiled._weights(scores.clone())
    assert weights[:3].tolist() == [1, 0.5, 2.0**-63] and weights[3:7].tolist() == [0] * 4
    assert weights[7].isnan(), "what is not a number must be seen by the training"
    assert 0 < scores[4].exp2() < torch.finfo(torch.float32).tiny, "subnormal without the limit"


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
