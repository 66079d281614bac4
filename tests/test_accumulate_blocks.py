"""Sums of many small fields at once are those of one field after the other, however split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scoreboard import LEADS, LIMITS, NAMES, POLLUTANTS  # made-up names

from aqnet.metrics import VerificationError
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import Groups
from aqnet.verification.score_tables import error_table, event_table

N, S = 60, 7
TIMES = np.datetime64("2016-11-29T00", "h") + np.arange(N)
KEPT = np.arange(S) < 5


def places():
    lat, lon = np.linspace(30, 44, S), np.linspace(80, 120, S)
    members = {"assimilated": KEPT, "withheld": ~KEPT, "east": lon > 100}
    return Groups(lat, lon, np.ones(S), members)


def arrays(seed=0, level=50.0, gaps=True):
    rng = np.random.default_rng(seed)
    shape = (N, len(LEADS), len(POLLUTANTS), S)
    truth = level + 40 * rng.standard_normal(shape)
    forecasts = {name: truth + 40 * rng.standard_normal(shape) for name in NAMES}
    if gaps:
        truth[rng.random(shape) < 0.2] = np.nan
        truth[3, 0, 1] = np.nan
        forecasts["model"][rng.random(shape) < 0.05] = np.nan
    return forecasts, truth, level + rng.standard_normal(shape)


def board_of(data, rows=slice(None), kind=BlockAccumulator):
    forecasts, truth, usual = data
    groups = places()
    design = design_of(groups, NAMES, LEADS, POLLUTANTS, LIMITS, anomalies=True,
                       each_place=True, weight="one a station")  # fmt: skip
    adder = kind(design, groups)
    adder.add(TIMES[rows], {k: f[rows] for k, f in forecasts.items()}, truth[rows], usual[rows])
    return adder.board


def assert_equal_boards(found, expected):
    """All tables, sums of places, series and missing pairs to 1e-9."""
    for table in (error_table, event_table):
        for by in (("pollutant", "lead_h", "group", "sun"), ("pollutant", "season", "hour")):
            one, two = table(found, by), table(expected, by)
            assert list(one) == list(two)
            numbers = two.select_dtypes("number").columns
            np.testing.assert_allclose(one[numbers], two[numbers], rtol=1e-9, atol=1e-10)
    for name in NAMES:
        np.testing.assert_allclose(found.missing[name], expected.missing[name])
        np.testing.assert_allclose(found.squares[name], expected.squares[name], rtol=1e-9)
        places = (board.sums["place"][name].rmse() for board in (found, expected))
        np.testing.assert_allclose(*places, rtol=1e-9)
    np.testing.assert_allclose(found.weight, expected.weight)
    assert (found.times == expected.times).all()


@pytest.mark.parametrize("level", [50.0, 1e4])
def test_blocks_equal_single_fields(level):
    data = arrays(level=level)
    assert_equal_boards(board_of(data), board_of(data, kind=Accumulator))


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(0, N), max_size=5),
    seed=st.integers(0, 99),
    level=st.sampled_from([50.0, 1e4]),
    gaps=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_any_split_gives_the_same_scores(cuts, seed, level, gaps, order):
    data = arrays(seed, level, gaps)
    edges = [0, *sorted(set(cuts) - {0, N}), N]
    parts = [board_of(data, slice(a, b)) for a, b in pairwise(edges)]
    order.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert_equal_boards(merged, board_of(data))


def test_the_loss_series_of_a_group_has_its_rmse():
    board = board_of(arrays())
    rows = error_table(board).set_index(["forecast", "pollutant", "lead_h", "group"])
    for group in ("all", "withheld"):
        _, loss = board.loss_series("model", 30, "pm25", group)
        rmse = rows.loc[("model", "pm25", 30, group), "rmse_over_space_time"]
        assert np.sqrt(loss.mean()) == pytest.approx(rmse, rel=1e-12)


def test_missing_pairs_are_counted_for_each_group():
    forecasts, truth, usual = arrays()
    lost = (np.isfinite(truth) & np.isnan(forecasts["model"])).sum(0)
    found = board_of((forecasts, truth, usual)).missing["model"]
    for g, chosen in enumerate(places().members.values()):
        np.testing.assert_array_equal(found[..., g], lost[..., chosen].sum(-1))


def test_named_errors():
    forecasts, truth, usual = arrays()
    usual[5, 1, 0, 2] = np.nan
    truth[5, 1, 0, 2] = 50.0
    forecasts["model"][5, 1, 0, 2] = 50.0
    with pytest.raises(VerificationError, match="climatology lacks values"):
        board_of((forecasts, truth, usual))
    groups = places()
    design = design_of(groups, NAMES, LEADS, POLLUTANTS, LIMITS, (3,))
    with pytest.raises(VerificationError, match="without neighbours"):
        BlockAccumulator(design, groups)
