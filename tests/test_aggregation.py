"""Variable tokens: collapsed through attention and embedding, equal to nn.MultiheadAttention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aqnet.model.aggregation import VariableTokens, collapsed_attention, require_true
from aqnet.model.attention import ModelError

torch.set_num_threads(1)


def shaken(*args, **options) -> VariableTokens:
    torch.manual_seed(0)
    layer = VariableTokens(*args, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 3)]), st.integers(1, 9), st.integers(1, 3),
    st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_same_output_and_gradients_as_the_textbook(tokens, variables, patch, heads, norm, some):
    layer = shaken(variables, patch, 8, heads, norm=norm).double()
    cells = torch.randn(*tokens, variables, patch**2, dtype=torch.float64, requires_grad=True)
    present = None
    if some:
        present = torch.rand(tokens[0], variables) < 0.6
        present[:, 0] = True
    have, want = layer(cells, present), layer.explicit(cells, present)
    torch.testing.assert_close(have, want, atol=1e-10, rtol=1e-10)
    leaves, grad = [cells, *layer.parameters()], torch.randn_like(have)
    pairs = (torch.autograd.grad(y, leaves, grad, materialize_grads=True) for y in (have, want))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_float32_at_reference_width():
    torch.manual_seed(0)
    layer, cells = VariableTokens(15, 2, 768, 8), torch.randn(1, 40, 15, 4)
    torch.testing.assert_close(layer(cells), layer.explicit(cells), atol=1e-5, rtol=1e-5)


def test_weights_of_a_trained_attention_are_taken_as_they_are():
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    query, x = torch.randn(16).double(), torch.randn(1, 3, 6, 16).double()
    want = theirs(query.expand(3, 1, -1), x[0], x[0], need_weights=False)[0][:, 0]
    have = collapsed_attention(query, x, theirs)[0]
    torch.testing.assert_close(have, want, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 8, "vdim": 8}],
)
def test_an_attention_that_has_no_collapsed_form_is_refused(options):
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, **options)
    with pytest.raises(ModelError, match="cannot be collapsed"):
        collapsed_attention(torch.randn(16), torch.randn(1, 3, 6, 16), theirs)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_an_absent_variable_does_not_count(norm, each):
    layer, cells = shaken(5, 2, 8, 2, norm=norm), torch.randn(2, 3, 5, 4)
    present = torch.tensor([True, False, True, False, True])
    small = shaken(5, 2, 8, 2, norm=norm)
    for name in ("weight", "bias", "name"):
        if getattr(small, name) is not None:
            setattr(small, name, nn.Parameter(getattr(small, name)[present].detach()))
    have = layer(cells, present.expand(2, -1) if each else present)
    torch.testing.assert_close(have, small(cells[:, :, present]), atol=1e-5, rtol=1e-5)
    layer(cells, present).sum().backward()
    assert not layer.weight.grad[~present].any() and layer.weight.grad[present].all()


def test_absence_is_of_the_sample():
    layer, cells = shaken(3, 1, 8, 2), torch.randn(2, 4, 3, 1)
    present = torch.tensor([[True, True, True], [True, False, True]])
    have = layer(cells, present)
    torch.testing.assert_close(have[:1], layer(cells[:1]), atol=1e-6, rtol=1e-6)
    assert (have[1] - layer(cells)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("present", [torch.zeros(3, dtype=bool), torch.eye(3)[:2].bool() * False])
def test_no_variable_at_all_is_an_error(present):
    with pytest.raises(ModelError, match="none of the variables"):
        shaken(3, 1, 8, 2)(torch.randn(2, 4, 3, 1), present)


def test_no_tensor_of_all_tokens_is_kept():
    layer, cells, kept = VariableTokens(15, 2, 32, 2), torch.randn(1, 50, 15, 4), []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(cells)
    assert max(kept) < 50 * 15 * 32 / 2


def test_the_order_of_variables_is_only_a_name():
    layer, cells, order = shaken(7, 2, 12, 3), torch.randn(2, 4, 7, 4), torch.randperm(7)
    expected = layer(cells)
    layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]
    torch.testing.assert_close(layer(cells[:, :, order]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_a_compiled_graph_refuses_too(backend):
    def checked(x):
        require_true(x < 2, "a number is too large", expected="", found=x, remedy="")
        return x + 1

    compiled = torch.compile(checked, fullgraph=True, backend=backend)
    assert compiled(torch.ones(3, requires_grad=True)).eq(2).all()
    with pytest.raises(RuntimeError, match="a number is too large"):
        compiled(torch.tensor([1.0, 3.0, 1.0], requires_grad=True))
