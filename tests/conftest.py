"""Fixtures shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from aqnet.data.manifest import Manifest, load_manifest


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The manifest of the shipped data."""
    return load_manifest(Path(__file__).resolve().parents[1] / "data_manifests" / "beijing.yaml")
