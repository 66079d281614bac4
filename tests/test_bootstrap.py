"""Intervals of skill: right coverage on autocorrelated losses, named refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from test_scoreboard import LIMITS, MASK, POLLUTANTS  # made-up places

from aqnet.grid import GRIDS
from aqnet.metrics import VerificationError
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.bootstrap import rmse_skill, skill_note, skill_table
from aqnet.verification.groups import Groups
from aqnet.verification.significance import holm

HOURS = 24 * 365


def losses(seed, better=0.8, memory_h=30.0, n=HOURS):
    """Two series of losses with the same weather in both; means 1 and `better` squared."""
    rng, keep = np.random.default_rng(seed), np.exp(-1 / memory_h)
    noise = rng.standard_normal((3, n + 500)) * np.sqrt(1 - keep**2)
    shared, a, b = lfilter([1], [1, -keep], noise, axis=1)[:, 500:]
    mine, other = np.exp(0.8 * shared + 0.4 * a), np.exp(0.8 * shared + 0.4 * b)
    return better**2 * mine, other


def times(n=HOURS):
    return np.datetime64("2016-01-01T00", "h") + np.arange(n)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    inside, widths = 0, []
    for seed in range(200):
        found = rmse_skill(*losses(seed), times(), 240, replicates=400, seed=seed)
        inside += found.low <= 0.2 <= found.high
        widths.append(found.high - found.low)
        assert found.low < found.skill < found.high
    assert 0.90 <= inside / 200 <= 0.99
    naive = rmse_skill(*losses(0), times(), 1, replicates=400)  # as if hours were independent
    assert naive.high - naive.low < 0.5 * np.mean(widths)


def test_equal_forecasts_have_no_skill_and_no_interval():
    a, _ = losses(1)
    assert rmse_skill(a, a, times(), 240) == (0.0, 0.0, 0.0, 240)


def test_the_same_seed_gives_the_same_interval_and_gaps_are_kept():
    a, b = losses(2)
    kept = np.random.default_rng(0).random(HOURS) < 0.7
    found = [rmse_skill(a[kept], b[kept], times()[kept], 240, seed=s) for s in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    assert found[0].skill == pytest.approx(1 - np.sqrt(a[kept].sum() / b[kept].sum()))


def test_too_short_or_bad_series_are_refused():
    a, b = losses(1)
    for bad in (
        (a[:1000], b[:1000], times(1000)),  # four blocks
        (a, b[:-1], times()),
        (a, np.zeros_like(b), times()),
        (a, b, times()[::-1]),
    ):
        with pytest.raises(VerificationError, match="no interval of skill"):
            rmse_skill(*bad, 240)


def test_skill_table_of_a_scoreboard():
    grid = GRIDS["china_32x64"]
    groups = Groups.of_grid(grid, MASK)
    design = design_of(groups, ("model", "persistence"), (12,), POLLUTANTS, LIMITS)
    adder, rng = Accumulator(design, groups, MASK), np.random.default_rng(0)
    n = 24 * 60
    truth = 50 + rng.standard_normal((n, 1, 2, int(MASK.sum()))).astype(np.float32)
    noise = rng.standard_normal(truth.shape).astype(np.float32)
    adder.add(times(n), {"model": truth + 0.5 * noise, "persistence": truth + noise[::-1]}, truth)
    table = skill_table(adder.board, "model", ("persistence",), replicates=200)
    assert (table["verdict"] == "won").all() and len(table) == 2
    assert table["skill"].to_numpy() == pytest.approx(0.5, abs=0.02)
    ratio = table["rmse_over_space_time"] / table["rmse_of_reference"]
    assert table["skill"].to_numpy() == pytest.approx(1 - ratio.to_numpy())
    assert ((table["skill_low"] < table["skill"]) & (table["skill"] < table["skill_high"])).all()
    assert (table["block_h"] == 240).all() and (table["p_holm"] >= table["p"]).all()
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))
    assert "the 2 cells of a reference" in skill_note(table)
