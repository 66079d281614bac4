"""Collapsed variable aggregation is nn.MultiheadAttention with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aqnet.model.aggregation import VariableAggregation, collapsed_attention
from aqnet.model.attention import ModelError

torch.set_num_threads(1)


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (24, 3), (768, 8)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 15), (7, 26)])
def test_the_same_output_and_gradients(width, heads, shape):
    torch.manual_seed(0)
    layer = VariableAggregation(width, heads)
    for parameter in (layer.query, layer.attention.in_proj_bias, layer.attention.out_proj.bias):
        nn.init.normal_(parameter)
    x = torch.randn(*shape, width, requires_grad=True)
    have, want = layer(x), layer.explicit(x)
    torch.testing.assert_close(have, want, atol=1e-5, rtol=1e-5)
    leaves, grad = [x, *layer.parameters()], torch.randn_like(have)
    pairs = (torch.autograd.grad(y, leaves, grad) for y in (have, want))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_weights_of_a_trained_attention_are_taken_as_they_are():
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    query, x = torch.randn(16).double(), torch.randn(3, 6, 16).double()
    want = theirs(query.expand(3, 1, -1), x, x, need_weights=False)[0][:, 0]
    torch.testing.assert_close(collapsed_attention(query, x, theirs), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 8, "vdim": 8}],
)
def test_an_attention_that_has_no_collapsed_form_is_refused(options):
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, **options)
    with pytest.raises(ModelError, match="cannot be collapsed"):
        collapsed_attention(torch.randn(16), torch.randn(3, 6, 16), theirs)


def test_no_tensor_of_all_projected_tokens_is_kept():
    layer, x, kept = VariableAggregation(32, 2), torch.randn(10, 15, 32), []

    def pack(tensor):
        kept.append(tensor.untyped_storage().data_ptr() if tensor.shape == x.shape else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    assert {p for p in kept if p} <= {x.untyped_storage().data_ptr()}
