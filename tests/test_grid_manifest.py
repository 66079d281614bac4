"""Manifests of fields on a grid: recipe and record, and the stores that agree with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from made_up_years import made_up_fields, made_up_mask, made_up_static

from aqnet.cli import main
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import Manifest, load_manifest, resolve_manifest
from aqnet.data.splits import splits_of
from aqnet.data.statistics.file import FORMAT, FORMAT_VERSION, Statistics, write_statistics
from aqnet.data.years.format import YearSpec
from aqnet.data.years.reader import open_year
from aqnet.data.years.records import check_stores, coverage_table, record_stores
from aqnet.data.years.writer import write_year
from aqnet.data.years.year_set import open_years
from aqnet.errors import ChecksumError, CoverageError, DataError, ManifestError, StoreError
from aqnet.grid import GRIDS

SHIPPED = Path(__file__).resolve().parents[1] / "data_manifests"
YEARS = (2013, 2014, 2015, 2016, 2017, 2018)


def write_manifest(folder: Path, edit=lambda content: None, name: str = "twin") -> Path:
    """A copy of a shipped manifest after `edit(content)`."""
    content = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
    edit(content)
    path = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def edited(folder: Path, edit) -> GridManifest:
    return load_manifest(write_manifest(folder, edit))


# ---- the shipped manifests


@pytest.mark.parametrize("name", ["caqra", "twin"])
def test_shipped_manifests(name):
    manifest = load_manifest(SHIPPED / f"{name}.yaml")
    assert isinstance(manifest, GridManifest) and manifest.kind == "grid"
    assert manifest.name == name and manifest.years == YEARS and manifest.grid == "china"
    assert manifest.units["co"] == "mg/m3" and manifest.units["pm25"] == "ug/m3"
    assert manifest.synthetic == (name == "twin")
    times = np.concatenate([manifest.times(year) for year in manifest.years])
    assert len(times) == 52_584 and (np.diff(times) == np.timedelta64(1, "h")).all()
    assert str(times[0]) == "2012-12-31T16" and str(times[-1]) == "2018-12-31T15"
    assert manifest.store_file(2013) == "data_2013_china_masked.zarr"
    assert manifest.names_of("pm25")[0] == "pm25"
    splits = splits_of(manifest)
    borders = [str(splits[name].start) for name in ("train", "validation", "test")]
    assert borders == ["2012-12-31T16", "2016-12-31T16", "2017-12-31T16"]
    assert splits["train"].contains(times).sum() == 35_064
    assert splits["test"].end == np.datetime64("2018-12-31T16")


def test_commands_find_a_manifest_by_name_or_path(tmp_path):
    assert load_manifest(SHIPPED / "twin.yaml").called == "twin"
    path = write_manifest(tmp_path)
    assert load_manifest(path).called == str(path)
    with pytest.raises(CoverageError, match=f"aqnet data record {path}"):
        open_years(load_manifest(path), tmp_path)


def test_caqra_says_what_is_not_known():
    manifest = load_manifest(SHIPPED / "caqra.yaml")
    assert manifest.doi == "10.11922/sciencedb.00053"
    assert "10.5194/essd-13-529-2021" in manifest.attribution
    assert manifest.licence == "not verified by us: read it at the source"
    assert manifest.source_utc_offset_h == 8 and manifest.reference_state == "undocumented"
    for note in ("source_utc_offset", "averaging_label", "wind_reference"):
        assert getattr(manifest, f"{note}_note").startswith("Undocumented")


def test_the_kind_chooses_the_class(tmp_path, manifest):
    assert isinstance(manifest, Manifest) and manifest.kind == "stations"
    with pytest.raises(ManifestError, match=r"kind: stations or grid\n.*no key `kind`"):
        edited(tmp_path, lambda m: m.pop("kind"))
    with pytest.raises(ManifestError, match="kind: radar"):
        edited(tmp_path, lambda m: m.update(kind="radar"))


def test_the_digest_is_of_the_content(tmp_path):
    shipped = load_manifest(SHIPPED / "twin.yaml")
    assert edited(tmp_path / "same", lambda m: None).digest == shipped.digest
    changes = [
        lambda m: m["recipe"]["settings"].update(x=1),
        lambda m: m.update(wind_reference="earth"),
        lambda m: m["units"].update(psfc="hPa"),
        lambda m: m.update(reference_state="298K"),
    ]
    digests = {edited(tmp_path / str(i), edit).digest for i, edit in enumerate(changes)}
    assert len(digests | {shipped.digest}) == 5


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(title="Another title", quirks=["found later"]),
        lambda m: m["split"]["test"].update(end="2018-12-30"),
        lambda m: m.update(years=[2013, 2014, 2015, 2016, 2017, 2018, 2019]),
        lambda m: m.update(wind_reference_note="Asked the authors."),
        lambda m: m.update(constant_static=["elevation"]),
    ],
)
def test_words_splits_and_more_years_do_not_make_other_stores(edit, tmp_path):
    assert edited(tmp_path, edit).digest == load_manifest(SHIPPED / "twin.yaml").digest


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda m: m.update(yeers=[2013]), "yeers"),
        (lambda m: m.pop("units"), "units"),
        (lambda m: m["units"].pop("co"), "a unit for each of"),
        (lambda m: m["units"].update(rain="mm"), "for nothing else"),
        (lambda m: m["units"].update(psfc="mmHg"), "psfc"),
        (lambda m: m["units"].update(temp="ug/m3"), "temp"),
        (lambda m: m.update(source_names={"rain": ["RAIN"]}), "not of rain"),
        (lambda m: m.update(years=[]), "at least one year"),
        (lambda m: m.update(years=[2014, 2013]), "ascending"),
        (lambda m: m.update(years=[2013, 2014]), "a split within the years"),
        (lambda m: m.update(reference_state="room"), "reference_state"),
        (lambda m: m.update(wind_reference="moon"), "wind_reference"),
        (lambda m: m.update(source_utc_offset_h=5.75), "whole hours"),
        (lambda m: m.update(grid="nowhere"), "grid"),
        (lambda m: m["recipe"].pop("command"), "recipe.command"),
    ],
)
def test_values_that_make_no_sense(tmp_path, edit, named):
    with pytest.raises(ManifestError) as caught:
        edited(tmp_path, edit)
    assert named in str(caught.value) and "twin.yaml" in str(caught.value)


def test_labels_that_start_their_hour_are_stamped_with_its_end(tmp_path):
    manifest = edited(tmp_path, lambda m: m.update(averaging_label="start"))
    assert str(manifest.times(2013)[0]) == "2012-12-31T17"
    with pytest.raises(CoverageError, match="does not have the year 2019"):
        manifest.times(2019)


def test_records_are_not_listed_as_manifests(tmp_path, monkeypatch):
    for name in ("settings.ini", "data_manifests/a.yaml", "data_manifests/a.record.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("AQNET_ROOT", str(tmp_path))
    with pytest.raises(ManifestError, match=r"manifests in that folder: a\n"):
        resolve_manifest("b")


# ---- stores of a manifest

HOURS = 30  # of each "year" here


def short_hours(manifest: GridManifest, year: int) -> np.ndarray:
    """As `GridManifest.times`, but 30 hours around New Year: whole years take minutes."""
    full = TIMES(manifest, year)
    return full[-HOURS:] if year == manifest.years[0] else full[:HOURS]


TIMES = GridManifest.times


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a manifest of two short years, and their stores."""
    patch = pytest.MonkeyPatch()
    patch.setattr(GridManifest, "times", short_hours)
    root = tmp_path_factory.mktemp("made")
    write_manifest(root / "data_manifests", two_years)
    build(load_manifest(root / "data_manifests" / "twin.yaml"), root / "data" / "twin")
    yield root
    patch.undo()


