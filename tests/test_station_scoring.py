"""Scoring at stations: plain numbers, any split, baselines, groups, what is shown and refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from forecast_case import GRID, PROVENANCE, small_mask, small_store
from made_up_years import make_year
from test_station_tables import places  # stations at some places

from aqnet.cli import main
from aqnet.data.splits import Split, splits_of
from aqnet.data.stations.samples import ForecastSamples, load_fields, load_stations, observed_at
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, ParameterError, StoreError
from aqnet.grid import GRIDS, GridError
from aqnet.model.statistical import fit_statistical, situation_at
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.groups import ASSIMILATED, WITHHELD
from aqnet.verification.score_tables import error_table, event_table
from aqnet.verification.scoreboard import load_scoreboard, save_scoreboard
from aqnet.verification.stations import scoring as station_scoring
from aqnet.verification.stations.analysis import AnalysisFields
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.representativeness import spread_within_cells
from aqnet.verification.stations.rules import fit_station_rules
from aqnet.verification.stations.sampling import sample_stations
from aqnet.verification.stations.scoring import ANALYSIS, score_stations
from aqnet.verification.stations.sources import from_beijing
from aqnet.verification.stations.tables import read_observations, write_observations
from aqnet.verification.store.reader import open_forecast_store

LAT = [36.2, 36.3, 37.5, 39.4, 40.6, 41.0]
LON = [103.1, 103.2, 105.5, 107.7, 108.3, 101.0]
HELD = np.array([False, False, True, False, True, False])
INSIDE = slice(0, 5)  # the last one is outside the mask
RULES = ("persistence", "climatology", "damped climatology", "trailing-damped")


def network(**changes):
    named = {"withheld": HELD, "networks": ["A", "A", "B", "B", "B", "A"]}
    return places(LAT, LON, **named | changes)


def observed(stations, first="2013-12-30T00", hours=24 * 14, seed=0, gaps=0.1):
    """Levels with a daily cycle and noise, a tenth missing."""
    rng = np.random.default_rng(seed)
    times = np.datetime64(first, "h") + np.arange(hours)
    day = np.sin(2 * np.pi * (times.astype(int) % 24) / 24)[:, None, None]
    values = 60 + 20 * day + 8 * rng.standard_normal((hours, len(TARGETS), len(stations)))
    values[rng.random(values.shape) < gaps] = np.nan
    return Observations(stations, times, np.maximum(values, 0).astype(np.float32))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return open_forecast_store(small_store(tmp_path_factory.mktemp("forecasts") / "f.zarr"))


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_scores_are_those_of_the_pairs(made_up, method):
    held = observed(network().take(INSIDE))
    board = score_stations(made_up, held, sampling=method)
    rows = error_table(board).set_index(["forecast", "pollutant", "lead_h", "group"])
    sampling = sample_stations(GRID, small_mask(), held.stations, method)
    values = held.values.copy()
    for back in (1, 2, 3):  # the last value, up to three hours old
        earlier = np.roll(held.values, back, axis=0)
        values = np.where(np.isfinite(values), values, earlier)
    at = (made_up.init_times - held.times[0]).astype(int)
    for p, pollutant in enumerate(made_up.pollutants):
        forecast = sampling(made_up.read(slice(0, 20), 24, pollutant, cells=True))
        truth, now = held.values[at + 24, p], values[at, p]
        known = np.isfinite(truth) & np.isfinite(now)
        for group, chosen in (("all", slice(None)), (WITHHELD, HELD[INSIDE]),
                              (ASSIMILATED, ~HELD[INSIDE])):  # fmt: skip
            both = known[:, chosen]
            for name, values_of in ((made_up.name, forecast), ("persistence", now)):
                error = (values_of - truth)[:, chosen][both].astype(np.float64)
                row = rows.loc[(name, pollutant, 24, group)]
                assert row["n"] == both.sum() == row["weight"]
                rmse = np.sqrt(np.mean(error**2))
                assert row["rmse_over_space_time"] == pytest.approx(rmse, rel=1e-6)
        place = board.sums["place"][made_up.name].rmse()[1, p]
        error = np.where(known, forecast - truth, np.nan)
        np.testing.assert_allclose(place, np.sqrt(np.nanmean(error**2, axis=0)), rtol=1e-5)
    assert set(board.design.groups) >= {ASSIMILATED, WITHHELD, "network A", "network B"}


def test_any_number_of_processes_and_tasks_gives_the_same(made_up, monkeypatch):
    held = observed(network().take(INSIDE))
    whole = score_stations(made_up, held)
    monkeypatch.setattr(station_scoring, "_TASK", 7)
    alone, two = (score_stations(made_up, held, workers=n) for n in (0, 2))
    for table in (error_table, event_table):
        by = ("pollutant", "lead_h", "group", "season", "sun")
        assert table(alone, by).equals(table(two, by))
        numbers = table(whole, by).select_dtypes("number").columns
        one, other = table(alone, by)[numbers], table(whole, by)[numbers]
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_stations_outside_are_refused_or_listed(made_up):
    held = observed(network())
    with pytest.raises(GridError, match=r"1 stations(.|\n)*s5 outside the mask"):
        score_stations(made_up, held)
    board = score_stations(made_up, held, outside="drop")
    assert board.record["stations"]["outside"] == {"s5": "outside the mask"}
    assert board.design.each_place == 5
    with pytest.raises(CoverageError, match="no station"):
        score_stations(made_up, observed(places([10.0], [10.0])), outside="drop")


def test_the_record_shows_how_cells_stand_for_stations(made_up, tmp_path):
    held, elevation = observed(network().take(INSIDE)), np.full(GRID.shape, 40.0)
    board = score_stations(made_up, held, sampling="nearest", elevation_m=elevation)
    save_scoreboard(board, tmp_path / "board.npz")
    about = load_scoreboard(tmp_path / "board.npz").record["stations"]
    rows = {row["id"]: row for row in about["table"]}
    assert list(rows) == ["s0", "s1", "s2", "s3", "s4"] and about["sampling"] == "nearest"
    assert [row["stations_in_cell"] for row in rows.values()] == [2, 2, 1, 1, 1]
    assert [row["withheld"] for row in rows.values()] == HELD[INSIDE].tolist()
    assert rows["s0"]["height_difference_m"] == 60
    span = held.at(np.unique(made_up.valid_times))[:, 0]
    both = np.isfinite(span[:, :2]).all(1)
    apart = np.sqrt(np.mean((span[both, 0] - span[both, 1]) ** 2))
    for name in ("s0", "s1"):
        assert rows[name]["spread_pm25_ug_m3"] == pytest.approx(apart, abs=0.01)
    assert rows["s2"]["spread_pm25_ug_m3"] is None
    json.dumps(about, allow_nan=False)


def test_spread_of_three_stations_by_hand():
    values = np.array([[1.0, 3.0, 8.0, 5.0], [2.0, np.nan, 4.0, 5.0], [7.0, np.nan, np.nan, 1.0]])
    found = spread_within_cells(values, np.array([4, 4, 4, 9]))
    expected = [np.sqrt((4.5**2 + 2**2) / 2), 1.5, np.sqrt((6**2 + 2**2) / 2)]
    np.testing.assert_allclose(found[:3], expected)
    assert np.isnan(found[3])


def test_regions_follow_the_cell_of_a_station(made_up):
    held = observed(network().take(INSIDE))
    north = np.zeros(GRID.shape, bool)
    north[:4] = True  # rows from north to south: 42 to 39
    nowhere = np.zeros(GRID.shape, bool)
    board = score_stations(made_up, held, members={"north": north, "nowhere": nowhere})
    counts = error_table(board, ("pollutant", "group")).query("pollutant == 'o3'")
    n = counts[counts["forecast"] == made_up.name].set_index("group")["n"]
    assert "nowhere" not in n.index and 0 < n["north"] < n["all"]
    single = score_stations(made_up, held.take([3, 4]))
    alone = error_table(single, ("pollutant",)).set_index(["forecast", "pollutant"])["n"]
    assert alone[made_up.name, "o3"] == n["north"]


# ---- baselines that are fitted


@pytest.fixture(scope="module")
def year():
    """A training year and two weeks, and its split."""
    return observed(network().take(INSIDE), "2013-01-01T00", 24 * 379), Split(
        "train", np.datetime64("2013-01-01T00", "h"), np.datetime64("2014-01-01T00", "h")
    )


def test_baselines_of_the_first_comparison(made_up, year):
    held, fit = year
    board = score_stations(made_up, held, baselines=RULES, fit=fit)
    assert board.design.forecasts == (made_up.name, *RULES) and board.design.anomalies
    table = error_table(board, ("pollutant", "lead_h")).set_index(
        ["forecast", "pollutant", "lead_h"]
    )
    rmse = table["rmse_over_space_time"]
    # noise of 8 about a daily cycle: climatology is as good as can be, persistence of noise is not
    assert rmse["climatology", "pm25", 24] == pytest.approx(8, rel=0.15)
    assert rmse["persistence", "pm25", 24] > 1.2 * rmse["damped climatology", "pm25", 24]
    assert rmse["trailing-damped", "pm25", 24] == pytest.approx(8, rel=0.2)
    assert table["n"].nunique() <= 12  # the same pairs for all forecasts of a cell
    assert abs(table["anomaly_correlation_over_space_time"]["persistence", "o3", 12]) < 0.3
    assert table["anomaly_correlation_over_space_time"]["climatology"].isna().all()
    with pytest.raises(ParameterError, match="training period"):
        score_stations(made_up, held, baselines=("climatology",))
    with pytest.raises(ParameterError, match="cannot be made"):
        score_stations(made_up, held, baselines=("tomorrow",))


def test_series_without_a_climatology_are_refused_or_listed(made_up, year):
    held, fit = year
    values = held.values.copy()
    values[: 24 * 40, 0, 1] = np.nan  # no PM2.5 in January of the training year at s1
    short = replace(held, values=values)
    options = {"baselines": ("climatology",), "fit": fit}
    with pytest.raises(CoverageError, match=r"1 series have no climatology(.|\n)*pm25 at s1"):
        score_stations(made_up, short, **options)
    board = score_stations(made_up, short, outside="drop", **options)
    assert board.record["stations"]["unfitted"] == {"s1": ["pm25"]}
    n = board.sums["place"][made_up.name].n
    assert (n[:, 0, 1] == 0).all() and (n[:, 1, 1] > 0).all() and (n[:, 0, 0] > 0).all()
    assert board.record["stations"]["fit"] == ["2013-01-01T00", "2014-01-01T00"]
    summer = Split("train", np.datetime64("2013-05-01T00", "h"), fit.end - 24 * 60)
    with pytest.raises(CoverageError, match=r"no station has a climatology(.|\n)*without"):
        score_stations(made_up, held, **options | {"fit": summer})


def test_import_of_tables(tmp_path):
    lines = ["location_id,location,datetime,lat,lon,parameter,units,value",
             "7,Park,2018-05-03T01:00:00+08:00,36.0,103.0,o3,ppb,50"]  # fmt: skip
    (tmp_path / "l.csv").write_text("\n".join(lines))
    base = ["stations", "import", str(tmp_path / "l.csv"), "--out", str(tmp_path / "net")]
    for wrong in ([], ["--state", "273K", "--table", "x"]):
        bad = CliRunner().invoke(main, [*base, "--source", "openaq", *wrong])
        assert bad.exit_code == 2 and "--state" in bad.output
    good = [*base, "--source", "openaq", "--state", "273K", "--gas-ratio", "273K"]
    done = CliRunner().invoke(main, good)
    assert done.exit_code == 0 and "1 stations (1 withheld)" in done.output
    found = read_observations(tmp_path / "net")
    assert found.values[0, TARGETS.index("o3"), 0] == pytest.approx(50 * 47.997 / 22.414)


@pytest.mark.slow
def test_the_rules_are_those_of_the_first_comparison(manifest, store):
    """At Beijing: as `fit_statistical` on the store, up to which init times the fit uses."""
    splits = splits_of(manifest)
    stations, leads = load_stations(store, splits), (12, 96)
    samples = ForecastSamples(load_fields(store, splits), "train", leads)
    truth = observed_at(stations, samples.rows, leads)
    truth[..., stations.withheld] = np.nan
    first = fit_statistical(stations.history, samples.times, truth, leads, splits["train"])
    times = splits["test"].start + np.arange(1440, 3000, 97)
    rules, unfitted = fit_station_rules(
        from_beijing(manifest), times, leads, TARGETS, RULES, splits["train"], 8.0
    )
    assert not unfitted.any()
    rows = np.searchsorted(stations.times, times)
    situation = situation_at(stations.history, rows, leads)
    found = rules(RULES, times)
    for name in RULES:
        expected = first(name, situation)
        known = np.isfinite(expected)
        assert (known == np.isfinite(found[name])).all()
        exact = name in ("persistence", "climatology")
        error = np.abs(found[name] - expected)[known] / (1 + expected[known])
        assert np.quantile(error, 0.99) < (1e-4 if exact else 0.02), name


# ---- several stores, the analysis, the command line


def test_two_stores_on_grids_of_their_own(made_up, tmp_path):
    coarse = replace(GRID, lat=GRID.lat[::2] - 0.5, lon=GRID.lon[::2] + 0.5, name="coarse")
    other = open_forecast_store(small_store(
        tmp_path / "c.zarr", grid=coarse, mask=np.ones(coarse.shape, bool),
        provenance=PROVENANCE | {"name": "coarse"},
        forecast=lambda t: np.full((len(t), 2, 6, *coarse.shape), 50, np.float32),
    ))  # fmt: skip
    held = observed(network(), gaps=0)
    board = score_stations((made_up, other), held, sampling="nearest", outside="drop")
    assert board.design.forecasts == ("made-up", "coarse", "persistence")
    table = error_table(board, ("pollutant",)).set_index(["forecast", "pollutant"])
    assert table.loc[("coarse", "o3"), "n"] == table.loc[("made-up", "o3"), "n"]
    about = board.record["stations"]
    assert list(about["other_grids"]) == ["coarse"] and list(about["outside"]) == ["s5"]
    with pytest.raises(StoreError, match="names of their own"):
        score_stations((made_up, made_up), held)


def test_a_grid_with_other_centres_is_another_grid(made_up, tmp_path):
    """Though its stations lie in the cells of the same numbers."""
    shifted = replace(GRID, lat=GRID.lat + 0.05, name="shifted")
    stores = [made_up] + [open_forecast_store(small_store(
        tmp_path / f"{name}.zarr", grid=grid, provenance=PROVENANCE | {"name": name}))
        for name, grid in (("same", GRID), ("shifted", shifted))]  # fmt: skip
    held = observed(network().take([0, 1, 3, 4]), gaps=0)  # s2 is at the border of two cells
    for elevation in (None, np.full(GRID.shape, 40.0)):
        board = score_stations(stores, held, sampling="nearest", elevation_m=elevation)
        told = board.record["stations"]
        assert list(told["other_grids"]) == ["shifted"]
        known = [row["height_difference_m"] is not None for row in told["table"]]
        assert set(known) == {elevation is not None}
        assert {row["height_difference_m"] for row in told["other_grids"]["shifted"]} == {None}


def test_the_analysis_shows_the_spread_between_station_and_cell(tmp_path):
    grid = GRIDS["china_32x64"]
    years = YearSet([open_year(make_year(tmp_path, days=4))])
    rng, rows = np.random.default_rng(0), np.arange(90)
    lat, lon = rng.uniform(30, 38, 12), rng.uniform(100, 112, 12)
    stations = places(lat, lon, withheld=[False] * 12)
    channels = [DYNAMIC.index(name) for name in TARGETS]
    fields = years.read(rows)[:, channels]
    cells = sample_stations(grid, years.mask, stations, "nearest")
    noise = 5 * rng.standard_normal((90, 6, 12)).astype(np.float32)
    held = Observations(stations, years.times[rows], cells(fields[..., years.mask]) + noise)
    made_up = open_forecast_store(small_store(
        tmp_path / "f.zarr", 30, times=years.times[:30], grid=grid, mask=years.mask,
        forecast=lambda t: np.repeat(years.read(np.searchsorted(years.times, t))[:, None, channels],
                                     2, axis=1),
    ))  # fmt: skip
    analysis = AnalysisFields.of_years(years)
    board = score_stations(made_up, held, sampling="nearest", analysis=analysis)
    table = error_table(board, ("pollutant", "lead_h")).set_index(
        ["forecast", "pollutant", "lead_h"]
    )
    seen = table.loc[ANALYSIS]["rmse_over_space_time"]
    for p, name in enumerate(TARGETS):
        expected = np.sqrt(np.mean(noise[24 : 24 + 30, p] ** 2))
        assert seen[name, 24] == pytest.approx(expected, rel=1e-4)
    row = board.record["stations"]["table"][3]
    span = noise[12 : 24 + 30, 0, 3]  # the valid times
    assert row["from_analysis_pm25_ug_m3"] == pytest.approx(np.sqrt(np.mean(span**2)), abs=0.01)
    assert (table.loc["made-up"]["rmse_over_space_time"] > seen).all()


def test_bad_input_has_named_errors(made_up):
    late = observed(network().take(INSIDE), "2020-01-01T00")
    with pytest.raises(CoverageError, match="nothing to score"):
        score_stations(made_up, late, baselines=())


def test_command_line(made_up, tmp_path):
    write_observations(observed(network()), tmp_path / "net")
    base = ["score", str(made_up.path), "--stations", str(tmp_path / "net")]
    out = ["--out", str(tmp_path / "b.npz")]
    refused = CliRunner().invoke(main, [*base, *out])
    assert refused.exit_code == 1 and "s5 outside" in refused.output
    done = CliRunner().invoke(main, [*base, *out, "--outside", "drop", "--sampling", "nearest"])
    assert done.exit_code == 0, done.output
    assert "5 stations (2 withheld), nearest; 1 stations outside" in done.output
    record = load_scoreboard(tmp_path / "b.npz").record
    assert record["truth"]["stores"][1][0] == "stations.csv" and "--stations" in record["command"]
    assert record["stations"]["outside"] == {"s5": "outside the mask"}
    shown = CliRunner().invoke(
        main, ["scoreboard", str(tmp_path / "b.npz"), "--only", f"group={WITHHELD}"]
    )
    assert shown.exit_code == 0 and "persistence" in shown.output
    for wrong in (["--sampling", "nearest"], ["--stations", "x", "--climatology"]):
        bad = CliRunner().invoke(main, ["score", str(made_up.path), *out, *wrong])
        assert bad.exit_code == 2 and "stations" in bad.output
