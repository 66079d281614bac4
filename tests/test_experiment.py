"""Experiments: presets, changes by flat names, refusals, and the notebook that offers them."""

from __future__ import annotations

import nbformat
import pytest
from notebook_tools import ROOT
from test_problem import recorded  # noqa: F401

from aqnet.errors import AqnetError, ParameterError
from aqnet.io import repository_root
from aqnet.jobs.notebook import code_cells, read_notebook, run_checks
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameters import resolve
from aqnet.jobs.runs import latest_run
from aqnet.model.config import ModelConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import MODEL_PRESETS
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.config import TrainingConfig
from aqnet.training.experiment import (
    EXPERIMENT_PRESETS,
    NOT_OPTIONS,
    experiment,
    experiment_of,
)
from aqnet.training.options import FLAT_NAMES
from aqnet.training.schedule import describe_plan

NOTEBOOK = ROOT / "nbs" / "train" / "forecast.ipynb"
# Options that the notebook leaves to code: shapes of starting values, and the published form.
NOT_OFFERED = {
    *("lead_embedding", "outputs", "patch_norm", "physics_block", "physics_kernel"),
    *("physics_elevation_clamp", "physics_elevation_unit"),
    *("physics_plume_cap_h", "physics_plume_diffusivity_m2_s", "physics_plume_lead_share"),
    *("physics_plume_sigma_km", "physics_ridge_start"),
    *("physics_rotary_km", "physics_stretch"),
}


# ---- presets


@pytest.mark.parametrize("name", EXPERIMENT_PRESETS)
def test_a_preset_without_changes_is_itself(name):
    chosen = experiment(name)
    assert chosen == EXPERIMENT_PRESETS[name] and chosen.describe() == f"preset {name}"
    assert experiment(name, width=None, physics=None, rate_blocks=None) == chosen
    if name in MODEL_PRESETS:
        assert chosen.model == MODEL_PRESETS[name]


