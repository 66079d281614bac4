"""The network: lead times, absent inputs, winds, cost switches, presets at their size."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from network_case import ALL, GRID, SMALL, domain, inputs, network, one_lead, shaken

from aqnet.data.made_up import static_stack
from aqnet.grid import GRIDS
from aqnet.model.attention import ModelError, PlainAttention
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.network import Domain, FieldTransformer
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig, strength_parameters
from aqnet.model.presets import MODEL_PRESETS, model_preset
from aqnet.model.published import PUBLISHED_INPUTS
from aqnet.variables import INPUTS, TARGETS

# ---- lead times


def test_leads_of_one_pass_differ_and_share_the_encoder():
    model = network(physics=ALL)
    out = model(**inputs())
    assert out.shape == (2, 3, 6, *GRID.shape)
    assert (out[:, 0] - out[:, 2]).abs().max() > 1e-2


@pytest.mark.parametrize("plume", ["learned", "lead", "off"])
def test_one_lead_a_pass_serves_any_hour(plume):
    physics = PhysicsConfig(plume=plume)
    model = network(lead_mode="one", physics=physics, lead_times_h=(12, 96))
    hours = torch.arange(1, 121)
    given = one_lead([12.0])
    given = {name: x.expand(120, *x.shape[1:]) for name, x in given.items()}
    out = model(**{**given, "lead_time_h": hours})
    assert out.shape == (120, 1, 6, *GRID.shape) and torch.isfinite(out).all()
    flat = out.flatten(1)
    assert (flat[1:] - flat[:-1]).abs().amax(1).min() > 1e-6, "every hour has its own forecast"


def test_samples_of_a_batch_have_their_own_lead():
    model = network(lead_mode="one", physics=PhysicsConfig(plume="lead"))
    given = one_lead([6.0, 72.0])
    together = model(**given)
    for b in range(2):
        alone = model(**{name: x[b : b + 1] for name, x in given.items()})
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hour", [0.0, 121.0, -12.0, float("nan")])
def test_a_lead_time_out_of_range_is_refused(hour):
    with pytest.raises(ModelError, match="1 to 120 h"):
        network(lead_mode="one")(**one_lead([12.0, hour]))


def test_lead_times_belong_to_their_mode():
    with pytest.raises(ModelError, match="one lead time a sample for lead_mode 'one'"):
        network()(**one_lead([12.0]))
    with pytest.raises(ModelError, match="one lead time a sample for lead_mode 'one'"):
        network(lead_mode="one")(**inputs(leads=1))
    with pytest.raises(ModelError, match="do not fit the network"):
        network()(**inputs(leads=4))


# ---- absent inputs

CHANNELS = (*INPUTS, "co_6h", "rh_6h")
CO = [CHANNELS.index("co"), CHANNELS.index("co_6h")]


def optional(**changes) -> FieldTransformer:
    changes = {"optional_inputs": ("co", "rh"), "optional_dropout": 0.5, **changes}
    return network(channels=CHANNELS, **changes)


def without_co(batch: int = 2) -> torch.Tensor:
    present = torch.ones(batch, len(CHANNELS), dtype=torch.bool)
    present[0, CO] = False
    return present


def test_an_absent_input_does_not_count():
    model, given = optional(), inputs(channels=len(CHANNELS))
    before, all_there = model(**given, present=without_co()), model(**given)
    given["fields"][0, CO] += 7
    after = model(**given, present=without_co())
    assert torch.equal(after, before)
    assert (before[0] - all_there[0]).abs().max() > 1e-3
    torch.testing.assert_close(before[1], all_there[1])


def test_an_input_that_is_not_optional_may_not_be_absent():
    with pytest.raises(ModelError, match="all but rh"):
        optional(optional_inputs=("rh",))(**inputs(channels=len(CHANNELS)), present=without_co())
    with pytest.raises(ModelError, match="all but none"):
        network(channels=CHANNELS)(**inputs(channels=len(CHANNELS)), present=without_co())


def test_training_leaves_optional_inputs_out_by_chance():
    given = inputs(channels=len(CHANNELS))
    given = {name: x[:1].expand(400, *x.shape[1:]) for name, x in given.items()}
    model = optional(depth=1, width=8).train()
    torch.manual_seed(0)
    with torch.no_grad():
        found = [len(set(model(**given)[:, 0, 0, 4, 8].tolist())), None]
        seen = model(**given)[:, 0, 0, 4, 8].round(decimals=4)
        found[1] = seen.unique(return_counts=True)[1]
    assert found[0] == 4, "with and without co, with and without rh: both channels of each together"
    assert (found[1].float() / 400 - 0.25).abs().max() < 0.08
    assert (
        len(
            set(
                optional(optional_dropout=0.0, depth=1, width=8)
                .train()(**given)[:, 0, 0, 4, 8]
                .tolist()
            )
        )
        == 1
    )


def test_samples_without_an_input_train():
    model = optional().train()
    model(**inputs(channels=len(CHANNELS)), present=without_co()).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_without_u_or_v_the_physics_knows_no_wind():
    ranked = ScanConfig(mode="region", regions=(2, 2), rank_embedding=True)
    model = network(optional_inputs=("u", "v", "co"), physics=ALL, scan=ranked)
    given, present = inputs(), torch.ones(2, len(INPUTS), dtype=torch.bool)
    present[0, INPUTS.index("v")] = False
    unknown = given["wind"].clone()
    unknown[0] = torch.nan
    assert torch.equal(
        model(**given, present=present), model(**{**given, "wind": unknown}, present=present)
    )
    present = torch.ones(2, len(INPUTS), dtype=torch.bool)
    present[0, INPUTS.index("co")] = False
    before = model(**given, present=present)
    assert (before[0] - model(**{**given, "wind": unknown}, present=present)[0]).abs().max() > 1e-3


def test_training_that_leaves_out_the_wind_takes_it_from_the_physics_too():
    model = network(optional_inputs=("u",), optional_dropout=0.9, physics=ALL).train()
    given, seen = inputs(batch=40), []
    context = model.places.context
    model.places.context = lambda wind, lead: seen.append(wind) or context(wind, lead)
    torch.manual_seed(0)
    model(**given)
    calm = ~seen[0].flatten(1).any(1)
    assert 30 <= calm.sum() < 40


# ---- winds


def test_unknown_winds_are_calm_or_the_mean_of_their_neighbours():
    model, given = network(physics=ALL), inputs()
    given["wind"][:, :, ::2] = torch.nan
    half = model(**given)
    filled = given["wind"].clone()
    filled[:, :, ::2] = filled[:, :, 1::2]
    torch.testing.assert_close(half, model(**{**given, "wind": filled}), atol=1e-5, rtol=1e-5)
    nowhere = model(**{**given, "wind": torch.full_like(filled, torch.nan)})
    calm = model(**{**given, "wind": torch.zeros_like(filled)})
    assert torch.equal(nowhere, calm) and torch.isfinite(nowhere).all()


def test_gradients_are_finite_with_unknown_winds():
    scan = ScanConfig(mode="region", regions=(2, 2), rank_embedding=True)
    model, given = network(physics=ALL, scan=scan).train(), inputs()
    given["wind"][0] = torch.nan
    model(**given).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# ---- blocks with physics


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize(
    ("named", "where"), [("all", [0, 1, 2]), ("first_block_only", [0]), ((0, 2), [0, 2])]
)
def test_the_named_blocks_and_no_others_have_physics(named, where, window):
    model = network(
        depth=3, physics=ALL, physics_blocks=named, scan=ScanConfig(mode="none", window=window)
    )
    cores = [block.attention.core for block in model.blocks]
    cores = [core.core if window else core for core in cores]
    want = [PhysicsAttention if i in where else PlainAttention for i in range(3)]
    assert [type(core) for core in cores] == want
    parts = {"elevation.alpha", "plume.sigma", "plume.diffusivity", "plume.travel", "ridge.alpha"}
    for core in cores:
        found = {name.removesuffix(".raw") for name in strength_parameters(core)}
        assert found == (parts if isinstance(core, PhysicsAttention) else set())
    before = model(**inputs())
    for i in range(3):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for strength in strength_parameters(other.blocks[i]).values():
                strength += 1
        assert torch.equal(other(**inputs()), before) == (i not in where)


# ---- training and cost switches


@pytest.mark.parametrize("changes", [
    {"physics": ALL, "decoder_depth": 2, "position": "learned"},
    {"scan": ScanConfig(mode="region", regions=(2, 2), rank_embedding=True), "patch_norm": True},
    {"lead_mode": "one", "physics": PhysicsConfig(plume="lead")},
])  # fmt: skip
def test_every_weight_is_used(changes):
    model = network(**changes)
    one = model.config.lead_mode == "one"
    model(**(one_lead([12.0, 24.0]) if one else inputs())).square().mean().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Attention does not see the bias of its keys: in_proj_bias and qkv.bias have other parts.
    assert not idle


def test_an_untrained_network_says_the_mean():
    config = ModelConfig(**SMALL, physics=ALL)
    assert not FieldTransformer(config, INPUTS, domain(config))(**inputs()).any()


def test_checkpointed_blocks_give_the_same_gradients():
    model = network(physics=ALL, dropout=0.3, drop_path=0.3, depth=3).train()
    kept = copy.deepcopy(model)
    kept.checkpoint_blocks = True
    for m in (model, kept):
        torch.manual_seed(3)
        m(**inputs()).square().mean().backward()
    for a, b in zip(model.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_randomness_is_of_training_alone_and_follows_the_seed():
    model = network(dropout=0.3, drop_path=0.5)
    assert torch.equal(model(**inputs()), model(**inputs()))
    model.train()
    seen = []
    for seed in (0, 0, 1):
        given = inputs()
        torch.manual_seed(seed)
        seen.append(model(**given))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_bf16_autocast_is_close_and_gives_float32():
    model, given = network(physics=ALL), inputs()
    want = model(**given)
    with torch.autocast("cpu", torch.bfloat16):
        have = model(**given)
    assert have.dtype == torch.float32
    assert (have - want).norm() / want.norm() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        (
            {
                "lead_mode": "one",
                "dropout": 0.1,
                "drop_path": 0.1,
                "scan": ScanConfig(mode="region", regions=(2, 2), rank_embedding=True),
            },
            True,
        ),
        ({"physics": ALL.model_copy(update={"method": "dense"})}, True),
        # The backward pass of fused attention is written by hand and stays outside the graphs.
        ({"physics": ALL}, False),
        ({"scan": ScanConfig(mode="lanes", regions=(2, 2), window=6)}, True),
    ],
)
def test_compile_traces_it(changes, whole):
    model = network(**changes).train()
    given = one_lead([12.0, 24.0]) if model.config.lead_mode == "one" else inputs()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=whole, backend="eager")
    found = []
    for path in (model, compiled):
        model.zero_grad()
        torch.manual_seed(0)
        out = path(**given)
        out.square().mean().backward()
        found.append((out, [p.grad.clone() for p in model.parameters()]))
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)


def test_its_state_is_what_was_trained():
    scan = ScanConfig(mode="region", regions=(2, 2), rank_embedding=True)
    model = network(physics=ALL, scan=scan, optional_inputs=("co",))
    trained = {name for name, _ in model.named_parameters()}
    others = {name for name in model.state_dict() if name not in trained}
    assert all(name.endswith(".unit") for name in others), others
    again = network(physics=ALL, scan=scan, optional_inputs=("co",), seed=5)
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(**inputs()), again(**inputs()))


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "channels"),
    [
        ({}, ("u", "u")),
        ({}, ()),
        ({"outputs": "all_variables"}, ("u", "v")),
        ({"optional_inputs": ("co",)}, ("u", "v")),
    ],
)
def test_channels_that_do_not_fit_are_refused(changes, channels):
    config = ModelConfig(**SMALL, **changes)
    with pytest.raises(ModelError, match="the channels do not fit"):
        FieldTransformer(config, channels, domain(config))


@pytest.mark.parametrize("name", ["fields", "wind", "calendar"])
def test_shapes_that_do_not_fit_are_refused(name):
    given = inputs()
    given[name] = given[name][..., :-1]
    with pytest.raises(ModelError, match="the inputs do not fit the network"):
        network()(**given)


# ---- presets at their size


def test_the_reference_has_its_number_of_parameters():
    grid = GRIDS["china"]
    where = Domain(grid, np.ones(grid.shape, bool), static_stack(grid, elevation=0, population=0))
    count = {}
    for name in ("china_reference", "published"):
        model = FieldTransformer(model_preset(name), PUBLISHED_INPUTS, where)
        count[name] = sum(p.numel() for p in model.parameters())
        assert len(model.cells) == 8192
    assert count["china_reference"] == pytest.approx(52.5e6, rel=0.01)
    # The published 52,491,069 with one elevation strength for all heads; here each head has one.
    assert count["published"] == 52_491_069 + 7


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_presets_forecast(name):
    config = model_preset(name, width=32, heads=2, depth=2)
    model = shaken(FieldTransformer(config, INPUTS, domain(config))).eval()
    one = config.lead_mode == "one"
    out = model(**(one_lead([12.0, 96.0]) if one else inputs(leads=4)))
    assert out.shape[2:] == (len(TARGETS), *GRID.shape) and torch.isfinite(out).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FieldTransformer(config, INPUTS, domain(config))


# ---- persistence


def test_a_fresh_network_with_persistence_says_half_of_the_present():
    config = ModelConfig(**{**SMALL, "persistence": True})
    model, given = FieldTransformer(config, INPUTS, domain(config)).eval(), inputs()
    present = given["fields"][:, [INPUTS.index(name) for name in TARGETS]]
    inside = torch.zeros(GRID.shape[0] * GRID.shape[1], dtype=torch.bool)
    inside[model.cells.flatten()] = True
    expected = torch.where(inside.view(GRID.shape), 0.5 * present, 0.0)
    for forecast in model(**given).unbind(1):
        torch.testing.assert_close(forecast, expected)
