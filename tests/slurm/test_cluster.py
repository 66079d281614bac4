"""The script that starts the cluster: what it refuses, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess

import pytest
from slurm_jobs import CLUSTER, run_tool, wait_for

pytestmark = pytest.mark.slurm


def script(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run it."""
    return subprocess.run(
        [CLUSTER, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_a_start_leaves_a_cluster_with_work_alone(cluster, tmp_path):
    number = run_tool("sbatch", "--parsable", "--nodes=2", f"--output={tmp_path / 'out'}",
                      "--wrap=srun sleep 30").strip()  # fmt: skip
    wait_for(lambda: "JobState=RUNNING" in run_tool("scontrol", "show", "job", number), "start", 60)
    assert script("start", "2").returncode == 0
    assert "JobState=RUNNING" in run_tool("scontrol", "show", "job", number)
    run_tool("scancel", number)


def test_nodes_have_names_and_networks_of_their_own(cluster):
    told = run_tool("srun", "--nodes=2", "--ntasks-per-node=2", "sh", "-c",
                    'echo "$SLURM_PROCID $(hostname) $(getent hosts n1)"').splitlines()  # fmt: skip
    rows = sorted(line.split() for line in told)
    assert [row[1] for row in rows] == ["n1", "n1", "n2", "n2"]
    assert {row[2] for row in rows} == {rows[0][2]} and not rows[0][2].startswith("127.")


def test_what_cannot_work_is_refused_in_words(cluster):
    other = script("cut", "n9")
    assert other.returncode == 2 and "not a node of the local cluster: n9" in other.stderr
    assert script("start", "many").returncode == 2
    if os.getuid() == 0:
        refused = script("start", user=65534)  # nobody
        assert refused.returncode == 2 and "needs root" in refused.stderr
    usage = script()
    assert usage.returncode == 2 and "Debian 12" in usage.stdout
