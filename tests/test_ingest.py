"""From hourly files to a yearly store: what goes in, and what can be repeated."""
# ruff: noqa: F811 - fixtures are imported and then named by tests

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ingest_case import (  # noqa: F401
    STORE,
    file_of,
    four_hours,
    quick,
    run,
    source,
    static_of,
    weights,
    whole_year,
)
from native_hours import FIRST, GRID, change, labels, physical_fields, small_manifest, write_hours

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.source import ingest as module
from aqnet.data.source.caqra import native_name, write_native_hour
from aqnet.data.source.conversion import convert_hour
from aqnet.data.source.ingest import find_hours, ingest_year, prepare
from aqnet.data.years.reader import open_year, verify_year
from aqnet.errors import ChecksumError, StoreError
from aqnet.grid import EARTH_RADIUS_KM, GRIDS
from aqnet.lambert_grid import LambertGrid
from aqnet.variables import DYNAMIC, GASES, TARGETS

TARGET = GRIDS["china_32x64"]


# ---- what goes in


def test_a_store_holds_the_hours_in_its_conventions(tmp_path, source):
    result = run(tmp_path, source)
    assert result.exit_code == 0, result.output
    store = open_year(tmp_path / "out" / STORE)
    static = static_of(TARGET)
    np.testing.assert_array_equal(store.mask, static["mask"].values)  # the source covers all
    assert store.attributes["missing"] == [["2012-12-31T20Z", "2013-01-04T19Z", "no file"]]
    assert store.valid[:4].all() and not store.valid[4:].any()
    assert not store.source_sha256[4:].any()
    for row in range(4):
        content = file_of(source, row).read_bytes()
        assert store.source_sha256[row].tobytes() == hashlib.sha256(content).digest()
    hour = dict(zip(DYNAMIC, store.read(slice(2, 3))[0], strict=True))
    x, y = GRID.to_xy(*TARGET.mesh())
    wave = np.sin(x / 9e5 + 2 * np.pi * 2 / 30) * np.cos(y / 7e5)
    inside = store.mask
    assert np.isnan(hour["pm25"][~inside]).all()
    # smooth fields, so a cell mean is near the value at its centre; CO in ug/m3
    for name, median in {"pm25": 40, "co": 700, "o3": 60}.items():
        np.testing.assert_allclose(hour[name][inside], (median * np.exp(0.7 * wave))[inside], 0.03)
    np.testing.assert_allclose(hour["temp"][inside], (280 + 10 * wave)[inside], atol=0.1)
    np.testing.assert_allclose(store.static[2], static["elevation"].values)
    np.testing.assert_allclose(store.static[0], TARGET.mesh()[0], rtol=1e-6)
    ingested = store.attributes["recipe"]["ingest"]
    assert ingested["cells_of_the_mask"] == inside.sum() and ingested["wind_rotated"]
    assert ingested["mask_decided_by"] == native_name(FIRST)
    assert verify_year(store.path, deep=True) == store.digest


def converted(tmp_path: Path, source: Path, label: np.datetime64 = FIRST, **changes: object):
    """One hour before rounding, and the mask."""
    manifest = small_manifest(**changes)
    year = int(str(label)[:4])
    conversion, spec = prepare(manifest, find_hours(manifest, source, year, "stop"), year)
    hour = module.read_hour((source / native_name(label)).read_bytes(), manifest, "here")
    return dict(zip(DYNAMIC, convert_hour(conversion, hour, label, "here"), strict=True)), spec.mask


def test_wind_is_turned_only_if_it_runs_along_the_grid(tmp_path):
    north = physical_fields(FIRST) | {"u": 0 * GRID.mesh()[0], "v": 5 + 0 * GRID.mesh()[0]}
    write_native_hour(tmp_path / "s" / native_name(FIRST), north, GRID)
    along, mask = converted(tmp_path, tmp_path / "s")
    assert small_manifest().wind_reference == "grid"
    west, east = np.argwhere(mask)[:, 1].min(), np.argwhere(mask)[:, 1].max()
    assert np.nanmin(along["u"][mask]) == np.nanmin(along["u"][:, west][mask[:, west]]) < -1.0
    assert np.nanmax(along["u"][:, east][mask[:, east]]) > 1.0
    np.testing.assert_allclose(np.hypot(along["u"], along["v"])[mask], 5, rtol=1e-3)
    earth, _ = converted(tmp_path, tmp_path / "s", wind_reference="earth")
    np.testing.assert_array_equal(earth["u"][mask], 0)
    np.testing.assert_array_equal(earth["v"][mask], 5)


