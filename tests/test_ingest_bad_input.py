"""What the ingest refuses: a bad file is a named error, an exit code, and no store."""
# ruff: noqa: F811 - fixtures are imported and then named by tests

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from click.testing import CliRunner
from ingest_case import STORE, command, file_of, four_hours, quick, run, source, weights  # noqa: F401
from native_hours import (
    FIRST,
    GRID,
    change,
    labels,
    manifest_file,
    physical_fields,
    small_manifest,
    write_hours,
)

from aqnet.data.source.caqra import SourceFileError, native_name, write_native_hour
from aqnet.data.source.ingest import compare_sources, find_hours, ingest_year, prepare
from aqnet.data.years.reader import open_year
from aqnet.data.years.writer import YearWriter
from aqnet.errors import (
    ChecksumError,
    CoverageError,
    DataError,
    FieldError,
    ManifestError,
    StorageFullError,
    StoreBusyError,
    UnitError,
)
from aqnet.grid import GridError
from aqnet.lambert_grid import LambertGrid
from aqnet.variables import DYNAMIC

# ---- bad input


def flip_all(path: Path) -> None:
    """The whole file upside down: mesh and fields."""
    for name in (*DYNAMIC, "lat2d", "lon2d"):
        change(path, name, lambda a: a[..., ::-1, :])


def flip_fields(path: Path) -> None:
    for name in DYNAMIC:
        change(path, name, lambda a: a[..., ::-1, :])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def drop(path: Path) -> None:
    with netCDF4.Dataset(path, "a") as dataset:
        dataset.renameVariable("no2", "no2_other")


def spoil(value: float, everywhere: bool = False):
    def how(values):
        values = np.array(values)
        values[(...,) if everywhere else (0, 20, 30)] = value
        return values

    return lambda path: change(path, "so2", how)


def unit(name: str, how, stated: str):
    return lambda path: change(path, name, how, stated)


def in_ug(a):
    return a * 1000


def in_hpa(a):
    return a / 100


def in_celsius(a):
    return a - 273.15


DAMAGE = {
    "truncated": (truncate, SourceFileError, "cannot be read"),
    "missing variable": (drop, SourceFileError, "lacks the variable no2"),
    "all NaN": (spoil(np.nan, everywhere=True), FieldError, "so2 .* has no value in any cell"),
    "infinite": (spoil(np.inf), FieldError, "so2 .* is infinite"),
    "impossible": (spoil(1e6), FieldError, "so2 .* outside its valid range"),
    "fields upside down": (flip_fields, FieldError, "pressure does not follow the terrain"),
}
WRONG = {
    "CO in ug/m3": (unit("co", in_ug, ""), UnitError, "co .* is not in ug/m3"),
    "CO in ug/m3, stated": (unit("co", in_ug, "ug/m3"), UnitError, "co has another unit"),
    "pressure in hPa": (unit("psfc", in_hpa, ""), UnitError, "psfc .* is not in Pa"),
    "pressure in hPa, stated": (unit("psfc", in_hpa, "hPa"), UnitError, "psfc has another unit"),
    "Celsius": (unit("temp", in_celsius, ""), UnitError, "temp .* is not in K"),
    "Celsius, stated": (unit("temp", in_celsius, "degC"), UnitError, "temp has another unit"),
    "rows flipped": (flip_all, GridError, "rows in the opposite order"),
}


# The first hour decides grid and mask.
@pytest.mark.parametrize(
    ("case", "hour"),
    [*((case, 2) for case in [*DAMAGE, *WRONG]), ("truncated", 0), ("rows flipped", 0)],
)
def test_a_bad_file_ends_with_a_named_error_and_no_store(tmp_path, source, case, hour):
    damage, kind, message = (DAMAGE | WRONG)[case]
    damage(file_of(source, hour))
    if hour == 0 and case == "rows flipped":
        kind, message = GridError, "3 hours cannot be used"  # all but the first are other
    with pytest.raises(kind, match=message) as error:
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")
    assert type(error.value) is kind
    result = run(tmp_path, source)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert native_name(FIRST + hour) in result.stderr or "3 hours" in result.stderr
    assert not list((tmp_path / "out").glob("*.zarr"))


@pytest.mark.parametrize(
    ("case", "hour"), [*((case, 2) for case in DAMAGE), ("truncated", 0), ("infinite", 0)]
)
def test_a_damaged_hour_may_be_recorded_as_missing(tmp_path, source, case, hour):
    damage, kind, _ = DAMAGE[case]
    damage(file_of(source, hour))
    result = run(tmp_path, source, "--damaged", "missing")
    assert result.exit_code == 0, result.output
    store = open_year(tmp_path / "out" / STORE)
    (first, last, reason), _rest = store.attributes["missing"]
    assert first == last == f"{store.times[hour]}Z"
    assert reason.startswith(f"{kind.__name__}: {native_name(FIRST + hour)}")
    assert str(tmp_path) not in reason
    np.testing.assert_array_equal(store.valid[:4].all(1), np.arange(4) != hour)
    assert np.isnan(store.read(slice(hour, hour + 1))).all()
    assert run(tmp_path, source, "--damaged", "missing").exit_code == 0  # again


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_unit_or_grid_is_never_taken_as_missing(tmp_path, source, case):
    damage, kind, _ = WRONG[case]
    damage(file_of(source, 2))
    with pytest.raises(kind):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out", damaged="missing")


