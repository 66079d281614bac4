"""The Beijing preset under a real SLURM: 2 nodes x 2 ranks, and all that may end a job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from notebook_tools import ROOT
from slurm_jobs import PATIENCE_S, Training, run_tool, train, train_on, wait_for, watch

from aqnet.cli import main
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.watch import job_of
from aqnet.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slurm

# The preset as it is, with its data, but for the length: 6 steps of 256 samples, judged at 0, 3, 6.
# Ranks draw noise of their own, so without it.
BEIJING = {"max_epochs": 1, "max_train_samples": 1536, "batch_size": 64, "validate_every": 3,
           "max_validation_samples": 512, "correction_share": 0.5, "log_every": 1,
           "dropout": 0.0, "input_noise": 0.0}  # fmt: skip
STEPS = 24  # of `pair`, judged after 12


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory):
    """Folder of all runs."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AQNET_RUNS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def whole(runs, pair) -> RunFolder:
    """A run on 2 nodes x 1 rank that nothing disturbs."""
    job = train(2, pair)
    job.ended("COMPLETED")
    return job.run


@pytest.fixture(scope="module")
def chain(runs, store) -> list[Training]:
    """The preset of Beijing on 2 nodes x 2 ranks, and its evaluation."""
    return train_on(4, BEIJING, then_evaluate=True)


@dataclass(frozen=True)
class Limited:
    """A training that met its time limit, and what `aqnet watch` showed of it before."""

    job: Training
    hosts: list[str]
    running: str
    silent: str


@pytest.fixture(scope="module")
def limited(runs, pair, tmp_path_factory) -> Limited:
    """One rank is stopped until it is noticed; then the time limit comes, as when a user lowers it.

    SLURM sends SIGCONT with SIGUSR1. The limit of a job that runs already, in whole minutes: its
    signal is due within a minute, and the ranks have another one to leave.
    """
    profile = changed(tmp_path_factory.mktemp("profile"), stop_seconds=60)
    job = train(2, pair, profile=profile)
    job.wait_for_step(3)
    running, hosts = watch(job), job.hosts
    job.send(signal.SIGSTOP, rank=1)
    job.wait(lambda: "silent: rank 1" in watch(job), "a silent rank", "silence")
    silent = watch(job)
    hours, minutes, _ = map(int, job.facts["RunTime"].split(":"))
    limit = f"JobId={job.number} TimeLimit={60 * hours + minutes + 2}"
    run_tool("scontrol", "update", *limit.split())
    job.wait(lambda: job.facts["Restarts"] == "1", "a restart", "limit")
    run_tool("scontrol", "update", f"JobId={job.number}", "TimeLimit=20")
    job.ended("COMPLETED")
    return Limited(job, hosts, running, silent)


def step_of(checkpoint: Path) -> int:
    """Optimiser step at which a checkpoint was written."""
    return read_checkpoint(checkpoint, training=True).progress.step


def same_run(run: RunFolder, other: RunFolder) -> None:
    """Two runs have measured and learned the same, bit for bit."""
    assert run.record.status == "complete"
    assert run.read_metrics() == other.read_metrics()
    parts = [read_checkpoint(each.checkpoints / "last.ckpt", training=True)
             for each in (run, other)]  # fmt: skip
    assert all(torch.equal(v, parts[1].state[name]) for name, v in parts[0].state.items())
    assert parts[0].training["sampler"] == parts[1].training["sampler"]
    rows = [(each.checkpoints / "metrics.csv").read_text().count("\n") for each in (run, other)]
    assert rows[0] == rows[1], "a step is there twice, or missing"


def changed(folder: Path, **settings) -> Path:
    """The profile `cpu` with other settings."""
    content = yaml.safe_load((ROOT / "slurm" / "cpu.yaml").read_text())
    for name, value in settings.items():
        content[name]["value"] = value
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return folder / "mine.yaml"


def fill(folder: Path, leave: int) -> None:
    """Fill a file system but for some bytes."""
    room = shutil.disk_usage(folder).free - leave
    assert room > 0, "the file system is too small for a run"
    (folder / "filler").write_bytes(bytes(room))


