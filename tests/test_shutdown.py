"""Stop signals, from the start of a script to its end: noted, passed on, never deadly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aqnet.jobs.runs import RunFolder
from aqnet.training import shutdown
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.shutdown import STOP_SIGNALS, StopRequest, end_when_terminated


@pytest.fixture(autouse=True)
def handlers():
    """As they were, after each test."""
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    yield before
    for each, handler in before.items():
        signal.signal(each, handler)


def send(*signals: signal.Signals) -> None:
    for each in signals:
        os.kill(os.getpid(), each)


def test_what_came_before_a_training_is_known_in_it_and_after_it(handlers):
    with StopRequest() as script:
        send(signal.SIGUSR1)
        with StopRequest() as training:
            assert training.signal == "SIGUSR1"
            send(signal.SIGTERM)
        assert script.signal == "SIGTERM"
    assert {each: signal.getsignal(each) for each in STOP_SIGNALS} == handlers
    with StopRequest() as later:  # another run in the same kernel
        assert later.signal is None


def test_a_cancelled_job_does_not_take_itself_for_one_whose_time_is_up():
    with StopRequest() as stop:
        send(signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        assert stop.signal == "SIGTERM"


def test_a_second_ctrl_c_ends_at_once_but_not_the_copy_of_a_launcher(monkeypatch):
    clock = [50.0]
    monkeypatch.setattr(shutdown.time, "monotonic", lambda: clock[0])
    with StopRequest():
        send(signal.SIGINT, signal.SIGINT)
        with StopRequest() as training:
            clock[0] += 1.0
            send(signal.SIGINT)
            assert training.signal == "SIGINT"
            clock[0] += 2.0
            send(signal.SIGTERM, signal.SIGUSR1)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)


def test_what_cannot_be_resumed_ends_at_once():
    end_when_terminated()
    send(signal.SIGUSR1)
    with pytest.raises(Exception, match="stopped by SIGTERM"):
        send(signal.SIGTERM)


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from aqnet.jobs.script import Script

_script = Script("nbs/train/toy.ipynb", "0" * 64, 'run_dir: str = ""\\n{resume}')
_script.parameters(__name__)
if __name__ == "__main__":
    moment = os.environ["MOMENT"]
    def now(each):
        if moment == each:
            os.kill(os.getpid(), int(os.environ["NUMBER"]))
    now("imports")
    from toy_training import config, problem
    from aqnet.training.loop import train
    folder = Path(_script.open_run())
    now("opening")
    train(problem(), config(), folder / "checkpoints", "auto", print)
    now("after")
    _script.end()
"""


def run_script(folder: Path, moment: str, number: int, resume: str) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(resume=resume))
    here = Path(__file__).parent
    path = f"{here}:{here.parent}"
    own = {"MOMENT": moment, "NUMBER": str(int(number)), "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, script, "--run-dir", folder / "run"],
        timeout=120,
        env=os.environ | own,
        capture_output=True,
        text=True,
        cwd=here.parent,
    )


RESUME = 'resume: str = ""\\n'


def test_a_signal_at_any_time_of_a_script_loses_nothing(tmp_path):
    begun = (("imports", signal.SIGUSR1, 1), ("opening", signal.SIGTERM, 2))
    for moment, number, step in begun:
        done = run_script(tmp_path, moment, number, RESUME)
        assert done.returncode == 1 and f"stopped by {number.name}" in done.stderr, done.stderr
        last = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt", training=True)
        assert last.progress.step == step
        assert RunFolder.open(tmp_path / "run").record.status == "interrupted"
    done = run_script(tmp_path, "after", signal.SIGTERM, RESUME)
    assert done.returncode == 0, done.stderr  # what is left takes seconds
    assert RunFolder.open(tmp_path / "run").record.status == "complete"


def test_a_script_without_checkpoints_is_noted_as_interrupted(tmp_path):
    done = run_script(tmp_path, "opening", signal.SIGTERM, "")
    assert done.returncode == 1
    record = RunFolder.open(tmp_path / "run").record
    assert record.status == "interrupted" and "SIGTERM" in record.error.message
