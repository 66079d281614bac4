"""What tests of the ingest share: four hours of files, a short year, the command."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from native_hours import FIRST, labels, manifest_file, write_hours

from aqnet.cli.console import Group
from aqnet.cli.ingest import ingest
from aqnet.data.geography import china_static
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.source import ingest as module
from aqnet.data.source.caqra import native_name

STORE = "data_2013_china_32x64_masked.zarr"
whole_year = GridManifest.times
command = Group()
command.add_command(ingest)
static_of = functools.cache(china_static)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A data folder in which the weights are kept."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def four_hours(tmp_path_factory) -> Path:
    """Four hours of files, not to be changed."""
    folder = tmp_path_factory.mktemp("four_hours")
    write_hours(folder, labels(4))
    return folder


@pytest.fixture(autouse=True)
def quick(weights, monkeypatch):
    """Weights and static fields made once; a year of 100 hours: three shards."""
    monkeypatch.setenv("AQNET_DATA", str(weights))
    monkeypatch.setattr(module, "china_static", lambda grid: static_of(grid))
    monkeypatch.setattr(GridManifest, "times", lambda self, year: whole_year(self, year)[:100])


@pytest.fixture
def source(tmp_path, four_hours) -> Path:
    """Four hours of files."""
    return Path(shutil.copytree(four_hours, tmp_path / "source"))


def run(tmp_path: Path, source: Path, *options: str, **changes: object) -> Result:
    """The command line, in this process."""
    arguments = [str(manifest_file(tmp_path, **changes)), "--source", str(source), "--year", "2013"]
    arguments += ["--out", str(tmp_path / "out"), "--workers", "1", *options]
    return CliRunner().invoke(command, ["ingest", *arguments])


def file_of(source: Path, hour: int) -> Path:
    """File of an hour, counted from FIRST."""
    return source / native_name(FIRST + hour)
