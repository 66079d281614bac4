"""Hourly files: found, read, written, refused."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from native_hours import CAQRA, FIRST, GRID, change, labels, physical_fields, write_hours

from aqnet.data.manifest import load_manifest
from aqnet.data.source.caqra import (
    SourceFileError,
    list_hours,
    native_name,
    read_hour,
    write_native_hour,
)
from aqnet.data.source.files import HourSource, read_contents
from aqnet.errors import UnitError
from aqnet.variables import DYNAMIC

MANIFEST = load_manifest(CAQRA)


def read(path: Path, manifest=MANIFEST):
    return read_hour(path.read_bytes(), manifest, path.name)


def pack(files: list[Path], archive: Path, inside: str = "") -> Path:
    """Move files into an archive; the kind follows from its name."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            for path in files:
                made.write(path, inside + path.name)
    else:
        mode = "w" if archive.suffix == ".tar" else "w:gz"
        with tarfile.open(archive, mode) as made:
            for path in files:
                made.add(path, inside + path.name)
    for path in files:
        path.unlink()
    return archive


# ---- one file


@pytest.mark.parametrize("mesh_3d", [False, True])
@pytest.mark.parametrize("unit_attributes", [False, True])
def test_what_is_written_is_read(tmp_path, mesh_3d, unit_attributes):
    (path,) = write_hours(tmp_path, [FIRST], mesh_3d=mesh_3d, unit_attributes=unit_attributes)
    hour = read(path)
    fields = physical_fields(FIRST)
    for name, values in zip(DYNAMIC, hour.values, strict=True):
        np.testing.assert_allclose(values, fields[name], rtol=1e-6, atol=1e-5)
    lat, lon = GRID.mesh()
    np.testing.assert_allclose([hour.lat2d, hour.lon2d], [lat, lon], atol=1e-4)
    with netCDF4.Dataset(path) as dataset:
        assert dataset["pm25"].shape == (1, *GRID.shape)
        assert dataset["lat2d"].shape == ((1, *GRID.shape) if mesh_3d else GRID.shape)
        # CO in mg/m3, all else as in the lexicon
        np.testing.assert_allclose(dataset["co"][0], fields["co"] / 1000, rtol=1e-6)
        np.testing.assert_allclose(dataset["so2"][0], fields["so2"], rtol=1e-6)
        assert ("units" in dataset["co"].ncattrs()) == unit_attributes


def test_equal_hours_are_equal_files(tmp_path):
    (one,), (two,) = (write_hours(tmp_path / name, [FIRST]) for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_fill_values_are_unknown(tmp_path):
    path = tmp_path / native_name(FIRST)
    fields = physical_fields(FIRST)
    with netCDF4.Dataset(path, "w") as dataset:
        dataset.createDimension("y", GRID.shape[0])
        dataset.createDimension("x", GRID.shape[1])
        for name, values in fields.items():
            variable = dataset.createVariable(name, "f4", ("y", "x"), fill_value=-9999.0)
            values = values / 1000 if name == "co" else values
            variable[:] = np.ma.masked_where(np.arange(GRID.shape[1]) < 5 + 0 * values, values)
        for name, values in zip(("lat2d", "lon2d"), GRID.mesh(), strict=True):
            dataset.createVariable(name, "f8", ("y", "x"))[:] = values
    hour = read(path)
    assert np.isnan(hour.values[:, :, :5]).all() and np.isfinite(hour.values[:, :, 5:]).all()


def test_other_names_and_units_of_the_lexicon_are_read(tmp_path):
    units = dict(MANIFEST.units, temp="degC", psfc="hPa", co="ug/m3")
    manifest = MANIFEST.model_copy(update={"units": units, "source_names": {"o3": ("ozone",)}})
    path = tmp_path / native_name(FIRST)
    write_native_hour(path, physical_fields(FIRST), GRID, units=units)
    with netCDF4.Dataset(path, "a") as dataset:
        dataset.renameVariable("o3", "ozone")
        dataset.renameVariable("psfc", "PSFC")
    hour = read(path, manifest)
    for name, values in physical_fields(FIRST).items():
        found = hour.values[DYNAMIC.index(name)]
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("spelling", ["ug m-3", "ug/m^3", "µg/m³"])
def test_spellings_of_a_unit_agree(tmp_path, spelling):
    (path,) = write_hours(tmp_path, [FIRST])
    change(path, "so2", lambda a: a, spelling)
    read(path)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("co", "ug/m3"), ("psfc", "hPa"), ("temp", "degC"), ("so2", "ppb"), ("u", "knots")],
)
def test_a_unit_attribute_that_is_not_the_manifests_is_an_error(tmp_path, name, unit):
    (path,) = write_hours(tmp_path, [FIRST])
    change(path, name, lambda a: a, unit)
    with pytest.raises(UnitError, match=f"{name} has another unit") as error:
        read(path)
    assert unit in str(error.value) and MANIFEST.units[name] in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9])
