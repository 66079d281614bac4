"""The network: order of the tokens, which tokens, lead times, absent inputs, cost switches."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from aqnet.grid import GRIDS, Grid
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.network import Domain, FieldTransformer
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import MODEL_PRESETS, model_preset
from aqnet.model.ridge import RidgeFactors, factor_ridge, ridge_matrix
from aqnet.model.scan import Scan
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.variables import INPUTS, TARGETS

torch.set_num_threads(1)

GRID = Grid("hills", 30.0 + 0.4 * np.arange(12), 100.0 + 0.4 * np.arange(16))
SMALL = {"width": 32, "heads": 2, "depth": 2, "lead_times_h": (12, 24, 48)}
ALL = PhysicsConfig(ridge=True)


def terrain(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 600.0, GRID.shape)


def mask(full: bool = False) -> np.ndarray:
    rows, columns = np.indices(GRID.shape)
    return np.ones(GRID.shape, bool) if full else (rows - 4) ** 2 + (columns - 8) ** 2 < 30


def domain(config: ModelConfig, full: bool = False) -> Domain:
    """Hills with ridges, and orders if the configuration has a scan."""
    lat, lon = GRID.mesh()
    static = np.stack([lat, lon, terrain(), np.zeros(GRID.shape)])
    patches = GRID.patches(config.patch).shape
    cells = terrain().reshape(patches[0], config.patch, patches[1], config.patch)
    factors = factor_ridge(ridge_matrix(cells.mean((1, 3))), patches, 4)
    found = Domain(GRID, mask(full), static, RidgeFactors(*factors, {}, {}))
    if config.scan.mode == "none":
        return found
    scan, active = config.scan, found.tokens(config)
    spec = scan_spec(GRID, config.patch, scan.regions, scan.sectors, scan.lane_patches, active)
    return Domain(GRID, found.mask, static, found.ridge, build_orders(spec))


def shaken(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Every weight random: nothing is hidden by a start at zero."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=std if parameter.dim() > 1 else 0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    return module


def network(full: bool = False, seed: int = 0, channels=INPUTS, **changes) -> FieldTransformer:
    config = ModelConfig(**{**SMALL, **changes})
    torch.manual_seed(seed)
    return shaken(FieldTransformer(config, channels, domain(config, full))).eval()


def inputs(batch: int = 2, leads: int = 3, seed: int = 1, channels: int = 15) -> dict:
    torch.manual_seed(seed)
    return {
        "fields": torch.randn(batch, channels, *GRID.shape),
        "wind": 6 * torch.randn(batch, 2, 1, 1) + torch.randn(batch, 2, *GRID.shape),
        "calendar": torch.randn(batch, leads, 6),
    }


def one_lead(hours, **options) -> dict:
    lead = torch.as_tensor(hours, dtype=torch.float32)
    return {**inputs(len(lead), 1, **options), "lead_time_h": lead}


def random_scan(batch: int, n: int, seed: int = 0) -> Scan:
    torch.manual_seed(seed)
    order = torch.stack([torch.randperm(n) for _ in range(batch)])
    return Scan(order, order.argsort(1), torch.rand(batch, n), torch.rand(batch, n))


# ---- order of the tokens

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
    given["fields"].view(1, 15, -1)[:, :, first] += 3
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
    model, given = optional(), inputs(channels=17)
    before, all_there = model(**given, present=without_co()), model(**given)
    given["fields"][0, CO] += 7
    after = model(**given, present=without_co())
    assert torch.equal(after, before)
    assert (before[0] - all_there[0]).abs().max() > 1e-3
    torch.testing.assert_close(before[1], all_there[1])


def test_an_input_that_is_not_optional_may_not_be_absent():
    with pytest.raises(ModelError, match="all but rh"):
        optional(optional_inputs=("rh",))(**inputs(channels=17), present=without_co())
    with pytest.raises(ModelError, match="all but none"):
        network(channels=CHANNELS)(**inputs(channels=17), present=without_co())


def test_training_leaves_optional_inputs_out_by_chance():
    given = {name: x[:1].expand(400, *x.shape[1:]) for name, x in inputs(channels=17).items()}
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
    model(**inputs(channels=17), present=without_co()).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


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


def test_a_domain_that_lacks_what_the_configuration_needs():
    bare = domain(ModelConfig(**SMALL))
    bare = Domain(GRID, bare.mask, bare.static)
    ranked = ScanConfig(mode="region", regions=(2, 2), rank_embedding=True)
    with pytest.raises(ModelError, match="aqnet wind-scan build"):
        FieldTransformer(ModelConfig(**SMALL, scan=ranked), INPUTS, bare)
    with pytest.raises(ModelError, match="aqnet terrain build"):
        FieldTransformer(ModelConfig(**SMALL, physics=ALL), INPUTS, bare)


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
    with pytest.raises(ModelError, match=words):
        FieldTransformer(ModelConfig(**other), INPUTS, orders)


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


def test_digests_follow_the_content():
    config = ModelConfig(**SMALL, scan=ScanConfig(mode="region", regions=(2, 2)))
    one, two = domain(config), domain(config)
    assert one.digests() == two.digests()
    assert set(one.digests()) == {"grid_sha256", "mask_sha256", "scan_sha256", "terrain_sha256"}
    assert all(len(digest) == 64 for digest in one.digests().values())
    other = ModelConfig(**SMALL, scan=ScanConfig(mode="region", regions=(3, 2)))
    assert domain(other).digests()["scan_sha256"] != one.digests()["scan_sha256"]
    assert domain(config, full=True).digests()["mask_sha256"] != one.digests()["mask_sha256"]
    assert Domain(GRID, one.mask, one.static).digests()["scan_sha256"] is None


# ---- presets at their size


def test_the_reference_has_its_number_of_parameters():
    grid = GRIDS["china"]
    static = np.stack([*grid.mesh(), np.zeros(grid.shape), np.zeros(grid.shape)])
    where = Domain(grid, np.ones(grid.shape, bool), static)
    count = {}
    for name in ("china_reference", "published"):
        model = FieldTransformer(model_preset(name), INPUTS, where)
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
