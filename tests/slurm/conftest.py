"""With AQNET_SLURM=1 the cluster for these tests: the one that is up, or one started here."""

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
    """Skip where no cluster was asked for, also if one is up: these are no quick tests."""
    if os.environ.get("AQNET_SLURM") == "1":
        return
    skip = pytest.mark.skip(reason="needs a local SLURM: make test-slurm, or AQNET_SLURM=1")
    for item in items:
        if _FOLDER in item.path.parents:
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