def test_all_bad_hours_of_a_shard_are_named(tmp_path):
    files = tmp_path / "source"
    write_hours(files, labels(6))
    truncate(file_of(files, 0))
    truncate(file_of(files, 3))
    with pytest.raises(SourceFileError, match="2 hours cannot be used") as error:
        ingest_year(small_manifest(), files, 2013, tmp_path / "out")
    assert [native_name(FIRST + h) in str(error.value) for h in range(6)] == [
        True, False, False, True, False, False,
    ]  # fmt: skip
    spoil(np.inf)(file_of(files, 5))
    with pytest.raises(DataError, match="3 hours cannot be used") as error:
        ingest_year(small_manifest(), files, 2013, tmp_path / "out")
    assert "FieldError: " in str(error.value) and "SourceFileError: " in str(error.value)


@pytest.mark.slow
def test_errors_of_worker_processes_arrive(tmp_path, source):
    truncate(file_of(source, 2))
    result = run(tmp_path, source, "--workers", "2")
    assert result.exit_code == 1 and native_name(FIRST + 2) in result.stderr
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_an_archive_that_is_damaged_stops_or_its_hours_are_missing(tmp_path, source):
    (source / "day2.zip").write_bytes(b"PK\x03\x04 not a whole archive")
    result = run(tmp_path, source)
    assert result.exit_code == 1 and "day2.zip is damaged" in result.stderr
    assert run(tmp_path, source, "--damaged", "missing").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)
    assert store.attributes["missing"][-1][2] == "no file; damaged archives: day2.zip"


def test_a_damaged_member_of_an_archive_is_missing_without_digest(tmp_path, source):
    archive = source / "day.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for hour in (1, 2):
            made.write(file_of(source, hour), native_name(FIRST + hour))
            size = file_of(source, hour).stat().st_size
            file_of(source, hour).unlink()
    content = bytearray(archive.read_bytes())
    content[size + size // 2] ^= 1
    archive.write_bytes(content)
    assert run(tmp_path, source).exit_code == 1
    assert run(tmp_path, source, "--damaged", "missing").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)
    assert store.valid.all(1)[:4].tolist() == [True, True, False, True]
    result = run(tmp_path, source, "--damaged", "missing")
    assert result.exit_code == 0 and "is finished" in result.output
    content[size + size // 2] ^= 1
    archive.write_bytes(content)  # mended
    result = run(tmp_path, source, "--damaged", "missing")
    assert result.exit_code == 1 and native_name(FIRST + 2) in result.stderr


def test_an_hour_that_is_there_twice_is_an_error(tmp_path, source):
    (source / "again").mkdir()
    copy = source / "again" / native_name(FIRST + 1)
    copy.write_bytes(file_of(source, 1).read_bytes())
    result = run(tmp_path, source)
    assert result.exit_code == 1 and "is there twice" in result.stderr
    assert str(copy) in result.stderr and str(file_of(source, 1)) in result.stderr


def test_hours_with_the_same_file_are_an_error_or_missing(tmp_path, source):
    file_of(source, 2).write_bytes(file_of(source, 1).read_bytes())
    result = run(tmp_path, source)
    assert result.exit_code == 1 and "2 hours cannot be used" in result.stderr
    assert "byte for byte" in result.stderr and native_name(FIRST + 2) in result.stderr
    assert run(tmp_path, source, "--damaged", "missing").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)  # one is a copy, and nobody knows which
    assert store.valid.all(1)[:4].tolist() == [True, False, False, True]


def test_a_first_hour_with_gaps_does_not_shrink_the_mask_unnoticed(tmp_path, source):
    for name in DYNAMIC:
        change(file_of(source, 0), name, lambda a: np.where(np.arange(72) < 30, np.nan, a))
    with pytest.raises(CoverageError, match="3 hours cannot be used") as error:
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")
    assert "cells more" in str(error.value) and native_name(FIRST) in str(error.value)
    # nor are all the other hours of the year taken for damaged ones
    result = run(tmp_path, source, "--damaged", "missing")
    assert result.exit_code == 1 and "cells more" in result.stderr
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_a_file_that_was_mended_is_noticed(tmp_path, source):
    whole = file_of(source, 2).read_bytes()
    truncate(file_of(source, 2))
    assert run(tmp_path, source, "--damaged", "missing").exit_code == 0
    file_of(source, 2).write_bytes(whole)
    listing = find_hours(small_manifest(), source, 2013, "missing")
    store = open_year(tmp_path / "out" / STORE)
    with pytest.raises(ChecksumError, match=native_name(FIRST + 2)):
        compare_sources(store, listing, samples=1)  # of a whole year, 24 would seldom hit it


