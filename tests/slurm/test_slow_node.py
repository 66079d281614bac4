"""The check of the network on a real SLURM: three nodes, and a cable that carries little."""

from __future__ import annotations

import subprocess
import sys

from notebook_tools import ROOT
from pytest import mark
from slurm_jobs import NOTEBOOK, SITE, Training

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.submission import prepare
from aqnet.jobs.submit import submit

pytestmark = mark.slurm

# Three ranks share two cores: only what is far below the others is slow.
CHECK = ["srun", "--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=1", "--wait=0",
         "--kill-on-bad-exit=1", sys.executable, "-m", "aqnet.jobs.check_network",
         "--accelerator=cpu", "--megabytes=1", "--share=0.2"]  # fmt: skip
PATIENCE_S = 300  # 15 s on two idle cores


def check() -> tuple[int, str]:
    """Exit code and output of the check on a rank of each node."""
    done = subprocess.run(CHECK, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, done.stdout + done.stderr


def test_sound_nodes_pass(cluster):
    code, text = check()
    assert code == 0 and "3 ranks on 3 nodes" in text, text
    assert all(pair in text for pair in ("n1 - n3", "n1 - n2"))


def test_the_node_with_the_thin_cable_is_named(cluster):
    with cluster.thin_cable("n2"):
        code, text = check()
    assert code and "slow: n2\n" in text, text  # 1, or 143 of ranks that srun ended meanwhile
    assert "GB/s with its best partner" in text


def test_a_rehearsal_checks_the_network_before_it_trains(cluster, pair, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path))
    values = pair | {"max_steps": 2, "validate_every": 0}
    ready = prepare(NOTEBOOK, "cpu", 2, values, settings=SITE | {"per_node": "1"}, rehearsal=True)
    assert "check_network --accelerator cpu --megabytes" in ready.text
    job = Training(submit(ready)[0], RunFolder.open(ready.job.run))
    log = job.ended("COMPLETED")
    assert log.index("2 ranks on 2 nodes") < log.index("step=1 ")
    assert " - ".join(job.hosts) in log
