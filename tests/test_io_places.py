"""Digests of files and values; where the repository, the data and the runs are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqnet import io
from aqnet.errors import AqnetError

# ---- digests

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), JSON))
def test_json_digest_does_not_depend_on_key_order(content):
    backwards = dict(reversed(list(content.items())))
    assert io.sha256_json(content) == io.sha256_json(backwards)
    assert io.sha256_json(content) != io.sha256_json(content | {"another key": 1, "b": 2})


def test_digests_of_known_content(tmp_path):
    """Of the two bytes `{}`, by sha256sum of coreutils."""
    known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (tmp_path / "x").write_text("{}")
    assert io.sha256_file(tmp_path / "x") == known
    assert io.sha256_json({}) == known
    assert io.sha256_json({"a": 1}) != io.sha256_json({"a": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        io.sha256_json([float("inf")])


# ---- places


@pytest.fixture
def no_places(monkeypatch):
    for name in ("AQNET_ROOT", "AQNET_DATA", "AQNET_RUNS"):
        monkeypatch.delenv(name, raising=False)


def repository(path: Path) -> Path:
    (path / "data_manifests").mkdir(parents=True)
    (path / "settings.ini").touch()
    return path


def test_root_is_found_from_a_subfolder(tmp_path, monkeypatch, no_places):
    root = repository(tmp_path / "aqnet")
    (root / "nbs" / "train").mkdir(parents=True)
    monkeypatch.chdir(root / "nbs" / "train")
    assert io.repository_root() == root
    assert io.data_root() == root / "data"
    assert io.runs_root() == root / "runs"


def test_missing_root_names_both_ways_to_give_it(tmp_path, monkeypatch, no_places):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AqnetError, match="inside the repository, or set AQNET_ROOT"):
        io.repository_root()
    monkeypatch.setenv("AQNET_ROOT", str(tmp_path))
    with pytest.raises(AqnetError, match=f"none at AQNET_ROOT={tmp_path}"):
        io.repository_root()


def test_variables_move_the_places(tmp_path, monkeypatch, no_places):
    root = repository(tmp_path / "aqnet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AQNET_ROOT", str(root))
    assert io.data_root() == root / "data"
    monkeypatch.setenv("AQNET_DATA", "scratch")
    monkeypatch.setenv("AQNET_RUNS", "/scratch/runs")
    assert io.data_root() == tmp_path / "scratch"
    assert io.runs_root() == Path("/scratch/runs")


def test_data_are_in_their_usual_place_or_where_they_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    assert io.station_store("beijing") == tmp_path / "beijing.zarr"
    assert io.stores_folder("twin") == tmp_path / "twin"
    for place in (io.station_store, io.stores_folder):
        # an empty parameter of a notebook names no place
        assert place("twin", None) == place("twin", "") == place("twin")
        assert place("twin", "elsewhere/twin") == Path("elsewhere/twin")
