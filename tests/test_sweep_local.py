"""Sweeps on this machine: each point once, retried, evaluated, stopped, killed and cancelled."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from notebook_tools import aqnet, make_notebook, start_aqnet
from sweep_case import BODY, TOY, begin, here, starts, statuses, wait_until, write

from aqnet.errors import RunError
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps import queue
from aqnet.jobs.sweeps.cancel import cancel_sweep
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.records import ArrayRecord
from aqnet.jobs.sweeps.results import collect

RESUMED = """\
checkpoint = Path(run_dir) / "checkpoints" / "last.ckpt"
with (place / "resumed").open("a") as notes:
    notes.write(f"{resume} {checkpoint.exists()}\\n")
checkpoint.touch()
"""


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
        ("interrupted", "COMPLETING", "running"),  # requeued, and its nodes are not yet clean
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


@pytest.mark.parametrize("last_first", [False, True])
def test_a_job_to_come_counts_before_the_one_that_ends(toy, monkeypatch, last_first):
    sweep = begin(toy, grid={"width": [2]})
    record = ArrayRecord(job_name="job", runs=("a",), profile="cpu", processes=1)
    monkeypatch.setattr(Sweep, "arrays", lambda self: [(toy, record)])
    monkeypatch.setattr(queue.shutil, "which", lambda name: name)
    lines = [["job", "0", "COMPLETING", "7_0"], ["job", "0", "PENDING", "8_0"],
             ["other", "0", "RUNNING", "9_0"], ["job", "N/A", "RUNNING", "6"]]  # fmt: skip
    monkeypatch.setattr(queue, "own_jobs", lambda: lines[::-1] if last_first else lines)
    assert queue.read_queue(sweep) == {("job", 0): ("PENDING", "8_0")}