def two_years(content: dict) -> None:
    days = [{"start": f"{d}", "end": f"{d}"} for d in ("2013-12-30", "2013-12-31", "2014-01-01")]
    content.update(
        years=[2013, 2014],
        grid="china_32x64",
        split=dict(zip(("train", "validation", "test"), days, strict=True)),
    )


def build(manifest: GridManifest, folder: Path, years=(2013, 2014), seed: int = 0) -> None:
    grid = GRIDS["china_32x64"]
    for year in years:
        spec = YearSpec.from_manifest(manifest, year, made_up_static(grid), made_up_mask(grid))
        fields = made_up_fields(spec.times, grid, seed)
        missing = {3: "no file"} if year == 2014 else {}
        write_year(folder / manifest.store_file(year), spec, fields.__getitem__, missing)


@pytest.fixture
def copy(made, tmp_path, monkeypatch) -> Path:
    root = shutil.copytree(made, tmp_path / "root")
    (root / "settings.ini").touch()
    monkeypatch.setenv("AQNET_ROOT", str(root))
    monkeypatch.setenv("AQNET_DATA", str(root / "data"))
    return root


def manifest_of(root: Path) -> GridManifest:
    return load_manifest(root / "data_manifests" / "twin.yaml")


def test_stores_carry_their_manifest(copy):
    manifest = manifest_of(copy)
    store = open_year(copy / "data" / "twin" / manifest.store_file(2013))
    assert store.attributes["manifest_sha256"] == manifest.digest and store.synthetic
    assert store.attributes["licence"] == manifest.licence
    assert store.attributes["recipe"]["command"] == "aqnet data twin"
    assert manifest.differences(store, 2013) == {}


