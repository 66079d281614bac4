"""The Beijing preset under a real SLURM: 2 nodes x 2 ranks, and all that may end a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_tools import ROOT
from slurm_jobs import PATIENCE_S, run_tool, train_on, wait_for

from aqnet.jobs.runs import RunFolder
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.shutdown import FAILURE

pytestmark = pytest.mark.slurm

# 12 steps of 256 samples, judged before the first and after each six.
SMALL = {"max_epochs": 1, "max_train_samples": 3072, "batch_size": 64, "validate_every": 6}
SMALL |= {"width": 16, "depth": 1, "lead_times_h": [24], "correction_share": 0.5, "log_every": 1}
QUIET = {"dropout": 0.0, "input_noise": 0.0}  # ranks draw noise of their own
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
    job = train_on(2, PAIR)
    job.ended("COMPLETED")
    return job.run


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


def fill(folder: Path, leave: int) -> None:
    """Fill a file system but for some bytes."""
    room = shutil.disk_usage(folder).free - leave
    assert room > 0, "the file system is too small for a run"
    (folder / "filler").write_bytes(bytes(room))


def test_four_ranks_on_two_nodes_measure_what_one_process_does(runs, tmp_path):
    job = train_on(4, SMALL | QUIET)
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


def test_usr1_saves_requeues_and_goes_on_exactly(whole):
    job = train_on(2, PAIR)
    job.wait_for_step(3)
    run_tool("scancel", "--signal=USR1", job.number)
    log = job.ended("COMPLETED")
    assert job.facts["Restarts"] == "1"
    assert "stopped by SIGUSR1" in job.log(0) and "continues at step" in job.log(1)
    assert log.count("step=12 ") == 2  # trained and judged, once
    same_run(job.run, whole)


def test_a_killed_rank_ends_the_job_and_a_damaged_checkpoint_is_passed_over(whole):
    job = train_on(2, PAIR)
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
    job = train_on(2, PAIR)
    job.wait_for_step(3)
    cluster.link("cut", "n2")
    try:
        job.wait(lambda: job.facts["Restarts"] == "1", "restart")
    finally:
        cluster.link("join", "n2")
    job.ended("COMPLETED")
    same_run(job.run, whole)


def test_a_cancelled_job_leaves_a_checkpoint_and_refuses_that_of_another(whole):
    job = train_on(2, PAIR | {"seed": 1})
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
    (job.run.checkpoints / FAILURE).write_text("rank 5 failed: in another job")
    log = job.again().ended("FAILED")
    assert "cannot resume with other settings: seed" in log and "rank 5" not in log
    assert job.run.record.error.message.startswith("cannot resume")


def test_a_full_disk_is_told_and_harms_nothing(cluster, runs, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(cluster.small / runs.name))
    job = train_on(2, PAIR)
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
