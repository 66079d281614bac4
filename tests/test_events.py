"""Event counts and fractions skill scores: right numbers, from any split of the data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scores import categorical, spatial

from aqnet.events import (
    CategorySums,
    EventSums,
    NeighbourhoodSums,
    accuracy_over_space_time,
    critical_success_index_over_space_time,
    false_alarm_ratio_over_space_time,
    fractions_skill_score_over_space_time,
    probability_of_detection_over_space_time,
    window_sums,
)
from aqnet.metrics import VerificationError

LIMITS = np.array([40.0, 75.0])


def fields(seed=0, n=6, shape=(2,), size=(14, 17)):
    rng = np.random.default_rng(seed)
    truth = 60 * rng.gamma(1.5, size=(n, *shape, *size))
    forecast = 0.6 * truth + 30 * rng.gamma(1.5, size=truth.shape)
    return forecast, truth


def test_contingency_scores_equal_the_scores_library():
    forecast, truth = fields()
    truth[0, 0, 0, :5] = np.nan
    sums = EventSums((2,), LIMITS).update(forecast, truth)
    known = np.isfinite(truth)
    for c, t in np.ndindex(2, 2):
        f, o = (xr.DataArray(x[:, c][known[:, c]]) for x in (forecast, truth))
        # the library's operator, like ours, is "greater than"
        table = categorical.ThresholdEventOperator(default_op_fn=np.greater)
        table = table.make_contingency_manager(f, o, event_threshold=LIMITS[t])
        pairs = (
            (probability_of_detection_over_space_time, table.probability_of_detection()),
            (false_alarm_ratio_over_space_time, table.false_alarm_ratio()),
            (critical_success_index_over_space_time, table.critical_success_index()),
        )
        for score, expected in pairs:
            assert score(sums)[c, t] == pytest.approx(float(expected), rel=1e-12)


def test_a_value_at_the_threshold_is_no_event():
    sums = EventSums((), [75.0]).update(np.array([75.0, 75.1]), np.array([75.1, 75.0]))
    assert sums.state["misses"] == 1 and sums.state["false_alarms"] == 1


def test_fractions_skill_score_equals_the_scores_library():
    forecast, truth = fields(size=(20, 23))
    for size in (3, 5):
        weight = np.zeros((20, 23))  # the library takes whole windows only
        half = size // 2
        weight[half : 20 - half, half : 23 - half] = 1
        # To `NeighbourhoodSums` a cell of weight 0 is unknown, so the shares are taken directly.
        expected = np.empty((2, 2))
        ours = np.empty((2, 2))
        for c, t in np.ndindex(2, 2):
            f, o = forecast[:, c], truth[:, c]
            a, b = (window_sums(x > LIMITS[t], [size])[0] / size**2 for x in (f, o))
            ours[c, t] = 1 - (weight * (a - b) ** 2).sum() / (weight * (a**2 + b**2)).sum()
            dims = ("time", "y", "x")
            expected[c, t] = spatial.fss_2d(
                xr.DataArray(f, dims=dims), xr.DataArray(o, dims=dims),
                event_threshold=LIMITS[t], window_size=(size, size), spatial_dims=("y", "x"),
                threshold_operator=np.greater,
            )  # fmt: skip
        np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_fractions_skill_score_from_its_definition():
    forecast, truth = fields(n=2, shape=())
    truth[0, 3, 4] = np.nan
    weight = np.random.default_rng(1).random((14, 17))
    weight[:, 0] = 0
    sums = NeighbourhoodSums((), LIMITS, (1, 5)).update(forecast, truth, weight)
    known = np.isfinite(truth) & (weight > 0)
    for t, q in np.ndindex(2, 2):
        above, below = 0.0, 0.0
        half = (0, 2)[q]
        for i, y, x in zip(*np.nonzero(known), strict=True):
            at = (i, slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1))
            p = (forecast[at] > LIMITS[t])[known[at]].mean()
            r = (truth[at] > LIMITS[t])[known[at]].mean()
            above += weight[y, x] * (p - r) ** 2
            below += weight[y, x] * (p**2 + r**2)
        score = fractions_skill_score_over_space_time(sums)[t, q]
        assert score == pytest.approx(1 - above / below, rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 6), max_size=4), seed=st.integers(0, 99))
def test_any_split_gives_the_same_counts(cuts, seed):
    forecast, truth = fields(seed)
    edges = [0, *sorted(cuts), 6]
    for make in (
        lambda: EventSums((2,), LIMITS),
        lambda: NeighbourhoodSums((2,), LIMITS, (1, 3, 9)),
    ):
        whole = make().update(forecast, truth)
        parts = [make().update(forecast[a:b], truth[a:b]) for a, b in pairwise(edges) if b > a]
        merged = sum(parts[::-1], make())
        np.testing.assert_allclose(merged.flat(), whole.flat(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(sum(p.flat() for p in parts), whole.flat(), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1,), (3, 7), (31,)]))
def test_window_sums_are_sums_over_windows(seed, windows):
    values = np.random.default_rng(seed).random((2, 9, 12)) < 0.4
    for size, found in zip(windows, window_sums(values, windows), strict=True):
        h = size // 2
        for y, x in ((0, 0), (4, 5), (8, 11), (2, 11)):
            box = values[:, max(y - h, 0) : y + h + 1, max(x - h, 0) : x + h + 1]
            assert (found[:, y, x] == box.sum((1, 2))).all()


def test_cells_are_pooled_as_if_they_were_one():
    forecast, truth = fields()
    apart = EventSums((2,), LIMITS).update(forecast, truth)
    flat = [np.moveaxis(x, 1, -1) for x in (forecast, truth)]
    np.testing.assert_allclose(
        apart.pool((0,)).flat(), EventSums((), LIMITS).update(*flat).flat(), rtol=1e-12
    )


def test_without_events_scores_are_unknown():
    zeros = np.zeros((1, 5, 5))
    events = EventSums((), LIMITS).update(zeros, zeros)
    assert np.isnan(critical_success_index_over_space_time(events)).all()
    near = NeighbourhoodSums((), LIMITS, (3,)).update(zeros, zeros)
    assert np.isnan(fractions_skill_score_over_space_time(near)).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 2), st.integers(1, 40))
def test_categories_are_counted_as_in_a_table(seed, within, seen_from, cut):
    rng = np.random.default_rng(seed)
    forecast, truth = rng.integers(0, 6, (2, 41, 3)).astype(float)
    weight = rng.random((41, 3))
    truth[rng.random(truth.shape) < 0.2] = np.nan
    whole = CategorySums((3,), 6).update(forecast, truth, weight)
    parts = [
        CategorySums((3,), 6).update(forecast[at], truth[at], weight[at])
        for at in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_allclose((parts[1] + parts[0]).flat(), whole.flat(), atol=1e-12)
    counted = np.isfinite(truth) & (truth >= seen_from)
    right = counted & (np.abs(forecast - truth) <= within)
    expected = (weight * right).sum() / (weight * counted).sum() if counted.any() else np.nan
    found = accuracy_over_space_time(whole.pool((0,)), within, seen_from)
    np.testing.assert_allclose(found, expected)
    for cell in range(3):
        table = whole.state["pairs"][cell]
        assert table.sum() == pytest.approx((weight * np.isfinite(truth))[:, cell].sum())


def test_categories_that_are_none_are_refused():
    for wrong in (1.5, 6.0, -1.0):
        with pytest.raises(VerificationError, match="categories cannot be counted"):
            CategorySums((), 6).update(np.array([wrong]), np.array([1.0]))


def test_bad_input_is_refused():
    forecast, truth = fields()
    with pytest.raises(VerificationError, match="odd numbers"):
        NeighbourhoodSums((), LIMITS, (4,))
    with pytest.raises(VerificationError, match="wrong shape"):
        EventSums((3,), LIMITS).update(forecast, truth)
    with pytest.raises(VerificationError, match="wrong shape"):
        NeighbourhoodSums((3,), LIMITS, (3,)).update(forecast, truth)
    with pytest.raises(VerificationError, match="cannot be merged"):
        EventSums((2,), LIMITS).merge(EventSums((2,), [1.0, 2.0]))
    forecast[0, 0, 0, 0] = np.nan
    with pytest.raises(VerificationError, match=r"NaN or infinite.*\n.*\n.* 1 of"):
        EventSums((2,), LIMITS).update(forecast, truth)
    with pytest.raises(VerificationError, match="cannot be counted"):
        EventSums((2,), LIMITS).update(truth, truth, -1.0)
