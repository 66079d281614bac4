"""What is known at t: trailing means against a plain loop, and nothing later than t."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.history import MIN_SHARE_KNOWN, History, rows_of
from aqnet.errors import DataError

START = np.datetime64("2014-05-01T00", "h")


def make(seed, hours, shape=(2,), missing=0.3):
    rng = np.random.default_rng(seed)
    climatology = HarmonicClimatology(rng.normal(size=(49, *shape)), 8)
    times = START + np.arange(hours)
    values = climatology(times) + rng.normal(size=(hours, *shape))
    values[rng.random(hours) < missing] = np.nan
    values[rng.random(values.shape) < missing / 10] = np.nan
    return times, values, climatology


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 900), st.integers(1, 200), st.floats(0, 0.95))
def test_trailing_means_against_a_loop(seed, hours, window, missing):
    times, values, climatology = make(seed, hours + window, missing=missing)
    history = History.build(times, values, climatology)
    anomalies = (values - climatology(times)).astype(np.float32)
    rows = np.unique(np.random.default_rng(seed).integers(window - 1, hours + window, 10))
    found = history.mean_anomaly(rows, window)
    assert found.dtype == np.float32 and found.shape == (len(rows), 2)
    for n, row in enumerate(rows):
        for v in range(2):
            past = [a for a in anomalies[row - window + 1 : row + 1, v] if np.isfinite(a)]
            enough = len(past) >= MIN_SHARE_KNOWN * window
            expected = np.mean(np.array(past, dtype=float)) if enough else np.nan
            np.testing.assert_allclose(found[n, v], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1000, 2400), st.sampled_from(["huge", "gap", "inf"]))
def test_nothing_after_t(seed, last, nonsense):
    times, values, climatology = make(seed, 2500)
    changed = values.copy()
    changed[last + 1 :] = {"huge": 1e30, "gap": np.nan, "inf": np.inf}[nonsense]
    a, b = (History.build(times, v, climatology) for v in (values, changed))
    for hours in (1, 24, 720, last + 1):
        rows = np.arange(hours - 1, last + 1, 7)
        np.testing.assert_array_equal(a.mean_anomaly(rows, hours), b.mean_anomaly(rows, hours))
    np.testing.assert_array_equal(a.anomalies[: last + 1], b.anomalies[: last + 1])
    np.testing.assert_array_equal(a.known[: last + 1], b.known[: last + 1])
    assert not np.array_equal(a.anomalies[last + 1 :], b.anomalies[last + 1 :])


def test_a_field_is_known_as_a_whole():
    times, values, climatology = make(0, 100, (3, 4, 5), missing=0)
    values[7, 1, 2, 2] = np.nan
    history = History.build(times, values, climatology)
    assert history.known.shape == (100, 3, 1, 1)
    unknown = np.argwhere(~history.known[..., 0, 0]).tolist()
    expected = np.argwhere(np.isnan(values).any(axis=(2, 3))).tolist()
    assert unknown == expected and [7, 1] in unknown
    assert (history.anomalies[7, 1] == 0).all() and history.anomalies.dtype == np.float32
    assert history.mean_anomaly([50], 24).shape == (1, 3, 4, 5)


def test_stations_keep_their_own_gaps():
    times, values, climatology = make(1, 100, (6, 5), missing=0)  # (T, P, S)
    values[3, 2, 4] = np.nan
    history = History.build(times, values, climatology)
    assert history.known.shape == values.shape and not history.known[3, 2, 4]
    assert history.known[3, 2, 3] == np.isfinite(values[3, 2, 3])


def test_variables_can_be_selected():
    times, values, climatology = make(2, 300, (5,))
    history = History.build(times, values, climatology)
    np.testing.assert_array_equal(
        history.mean_anomaly([200, 299], 50, slice(1, 3)),
        history.mean_anomaly([200, 299], 50)[:, 1:3],
    )


def test_a_long_series_of_large_numbers_keeps_its_digits():
    times = START + np.arange(35000)
    values = np.full((35000, 1), 100.0)
    values[-24:] += 0.5
    history = History.build(times, values, HarmonicClimatology(np.zeros((49, 1)), 8))
    assert history.mean_anomaly([34999], 24)[0, 0] == np.float32(100.5)


def test_reaching_before_the_first_hour_is_an_error():
    history = History.build(*make(0, 100))
    history.mean_anomaly([99], 100)
    with pytest.raises(DataError, match="101 h up to"):
        history.mean_anomaly([99, 120], 101)


@pytest.mark.parametrize("step", [0, 2])
def test_hours_must_follow_each_other(step):
    times, values, climatology = make(0, 50)
    times[20:] += step - 1
    with pytest.raises(DataError, match=f"a step of {step} h"):
        History.build(times, values, climatology)


@given(st.lists(st.integers(0, 99), max_size=10))
def test_rows_of(wanted):
    times = START + np.arange(100)
    np.testing.assert_array_equal(rows_of(times, times[wanted]), np.array(wanted, dtype=int))


@pytest.mark.parametrize("outside", [-1, 100])
def test_rows_of_times_outside(outside):
    times = START + np.arange(100)
    with pytest.raises(DataError, match="outside the store"):
        rows_of(times, np.array([times[3], times[0] + outside]))
