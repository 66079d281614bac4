"""`aqnet watch`: from the run folder alone, and with what SLURM says."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner
from toy_training import config, problem

from aqnet.cli import main
from aqnet.errors import RunError
from aqnet.jobs.runs import Failure, RunFolder
from aqnet.jobs.watch import find_watched, job_of, report
from aqnet.jobs.watch_queue import QueuedJob, ask_slurm
from aqnet.jobs.watch_ranks import describe_ranks
from aqnet.training.heartbeat import Beat, write_beat
from aqnet.training.loop import train

NOW = 1_000_000.0
FIRST = Beat(rank=0, world=4, host="n1", pid=11, attempt="ab", job="42.1", phase="training",
             step=120, steps=480, epoch=3, own_seconds_per_step=2.0, wait_seconds_per_step=0.1,
             seconds_per_step=2.5, samples_s=30.0, written=NOW - 5)  # fmt: skip


def four(**changes_of_rank_3) -> list[Beat]:
    beats = [
        replace(FIRST, rank=rank, host=f"n{1 + rank // 2}", pid=11 + rank) for rank in range(4)
    ]
    beats[3] = replace(beats[3], **changes_of_rank_3)
    return beats


def test_ranks_in_order_need_one_line():
    assert describe_ranks(four(), NOW) == ["4 of 4 report"]
    assert describe_ranks([replace(FIRST, world=1)], NOW) == ["1 of 1 report"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"written": NOW - 95},
         "silent: rank 3 on n2 for 95 s (pid 14, training, step 120)"),
        ({"own_seconds_per_step": 2.8, "wait_seconds_per_step": 0.0},
         "slow: rank 3 on n2 (2.8 s of its own a step, others 2)"),
    ],
)  # fmt: skip
def test_a_rank_in_trouble_is_named_with_its_host(change, line):
    assert line in describe_ranks(four(**change), NOW)


def test_ranks_that_have_not_come_up_are_named():
    lines = describe_ranks(four()[:2], NOW)
    assert lines == ["2 of 4 report", "no sign of life yet: rank 2, rank 3"]
    many = [replace(beat, world=800) for beat in four()]
    assert describe_ranks(many, NOW)[1].endswith("rank 6, rank 7, and 792 more")


def test_the_rank_that_all_wait_for_is_named_though_it_is_alive():
    waiting = [replace(beat, waiting_s=70.0 + beat.rank) for beat in four()]
    waiting[2] = replace(waiting[2], waiting_s=0.0, phase="saving")
    told = "all wait for: rank 2 on n2 for 70 s (pid 13, saving, step 120)"
    assert told in describe_ranks(waiting, NOW)
    short = [replace(beat, waiting_s=min(beat.waiting_s, 3.0)) for beat in waiting]
    assert describe_ranks(short, NOW) == ["4 of 4 report"]  # an ordinary step


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No commands of SLURM; runs have their own place."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    return tmp_path


def slurm(place, **commands) -> None:
    """Programs that print these texts, and end with code 1 where there is none."""
    (place / "bin").mkdir(exist_ok=True)
    for name, text in commands.items():
        path = place / "bin" / name
        (place / f"{name}.txt").write_text(text or "")
        path.write_text(f"#!/bin/sh\n/bin/cat '{place}/{name}.txt'\nexit {0 if text else 1}\n")
        path.chmod(0o755)


@pytest.fixture
def run(nowhere) -> RunFolder:
    """A run of four ranks in the middle of its training."""
    run = RunFolder.create("train/forecast", {}, path=nowhere / "runs" / "r1")
    run.set_status("running")
    for beat in four(written=NOW - 95):
        (run.path / "heartbeat").mkdir(exist_ok=True)
        write_beat(run.path / "heartbeat", beat)
    (run.checkpoints / "tensorboard").mkdir()
    (run.checkpoints / "metrics.csv").write_text(
        "loss,step,val_loss\n0.9,10,\n,10,0.8\n0.7,110,\n,110,0.85\n0.65,120,\n0.6,1"
    )
    return run


def test_a_run_on_this_machine_has_its_folder_alone(run):
    text, ended = report(run, NOW)
    assert not ended
    lines = dict.fromkeys(text.splitlines())
    assert "run       r1: running" in lines
    assert "progress  training, step 120 of 480, epoch 3 (25%), 0:15:00 to the end" in lines
    assert "loss      0.65 at step 120; validation 0.85 at step 110, best 0.8 at 10" in lines
    assert "ranks     3 of 4 report" in lines
    assert "ranks     silent: rank 3 on n2 for 95 s (pid 14, training, step 120)" in lines
    assert "speed     30 samples/s; a step takes 2.5 s, of which rank 0 waits 0.1 s" in lines
    assert "ssh -N -L 6006:localhost:6006 USER@LOGIN-NODE" in text and "\njob " not in text


def test_a_run_that_has_ended_says_how(run):
    run.set_status("failed", Failure(type="StorageFullError", message="no room\n  more"))
    (run.path / "logs").mkdir(exist_ok=True)
    (run.path / "logs/job-42-0.log").write_text(
        "step=1 loss=0.5\nTraceback (most recent call last):\naqnet.errors.StorageFullError: no "
        "room\n  expected: room\nsrun: error: n1: task 0: Exited with exit code 1\nthe end\n"
    )
    text, ended = report(run, NOW)
    assert ended and "ranks" not in text
    assert "run       r1: failed, StorageFullError: no room" in text
    assert "error     srun: error: n1: task 0: Exited with exit code 1 (logs/job-42-0.log)" in text


def test_a_run_that_has_just_been_made(nowhere):
    run = RunFolder.create("train/forecast", {}, path=nowhere / "runs" / "r1")
    assert report(run, NOW) == ("run       r1: created", False)


def test_the_command_shows_a_real_training_by_its_name(nowhere):
    run = RunFolder.create("train/forecast", {}, path=nowhere / "runs" / "r1")
    run.set_status("running")
    train(problem(), config(), run.checkpoints, echo=lambda line: None,
          beats=run.path / "heartbeat")  # fmt: skip
    run.set_status("complete")
    shown = CliRunner().invoke(main, ["watch", "r1"])  # ended: does not wait
    assert shown.exit_code == 0 and "ended, step 15 of 15, epoch 3 (100%)\n" in shown.output
    unknown = CliRunner().invoke(main, ["watch", "r2", "--once"])
    assert unknown.exit_code == 1 and "aqnet runs list" in unknown.output


# ---- with SLURM

SHOW = ("JobId=42 JobName=a b UserId=u(1) JobState={state} Reason={reason} Restarts=2 "
        "RunTime=00:12:03 TimeLimit=00:30:00 StartTime=2026-03-01T12:00:00 NodeList={nodes} "
        "StdErr=/x y/logs/slurm-42.out StdOut={folder}/logs/slurm-42.out Power=")  # fmt: skip


def test_a_job_is_found_by_its_number_and_its_state_told(run, nowhere):
    text = SHOW.format(state="RUNNING", reason="None", nodes="n[1-2]", folder=run.path)
    slurm(nowhere, scontrol=text)
    (run.path / "submission.json").write_text(json.dumps({"job": "42"}))
    found = find_watched("42")
    assert found.path == run.path
    told, ended = report(found, NOW)
    line = "job       42: RUNNING 00:12:03 of 00:30:00 on n[1-2] requeued 2 times"
    assert line in told.splitlines() and not ended


@pytest.mark.parametrize("tools", [("squeue", "scontrol"), ("squeue",), ("scontrol",)])
def test_a_waiting_job_says_why_and_until_when(nowhere, tools):
    """By squeue or scontrol, whichever of them the site has."""
    said = {
        "squeue": "42|PENDING|Priority||0:00|30:00|2026-03-01T12:00:00\n",
        "scontrol": SHOW.format(state="PENDING", reason="Priority", nodes="", folder="/r"),
    }
    slurm(nowhere, sacct=None, **{tool: said[tool] for tool in tools})
    told = " requeued 2 times" if "scontrol" in tools else ""
    job = ask_slurm("42")
    assert str(job) == f"42: PENDING (Priority) start 2026-03-01T12:00:00{told}"
    assert not job.over and job.output == ("/r/logs/slurm-42.out" if told else "")


def test_an_old_job_is_known_by_its_accounting_or_not_at_all(run, nowhere):
    (run.path / "submission.json").write_text(json.dumps({"job": "42"}))
    slurm(nowhere, scontrol=None, sacct="42|CANCELLED by 0|n[1-2]|00:01:00|00:30:00|Unknown\n")
    assert ask_slurm("42") == QueuedJob(
        "42", "CANCELLED by 0", "", "n[1-2]", "00:01:00", "00:30:00"
    )
    told, ended = report(run, NOW)
    assert ended and "r1: running; but its job is over" in told
    slurm(nowhere, scontrol=None, sacct=None)
    assert ask_slurm("42") is None
    told, ended = report(run, NOW)
    assert not ended and "42: SLURM does not know it here" in told
    assert find_watched("42").path == run.path


def test_the_job_that_a_run_submitted_for_itself_is_the_newest(run):
    (run.path / "submission.json").write_text(json.dumps({"job": "42"}))
    (run.path / "logs").mkdir(exist_ok=True)
    (run.path / "logs/job-42-0.log").write_text("stopped by SIGUSR1\nSubmitted batch job 101\n")
    assert job_of(run) == "101"  # it waits
    (run.path / "logs/job-101-0.log").write_text("step=1\n")
    os.utime(run.path / "logs/job-42-0.log", (1, 1))
    assert job_of(run) == "101"


def test_an_element_of_an_array_is_older_than_a_later_job(run):
    (run.path / "submission.json").write_text(json.dumps({"job": "123_4"}))
    (run.path / "logs").mkdir(exist_ok=True)
    (run.path / "logs/job-200-0.log").write_text("step=1\n")
    assert job_of(run) == "200"


def test_a_job_of_something_else_is_refused(nowhere):
    (nowhere / "runs").mkdir()
    with pytest.raises(RunError, match="no run of job 7"):
        find_watched("7")
