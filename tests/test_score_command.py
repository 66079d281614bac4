"""`aqnet forecast`, `aqnet score` and `aqnet scoreboard` as a user runs them, on recorded years."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
import zarr
from click.testing import CliRunner
from forecast_case import small_plan, small_store
from test_problem import recorded  # noqa: F401

from aqnet.cli import main
from aqnet.data.manifest import load_manifest
from aqnet.data.years.year_set import open_years
from aqnet.variables import DYNAMIC
from aqnet.verification.provenance import code_of
from aqnet.verification.score_tables import error_table
from aqnet.verification.scoreboard import load_scoreboard
from aqnet.verification.store.reader import open_forecast_store
from aqnet.verification.store.writer import ForecastWriter


def aqnet(*words: object, code: int = 0) -> str:
    """What the command prints; it must end with `code`."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def forecasts(recorded, out, *words):  # noqa: F811
    path, folder = recorded
    text = aqnet("forecast", "--baseline", "persistence", "--manifest", path, "--folder", folder,
                 "--out", out, "--split", "test", "--name", out.stem, *words)  # fmt: skip
    assert f"{out}: complete" in text
    return out


@pytest.fixture(scope="module")
def truth(recorded):  # noqa: F811
    """Words of `aqnet score` that name the truth."""
    path, folder = recorded
    return "--manifest", path, "--folder", folder


@pytest.fixture(scope="module")
def store(recorded, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("stores") / "kept.zarr"
    return forecasts(recorded, out, "--leads", "6,24")


@pytest.fixture(scope="module")
def board(store, truth):
    out = store.parent / "board.npz"
    text = aqnet("score", store, *truth, "--out", out, "--climatology", "--baseline", "persistence",
                 "--baseline", "climatology")  # fmt: skip
    assert "72 of 72 init times, truth at 100.0% of the valid times" in text
    return out


def test_scores_of_the_command_are_those_of_the_fields(recorded, board):  # noqa: F811
    path, folder = recorded
    years = open_years(load_manifest(path), folder, (2015,))
    fields = years.read(slice(None))[:, DYNAMIC.index("pm25")]
    now, later = fields[:72][:, years.mask], fields[24:][:, years.mask]
    table = error_table(load_scoreboard(board)).set_index(
        ["forecast", "pollutant", "lead_h", "group"]
    )
    row = table.loc[("persistence", "pm25", 24, "all")]
    area = years.grid.cell_area_km2[years.mask]
    expected = np.sqrt(np.average(np.square(np.float64(now) - later).mean(0), weights=area))
    assert row["rmse_over_space_time"] == pytest.approx(expected, rel=1e-6)
    assert row["n"] == later.size
    rounded = table.loc[("kept", "pm25", 24, "all")]["rmse_over_space_time"]
    assert 0 < abs(rounded / expected - 1) < 1e-3  # the store keeps 10 bits
    usual = table.loc["climatology"]
    assert usual["anomaly_correlation_over_space_time"].isna().all()
    assert abs(row["anomaly_correlation_over_space_time"]) < 1


def test_the_record_repeats_the_board(board, store, recorded, tmp_path):  # noqa: F811
    path, folder = recorded
    first, manifest = load_scoreboard(board), load_manifest(path)
    record = first.record
    held = open_forecast_store(store)
    assert record["stores"] == [
        {"path": str(store), "digest": held.digest, "name": "kept", "run": "none",
         "title": "Forecasts by persistence", "checkpoint": None, "synthetic": True}
    ]  # fmt: skip
    assert record["truth"]["digest"] == manifest.digest and record["edition"] is None
    assert record["truth"]["stores"][0][0] == manifest.store_file(2015)
    assert record["statistics"] == manifest.record().statistics.sha256
    assert record["code"] == code_of() and record["written"].endswith("+00:00")
    words = record["command"]
    assert words[:3] == ["aqnet", "score", str(store)] and str(folder) in words
    words[words.index("--out") + 1] = str(tmp_path / "again.npz")
    aqnet(*words[1:])
    again = load_scoreboard(tmp_path / "again.npz")
    assert error_table(again).equals(error_table(first))


def test_two_processes_give_the_same_bits(store, truth, tmp_path):
    tables = []
    for number in (1, 2):
        out = tmp_path / f"{number}.npz"
        aqnet("score", store, *truth, "--out", out, "--workers", number)
        tables.append(error_table(load_scoreboard(out)))
    assert tables[0].equals(tables[1])


def test_tables(board, tmp_path):
    shown = aqnet("scoreboard", board, "--only", "group=all", "--by", "pollutant")
    assert "rmse_over_space_time" in shown and shown.count("kept") == 6
    csv = tmp_path / "t.csv"
    aqnet("scoreboard", board, "--events", "--csv", csv)
    assert "critical_success_index" in csv.read_text()
    assert "AXIS=LABEL" in aqnet("scoreboard", board, "--only", "colour=red", code=2)
    for words in (
        ["--events", "--levels"],
        ["--places", "--skill", "persistence"],
        ["--places", "--only", "group=all"],
        ["--skill", "persistence", "--only", "season=DJF"],
        ["--skill", "persistence", "--by", "pollutant"],
        ["--skill", "persistence", "--by", "group", "--only", "group=all"],
    ):
        assert "Error" in aqnet("scoreboard", board, *words, code=2), words
    assert "is not a scoreboard" in aqnet("scoreboard", csv, code=1)


def test_leads_and_pollutants_are_chosen_where_stores_differ(store, recorded, truth, tmp_path):  # noqa: F811
    other = forecasts(recorded, tmp_path / "other.zarr", "--leads", "12,24")
    out = tmp_path / "two.npz"
    text = aqnet("score", store, other, *truth, "--out", out, code=1)
    assert "the stores differ in lead_times_h" in text and "all have [24]" in text
    aqnet("score", store, other, *truth, "--out", out, "--leads", "24", "--pollutants", "o3,pm25")
    design = load_scoreboard(out).design
    assert design.lead_times_h == (24,) and design.pollutants == ("o3", "pm25")
    text = aqnet("score", store, *truth, "--out", out, "--leads", "24,48", code=1)
    assert "does not have the lead times [48] h" in text
    text = aqnet("score", store, *truth, "--out", out, "--pollutants", "nox", code=1)
    assert "too little in common" in text and "nox" in text


def changed(store, folder, change):
    copy = folder / store.name
    shutil.copytree(store, copy)
    change(copy)
    return copy


def in_kg(copy):
    zarr.open_array(copy / "so2", mode="r+").attrs["units"] = "kg m-3"


def with_nan(copy):
    array = zarr.open_array(copy / "no2", mode="r+")
    array[3:5] = np.nan


def of_another_grid(copy):
    shutil.rmtree(copy)
    small_store(copy)


def without_array(copy):
    shutil.rmtree(copy / "co")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (in_kg, "so2 has another shape or unit"),
        (with_nan, "no2 at init times"),
        (of_another_grid, "is on another grid than the truth"),
        (without_array, "co cannot be opened"),
        (shutil.rmtree, "there is no forecast store"),
    ],
)
def test_a_store_that_cannot_be_scored(store, truth, tmp_path, change, says):
    copy, out = changed(store, tmp_path, change), tmp_path / "b.npz"
    assert says in aqnet("score", copy, *truth, "--out", out, code=1)
    assert not out.exists()


