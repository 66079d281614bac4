"""The network in the order of a wind scan: what depends on it, and what does not."""

from __future__ import annotations

import pytest
import torch
from network_case import ALL, inputs, network
from torch import nn

from aqnet.model.config import ScanConfig
from aqnet.model.network import FieldTransformer
from aqnet.model.scan import Scan


def random_scan(batch: int, n: int, seed: int = 0) -> Scan:
    torch.manual_seed(seed)
    order = torch.stack([torch.randperm(n) for _ in range(batch)])
    return Scan(order, order.argsort(1), torch.rand(batch, n), torch.rand(batch, n))


CORES = {
    "plain": None,
    "fused": ALL,
    "downhill": ALL.model_copy(update={"elevation": "source_uphill"}),
    "blockwise": ALL.model_copy(update={"position": "bucketed", "block": 5}),
    "dense": ALL.model_copy(update={"position": "bucketed", "stretch": True, "method": "dense"}),
}


@pytest.mark.parametrize("core", CORES)
def test_any_order_gives_the_same_where_nothing_depends_on_it(core):
    model = network(physics=CORES[core])
    seen, n = [], len(model.cells)
    encode = model.encode
    plain = model(**inputs())
    for seed in range(3):
        scan = random_scan(2, n, seed)
        model.encode = lambda tokens, context, _, scan=scan: encode(tokens, context, scan)
        seen.append(model(**inputs()))
    for out in seen:
        torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-5)
    assert plain.std() > 0.1


def test_any_order_gives_the_same_gradients():
    model = network(physics=ALL)
    encode, found = model.encode, []
    for scan in (None, random_scan(2, len(model.cells))):
        model.encode = lambda tokens, context, _, scan=scan: encode(tokens, context, scan)
        model.zero_grad()
        model(**inputs()).square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_scan_that_nothing_depends_on_is_skipped_with_a_warning():
    with pytest.warns(UserWarning, match="changes nothing"):
        model = network(scan=ScanConfig(mode="region", regions=(2, 2)))
    assert model.scan is None
    assert torch.equal(model(**inputs()), network()(**inputs()))


@pytest.mark.parametrize("mode", ["domain", "region", "lanes"])
def test_the_rank_embedding_makes_the_wind_matter(mode):
    model = network(scan=ScanConfig(mode=mode, regions=(2, 2), rank_embedding=True))
    given = inputs()
    turned = {**given, "wind": -given["wind"]}
    assert (model(**given) - model(**turned)).abs().max() > 1e-3
    plain = network()
    assert torch.equal(plain(**given), plain(**turned))
    nn.init.zeros_(model.rank.out.weight)
    assert torch.equal(model(**given), model(**turned))


def test_modes_of_the_rank_embedding_differ():
    found = [
        network(scan=ScanConfig(mode=mode, regions=(2, 2), rank_embedding=True))(**inputs())
        for mode in ("domain", "region")
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3


def windowed(window: int, **changes) -> FieldTransformer:
    scan = ScanConfig(mode="lanes", regions=(2, 2), lane_patches=2, window=window)
    return network(scan=scan, **changes)


def test_windows_follow_the_lanes_of_the_wind():
    given, model = inputs(), windowed(6)
    turned = {**given, "wind": given["wind"].flip(1) * torch.tensor([1.0, -1.0]).view(2, 1, 1)}
    assert (model(**given) - model(**turned)).abs().max() > 1e-3


def test_a_window_of_all_tokens_is_no_window():
    n = len(network().cells)
    for physics in (None, ALL):
        have = windowed(2 * n, physics=physics, depth=1)(**inputs())
        want = network(physics=physics, depth=1)(**inputs())
        torch.testing.assert_close(have, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_tokens_of_a_window_see_each_other_and_the_shift_joins_windows(depth):
    model, given = windowed(6, depth=depth, position="none"), inputs(1)
    scan = model.scan(given["wind"][:, 0], given["wind"][:, 1], model.mask)
    before = model(**given)
    first = model.cells[scan.order[0, 0]]
    given["fields"].flatten(2)[:, :, first] += 3
    changed = (model(**given) - before).abs().amax((0, 1, 2)).flatten()[model.cells].amax(1) > 1e-5
    reached = scan.place[0][changed].tolist()
    assert set(reached) == set(range(6 if depth == 1 else 9))


def test_legacy_permutes_tokens_alone_and_never_puts_them_back():
    scan = ScanConfig(mode="legacy", regions=(3, 2))
    model = network(full=True, tokens="full", scan=scan, physics=ALL)
    given = inputs()
    order = model.scan(given["wind"][:, 0], given["wind"][:, 1], model.mask).order
    assert not torch.equal(order[0], torch.arange(48))
    plain = network(full=True, tokens="full", physics=ALL)
    plain.load_state_dict(model.state_dict())
    # The same as a network whose fields were shuffled, wind and terrain left where they are.
    shuffled = given["fields"].clone().flatten(2)
    for b in range(2):
        shuffled[b][:, plain.cells] = given["fields"].flatten(2)[b][:, plain.cells[order[b]]]
    want = plain(**{**given, "fields": shuffled.view_as(given["fields"])})
    torch.testing.assert_close(model(**given), want, atol=1e-5, rtol=1e-5)
    assert (plain(**given) - want).abs().max() > 0.01
