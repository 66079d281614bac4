"""Every parameter is in one group, with the learning rate and weight decay of its kind."""

from __future__ import annotations

import network_case
import numpy as np
import pytest
import torch
from torch import nn
from toy_training import ToyForecaster, config

from aqnet.data.made_up import static_stack
from aqnet.grid import Grid
from aqnet.model.attention import ModelError
from aqnet.model.config import ScanConfig
from aqnet.model.domain import Domain
from aqnet.model.network import FieldTransformer
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig
from aqnet.model.presets import MODEL_PRESETS
from aqnet.training.config import GROUPS
from aqnet.training.optimisation import make_optimiser, parameter_groups, set_rate
from aqnet.variables import INPUTS

SMALL = {"width": 16, "heads": 2, "depth": 3}


def network(preset: str) -> FieldTransformer:
    """A preset on a small grid, narrow, without ridges (which need a cache)."""
    model = MODEL_PRESETS[preset].model_dump() | SMALL
    if model["physics"]:
        model["physics"] |= {"ridge": False}
    grid = Grid("small", 30 + 0.4 * np.arange(8), 100 + 0.4 * np.arange(8))
    hills = np.random.default_rng(0).gamma(2, 600, (8, 8))
    static = static_stack(grid, elevation=hills, population=0)
    built = type(MODEL_PRESETS[preset])(**model)
    return FieldTransformer(built, INPUTS, Domain(grid, np.ones((8, 8), bool), static))


def by_name(model: nn.Module, **changes) -> dict[str, dict]:
    """Group of each parameter; fails if one is in none or in two."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, config(**changes))
    found = [(names[id(p)], group) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    assert {group["name"].split(",")[0].split(".")[0] for group in groups} <= set(GROUPS)
    return dict(found)


@pytest.mark.parametrize("preset", sorted(MODEL_PRESETS))
def test_each_parameter_of_each_preset_is_in_one_group(preset):
    model = network(preset)
    found = by_name(model, weight_decay=0.3)
    norms = {f"{name}.{leaf}" for name, module in model.named_modules()
             if isinstance(module, nn.LayerNorm) for leaf in ("weight", "bias")}  # fmt: skip
    for name, group in found.items():
        leaf = name.rpartition(".")[2]
        single = ("query", "position", "raw", "table", "name")
        free = name in norms or "bias" in leaf or leaf in single
        free = free or name == "lead.out.weight"
        assert group["weight_decay"] == (0.0 if free else 0.3), name
        if leaf == "raw":
            assert group["name"] == "strengths, no decay"
        elif name.startswith("blocks") and leaf != "table":
            assert group["name"].startswith("blocks")
    assert found["decode.out.weight"]["name"] == "decoder"
    assert found["tokens.weight"]["name"] == "embedding"


def test_embeddings_of_ranks_and_lead_times_do_not_decay():
    ranks = ScanConfig(mode="domain", regions=(2, 2), sectors=8, rank_embedding=True)
    model = network_case.network(scan=ranks, lead_mode="one")
    found = by_name(model, weight_decay=0.3)
    decayed = {name for name, group in found.items() if group["weight_decay"]}
    assert {"rank.out.weight", "lead.out.weight"} <= set(found) - decayed
    assert {"tokens.weight", "blocks.0.mlp.0.weight", "decode.out.weight"} <= decayed
    assert all(found[name]["name"].startswith("embedding") for name in found if "rank" in name)


def test_strengths_of_every_bias_are_found():
    model = nn.Module()
    model.blocks = nn.ModuleList([PhysicsAttention(4, PhysicsConfig(ridge=True))])
    found = by_name(model)
    assert found and {group["name"] for group in found.values()} == {"strengths, no decay"}


def test_rates_of_groups_and_layers():
    found = by_name(ToyForecaster(), rates={"blocks": 0.1, "embedding": 2.0, "strengths": 5.0},
                    layer_decay=0.5)  # fmt: skip
    factors = {name: group["factor"] for name, group in found.items()}
    assert factors["network.tokens.weight"] == 2.0 and factors["network.strength.raw"] == 5.0
    assert factors["network.blocks.1.1.weight"] == 0.1
    assert factors["network.blocks.0.1.weight"] == pytest.approx(0.05)
    assert factors["network.decoder.weight"] == factors["network.position"] == 1.0
    optimiser = make_optimiser(ToyForecaster(), config(rates={"blocks": 0.1}))
    set_rate(optimiser, 2e-4)
    rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
    assert rates["blocks"] == pytest.approx(2e-5) and rates["decoder"] == 2e-4


def test_a_parameter_of_no_group_is_named_and_a_frozen_one_is_left_out():
    model = ToyForecaster()
    model.network.tokens.weight.requires_grad_(False)
    groups = parameter_groups(model, config())
    assert not any(p is model.network.tokens.weight for g in groups for p in g["params"])
    model.network.surprise = nn.Parameter(torch.zeros(3))
    with pytest.raises(ModelError, match=r"network\.surprise belongs to no group"):
        parameter_groups(model, config())


def test_weight_decay_shrinks_matrices_and_nothing_else():
    model = ToyForecaster()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = make_optimiser(model, config(weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_rate(optimiser, 0.1)
    optimiser.step()
    for name, value in model.named_parameters():
        factor = 0.95 if name.endswith("weight") and value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * factor)
