"""Domains of a network: which patches are tokens, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from network_case import ALL, GRID, SMALL, domain, inputs, network
from torch import nn

from aqnet.grid import Grid
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.network import Domain, FieldTransformer
from aqnet.model.scan_cache import save_scan
from aqnet.variables import INPUTS, STATIC

# ---- which tokens


@pytest.mark.parametrize("position", ["none", "sincos", "learned"])
@pytest.mark.parametrize("physics", [None, ALL])
def test_active_tokens_are_all_tokens_where_all_have_data(position, physics):
    changes = {"position": position, "physics": physics}
    active = network(full=True, **changes)
    every = network(full=True, tokens="full", **changes)
    assert torch.equal(active(**inputs()), every(**inputs()))


def test_a_token_is_the_same_whichever_others_there_are():
    """Without attention, active tokens forecast what the full grid forecasts there."""
    active, every = network(physics=ALL), network(physics=ALL, tokens="full")
    assert len(active.cells) < len(every.cells) == 48
    every.load_state_dict(active.state_dict())
    active.blocks, every.blocks = nn.ModuleList(), nn.ModuleList()
    have, want = active(**inputs()), every(**inputs())
    inside = torch.zeros(GRID.shape, dtype=torch.bool).view(-1)
    inside[active.cells.flatten()] = True
    inside = inside.view(GRID.shape)
    torch.testing.assert_close(have[..., inside], want[..., inside], atol=1e-5, rtol=1e-5)
    assert not have[..., ~inside].any() and want[..., ~inside].any()


def test_what_lies_outside_the_tokens_is_not_looked_at():
    model, given = network(physics=ALL), inputs()
    before = model(**given)
    outside = torch.ones(GRID.shape[0] * GRID.shape[1], dtype=torch.bool)
    outside[model.cells.flatten()] = False
    for name in ("fields", "wind"):
        given[name].flatten(2)[:, :, outside] = torch.nan
    assert torch.equal(model(**given), before)


def test_the_setting_of_active_tokens_is_that_of_their_patches():
    active, every = network(physics=ALL), network(physics=ALL, tokens="full")
    at = torch.from_numpy(active_of(active.config)).flatten()
    for name in ("elevation", "patch", "left", "right", "up"):
        here, there = (getattr(model.places, name) for model in (active, every))
        if name != "up":
            assert torch.equal(here, there[at])
    assert torch.equal(active.position, every.position[at])
    assert active.places.patch_span == every.places.patch_span == (6, 8)


def active_of(config: ModelConfig) -> np.ndarray:
    return domain(config).tokens(config)


def test_a_margin_adds_the_neighbours():
    config = ModelConfig(**SMALL)
    inner = active_of(config)
    outer = active_of(ModelConfig(**SMALL, active_margin=1))
    rows, columns = np.nonzero(inner)
    near = np.zeros_like(inner)
    for r, c in zip(rows, columns, strict=True):
        near[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2] = True
    assert (outer == near).all() and outer.sum() > inner.sum()


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_change_of_input_stays_in_its_patch_without_attention(patch):
    model, given = network(full=True, patch=patch), inputs()
    model.blocks = nn.ModuleList()
    before = model(**given)
    given["fields"][:, :, 5, 6] += 20
    moved = ((model(**given) - before).abs().amax((0, 1, 2)) > 1e-4).nonzero()
    rows, columns = moved[:, 0], moved[:, 1]
    assert (rows // patch == 5 // patch).all() and (columns // patch == 6 // patch).all()
    assert len(moved) == patch**2


# ---- what is refused


def test_a_domain_that_lacks_what_the_configuration_needs():
    bare = domain(ModelConfig(**SMALL))
    bare = Domain(GRID, bare.mask, bare.static)
    ranked = ScanConfig(mode="region", regions=(2, 2), rank_embedding=True)
    which = "aqnet wind-scan build --manifest NAME --margin 1 --patch-size 2 --regions 2 2 "
    with pytest.raises(ModelError, match=which):
        FieldTransformer(ModelConfig(**SMALL, scan=ranked, active_margin=1), INPUTS, bare)
    with pytest.raises(ModelError, match=r"build --grid .* --active all --patch-size 2"):
        FieldTransformer(ModelConfig(**SMALL, scan=ranked, tokens="full"), INPUTS, bare)
    with pytest.raises(ModelError, match="aqnet terrain build"):
        FieldTransformer(ModelConfig(**SMALL, physics=ALL), INPUTS, bare)


def test_ridges_of_another_grid_are_refused():
    """Also where it has as many patches."""
    good, config = domain(ModelConfig(**SMALL)), ModelConfig(**SMALL, physics=ALL)
    moved = Grid("moved", GRID.lat + 0.4, GRID.lon)
    elsewhere = Domain(moved, good.mask, good.static, good.ridge)
    with pytest.raises(ModelError, match=f"48 patches of the grid {moved.digest[:12]}"):
        FieldTransformer(config, INPUTS, elsewhere)
    nameless = Domain(GRID, good.mask, good.static, replace(good.ridge, header={}))
    with pytest.raises(ModelError, match="48 patches of the grid not stated"):
        FieldTransformer(config, INPUTS, nameless)
    fewer = replace(good.ridge, left=good.ridge.left[:12], right=good.ridge.right[:12])
    with pytest.raises(ModelError, match=r"found: *12 patches"):
        FieldTransformer(config, INPUTS, Domain(GRID, good.mask, good.static, fewer))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scan": {"regions": (3, 2)}}, r"regions = \(3, 2\)(.|\n)*regions = \(2, 2\)"),
        ({"scan": {"sectors": 8}}, "sectors = 8"),
        ({"scan": {"lane_patches": 2}}, "lane_patches = 2"),
        ({"tokens": "full"}, "tokens = 48"),
        ({"patch": 4}, "patch = 4"),
    ],
)
def test_orders_of_something_else_are_refused(changes, words):
    scan = {"mode": "region", "regions": (2, 2), "rank_embedding": True}
    orders = domain(ModelConfig(**SMALL, scan=ScanConfig(**scan)))
    other = {**SMALL, **changes, "scan": ScanConfig(**{**scan, **changes.get("scan", {})})}
    with pytest.raises(ModelError, match=words) as caught:
        FieldTransformer(ModelConfig(**other), INPUTS, orders)
    assert "aqnet wind-scan build --" in str(caught.value)


def test_domains_that_do_not_fit_are_refused():
    good = domain(ModelConfig(**SMALL))
    with pytest.raises(ModelError, match="the mask is not"):
        Domain(GRID, good.mask[:-1], good.static)
    with pytest.raises(ModelError, match="at least one cell"):
        Domain(GRID, np.zeros(GRID.shape, bool), good.static)
    with pytest.raises(ModelError, match="static fields"):
        Domain(GRID, good.mask, good.static[:3])
    gaps = good.static.copy()
    gaps[2, 0, 0] = np.nan
    with pytest.raises(ModelError, match="1 without"):
        Domain(GRID, good.mask, gaps)
    unknown = good.static.copy()
    unknown[STATIC.index("population"), good.mask] = np.nan
    with pytest.raises(ModelError, match=r"no value in the domain(.|\n)*none of population"):
        Domain(GRID, good.mask, unknown)
    unknown[STATIC.index("population")].flat[good.mask.argmax()] = 0.0
    Domain(GRID, good.mask, unknown)


def test_digests_follow_the_content(tmp_path):
    config = ModelConfig(**SMALL, scan=ScanConfig(mode="region", regions=(2, 2)))
    one, two = domain(config), domain(config)
    assert one.digests() == two.digests()
    assert set(one.digests()) == {"grid_sha256", "mask_sha256", "scan_sha256", "terrain_sha256"}
    assert all(len(digest) == 64 for digest in one.digests().values())
    assert one.digests()["scan_sha256"] == save_scan(tmp_path / "x.safetensors", one.orders)
    other = ModelConfig(**SMALL, scan=ScanConfig(mode="region", regions=(3, 2)))
    assert domain(other).digests()["scan_sha256"] != one.digests()["scan_sha256"]
    assert domain(config, full=True).digests()["mask_sha256"] != one.digests()["mask_sha256"]
    assert Domain(GRID, one.mask, one.static).digests()["scan_sha256"] is None
