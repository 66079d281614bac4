"""Scores of days: those of plain loops over places, labelled, and refused where they are none."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from forecast_case import PROVENANCE, small_store
from made_up_years import made_up_mask, make_year

from aqnet.cli import main
from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, LeadTimeError, ParameterError, StoreError
from aqnet.events import EventSums
from aqnet.grid import GRIDS
from aqnet.metrics import ErrorSums, VerificationError
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification import provenance
from aqnet.verification.bootstrap import skill_table
from aqnet.verification.days import scoring as day_scoring
from aqnet.verification.days.scores import score_days
from aqnet.verification.days.scoring import AQI, COMPOSITE, PRODUCTS
from aqnet.verification.days.series import composite_days, forecast_days, observed_days
from aqnet.verification.groups import ASSIMILATED, WITHHELD
from aqnet.verification.score_tables import error_table, event_table, level_table
from aqnet.verification.scoreboard import load_scoreboard, save_scoreboard
from aqnet.verification.standards import StandardError, level
from aqnet.verification.stations.days import score_station_days
from aqnet.verification.stations.network import Observations, Stations
from aqnet.verification.store.reader import open_forecast_store

GRID = GRIDS["china_32x64"]
CHANNELS = [DYNAMIC.index(name) for name in TARGETS]
HOURLY = tuple(range(1, 65))
WEST = {"west": np.arange(64)[None] < 30 + 0 * np.arange(32)[:, None]}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    path = make_year(tmp_path_factory.mktemp("years"), days=7, missing={50: "lost"})
    return YearSet([open_year(path)])


def forecast_of(truth, leads):
    """The truth of the valid time, distorted by a lead-dependent factor; NaN hours as 40."""

    def forecast(times):
        found = np.empty((len(times), len(leads), 6, *GRID.shape), np.float32)
        for i, time in enumerate(times):
            valid = time + np.asarray(leads).astype("timedelta64[h]")
            rows = np.searchsorted(truth.times, valid).clip(max=len(truth.times) - 1)
            found[i] = (
                truth.read(rows)[:, CHANNELS]
                * (1.1 + 0.002 * np.asarray(leads))[:, None, None, None]
            )
        return np.where(np.isnan(found), 40, found)

    return forecast


def store_of(folder, truth, name, leads, times):
    path = small_store(
        folder / f"{name}.zarr", len(times), 3, times=times, lead_times_h=leads, grid=GRID,
        mask=made_up_mask(GRID), provenance=PROVENANCE | {"name": name},
        forecast=forecast_of(truth, leads),
    )  # fmt: skip
    return open_forecast_store(path)


@pytest.fixture(scope="module")
def hourly(tmp_path_factory, truth):
    return store_of(tmp_path_factory.mktemp("f"), truth, "model", HOURLY, truth.times[0:84:14])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory, truth):
    return store_of(tmp_path_factory.mktemp("f"), truth, "fixed", (12, 24), truth.times[:96])


@pytest.fixture(scope="module")
def board(truth, hourly):
    return score_days(hourly, truth, WEST, standard="2012")


@cache
def seen_days(truth, store):
    """Days of the truth, from the plain classes."""
    seen = truth.read(slice(None))[:, CHANNELS][..., truth.mask & store.mask]
    return observed_days(truth.times, seen, TARGETS, "2012")


@cache
def plain_days(store, truth, time):
    """Days of the forecast of one init time and of the truth."""
    row = int(np.searchsorted(store.init_times, time))
    mask = truth.mask & store.mask
    values = np.stack([store.read(row, None, p)[..., mask] for p in TARGETS], axis=1)
    forecast = forecast_days(time, store.lead_times_h, values, TARGETS, "2012")
    return forecast, seen_days(truth, store)


def first_whole(time):
    local = time + np.timedelta64(8, "h")
    day = local.astype("datetime64[D]")
    return day if local == day else day + 1


def pairs_of(store, truth, lead_day):
    """Forecast, position of its day, truth, positions of that day and of the last one."""
    found = []
    for time in store.init_times:
        forecast, seen = plain_days(store, truth, time)
        day = first_whole(time) + lead_day - 1
        f, o = np.flatnonzero(forecast.days == day), np.flatnonzero(seen.days == day)
        if f.size and o.size and np.isfinite(forecast.mean_24h[f[0]]).all():
            last = np.flatnonzero(
                seen.days == (time + np.timedelta64(8, "h")).astype("datetime64[D]") - 1
            )
            found.append((forecast, int(f[0]), seen, int(o[0]), last))
    return found


@pytest.mark.parametrize("lead_day", [1, 2])
def test_scores_are_those_of_plain_days(board, truth, hourly, lead_day):
    errors = error_table(board).set_index(["forecast", "pollutant", "lead_day", "group"])
    events = event_table(board).set_index(["forecast", "pollutant", "lead_day", "group"])
    mask = truth.mask & hourly.mask
    area, west = GRID.cell_area_km2[mask], WEST["west"][mask]
    for name, (product, pollutant) in PRODUCTS.items():
        sums, counts = ErrorSums(()), EventSums((), [100.0])
        limit = 100.0
        for forecast, f, seen, o, last in pairs_of(hourly, truth, lead_day):
            if name == AQI:
                mine, its = forecast.index()[0][f], seen.index()[0]
            else:
                limit = seen.edition.limit(product, pollutant)
                mine, its = (
                    forecast.product(product, pollutant)[f],
                    seen.product(product, pollutant),
                )
            if not last.size:
                continue  # persistence has no day, so nobody has
            known = np.isfinite(its[o]) & np.isfinite(its[last[0]]) & west
            target = np.where(known, its[o], np.nan)
            sums.update(np.where(known, mine, np.nan)[None], target[None], area)
            both = np.stack([np.where(known, x, np.nan) / limit * 100 for x in (mine, its[o])])
            counts.update(both[:1], both[1:], area)
        row, event = errors.loc["model", name, lead_day, "west"], None
        assert row["n"] == sums.n and sums.n > 100
        for score in ("rmse", "mae", "bias", "correlation"):
            expected = getattr(sums, score)()
            assert row[f"{score}_over_space_time"] == pytest.approx(expected, rel=1e-9)
        event = events.loc["model", name, lead_day, "west"]
        assert event["hits"] == pytest.approx(counts.state["hits"][0])
        assert event["false_alarms"] == pytest.approx(counts.state["false_alarms"][0])


def test_levels_and_primary_pollutants_are_counted(board, truth, hourly):
    table = level_table(board).set_index(["forecast", "lead_day", "group"])
    area = GRID.cell_area_km2[truth.mask & hourly.mask]
    right = near = total = primary = polluted = 0.0
    for forecast, f, seen, o, last in pairs_of(hourly, truth, 1):
        if not last.size:
            continue
        (mine, its), (my, their) = zip(forecast.index(), seen.index(), strict=True)
        known = np.isfinite(its[o]) & np.isfinite(its[last[0]])
        step = np.abs(level(mine[f]) - level(its[o]))
        right += area[known & (step == 0)].sum()
        near += area[known & (step <= 1)].sum()
        total += area[known].sum()
        made = known & their[o].any(0)
        polluted += area[made].sum()
        primary += area[made & (my[f] & their[o]).any(0)].sum()
    row = table.loc["model", 1, "all"]
    assert 0 < right < total and 0 < primary <= polluted
    assert row["accuracy_of_level_over_space_time"] == pytest.approx(right / total)
    assert row["within_one_level_over_space_time"] == pytest.approx(near / total)
    assert row["accuracy_of_primary_pollutant_over_space_time"] == pytest.approx(primary / polluted)


def test_tables_name_the_edition_and_the_units(board, tmp_path):
    save_scoreboard(board, tmp_path / "days.npz")
    again = load_scoreboard(tmp_path / "days.npz")
    for table in (error_table(again), event_table(again), level_table(again)):
        assert set(table["edition"]) == {"2012"} and set(table["days"]) == {"one initialisation"}
        assert "lead_day" in table and "lead_h" not in table
    limits = event_table(again).groupby("pollutant")["threshold"].unique()
    assert limits["PM2.5 24 h mean"] == [75] and limits[AQI] == [100]
    units = error_table(again).set_index("pollutant")["unit"]
    assert set(units[AQI]) == {"1"} and set(units["CO 24 h mean"]) == {"ug/m3"}
    with pytest.raises(VerificationError, match="no such axis"):
        error_table(again, ("pollutant", "hour"))


def test_persistence_is_the_last_whole_day(board, truth, hourly):
    table = error_table(board).set_index(["forecast", "pollutant", "lead_day", "group"])
    sums, mask = ErrorSums(()), truth.mask & hourly.mask
    for _, _, seen, o, last in pairs_of(hourly, truth, 2):
        if last.size:
            pm = seen.product("mean_24h", "pm25")
            sums.update(pm[last], np.where(np.isnan(pm[last]), np.nan, pm[[o]]),
                        GRID.cell_area_km2[mask])  # fmt: skip
    row = table.loc["persistence", "PM2.5 24 h mean", 2, "all"]
    assert row["rmse_over_space_time"] == pytest.approx(float(sums.rmse()), rel=1e-9)


def test_any_number_of_processes_gives_the_same_board(board, truth, hourly, monkeypatch):
    monkeypatch.setattr(day_scoring, "_TASK", 3)
    two = error_table(score_days(hourly, truth, WEST, standard="2012", workers=2))
    whole = error_table(board)
    numbers = whole.select_dtypes("number").columns
    np.testing.assert_allclose(two[numbers], whole[numbers], rtol=1e-9, atol=1e-9)


def test_a_composite_is_labelled_and_has_no_index(truth, fixed):
    board = score_days(fixed, truth, standard="2012", composite=True, each_place=True)
    assert AQI not in board.design.pollutants and "level" not in board.sums
    table = error_table(board)
    assert set(table["days"]) == {COMPOSITE} and set(table["lead_h"]) == {12, 24}
    mask, lead = truth.mask & fixed.mask, 24
    seen = seen_days(truth, fixed)
    values = np.stack(
        [fixed.read(slice(None), lead, p, cells=True)[:, None] for p in TARGETS], axis=2
    )[:, 0]
    made = composite_days(fixed.init_times, lead, values, TARGETS, "2012")
    shifted = composite_days(truth.times, lead, truth.read(slice(None))[:, CHANNELS][..., mask],
                             TARGETS, "2012")  # fmt: skip
    for name in ("PM2.5 24 h mean", "O3 daily maximum 8 h mean"):
        sums = ErrorSums(())
        for d, day in enumerate(made.days):
            o, p = np.flatnonzero(seen.days == day), np.flatnonzero(shifted.days == day)
            if o.size and p.size:
                chosen = ((made, d), (seen, o[0]), (shifted, p[0]))
                mine, its, old = (x.product(*PRODUCTS[name])[i] for x, i in chosen)
                known = np.isfinite(mine) & np.isfinite(its) & np.isfinite(old)
                sums.update(mine[None], np.where(known, its, np.nan)[None] + 0 * mine,
                            np.where(known, GRID.cell_area_km2[mask], 0))  # fmt: skip
        row = table[(table["forecast"] == "fixed") & (table["pollutant"] == name)
                    & (table["lead_h"] == lead) & (table["group"] == "all")].iloc[0]  # fmt: skip
        assert row["n"] == sums.n and sums.n > 100
        assert row["rmse_over_space_time"] == pytest.approx(float(sums.rmse()), rel=1e-9)
    assert (
        board.sums["place"]["fixed"].n.sum()
        == table[(table["forecast"] == "fixed") & (table["group"] == "all")]["n"].sum()
    )
    with pytest.raises(StandardError, match="composite of fixed lead times has no"):
        score_days(fixed, truth, standard="2012", composite=True, products=(AQI,))


def test_what_cannot_be_scored_is_refused_by_name(truth, fixed, hourly):
    with pytest.raises(VerificationError, match="no whole day has hourly lead times"):
        score_days(fixed, truth, standard="2012")
    with pytest.raises(
        StandardError, match=r"(?s)edition 2031.*no breakpoints.*missing.*from 2031"
    ):
        score_days(hourly, truth, standard="2031")
    with pytest.raises(StandardError, match="no such edition"):
        score_days(hourly, truth, standard="1996")
    with pytest.raises(VerificationError, match="no such daily product"):
        score_days(hourly, truth, standard="2012", products=("PM1",))
    with pytest.raises(CoverageError, match="too little in common"):
        none = np.zeros(GRID.shape, bool)
        score_days(hourly, type("Years", (), {"grid": GRID, "mask": none})(), standard="2012")


def test_an_edition_without_an_index_still_has_its_limits(truth, hourly):
    board = score_days(hourly, truth, standard="2031", products=("PM2.5 24 h mean",))
    assert board.design.thresholds == ((50.0,),) and board.design.edition == "2031"


def test_gases_are_compared_at_the_state_of_the_edition(truth, hourly):
    names = ("NO2 24 h mean", "PM2.5 24 h mean")
    first, later = (
        error_table(score_days(hourly, truth, standard=edition, products=names))
        .query("group == 'all' and forecast == 'model' and lead_day == 1")
        .set_index("pollutant")["bias_over_space_time"]
        for edition in ("2012", "2012-amended")
    )
    assert later["PM2.5 24 h mean"] == pytest.approx(first["PM2.5 24 h mean"])
    assert later["NO2 24 h mean"] == pytest.approx(first["NO2 24 h mean"] * 273.15 / 298.15)


def test_climatology_and_skill(truth, hourly):
    coefficients = np.zeros((49, len(DYNAMIC), *GRID.shape))
    coefficients[0] = 40.0
    usual = HarmonicClimatology(coefficients, 8.0)
    board = score_days(hourly, truth, standard="2012", climatology=usual,
                       baselines=("persistence", "climatology"))  # fmt: skip
    row = error_table(board).query(
        "forecast == 'climatology' and pollutant == 'PM2.5 24 h mean' and group == 'all'"
    )
    assert np.isfinite(row["bias_over_space_time"]).all()
    times, loss = board.loss_series("model", 1, AQI)
    rmse = error_table(board).query(
        "forecast == 'model' and pollutant == 'AQI' and group == 'all' and lead_day == 1"
    )["rmse_over_space_time"]
    assert len(times) and np.sqrt(loss.mean()) == pytest.approx(float(rmse.iloc[0]))
    with pytest.raises((VerificationError, LeadTimeError)):
        skill_table(board, "model", ["persistence"])  # eight days are too few for an interval


def test_days_at_stations_are_those_of_their_cells(truth, hourly):
    rows, columns = np.nonzero(truth.mask & hourly.mask)
    chosen = np.linspace(0, len(rows) - 1, 5).astype(int)
    at = rows[chosen], columns[chosen]
    count = [str(n) for n in range(5)]
    stations = Stations(count, count, GRID.lat[at[0]], GRID.lon[at[1]], np.full(5, np.nan),
                        ["A"] * 5, ["urban"] * 5, [True, False, False, True, False])  # fmt: skip
    seen = truth.read(slice(None))[:, CHANNELS][..., at[0], at[1]]
    observed = Observations(stations, truth.times, seen)
    board = score_station_days(hourly, observed, standard="2012", sampling="nearest")
    table = error_table(board).set_index(["forecast", "pollutant", "lead_day", "group"])
    sums, cells = ErrorSums(()), chosen
    for forecast, f, its, o, last in pairs_of(hourly, truth, 1):
        if last.size:
            name = ("mda8", "o3")
            target = np.where(np.isnan(its.product(*name)[last[0]]), np.nan, its.product(*name)[o])
            sums.update(forecast.product(*name)[f][None, cells], target[None, cells])
    row = table.loc["model", "O3 daily maximum 8 h mean", 1, "all"]
    assert row["n"] == sums.n
    assert row["rmse_over_space_time"] == pytest.approx(float(sums.rmse()), rel=1e-9)
    assert board.design.weight == "one a station" and board.design.each_place == 5
    assert {WITHHELD, ASSIMILATED} < set(board.design.groups)
    assert len(board.record["stations"]["table"]) == 5
    with pytest.raises(StoreError, match="names of their own"):
        score_station_days((hourly, hourly), observed, standard="2012")
    with pytest.raises(StoreError, match="names of their own"):
        score_station_days(hourly, observed, standard="2012", baselines=("persistence",) * 2)
    with pytest.raises(ParameterError, match="days at stations"):
        score_station_days(hourly, observed, standard="2012", baselines=("climatology",))


def test_command_line(truth, hourly, tmp_path, monkeypatch):
    command = sys.modules["aqnet.cli.score"]  # the package holds the command of this name
    monkeypatch.setattr(command, "grid_manifest", lambda name, *_: name)
    monkeypatch.setattr(command, "open_truth", lambda *given: truth)
    monkeypatch.setattr(provenance, "truth_record", lambda *given: {})
    out, runner = tmp_path / "days.npz", CliRunner()
    given = ["score", str(hourly.path), "--manifest", "x", "--out", str(out)]
    done = runner.invoke(main, [*given, "--days", "--edition", "2012"])
    assert done.exit_code == 0, done.output
    assert "edition 2012" in done.output and "one initialisation" in done.output
    assert load_scoreboard(out).record["edition"] == "2012"
    shown = runner.invoke(main, ["scoreboard", str(out), "--only", f"pollutant={AQI}"])
    assert shown.output.count("one initialisation") == 2 * len(load_scoreboard(out).design.leads)
    levels = runner.invoke(main, ["scoreboard", str(out), "--levels"])
    assert "accuracy_of_primary_pollutant" in levels.output, levels.output
    for wrong, text in (
        (["--days"], "follow an edition"),
        (["--edition", "2012"], "follow an edition"),
        (["--days", "--edition", "2012", "--pollutants", "o3"], "days have products"),
        (["--days", "--edition", "2012", "--leads", "12"], "no whole day"),
        (["--days", "--edition", "2031"], "no breakpoints"),
    ):
        refused = runner.invoke(main, [*given, *wrong])
        assert refused.exit_code and text in refused.output, refused.output
