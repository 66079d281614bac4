"""Comparisons on a scoreboard: tables of places, and the primary test against its baseline."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aqnet.metrics import VerificationError
from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import ALL, Groups
from aqnet.verification.scores import (
    ASSIMILATED,
    BASELINES,
    GRID,
    WITHHELD,
    best_forecasts,
    compare,
    place_scores,
    primary_test,
    records,
)
from aqnet.verification.significance import bandwidth_h, diebold_mariano, holm

NAMES = (*BASELINES, "ridge", "model")
LEADS, POLLUTANTS = (12, 24), ("pm25", "o3")
# Standard deviation of the error of each forecast: the model is best, persistence worst.
NOISE = dict(zip(NAMES, (14.0, 12.0, 11.0, 10.0, 9.0, 8.0), strict=True))
HELD = np.array([False, False, True, False, True])  # of five stations


def times(n, start="2016-05-01T00"):
    return np.datetime64(start, "h") + np.arange(n)


def forecasts_of(n=1500, seed=0, noise=NOISE):
    rng = np.random.default_rng(seed)
    truth = 60 + 20 * rng.standard_normal((n, 2, 2, len(HELD)))
    return {k: truth + noise[k] * rng.standard_normal(truth.shape) for k in NAMES}, truth


def board_of(forecasts, truth, split=True):
    members = {ASSIMILATED: ~HELD, WITHHELD: HELD} if split else {}
    lat = np.linspace(39.8, 40.2, len(HELD))
    places = Groups(lat, lat + 76, np.ones(len(HELD)), members)
    adder = BlockAccumulator(design_of(places, tuple(forecasts), LEADS, POLLUTANTS), places)
    adder.add(times(len(truth)), forecasts, truth)
    return adder.board


def board(n=1500, seed=0, noise=NOISE):
    return board_of(*forecasts_of(n, seed, noise))


def test_tables_of_places_hold_the_scores_of_their_pairs():
    forecasts, truth = forecasts_of(50)
    forecasts["persistence"][:10, 0, 0, 0] = np.nan  # ten pairs of pm25 at 12 h, assimilated
    truth[5:20, 0, 0, 0] = np.nan  # fifteen, five of them the same
    stations, grid = board_of(forecasts, truth), board_of(forecasts, truth, split=False)
    table = place_scores(stations, grid)
    rows = table.set_index(["place", "pollutant", "lead_h", "forecast"]).sort_index()
    known = np.isfinite(truth) & np.isfinite(forecasts["persistence"])
    for place, chosen in ((ASSIMILATED, ~HELD), (WITHHELD, HELD), (GRID, HELD | ~HELD)):
        for name in NAMES:
            error = (forecasts[name] - truth)[:, 0, 0][known[:, 0, 0] & chosen]
            row = rows.loc[(place, "pm25", 12, name)]
            assert row["n"] == error.size
            assert row["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
            assert row["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-12)
            assert row["bias"] == pytest.approx(error.mean(), rel=1e-12)
            assert row["centred_rmse"] == pytest.approx(error.std(), rel=1e-12)
            lost = 5 if name == "persistence" and place != WITHHELD else 0
            assert row["missing"] == lost
    assert rows.loc[(WITHHELD, "o3", 24), "missing"].eq(0).all()


def test_tables_of_places_are_ordered_and_go_to_json():
    table = place_scores(board(60))
    assert list(table["place"].unique()) == [ASSIMILATED, WITHHELD]
    assert list(table["forecast"][: len(NAMES)]) == list(NAMES)
    assert table["lead_h"][: 2 * len(NAMES)].tolist() == [12] * len(NAMES) + [24] * len(NAMES)
    assert len(table) == 2 * 2 * 2 * len(NAMES)
    assert table["n"].tolist() == [180] * 24 + [120] * 24
    nothing = np.full((3, 2, 2, len(HELD)), np.nan)
    empty = records(place_scores(board_of({"a": nothing}, nothing)))
    rows = json.loads(json.dumps(empty, allow_nan=False))
    assert rows[0]["rmse"] is None and rows[0]["n"] == 0


def test_the_best_forecast_is_the_one_of_lowest_rmse_in_its_group():
    forecasts, truth = forecasts_of(300)
    forecasts["climatology"][..., HELD] = truth[..., HELD] + 0.1  # best where it is not asked
    found = best_forecasts(board_of(forecasts, truth), NAMES, ASSIMILATED)
    assert list(found) == [(12, "pm25"), (24, "pm25"), (12, "o3"), (24, "o3")]
    assert {name for name, _ in found.values()} == {"model"}
    assert found[12, "o3"][1] == pytest.approx(
        np.sqrt(np.mean((forecasts["model"] - truth)[:, 0, 1, ~HELD] ** 2)), rel=1e-12
    )
    at_withheld = best_forecasts(board_of(forecasts, truth), NAMES, WITHHELD)
    assert {name for name, _ in at_withheld.values()} == {"climatology"}


def test_primary_test_takes_the_baseline_that_is_best_on_validation():
    # On validation damped climatology is best, on the test year trailing-damped is.
    validation = board(seed=1, noise=NOISE | {"damped climatology": 7.0})
    outcome = primary_test(validation, board(seed=2))
    table = outcome.table()
    assert table["baseline"].eq("damped climatology").all()
    assert table["validation_rmse"].between(6.5, 7.5).all()
    assert table["rmse_baseline"].between(10.5, 11.5).all()
    assert (outcome.won, outcome.lost, outcome.tied, outcome.lower) == (4, 0, 0, 4)
    assert table["rmse_ridge"].between(8.5, 9.5).all() and table["verdict_ridge"].eq("won").all()
    assert outcome.summary()["ridge"] == {"won": 4, "lost": 0, "tied": 0, "lower": 4}
    assert [(c.pollutant, c.lead_h) for c in outcome.cells] == [
        ("pm25", 12), ("pm25", 24), ("o3", 12), ("o3", 24),
    ]  # fmt: skip


def test_primary_test_counts_ties_and_defeats():
    noise = NOISE | {"model": 12.0}
    assert primary_test(board(seed=1), board(seed=2, noise=noise)).summary()["lost"] == 4
    equal = NOISE | {"model": 10.0, "ridge": 10.0}
    outcome = primary_test(board(seed=1), board(seed=2, noise=equal))
    assert outcome.tied == 4 and outcome.won == outcome.lost == 0
    assert 0 <= outcome.lower <= 4 and (outcome.table()["p_holm"] >= outcome.table()["p"]).all()


def test_verdicts_stand_after_holm_over_the_cells():
    # Noise close to the opponent's: single p-values on both sides of 5 %.
    outcome = primary_test(board(seed=1), board(seed=2, noise=NOISE | {"model": 9.75}))
    for cells in (outcome.cells, *outcome.yardsticks.values()):
        p = np.array([cell.p for cell in cells])
        adjusted = [cell.p_holm for cell in cells]
        np.testing.assert_allclose(adjusted, holm(p))
        assert [cell.verdict == "tie" for cell in cells] == [x >= 0.05 for x in adjusted]
    assert (holm([cell.p for cell in outcome.cells]) > [cell.p for cell in outcome.cells]).any()


def test_the_test_sees_the_squares_of_a_group_pooled_over_its_stations():
    forecasts, truth = forecasts_of(1500)
    truth[np.random.default_rng(5).random(truth.shape) < 0.3] = np.nan
    truth[700:760] = np.nan
    forecasts["ridge"][100:130, 0] = np.nan
    (cell,) = compare(board_of(forecasts, truth), "model", {(12, "o3"): "ridge"}, WITHHELD)
    known = (np.isfinite(truth) & np.isfinite(forecasts["ridge"]))[:, 0, 1, HELD]
    at = known.any(1)
    loss = [
        np.where(known, (forecasts[n] - truth)[:, 0, 1, HELD] ** 2, 0).sum(1)[at]
        / known.sum(1)[at].mean()
        for n in ("model", "ridge")
    ]
    test = diebold_mariano(*loss, bandwidth_h(12), times(len(truth))[at])
    assert (cell.n, cell.n_times) == (known.sum(), at.sum())
    assert cell.p == pytest.approx(test.p_value, rel=1e-9)
    assert cell.statistic == pytest.approx(test.statistic, rel=1e-9)
    assert cell.n_effective == pytest.approx(test.n_effective, rel=1e-9)


def test_a_forecast_compared_with_itself_ties_everywhere():
    cells = compare(board(), "ridge", {(12, "o3"): "ridge", (24, "o3"): "ridge"})
    assert [(c.verdict, c.p_holm, c.difference_percent, c.lower) for c in cells] == [
        ("tie", 1.0, 0.0, False)
    ] * 2


def test_rmse_of_the_comparison_is_that_of_the_table():
    scored = board()
    (cell,) = compare(scored, "model", {(24, "pm25"): "climatology"})
    rows = place_scores(scored).set_index(["place", "pollutant", "lead_h", "forecast"])
    table = rows.sort_index().loc[(ASSIMILATED, "pm25", 24)]
    assert cell.rmse_model == pytest.approx(table["rmse"]["model"], rel=1e-12)
    assert cell.rmse_opponent == pytest.approx(table["rmse"]["climatology"], rel=1e-12)
    assert cell.n == table["n"]["model"] == 3 * 1500 and cell.n_times == 1500
    expected = 100 * (cell.rmse_model / cell.rmse_opponent - 1)
    assert cell.difference_percent == pytest.approx(expected) and cell.lower


def test_cells_without_pairs_are_named():
    forecasts, truth = forecasts_of(1500)
    truth[:, 1, 1] = np.nan
    empty = board_of(forecasts, truth)
    with pytest.raises(VerificationError, match="none for o3 at lead_h 24"):
        primary_test(board(), empty)
    with pytest.raises(VerificationError, match="no best forecast"):
        primary_test(empty, board())
    with pytest.raises(VerificationError, match="no such group"):
        primary_test(board(), board(), place=GRID)
    assert compare(board(), "model", {(12, "o3"): "ridge"}, ALL)[0].n == 5 * 1500
