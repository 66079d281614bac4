"""Configuration of the network: what fits, what is refused and in which words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import MODEL_PRESETS, model_preset
from aqnet.variables import DYNAMIC


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_presets_survive_json(name):
    preset = model_preset(name)
    assert ModelConfig.model_validate_json(preset.model_dump_json(), strict=True) == preset


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ModelError, match="beijing, china, china_reference, published"):
        model_preset("lumi")


def test_a_change_of_a_preset_is_checked():
    assert model_preset("china", depth=2).depth == 2
    assert MODEL_PRESETS["china"].depth == 6
    with pytest.raises(ModelError, match=r"'china' does not take(.|\n)*heads = 7"):
        model_preset("china", heads=7)
    with pytest.raises(ModelError, match=r"widht(.|\n)*correct these fields"):
        model_preset("china", widht=7)
    with pytest.raises(ModelError, match=r"physics_blocks"):
        model_preset("china", depth=2, physics_blocks=(0, 2))


LEAD = PhysicsConfig(plume="lead")
REFUSED = [
    ({"lead_times_h": ()}, "lead_times_h"),
    ({"lead_times_h": (0, 12)}, "lead_times_h"),
    ({"lead_times_h": (12, 121)}, "lead_times_h"),
    ({"lead_times_h": (24, 12)}, "lead_times_h must increase"),
    ({"lead_times_h": (12, 12)}, "lead_times_h must increase"),
    ({"history_h": (6,)}, "history_h must start at 0"),
    ({"history_h": (0, 6, 6)}, "history_h must start at 0 and increase"),
    ({"optional_inputs": ("ozone",)}, "optional_inputs names"),
    ({"optional_inputs": ("co", "co")}, "name variables once"),
    ({"optional_inputs": DYNAMIC}, "at least one required"),
    ({"optional_inputs": ("population",)}, "fixed fields are always there"),
    ({"width": 64, "heads": 5}, "heads = 5 does not divide width = 64"),
    ({"width": 8, "heads": 4, "physics": PhysicsConfig()}, "rotary"),
    ({"physics_blocks": "first_block_only"}, "physics is off"),
    ({"physics": PhysicsConfig(), "physics_blocks": (1, 0)}, "must increase"),
    ({"physics": PhysicsConfig(), "physics_blocks": (2,), "depth": 2}, "below depth = 2"),
    ({"physics": PhysicsConfig(), "physics_blocks": ()}, "names no block"),
    ({"physics": LEAD}, "lead_mode = 'one'"),
    ({"lead_embedding": "raw_hours"}, "belongs to lead_mode = 'one'"),
    ({"lead_embedding": "raw_hours", "lead_mode": "one"}, "set calendar = False"),
    ({"scan": ScanConfig(mode="legacy")}, "tokens = 'full'"),
    ({"tokens": "full", "active_margin": 1}, "active_margin = 1"),
    ({"outputs": "all_variables", "optional_inputs": ("co",)}, "all targets among the required"),
    ({"dropout": 1.0}, "dropout"),
    ({"drop_path": -0.1}, "drop_path"),
    ({"drop_path": 0.1, "depth": 1}, "drop_path = 0.1 with depth = 1"),
    ({"input_noise": float("nan")}, "input_noise"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(fields, words):
    with pytest.raises(ValidationError, match=words):
        ModelConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "region", "window": 64}, "window = 64 needs mode = 'lanes'"),
        ({"mode": "lanes", "window": 1}, "window = 1"),
        ({"rank_embedding": True}, "rank_embedding needs mode"),
        ({"mode": "legacy", "rank_embedding": True}, "rank_embedding needs mode"),
        ({"mode": "spiral"}, "mode"),
        ({"sectors": 10}, "multiple of 4"),
        ({"regions": (0, 4)}, "regions"),
    ],
)
def test_a_scan_that_does_not_fit_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        ScanConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, False),
        ({"window": 8}, False),  # along the rows
        ({"mode": "region"}, False),  # nothing depends on it
        ({"mode": "region", "rank_embedding": True}, True),
        ({"mode": "lanes", "window": 8}, True),
        ({"mode": "legacy"}, True),
    ],
)
def test_which_scans_read_the_orders_along_the_wind(fields, needed):
    assert ScanConfig(**fields).needs_orders == needed


@pytest.mark.parametrize("how", [{"kernel": "efficient"}, {"method": "dense"}, {"block": 7}])
def test_how_attention_is_computed_is_no_setting_of_the_function(how):
    here, there = (ModelConfig(physics=PhysicsConfig(**which)) for which in ({}, how))
    assert here != there and here.settings() == there.settings()
    other = ModelConfig(physics=PhysicsConfig(ridge=True))
    assert here.settings() != other.settings()
    assert ModelConfig().settings() == ModelConfig().model_dump(mode="json")


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [("all", (0, 1, 2)), ("first_block_only", (0,)), ((1, 2), (1, 2))],
)
def test_blocks_with_physics(blocks, expected):
    fields = {"depth": 3, "physics": PhysicsConfig(), "physics_blocks": blocks}
    assert ModelConfig(**fields).physics_indices == expected
    assert ModelConfig(depth=3).physics_indices == ()
