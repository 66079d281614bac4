"""Probes of models whose response is known: sign, size and displacement; and of small networks."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from forecast_case import small_store
from made_up_years import make_year
from scipy.ndimage import map_coordinates
from test_grid_forecaster import SMALL, build, domain, normaliser

from aqnet.cli import main
from aqnet.data.splits import Split
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, ParameterError, StoreError
from aqnet.grid import EARTH_RADIUS_KM, GRIDS, Grid
from aqnet.model.config import ModelConfig
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.physics.figures import draw_numbers, with_expected_sign
from aqnet.verification.physics.probe_models import GridForecasts, controls, scene_of, with_terrain
from aqnet.verification.physics.probe_quantities import Probed, summary
from aqnet.verification.physics.probe_results import ProbeSettings, _draw_numbers, write_probes
from aqnet.verification.physics.probe_runs import probe_ridge, probe_source, probe_wind, towards
from aqnet.verification.physics.probes import (
    Place,
    Ridge,
    Scene,
    calmed,
    flattened,
    raised,
    surroundings_of,
    turned,
    without_source,
)
from aqnet.verification.physics.results import Album

GRID = Grid("plain", np.arange(45.0, 25, -0.5), np.arange(95.0, 130, 0.5))  # north to south
LAT, LON = GRID.mesh()
MASK = np.ones(GRID.shape, bool)
MASK[:, :4] = False
SOURCE = Place(36.0, 112.0, 150.0)
LEADS = (6, 12)
WINDS = ((8.0, 0.0), (0.0, -6.0), (-5.0, 5.0), (0.2, 0.0))  # the last has no direction
KM = np.deg2rad(1) * EARTH_RADIUS_KM


def scene() -> Scene:
    """A city of 80 ug/m3 on a clean plain, under uniform winds."""
    values = np.zeros((len(WINDS), 1, len(DYNAMIC), int(MASK.sum())), np.float32)
    city = 10 + 80 * np.exp(-(((LAT - 36) * KM / 60) ** 2) - ((LON - 112) * KM * 0.81 / 60) ** 2)
    for at in (DYNAMIC.index(name) for name in TARGETS):
        values[:, 0, at] = city[MASK]
    for row, wind in zip(values, WINDS, strict=True):
        row[0, :2] = np.array(wind)[:, None]
    times = np.datetime64("2014-01-01T00", "h") + 24 * np.arange(len(WINDS))
    return Scene(times, values, GRID, MASK)


def moving(share: float = 1.0):
    """Carries the city with the wind of the scene at its place, without spreading; then decays."""

    def forecasts(given: Scene) -> np.ndarray:
        found = np.empty((len(given.times), len(LEADS), 6, int(given.mask.sum())))
        for b, (row, wind) in enumerate(
            zip(given.targets(), given.values[:, 0, :2, 0], strict=True)
        ):
            for k, lead in enumerate(LEADS):
                east, north = share * wind * 3.6 * lead / KM  # degrees of latitude
                for p in range(6):
                    field = np.full(given.mask.shape, 10.0)
                    field[given.mask] = row[p]
                    rows, columns = np.indices(given.mask.shape, float)
                    rows += north / 0.5
                    columns -= east / 0.81 / 0.5
                    moved = map_coordinates(field, [rows, columns], order=1, mode="nearest")
                    found[b, k, p] = moved[given.mask]
        return found

    return forecasts


def still(given: Scene) -> np.ndarray:
    return np.repeat(given.targets()[:, None], len(LEADS), axis=1)


MODELS = {"moving": moving(), "still": still}


def value(probed, probe, quantity, model="moving", pollutant=0):
    return probed.values[probe, quantity, model][:, :, pollutant]


# ---- changes


def test_turning_and_calming_change_nothing_but_the_wind():
    given = scene()
    quarter, none = turned(given, 90), calmed(given)
    np.testing.assert_allclose(quarter.values[0, 0, :2, 0], [0, 8], atol=1e-5)
    np.testing.assert_allclose(turned(given).values[:, :, :2], -given.values[:, :, :2], atol=1e-5)
    assert not none.values[:, :, :2].any()
    for changed in (quarter, none):
        np.testing.assert_array_equal(changed.values[:, :, 2:], given.values[:, :, 2:])


def test_a_source_goes_down_to_the_background_and_nothing_rises():
    given = scene()
    seen = surroundings_of(given, SOURCE)
    gone = without_source(given, seen)
    np.testing.assert_array_equal(gone.values[..., ~seen.inside], given.values[..., ~seen.inside])
    assert (gone.values <= given.values).all()
    assert gone.targets()[..., seen.inside].max() < 10.1 and given.targets().max() > 80
    np.testing.assert_array_equal(gone.values[:, :, :5], given.values[:, :, :5])


def test_a_ridge_stands_half_way_and_flattening_lowers_to_the_higher_end():
    given, receptor = scene(), Place(36.0, 118.0, 100.0)
    flat = np.full(GRID.shape, 50.0)
    up = raised(given, flat, Ridge(1000.0), SOURCE, receptor).elevation - flat
    row, column = np.unravel_index(up.argmax(), up.shape)
    assert up.max() == pytest.approx(1000, rel=0.02)
    assert (GRID.lat[row], GRID.lon[column]) == (36.0, 115.0)
    north, west = up[np.isclose(LAT, 38.5) & (LON == 115)], up[(LAT == 36) & (LON == 112.5)]
    assert north[0] > 500 > 10 > west[0]  # long across the line, narrow along it
    down = flattened(given, flat + up, Ridge(), SOURCE, receptor).elevation
    assert (down <= flat + up).all() and down.max() < 0.5 * up.max()
    np.testing.assert_allclose(flattened(given, flat, Ridge(), SOURCE, receptor).elevation, flat)


# ---- numbers


def test_what_moves_with_the_wind_is_found_where_it_went():
    probed = probe_source(MODELS, scene(), SOURCE, ["pm25", "o3"], 900.0)
    along = value(probed, "source_removed", "displacement_along")
    speed = np.hypot(*np.array(WINDS).T)[:3, None]
    np.testing.assert_allclose(along[:3], speed * 3.6 * np.array(LEADS), rtol=0.03)
    assert np.isnan(along[3]).all()  # no wind, no direction
    assert abs(value(probed, "source_removed", "displacement_across")[:3]).max() < 10
    back = value(probed, "source_removed_wind_turned", "displacement_along")
    np.testing.assert_allclose(back[:3], -along[:3], rtol=0.06)
    gain = value(probed, "source_removed", "displacement_real_minus_turned")
    np.testing.assert_allclose(gain[:3], along[:3] - back[:3])
    assert abs(value(probed, "source_removed_calm", "displacement_along")[:3]).max() < 1e-6
    contrast = value(probed, "source_removed", "downwind_minus_upwind")
    assert (contrast[:3, 1] < -0.1).all()
    assert value(probed, "source_removed", "wrong_sign_share").max() < 0.02


def test_what_stays_has_the_whole_response_and_no_displacement():
    given = scene()
    seen = surroundings_of(given, SOURCE)
    probed = probe_source(MODELS, given, SOURCE, ["pm25"], 900.0)
    removed = (given.targets() - without_source(given, seen).targets())[:, 0, seen.inside]
    expected = -np.average(removed, axis=-1, weights=seen.area_km2[seen.inside])
    found = value(probed, "source_removed", "at_source", "still")
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 2, 1), rtol=1e-5)
    for quantity in ("displacement_along", "displacement_across"):
        moved = value(probed, "source_removed", quantity, "still")
        assert abs(moved[:3]).max() < 1e-3
    for quantity in ("displacement_real_minus_turned", "contrast_real_minus_turned"):
        assert not value(probed, "source_removed", quantity, "still")[:3].any()


def test_turning_the_wind_moves_air_from_the_lee_to_the_other_side():
    probed = probe_wind(MODELS, scene(), SOURCE, ["pm25"], 900.0)
    swapped = value(probed, "wind_turned", "upwind_minus_downwind")
    assert (swapped[:3, 1] > 0.5).all() and np.isnan(swapped[3]).all()
    assert (value(probed, "wind_turned", "rms")[:3] > 0.5).all()
    assert (value(probed, "calm", "at_source")[:3, 1] > 5).all()  # it is not carried away
    for probe in ("wind_turned", "calm"):
        assert not value(probed, probe, "rms", "still").any()


def test_a_ridge_that_holds_back_a_known_share():
    """A model that passes exp(-highest point / 1000 m) of the city on to everything east of it."""
    given, receptor = scene(), Place(36.0, 118.0, 120.0)
    seen = surroundings_of(given, SOURCE)
    flat = np.zeros(GRID.shape)

    def blocked(s: Scene) -> np.ndarray:
        passes = np.exp(-s.elevation.max() / 1000)
        city = s.targets()[..., seen.inside].mean(-1, keepdims=True)
        return np.repeat((s.targets() + passes * city * (LON > 116)[MASK])[:, None], 2, axis=1)

    ridge = Ridge(1500.0)
    probed = probe_ridge({"blocked": blocked, "still": still}, given, flat, ridge, SOURCE, receptor,
                         ["co"])  # fmt: skip
    assert len(probed.scene.times) == 1  # the wind from the west
    height = raised(given, flat, ridge, SOURCE, receptor).elevation.max()
    city = [s.targets()[0, 0, seen.inside].mean() for s in (given, without_source(given, seen))]
    expected = (city[0] - city[1]) * (1 - np.exp(-height / 1000))
    found = value(probed, "ridge_raised", "influence_lost", "blocked")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    change = value(probed, "ridge_raised", "at_receptor", "blocked")
    np.testing.assert_allclose(change, -city[0] * (1 - np.exp(-height / 1000)), rtol=1e-4)
    assert not value(probed, "ridge_flattened", "influence_lost", "blocked").any()
    assert not value(probed, "ridge_raised", "influence_lost", "still").any()


def test_verdicts():
    probed = probe_source(MODELS, scene(), SOURCE, ["pm25"], 900.0)
    rows = {(r["quantity"], r["model"], r["lead_h"]): r for r in summary(probed, LEADS, ["pm25"])
            if r["probe"] == "source_removed"}  # fmt: skip
    fine = rows["displacement_along", "moving", 12]
    assert (fine["verdict"], fine["expected"], fine["unit"]) == ("as expected", "+", "km")
    assert (fine["inits"], fine["share_expected"]) == (3, 1.0)
    assert rows["contrast_real_minus_turned", "still", 12]["verdict"] == "no response"
    assert rows["displacement_across", "moving", 12]["verdict"] == "no sign expected"
    key = ("source_removed", "displacement_along", "moving")
    for values, verdict in ((-probed.values[key], "against expectation"),
                            (probed.values[key] * [[[1]], [[-1]], [[1]], [[1]]], "undecided"),
                            (probed.values[key][:2], "too few init times")):  # fmt: skip
        one = replace(probed, values={key: values})
        assert summary(one, LEADS, ["pm25"])[1]["verdict"] == verdict
    json.dumps(list(rows.values()), allow_nan=False)


def test_what_cannot_be_probed_is_named():
    given = scene()
    with pytest.raises(CoverageError, match="no cell of the data"):
        surroundings_of(given, Place(0.0, 0.0, 100.0))
    with pytest.raises(ParameterError, match="unknown pollutants"):
        probe_wind(MODELS, given, SOURCE, ["pm1"], 900.0)
    flat = np.zeros(GRID.shape)
    with pytest.raises(ParameterError, match="overlap"):
        probe_ridge(MODELS, given, flat, Ridge(), SOURCE, Place(36, 114, 150), ["pm25"])
    with pytest.raises(ParameterError, match="no room"):
        raised(given, flat, Ridge(half_width_km=300.0), SOURCE, Place(36, 116, 10))
    with pytest.raises(CoverageError, match="never blows"):
        towards(given.only(np.array([0])), SOURCE, Place(36, 106, 100))

    def broken(s):
        return still(s) * np.nan

    with pytest.raises(CoverageError, match="no value where one is needed"):
        probe_wind({"broken": broken}, given, SOURCE, ["pm25"], 900.0)


# ---- networks

CHINA = GRIDS["china_32x64"]
WITH_RIDGE = {"physics": PhysicsConfig(ridge=True), "width": 16, "heads": 2}


def network_with_ridge() -> GridForecaster:
    config = ModelConfig(**{**SMALL, **WITH_RIDGE})
    flat = domain(4)
    model = GridForecaster(config, replace(flat, orders=None), normaliser())
    plain = with_terrain(model, flat.elevation)  # made-up factors give way to those of the terrain
    plain.load_state_dict(plain.state_dict() | dict(build(**WITH_RIDGE_FREE).named_parameters()),
                          strict=False)  # fmt: skip
    return plain.eval()


WITH_RIDGE_FREE = {"physics": PhysicsConfig(), "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def years(tmp_path_factory):
    return YearSet([open_year(make_year(tmp_path_factory.mktemp("years"), days=12))])


def some_scene(years, model, leads=(12, 48), inits=4) -> Scene:
    whole = Split("all", years.times[0], years.times[-1] + np.timedelta64(1, "h"))
    return scene_of(years, whole, model, leads, inits=inits)


def test_a_network_is_asked_what_a_batch_would_ask_it(years):
    model = build(physics=PhysicsConfig())
    given = some_scene(years, model)
    assert (np.diff(given.times) >= np.timedelta64(24, "h")).all()
    found = GridForecasts(model, (48,))(given)
    both = GridForecasts(model, (12, 48))(given)
    assert found.shape == (4, 1, 6, years.mask.sum())
    np.testing.assert_array_equal(found[:, 0], both[:, 1])
    one = GridForecasts(model, (48,))(given.only(np.array([2])))
    np.testing.assert_allclose(one[0], found[2], rtol=1e-4, atol=1e-3)


def test_another_terrain_keeps_the_weights(years):
    model = network_with_ridge()
    ground = np.array(model.domain.elevation, dtype=np.float64)
    same, other = with_terrain(model, ground), with_terrain(model, ground + 800 * (LON_C > 100))
    for changed in (same, other):
        for (name, weight), (_, own) in zip(
            changed.named_parameters(), model.named_parameters(), strict=True
        ):
            assert (weight == own).all(), name
    given = some_scene(years, model)
    forecasts = [GridForecasts(m, (12, 48))(given) for m in (model, same, other)]
    np.testing.assert_allclose(forecasts[1], forecasts[0], rtol=1e-4, atol=1e-2)
    assert abs(forecasts[2] - forecasts[0]).max() > 0.1
    asked = GridForecasts(model, (12, 48))(replace(given, elevation=ground + 800 * (LON_C > 100)))
    np.testing.assert_array_equal(asked, forecasts[2])


LON_C = CHINA.mesh()[1]


def test_controls_cannot_know(years):
    model = build(physics=PhysicsConfig())
    own = GridForecasts(model, (12, 48))
    given = some_scene(years, model)
    beside = controls(own, ["wind_blind", "persistence", "untrained"])
    place = Place(36.0, 105.0, 300.0)
    probed = probe_wind({"own": own, **beside}, given, place, ["pm25"], 900.0)
    assert value(probed, "wind_turned", "rms", "own").min() > 0
    for name in ("wind_blind", "persistence"):
        assert not value(probed, "wind_turned", "rms", name).any()
    own_weights, fresh = (dict(m.named_parameters()) for m in (model, beside["untrained"].model))
    assert all((fresh[name] != weight).any() for name, weight in own_weights.items())
    answers = beside["untrained"](given)
    assert answers.std() > 0
    np.testing.assert_array_equal(answers, controls(own, ["untrained"])["untrained"](given))
    with pytest.raises(ParameterError, match="unknown controls"):
        controls(own, ["crystal_ball"])


def test_a_folder_of_probes(years, tmp_path):
    model = network_with_ridge()
    given = some_scene(years, model, inits=6)
    wind = surroundings_of(given, Place(36.0, 103.0, 250.0)).wind[0]
    step = 7 * wind / np.hypot(*wind)  # downwind of the first init time
    settings = ProbeSettings(
        source=Place(36.0, 103.0, 250.0), probes=("source", "wind", "ridge"),
        pollutants=("pm25",), reach_km=900.0, controls=("wind_blind",),
        receptor=Place(36.0 + step[1], 103.0 + step[0], 250.0),
    )  # fmt: skip
    out = tmp_path / "probes"
    forecasts = GridForecasts(model, (12, 48))
    found = write_probes(out, forecasts, given, settings, {"command": ["aqnet"]})
    read = json.loads((out / "results.json").read_text())
    assert read == json.loads(json.dumps(found))
    assert {row["probe"] for row in read["rows"]} >= {"source_removed", "calm", "ridge_raised"}
    assert {row["model"] for row in read["rows"]} == {"checkpoint", "wind_blind"}
    for row in read["rows"]:
        assert f"{row['probe']} {row['quantity']}" in read["definitions"]
    files = {entry["file"] for entry in read["pictures"]}
    assert files == {path.name for path in out.glob("*.png")} and len(files) == 5
    elsewhere = replace(given, mask=np.ones_like(given.mask))
    with pytest.raises(StoreError, match="does not fit the stores"):
        write_probes(tmp_path / "no", forecasts, elsewhere, settings, {})
    with pytest.raises(ParameterError, match="needs a receptor"):
        write_probes(tmp_path / "no", forecasts, given, replace(settings, receptor=None), {})
    assert not (tmp_path / "no").exists()


def test_numbers_are_drawn_of_what_has_a_sign_and_of_nothing_else(tmp_path):
    keys = [("wind_turned", "rms"), ("source_removed", "at_source"),
            ("source_removed", "displacement_along")]  # fmt: skip
    values = {(*key, "checkpoint"): np.ones((4, 1, 2)) for key in keys}
    rows = summary(Probed(values, {}, scene()), (24,), ("pm25", "o3"))
    found = with_expected_sign(rows, "pm25")
    assert found == {keys[1]: "-", keys[2]: "+"}
    assert with_expected_sign(rows, "o3") == {}
    titles = [axes.get_title("left") for axes in draw_numbers(rows, "pm25").axes]
    assert [title.rsplit(", ")[-1] for title in titles] == ["< 0?", "> 0?"]
    album, settings = Album(tmp_path), SimpleNamespace(pollutants=("o3", "pm25"))
    _draw_numbers(rows, settings, album)
    assert [entry["file"] for entry in album.entries] == ["numbers_pm25.png"]


# ---- commands


def test_a_store_is_checked_from_the_command_line(tmp_path):
    store, out = small_store(tmp_path / "f.zarr"), tmp_path / "physics"
    done = CliRunner().invoke(main, ["physics", str(store), "--no-budget", "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "results.json").read_text())
    assert found["budget"] is None and found["record"]["stores"][0]["path"] == str(store)
    assert "--no-budget" in found["record"]["command"]
    assert sum(row["violations"] for row in found["values"]) > 0  # made-up PM2.5 and PM10
    again = CliRunner().invoke(main, ["physics", str(store), "--no-budget", "--out", str(out)])
    assert again.exit_code != 0 and str(out) in again.output
    lost = CliRunner().invoke(main, ["physics", str(store), "--out", str(tmp_path / "b")])
    assert lost.exit_code != 0 and "error:" in lost.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--source", "here"], "--source cannot be read"),
        (["--source", "36,115", "--probe", "ridge"], "needs a receptor"),
        (["--source", "36,115", "--pollutants", "pm1"], "unknown pollutants"),
    ],
)
def test_bad_options_of_a_probe_are_named(tmp_path, options, problem):
    words = ["probe", "none.ckpt", "--out", str(tmp_path / "o"), "--split", "test", *options]
    done = CliRunner().invoke(main, words)
    assert done.exit_code != 0 and problem in done.output
