"""With AQNET_SLURM=1 a cluster of its own for these tests, gone however they end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_tools import ROOT
from short_beijing import make_short_beijing
from slurm_jobs import CLUSTER, Cluster

_FOLDER = Path(__file__).parent
# Beside a cluster that somebody has started by hand. Short: the path of a socket is limited.
OWN = {"AQNET_SLURM_DIR": "/tmp/aqnet-slurm-test", "AQNET_SLURM_NAME": "aqtest",
       "AQNET_SLURM_NET": "10.213.8"}  # fmt: skip
_PATIENCE_S = 180  # of the script that starts and stops the cluster; 2 s and 10 s alone


def pytest_configure(config: pytest.Config) -> None:
    """The marker is of this folder only."""
    config.addinivalue_line("markers", "slurm: needs a local SLURM, run with `make test-slurm`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where no cluster was asked for, also if one is up: these are no quick tests."""
    if os.environ.get("AQNET_SLURM") == "1":
        return
    skip = pytest.mark.skip(reason="needs a local SLURM: make test-slurm, or AQNET_SLURM=1")
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(skip)


def _script(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [CLUSTER, *arguments], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes, so that a job may lose one; gone at the end, even if this process is killed."""
    folder = Path(OWN["AQNET_SLURM_DIR"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OWN.items():
            patch.setenv(name, value)
        begun = _script("start", "3", str(os.getpid()))
        if begun.returncode:
            pytest.exit(f"no SLURM to test with\n{begun.stderr}", returncode=2)
        patch.setenv("SLURM_CONF", str(folder / "etc" / "slurm.conf"))
        patch.setenv("AQNET_ROOT", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            yield Cluster(folder)
        finally:
            _script("stop")
    if request.session.testsfailed == 0:
        shutil.rmtree(folder)  # else its logs may say why


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Parameters of the training notebook for a data set that is read in a second."""
    folder = tmp_path_factory.mktemp("short")
    yield make_short_beijing(folder)
    shutil.rmtree(folder / "short.zarr")  # 150 MB, which pytest would keep


@pytest.fixture(scope="session")
def pair(short: dict[str, str]) -> dict:
    """Training for 2 nodes x 1 rank: 24 steps of 256 samples, judged at 0, 12 and 24."""
    return short | {
        "max_epochs": 3,
        "max_train_samples": 2048,
        "batch_size": 128,
        "validate_every": 12,
        "max_validation_samples": 512,
        "width": 16,
        "depth": 1,
        "lead_times_h": [24],
        "correction_share": 0.5,
        "log_every": 1,
    }
