"""A pair of arms from one file to its verdict; and the pair that is ready for a cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from notebook_tools import aqnet, make_notebook
from sweep_case import BODY, TOY, begin, here, summary_of
from test_profiles import LUMI
from test_structure import ROOT

from aqnet.errors import ParameterError
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.scale import experiment_in
from aqnet.jobs.sweeps.cluster import cluster_of
from aqnet.jobs.sweeps.cost import describe_cost
from aqnet.jobs.sweeps.definition import SweepDefinition, load_definition
from aqnet.jobs.sweeps.evaluations import evaluations_of
from aqnet.jobs.sweeps.points import plan_sweep

PAIR = ROOT / "slurm" / "caqra_pair.yaml"
VERDICT = ROOT / "nbs" / "evaluate" / "verdict.ipynb"
# What an evaluation leaves: a board whose loss is 0.08 with mode b, else 0.1.
JUDGE = """\
from pathlib import Path
from contrast_case import squares_of, times_of, write_evaluation
from aqnet.jobs.runs import RunFolder
from aqnet.verification.contrasts.runs import Label
run = RunFolder.for_notebook(run_dir, "judge", {})
given = RunFolder.open(train_run).parameters
label, times = Label(given["mode"], "caqra", given["seed"]), times_of()
squares = squares_of(label, 0.08 if given["mode"] == "b" else 0.1, times)
made = write_evaluation(run.path / "made", label, squares, times)
(made / "board.npz").rename(run.path / "board.npz")
(made / "metrics.json").rename(run.path / "metrics.json")
run.finish()
"""


@pytest.fixture
def pair(tmp_path, monkeypatch) -> dict:
    """Fields of a tiny pair with evaluation and summary."""
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("AQNET_ROOT", str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    make_notebook(tmp_path / "toy.ipynb", TOY, BODY)
    make_notebook(tmp_path / "judge.ipynb", 'train_run: str = ""\n', JUDGE)
    arms = [{"label": "row-major", "parameters": {"mode": "a"}},
            {"label": "wind", "parameters": {"mode": "b"}}]  # fmt: skip
    summary = {"notebook": str(VERDICT), "parameters": {"target": 5.0}}
    return {"grid": {}, "list": arms, "seeds": 1, "summary": summary,
            "evaluate": {"notebook": str(tmp_path / "judge.ipynb")}}  # fmt: skip


def test_one_command_ends_in_a_verdict(tmp_path, pair):
    sweep = begin(tmp_path, **pair)
    here(sweep)
    done = summary_of(sweep)
    assert done.status == "complete", done.reason
    measured = RunFolder.open(done.run).read_metrics()
    assert measured["verdict"].startswith("wind beats row-major: its loss is lower by")
    assert measured["verdict"].endswith(
        "below 5.000, which other data and another normaliser gave."
    )
    assert len(measured["runs"]) == 2 and measured["notes"][0].startswith("one seed")
    assert (done.run / "verdict.png").stat().st_size > 5000
    told = aqnet("sweep", "status", "widths", cwd=tmp_path).stdout
    assert "-evaluate-verdict-" in told and f"verdict: {measured['verdict']}" in told


def test_a_pair_that_is_not_complete_has_no_verdict(tmp_path, pair):
    sweep = begin(tmp_path, **pair)
    with pytest.raises(ParameterError, match="2 that are not: row-major, seed=0: missing"):
        evaluations_of(sweep, sweep.states({}))


# ---- the owner's pair


def pair_definition() -> SweepDefinition:
    return load_definition(PAIR)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The pair of slurm/, where no data are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AQNET_DATA", str(tmp_path_factory.mktemp("empty")))
        yield plan_sweep(pair_definition())


def test_the_pair_is_paired_and_fair(planned):
    points = planned.points
    assert [p.arm for p in points] == ["row-major"] * 5 + ["wind-and-terrain"] * 5
    assert [p.seed for p in points] == [*range(5)] * 2
    models = [experiment_in(point.values).model for point in (points[0], points[5])]
    plain, physics = (model.model_dump() for model in models)
    differ = {name for name in plain if plain[name] != physics[name]}
    assert differ == {"physics"} and plain["physics_blocks"] == "all"
    off, full = (model.physics for model in models)
    assert (off.plume, off.elevation, off.ridge, off.position) == ("off", "off", False, "none")
    assert full.ridge and (full.plume, full.position) == ("learned", "none")
    trainings = {experiment_in(p.values).training.model_dump_json(exclude={"seed"}) for p in points}
    assert len(trainings) == 1  # the same steps, batch and rates


def test_the_physics_of_the_pair_is_that_of_the_experiment(planned):
    arms = yaml.safe_load((ROOT / "nbs/experiments/physics_sealed.yaml").read_text())["list"]
    named = {arm["label"]: arm["parameters"] for arm in arms}
    own = {arm.label: arm.parameters for arm in planned.definition.list}
    assert own == {"row-major": named["row-major"], "wind-and-terrain": named["full"]}


def test_the_facts_of_the_design(planned):
    training = experiment_in(planned.points[0].values).training
    assert (training.batch_size, training.effective_batch) == (2, 400 * 2 * 2)
    assert (training.max_epochs, training.learning_rate) == (30, 2e-4)
    assert (training.precision, training.gradient_clip) == ("32-true", 1.0)
    assert training.patience_epochs == 0


def test_what_the_file_says_of_its_cost_is_what_is_predicted(planned):
    """The comments of the file, and arms of one size."""
    lines = describe_cost(planned, cluster_of("lumi", LUMI, 400, None))
    text, comments = "\n".join(lines), PAIR.read_text()
    assert "2610 in all, 261 of them warm-up; learning rate 0.0002" in text
    assert "2,610 optimiser" in comments and "261 steps" in comments
    for size in ("52,509,720", "52,510,008"):
        assert size in text and size in comments
    hours = float(lines[-1].split()[1].replace(",", ""))
    assert lines[-1].startswith("predicted:") and hours == pytest.approx(5500, rel=0.01)
    assert "5,500 for ten, billed as 2,750" in comments


def test_the_summary_knows_the_arms(planned):
    given = yaml.safe_load(PAIR.read_text())["summary"]["parameters"]
    assert {given["arm"], given["reference"]} == {p.arm for p in planned.points}
    assert planned.summary.values["target"] == 0.26 and planned.summary_notebook.path == VERDICT


def test_a_cost_that_is_not_stated_is_not_predicted(planned):
    site = {"time": "04:00:00", "per_node": "4", "cpus_per_task": "16", "array_limit": "9"}
    one = dataclasses.replace(planned, points=planned.points[:1])
    lines = describe_cost(one, cluster_of("generic-cuda", site, 400, None))
    assert "not predicted: the profile does not state" in lines[0]
    assert not any("GPU-hours" in line for line in lines)