def test_recorded_years_are_opened_as_one(copy):
    manifest = manifest_of(copy)
    with pytest.raises(CoverageError, match="not recorded"):
        open_years(manifest)
    assert len(open_years(manifest, recorded=False).times) == 2 * HOURS
    written = record_stores(manifest)
    assert manifest.record() == written
    assert written.stores[1].missing == (("2013-12-31T19Z", "2013-12-31T19Z", "no file"),)
    years = open_years(manifest)
    assert (np.diff(years.times) == np.timedelta64(1, "h")).all() and years.synthetic
    assert [s.digest for s in years.stores] == [e.content_sha256 for e in written.stores]
    assert len(open_years(manifest, years=[2014]).times) == HOURS
    with pytest.raises(CoverageError, match="does not have the year 2018"):
        open_years(manifest, years=[2018])


def test_a_missing_year_is_named(copy):
    manifest = manifest_of(copy)
    record_stores(manifest)
    shutil.rmtree(copy / "data" / "twin" / manifest.store_file(2014))
    with pytest.raises(CoverageError, match="the year 2014 of twin is not there") as caught:
        open_years(manifest)
    assert manifest.store_file(2013) in str(caught.value)
    with pytest.raises(CoverageError, match="years of twin are missing: 2014"):
        check_stores(manifest)
    record_stores(manifest)  # what is there, is recorded
    assert [y.store is not None for y in check_stores(manifest)] == [True, False]
    with pytest.raises(CoverageError, match="2014 of twin is not there"):
        open_years(manifest)


def test_without_a_record_all_years_or_none_are_there(copy):
    manifest = manifest_of(copy)
    shutil.rmtree(copy / "data" / "twin" / manifest.store_file(2013))
    with pytest.raises(CoverageError, match=r"missing: 2013\n.*in the manifest") as caught:
        check_stores(manifest)
    assert "aqnet data record twin" in str(caught.value)
    assert run("data", "check", "twin").exit_code == 1


def test_a_year_that_is_not_in_the_record(copy):
    manifest = manifest_of(copy)
    path = copy / "data" / "twin" / manifest.store_file(2014)
    away = path.rename(copy / "away")
    record_stores(manifest)
    away.rename(path)
    with pytest.raises(CoverageError, match="the year 2014 of twin is not recorded"):
        open_years(manifest)
    assert [y.recorded for y in check_stores(manifest)] == [True, False]