@pytest.mark.parametrize(
    ("preset", "samples", "effective", "steps"),
    [
        ("china_reference", 4 * 34_440, 1600, 86),
        ("china_reference", 4 * 34_440, 6400, 22),
        ("china", 34_440, 1600, 22),
        ("china", 34_440, 6400, 5),
    ],
)
def test_steps_of_an_epoch_at_the_reference_batches(preset, samples, effective, steps):
    """As planned for four years of training hours and 4 lead times, on 400 and 800 processes."""
    training = experiment(preset, effective_batch=effective).training
    plan = describe_plan(training, samples, effective // 4)
    assert plan.epoch_steps == steps and plan.passes == 2
    assert plan.peak == pytest.approx(2e-4 * (effective / 1600) ** 0.5)
    assert plan.warmup <= plan.steps / 10


# ---- changes


def test_flat_names_reach_their_fields():
    chosen = experiment(
        "china", width=512, physics_plume="off", scan_mode="lanes", scan_window=128, seed=3,
        rate_strengths=10.0, pollutant_weights=[2, 1, 1, 1, 1, 0.5], betas=[0.9, 0.95],
        manifest="twin", folder="data/other", physics_blocks="0, 2", lead_times_h=[6, 12],
    )  # fmt: skip
    assert chosen.model.width == 512 and chosen.model.lead_times_h == (6, 12)
    assert chosen.model.physics == PhysicsConfig(ridge=True, plume="off")
    assert chosen.model.physics_blocks == (0, 2)
    assert (chosen.model.scan.mode, chosen.model.scan.window) == ("lanes", 128)
    assert chosen.training.rates["strengths"] == 10.0 and chosen.training.betas == (0.9, 0.95)
    weights = {"pm25": 2, "pm10": 1, "so2": 1, "no2": 1, "co": 1, "o3": 0.5}
    assert chosen.training.pollutant_weights == weights
    assert chosen.manifest == "twin" and chosen.folder == repository_root() / "data" / "other"
    text = chosen.describe()
    assert "width=512" in text and "scan_mode=lanes" in text and "depth" not in text


def test_physics_is_switched_as_a_whole():
    plain = experiment("china_reference", physics=False).model
    assert plain.physics is None and plain.physics_blocks == "all"
    assert experiment("beijing", physics=True).model.physics == PhysicsConfig()
    with pytest.raises(ParameterError, match="physics_plume without physics attention"):
        experiment("beijing", physics_plume="learned")


@pytest.mark.parametrize(
    ("preset", "options", "part"),
    [
        ("beijin", {}, "did you mean beijing?"),
        ("published", {}, "unknown preset 'published'"),
        ("beijing", {"widht": 3}, "did you mean width?"),
        ("beijing", {"heads": 7}, "heads = 7 does not divide width = 64"),
        ("beijing", {"lead_times_h": [12, 9000]}, "lead_times_h: less than or equal to 120"),
        ("beijing", {"effective_batch": 100}, "is not a multiple of batch_size 64"),
        ("beijing", {"rate_blocks": -1.0}, "rate_blocks: greater than or equal to 0"),
        ("beijing", {"warmup_share": 0.2}, "warmup_share: less than or equal to 0.1"),
        ("beijing", {"pollutant_weights": [1.0]}, "6 numbers, for pm25, pm10"),
        ("beijing", {"pollutant_weights": [0.0] * 6}, "leaves no pollutant"),
        ("china", {"physics_plume": "lead"}, "needs lead_mode = 'one'"),
        ("china", {"scan_mode": "domain", "scan_window": 8}, "needs mode = 'lanes'"),
        ("china", {"scan_sectors": 6}, "scan_sectors: a multiple of 4"),
        ("china", {"physics_blocks": "0,9"}, "physics_blocks = [0, 9] must increase and stay"),
        ("china", {"physics_blocks": "first"}, "physics_blocks: "),
        ("beijing", {"folder": "x"}, "folder does not belong to the manifest beijing"),
        ("china", {"store": "x"}, "store does not belong to the manifest caqra"),
        ("beijing", {"manifest": "nowhere"}, "there is no manifest nowhere"),
        ("beijing", {"manifest": "nowhere.yaml"}, str(repository_root() / "nowhere.yaml")),
        ("beijing", {"manifest": "twin"}, "the forecaster of fields does not have these settings"),
        ("beijing", {"lead_mode": "one"}, "the forecaster for stations does not have these"),
    ],
)
def test_what_does_not_go_together_is_refused_in_flat_names(preset, options, part):
    with pytest.raises(AqnetError) as caught:
        experiment(preset, **options)
    assert part in str(caught.value)


# ---- the notebook


def declared():
    return {p.name: p for p in parse_parameters(NOTEBOOK)}


def test_the_notebook_offers_every_option_with_the_preset_as_default():
    names = set(declared()) - set(NOT_OPTIONS) - {"preset"}
    assert names == set(FLAT_NAMES) - NOT_OFFERED
    values = resolve(list(declared().values()))
    for preset in EXPERIMENT_PRESETS:
        assert experiment_of(values | {"preset": preset}) == EXPERIMENT_PRESETS[preset]


def test_the_notebook_declares_types_and_choices_of_the_fields():
    for name, parameter in declared().items():
        field = ModelConfig.model_fields.get(name) or TrainingConfig.model_fields.get(name)
        if field is None or parameter.is_list or name in ("physics", "physics_blocks"):
            continue
        text = str(field.annotation)
        if parameter.choices is not None:
            assert text == f"typing.Literal{list(parameter.choices)}", name
        elif parameter.type in ("int", "float", "bool"):
            assert parameter.type in text, name
    assert declared()["preset"].choices == tuple(EXPERIMENT_PRESETS)


def test_the_check_of_the_notebook_judges_all_parameters_together():
    notebook, parameters = read_notebook(NOTEBOOK), list(declared().values())
    run_checks(notebook, resolve(parameters), "forecast.ipynb")
    with pytest.raises(ParameterError, match="does not divide"):
        run_checks(notebook, resolve(parameters, [], ["heads=7"]), "forecast.ipynb")


def test_the_notebook_trains_on_fields(recorded, tmp_path, monkeypatch):  # noqa: F811
    """In this process, as the small stores need a shorter year."""
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path))
    manifest, folder = recorded
    given = {"preset": "china_small", "manifest": str(manifest), "folder": str(folder)}
    given |= {"lead_times_h": [6, 24], "width": 16, "depth": 1, "heads": 2, "patch": 4}
    given |= {"max_epochs": 1, "max_train_samples": 16, "learning_rate": 0.01}
    namespace = {}
    for _, source, tags in code_cells(read_notebook(NOTEBOOK)):
        exec(source, namespace)
        namespace |= given if "parameters" in tags else {}
    run = latest_run(tmp_path, "train/forecast")
    measured = run.read_metrics()
    assert measured["kind"] == "grid" and "share" not in measured
    assert measured["curve"]["step"] == [0, 2]
    assert read_checkpoint(run.checkpoints / "best.ckpt").identity.synthetic
    assert {"statistics", "normaliser", "mask"} <= run.provenance.data.keys()
    assert experiment_of(run.parameters) == namespace["chosen"]


def test_the_notebook_is_short():
    assert len(nbformat.read(NOTEBOOK, as_version=4).cells) < 15