def test_an_encrypted_archive_is_named(tmp_path, source):
    archive = tmp_path / "archives" / "day.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for hour in range(4):
            packed.write(file_of(source, hour), file_of(source, hour).name)
    content = archive.read_bytes()
    for mark, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # of directory and members
        for found in re.finditer(re.escape(mark), content):
            at = found.start() + flags
            content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    archive.write_bytes(content)
    result = run(tmp_path, archive.parent)
    assert result.exit_code == 1 and "day.zip is damaged" in result.stderr
    assert "encrypted" in result.stderr


def test_gaps_inside_the_mask_are_an_error(tmp_path, source):
    def hole(values):
        values = np.array(values)
        values[0, 20:30, 30:40] = np.nan
        return values

    change(file_of(source, 3), "rh", hole)
    with pytest.raises(FieldError, match=r"rh: [0-9]+ cells without value"):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")


def test_a_file_of_another_grid_is_an_error(tmp_path, source):
    moved = LambertGrid("moved", GRID.x_m + 9e3, GRID.y_m, 25.0, 40.0, 34.0, 105.0, 6.37e6)
    write_native_hour(file_of(source, 2), physical_fields(FIRST + 2), moved)
    with pytest.raises(GridError, match="another grid than the first file"):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")


def test_a_mesh_that_is_no_lambert_grid_is_an_error(tmp_path, source):
    for hour in range(4):
        lat, lon = np.meshgrid(np.linspace(18, 54, 56), np.linspace(74, 135, 72), indexing="ij")
        change(file_of(source, hour), "lat2d", lambda a, lat=lat: lat)
        change(file_of(source, hour), "lon2d", lambda a, lon=lon: lon)
    result = run(tmp_path, source)
    assert result.exit_code == 1 and "not a mesh of this Lambert projection" in result.stderr


def test_a_year_without_files_is_an_error(tmp_path, source):
    with pytest.raises(CoverageError, match="no hour of 2014"):
        ingest_year(small_manifest(), source, 2014, tmp_path / "out")
    arguments = [str(manifest_file(tmp_path)), "--source", str(source), "--year"]
    result = CliRunner().invoke(command, ["ingest", *arguments, "2014"])
    assert result.exit_code == 1 and "no hour of 2014" in result.stderr


def test_a_source_outside_china_is_an_error(tmp_path):
    sea = LambertGrid("sea", GRID.x_m + 6e6, GRID.y_m - 3e6, 25.0, 40.0, 34.0, 105.0, 6.37e6)
    write_native_hour(tmp_path / "s" / native_name(FIRST), physical_fields(FIRST), sea)
    with pytest.raises(CoverageError, match="covers no cell of China"):
        ingest_year(small_manifest(), tmp_path / "s", 2013, tmp_path / "out")


def test_a_manifest_of_stations_is_an_error(source):
    beijing = Path(__file__).resolve().parents[1] / "data_manifests" / "beijing.yaml"
    result = CliRunner().invoke(
        command, ["ingest", str(beijing), "--source", str(source), "--year", "2013"]
    )
    assert result.exit_code == ManifestError.exit_code and "kind: grid" in result.stderr


def test_damaged_weights_are_an_error_of_their_own(tmp_path, source, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path / "data"))
    assert run(tmp_path, source).exit_code == 0
    for path in (tmp_path / "data" / "weights").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(ChecksumError, match="delete this file"):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out", force=True)


def test_two_ingests_into_one_store_at_once(tmp_path, source):
    manifest = small_manifest()
    _, spec = prepare(manifest, find_hours(manifest, source, 2013, "stop"), 2013)
    with YearWriter(tmp_path / "out" / STORE, spec):
        with pytest.raises(StoreBusyError, match="is being written"):
            ingest_year(manifest, source, 2013, tmp_path / "out")
        result = run(tmp_path, source)
        assert result.exit_code == 1 and "is being written" in result.stderr
    assert run(tmp_path, source).exit_code == 0


SMALL_DISK = """
import resource, sys
from aqnet.cli.console import Group
from aqnet.cli.ingest import ingest
from aqnet.data.grid_manifest import GridManifest

if __name__ == "__main__":
    whole = GridManifest.times
    GridManifest.times = lambda self, year: whole(self, year)[:100]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    group = Group()
    group.add_command(ingest)
    group(["ingest", *sys.argv[1:]])
"""


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_full_disk_ends_with_a_message_and_the_next_run_goes_on(tmp_path, source, workers):
    manifest = small_manifest()
    prepare(manifest, find_hours(manifest, source, 2013, "stop"), 2013)  # weights have their room
    script = tmp_path / "small_disk.py"
    script.write_text(SMALL_DISK)
    arguments = [str(manifest_file(tmp_path)), "--source", str(source), "--year", "2013"]
    arguments += ["--out", str(tmp_path / "out"), "--workers", workers]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == StorageFullError.exit_code, done.stderr
    assert "the file size limit (ulimit -f) is reached" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.zarr"))
    result = run(tmp_path, source)
    assert result.exit_code == 0, result.output
