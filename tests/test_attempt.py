"""Why a job ended badly: from SLURM's line in the log where the processes could not tell."""

from __future__ import annotations

import pytest

from aqnet.jobs.attempt import main
from aqnet.jobs.runs import Failure, RunFolder

KILLED = """step=3 epoch=0 loss=0.5
srun: error: n2: task 3: Killed
srun: Terminating StepId=7.0
srun: error: n1: tasks 0-1: Terminated
"""
OWN_CODE = """srun: error: n1: task 0: Exited with exit code 1
srun: launch/slurm: _step_signal: Terminating StepId=6.0
srun: error: n2: task 1: Terminated
"""
IMPORTS = """job 7, restart 0, on n1, 2026-03-01T12:00:00Z
Traceback (most recent call last):

  File "script.py", line 1, in <module>
    import other
  File "other.py", line 1, in <module>
  File "script.py", line 3, in <module>
    import lost
ModuleNotFoundError: No module named 'lost'
"""
SLOW = """node pairs  0.58 GB/s, median of the nodes' best; the slowest:
error: slow: n3
  expected: every node at 0.5 of the median
"""
LOST = Failure(type="RuntimeError", message="Connection closed by peer")
STOPPED = Failure(type="InterruptedRunError", message="training was stopped by SIGUSR1")
FULL = Failure(type="StorageFullError", message="cannot write last.ckpt")


@pytest.mark.parametrize(
    ("status", "told", "log", "reason"),
    [
        ("running", None, KILLED, "n2: task 3: Killed"),  # it was the first rank's processor
        ("failed", LOST, KILLED, "n2: task 3: Killed; then, in another process: RuntimeError: Con"),
        ("failed", FULL, OWN_CODE, "cannot write last.ckpt"),
        ("running", None, OWN_CODE, "ended with code 137 before it could note why; the log ends:"),
        (
            "created",
            None,
            IMPORTS + OWN_CODE,
            "ended with code 137 before it could note why; the log ends: ModuleNotFoundError: No "
            "module named 'lost'\nbefore that:\n",
        ),
        ("created", None, SLOW + OWN_CODE, "slow: n3\n  expected: every node"),
        ("created", None, "", "ended with code 137 before it could note why; the log ends: it is"),
    ],
)
def test_the_reason_is_in_the_run_folder(tmp_path, capsys, status, told, log, reason):
    run = RunFolder.create("train/forecast", {}, path=tmp_path / "run")
    if status != "created":
        run.set_status("running")
        run.set_status(status, told)
    (tmp_path / "log").write_text(log)
    assert main([str(run.path), "137", str(tmp_path / "log")]) == 0
    record = RunFolder.open(run.path).record
    assert record.status == "failed" and record.error.message.startswith(reason)
    assert record.error.type == (told.type if told is FULL else "JobError")
    assert "ended badly" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["interrupted", "complete"])
def test_what_ended_in_order_stays(tmp_path, status):
    run = RunFolder.create("train/forecast", {}, path=tmp_path / "run")
    run.set_status("running")
    run.set_status(status, STOPPED)
    before = run.record
    (tmp_path / "log").write_text(KILLED)
    main([str(run.path), "1", str(tmp_path / "log")])
    assert run.record == before


@pytest.mark.parametrize("earlier", [STOPPED, FULL])
def test_how_an_earlier_start_ended_does_not_hide_why_this_one_did(tmp_path, monkeypatch, earlier):
    """A requeued job that dies before its script begins."""
    run = RunFolder.create("train/forecast", {}, path=tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run.set_status("running")
    run.set_status("interrupted" if earlier is STOPPED else "failed", earlier)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    log = run.path / "logs" / "job-7-1.log"
    log.write_text(IMPORTS)
    main([str(run.path), "1", str(log)])
    assert run.record.status == "failed" and "No module named 'lost'" in run.record.error.message
    first, second = run.attempts
    assert first.error == earlier and (second.restart, second.status) == (1, "failed")