def test_a_store_still_being_written(truth, tmp_path):
    path, plan = tmp_path / "growing.zarr", small_plan()
    spec = plan.spec(6)
    with ForecastWriter(path, spec) as writer:
        values = plan.forecast(spec.init_times[spec.rows(0)])
        writer.write(0, {name: values[:, :, i] for i, name in enumerate(spec.pollutants)})
        text = aqnet("score", path, *truth, "--out", tmp_path / "b.npz", code=1)
        inside = writer.partial / "store"
        also = aqnet("score", inside, *truth, "--out", tmp_path / "b.npz", code=1)
    assert "is still being written, or its writer ended early" in text and "1 finished" in text
    assert "is still being written" in also


def test_truth_that_cannot_be_used(store, recorded, truth, tmp_path):  # noqa: F811
    out = ("--out", tmp_path / "b.npz")
    path, folder = recorded
    assert "kind grid" in aqnet("score", store, "--manifest", "beijing", *out, code=2)
    content = yaml.safe_load(path.read_text())
    other = tmp_path / "data_manifests" / "twin.yaml"
    other.parent.mkdir()
    early = content | {"years": [2013, 2014], "split": content["split"] | {
        "test": {"start": "2014-01-02", "end": "2014-01-03"}}}  # fmt: skip
    early["split"]["validation"] = {"start": "2014-01-01", "end": "2014-01-01"}
    other.write_text(yaml.safe_dump(early))
    text = aqnet("score", store, "--manifest", other, "--folder", folder, *out, code=2)
    assert "no year of the forecasts" in text
    other.write_text(yaml.safe_dump(content))
    record = yaml.safe_load(path.with_suffix(".record.yaml").read_text())
    record["statistics"] = None
    other.with_suffix(".record.yaml").write_text(yaml.safe_dump(record))
    words = ("score", store, "--manifest", other, "--folder", folder, *out)
    aqnet(*words)
    assert "statistics of twin are not recorded" in aqnet(*words, "--climatology", code=2)


def test_names_and_baselines(recorded, store, truth, tmp_path):  # noqa: F811
    out = ("--out", tmp_path / "b.npz")
    plain = forecasts(recorded, tmp_path / "persistence.zarr", "--leads", "6,24", "--every", "12")
    assert "names of their own" in aqnet("score", plain, *truth, *out, code=1)
    assert "6 of 6 init times" in aqnet("score", plain, *truth, *out, "--baseline", "none")
    both = ("--baseline", "none", "--baseline", "persistence")
    assert "none alone" in aqnet("score", store, *truth, *out, *both, code=2)


@pytest.mark.parametrize(
    "time", ["2015-01-01T00+08:00", "2015-01-01T06:30", "2015-01-01", "20150101", "now"]
)
def test_times_of_other_zones_and_half_hours(truth, tmp_path, time):
    words = ("forecast", "--baseline", "persistence", *truth, "--out", tmp_path / "f.zarr")
    text = aqnet(*words, "--leads", "6", "--from", time, "--to", "2015-01-02T00", code=2)
    assert "a time cannot be read" in text and "UTC" in text
