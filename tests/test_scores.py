"""Scorecard: common pairs, tables, and the primary test against the right baseline."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aqnet.metrics import VerificationError
from aqnet.verification.scores import BASELINES, Scorecard, compare, primary_test
from aqnet.verification.significance import holm

ASSIMILATED, WITHHELD, GRID = "assimilated stations", "withheld stations", "grid"
NAMES = (*BASELINES, "ridge", "model")
LEADS, POLLUTANTS = (12, 24), ("pm25", "o3")
# Standard deviation of the error of each forecast: the model is best, persistence worst.
NOISE = dict(zip(NAMES, (14.0, 12.0, 11.0, 10.0, 9.0, 8.0), strict=True))


def times(n, start="2016-05-01T00"):
    return np.datetime64(start, "h") + np.arange(n)


def forecasts_of(n=1500, stations=4, seed=0, noise=NOISE, names=NAMES):
    rng = np.random.default_rng(seed)
    truth = 60 + 20 * rng.standard_normal((n, 2, 2, stations))
    return {k: truth + noise[k] * rng.standard_normal(truth.shape) for k in names}, truth


def card(n=1500, place=ASSIMILATED, seed=0, noise=NOISE):
    scorecard = Scorecard(NAMES, LEADS, POLLUTANTS)
    forecasts, truth = forecasts_of(n, seed=seed, noise=noise)
    scorecard.accumulate(place, times(n), forecasts, truth)
    return scorecard


def test_scores_are_those_of_the_pairs():
    scorecard = Scorecard(("a",), LEADS, POLLUTANTS)
    truth = np.zeros((2, 2, 2, 2))
    forecast = np.zeros_like(truth)
    forecast[:, 1, 0] = [[3.0, -1.0], [1.0, 1.0]]
    scorecard.accumulate(ASSIMILATED, times(2), {"a": forecast}, truth)
    row = scorecard.table().set_index(["pollutant", "lead_h"]).loc[("pm25", 24)]
    assert row["n"] == 4 and row["rmse"] == pytest.approx(np.sqrt(3))
    assert row["mae"] == pytest.approx(1.5) and row["bias"] == pytest.approx(1.0)


def test_a_pair_counts_for_all_forecasts_or_for_none():
    forecasts, truth = forecasts_of(50)
    forecasts["persistence"][:10, 0, 0, 0] = np.nan  # ten pairs of pm25 at 12 h
    truth[5:20, 0, 0, 0] = np.nan  # fifteen, five of them the same
    scorecard = Scorecard(NAMES, LEADS, POLLUTANTS)
    scorecard.accumulate(ASSIMILATED, times(50), forecasts, truth)
    for name in NAMES:
        assert scorecard.sums(ASSIMILATED, name).n.tolist() == [[180, 200], [200, 200]]
    assert scorecard.missing(ASSIMILATED, "persistence")[0, 0] == 5
    assert scorecard.missing(ASSIMILATED, "model").sum() == 0
    keep = np.ones((50, 4), dtype=bool)
    keep[:20, 0] = False
    error = (forecasts["model"] - truth)[:, 0, 0][keep]
    expected = np.sqrt(np.mean(error**2))
    assert scorecard.sums(ASSIMILATED, "model").rmse()[0, 0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_in_any_order_and_merged_parts_give_the_same(size):
    forecasts, truth = forecasts_of(100)
    truth[np.random.default_rng(1).random(truth.shape) < 0.2] = np.nan
    whole, left = Scorecard(NAMES, LEADS, POLLUTANTS), Scorecard(NAMES, LEADS, POLLUTANTS)
    right = Scorecard(NAMES, LEADS, POLLUTANTS)
    whole.accumulate(ASSIMILATED, times(100), forecasts, truth)
    for i, first in reversed(list(enumerate(range(0, 100, size)))):
        part = slice(first, first + size)
        batch = {k: v[part] for k, v in forecasts.items()}
        (left, right)[i % 2].accumulate(ASSIMILATED, times(100)[part], batch, truth[part])
    merged = left.merge(right)
    assert merged.table()["n"].equals(whole.table()["n"])
    for score in ("rmse", "mae", "bias", "correlation"):
        np.testing.assert_allclose(merged.table()[score], whole.table()[score], rtol=1e-9)
    for one, other in zip(
        merged.loss_series(ASSIMILATED, "model", 24, "o3"),
        whole.loss_series(ASSIMILATED, "model", 24, "o3"),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_mean_loss_is_the_square_of_the_pooled_rmse():
    forecasts, truth = forecasts_of(200)
    truth[np.random.default_rng(1).random(truth.shape) < 0.3] = np.nan
    truth[40:50] = np.nan
    scorecard = Scorecard(NAMES, LEADS, POLLUTANTS)
    scorecard.accumulate(ASSIMILATED, times(200), forecasts, truth)
    init, loss = scorecard.loss_series(ASSIMILATED, "model", 12, "pm25")
    assert loss.mean() == pytest.approx(scorecard.sums(ASSIMILATED, "model").rmse()[0, 0] ** 2)
    with_pairs = np.isfinite(truth[:, 0, 0]).any(-1)
    np.testing.assert_array_equal(init, times(200)[with_pairs])


def test_grid_weights_leave_out_cells_that_are_not_scored():
    forecasts, truth = forecasts_of(30, stations=5)
    weight = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    forecasts["model"][..., 1] = np.nan
    truth[..., 3] = 1e9
    scorecard = Scorecard(NAMES, LEADS, POLLUTANTS)
    scorecard.accumulate(GRID, times(30), forecasts, truth, weight)
    assert (scorecard.sums(GRID, "model").n == 90).all()
    assert scorecard.missing(GRID, "model").sum() == 0
    error = (forecasts["model"] - truth)[..., ::2]
    rmse = np.sqrt((error**2).mean((0, 3)))
    np.testing.assert_allclose(scorecard.sums(GRID, "model").rmse(), rmse, rtol=1e-12)


@pytest.mark.parametrize("weight", [np.nan, -1.0])
def test_bad_weights_are_refused(weight):
    forecasts, truth = forecasts_of(10)
    weights = np.array([1.0, weight, 1.0, 1.0])
    with pytest.raises(VerificationError, match="bad weights"):
        Scorecard(NAMES, LEADS, POLLUTANTS).accumulate(GRID, times(10), forecasts, truth, weights)


def test_table_is_ordered_and_complete_and_goes_to_json():
    scorecard = card(60, WITHHELD).merge(card(60, ASSIMILATED))
    table = scorecard.table()
    assert list(table["place"].unique()) == [ASSIMILATED, WITHHELD]
    assert list(table["forecast"][: len(NAMES)]) == list(NAMES)
    assert len(table) == 2 * 2 * 2 * len(NAMES) and table["n"].eq(240).all()
    empty = Scorecard(("a",), LEADS, POLLUTANTS)
    nothing = np.full((3, 2, 2, 1), np.nan)
    empty.accumulate(ASSIMILATED, times(3), {"a": nothing}, nothing)
    rows = json.loads(json.dumps(empty.records(), allow_nan=False))
    assert rows[0]["rmse"] is None and rows[0]["n"] == 0


def damaged(change):
    forecasts, truth = forecasts_of(10)
    arguments = {"place": GRID, "init_times": times(10), "forecasts": forecasts, "truth": truth}
    return arguments | change(arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"place": "stations"}, "unknown place"),
        (lambda a: {"forecasts": a["forecasts"] | {"other": a["truth"]}}, "other forecasts"),
        (lambda a: {"forecasts": {"model": a["truth"]}}, "other forecasts"),
        (lambda a: {"truth": a["truth"][:, :1]}, "truth has the wrong shape"),
        (lambda a: {"truth": a["truth"][..., 0]}, "truth has the wrong shape"),
        (lambda a: {"truth": a["truth"][..., :1]}, "another shape than the truth"),
        (lambda a: {"init_times": times(9)}, "init times do not match"),
        (lambda a: {"init_times": np.arange(10)}, "init times do not match"),
        (lambda a: {"init_times": np.full(10, np.datetime64("NaT", "h"))}, "init times"),
    ],
)
def test_wrong_input_is_named(change, message):
    with pytest.raises(VerificationError, match=message):
        Scorecard(NAMES, LEADS, POLLUTANTS).accumulate(**damaged(change))


def test_init_times_accumulated_twice_are_refused():
    scorecard = card(30).merge(card(30))
    with pytest.raises(VerificationError, match=r"accumulated twice.*\n.*\n.*30 repeated"):
        scorecard.loss_series(ASSIMILATED, "model", 12, "o3")


def test_missing_scores_and_different_cards_are_named():
    with pytest.raises(VerificationError, match="no such scores"):
        card(30).sums(GRID, "model")
    with pytest.raises(VerificationError, match="scorecards differ"):
        card(30).merge(Scorecard(NAMES[:2], LEADS, POLLUTANTS))


def test_primary_test_takes_the_baseline_that_is_best_on_validation():
    # On validation damped climatology is best, on the test year trailing-damped is.
    validation = card(seed=1, noise=NOISE | {"damped climatology": 7.0})
    outcome = primary_test(validation, card(seed=2))
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
    assert primary_test(card(seed=1), card(seed=2, noise=noise)).summary()["lost"] == 4
    equal = NOISE | {"model": 10.0, "ridge": 10.0}
    outcome = primary_test(card(seed=1), card(seed=2, noise=equal))
    assert outcome.tied == 4 and outcome.won == outcome.lost == 0
    assert 0 <= outcome.lower <= 4 and (outcome.table()["p_holm"] >= outcome.table()["p"]).all()


def test_verdicts_stand_after_holm_over_the_cells():
    # Noise close to the opponent's: single p-values on both sides of 5 %.
    outcome = primary_test(card(seed=1), card(seed=2, noise=NOISE | {"model": 9.75}))
    for cells in (outcome.cells, *outcome.yardsticks.values()):
        p = np.array([cell.p for cell in cells])
        adjusted = [cell.p_holm for cell in cells]
        np.testing.assert_allclose(adjusted, holm(p))
        assert [cell.verdict == "tie" for cell in cells] == [x >= 0.05 for x in adjusted]
    assert (holm([cell.p for cell in outcome.cells]) > [cell.p for cell in outcome.cells]).any()


def test_a_forecast_compared_with_itself_ties_everywhere():
    cells = compare(card(), "ridge", {(12, "o3"): "ridge", (24, "o3"): "ridge"})
    assert [(c.verdict, c.p_holm, c.difference_percent, c.lower) for c in cells] == [
        ("tie", 1.0, 0.0, False)
    ] * 2


def test_rmse_of_the_comparison_is_that_of_the_table():
    scorecard = card()
    (cell,) = compare(scorecard, "model", {(24, "pm25"): "climatology"})
    table = scorecard.table().set_index(["pollutant", "lead_h", "forecast"])["rmse"]
    assert cell.rmse_model == pytest.approx(table["pm25", 24, "model"], rel=1e-12)
    assert cell.rmse_opponent == pytest.approx(table["pm25", 24, "climatology"], rel=1e-12)
    expected = 100 * (cell.rmse_model / cell.rmse_opponent - 1)
    assert cell.difference_percent == pytest.approx(expected) and cell.lower


def test_cells_without_pairs_are_named():
    forecasts, truth = forecasts_of(1500)
    truth[:, 1, 1] = np.nan
    empty = Scorecard(NAMES, LEADS, POLLUTANTS)
    empty.accumulate(ASSIMILATED, times(1500), forecasts, truth)
    with pytest.raises(VerificationError, match="none for o3 at 24 h"):
        primary_test(card(), empty)
    with pytest.raises(VerificationError, match="no best baseline"):
        primary_test(empty, card())
