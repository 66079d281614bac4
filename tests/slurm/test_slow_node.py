"""The check of the network on a real SLURM: three nodes, and a cable that carries little."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_tools import ROOT
from slurm_jobs import CLUSTER, NOTEBOOK, SITE, Training, run_tool

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.submission import prepare
from aqnet.jobs.submit import submit

pytestmark = pytest.mark.slurm

OWN = {"AQNET_SLURM_NAME": "aqthree", "AQNET_SLURM_NET": "10.214.9"}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Environment of a cluster of three nodes, beside that of the other tests."""
    folder = Path(f"/tmp/aqnet-three-{os.getpid()}")  # short: the path of a socket is limited
    place = os.environ | OWN | {"AQNET_SLURM_DIR": str(folder)}
    begun = subprocess.run([CLUSTER, "start", "3"], env=place, capture_output=True, text=True)
    assert begun.returncode == 0, begun.stderr
    yield place | {"SLURM_CONF": str(folder / "etc/slurm.conf"), "OMP_NUM_THREADS": "1"}
    subprocess.run([CLUSTER, "stop"], env=place, capture_output=True)
    shutil.rmtree(folder)


def check(place: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of the check on a rank of each node."""
    command = ["srun", "--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=1", "--wait=0",
               "--kill-on-bad-exit=1", sys.executable, "-m", "aqnet.jobs.check_network",
               "--accelerator=cpu", "--megabytes=4", "--share=0.2", *arguments]  # fmt: skip
    done = subprocess.run(command, env=place, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_sound_nodes_pass(nodes):
    code, text = check(nodes)
    assert code == 0 and "3 ranks on 3 nodes" in text, text
    assert all(pair in text for pair in ("n1 - n3", "n1 - n2"))


def test_the_node_with_the_thin_cable_is_named(nodes):
    cable = f"{OWN['AQNET_SLURM_NAME']}-n2"
    run_tool("tc", "qdisc", "add", "dev", cable, "root", "tbf", "rate", "50mbit", "burst",
             "128kb", "latency", "400ms")  # fmt: skip
    try:
        code, text = check(nodes)
    finally:
        run_tool("tc", "qdisc", "delete", "dev", cable, "root")
    assert code == 1 and "slow: n2\n" in text, text
    assert "GB/s with its best partner" in text


def test_a_rehearsal_checks_the_network_before_it_trains(cluster, store, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path))
    monkeypatch.setenv("AQNET_ROOT", str(ROOT))
    values = {"max_train_samples": 1024, "batch_size": 128, "max_steps": 2, "width": 16}
    values |= {"depth": 1, "lead_times_h": [24], "correction_share": 0.5, "log_every": 1}
    ready = prepare(NOTEBOOK, "cpu", 2, values, settings=SITE | {"per_node": "1"}, rehearsal=True)
    assert "check_network --accelerator cpu --megabytes" in ready.text
    job = Training(submit(ready)[0], RunFolder.open(ready.job.run))
    log = job.ended("COMPLETED")
    assert log.index("2 ranks on 2 nodes") < log.index("step=1 ")
    assert "n1 - n2" in log
