"""What a run folder tells of a job that was stopped, given back and ended well."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from notebook_tools import ROOT
from slurm_jobs import run_tool, train

from aqnet.cli import main

pytestmark = pytest.mark.slurm

SMALL = {"max_epochs": 1, "max_train_samples": 1536, "batch_size": 128, "validate_every": 6}
SMALL |= {"width": 16, "depth": 1, "lead_times_h": [24], "correction_share": 0.5, "log_every": 1}


def test_each_start_is_recorded_and_every_digest_is_found_again(
    cluster, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path))
    monkeypatch.setenv("AQNET_ROOT", str(ROOT))
    job = train(2, SMALL)
    job.wait_for_step(2)
    run_tool("scancel", "--signal=USR1", job.number)
    job.ended("COMPLETED")
    starts = [(a.restart, a.status, a.log) for a in job.run.attempts]
    assert starts == [
        (0, "interrupted", f"logs/job-{job.number}-0.log"),
        (1, "complete", f"logs/job-{job.number}-1.log"),
    ]
    for start in job.run.attempts:
        assert (start.job, start.launcher, start.processes) == (job.number, "srun", 2)
        assert start.hosts == "n[1-2]" and start.host == "n1"
    done = CliRunner().invoke(main, ["runs", "verify", str(job.run.path)])
    assert done.exit_code == 0, done.output
    for name in ("staged", "job.sbatch", "script", "parameters", "results", "checkpoint last.ckpt",
                 "data store beijing.zarr", "data normaliser"):  # fmt: skip
        assert f"ok         {name}: " in done.output, done.output
