"""Quantiles from counted bit patterns: equal to numpy, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aqnet.data.statistics.counting import (
    count_values,
    interpolate,
    keys_of,
    merge_counts,
    order_positions,
    quantiles,
    ranks_of,
    values_of,
)
from aqnet.data.years.format import round_bits
from aqnet.errors import FieldError

Q = np.array([0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1])
FLOATS = arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.one_of(
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.sampled_from([0.0, -0.0, 2.0**-149, -(2.0**-149), 101325.0, 0.5, 0.5, 2.0**127]),
    ),
)


def rounded(values, keep_bits):
    found = round_bits(values, keep_bits)
    return found[np.isfinite(found)]


@settings(max_examples=300, deadline=None)
@given(FLOATS, st.integers(1, 23))
def test_keys_sort_like_the_numbers_and_give_them_back(values, keep_bits):
    values = rounded(values, keep_bits)
    keys = keys_of(values, keep_bits)
    np.testing.assert_array_equal(values_of(keys, keep_bits).view(np.int32), values.view(np.int32))
    order = np.argsort(keys, kind="stable")
    assert (np.diff(values[order].astype(np.float64)) >= 0).all()


@settings(max_examples=300, deadline=None)
@given(FLOATS, st.integers(1, 23), st.randoms(use_true_random=False))
def test_quantiles_of_blocks_in_any_order_equal_numpy(values, keep_bits, random):
    values = rounded(values, keep_bits)
    if not values.size:
        return
    cuts = sorted(random.randrange(len(values) + 1) for _ in range(3))
    blocks = np.split(values, cuts)
    random.shuffle(blocks)
    counts = merge_counts([count_values(block, keep_bits) for block in blocks])
    assert counts.total == len(values)
    expected = np.quantile(values.astype(np.float64), Q)
    np.testing.assert_array_equal(quantiles(counts, Q), expected)


@pytest.mark.parametrize("keep_bits", [10, 14, 23])
def test_many_values_equal_numpy(keep_bits):
    rng = np.random.default_rng(keep_bits)
    values = round_bits(np.exp(3 * rng.normal(size=200_000)), keep_bits)
    values[::7] = 0
    parts = [count_values(part, keep_bits) for part in np.split(values, [10, 50_000])]
    counts = merge_counts(parts)
    np.testing.assert_array_equal(quantiles(counts, Q), np.quantile(values.astype(np.float64), Q))
    few = len(np.unique(values)) <= 1 << 16
    assert few == (keep_bits == 10)
    assert counts.rank_type == (np.uint16 if few else np.uint32)


@pytest.mark.parametrize("transform", [np.log1p, np.sqrt, lambda x: np.maximum(x - 2, 0)])
def test_a_monotone_transform_may_come_before_or_after_the_sorting(transform):
    values = round_bits(np.exp(np.random.default_rng(0).normal(size=5000)), 10)
    found = quantiles(count_values(values, 10), Q, transform)
    expected = np.quantile(transform(values.astype(np.float64)), Q)
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-300)


def test_interpolation_does_not_commute_with_the_logarithm():
    """Between two order statistics the transformed quantile is another number."""
    counts = count_values(np.float32([9, 999]), 23)
    assert quantiles(counts, [0.5])[0] == 504
    assert quantiles(counts, [0.5], np.log1p)[0] == pytest.approx(np.log(100))
    assert np.log1p(quantiles(counts, [0.5])[0]) == pytest.approx(np.log(505))
    # on an order statistic it is the same
    np.testing.assert_array_equal(quantiles(counts, [0, 1], np.log1p), np.log1p([9.0, 999.0]))


@settings(max_examples=100, deadline=None)
@given(FLOATS, st.integers(1, 23))
def test_ranks_stand_for_values(values, keep_bits):
    values = rounded(values, keep_bits)
    if not values.size:
        return
    counts = count_values(values, keep_bits)
    np.testing.assert_array_equal(counts.values[ranks_of(values, counts)], values)


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6)),
    st.floats(0, 1),
)
def test_the_definition_is_numpys(values, q):
    ordered = np.sort(values)
    below, above, weight = order_positions(len(values), np.array([q]))
    found = interpolate(ordered[below], ordered[above], weight)
    np.testing.assert_array_equal(found, np.quantile(values, [q]))


def test_values_with_more_bits_than_stated_are_refused():
    with pytest.raises(FieldError, match="10 bits of mantissa"):
        count_values(np.float32([1.0, 1.0001]), 10)
    count_values(round_bits([1.0, 1.0001], 10), 10)
