"""Hourly regression: the closed form, unknown rows, and the limits of the penalty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import DAY_TERMS
from aqnet.model.regression import apply_hourly_regression, fit_hourly_regression


def problem(seed=0, n=300, leads=2, variables=3, pollutants=2):
    """Random predictors, calendar, residuals."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(0, 24, (n, leads)) / 24
    waves = [f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]
    calendar = np.stack([*waves, *rng.normal(size=(2, n, leads))], axis=-1)
    z = rng.normal(size=(n, variables))
    return z, calendar, rng.normal(size=(n, leads, pollutants))


def augmented(z, calendar, y, penalty):
    """Ridge as least squares with sqrt(penalty) rows, looped in plain Python."""
    rows = []
    for i in range(len(z)):
        hour = [1.0, *calendar[i, :DAY_TERMS]]
        rows.append([g * v for g in hour for v in [*z[i], 1.0]])
    size = len(rows[0])
    x = np.vstack([rows, np.sqrt(penalty) * np.eye(size)])
    return np.linalg.lstsq(x, np.concatenate([y, np.zeros(size)]), rcond=None)[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-2, 1e4))
def test_fit_is_ridge(seed, penalty):
    z, calendar, y = problem(seed)
    weights = fit_hourly_regression(z, calendar, y, penalty)
    assert weights.shape == (2, DAY_TERMS + 1, 4, 2)
    for lead, p in np.ndindex(2, 2):
        expected = augmented(z, calendar[:, lead], y[:, lead, p], penalty)
        np.testing.assert_allclose(weights[lead, ..., p].ravel(), expected, atol=1e-8)


def test_unknown_rows_are_left_out():
    z, calendar, y = problem()
    gone = np.random.default_rng(1).random(y.shape) < 0.3
    weights = fit_hourly_regression(z, calendar, np.where(gone, np.nan, y), 5.0)
    for lead, p in np.ndindex(2, 2):
        keep = ~gone[:, lead, p]
        alone = fit_hourly_regression(z[keep], calendar[keep], y[keep], 5.0)
        np.testing.assert_allclose(weights[lead, ..., p], alone[lead, ..., p], atol=1e-10)


def test_penalty_shrinks_to_zero_and_no_penalty_recovers():
    z, calendar, _ = problem(n=2000)
    truth = np.random.default_rng(2).normal(size=(2, DAY_TERMS + 1, 4, 2))
    y = apply_hourly_regression(truth, z, calendar)
    np.testing.assert_allclose(fit_hourly_regression(z, calendar, y, 1e-9), truth, atol=1e-6)
    sizes = [np.abs(fit_hourly_regression(z, calendar, y, p)).max() for p in (1e0, 1e4, 1e8, 1e14)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-9


def test_nothing_known_gives_nothing():
    z, calendar, y = problem()
    assert not fit_hourly_regression(z, calendar, np.full_like(y, np.nan)).any()


def test_apply_is_the_formula():
    z, calendar, _ = problem(n=4)
    weights = np.random.default_rng(3).normal(size=(2, DAY_TERMS + 1, 4, 2))
    found = apply_hourly_regression(weights, z, calendar)
    for i, lead, p in np.ndindex(4, 2, 2):
        hour, predictor = [1.0, *calendar[i, lead, :DAY_TERMS]], [*z[i], 1.0]
        wanted = sum(weights[lead, k, v, p] * hour[k] * predictor[v]
                     for k in range(len(hour)) for v in range(len(predictor)))
        assert found[i, lead, p] == pytest.approx(wanted, abs=1e-12)


def test_the_year_plays_no_part():
    z, calendar, y = problem()
    other = calendar.copy()
    other[..., DAY_TERMS:] += 7
    np.testing.assert_array_equal(fit_hourly_regression(z, calendar, y),
                                  fit_hourly_regression(z, other, y))