@pytest.mark.parametrize(
    ("state", "label", "factor"),
    [
        ("undocumented", "2018-09-01T00", 1.0),
        ("china_2018_amendment", "2018-08-31T23", 1.0),
        ("china_2018_amendment", "2018-09-01T00", 298.15 / 273.15),
        ("298K", "2013-01-01T00", 298.15 / 273.15),
    ],
)
def test_gases_come_to_273_k_by_the_local_label(tmp_path, monkeypatch, state, label, factor):
    monkeypatch.setattr(GridManifest, "times", whole_year)
    at = np.datetime64(label, "h")
    write_hours(tmp_path / "s", [at])
    plain, mask = converted(tmp_path, tmp_path / "s", at)
    found, _ = converted(tmp_path, tmp_path / "s", at, reference_state=state)
    for name in DYNAMIC:
        expected = plain[name][mask] * (factor if name in GASES else 1)
        np.testing.assert_allclose(found[name][mask], expected, rtol=1e-6)


def test_constants_of_concentrations_are_exact(tmp_path):
    fields = physical_fields(FIRST) | {name: np.full(GRID.shape, 37.1) for name in TARGETS}
    write_native_hour(tmp_path / "s" / native_name(FIRST), fields, GRID)
    found, mask = converted(tmp_path, tmp_path / "s")
    for name in ("pm25", "pm10", "so2", "no2", "o3"):
        assert (found[name][mask] == np.float32(37.1)).all()
    np.testing.assert_allclose(found["co"][mask], 37.1, rtol=1e-6)  # by way of mg/m3


def test_mass_of_each_pollutant_is_kept(tmp_path):
    lat, lon = GRID.mesh()
    inner = (lat > 20) & (lat < 52) & (lon > 76) & (lon < 133)  # spikes inside both grids
    base = dict.fromkeys(TARGETS, 20.0) | {"co": 400.0}
    rng = np.random.default_rng(0)
    spikes = {n: inner * base[n] * rng.gamma(0.3, 3.0, GRID.shape) for n in TARGETS}
    fields = {name: base[name] + spikes[name] for name in TARGETS}
    write_native_hour(tmp_path / "s" / native_name(FIRST), physical_fields(FIRST) | fields, GRID)
    found, _ = converted(tmp_path, tmp_path / "s")
    area = TARGET.cell_area_km2 * (GRID.radius_m / 1e3 / EARTH_RADIUS_KM) ** 2
    for name in TARGETS:
        total = np.nansum((found[name].astype(np.float64) - base[name]) * area)
        assert abs(total / (spikes[name] * GRID.cell_area_km2).sum() - 1) < 1e-3


def test_a_source_that_covers_a_part_decides_the_mask(tmp_path):
    for path in write_hours(tmp_path / "s", labels(2)):
        for name in DYNAMIC:
            change(path, name, lambda a: np.where(np.arange(72) < 30, np.nan, a))
    assert run(tmp_path, tmp_path / "s").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)
    land = static_of(TARGET)["mask"].values
    assert 0.3 < store.mask.sum() / land.sum() < 0.8 and not (store.mask & ~land).any()
    assert store.valid[:2].all()


def test_a_store_says_where_static_fields_are_missing(source):
    said = {}
    for grid in ("china_32x64", "reference"):
        manifest = small_manifest(grid=grid)
        _, spec = prepare(manifest, find_hours(manifest, source, 2013, "stop"), 2013)
        said[grid] = spec.attributes["recipe"]["ingest"].get("static_missing")
        assert np.isnan(spec.static).any() == (said[grid] is not None)
    assert said["china_32x64"] is None
    assert "elevation" in said["reference"] and "between 10." in said["reference"]


@pytest.mark.parametrize("mesh_3d", [False, True])
def test_a_source_with_rows_from_the_north_gives_the_same_fields(tmp_path, mesh_3d):
    north_first = LambertGrid("90 km", GRID.x_m, GRID.y_m[::-1], 25.0, 40.0, 34.0, 105.0, 6.37e6)
    turned = {name: field[::-1] for name, field in physical_fields(FIRST).items()}
    path = tmp_path / "n" / native_name(FIRST)
    write_native_hour(path, turned, north_first, mesh_3d=mesh_3d)
    write_hours(tmp_path / "s", [FIRST])
    south, mask = converted(tmp_path, tmp_path / "s")
    north, _ = converted(tmp_path, tmp_path / "n")
    for name in DYNAMIC:
        np.testing.assert_allclose(north[name][mask], south[name][mask], rtol=1e-4, atol=1e-3)


# ---- again, and after an end


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_archives_layouts_and_order_do_not_change_the_store(tmp_path, source):
    assert run(tmp_path, source).exit_code == 0
    expected = tree(tmp_path / "out" / STORE)
    with zipfile.ZipFile(tmp_path / "source" / "day.zip", "w") as archive:
        for hour in (3, 1, 2):
            archive.write(file_of(source, hour), f"x/{native_name(FIRST + hour)}")
            file_of(source, hour).unlink()
    (tmp_path / "out").rename(tmp_path / "before")
    assert run(tmp_path, source).exit_code == 0
    assert tree(tmp_path / "out" / STORE) == expected


