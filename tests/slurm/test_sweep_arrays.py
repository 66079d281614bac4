"""Sweeps as arrays of jobs on a real SLURM: throttled, split, retried, evaluated, cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from notebook_tools import make_notebook
from slurm_jobs import CLUSTER, SITE, run_tool, wait_for
from sweep_case import BODY, TOY

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps import slurm as sweep_slurm
from aqnet.jobs.sweeps.begin import define_sweep
from aqnet.jobs.sweeps.cancel import cancel_sweep
from aqnet.jobs.sweeps.cluster import cluster_of
from aqnet.jobs.sweeps.definition import load_definition
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import plan_sweep
from aqnet.jobs.sweeps.queue import own_jobs, read_queue
from aqnet.jobs.sweeps.records import PointState
from aqnet.jobs.sweeps.results import collect
from aqnet.jobs.sweeps.slurm import submit_arrays

pytestmark = pytest.mark.slurm

JUDGE = """\
from aqnet.jobs.runs import RunFolder
run = RunFolder.for_notebook(run_dir, "judge", {})
run.write_metrics({"width": RunFolder.open(train_run).parameters["width"]})
run.finish()
"""
CLOSING = """\
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.folder import Sweep
run = RunFolder.for_notebook(run_dir, "closing", {})
states = Sweep.open(sweep).states(None)
run.write_metrics({"complete": sum(state.status == "complete" for state in states)})
run.finish()
"""
ENDED = ("complete", "failed", "interrupted", "lost")


@pytest.fixture
def toy(cluster, tmp_path, monkeypatch):
    """Folder with notebooks; runs go to `runs` in it. No job of an earlier test takes room."""
    wait_for(lambda: not own_jobs(), "empty queue", "leave", lambda: run_tool("squeue"))
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sweep_slurm, "POLL_S", 0.5)
    make_notebook(tmp_path / "toy.ipynb", TOY, BODY)
    make_notebook(tmp_path / "judge.ipynb", 'train_run: str = ""\n', JUDGE)
    make_notebook(tmp_path / "closing.ipynb", 'sweep: str = ""\n', CLOSING)
    return tmp_path


def begin(toy: Path, name: str, **fields) -> Sweep:
    common = {
        "name": name,
        "notebook": str(toy / "toy.ipynb"),
        "grid": {"width": [2, 4, 8]},
        "parameters": {"folder": str(toy)},
        "metrics": {"loss": "last curve.validation"},
    }
    path = toy / f"{name}.yaml"
    path.write_text(yaml.safe_dump(common | fields))
    return define_sweep(plan_sweep(load_definition(path)), path.read_text())  # fmt: skip


def submit(
    sweep: Sweep, limit: int, throttle: int | None, profile: str = "cpu", **options
) -> list[str]:
    """Submit what is missing; lines of progress."""
    lines: list[str] = []
    settings = SITE | {"per_node": "4", "array_limit": str(limit)}
    options = {"failed_too": False} | options
    submit_arrays(sweep, cluster_of(profile, settings, 1, throttle), echo=lines.append, **options)
    return lines


def ended(sweep: Sweep) -> list[PointState]:
    """What has become of the points, once nothing waits or runs."""

    def states() -> list[PointState]:
        return sweep.states(read_queue(sweep))

    wait_for(lambda: all(state.status in ENDED for state in states()), "end of the sweep", "end",
             lambda: story(states()))  # fmt: skip
    return states()


def story(states: list[PointState]) -> str:
    """Queue, states and logs of a sweep that does not end."""
    logs = [path for state in states if state.run for path in state.run.glob("logs/*.log")]
    texts = [f"---- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in logs]
    return "\n".join([run_tool("squeue"), *map(str, states), *texts])


def at_once(states: list[PointState]) -> int:
    """The most runs that were at work at one time."""
    attempts = [a for state in states for a in RunFolder.open(state.run).attempts]
    return max(sum(a.started <= b.started <= a.ended for a in attempts) for b in attempts)


def test_a_throttled_sweep_in_two_arrays_and_a_retry(toy):
    (toy / "bad-4").touch()
    sweep = begin(toy, "split", parameters={"folder": str(toy), "seconds": 2.0})
    lines = submit(sweep, limit=2, throttle=2)
    assert [len(record.runs) for _, record in sweep.arrays()] == [2, 1]
    assert sum("wait for room" in line for line in lines) == 1
    states = ended(sweep)
    assert [state.status for state in states] == ["complete", "failed", "complete"]
    assert "width 4 is bad" in states[1].reason and at_once(states) <= 2
    assert (toy / "starts").read_text().count("\n") == 3

    assert submit(sweep, limit=2, throttle=2) == []  # nothing is missing
    (toy / "bad-4").unlink()
    submit(sweep, limit=2, throttle=2, failed_too=True)
    states = ended(sweep)
    assert [state.status for state in states] == ["complete"] * 3
    assert states[1].run.name.endswith("-try2") and len(list(sweep.path.glob("code-*"))) == 1
    table = collect(sweep, states).table
    assert table["loss"].tolist() == [0.5, 0.25, 0.125] and table["code"].nunique() == 1


def test_each_element_is_evaluated_after_it(toy):
    (toy / "bad-8").touch()
    evaluate = {"notebook": str(toy / "judge.ipynb")}
    sweep = begin(toy, "judged", evaluate=evaluate, metrics={"width_seen": "evaluation:width"})
    submit(sweep, limit=6, throttle=None)
    assert [folder.name for folder, _ in sweep.arrays()] == ["001", "001-evaluate"]
    states = ended(sweep)
    assert [state.status for state in states] == ["complete", "complete", "failed"]
    table = collect(sweep, states).table
    assert table["width_seen"].tolist()[:2] == [2, 4] and table["width_seen"].isna()[2]


def test_cancelled_elements_are_done_by_the_next_command(toy):
    (toy / "hold").touch()
    sweep = begin(toy, "cancelled")
    left = submit(sweep, limit=2, throttle=1, wait=False)
    assert len(left) == 1  # one array; there is no room for the third point
    wait_for(lambda: (toy / "starts").exists(), "start of an element", "step",
             lambda: run_tool("squeue"))  # fmt: skip
    statuses = [state.status for state in sweep.states(read_queue(sweep))]
    assert statuses == ["running", "waiting", "missing"]
    assert cancel_sweep(sweep) == ["cancelled 2 elements in SLURM's queue"]
    wait_for(lambda: not own_jobs(), "end of the jobs", "leave", lambda: run_tool("squeue"))
    assert "interrupted" in {state.status for state in sweep.states(read_queue(sweep))}
    (toy / "hold").unlink()
    submit(sweep, limit=4, throttle=None)
    assert [state.status for state in ended(sweep)] == ["complete"] * 3
    # SLURM itself has seen the throttle of the first array
    (_, first), *_ = sweep.arrays()
    assert "ArrayTaskThrottle=1" in run_tool("scontrol", "show", "job", first.job)


def summary_of(sweep: Sweep) -> PointState:
    """What has become of the summary, once it has ended, or nothing is left in the queue."""

    def found() -> PointState:
        queue = read_queue(sweep)
        return sweep.summary_state(sweep.states(queue), queue)

    def over() -> bool:
        return found().status in ("complete", "failed") or not own_jobs()

    wait_for(over, "end of the summary", "end", lambda: story([found()]))
    return found()


@pytest.mark.parametrize("way", ["requeue", "resubmit"])
def test_the_last_element_submits_the_summary(toy, tmp_path, way):
    """Of two arrays, the second after a retry; evaluations follow by dependency or by hand-over."""
    content = yaml.safe_load((CLUSTER.parent / "cpu.yaml").read_text())
    content["continue_by"]["value"] = way
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml.safe_dump(content))
    (toy / "bad-4").touch()
    followers = {"evaluate": {"notebook": str(toy / "judge.ipynb")},
                 "summary": {"notebook": str(toy / "closing.ipynb")}}  # fmt: skip
    sweep = begin(toy, f"closed-{way}", grid={"width": [2, 4]}, **followers)
    submit(sweep, limit=8, throttle=None, profile=str(profile))
    assert [state.status for state in ended(sweep)] == ["complete", "failed"]
    waiting = summary_of(sweep)
    assert (waiting.status, waiting.reason) == ("missing", "waits for 1 of 2 points")
    (toy / "bad-4").unlink()
    submit(sweep, limit=8, throttle=None, profile=str(profile), failed_too=True)
    assert [state.status for state in ended(sweep)] == ["complete"] * 2
    done = summary_of(sweep)
    assert done.status == "complete", story([done])
    assert RunFolder.open(done.run).read_metrics() == {"complete": 2}
    assert submit(sweep, limit=8, throttle=None, profile=str(profile), failed_too=True) == []