def test_four_ranks_on_two_nodes_measure_what_one_process_does(chain, tmp_path):
    job, evaluation = chain
    waiting = watch(evaluation)
    log = job.ended("COMPLETED")
    assert "(Dependency)" in waiting, waiting
    assert f"on {job.facts['NodeList']}" in log and len(job.hosts) == 2 and "MEMBER: 4/4" in log
    staged, folder = job.run.path / "staged", tmp_path / "one"
    # the pass of four ranks is that of one process with four times the samples
    command = [sys.executable, staged / "script.py", "--params", staged / "parameters.yaml",
               "--batch-size", "256", "--run-dir", folder]  # fmt: skip
    own = {"AQNET_ROOT": str(staged), "PYTHONPATH": str(staged)}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True,
                          timeout=PATIENCE_S["end"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    together, alone = (run.read_metrics()["curve"] for run in (job.run, RunFolder.open(folder)))
    assert together["step"] == alone["step"] == [0, 3, 6]
    for name in ("validation", "losses", "rmse"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-6, err_msg=name)


def test_an_evaluation_follows_and_reports(chain):
    trained, evaluation = chain
    evaluation.ended("COMPLETED")
    assert evaluation.run.record.status == "complete"
    assert evaluation.run.parameters["train_run"] == str(trained.run.path)
    assert "</html>" in evaluation.run.report_path.read_text()


def test_a_stopped_rank_is_named(limited):
    assert "RUNNING" in limited.running and "2 of 2 report" in limited.running
    assert f"silent: rank 1 on {limited.hosts[1]}" in limited.silent
    assert "1 of 2 report" in limited.silent


def test_the_time_limit_requeues_and_resumes_exactly(limited, whole):
    job = limited.job
    assert job.facts["Restarts"] == "1" and "requeued 1 time" in watch(job)
    assert "stopped by SIGUSR1" in job.log(0) and "continues at step" in job.log(1), job.story()
    assert job.log().count(f"step={STEPS} ") == 2  # trained and judged, once
    same_run(job.run, whole)


def test_each_start_is_recorded_and_every_digest_is_found_again(limited):
    job, run = limited.job, limited.job.run
    starts = [(a.restart, a.status, a.log) for a in run.attempts]
    assert starts == [
        (0, "interrupted", f"logs/job-{job.number}-0.log"),
        (1, "complete", f"logs/job-{job.number}-1.log"),
    ]
    for start in run.attempts:
        assert (start.job, start.launcher, start.processes) == (job.number, "srun", 2)
    assert run.attempts[0].host == limited.hosts[0]
    done = CliRunner().invoke(main, ["runs", "verify", str(run.path)])
    assert done.exit_code == 0, done.output
    for name in ("staged", "job.sbatch", "script", "parameters", "results", "checkpoint last.ckpt",
                 "data store short.zarr", "data normaliser"):  # fmt: skip
        assert f"ok         {name}: " in done.output, done.output


def test_a_site_that_forbids_requeueing_gets_a_new_job(whole, pair, tmp_path):
    job = train(2, pair, profile=changed(tmp_path, continue_by="resubmit"))
    job.wait_for_step(3)
    run_tool("scancel", "--signal=USR1", job.number)
    job.ended("FAILED")  # for SLURM: what goes on is another job
    assert "--no-requeue" in (job.run.path / "job.sbatch").read_text()
    following = Training(job_of(job.run), job.run)
    assert following.number != job.number, job.story()
    assert "continues at step" in following.ended("COMPLETED")
    assert following.facts["Restarts"] == "0"
    same_run(job.run, whole)


def test_a_killed_rank_ends_the_job_and_a_damaged_checkpoint_is_passed_over(whole, pair):
    job = train(2, pair)
    job.wait_for_step(13)
    begin = time.monotonic()
    job.send(signal.SIGKILL, rank=1)
    killed = f"{job.hosts[1]}: task 1: Killed"
    assert killed in job.ended("FAILED")
    assert time.monotonic() - begin < 30  # not until the collective timeout of half an hour
    record = job.run.record
    assert record.status == "failed" and record.error.message.startswith(killed)

    last = job.run.checkpoints / "last.ckpt"
    before = step_of(last.with_name("last-previous.ckpt"))
    assert before < step_of(last)
    last.write_bytes(last.read_bytes()[:-1000])
    log = job.again().ended("COMPLETED")
    assert f"continues at step {before}" in log and "last.ckpt is not used" in log
    same_run(job.run, whole)


def test_a_node_that_is_cut_off_gives_the_job_back(cluster, whole, pair):
    job = train(2, pair)
    job.wait_for_step(3)
    with cluster.without(job.hosts[1]):
        job.wait(lambda: job.facts["Restarts"] == "1", "a restart", "loss")
        job.wait_for_step(STEPS, restart=1)  # on the two that are left
    job.ended("COMPLETED")
    same_run(job.run, whole)


def test_a_cancelled_job_leaves_a_checkpoint_and_refuses_that_of_another(whole, pair):
    job = train(2, pair | {"seed": 1})
    job.wait_for_step(3)
    run_tool("scancel", job.number)
    job.ended("CANCELLED")
    wait_for(lambda: not job.processes(), "end of the processes", "leave", job.story)
    record, last = job.run.record, job.run.checkpoints / "last.ckpt"
    assert record.status == "interrupted" and "stopped by SIGTERM" in record.error.message
    assert step_of(last) >= 3 and job.facts["Restarts"] == "0"

    # what other jobs may leave in a folder; Lightning would take up the second by itself
    last.write_bytes((whole.checkpoints / "last.ckpt").read_bytes())
    (job.run.checkpoints / "hpc_ckpt_1.ckpt").write_bytes(b"of another job")
    (job.run.checkpoints / "failure-0000.txt").write_text("rank 5 failed: in another job")
    log = job.again().ended("FAILED")
    assert "cannot resume with other settings: seed" in log and "rank 5" not in log
    assert job.run.record.error.message.startswith("cannot resume")


def test_a_full_disk_is_told_and_harms_nothing(cluster, runs, pair, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(cluster.small / runs.name))
    job = train(2, pair)
    last = job.run.checkpoints / "last.ckpt"
    try:
        job.wait_for_step(3)
        job.send(signal.SIGSTOP, rank=0)  # the one that writes
        fill(cluster.small, leave=300_000)  # enough for the log
        before = step_of(last)
        job.send(signal.SIGCONT, rank=0)
        assert "not enough room to write" in job.ended("FAILED")
        record = job.run.record
        assert record.status == "failed" and record.error.type == "StorageFullError"
        assert step_of(last) == before < STEPS
        (cluster.small / "filler").unlink()
        assert f"continues at step {before}" in job.again().ended("COMPLETED")
    finally:
        for path in cluster.small.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
