"""`aqnet physics` and `aqnet probe` on recorded stores, and probes of a forecaster for stations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from synthetic import LEADS, QUICK, config, grid, splits, tiny
from test_forecast_plan import TINY_STORE, checkpoint, fields, recorded, tiny_manifest  # noqa: F401
from test_problem import fields_problem

from aqnet.cli import main
from aqnet.data import store
from aqnet.data.stations import samples
from aqnet.errors import CoverageError
from aqnet.grid import Grid
from aqnet.training.station_problem import station_problem
from aqnet.variables import DYNAMIC
from aqnet.verification.physics.probe_quantities import Probed, summary
from aqnet.verification.physics.probe_stations import (
    StationForecasts,
    _draw,
    probe_station_wind,
    station_init_times,
    write_station_probes,
)
from aqnet.verification.physics.probes import Scene
from aqnet.verification.physics.results import Album

torch.set_num_threads(1)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def case(recorded, fields, tmp_path):  # noqa: F811
    """Checkpoint, and options that name manifest and folder of its data."""
    path = checkpoint(fields_problem(recorded), tmp_path / "m.ckpt")
    return path, ["--manifest", recorded[0], "--folder", fields[1]]


def test_a_forecast_is_checked_against_its_truth(case, tmp_path):
    path, data = case
    forecast, out = tmp_path / "f.zarr", tmp_path / "physics"
    done = run("forecast", path, *data, "--split", "test", "--every", 6, "--out", forecast)
    assert done.exit_code == 0, done.output
    box = ["--box", "middle=30,95,42,112", "--pollutants", "pm25"]
    done = run("physics", forecast, *data, *box, "--inits", 3, "--out", out)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "results.json").read_text())
    rows = found["budget"]["rows"]
    assert "middle" in {row["region"] for row in rows}
    assert {row["of"] for row in rows} == {"forecast", "truth", "truth_hourly"}
    assert {row["of"] for row in found["values"]} == {"forecast", "truth"}
    assert found["record"]["truth"]["manifest"] and found["record"]["stores"][0]["digest"]
    assert {p["file"] for p in found["pictures"]} == {p.name for p in out.glob("*.png")}
    for wrong, problem in (
        ("here", "--box cannot be read"),
        ("a=1,2,3,4", "no cell of the domain"),
    ):
        done = run("physics", forecast, *data, "--box", wrong, "--out", tmp_path / "no")
        assert done.exit_code != 0 and problem in done.output


def test_a_checkpoint_is_probed(case, tmp_path):
    path, data = case
    out = tmp_path / "probes"
    place = ["--source", "36,104", "--radius", 300, "--inits", 3, "--split", "test"]
    place += ["--probe", "wind"]  # the others: tests/test_probes.py
    done = run("probe", path, *data, *place, "--out", out)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "results.json").read_text())
    assert found["record"]["checkpoint"]["kind"] == "grid"
    assert len(found["record"]["checkpoint"]["sha256"]) == 64
    assert found["settings"]["source"] == {"lat": 36.0, "lon": 104.0, "radius_km": 300.0}
    assert {r["model"] for r in found["rows"]} == {"checkpoint", "untrained", "wind_blind",
                                                   "persistence"}  # fmt: skip
    for options, problem in (
        (["--split", "test"], "where is the source?"),
        (["--source", "36,104"], "no period"),
        (["--source", "0,0", "--split", "test"], "no cell of the data"),
    ):
        done = run("probe", path, *data, *options, "--out", tmp_path / "no")
        assert done.exit_code != 0 and problem in done.output, done.output
        assert not (tmp_path / "no").exists()


# ---- stations


@pytest.fixture(scope="module")
def shaken():
    """A forecaster for stations whose weights and share are not those of a start."""
    from aqnet.training.setup import prepare

    model = prepare(*tiny(), grid(), config(), QUICK).model.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def test_the_wind_of_the_init_hour_is_the_only_change(shaken):
    data = tiny()[0]
    times = station_init_times(data, "test", max(LEADS), 12)
    assert (np.diff(times) >= np.timedelta64(24, "h")).all()
    ask = StationForecasts(shaken, data, LEADS)
    batch = samples.ForecastSamples(data, "test", LEADS)
    at = np.flatnonzero(np.isin(batch.times, times))
    with torch.no_grad():
        expected = shaken(batch.__getitems__(at)).flatten(-2).numpy()
    np.testing.assert_allclose(ask(batch.times[at]), expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(ask(times, lambda wind: wind), ask(times), rtol=1e-5, atol=1e-3)
    turned = ask(times, lambda wind: -wind)
    assert abs(turned - ask(times)).max() > 0.1
    with pytest.raises(CoverageError, match="no init time"):
        station_init_times(data, "test", 24 * 400, 5)


def test_a_statistical_forecast_knows_no_wind(shaken):
    data = tiny()[0]
    times = station_init_times(data, "test", max(LEADS), 20)
    models = {"checkpoint": StationForecasts(shaken, data, LEADS),
              "statistical": StationForecasts(shaken, data, LEADS, share=0.0)}  # fmt: skip
    probed = probe_station_wind(models, times, grid(), ["pm25", "o3"])
    response = probed.fields["wind_turned", "checkpoint"]
    north = probed.scene.values[:, 0, 1].mean(-1)
    found = probed.values["wind_turned", "southerly_minus_northerly", "checkpoint"]
    counts = np.abs(north) >= 1
    assert counts.any() and np.isnan(found[~counts]).all()
    mean = np.average(response, axis=-1, weights=grid().cell_area_km2.ravel())
    sign = np.where(north < 0, 1, -1)[:, None, None]  # from the north before: southerly now
    np.testing.assert_allclose(found[counts], (sign * mean)[counts], rtol=1e-6)
    rows = summary(probed, LEADS, ["pm25", "o3"])
    assert {r["verdict"] for r in rows if r["model"] == "statistical"} == {"no response"}
    assert {r["expected"] for r in rows if r["pollutant"] == "o3"} == {"none"}


def test_a_folder_of_probes_of_stations(shaken, tmp_path):
    data, out = tiny()[0], tmp_path / "probes"
    times = station_init_times(data, "test", max(LEADS), 20)
    write_station_probes(out, shaken, data, grid(), times, LEADS, ["pm25"], {"command": []})
    read = json.loads((out / "results.json").read_text())
    assert read["kind"] == "probe" and read["settings"]["init_times"]
    assert {p["file"] for p in read["pictures"]} == {p.name for p in out.glob("*.png")}


def test_a_pollutant_of_which_physics_expects_no_sign_has_no_figure_of_numbers(shaken, tmp_path):
    data, out = tiny()[0], tmp_path / "probes"
    times = station_init_times(data, "test", max(LEADS), 5)
    write_station_probes(out, shaken, data, grid(), times, LEADS, ["o3"], {"command": []})
    assert list(out.glob("*.png")) and not list(out.glob("numbers_*"))


def test_a_wind_of_just_1_m_s_counts_as_southerly_and_as_northerly(tmp_path):
    """As it does in the numbers; weaker ones are neither."""
    values = np.zeros((3, 1, len(DYNAMIC), 4), np.float32)
    values[:, 0, 1] = np.array([1.0, -1.0, 0.9])[:, None]
    place = Grid("2 x 2", np.array([39.5, 40.5]), np.array([115.5, 116.5]))
    scene = Scene(np.arange(3).astype("M8[h]"), values, place, np.ones((2, 2), bool))
    response = np.ones((3, 1, 1, 4))
    found = {(name, "checkpoint"): response for name in ("wind_turned", "calm")}
    album = Album(tmp_path)
    _draw(Probed({}, found, scene), (24,), 0, "pm25", album)
    drawn = {entry["file"]: entry["caption"] for entry in album.entries}
    assert set(drawn) == {"wind_northerly_pm25.png", "wind_southerly_pm25.png"}
    assert all("over the 1 init times" in text for text in drawn.values())


@pytest.mark.slow
def test_a_checkpoint_for_stations_from_the_command_line(tiny_manifest, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(store, "open_store", lambda path, manifest: TINY_STORE)
    monkeypatch.setattr("aqnet.data.splits.splits_of", lambda manifest: splits())
    monkeypatch.setattr("aqnet.data.manifest.load_manifest", lambda path: tiny_manifest)
    monkeypatch.setattr("aqnet.data.manifest.resolve_manifest", lambda name: name)
    problem = station_problem(tiny_manifest, config(), QUICK, store="memory")
    path, out = checkpoint(problem, tmp_path / "m.ckpt"), tmp_path / "out"
    done = run("probe", path, "--probe", "wind", "--split", "test", "--inits", 5, "--out", out)
    assert done.exit_code == 0, done.output
    assert json.loads((out / "results.json").read_text())["record"]["checkpoint"]["kind"]
    done = run("probe", path, "--split", "test", "--out", tmp_path / "no")
    assert done.exit_code != 0 and "about the wind alone" in done.output
