"""Attention: the textbook formula, equivariance, and errors that name what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aqnet.model.attention import (
    ATTENTION_CORES,
    ModelError,
    PhysicalContext,
    PlainAttention,
    SelfAttention,
    attention_core,
)

torch.set_num_threads(1)


def place(n: int, batch: int = 2) -> PhysicalContext:
    return PhysicalContext(torch.zeros(n), torch.zeros(n), torch.zeros(n), torch.zeros(batch, n, 2))


def test_plain_attention_is_the_formula():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 11, 8, dtype=torch.float64)
    weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1)
    torch.testing.assert_close(PlainAttention(3)(q, k, v, place(11)), weights @ v)


def test_self_attention_equals_torch():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    tokens = torch.randn(2, 11, 24)
    expected = theirs(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(ours(tokens, place(11)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_permutation_goes_straight_through(seed):
    torch.manual_seed(seed)
    layer, tokens, order = SelfAttention(16, 2), torch.randn(2, 12, 16), torch.randperm(12)
    straight = layer(tokens, place(12))
    torch.testing.assert_close(straight[:, order], layer(tokens[:, order], place(12)))
    assert not torch.allclose(straight[:, order], straight)


def test_samples_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    layer, tokens = SelfAttention(16, 2), torch.randn(3, 12, 16)
    alone = layer(tokens[1:2], place(12, 1))
    torch.testing.assert_close(layer(tokens, place(12, 3))[1:2], alone)


def test_gradients():
    torch.manual_seed(0)
    layer = SelfAttention(4, 2).double()
    tokens = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, place(3, 1)), (tokens,))


def test_a_core_is_given_the_context(monkeypatch):
    class Windy(nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.heads = heads

        def forward(self, q, k, v, context):
            assert q.shape[1] == self.heads
            return v * context.wind[:, None, :, :1]

    monkeypatch.setitem(ATTENTION_CORES, "windy", Windy)
    layer, tokens = SelfAttention(16, 4, "windy"), torch.randn(2, 12, 16)
    calm = layer(tokens, place(12))
    torch.testing.assert_close(calm, layer.project.bias.expand_as(calm))


def test_unknown_core_is_named():
    with pytest.raises(ModelError, match=r"unknown attention 'plum'\n  expected: one of \['plain'"):
        attention_core("plum", 2)
    with pytest.raises(ModelError, match="plum"):
        SelfAttention(16, 2, "plum")


def test_heads_must_divide_the_width():
    with pytest.raises(ModelError, match=r"a width that 3 divides\n  found:    16"):
        SelfAttention(16, 3)
