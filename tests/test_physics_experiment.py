"""The experiment on the physics: its file, its runs, and what of them can be judged."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from contrast_case import begin_sweep, complete_point, made_up_sweep
from test_structure import ROOT

from aqnet.errors import ParameterError
from aqnet.jobs.execute import run_notebook
from aqnet.jobs.physics_experiment import load_experiment
from aqnet.jobs.physics_runs import _manifest, questions, questions_apart, runs_of
from aqnet.jobs.sweeps.begin import define_sweep
from aqnet.jobs.sweeps.definition import load_definition
from aqnet.jobs.sweeps.points import plan_sweep
from aqnet.verification.contrasts.estimates import Contrast
from aqnet.verification.contrasts.runs import Label

SHIPPED = ROOT / "nbs" / "experiments" / "physics.yaml"
PLUME = {"arm": "plume", "reference": "decay"}
LEVELS = {"row": 0.076, "decay": 0.0725, "plume": 0.067}
CONTENT = {
    "reference": "row",
    "main": [{**PLUME, "at_least": 0.05}],
    "trend": PLUME,
    "null_margin": 0.02,
    "worlds": {
        "one": {"role": "sealed", "sweeps": ["p-one"]},
        "two": {"role": "sealed", "sweeps": ["p-two"]},
        "fine": {"role": "sealed", "sweeps": ["p-fine"], "grid": "64x128"},
        "town": {"role": "observed", "sweeps": ["p-town"], "grid": "box"},
        "still": {"role": "null", "sweeps": ["p-still"], "transport": 0.0, "null_for": [PLUME]},
        "weak": {"role": "strength", "sweeps": ["p-weak"], "transport": 0.5},
        "strong": {"role": "strength", "sweeps": ["p-strong"], "transport": 2.0},
    },
}
DAYS = 60


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("AQNET_ROOT", str(ROOT))
    return tmp_path


def load(folder, **changes):
    path = folder / "physics.yaml"
    path.write_text(yaml.safe_dump(CONTENT | changes, sort_keys=False))
    return load_experiment(path)


def world(**changes):
    return {
        "worlds": CONTENT["worlds"] | {"more": {"role": "sealed", "sweeps": ["more"]} | changes}
    }


# ---- the file


def test_the_shipped_file_asks_what_the_experiment_is_for():
    experiment = load_experiment(SHIPPED)
    assert load_experiment("nbs/experiments/physics.yaml") == experiment
    assert len(experiment.names("sealed", "32x64")) >= 3
    targets = {c.at_least for c in experiment.contrasts(()) if c.main}
    assert targets == {0.10, 0.05}
    strengths = [w.transport for w in experiment.worlds.values() if w.role == "strength"]
    assert len(set(strengths)) >= 3
    nulls = [w for w in experiment.worlds.values() if w.role == "null"]
    assert {(w.transport, w.blocking) for w in nulls} >= {(0.0, 1.0), (1.0, 0.0)}


def test_the_shipped_file_names_worlds_and_arms_of_the_shipped_sweeps():
    experiment = load_experiment(SHIPPED)
    files = {p.stem: load_definition(p) for p in SHIPPED.parent.glob("physics_*.yaml")}
    assert files.keys() == set(experiment.sweeps)
    for name, world in experiment.worlds.items():
        given = [files[s] for s in world.sweeps]
        arms = {arm.name for sweep in given for arm in sweep.list}
        for sweep in given:
            manifests = {Path(m).stem for m in sweep.zip["manifest"]}
            assert (world.manifest or name) in manifests
        asked = [pair.contrast for pair in world.null_for]
        if world.role == "strength":
            asked = [experiment.trend.contrast]
        if world.role in ("sealed", "development", "observed"):
            asked = experiment.contrasts(tuple(arms))
        assert {a for c in asked for a in (c.arm, c.reference)} <= arms


def test_arms_and_steps_are_the_same_in_every_sweep_of_a_grid():
    """At 64 x 128 as at 32 x 64; in Beijing the full arm lacks the ridges, and no run chooses."""
    files = {p.stem: load_definition(p) for p in SHIPPED.parent.glob("physics_*.yaml")}
    beijing = files.pop("physics_beijing")
    first = files["physics_sealed"]
    named = {arm.label: arm.parameters for arm in files["physics_development"].list}
    for sweep in files.values():
        assert sweep.parameters == first.parameters
        assert all(named[arm.label] == arm.parameters for arm in sweep.list)
    assert files["physics_sealed_64"].list == first.list
    own = {arm.label: arm.parameters for arm in beijing.list}
    assert own == {arm.label: arm.parameters | {"physics_ridge": False} for arm in first.list}
    assert named["full"]["physics_ridge"]
    given = beijing.parameters
    assert (given["correction_share"], given["linear_part"]) == (1.0, False)
    assert (beijing.seeds, files["physics_sealed_64"].seeds) == (5, 5)


def test_arms_beyond_the_main_contrasts_are_compared_with_the_reference(place):
    found = load(place).contrasts(("row", "decay", "plume"))
    assert found == (Contrast("plume", "decay", 0.05, True), Contrast("decay", "row"),
                     Contrast("plume", "row"))  # fmt: skip
    other = load(place, references={"decay": "plume"}).contrasts(("row", "decay", "plume"))
    assert other[1:] == (Contrast("decay", "plume"), Contrast("plume", "row"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refrence": "row"}, "refrence: no such key"),
        ({"null_margin": None}, "null_margin"),
        ({"main": []}, "main"),
        ({"main": [{"arm": "row", "reference": "row"}]}, "compared with itself"),
        ({"main": [{**PLUME, "at_least": 10}]}, "at_least"),
        (world(role="secret"), "worlds.more.role"),
        (world(transprt=1.0), "worlds.more.transprt: no such key"),
        (world(role="null"), "null_for belongs to worlds of role null or control"),
        (world(null_for=[PLUME]), "null_for belongs to worlds of role null or control"),
        (world(sweeps=[]), "worlds.more.sweeps"),
        ({"references": {"row": "row"}}, "compared with itself"),
        (world(transport=-1.0), "worlds.more.transport"),
        ({"trend": None}, "`trend` needs worlds of role strength"),
        ({"worlds": {"one": CONTENT["worlds"]["one"]}}, "`trend` needs worlds of role strength"),
        ({"worlds": {}}, "worlds"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(place, changes, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        load(place, **changes)


# ---- its runs


def test_runs_are_found_by_arm_world_and_seed(place):
    made_up_sweep(place, "p-one", "one", LEVELS, seeds=2, days=DAYS)
    made_up_sweep(place, "p-still", "still", LEVELS, seeds=2, days=DAYS)
    found = runs_of(load(place))
    assert set(found.folders) == {Label(a, w, s) for a in LEVELS for w in ("one", "still")
                                  for s in (0, 1)} == set(found.curves)  # fmt: skip
    assert found.absent == ("p-two", "p-fine", "p-town", "p-weak", "p-strong")
    assert (found.table["status"] == "complete").all() and len(found.table) == 12
    assert list(found.read(load(place), {"one", "still"}).worlds) == ["one", "still"]
    assert {x.world for x in runs_of(load(place), ["p-still"]).folders} == {"still"}


def test_an_arm_with_a_missing_run_is_not_judged(place):
    """It might be missing because it diverged."""
    experiment = load(place)
    made_up_sweep(place, "p-one", "one", LEVELS, seeds=2, days=DAYS)
    sweep = begin_sweep(place, "p-two", "two", tuple(LEVELS), 2)
    for point in sweep.points:
        if (point.arm, point.seed) != ("plume", 1):
            complete_point(sweep, point, "two", LEVELS[point.arm], "two", DAYS)
    ask = questions(experiment, runs_of(experiment), "sealed", "32x64")
    assert ask.worlds == ("one", "two")
    assert ask.contrasts == (Contrast("decay", "row"),)
    assert "sealed worlds: plume against decay" in ask.waiting
    assert "world still: plume against decay" in ask.waiting
    assert ask.nulls == {} and ask.strengths == {}
    assert "sweep p-still: not begun" in ask.waiting
    design = {"draft": {"role": "development", "sweeps": ["p-draft"]}}
    other = load(place, worlds=CONTENT["worlds"] | design)
    found = questions(other, runs_of(other), "sealed", "32x64")
    assert found.waiting == ask.waiting  # a sweep of the design is not waited for
    only = questions(experiment, runs_of(experiment, ["p-one"]), "sealed", "32x64")
    assert only.worlds == ("one",) and len(only.contrasts) == 3
    assert "world two: no runs" in only.waiting
    with pytest.raises(ParameterError, match="nothing to judge in worlds of role development"):
        questions(experiment, runs_of(experiment), "development", "32x64")
    absent = "worlds none; not complete: (.*; )?world fine: no runs; sweep p-fine: not begun"
    with pytest.raises(ParameterError, match=absent):
        questions(experiment, runs_of(experiment), "sealed", "64x128")


def test_grids_and_towns_stand_apart(place):
    experiment = load(place)
    made_up_sweep(place, "p-one", "one", LEVELS, seeds=1, days=DAYS)
    made_up_sweep(place, "p-fine", "fine", LEVELS, seeds=1, days=DAYS)
    sweep = begin_sweep(place, "p-town", "town", tuple(LEVELS), 1)
    complete_point(sweep, sweep.points[0], "town", 0.1, "town", DAYS)
    runs = runs_of(experiment)
    apart = questions_apart(experiment, runs, "sealed", "32x64")
    assert list(apart) == [("sealed", "64x128"), ("observed", "box")]
    fine, town = apart.values()
    assert fine.worlds == ("fine",) and len(fine.contrasts) == fine.asked == 3
    assert not fine.waiting and not fine.nulls and not fine.strengths
    assert town.worlds == ("town",) and town.contrasts == () and town.asked == 3
    assert "observed worlds: plume against decay" in town.waiting
    assert questions(experiment, runs, "sealed", "32x64").all_worlds == {"one"}
    assert list(questions_apart(experiment, runs, "sealed", "64x128")) == [
        ("sealed", "32x64"), ("observed", "box")]  # fmt: skip
    assert questions_apart(experiment, runs, "development", "32x64") == {}


def test_results_notebook(place):
    """Two sealed worlds, a still one and two strengths of transport."""
    experiment = load(place)
    for name in ("one", "two", "still", "weak", "strong"):
        plume = LEVELS["decay"] * (1 - 0.05 * experiment.worlds[name].transport)
        (sweep,) = experiment.worlds[name].sweeps
        made_up_sweep(place, sweep, name, LEVELS | {"plume": plume}, seeds=2, days=180)
    made_up_sweep(place, "p-town", "town", {k: 9 * v for k, v in LEVELS.items()}, 2, 180)
    given = [f"experiment={place / 'physics.yaml'}", "replicates=200"]
    run = run_notebook(ROOT / "nbs" / "evaluate" / "contrasts.ipynb", given)
    assert run.record.status == "complete"
    measured = run.read_metrics()
    assert measured["worlds"] == ["one", "two"] and measured["waiting"] == []
    main, *others = measured["gains"]
    assert (main["arm"], main["reference"], main["family"]) == ("plume", "decay", 1)
    assert main["gain"] == pytest.approx(0.05, abs=0.05)
    assert {row["family"] for row in others} == {2}
    assert measured["trend"]["slope"] == pytest.approx(0.05, abs=0.05)
    assert [row["world"] for row in measured["nulls"]] == ["still"]
    fine, town = measured["apart"]
    assert (fine["grid"], fine["worlds"], fine["gains"]) == ("64x128", [], [])
    assert {"world fine: no runs", "sweep p-fine: not begun"} <= set(fine["waiting"])
    assert (town["role"], town["worlds"], town["waiting"]) == ("observed", ["town"], [])
    assert town["gains"][0]["loss"] == pytest.approx(9 * LEVELS["plume"], rel=0.1)
    assert town["gains"][0]["worlds"] == 1 and main["worlds"] == 2
    assert main["loss"] < 0.1  # nothing of the town is pooled
    pictures = {"gains", "by_lead_and_pollutant", "by_group", "by_season", "curves", "nulls",
                "trend"}  # fmt: skip
    assert all((run.path / f"{name}.png").stat().st_size > 5000 for name in pictures)
    gains = pd.read_csv(run.path / "gains.csv")
    assert gains["gain"].tolist() == pytest.approx([row["gain"] for row in measured["gains"]])


def test_questions_are_of_one_grid(place):
    experiment = load(place)
    for name in ("one", "fine", "still", "weak", "strong"):
        (sweep,) = experiment.worlds[name].sweeps
        made_up_sweep(place, sweep, name, LEVELS, seeds=1, days=DAYS)
    runs = runs_of(experiment)
    ask = questions(experiment, runs, "sealed", "32x64")
    assert ask.worlds == ("one",)
    assert ask.nulls == {"still": (Contrast("plume", "decay", 0.0, True),)}
    assert ask.strengths == {"weak": 0.5, "strong": 2.0}
    assert ask.all_worlds == {"one", "still", "weak", "strong"}
    fine = questions(experiment, runs, "sealed", "64x128")
    assert fine.worlds == ("fine",) and not fine.nulls and not fine.strengths


def test_sweeps_that_do_not_fit_are_refused(place):
    experiment = load(place)
    with pytest.raises(ParameterError, match="sweeps that the experiment does not have"):
        runs_of(experiment, ["other"])
    with pytest.raises(ParameterError, match="there is no sweep p-one"):
        runs_of(experiment, ["p-one"])


def test_runs_of_other_data_than_their_world_are_refused(place):
    experiment = load(place)
    sweep = begin_sweep(place, "p-one", "one", tuple(LEVELS), 1)
    for point in sweep.points:
        complete_point(sweep, point, "one", LEVELS[point.arm], "elsewhere", DAYS)
    with pytest.raises(ParameterError, match="runs of the world one were evaluated on another"):
        runs_of(experiment).read(experiment, {"one"})


def test_a_world_may_have_several_sweeps_and_a_sweep_several_worlds(place):
    """Points go to the world of their manifest, which may be a name or a file."""
    one = {"role": "sealed", "sweeps": ["p-one", "p-more"], "manifest": "first"}
    again = {"role": "development", "sweeps": ["p-again"], "manifest": "first"}
    worlds = CONTENT["worlds"] | {"one": one, "again": again}
    experiment = load(place, worlds=worlds)
    begin_sweep(place, "p-one", "data/first/first.yaml", ("row", "decay"), 2)
    begin_sweep(place, "p-more", "first", ("plume",), 1)
    begin_sweep(place, "p-again", "first", ("row",), 1)
    begin_sweep(place, "p-still", "another", ("row",), 1)
    found = runs_of(experiment).table
    keys = found[["arm", "world", "seed"]].to_records(index=False).tolist()
    assert set(keys) == {("row", "one", 0), ("row", "one", 1), ("decay", "one", 0),
                         ("decay", "one", 1), ("plume", "one", 0), ("row", "again", 0)}  # fmt: skip
    definition = yaml.safe_load((place / "p-more.yaml").read_text())
    del definition["seeds"]
    path = place / "zipped.yaml"
    zipped = {"name": "p-two", "parameters": {}, "zip": {"manifest": ["two", "x"], "seed": [3, 4]}}
    path.write_text(yaml.safe_dump(definition | zipped))
    define_sweep(plan_sweep(load_definition(path)), path.read_text())
    assert set(runs_of(experiment, ["p-two"]).table["seed"]) == {3}
    twice = load(place, worlds=worlds | {"one": one | {"sweeps": ["p-one", "p-again"]}})
    with pytest.raises(ParameterError, match="row, one, seed 0 was run twice"):
        runs_of(twice)


@pytest.mark.parametrize(
    ("given", "manifest"),
    [({"preset": "china"}, "caqra"), ({"preset": "china", "manifest": "a/b.yaml"}, "b"), ({}, "")],
)
def test_the_data_of_a_preset_are_those_of_its_manifest(given, manifest):
    assert _manifest(SimpleNamespace(parameters=given)) == manifest


def test_points_without_an_arm_are_refused(place):
    begin_sweep(place, "other", "one", ("a",), 1)
    definition = yaml.safe_load((place / "other.yaml").read_text())
    definition |= {"name": "p-one", "list": None, "grid": {"arm": ["a", "b"]}}
    path = place / "grid.yaml"
    path.write_text(yaml.safe_dump(definition))
    define_sweep(plan_sweep(load_definition(path)), path.read_text())
    with pytest.raises(ParameterError, match="a sweep of one is not one of arms and seeds"):
        runs_of(load(place))
