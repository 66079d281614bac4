"""Cells and patches, positions, dropout, lead time, rank and decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.model.config import ModelConfig
from aqnet.model.domain import cells_of
from aqnet.model.layers import (
    Block,
    ByteDropout,
    DropPath,
    LeadDecoder,
    LeadEmbedding,
    Persistence,
    RankEmbedding,
    lead_features,
    patch_wind,
    place_cells,
    sincos_position,
    take_cells,
)
from aqnet.model.presets import model_preset
from aqnet.model.scan import Scan
from aqnet.variables import INPUTS, TARGETS

torch.set_num_threads(1)


# ---- cells


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16 - 1))
def test_cells_return_to_their_place(patch, rows, columns, bits):
    active = np.array([bits >> i & 1 for i in range(rows * columns)], bool).reshape(rows, columns)
    active[0, 0] = True
    cells = torch.from_numpy(cells_of(active, patch))
    shape = (rows * patch, columns * patch)
    fields = torch.arange(1, 1.0 + 2 * 3 * shape[0] * shape[1]).view(2, 3, *shape)
    taken = take_cells(fields, cells)
    assert taken.shape == (2, active.sum(), 3, patch**2)
    back = place_cells(taken[:, None], cells, shape)[:, 0]
    inside = torch.from_numpy(np.kron(active, np.ones((patch, patch), bool)))
    assert torch.equal(back, fields * inside)


def test_patches_run_row_by_row_of_neighbours():
    cells = cells_of(np.ones((2, 2), bool), 2)
    assert cells.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_the_wind_of_a_patch_is_the_mean_of_its_known_cells():
    cells = torch.from_numpy(cells_of(np.ones((1, 3), bool), 2))
    wind = torch.zeros(1, 2, 2, 6)
    wind[0, 0], wind[0, 1] = 4.0, torch.arange(12.0).view(2, 6)
    wind[0, 0, 0, 2] = torch.nan  # u alone is missing: the cell does not count for v either
    wind[0, 1, :, 4:] = torch.nan
    mean = patch_wind(wind, cells)
    expected = [[4.0, (0 + 1 + 6 + 7) / 4], [4.0, (3 + 8 + 9) / 3], [0.0, 0.0]]
    torch.testing.assert_close(mean[0], torch.tensor(expected))


# ---- positions


@pytest.mark.parametrize("width", [8, 16, 18])
def test_positions_differ(width):
    place = sincos_position(5, 7, width)
    assert place.shape == (35, width)
    distance = torch.cdist(place, place) + torch.eye(35)
    assert distance.min() > 0.1
    swapped = sincos_position(7, 5, width).view(7, 5, width).transpose(0, 1).reshape(35, width)
    half = 2 * (width // 4)
    torch.testing.assert_close(place[:, :half], swapped[:, half : 2 * half])


def test_the_rank_embedding_starts_at_zero_and_sees_its_ranks():
    order = torch.arange(6).expand(2, -1)
    scan = Scan(order, order, torch.rand(2, 6), torch.rand(2, 6))
    other = Scan(order, order, scan.rank_domain, torch.rand(2, 6))
    for mode, regional in (("domain", False), ("region", True), ("lanes", True)):
        layer = RankEmbedding(mode, 8)
        assert layer(scan).shape == (2, 6, 8) and not layer(scan).any()
        torch.nn.init.normal_(layer.out.weight)
        assert torch.equal(layer(scan), layer(other)) != regional


# ---- lead time


def test_every_hour_has_its_own_features_of_like_size():
    hours = torch.arange(1, 121)
    features = lead_features(hours)
    assert features.abs().max() <= 1 and torch.isfinite(features).all()
    apart = torch.cdist(features, features) + torch.eye(120)
    assert apart.min() > 0.05
    lengths = LeadEmbedding(768, "scaled")(hours).norm(dim=-1)
    assert lengths.max() < 3 * lengths.min()


def test_raw_hours_are_the_published_form():
    layer = LeadEmbedding(8, "raw_hours")
    want = torch.nn.functional.linear(torch.tensor([[12.0]]), layer.out.weight, layer.out.bias)
    assert torch.equal(layer(torch.tensor([12])), want[:, None])


# ---- dropout


def test_byte_dropout_keeps_the_mean_and_the_share():
    torch.manual_seed(0)
    layer, x = ByteDropout(0.2).train(), torch.ones(1000, 1003)
    out = layer(x)
    share = 51 / 256
    assert (out == 0).float().mean() == pytest.approx(share, abs=2e-3)
    assert out.max() == pytest.approx(1 / (1 - share))
    assert out.mean() == pytest.approx(1, abs=3e-3)
    for shift in (1, 8, 1003):  # bytes of one word and of neighbours are independent
        a, b = (out == 0).float().flatten()[:-shift], (out == 0).float().flatten()[shift:]
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 5e-3
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(ByteDropout(0.0).train()(x), x)


@pytest.mark.parametrize("inplace", [False, True])
def test_byte_dropout_gives_the_gradient_what_it_gave_the_values(inplace):
    layer, leaf = ByteDropout(0.4, inplace).train(), torch.randn(50, 40, requires_grad=True)
    x = leaf * 1.0
    kept = x.detach().clone()
    out = layer(x)
    assert (out is x) == inplace  # what is left of the input has the gradient of the output
    grad = torch.randn(50, 40)
    out.backward(grad)
    factor = out.detach() / kept  # 0, or the gain
    torch.testing.assert_close(leaf.grad, grad * factor)
    assert 0.3 < (factor == 0).float().mean() < 0.5
    assert torch.equal(x, out) == inplace  # only then is the input no longer what it was
    assert inplace or torch.equal(x, kept)


@pytest.mark.parametrize(("share", "rounded"), [(0.001, 1), (0.999, 255)])
def test_byte_dropout_leaves_out_something_but_not_everything(share, rounded):
    out = ByteDropout(share).train()(torch.ones(1000, 1000))
    assert (out == 0).float().mean() == pytest.approx(rounded / 256, abs=1e-3)
    assert out.max() == pytest.approx(256 / (256 - rounded))


def test_byte_dropout_follows_the_seed():
    layer, x = ByteDropout(0.5).train(), torch.ones(37)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_drop_path_is_of_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25).train(), torch.ones(4000, 3, 2)
    out = layer(x)
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))
    assert (out == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert out.max() == pytest.approx(1 / 0.75)
    assert torch.equal(layer.eval()(x), x)


def test_drop_path_rises_linearly_over_the_blocks():
    config = ModelConfig(depth=5, width=8, heads=1, drop_path=0.2)
    shares = [Block(config, i).drop_path.share for i in range(5)]
    assert shares == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def block_of_one_part(part: str, **changes) -> Block:
    """Last block, in training, that adds "attention" or "mlp" alone; that ends in an identity."""
    torch.manual_seed(0)
    config = ModelConfig(width=8, heads=2, depth=2, mlp_ratio=1, **changes)
    block = Block(config, 1).double().train()
    torch.nn.init.eye_(block.mlp[3].weight)
    torch.nn.init.zeros_(block.mlp[3].bias)
    silent = block.mlp[3] if part == "attention" else block.attention.project
    for weight in silent.parameters():
        torch.nn.init.zeros_(weight)
    return block


def left_out(block: Block, share: float) -> torch.Tensor:
    """Where a block in training adds nothing; elsewhere it adds its mean / (1 - share)."""
    tokens = torch.randn(1, 3, 8).double().expand(4000, -1, -1)
    with torch.no_grad():
        added = block(tokens, None) - tokens
        expected = block.eval()(tokens, None) - tokens
    gone = added.abs() < expected.abs() / 2
    torch.testing.assert_close(added, torch.where(gone, 0.0, expected / (1 - share)))
    return gone.double()


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_drop_path_leaves_out_parts_of_a_block_for_whole_samples(part):
    gone = left_out(block_of_one_part(part, drop_path=0.75), 0.75)
    assert torch.equal(gone.amax((1, 2)), gone.amin((1, 2)))
    assert gone.mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("part", ["attention", "mlp", "inside the mlp"])
def test_dropout_leaves_out_single_features_of_a_block(part):
    block = block_of_one_part(part, dropout=0.25)
    (block.dropout if part == "inside the mlp" else block.mlp[2]).eval()
    assert left_out(block, 0.25).mean((0, 1)).sub(0.25).abs().max() < 0.03


# ---- decoder


def decoder_of(**changes) -> LeadDecoder:
    torch.manual_seed(0)
    decoder = LeadDecoder(ModelConfig(**{"width": 16, **changes}), INPUTS).eval()
    torch.nn.init.normal_(decoder.out.weight)
    torch.nn.init.normal_(decoder.out.bias)
    return decoder


def test_an_untrained_decoder_says_the_mean():
    decoder = LeadDecoder(ModelConfig(width=16, decoder_depth=2))
    assert not decoder(torch.randn(2, 5, 16), torch.randn(2, 4, 6)).any()
    assert len(decoder.layers) == 2


@pytest.mark.parametrize("switch", [True, False])
def test_calendar_conditions_the_decoder_if_wanted(switch):
    decoder, tokens = decoder_of(calendar=switch), torch.randn(2, 5, 16)
    a, b = (decoder(tokens, torch.randn(2, 4, 6)) for _ in range(2))
    assert torch.equal(a, b) != switch
    assert (a[:, 0] - a[:, 1]).abs().max() > 1e-3, "the lead time counts"


def test_one_lead_time_a_sample():
    decoder = decoder_of(lead_mode="one")
    tokens, calendar = torch.randn(1, 5, 16).expand(3, -1, -1), torch.zeros(3, 1, 6)
    out = decoder(tokens, calendar, torch.tensor([1.0, 37.0, 37.0]))
    assert out.shape == (3, 1, 5, 6, 4)
    torch.testing.assert_close(out[1], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_all_variables_are_the_rows_of_the_targets():
    decoder = LeadDecoder(model_preset("published", width=16), INPUTS)
    torch.nn.init.normal_(decoder.out.weight)
    torch.nn.init.normal_(decoder.out.bias)
    tokens = torch.randn(2, 5, 16)
    everything = decoder.out(decoder.layers(decoder.norm(tokens))).unflatten(-1, (len(INPUTS), 4))
    have = decoder.eval()(tokens, torch.zeros(2, 1, 6), torch.ones(2))[:, 0]
    want = everything[:, :, [INPUTS.index(name) for name in TARGETS]]
    torch.testing.assert_close(have, want, atol=1e-6, rtol=1e-6)
    assert decoder.film is None


# ---- persistence


@pytest.mark.parametrize("mode", ["all", "one"])
def test_half_of_the_present_at_the_start(mode):
    config = ModelConfig(lead_mode=mode, lead_times_h=(12, 24, 48), persistence=True)
    present = Persistence(config, INPUTS)
    torch.manual_seed(0)
    cells, leads = torch.randn(2, 5, len(INPUTS), 4), 1 if mode == "one" else 3
    hours = torch.tensor([6.0, 90.0]) if mode == "one" else None
    given = (cells, torch.randn(2, leads, 6), hours)
    at = [INPUTS.index(name) for name in TARGETS]
    half = (0.5 * cells[:, None, :, at]).expand(2, leads, 5, 6, 4)
    torch.testing.assert_close(present(*given), half)
    torch.nn.init.normal_(present.share.weight)
    changed = present(*given)
    if mode == "one":
        share = (changed / cells[:, None, :, at]).mean((1, 2, 4))
        assert (share[0] - share[1]).abs().min() > 1e-3, "a share for each lead time"
    else:
        assert (changed[:, 0] / changed[:, 2] - 1).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optional_inputs": ("co",)}, "targets among the required inputs"),
        ({"lead_embedding": "raw_hours", "lead_mode": "one", "calendar": False}, "published form"),
        ({"correction": True}, "choose one"),
    ],
)
def test_persistence_needs_what_it_starts_from(changes, problem):
    with pytest.raises(ValueError, match=problem):
        ModelConfig(persistence=True, **changes)
