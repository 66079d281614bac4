"""Climatology: least squares as by the textbook, gaps, clocks, and no silent failure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import HarmonicClimatology, fit_climatology, harmonic_basis
from aqnet.data.splits import Split
from aqnet.errors import DataError

START = np.datetime64("2013-03-01T00", "h")
TIMES = START + np.arange(2 * 8760)
SPLIT = Split("train", TIMES[0], TIMES[-1] + 1)
SECOND = np.timedelta64(1, "s")


def fit(values, rows=slice(None), **options):
    return fit_climatology(TIMES[rows], values, SPLIT, options.pop("offset", 8), **options)


def test_basis_is_the_formula():
    times = np.array(["2013-03-01T00", "2016-07-04T17"], "datetime64[h]")
    days = ((times - np.datetime64("2000-01-01T00")) / np.timedelta64(1, "h") + 8) / 24
    year, day = 2 * np.pi * days / 365.2425, 2 * np.pi * days

    def waves(x, n):
        return [np.ones(2)] + [f(k * x) for k in range(1, n + 1) for f in (np.sin, np.cos)]

    expected = np.stack([a * b for a in waves(year, 2) for b in waves(day, 1)], -1)
    np.testing.assert_allclose(harmonic_basis(times, 8, 2, 1), expected, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.7))
def test_harmonics_are_recovered_through_gaps(seed, missing):
    rng = np.random.default_rng(seed)
    truth = HarmonicClimatology(rng.normal(size=(49, 3)), 8)
    values = truth(TIMES[::5])
    values[rng.random(values.shape) < missing] = np.nan
    found = fit(values, slice(None, None, 5))
    np.testing.assert_allclose(found.coefficients, truth.coefficients, atol=1e-7)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_fit_is_least_squares(seed, annual, diurnal):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(TIMES[::7]), 2))
    values[rng.random(values.shape) < 0.2] = np.nan
    found = fit(values, slice(None, None, 7), annual=annual, diurnal=diurnal).coefficients
    basis = harmonic_basis(TIMES[::7], 8, annual, diurnal)
    for column in range(2):
        known = np.isfinite(values[:, column])
        expected = np.linalg.lstsq(basis[known], values[known, column], rcond=None)[0]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-9)


def test_columns_with_equal_gaps_are_fitted_as_if_alone():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(len(TIMES), 2, 3))
    values[500:900, :, 1] = np.nan
    together = fit(values)
    assert together.coefficients.shape == (49, 2, 3)
    for i in range(2):
        for j in range(3):
            alone = fit(values[:, i, j])
            np.testing.assert_allclose(
                together.coefficients[:, i, j], alone.coefficients, rtol=0, atol=1e-12
            )


def test_shapes_and_selection_of_series():
    rng = np.random.default_rng(2)
    several = HarmonicClimatology(rng.normal(size=(49, 4, 2, 3)), 8)
    assert several(TIMES[:5]).shape == (5, 4, 2, 3)
    for series in (slice(1, 3), np.array([3, 0])):
        np.testing.assert_allclose(
            several(TIMES[:5], series), several(TIMES[:5])[:, series], rtol=1e-12, atol=1e-12
        )
    single = HarmonicClimatology(rng.normal(size=49), 8)
    assert single(TIMES[:5]).shape == (5,)


def test_float32_fields_are_fitted_in_double_precision():
    values = np.full((len(TIMES), 1), 101325.0, dtype=np.float32)
    assert fit(values)(TIMES[:100]) == pytest.approx(101325.0, abs=1e-6)


@pytest.mark.parametrize("offset", [7.0, 5.5])
def test_the_clock_matters(offset):
    """A daily cycle by another clock comes later in UTC."""
    values = HarmonicClimatology(np.random.default_rng(3).normal(size=(49, 2)), 8)
    moved = HarmonicClimatology(values.coefficients, offset)
    later = round((8 - offset) * 3600) * SECOND
    seconds = TIMES[:200].astype("datetime64[s]")
    assert not np.allclose(moved(seconds), values(seconds), atol=0.1)
    np.testing.assert_allclose(moved(seconds + later), values(seconds), atol=1e-9)


def test_real_ozone_peaks_by_the_local_clock(stations, splits):
    times = stations.time.values.astype("datetime64[h]")
    rows = splits["train"].contains(times)
    ozone = fit_climatology(times[rows], stations.o3.values[rows], splits["train"], 8)
    july = np.arange("2014-07-14T16", "2014-07-15T16", dtype="datetime64[h]")  # local midnight on
    assert set(ozone(july).argmax(axis=0)) <= {14, 15, 16, 17}


def test_statistics_ignore_later_years(stations, splits):
    times = stations.time.values.astype("datetime64[h]")
    rows = splits["train"].contains(times)
    values = stations.so2.values.copy()
    before = fit_climatology(times[rows], values[rows], splits["train"], 8)
    values[~rows] = np.random.default_rng(0).normal(size=values[~rows].shape) * 1e6
    after = fit_climatology(times[rows], values[rows], splits["train"], 8)
    np.testing.assert_array_equal(before.coefficients, after.coefficients)


@pytest.mark.parametrize(
    ("rows", "why"),
    [(slice(0, 40), "40 known hours"), (slice(0, 24 * 700, 24), "700 known hours")],
)
def test_too_little_data_is_an_error(rows, why):
    # once a day, all hours of the day are the same hour: its harmonics cannot be told apart
    with pytest.raises(DataError, match=why):
        fit(np.ones(len(TIMES[rows])), rows)


def test_a_series_without_data_is_an_error():
    values = np.ones((len(TIMES), 2))
    values[:, 1] = np.nan
    with pytest.raises(DataError, match="0 known hours"):
        fit(values)
