"""Manifests: bad keys, bad values and changed files are found; labels become instants."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from aqnet.data.manifest import Manifest, load_manifest, resolve_manifest
from aqnet.data.static import read_static
from aqnet.data.stations.measurements import read_stations
from aqnet.errors import ChecksumError, DataError, ManifestError
from aqnet.io import sha256_file

SHIPPED = Path(__file__).resolve().parents[1] / "data_manifests"


def changed(folder: Path, edit) -> Path:
    """A copy of the shipped manifest after `edit(content)`."""
    content = yaml.safe_load((SHIPPED / "beijing.yaml").read_text(encoding="utf-8"))
    edit(content)
    path = folder / "data_manifests" / "beijing.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def refused(folder: Path, edit) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifest(changed(folder, edit))
    return str(caught.value)


def test_shipped_files_match_and_are_small(manifest):
    manifest.verify()
    assert manifest.path("stations").stat().st_size <= 8_000_000
    assert manifest.path("static").stat().st_size <= 100_000
    for entry in manifest.files:
        assert sha256_file(SHIPPED.parent / entry.path) == entry.sha256
        assert entry.source and entry.licence and entry.attribution and entry.doi


def test_the_manifest_says_what_the_data_are(manifest):
    assert manifest.doi == "10.24432/C5RK5G" and manifest.licence == "CC BY 4.0"
    assert {name: v.unit for name, v in manifest.variables.items()}["CO"] == "ug/m3"
    assert manifest.source_utc_offset_h == 8 and manifest.averaging_label == "end"
    assert "does not say" in manifest.averaging_label_note
    assert set(manifest.withheld_stations) == {"Guanyuan", "Dingling"}


def test_unknown_key(tmp_path):
    text = refused(tmp_path, lambda m: m.update(licnce="MIT"))
    assert "licnce" in text and "beijing.yaml" in text and "no such key" in text


def test_missing_key(tmp_path):
    assert "doi" in refused(tmp_path, lambda m: m.pop("doi"))


def test_wrong_type(tmp_path):
    text = refused(tmp_path, lambda m: m.update(source_utc_offset_h="eight"))
    assert "source_utc_offset_h" in text and "'eight'" in text


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda m: m.update(averaging_label="middle"), "averaging_label"),
        (lambda m: m.update(grid="nowhere"), "grid"),
        (lambda m: m["withheld_stations"].append("Atlantis"), "Atlantis"),
        (lambda m: m["files"][0].update(sha256="abc"), "sha256"),
        (lambda m: m["files"][0].update(content="secrets"), "content"),
        (lambda m: m["split"]["validation"].update(start="2015-02-28"), "validation"),
        (lambda m: m["split"]["train"].update(end="2012-12-31"), "ends on or after"),
        (lambda m: m["split"]["test"].update(end="2017-12-31"), "within the period"),
        (lambda m: m["weather_sharing"][0]["groups"].pop(), "weather_sharing"),
        (lambda m: m["weather_sharing"].pop(0), "weather_sharing"),
        (lambda m: m.update(lead_times_h=[12, 24]), "lead_times_h"),
    ],
)
def test_values_that_make_no_sense(tmp_path, edit, named):
    assert named in refused(tmp_path, edit)


def test_changed_checksum_is_found_before_anything_is_read(tmp_path, manifest):
    copy = shutil.copytree(SHIPPED, tmp_path / "data_manifests")
    file = copy / "beijing" / "stations.nc"
    content = bytearray(file.read_bytes())
    content[100_000] ^= 1
    file.write_bytes(content)
    broken = load_manifest(copy / "beijing.yaml")
    with pytest.raises(ChecksumError) as caught:
        read_stations(broken)
    text = str(caught.value)
    assert str(file) in text and manifest.file("stations").sha256 in text
    assert sha256_file(file) in text and "remedy:" in text
    with pytest.raises(ChecksumError):
        broken.verify()
    with pytest.raises(ChecksumError):
        manifest.verify(tmp_path)
    read_static(broken)  # the other file is intact


def test_missing_file(tmp_path):
    shutil.copy(SHIPPED / "beijing.yaml", tmp_path / "beijing.yaml")
    with pytest.raises(DataError, match=r"stations\.nc"):
        load_manifest(tmp_path / "beijing.yaml").verify()


def test_content_that_the_manifest_does_not_have(manifest):
    with pytest.raises(ManifestError, match="radar"):
        manifest.path("radar")


def test_resolve_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)
    assert resolve_manifest("beijing") == SHIPPED / "beijing.yaml"
    assert resolve_manifest(SHIPPED / "beijing.yaml") == SHIPPED / "beijing.yaml"
    names = "beijing, caqra, carried, twin, twin_small"
    with pytest.raises(ManifestError, match=f"in that folder: {names}"):
        resolve_manifest("peking")
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path / "x.yaml"))):
        resolve_manifest(tmp_path / "x.yaml")


def with_settings(manifest: Manifest, **settings) -> Manifest:
    return manifest.model_copy(update=settings)


def test_a_label_becomes_the_end_of_its_hour_in_utc(manifest):
    label = np.datetime64("2015-03-01T00:00")
    assert manifest.to_utc(label) == np.datetime64("2015-02-28T16:00")
    starts = with_settings(manifest, averaging_label="start")
    assert starts.to_utc(label) == np.datetime64("2015-02-28T17:00")
    utc = with_settings(manifest, source_utc_offset_h=0.0)
    assert utc.to_utc(label) == np.datetime64("2015-03-01T00:00")
    nepal = with_settings(manifest, source_utc_offset_h=5.75)
    assert nepal.to_utc(label) == np.datetime64("2015-02-28T18:15")


def test_split_bounds_touch_and_follow_the_zone(manifest):
    train, validation, test = (
        manifest.split_bounds(name) for name in ("train", "validation", "test")
    )
    assert train == (np.datetime64("2013-02-28T16"), np.datetime64("2015-02-28T16"))
    assert train[1] == validation[0] and validation[1] == test[0]
    assert validation[1] == np.datetime64("2016-02-29T16")
    assert test[1] == np.datetime64("2017-02-28T16")
    utc = with_settings(manifest, source_utc_offset_h=0.0)
    assert utc.split_bounds("train")[1] == np.datetime64("2015-03-01T00")


@pytest.mark.parametrize("label", ["end", "start"])
def test_every_hour_is_in_the_split_of_its_published_date(manifest, label):
    chosen = with_settings(manifest, averaging_label=label)
    labels = np.arange("2013-03-01T00", "2017-03-01T00", dtype="datetime64[h]")
    instants = chosen.to_utc(labels)
    for name in ("train", "validation", "test"):
        span = getattr(chosen.split, name)
        days = labels.astype("datetime64[D]")
        by_date = (days >= np.datetime64(span.start)) & (days <= np.datetime64(span.end))
        start, end = chosen.split_bounds(name)
        np.testing.assert_array_equal((instants >= start) & (instants < end), by_date)


def test_static_fields(manifest):
    static = read_static(manifest)
    assert static.elevation.shape == static.population.shape == (16, 16)
    assert static.elevation.attrs["units"] == "m"
    assert static.population.attrs["units"] == "persons/km2"
    assert "MIT" in static.elevation.attrs["licence"]
    assert "CC BY 4.0" in static.population.attrs["licence"]
    # The north-west corner is mountains, the south-east plain; the old city is the densest.
    assert static.elevation.values[-1, 0] > 300 > 100 > static.elevation.values[0, -1]
    dense = static.population.sel(lat=39.925, lon=116.425, method="nearest")
    assert dense == static.population.max() and 15_000 < dense < 25_000