def test_stores_of_another_manifest_are_refused_saying_what_differs(copy):
    record_stores(manifest_of(copy))
    before = manifest_of(copy).digest

    def change(content):
        two_years(content)
        content.update(synthetic=False, name="other", source_utc_offset_h=7.0)

    write_manifest(copy / "data_manifests", change)
    other = manifest_of(copy)
    with pytest.raises(ManifestError, match="records stores of another manifest"):
        open_years(other, copy / "data" / "twin")
    with pytest.raises(StoreError) as caught:
        open_years(other, copy / "data" / "twin", recorded=False)
    problem, expected, found, _ = str(caught.value).splitlines()
    keys = "manifest, manifest_sha256, synthetic, utc_offset_h, hours"
    assert problem.endswith(f"differs from manifest other: {keys}")
    assert f"manifest_sha256: {other.digest}; synthetic: False" in expected
    assert f"manifest_sha256: {before}; synthetic: True" in found
    with pytest.raises(StoreError, match="differs from manifest other"):
        record_stores(other, copy / "data" / "twin")


def test_a_store_of_another_grid(copy):
    def change(content):
        two_years(content)
        content.update(grid="china_64x128")

    store = open_year(copy / "data" / "twin" / manifest_of(copy).store_file(2013))
    other = edited(copy / "elsewhere", change)
    assert set(other.differences(store, 2013)) == {"manifest_sha256", "grid"}
    assert set(manifest_of(copy).differences(store, 2014)) == {"year", "hours"}


def test_of_a_recipe_only_the_settings_that_differ_are_told(copy):
    def change(content):
        two_years(content)
        settings = content["recipe"]["settings"]
        settings["transport"] = 0.5
        settings["blocking_of_ridges"] = None

    store = open_year(copy / "data" / "twin" / manifest_of(copy).store_file(2013))
    found = edited(copy / "elsewhere", change).differences(store, 2013)
    own = {key: pair for key, pair in found.items() if "of the manifest" in key}
    assert own == {
        "`recipe.settings.blocking_of_ridges` of the manifest": (None, "(not there)"),
        "`recipe.settings.transport` of the manifest": (0.5, 1.0),
    }


def test_other_content_than_recorded_is_refused(copy):
    manifest = manifest_of(copy)
    recorded = record_stores(manifest).stores[0].content_sha256
    shutil.rmtree(copy / "data" / "twin" / manifest.store_file(2013))
    build(manifest, copy / "data" / "twin", [2013], seed=1)
    for refuses in (open_years, check_stores):
        with pytest.raises(StoreError, match="differs from manifest twin: content_sha256") as e:
            refuses(manifest)
        assert recorded in str(e.value)


def write_some_statistics(root: Path, mean: float = 0.0, **stores: str) -> str:
    """A file that says which stores it is of; digest of its content."""
    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION}
    of = {name.removeprefix("y"): digest for name, digest in stores.items()}
    attributes["store_sha256"] = json.dumps(of)
    arrays = {"mean": (("variable",), np.array([mean]), {})}
    return write_statistics(
        Statistics(arrays, attributes), root / "data" / "twin" / "statistics.nc"
    )


def test_statistics_are_part_of_the_record(copy):
    manifest, file = manifest_of(copy), copy / "data" / "twin" / "statistics.nc"
    with pytest.raises(DataError, match=r"no statistics at .*x\.nc"):
        record_stores(manifest, statistics="x.nc")
    digest = record_stores(manifest).stores[0].content_sha256
    content = write_some_statistics(copy, y2013=digest)
    assert record_stores(manifest).statistics.model_dump() == {
        "file": "statistics.nc",
        "sha256": content,
    }
    check_stores(manifest)
    write_some_statistics(copy, mean=1.0, y2013=digest)
    with pytest.raises(ChecksumError, match="other statistics than expected"):
        check_stores(manifest)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ChecksumError, match=r"statistics\.nc: cannot be read"):
        check_stores(manifest)
    file.unlink()
    with pytest.raises(DataError, match="no statistics at"):
        check_stores(manifest)