@pytest.mark.parametrize("classic", [False, True])
def test_a_truncated_file_is_an_error(tmp_path, keep, classic):
    (path,) = write_hours(tmp_path, [FIRST])
    if classic:
        import xarray as xr

        xr.load_dataset(path).to_netcdf(path, format="NETCDF3_CLASSIC")
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep >= 1 else int(len(content) * keep)])
    with pytest.raises(SourceFileError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["pm25", "psfc", "lat2d"])
def test_a_missing_variable_is_an_error(tmp_path, name):
    (path,) = write_hours(tmp_path, [FIRST])
    with netCDF4.Dataset(path, "a") as dataset:
        dataset.renameVariable(name, "something_else")
    with pytest.raises(SourceFileError, match=f"lacks the variable {name}"):
        read(path)


def test_a_simulated_file_needs_a_manifest_that_says_so(tmp_path):
    (path,) = write_hours(tmp_path, [FIRST], attributes={"synthetic": "true"})
    with pytest.raises(SourceFileError, match="simulated fields"):
        read(path)
    read(path, MANIFEST.model_copy(update={"synthetic": True}))


def test_a_file_of_several_hours_is_an_error(tmp_path):
    path = tmp_path / native_name(FIRST)
    with netCDF4.Dataset(path, "w") as dataset:
        for name, size in (("time", 24), ("y", 3), ("x", 4)):
            dataset.createDimension(name, size)
        for name in ("lat2d", "lon2d"):
            dataset.createVariable(name, "f4", ("y", "x"))[:] = 30
        for name in DYNAMIC:
            dataset.createVariable(name, "f4", ("time", "y", "x"))[:] = 1
    with pytest.raises(SourceFileError, match=r"shape \(24, 3, 4\)"):
        read(path)


# ---- many files


def test_hours_are_named_by_local_labels_and_found_by_utc(tmp_path):
    which = [*labels(3), np.datetime64("2013-12-31T23"), np.datetime64("2014-01-01T00")]
    write_hours(tmp_path, which)
    found = list_hours(tmp_path, 2013, MANIFEST)
    utc = np.array(["2012-12-31T16", "2012-12-31T17", "2012-12-31T18", "2013-12-31T15"])
    assert list(found) == list(utc.astype("datetime64[h]"))
    assert [source.label for source in found.values()] == which[:4]
    start = MANIFEST.model_copy(update={"averaging_label": "start", "source_utc_offset_h": 0.0})
    assert list(list_hours(tmp_path, 2014, start)) == [np.datetime64("2014-01-01T01", "h")]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz"])
def test_archives_hold_the_same_bytes(tmp_path, kind):
    files = write_hours(tmp_path / "plain", labels(4))
    expected = {path.name: path.read_bytes() for path in files}
    reverse = files[::-1]  # unordered inside
    pack(reverse[:3], tmp_path / "source" / "2013" / f"day.{kind}", "a/b/")
    reverse[3].rename(tmp_path / "source" / reverse[3].name)
    (tmp_path / "source" / "CN-Reanalysis-daily-2013010100.nc").write_bytes(b"a daily mean")
    (tmp_path / "source" / "readme.txt").write_text("x")
    found = list_hours(tmp_path / "source", 2013, MANIFEST)
    assert [source.label for source in found.values()] == list(labels(4))
    contents = {native_name(s.label): content for s, content in read_contents(found.values())}
    assert contents == expected


