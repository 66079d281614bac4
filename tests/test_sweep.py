"""Sweeps: one file, all points checked first, restartable, and what came out of them."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from notebook_tools import aqnet, make_notebook, start_aqnet
from scipy import stats
from sweep_case import BODY, TOY

from aqnet.errors import ParameterError, RunError
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.cancel import cancel_sweep
from aqnet.jobs.sweeps.definition import SweepDefinition, load_definition, parse_metric
from aqnet.jobs.sweeps.figures import draw_curves, draw_differences, draw_metric
from aqnet.jobs.sweeps.folder import Sweep, define_sweep
from aqnet.jobs.sweeps.local import run_local
from aqnet.jobs.sweeps.points import combinations, plan_sweep
from aqnet.jobs.sweeps.ready import main as ready
from aqnet.jobs.sweeps.ready import take_summary
from aqnet.jobs.sweeps.records import PointState
from aqnet.jobs.sweeps.results import collect, learning_curves, paired_differences

RESUMED = """\
checkpoint = Path(run_dir) / "checkpoints" / "last.ckpt"
with (place / "resumed").open("a") as notes:
    notes.write(f"{resume} {checkpoint.exists()}\\n")
checkpoint.touch()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Folder with a notebook; runs go to `runs` in it."""
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("AQNET_ROOT", str(Path(__file__).parents[1]))
    make_notebook(tmp_path / "toy.ipynb", TOY, BODY)
    return tmp_path


def definition(toy: Path, **fields) -> dict:
    """Content of a sweep file."""
    common = {
        "name": "widths",
        "notebook": str(toy / "toy.ipynb"),
        "parameters": {"folder": str(toy)},
        "metrics": {"loss": "min curve.validation"},
    }
    return common | {"grid": {"width": [2, 4, 8]}} | fields  # fmt: skip


def write(toy: Path, **fields) -> Path:
    path = toy / "sweep.yaml"
    path.write_text(yaml.safe_dump(definition(toy, **fields), sort_keys=False))
    return path


def begin(toy: Path, **fields) -> Sweep:
    path = write(toy, **fields)
    return define_sweep(plan_sweep(load_definition(path)), path.read_text())


def here(sweep: Sweep, parallel: int = 2, failed_too: bool = False) -> list[str]:
    """Run by script, which starts faster; lines of progress."""
    lines: list[str] = []
    run_local(sweep, parallel, "script", failed_too, {}, lines.append)
    return lines


def statuses(sweep: Sweep) -> list[str]:
    return [state.status for state in sweep.states({})]


def starts(toy: Path) -> list[str]:
    path = toy / "starts"
    return path.read_text().splitlines() if path.exists() else []


def wait_until(what, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# ---- the definition


def test_points_are_the_product_in_a_stable_order(toy):
    plan = plan_sweep(load_definition(write(
        toy, grid={"width": [2, 4]}, zip={"seconds": [0.0, 0.5]}, seeds=[3, 1],
        list=[{"label": "plain", "parameters": {}}, {"parameters": {"mode": "b"}}],
    )))  # fmt: skip
    titles = [point.title for point in plan.points]
    assert len(titles) == 2 * 2 * 2 * 2
    assert titles[:3] == ["plain, seconds=0.0, width=2, seed=3",
                          "plain, seconds=0.0, width=2, seed=1",
                          "plain, seconds=0.0, width=4, seed=3"]  # fmt: skip
    assert titles[-1] == "mode=b, seconds=0.5, width=4, seed=1"
    last = plan.points[-1]
    assert (last.arm, last.setting, last.seed) == ("mode=b", "seconds=0.5, width=4", 1)
    assert last.values | {"folder": ""} == {
        "seed": 1, "width": 4, "mode": "b", "folder": "", "seconds": 0.5
    }  # fmt: skip
    assert len({point.run for point in plan.points}) == 16


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"sedds": 3}, "sedds: no such key"),
        ({"grid": {"width": []}}, "at least 1 item"),
        ({"list": []}, "at least 1 item"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"name": "../x"}, "name"),
        ({"zip": {"mode": ["a", "b"], "seed": [1]}}, "mode=2, seed=1"),
        ({"zip": {"width": [1, 2]}}, "one section only, not width"),
        ({"parameters": {"seed": 1}, "seeds": 2}, "one section only, not seed"),
        ({"list": [{"label": "x", "parameters": {}}] * 2}, "given twice: x"),
        ({"metrics": {"loss": "mean curve"}}, "not a metric: mean curve"),
        ({"evaluate": {"notebook": "a", "parameters": {"train_run": "x"}}}, "set by the sweep"),
        ({"summary": {"notebook": "a", "parameters": {"sweep": "x"}}}, "sweep is set by the sweep"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(toy, fields, part):
    with pytest.raises(ParameterError, match=part):
        load_definition(write(toy, **fields))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"grid": {"width": [2, 99, "x"]}}, ["2 of 3 points are wrong", "points 1", "points 2"]),
        ({"grid": {"depth": [1]}}, ["unknown parameter depth"]),
        ({"grid": {"width": [4, "4"]}}, [r"\(width=4\) and \(width=4\)"]),
        ({"parameters": {"run_dir": "x"}}, ["run_dir is set by the sweep"]),
        ({"notebook": "nowhere.ipynb"}, ["cannot read the notebook"]),
    ],
)
def test_nothing_starts_if_one_point_is_wrong(toy, fields, parts):
    with pytest.raises(ParameterError) as error:
        begin(toy, **fields)
    assert all(error.match(part) for part in parts) and not (toy / "runs").exists()


def test_the_command_ends_with_code_2_if_a_point_is_wrong(toy):
    done = aqnet("sweep", "run", write(toy, grid={"width": [2, 99]}), cwd=toy)
    assert done.returncode == 2 and "1 of 2 points" in done.stderr
    assert not (toy / "runs").exists()


def test_seeds_need_a_parameter_and_an_evaluation_the_run(toy):
    make_notebook(toy / "plain.ipynb", "width: int = 1\n", "pass")
    with pytest.raises(ParameterError, match="no seed"):
        plan_sweep(load_definition(write(toy, notebook=str(toy / "plain.ipynb"), seeds=2,
                                         parameters={})))  # fmt: skip
    with pytest.raises(ParameterError, match="no train_run"):
        plan_sweep(load_definition(write(toy, evaluate={"notebook": str(toy / "plain.ipynb")})))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_the_number_of_points_is_the_product(sizes, rows, seeds):
    made = SweepDefinition(
        name="x", notebook="x.ipynb", grid={f"g{i}": tuple(range(n)) for i, n in enumerate(sizes)},
        zip={"a": tuple(range(rows)), "b": tuple(range(rows))}, seeds=seeds,
    )  # fmt: skip
    found = [repr(point) for point in combinations(made)]
    assert len(found) == len(set(found)) == math.prod(sizes) * rows * seeds


def test_a_dry_run_writes_nothing(toy):
    done = aqnet("sweep", "run", write(toy, seeds=2), "--dry-run", cwd=toy)
    assert done.returncode == 0 and not (toy / "runs").exists()
    assert "6 points" in done.stdout and "3 settings x 2 seeds" in done.stdout


# ---- the stored sweep


def test_a_name_stands_for_one_definition(toy):
    first = begin(toy)
    before = (first.path / "points.json").read_bytes()
    assert begin(toy).points == first.points
    with pytest.raises(ParameterError) as error:
        begin(toy, grid={"width": [2, 4, 16]}, seeds=2)
    assert error.match(r"grid\.width\.2 = 8") and error.match(r"grid\.width\.2 = 16")
    assert error.match("seeds = 2") and "notebook" not in str(error.value)
    make_notebook(toy / "toy.ipynb", TOY, BODY + "print(1)\n")
    with pytest.raises(ParameterError, match="notebook_sha256"):
        begin(toy)
    with pytest.raises(ParameterError, match="begun with another definition"):
        here(first)
    assert (first.path / "points.json").read_bytes() == before and starts(toy) == []


def test_an_unknown_sweep_names_the_known(toy):
    begin(toy)
    with pytest.raises(ParameterError, match="expected: widths"):
        Sweep.open("width")


# ---- here


def test_a_failed_point_stops_no_other_and_is_retried_alone(toy):
    (toy / "bad-4").touch()
    sweep = begin(toy)
    lines = here(sweep)
    assert statuses(sweep) == ["complete", "failed", "complete"]
    assert [line for line in lines if "failed" in line and "width 4 is bad" in line]
    assert sorted(starts(toy)) == ["2 0", "4 0", "8 0"]  # two at a time: in any order

    assert here(sweep) == []  # nothing is missing
    (toy / "bad-4").unlink()
    here(sweep, failed_too=True)
    assert statuses(sweep) == ["complete"] * 3 and sorted(starts(toy)) == [
        "2 0", "4 0", "4 0", "8 0"
    ]  # fmt: skip
    table = collect(sweep, sweep.states({})).table
    assert table["loss"].tolist() == [0.5, 0.25, 0.125]
    assert table["run"].str.endswith("-try2").tolist() == [False, True, False]
    assert table["optimiser_steps"].tolist() == [5] * 3 and (table["wall_s"] >= 0).all()
    assert table["code"].nunique() == 1 and table["status"].tolist() == ["complete"] * 3


def test_a_run_with_a_checkpoint_goes_on_in_its_folder(toy):
    parameters = TOY + 'resume: str = ""\n'
    head, tail = BODY.split("assert not")
    make_notebook(toy / "toy.ipynb", parameters, head + RESUMED + "assert not" + tail)
    (toy / "bad-2").touch()
    sweep = begin(toy, grid={"width": [2]})
    here(sweep)
    (toy / "bad-2").unlink()
    here(sweep, failed_too=True)
    assert (toy / "resumed").read_text().splitlines() == [" False", "auto True"]
    (state,) = sweep.states({})
    assert state.status == "complete" and state.run.name == state.point.run
    assert len(RunFolder.open(state.run).attempts) == 2


def test_each_point_is_evaluated_with_its_run(toy):
    make_notebook(
        toy / "judge.ipynb", 'train_run: str = ""\nfactor: float = 1.0\n',
        "from aqnet.jobs.runs import RunFolder\nrun = RunFolder.for_notebook(run_dir, 'j', {})\n"
        "trained = RunFolder.open(train_run)\n"
        "run.write_metrics({'score': factor * trained.parameters['width']})\nrun.finish()",
    )  # fmt: skip
    evaluate = {"notebook": str(toy / "judge.ipynb"), "parameters": {"factor": 10}}
    metrics = {"score": "evaluation:score", "loss": "last curve.validation", "none": "a.b"}
    sweep = begin(toy, grid={"width": [2, 4]}, evaluate=evaluate, metrics=metrics)
    here(sweep)
    results = collect(sweep, sweep.states({}))
    assert results.table["score"].tolist() == [20, 40]
    assert results.table["evaluation"].str.contains("-judge-").all()
    assert results.table["none"].isna().all() and "a.b is no number" in results.notes[0]


CLOSING = """\
from pathlib import Path
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.folder import Sweep
run = RunFolder.for_notebook(run_dir, "closing", {})
assert not (Path(folder) / "bad-summary").exists(), "the summary is bad"
states = Sweep.open(sweep).states({})
run.write_metrics({"complete": sum(s.status == "complete" for s in states), "word": word})
run.finish()
"""


def closing(toy: Path) -> dict:
    """A section `summary`, whose notebook fails while `bad-summary` is there."""
    parameters = 'sweep: str = ""\nfolder: str = ""\nword: str = ""\n'
    make_notebook(toy / "closing.ipynb", parameters, CLOSING)
    return {"notebook": str(toy / "closing.ipynb"), "parameters": {"folder": str(toy), "word": "x"}}


def summary_of(sweep: Sweep) -> PointState:
    return sweep.summary_state(sweep.states({}), {})


def test_a_summary_runs_once_after_all_points(toy):
    (toy / "bad-4").touch()
    sweep = begin(toy, summary=closing(toy))
    here(sweep)
    assert (summary_of(sweep).status, summary_of(sweep).run) == ("missing", None)
    assert summary_of(sweep).reason == "waits for 1 of 3 points"
    (toy / "bad-4").unlink()
    (toy / "bad-summary").touch()
    here(sweep, failed_too=True)
    assert statuses(sweep) == ["complete"] * 3
    assert summary_of(sweep).status == "failed" and "is bad" in summary_of(sweep).reason
    assert here(sweep) == []  # not again unless asked
    (toy / "bad-summary").unlink()
    here(sweep, failed_too=True)
    done = summary_of(sweep)
    assert done.status == "complete" and done.run.name.endswith("-try2")
    assert RunFolder.open(done.run).read_metrics() == {"complete": 3, "word": "x"}
    assert here(sweep, failed_too=True) == []
    assert collect(sweep, sweep.states({})).table.shape[0] == 3


def test_the_command_shows_the_summary(toy):
    path = write(toy, grid={"width": [2]}, summary=closing(toy))
    arguments = ("sweep", "run", path, "--by", "script")
    planned = aqnet(*arguments[:3], "--dry-run", cwd=toy)
    assert planned.returncode == 0 and "; then " in planned.stdout and "closing" in planned.stdout
    (toy / "bad-summary").touch()
    done = aqnet(*arguments, cwd=toy)
    assert done.returncode == 1 and "the summary is bad" in done.stderr
    shown = aqnet("sweep", "status", "widths", cwd=toy).stdout
    assert "-  failed       summary" in shown and "-closing-" in shown
    assert "1 points: 1 complete" in shown  # it is no point


def test_a_summary_belongs_to_the_definition(toy):
    sweep = begin(toy, grid={"width": [2]}, summary=closing(toy))
    with pytest.raises(ParameterError, match=r"summary\.parameters\.word = x"):
        begin(toy, grid={"width": [2]}, summary=closing(toy) | {"parameters": {"folder": "y"}})
    make_notebook(toy / "closing.ipynb", 'sweep: str = ""\n', "pass")
    with pytest.raises(ParameterError, match=r"summary\.notebook"):
        here(sweep)
    with pytest.raises(ParameterError, match="no sweep"):
        plan_sweep(load_definition(write(toy, summary={"notebook": str(toy / "toy.ipynb")})))


def test_one_element_alone_takes_the_summary(toy):
    sweep = begin(toy, grid={"width": [2, 4]}, summary=closing(toy))
    for point in sweep.points:
        assert "waits for" in take_summary(sweep, sweep.summary.run)
        run = RunFolder.create(toy / "toy.ipynb", point.values, path=sweep.runs / point.run)
        run.set_status("complete")
    states = sweep.states({})
    assert sweep.summary_state(states, {}).status == "missing"
    RunFolder.create(toy / "closing.ipynb", sweep.summary.values,
                     path=sweep.runs / sweep.summary.run)  # fmt: skip
    jobs = {"job_name": "array", "runs": (sweep.summary.run,), "profile": "x", "processes": 1}
    (sweep.path / "arrays" / "001-summary").mkdir(parents=True)
    (sweep.path / "arrays" / "001-summary" / "array.json").write_text(json.dumps(jobs))
    assert sweep.summary_state(states, {}).status == "lost"
    last = {("another array", 3): ("RUNNING", "7_3")}  # it will submit the summary when it ends
    assert sweep.summary_state(states, last).status == "waiting"
    arguments = [str(sweep.path), sweep.summary.run]
    assert [ready(arguments) for _ in range(3)] == [0, 1, 1]


def test_by_papermill_as_aqnet_run(toy):
    done = aqnet("sweep", "run", write(toy, grid={"width": [2]}), cwd=toy)
    assert done.returncode == 0, done.stderr
    (state,) = Sweep.open("widths").states({})
    assert RunFolder.open(state.run).record.started_by == "aqnet run"
    assert RunFolder.open(state.run).notebook_path.exists()
    assert "1 points: 1 complete" in aqnet("sweep", "status", "widths", cwd=toy).stdout


# ---- what may go wrong


def command(toy: Path, *arguments: str):
    """The command that runs the sweep, by script, two at a time."""
    return start_aqnet("sweep", "run", toy / "sweep.yaml", "--by", "script", "--parallel", "2",
                       *arguments, cwd=toy)  # fmt: skip


def test_a_killed_command_leaves_its_points_to_the_next(toy):
    sweep = begin(toy)
    (toy / "hold").touch()
    first = command(toy)
    wait_until(lambda: len(starts(toy)) == 2)
    with pytest.raises(RunError, match=f"process {first.pid}"):
        here(sweep)
    first.kill()
    first.communicate()
    assert statuses(sweep) == ["running", "running", "missing"]
    second = command(toy)
    wait_until(lambda: "from before" in second.stdout.readline())
    (toy / "hold").unlink()
    second.communicate(timeout=60)
    assert second.returncode == 0 and statuses(sweep) == ["complete"] * 3
    assert sorted(starts(toy)) == ["2 0", "4 0", "8 0"]  # each once


def test_a_killed_point_is_reported_and_the_others_go_on(toy):
    sweep = begin(toy)
    (toy / "hold").touch()
    process = command(toy)
    wait_until(lambda: len(starts(toy)) == 2)
    psutil.Process(sweep.holder("0").pid).kill()
    wait_until(lambda: len(starts(toy)) == 3)
    (toy / "hold").unlink()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and "SIGKILL" in error
    assert statuses(sweep) == ["failed", "complete", "complete"]


def test_a_stopped_sweep_goes_on_where_it_was(toy):
    sweep = begin(toy)
    (toy / "hold").touch()
    process = command(toy)
    wait_until(lambda: len(starts(toy)) == 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by SIGINT" in error
    assert statuses(sweep) == ["interrupted", "interrupted", "missing"]
    (toy / "hold").unlink()
    here(sweep)
    assert statuses(sweep) == ["complete"] * 3


def test_cancel_stops_the_command_and_what_it_left(toy):
    sweep = begin(toy)
    (toy / "hold").touch()
    first = command(toy)
    wait_until(lambda: len(starts(toy)) == 2)
    assert "the command that runs widths" in aqnet("sweep", "cancel", "widths", cwd=toy).stdout
    first.communicate(timeout=60)
    assert first.returncode == 130 and statuses(sweep)[:2] == ["interrupted"] * 2
    orphans = command(toy)
    wait_until(lambda: len(starts(toy)) == 4)
    orphans.kill()
    orphans.communicate()
    told = cancel_sweep(sweep)
    assert [line.split(" (")[0] for line in told] == [
        "asked to stop: width=2", "asked to stop: width=4"
    ]  # fmt: skip
    assert statuses(sweep) == ["interrupted", "interrupted", "missing"]
    assert cancel_sweep(sweep) == ["nothing was running or waiting"]


@pytest.mark.parametrize(
    ("record", "queued", "status"),
    [
        ("created", "PENDING", "waiting"),
        ("running", "RUNNING", "running"),
        ("interrupted", "PENDING", "waiting"),  # requeued
        ("running", "COMPLETING", "running"),
        ("failed", "COMPLETING", "failed"),
        ("failed", None, "failed"),
        ("running", None, "lost"),
        ("created", None, "lost"),
        ("complete", "RUNNING", "complete"),
        ("running", "no squeue", "unknown"),
    ],
)
def test_status_of_a_submitted_point(toy, record, queued, status):
    sweep = begin(toy, grid={"width": [2]})
    (point,) = sweep.points
    run = RunFolder.create(toy / "toy.ipynb", point.values, path=sweep.runs / point.run)
    if record != "created":
        run.set_status(record)
    queue = {} if queued is None else {("job", 0): (queued, "7_0")}
    queue = None if queued == "no squeue" else queue
    state = sweep.state(point, queue, {point.run: ("job", 0)}, held=False)
    assert state.status == status


# ---- results


def made_up(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["arm", "setting", "seed", "loss"])
    labels = table["arm"] + ", " + table["setting"]
    return table.assign(label=labels, status="complete").convert_dtypes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6, unique=True))
def test_differences_are_those_of_pairs(differences):
    rows = [("base", "w=1", seed, float(seed)) for seed in range(9)]  # two seeds have no partner
    rows += [("arm", "w=1", seed, seed + d) for seed, d in enumerate(differences)]
    found = paired_differences(made_up(rows), "loss", "base").iloc[0]
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found["pairs"], found["unpaired"]) == (len(differences), 0)
    np.testing.assert_allclose(
        [found["mean_difference"], found["low"], found["high"]],
        [np.mean(differences), *wanted], rtol=1e-6, atol=1e-9,
    )  # fmt: skip


def test_pairs_share_seed_and_setting():
    rows = [("base", "w=1", 0, 1.0), ("base", "w=2", 0, 5.0), ("arm", "w=1", 0, 1.5),
            ("arm", "w=2", 0, 5.5), ("arm", "w=2", 7, 9.0)]  # fmt: skip
    table = made_up(rows)
    by_arm = paired_differences(table, "loss", "base").set_index("label")
    assert by_arm["mean_difference"].to_dict() == {"arm, w=1": 0.5, "arm, w=2": 0.5}
    assert by_arm["unpaired"].to_dict() == {"arm, w=1": 0, "arm, w=2": 1}
    assert by_arm["low"].isna().all()  # one pair has no interval
    by_label = paired_differences(table, "loss", "base, w=1").set_index("label")
    assert by_label.loc["arm, w=2", "mean_difference"] == 4.5
    table.loc[table["label"] == "arm, w=1", "status"] = "failed"
    assert "arm, w=1" not in set(paired_differences(table, "loss", "base")["label"])
    for metric, baseline in (("loss", "bass"), ("lost", "base")):
        with pytest.raises(ParameterError, match=r"there is no"):
            paired_differences(table, metric, baseline)


@pytest.mark.parametrize("text", ["", "a b", "mean x", "min", "x.", "evaluation: x"])
def test_not_a_metric(text):
    if text == "min":
        assert parse_metric(text) == ("run", "", ("min",))
        return
    with pytest.raises(ParameterError, match="not a metric"):
        parse_metric(text)


def test_figures_show_every_point_once(toy):
    sweep = begin(toy, grid={"width": [2, 4, 32]}, list=[
        {"label": "plain", "parameters": {"mode": "a"}},
        {"label": "other", "parameters": {"mode": "b"}}], seeds=2)  # fmt: skip
    for point in sweep.points:
        run = RunFolder.create(toy / "toy.ipynb", point.values, path=sweep.runs / point.run)
        loss = point.values["width"] + point.seed
        run.write_metrics({"curve": {"step": [0, 2], "train": [None, 1], "validation": [9, loss]}})
        run.set_status("complete")
    states = sweep.states({})
    table = collect(sweep, states).table
    figure = draw_metric(table, "loss", sweep.stored.definition.varied)
    assert [axes.get_xlabel() for axes in figure.axes] == ["arm", "width"]
    for axes in figure.axes:
        drawn = [v for line in axes.lines[:2] for v in line.get_ydata()]
        assert sorted(drawn) == sorted(table["loss"])
    curves = learning_curves(states)
    assert len(draw_curves(curves).axes[0].lines) == 12 and curves["step"].max() == 2
    differences = paired_differences(table, "loss", "plain")
    assert (differences["pairs"] == 2).all()
    assert "same seed" in draw_differences(differences, "loss", "plain").axes[0].get_xlabel()
