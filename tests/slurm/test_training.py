"""The Beijing preset under a real SLURM: 2 nodes x 2 ranks, and all that may end a job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from notebook_tools import ROOT
from slurm_jobs import (
    PATIENCE_S,
    Training,
    run_tool,
    train,
    train_on,
    wait_for,
    watch,
)

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.watch import job_of
from aqnet.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slurm

# 12 steps of 256 samples, judged before the first and after each six.
SMALL = {"max_epochs": 1, "max_train_samples": 3072, "batch_size": 64, "validate_every": 6}
SMALL |= {
    "max_validation_samples": 1024,
    "width": 16,
    "depth": 1,
    "lead_times_h": [24],
    "correction_share": 0.5,
    "log_every": 1,
}
# The preset as it is, but for the length; ranks draw noise of their own, so without it.
BEIJING = {"max_epochs": 1, "max_train_samples": 3072, "batch_size": 64, "validate_every": 6,
           "max_validation_samples": 1024, "correction_share": 0.5, "log_every": 1,
           "dropout": 0.0, "input_noise": 0.0}  # fmt: skip
# The same steps on 2 nodes x 1 rank, with noise: each start takes half as long.
PAIR = SMALL | {"batch_size": 128}


@pytest.fixture(scope="module")
def runs(cluster, store, tmp_path_factory):
    """Folder of all runs; the store is there before any rank looks for it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AQNET_RUNS", str(folder))
        patch.setenv("AQNET_ROOT", str(ROOT))
        yield folder


@pytest.fixture(scope="module")
def whole(runs) -> RunFolder:
    """A run on 2 nodes x 1 rank that nothing disturbs."""
    job = train(2, PAIR)
    job.ended("COMPLETED")
    return job.run


@pytest.fixture(scope="module")
def chain(runs) -> list[Training]:
    """The preset of Beijing on 2 nodes x 2 ranks, and its evaluation."""
    return train_on(4, BEIJING, then_evaluate=True)


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
    job = chain[0]
    log = job.ended("COMPLETED")
    assert "on n[1-2]" in log and "MEMBER: 4/4" in log
    staged, folder = job.run.path / "staged", tmp_path / "one"
    # the pass of four ranks is that of one process with four times the samples
    command = [sys.executable, staged / "script.py", "--params", staged / "parameters.yaml",
               "--batch-size", "256", "--run-dir", folder]  # fmt: skip
    own = {"AQNET_ROOT": str(staged), "PYTHONPATH": str(staged), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True,
                          timeout=PATIENCE_S)  # fmt: skip
    assert done.returncode == 0, done.stderr
    together, alone = (run.read_metrics()["curve"] for run in (job.run, RunFolder.open(folder)))
    assert together["step"] == alone["step"] == [0, 6, 12]
    for name in ("validation", "losses", "rmse"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-6, err_msg=name)


def test_the_time_limit_requeues_exactly_and_a_stopped_rank_is_named_before(whole, tmp_path):
    """SLURM sends USR1 up to 30 s early, and SIGCONT with it, to the stopped rank too."""
    job = train(2, PAIR, profile=changed(tmp_path, stop_seconds=10), time="00:03:00")
    job.wait_for_step(3)
    assert "RUNNING" in watch(job)
    os.kill(job.processes()[1], signal.SIGSTOP)
    job.wait(lambda: "silent: rank 1 on n2" in watch(job), "silent rank")
    assert "1 of 2 report" in watch(job)
    log = job.ended("COMPLETED")
    assert job.facts["Restarts"] == "1" and "requeued 1 time" in watch(job)
    assert "stopped by SIGUSR1" in job.log(0) and "continues at step" in job.log(1)
    assert log.count("step=12 ") == 2  # trained and judged, once
    same_run(job.run, whole)


def test_an_evaluation_follows_and_reports(chain):
    trained, evaluation = chain
    evaluation.ended("COMPLETED")
    assert evaluation.run.record.status == "complete"
    assert evaluation.run.parameters["train_run"] == str(trained.run.path)
    assert "</html>" in evaluation.run.report_path.read_text()


def test_a_site_that_forbids_requeueing_gets_a_new_job(whole, tmp_path):
    job = train(2, PAIR, profile=changed(tmp_path, continue_by="resubmit"))
    job.wait_for_step(3)
    run_tool("scancel", "--signal=USR1", job.number)
    job.ended("FAILED")  # for SLURM: what goes on is another job
    assert (
        job_of(job.run) != job.number
        and "--no-requeue" in (job.run.path / "job.sbatch").read_text()
    )
    following = Training(job_of(job.run), job.run)
    assert "continues at step" in following.ended("COMPLETED")
    assert following.facts["Restarts"] == "0"
    same_run(job.run, whole)


def test_a_killed_rank_ends_the_job_and_a_damaged_checkpoint_is_passed_over(whole):
    job = train(2, PAIR)
    job.wait_for_step(7)
    begin = time.monotonic()
    job.kill(1)
    assert "n2: task 1: Killed" in job.ended("FAILED")
    assert time.monotonic() - begin < 30  # not until the collective timeout of half an hour
    record = job.run.record
    assert record.status == "failed" and record.error.message.startswith("n2: task 1: Killed")

    last = job.run.checkpoints / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    log = job.again().ended("COMPLETED")
    assert "continues at step 0" in log and "last.ckpt is not used" in log
    same_run(job.run, whole)


def test_a_node_that_is_cut_off_gives_the_job_back(cluster, whole):
    job = train(2, PAIR)
    job.wait_for_step(3)
    cluster.link("cut", "n2")
    try:
        job.wait(lambda: job.facts["Restarts"] == "1", "restart")
    finally:
        cluster.link("join", "n2")
    job.ended("COMPLETED")
    same_run(job.run, whole)


def test_a_cancelled_job_leaves_a_checkpoint_and_refuses_that_of_another(whole):
    job = train(2, PAIR | {"seed": 1})
    job.wait_for_step(3)
    run_tool("scancel", job.number)
    job.ended("CANCELLED")
    wait_for(lambda: not job.processes(), "end of the processes", 30)
    record, last = job.run.record, job.run.checkpoints / "last.ckpt"
    assert record.status == "interrupted" and "stopped by SIGTERM" in record.error.message
    assert read_checkpoint(last, training=True).progress.step >= 3
    assert job.facts["Restarts"] == "0"

    # what other jobs may leave in a folder; Lightning would take up the second by itself
    last.write_bytes((whole.checkpoints / "last.ckpt").read_bytes())
    (job.run.checkpoints / "hpc_ckpt_1.ckpt").write_bytes(b"of another job")
    (job.run.checkpoints / "failure-0000.txt").write_text("rank 5 failed: in another job")
    log = job.again().ended("FAILED")
    assert "cannot resume with other settings: seed" in log and "rank 5" not in log
    assert job.run.record.error.message.startswith("cannot resume")


def test_a_full_disk_is_told_and_harms_nothing(cluster, runs, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(cluster.small / runs.name))
    job = train(2, PAIR)
    try:
        job.wait_for_step(3)
        fill(cluster.small, leave=300_000)  # enough for the log
        assert "not enough room to write" in job.ended("FAILED")
        record, last = job.run.record, job.run.checkpoints / "last.ckpt"
        assert record.status == "failed" and record.error.type == "StorageFullError"
        assert read_checkpoint(last, training=True).progress.step == 0
        (cluster.small / "filler").unlink()
        assert "continues at step 0" in job.again().ended("COMPLETED")
    finally:
        for path in cluster.small.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