def test_links_to_folders_are_followed(tmp_path):
    write_hours(tmp_path / "elsewhere", labels(2))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "2013").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(list_hours(tmp_path / "source", 2013, MANIFEST)) == 2


@pytest.mark.parametrize("second", ["folder", "zip", "same zip"])
def test_an_hour_that_is_there_twice_is_an_error_that_names_both(tmp_path, second):
    (first,) = write_hours(tmp_path / "one", [FIRST])
    (other,) = write_hours(tmp_path / "two", [FIRST])
    names = [str(first), str(other)]
    if second == "zip":
        names[1] = str(pack([other], tmp_path / "two" / "day.zip"))
    if second == "same zip":
        archive = tmp_path / "two" / "day.zip"
        with zipfile.ZipFile(archive, "w") as made:
            made.write(first, f"a/{first.name}")
            made.write(other, f"b/{other.name}")
        first.unlink()
        other.unlink()
        names = [f"a/{first.name}", f"b/{other.name}"]
    with pytest.raises(SourceFileError, match="2013-01-01T00 is there twice") as error:
        list_hours(tmp_path, 2013, MANIFEST)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("name", ["CN-Reanalysis2013013224.nc", "CN-Reanalysis2013010124.nc"])
def test_a_name_without_an_hour_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceFileError, match="not named after an hour"):
        list_hours(tmp_path, 2013, MANIFEST)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceFileError, match="no source folder"):
        list_hours(tmp_path / "nothing", 2013, MANIFEST)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_damaged_archive_is_an_error_or_noted(tmp_path, kind):
    files = write_hours(tmp_path / "plain", labels(4))
    archive = pack(files, tmp_path / "source" / f"day.{kind}")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 3])
    with pytest.raises(SourceFileError, match=f"day.{kind} is damaged"):
        list_hours(tmp_path / "source", 2013, MANIFEST)
    damaged: dict = {}
    assert list_hours(tmp_path / "source", 2013, MANIFEST, damaged) == {}
    assert list(damaged) == [archive]


def test_a_damaged_member_does_not_hide_the_others(tmp_path):
    files = write_hours(tmp_path, labels(3))
    size = files[0].stat().st_size
    archive = tmp_path / "day.zip"
    with zipfile.ZipFile(archive, "w") as made:  # not compressed
        for path in files:
            made.write(path, path.name)
            path.unlink()
    content = bytearray(archive.read_bytes())
    content[size + size // 2] ^= 1
    archive.write_bytes(content)
    sources = list_hours(tmp_path, 2013, MANIFEST).values()
    kinds = [type(content) for _, content in read_contents(sources)]
    assert kinds == [bytes, SourceFileError, bytes]


def test_a_tar_that_ends_early_gives_what_it_has(tmp_path):
    archive = pack(write_hours(tmp_path, labels(3)), tmp_path / "day.tar.gz")
    sources = list(list_hours(tmp_path, 2013, MANIFEST).values())
    plain = io.BytesIO()
    with tarfile.open(archive) as whole, tarfile.open(fileobj=plain, mode="w") as part:
        member = whole.next()
        part.addfile(member, whole.extractfile(member))
    archive.write_bytes(plain.getvalue())
    found = dict(read_contents(sources))
    assert [isinstance(found[s], bytes) for s in sources] == [True, False, False]


def test_a_file_that_vanished_is_an_error_of_its_hour(tmp_path):
    (path,) = write_hours(tmp_path, [FIRST])
    gone = HourSource(FIRST + 1, tmp_path / native_name(FIRST + 1))
    found = dict(read_contents([HourSource(FIRST, path), gone]))
    assert isinstance(found[gone], SourceFileError) and gone.path.name in str(found[gone])
    assert len(found) == 2


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    from aqnet.errors import StorageFullError

    with pytest.raises(StorageFullError):
        write_hours(tmp_path, [FIRST])
    assert list(tmp_path.iterdir()) == []
