"""The summary of a sweep: a notebook that runs once, after all points."""

from __future__ import annotations

import json

import pytest
from notebook_tools import aqnet, make_notebook
from sweep_case import begin, closing, here, statuses, summary_of, write

from aqnet.errors import ParameterError
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.definition import load_definition
from aqnet.jobs.sweeps.points import plan_sweep
from aqnet.jobs.sweeps.ready import main as ready
from aqnet.jobs.sweeps.ready import take_summary
from aqnet.jobs.sweeps.results import collect


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
