"""Attention: the textbook formula, equivariance, and errors that name what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from aqnet.model.attention import (
    ATTENTION_CORES,
    ModelError,
    PhysicalContext,
    PlainAttention,
    SelfAttention,
    TokenDomain,
    attention_core,
    take_tokens,
)
from aqnet.model.position import geometry

torch.set_num_threads(1)


def place(n: int, batch: int = 2) -> PhysicalContext:
    here = geometry(torch.zeros(n), torch.zeros(n))
    return PhysicalContext(here, torch.zeros(n), torch.zeros(batch, n, 2))


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


# ---- the context


def made_domain(n: int = 12) -> TokenDomain:
    made = np.random.default_rng(0)
    patch = np.stack(np.divmod(np.arange(n), 4), -1) + 3
    return TokenDomain(
        made.uniform(20, 50, n), made.uniform(80, 130, n), made.uniform(0, 4000, n), patch,
        (made.normal(size=(n, 3)), made.normal(size=(n, 3))),
    )  # fmt: skip


def tensors(context: PhysicalContext) -> dict[str, torch.Tensor]:
    place = {name: x for name, x in vars(context.geometry).items() if isinstance(x, torch.Tensor)}
    left, right = context.ridge
    return {**place, "elevation": context.elevation, "wind": context.wind, "left": left,
            "right": right, "patch": context.patch}  # fmt: skip


def test_tokens_are_taken_of_everything_and_the_domain_stays():
    context = made_domain().context(torch.randn(3, 12, 2), torch.tensor([6.0, 12.0, 24.0]))
    order = torch.stack([torch.randperm(12)[:7] for _ in range(3)])
    same, own = take_tokens(context, order[0]), take_tokens(context, order)
    for name, x in tensors(context).items():
        one = x[:, order[0]] if name == "wind" else x[order[0]]
        assert torch.equal(tensors(same)[name], one), name
        for b in range(3):
            expected = x[b, order[b]] if name == "wind" else x[order[b]]
            assert torch.equal(tensors(own)[name][b], expected), name
    for taken in (same, own):
        assert taken.geometry.centre == context.geometry.centre
        assert taken.geometry.box == context.geometry.box and taken.patch_span == (3, 4)
        assert taken.lead_time_h is context.lead_time_h
        heights = taken.elevation.gather(-1, taken.ascending)
        assert (heights.diff(dim=-1) >= 0).all()
    again = take_tokens(own, torch.argsort(torch.rand(3, 7), dim=1))
    assert again.elevation.shape == (3, 7)


def test_another_number_of_samples_is_refused():
    context = made_domain().context(torch.zeros(3, 12, 2))
    with pytest.raises(ModelError, match=r"2 samples or 1\n  found:    \(3, 12, 2\)"):
        take_tokens(context, torch.zeros(2, 5, dtype=torch.long))


def test_a_domain_is_in_no_checkpoint_and_keeps_its_types():
    domain = made_domain()
    before = {name: x.dtype for name, x in domain.named_buffers()}
    assert domain.state_dict() == {} and len(before) == 9
    for moved in (domain.half(), domain.float(), domain.to(torch.bfloat16)):
        assert {name: x.dtype for name, x in moved.named_buffers()} == before
    there = nn.Sequential(domain).to("meta")[0]
    assert {x.device.type for x in there.buffers()} == {"meta"}


def test_what_is_not_of_the_tokens_is_refused():
    domain = made_domain()
    for wind, lead in (((1, 11, 2), None), ((2, 12), None), ((2, 12, 2), (3,))):
        with pytest.raises(ModelError, match=r"\(B, 12, 2\) and \(B,\)"):
            domain.context(torch.zeros(wind), None if lead is None else torch.zeros(lead))
    line = np.arange(5.0)
    with pytest.raises(ModelError, match="elevation is not of the tokens"):
        TokenDomain(line, line, line[:4])
    with pytest.raises(ModelError, match="left is not of the tokens"):
        TokenDomain(line, line, line, ridge=(np.zeros((4, 2)), np.zeros((5, 2))))
