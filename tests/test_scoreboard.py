"""Scoreboard: the sums of the fast path are those of `aqnet.metrics`, however the work is split."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.events import EventSums, NeighbourhoodSums
from aqnet.grid import GRIDS
from aqnet.metrics import ErrorSums, VerificationError, anomaly_correlation_over_space_time
from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.groups import Groups, sun_elevation_deg, time_cells
from aqnet.verification.score_tables import error_table, event_table, pooled
from aqnet.verification.scoreboard import load_scoreboard, save_scoreboard

LEADS, POLLUTANTS, NAMES = (3, 30), ("pm25", "o3"), ("model", "persistence")
LIMITS = {"pm25": (35.0, 75.0), "o3": (60.0, 100.0)}
GRID = GRIDS["china_32x64"]
MASK = np.zeros(GRID.shape, dtype=bool)
MASK[8:14, 20:31] = True
MASK[9, 22:25] = False
N = 30
TIMES = np.datetime64("2016-11-30T00", "h") + np.arange(N)


def members():
    lat, lon = GRID.mesh()
    east, north = lon > lon[MASK].mean(), lat > lat[MASK].mean()
    return {"east": east, "north-east": east & north, "elsewhere": ~MASK}


def arrays(seed=0, level=50.0, spread=40.0, gaps=True):
    rng = np.random.default_rng(seed)
    shape = (N, 2, 2, int(MASK.sum()))
    truth = (level + spread * rng.standard_normal(shape)).astype(np.float32)
    forecasts = {
        name: (truth + spread * rng.standard_normal(shape)).astype(np.float32) for name in NAMES
    }
    if gaps:
        truth[rng.random(shape) < 0.1] = np.nan
        truth[3, 0, 1] = np.nan  # a whole field
        forecasts["model"][rng.random(shape) < 0.05] = np.nan
    return forecasts, truth, level + rng.standard_normal(shape).astype(np.float32)


def board_of(forecasts, truth, usual, rows=slice(None), **changes):
    groups = Groups.of_grid(GRID, MASK, members())
    options = {"thresholds": LIMITS, "windows": (1, 3), "anomalies": True, "each_place": True}
    design = design_of(groups, NAMES, LEADS, POLLUTANTS, **options | changes)
    adder = Accumulator(design, groups, MASK)
    some = {name: f[rows] for name, f in forecasts.items()}
    normal = usual[rows] if design.anomalies else None
    adder.add(TIMES[rows], some, truth[rows], normal)
    return adder.board


def common(forecasts, truth):
    known = np.isfinite(truth) & np.all([np.isfinite(f) for f in forecasts.values()], axis=0)
    return np.where(known, truth, np.nan), known


def test_groups_without_cells_are_left_out_and_others_may_overlap():
    groups = Groups.of_grid(GRID, MASK, members())
    assert groups.names == ("all", "east", "north-east")
    for row, name in zip(groups.in_group, groups.names, strict=True):
        assert (row[groups.classes] == groups.members[name]).all()
    assert groups.weight.sum() == pytest.approx(GRID.cell_area_km2[MASK].sum())
    assert (
        groups.classes_of("east", "north-east").tolist() == groups.classes_of("north-east").tolist()
    )


@pytest.mark.parametrize("season", [None, "DJF", "SON"])
@pytest.mark.parametrize("group", ["all", "north-east"])
def test_every_sum_equals_the_plain_one(season, group):
    forecasts, truth, usual = arrays()
    board = board_of(forecasts, truth, usual)
    known_truth, known = common(forecasts, truth)
    groups = Groups.of_grid(GRID, MASK, members())
    valid = TIMES[:, None] + np.array(LEADS).astype("timedelta64[h]")
    weight = groups.weight * groups.members[group] * np.ones(truth.shape)
    only = {"group": group}
    if season:
        only["season"] = season
        weight *= (time_cells(valid, 8.0)[0] == ("DJF", "MAM", "JJA", "SON").index(season))[
            ..., None, None
        ]
    for name in NAMES:
        f = np.where(known, forecasts[name], 0.0).astype(np.float64)
        plain = ErrorSums((2, 2)).update(f, known_truth, weight)
        fast = pooled(board, "error", name, ("lead_h", "pollutant"), **only)
        assert (fast.n == plain.n).all()
        for score in ("rmse", "mae", "bias", "correlation", "centred_rmse"):
            np.testing.assert_allclose(getattr(fast, score)(), getattr(plain, score)(), rtol=1e-9)
        anomaly = ErrorSums((2, 2)).update(
            np.where(known, f - usual, 0), known_truth.astype(float) - usual, weight
        )
        fast = pooled(board, "anomaly", name, ("lead_h", "pollutant"), **only)
        np.testing.assert_allclose(
            anomaly_correlation_over_space_time(fast),
            anomaly_correlation_over_space_time(anomaly), rtol=1e-9,
        )  # fmt: skip
        limits = np.array([LIMITS[p] for p in POLLUTANTS])
        events = EventSums((2, 2), limits).update(f, known_truth, weight)
        fast = pooled(board, "event", name, ("lead_h", "pollutant"), **only)
        np.testing.assert_allclose(fast.flat(), events.flat(), rtol=1e-9, atol=1e-9)


def test_neighbourhoods_equal_the_plain_ones():
    forecasts, truth, usual = arrays()
    board = board_of(forecasts, truth, usual)
    known_truth, known = common(forecasts, truth)
    fields = np.full((2, N, 2, 2, *GRID.shape), np.nan)
    fields[0][..., MASK] = np.where(known, forecasts["model"], 0.0)
    fields[1][..., MASK] = known_truth
    f = np.nan_to_num(fields[0])
    limits = np.array([LIMITS[p] for p in POLLUTANTS])
    plain = NeighbourhoodSums((2, 2), limits, (1, 3)).update(f, fields[1], GRID.cell_area_km2)
    fast = pooled(board, "neighbourhood", "model", ("lead_h", "pollutant"))
    np.testing.assert_allclose(fast.flat(), plain.flat(), rtol=1e-9)


def test_sums_of_each_place_and_missing_pairs():
    forecasts, truth, usual = arrays()
    board = board_of(forecasts, truth, usual)
    known_truth, known = common(forecasts, truth)
    f = np.where(known, forecasts["model"], 0.0)
    plain = ErrorSums((2, 2, truth.shape[-1])).update(f, known_truth)
    found = board.sums["place"]["model"]
    for score in ("rmse", "mae", "bias", "correlation"):
        np.testing.assert_allclose(getattr(found, score)(), getattr(plain, score)(), rtol=1e-9)
    lost = (np.isfinite(truth) & np.isnan(forecasts["model"])).sum(0)
    groups = Groups.of_grid(GRID, MASK, members())
    for g, chosen in enumerate(groups.members.values()):
        assert (board.missing["model"][..., g] == lost[..., chosen].sum(-1)).all()
    assert board.missing["persistence"].sum() == 0


@settings(max_examples=8, deadline=None)
@given(
    cuts=st.lists(st.integers(0, N), max_size=4),
    seed=st.integers(0, 99),
    level=st.sampled_from([50.0, 1e4]),
    gaps=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_any_split_gives_the_same_scores(cuts, seed, level, gaps, order):
    data = arrays(seed, level, 40.0, gaps)
    whole = board_of(*data)
    edges = [0, *sorted(set(cuts) - {0, N}), N]
    parts = [board_of(*data, slice(a, b)) for a, b in pairwise(edges)]
    order.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    for table in (error_table, event_table):
        found, expected = (
            table(b, ("pollutant", "lead_h", "group", "sun")) for b in (merged, whole)
        )
        assert list(found) == list(expected)
        numbers = expected.select_dtypes("number").columns
        np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-9, atol=1e-10)
    assert (merged.times == TIMES).all()


def test_the_loss_series_has_the_pooled_rmse():
    forecasts, truth, usual = arrays()
    board = board_of(forecasts, truth, usual)
    rows = error_table(board).set_index(["forecast", "pollutant", "lead_h", "group"])
    for key in (("model", "pm25", 30, "all"), ("persistence", "o3", 3, "east")):
        name, pollutant, lead, group = key
        _, loss = board.loss_series(name, lead, pollutant, group)
        rmse = rows.loc[key, "rmse_over_space_time"]
        assert np.sqrt(loss.mean()) == pytest.approx(rmse, rel=1e-12)
    assert len(board.loss_series("model", 3, "o3")[0]) == N - 1  # an hour without truth


def test_day_and_night_make_up_the_whole():
    forecasts, truth, usual = arrays(gaps=False)
    board = board_of(forecasts, truth, usual)
    table = error_table(board, ("pollutant", "sun"))
    both = table.groupby(["forecast", "pollutant"], sort=False)["n"].sum()
    whole = error_table(board, ("pollutant",)).set_index(["forecast", "pollutant"])["n"]
    assert both.equals(whole)
    by_hour = error_table(board, ("hour", "sun"), pollutant="o3").set_index(
        ["forecast", "hour", "sun"]
    )
    assert by_hour.loc[("model", 1, "day"), "n"] == 0  # Beijing time
    assert by_hour.loc[("model", 13, "night"), "n"] == 0


def test_sun_stands_where_almanacs_say():
    # Greenwich, 21 June 2016, 12:02 UTC: 61.9 degrees; Singapore at the equinox overhead
    times = np.array(["2016-06-21T12:02", "2016-03-20T05:12"], dtype="datetime64[s]")
    found = sun_elevation_deg(times, np.array([51.48, 1.35]), np.array([0.0, 103.8]))
    assert found[0, 0] == pytest.approx(61.95, abs=0.1)
    assert found[1, 1] == pytest.approx(88.6, abs=0.5)
    # Beijing, 21 December 2016: sunrise 07:33, sunset 16:53 local time (with refraction)
    day = np.datetime64("2016-12-20T16:00", "s") + 60 * np.arange(1440)
    up = np.flatnonzero(sun_elevation_deg(day, np.array([39.9]), np.array([116.4]))[:, 0] > -0.83)
    assert up[0] == pytest.approx(7 * 60 + 33, abs=3) and up[-1] == pytest.approx(
        16 * 60 + 53, abs=3
    )


def test_seasons_and_hours_follow_the_local_clock():
    times = np.array(["2016-11-30T16", "2016-11-30T15", "2016-02-29T16"], dtype="datetime64[h]")
    season, hour = time_cells(times, 8.0)
    assert season.tolist() == [0, 3, 1] and hour.tolist() == [0, 23, 0]


def test_files_give_the_same_board_back(tmp_path):
    board = board_of(*arrays())
    save_scoreboard(board, tmp_path / "board.npz")
    again = load_scoreboard(tmp_path / "board.npz")
    assert again.design == board.design
    for table in (error_table, event_table):
        assert table(again).equals(table(board))
    np.testing.assert_array_equal(again.squares["model"], board.squares["model"])
    (tmp_path / "other.npz").write_bytes(b"nothing")
    for name in ("other.npz", "absent.npz"):
        with pytest.raises(VerificationError, match="is not a scoreboard"):
            load_scoreboard(tmp_path / name)


def test_an_axis_may_be_kept_and_chosen_at_once():
    board = board_of(*arrays())
    whole = error_table(board)
    for only in ({"pollutant": "o3"}, {"group": "east"}, {"lead_h": 30}):
        ((axis, label),) = only.items()
        expected = whole[whole[axis] == label].reset_index(drop=True)
        pd.testing.assert_frame_equal(error_table(board, **only), expected)


def test_named_errors():
    forecasts, truth, usual = arrays()
    board = board_of(forecasts, truth, usual)
    with pytest.raises(VerificationError, match="init times scored twice"):
        board.merge(board)
    with pytest.raises(VerificationError, match="other designs"):
        board.merge(board_of(forecasts, truth, usual, windows=(3,)))
    with pytest.raises(VerificationError, match="no such group"):
        error_table(board, ("pollutant",), group="moon")
    with pytest.raises(VerificationError, match="no such axis"):
        error_table(board, ("colour",))
    with pytest.raises(VerificationError, match="pollutants are not pooled"):
        error_table(board, ("lead_h",))
    assert len(error_table(board, (), pollutant="o3")) == len(NAMES)
    with pytest.raises(VerificationError, match="other shapes"):
        board_of({k: f[..., :-1] for k, f in forecasts.items()}, truth, usual)
    with pytest.raises(VerificationError, match="bad thresholds"):
        board_of(forecasts, truth, usual, thresholds={"pm25": (1.0,), "o3": (2.0, 1.0)})
    forecasts["model"][0, 0, 0, 0] = np.inf
    with pytest.raises(VerificationError, match="infinite"):
        board_of(forecasts, truth, usual)


def test_an_accumulator_is_freed_without_garbage_collection():
    """A circle of references held 500 MB of a task on the grid `china` for several tasks."""
    groups = Groups.of_grid(GRID, MASK, members())
    design = design_of(groups, NAMES, LEADS, POLLUTANTS, LIMITS, (1, 3), each_place=True)
    forecasts, truth, _ = arrays(gaps=False)
    gc.disable()
    try:
        adder = Accumulator(design, groups, MASK)
        adder.add(TIMES, forecasts, truth)
        still = weakref.ref(adder)
        del adder
        assert still() is None
    finally:
        gc.enable()