def test_statistics_of_other_stores_are_refused(copy):
    manifest = manifest_of(copy)
    digest = record_stores(manifest).stores[0].content_sha256
    for others in ({"y2013": "0" * 64}, {"y2013": digest, "y2012": digest}):
        write_some_statistics(copy, **others)
        with pytest.raises(ChecksumError, match=r"describes other stores: 201[23]\n"):
            record_stores(manifest)
    assert manifest.record().statistics is None  # the record before stays


def test_the_record_is_plain_and_strict(copy):
    manifest = manifest_of(copy)
    record_stores(manifest)
    text = manifest.record_path.read_text()
    assert text.startswith("# Written by `aqnet data record twin`, not by hand.\n")
    content = yaml.safe_load(text)
    assert set(content) == {"manifest_sha256", "stores", "statistics"}
    content["stores"][0]["content_sha256"] = "short"
    manifest.record_path.write_text(yaml.safe_dump(content))
    with pytest.raises(ManifestError, match=r"stores\.0\.content_sha256"):
        open_years(manifest)


def test_nothing_to_record(copy):
    manifest = manifest_of(copy)
    shutil.rmtree(copy / "data" / "twin")
    with pytest.raises(CoverageError, match="nothing to record"):
        record_stores(manifest)
    assert not manifest.record_path.exists()
    assert [y.store for y in check_stores(manifest)] == [None, None]


def test_the_coverage_table(copy):
    lines = coverage_table(check_stores(manifest_of(copy))).splitlines()
    assert lines[0].split() == [
        "year", "hours", "lacking", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
        "Oct", "Nov", "Dec",
    ]  # fmt: skip
    assert lines[1].split() == ["2013", "30", "0", *11 * "-", "100", "not", "recorded"]
    assert lines[2].split() == ["2014", "30", "1", "96", *11 * "-", "not", "recorded"]
    assert len({len(line.removesuffix("  not recorded")) for line in lines}) == 1


# ---- the commands


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def test_check_and_record_commands(copy):
    manifest = manifest_of(copy)
    done = run("data", "check", "twin")
    assert done.exit_code == 0, done.output
    assert "SYNTHETIC" in done.output and "as in the manifest; not recorded" in done.output
    done = run("data", "record", "twin")
    assert done.exit_code == 0 and str(manifest.record_path) in done.output
    done = run("data", "check", "twin", "--deep")
    assert done.exit_code == 0 and "every hour" in done.output
    assert "twin.record.yaml" in done.output and "not recorded" not in done.output


@pytest.mark.parametrize("deep", [True, False])
def test_check_command_names_damage(copy, deep):
    path = copy / "data" / "twin" / manifest_of(copy).store_file(2013)
    shard = path / "inputs" / "c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    done = run("data", "check", "twin", *(["--deep"] if deep else []))
    if deep:
        assert done.exit_code == 1 and path.name in done.output
        assert "hour 2013-12-3" in done.output and "remedy:" in done.output
    (path / "zarr.json").write_text((path / "zarr.json").read_text().replace("CC BY", "CC NC"))
    done = run("data", "check", "twin", *(["--deep"] if deep else []))
    assert done.exit_code == 1 and "attributes are damaged" in done.output


def test_commands_without_stores(copy):
    shutil.rmtree(copy / "data" / "twin")
    done = run("data", "check", "twin")
    assert done.exit_code == 0 and "stores: none in" in done.output
    done = run("data", "record", "twin")
    assert done.exit_code == 1 and "nothing to record" in done.output
    done = run("data", "check", "twin", "--store", str(copy / "data" / "twim"))
    assert done.exit_code == 1 and "correct --store" in done.output


def test_a_manifest_of_stations_has_no_record(monkeypatch):
    monkeypatch.setenv("AQNET_ROOT", str(SHIPPED.parent))
    done = run("data", "record", "beijing")
    assert done.exit_code == 1 and "kind: stations" in done.output
