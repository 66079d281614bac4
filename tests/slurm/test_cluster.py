"""The script that starts the cluster: what it refuses, what it leaves alone, what it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

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
    show = ("scontrol", "show", "job", number)
    wait_for(lambda: "JobState=RUNNING" in run_tool(*show), "start", "queue",
             lambda: run_tool(*show))  # fmt: skip
    assert script("start", "3", str(os.getpid())).returncode == 0
    other = script("start", "3")
    assert other.returncode == 2 and f"in use by process {os.getpid()}" in other.stderr
    assert "JobState=RUNNING" in run_tool(*show)
    run_tool("scancel", number)


def test_nodes_have_names_and_networks_of_their_own(cluster):
    told = run_tool("srun", "--nodes=2", "--ntasks-per-node=2", "sh", "-c",
                    'echo "$SLURM_PROCID $(hostname) $(getent hosts n1)"').splitlines()  # fmt: skip
    rows = sorted(line.split() for line in told)
    hosts = [row[1] for row in rows]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
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


def test_a_cluster_ends_with_the_process_that_it_is_of(tmp_path):
    """Also if that is killed, and with a job at work."""
    folder = Path(f"/tmp/aqnet-end-{os.getpid()}")  # short: the path of a socket is limited
    own = {"AQNET_SLURM_DIR": str(folder), "AQNET_SLURM_NAME": "aqend",
           "AQNET_SLURM_NET": "10.213.9", "SLURM_CONF": str(folder / "etc/slurm.conf")}  # fmt: skip
    place = os.environ | own
    with subprocess.Popen(["sleep", "600"]) as owner:
        try:
            begun = script("start", "1", str(owner.pid), env=place)
            assert begun.returncode == 0, begun.stderr
            command = ["sbatch", "--output=/dev/null", "--wrap=sleep 600"]
            subprocess.run(command, env=place, check=True, capture_output=True, timeout=60)
        finally:
            owner.kill()

    def left() -> str:
        places = "".join(p.read_text() for p in (Path("/proc/mounts"), Path("/proc/net/dev")))
        named = [line for line in places.splitlines() if "aqend" in line or str(folder) in line]
        return "\n".join(named + [str(p) for p in Path("/run/netns").glob("aqend-*")])

    wait_for(lambda: not left(), "end of the cluster", "leave", left)
    shutil.rmtree(folder)


def test_packages_that_cannot_be_fetched_are_named(tmp_path):
    """As on a machine without a mirror of Debian; nothing is installed there."""
    programs = {"dpkg-query": "exit 1", "apt-get": "echo 'E: no mirror' >&2; exit 100"}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    bare = script("packages", env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert bare.returncode == 2 and "E: no mirror" in bare.stderr
    assert "cannot fetch the Debian packages of SLURM: munge slurmctld" in bare.stderr
    assert "remedy:   give this machine a mirror" in bare.stderr
