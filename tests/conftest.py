"""Fixtures shared by the tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import xarray as xr
from notebook_tools import make_notebook
from sweep_case import BODY, TOY

from aqnet.data.manifest import Manifest, load_manifest
from aqnet.data.splits import Split, splits_of
from aqnet.data.static import read_static
from aqnet.data.stations.beijing import build_store
from aqnet.data.stations.measurements import read_stations
from aqnet.data.store import AnalysisStore, open_store
from aqnet.errors import TargetExistsError
from aqnet.io import station_store


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The manifest of the shipped data."""
    return load_manifest(Path(__file__).resolve().parents[1] / "data_manifests" / "beijing.yaml")


@pytest.fixture(scope="session")
def stations(manifest) -> xr.Dataset:
    """All stations; shared, so copy before changing anything."""
    return read_stations(manifest)


@pytest.fixture(scope="session")
def static(manifest) -> xr.Dataset:
    """Elevation and population on the grid."""
    return read_static(manifest)


@pytest.fixture(scope="session")
def splits(manifest) -> dict[str, Split]:
    """Training, validation and test split."""
    return splits_of(manifest)


@pytest.fixture(scope="session")
def store(manifest) -> AnalysisStore:
    """The store in the data folder, built first if it is not there (40 s)."""
    path = station_store("beijing")
    if not path.exists():
        with suppress(TargetExistsError):  # another pytest worker was faster
            build_store(manifest, path)
    return open_store(path)


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """Folder with the notebook of the sweeps in tests; runs go to `runs` in it."""
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("AQNET_ROOT", str(Path(__file__).parents[1]))
    make_notebook(tmp_path / "toy.ipynb", TOY, BODY)
    return tmp_path