def test_a_finished_store_is_left_alone(tmp_path, source, monkeypatch):
    assert run(tmp_path, source).exit_code == 0
    before = tree(tmp_path / "out")
    monkeypatch.setattr(module, "prepare", None)  # would fail
    result = run(tmp_path, source)
    assert result.exit_code == 0 and "is finished; the files are as they were" in result.output
    assert tree(tmp_path / "out") == before


def test_a_finished_store_of_other_files_is_an_error(tmp_path, source):
    manifest = small_manifest()
    ingest_year(manifest, source, 2013, tmp_path / "out")
    digest = open_year(tmp_path / "out" / STORE).digest
    original = file_of(source, 1).read_bytes()
    change(file_of(source, 1), "o3", lambda a: a + 1)
    with pytest.raises(ChecksumError, match=native_name(FIRST + 1)):
        ingest_year(manifest, source, 2013, tmp_path / "out")
    result = run(tmp_path, source)
    assert result.exit_code == 1 and "--force" in result.output
    file_of(source, 1).write_bytes(original)
    write_hours(source, [FIRST + 9])
    with pytest.raises(StoreError, match="1 hours more, the first at 2013-01-01T01 UTC"):
        ingest_year(manifest, source, 2013, tmp_path / "out")
    file_of(source, 9).unlink()
    file_of(source, 2).unlink()
    with pytest.raises(StoreError, match="not there any more"):
        ingest_year(manifest, source, 2013, tmp_path / "out")
    assert open_year(tmp_path / "out" / STORE).digest == digest


def test_a_store_of_another_manifest_is_an_error(tmp_path, source):
    assert run(tmp_path, source).exit_code == 0
    with pytest.raises(StoreError, match="`wind_reference` of the manifest"):
        ingest_year(
            small_manifest(wind_reference="earth"), source, 2013, tmp_path / "out", workers=1
        )
    assert run(tmp_path, source, wind_reference="earth").exit_code == 1


def test_force_writes_anew_and_keeps_the_old_store_until_then(tmp_path, source):
    assert run(tmp_path, source).exit_code == 0
    before = open_year(tmp_path / "out" / STORE).digest
    good = file_of(source, 1).read_bytes()
    file_of(source, 1).write_bytes(good[:5000])
    assert run(tmp_path, source, "--force").exit_code == 1
    assert open_year(tmp_path / "out" / STORE).digest == before
    file_of(source, 1).write_bytes(good)
    change(file_of(source, 1), "o3", lambda a: a + 1)
    assert run(tmp_path, source, "--force").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)
    assert store.digest != before and verify_year(store.path, deep=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [STORE]


def test_an_interrupted_ingest_goes_on_where_it_ended(tmp_path, monkeypatch):
    manifest, files = small_manifest(), tmp_path / "source"
    write_hours(files, labels(2, FIRST))
    write_hours(files, labels(2, FIRST + 60))
    write_hours(files, labels(2, FIRST + 98))
    whole = ingest_year(manifest, files, 2013, tmp_path / "whole")
    done, real = [], module.ingest_shard

    def stop_after(limit):
        def shard(conversion, task):
            if len(done) == limit:
                raise KeyboardInterrupt
            done.append(task.number)
            return real(conversion, task)

        monkeypatch.setattr(module, "ingest_shard", shard)

    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        ingest_year(manifest, files, 2013, tmp_path / "out")
    assert not (tmp_path / "out" / STORE).exists()
    stop_after(99)
    path = ingest_year(manifest, files, 2013, tmp_path / "out")
    assert done == [0, 1, 2]  # none twice
    assert open_year(path).digest == open_year(whole).digest
    assert verify_year(path, deep=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [STORE]


def test_files_that_change_between_two_runs_are_noticed(tmp_path, source, monkeypatch):
    write_hours(source, labels(2, FIRST + 60))
    real = module.ingest_shard

    def shard(conversion, task):
        if task.number == 1:
            raise KeyboardInterrupt
        return real(conversion, task)

    monkeypatch.setattr(module, "ingest_shard", shard)
    with pytest.raises(KeyboardInterrupt):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")
    monkeypatch.setattr(module, "ingest_shard", real)
    change(file_of(source, 2), "o3", lambda a: a + 1)
    with pytest.raises(ChecksumError, match=native_name(FIRST + 2)):
        ingest_year(small_manifest(), source, 2013, tmp_path / "out")


def test_two_processes_write_the_same_store_as_one(tmp_path, source):
    write_hours(source, labels(3, FIRST + 95))
    one = ingest_year(small_manifest(), source, 2013, tmp_path / "one")
    two = ingest_year(small_manifest(), source, 2013, tmp_path / "two", workers=2)
    assert tree(one) == tree(two)


@pytest.mark.slow
def test_a_whole_year_by_the_command_line(tmp_path, source, monkeypatch):
    monkeypatch.setattr(GridManifest, "times", whole_year)
    assert run(tmp_path, source, "--workers", "2").exit_code == 0
    store = open_year(tmp_path / "out" / STORE)
    assert len(store.times) == 8760 and store.valid.all(1).sum() == 4
