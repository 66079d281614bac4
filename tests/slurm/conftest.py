"""The cluster for these tests: one that is up, or with AQNET_SLURM=1 one that is started here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_jobs import CLUSTER, Cluster

_FOLDER = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """The marker is of this folder only."""
    config.addinivalue_line("markers", "slurm: needs a local SLURM, run with `make test-slurm`")


def _script(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([CLUSTER, *arguments], capture_output=True, text=True, timeout=180)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying why, where there is no cluster and none was asked for."""
    own = [item for item in items if _FOLDER in item.path.parents]
    if not own or os.environ.get("AQNET_SLURM") == "1" or _script("status").returncode == 0:
        return
    skip = pytest.mark.skip(reason="no local SLURM: AQNET_SLURM=1, or slurm/local_cluster.sh start")
    for item in own:
        item.add_marker(skip)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes; stopped at the end if they were started for the tests."""
    was_up = _script("status").returncode == 0
    begun = _script("start", "2")
    assert begun.returncode == 0, begun.stderr
    folder = Path(os.environ.get("AQNET_SLURM_DIR", "/tmp/aqnet-slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "etc" / "slurm.conf"))
        yield Cluster(folder)
    if not was_up:
        _script("stop")
