"""Normalisation: there and back, fitted on training hours, and hashed to the last bit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import HarmonicClimatology, fit_climatology
from aqnet.data.history import History
from aqnet.data.normalisation import (
    RATIO_BOUNDS,
    Normaliser,
    arrays_of,
    constant_scaling,
    denormalise,
    fit_normaliser,
    level_ratio,
    normalise,
    normaliser_of_arrays,
    reference_constants,
    static_moments,
    target_channels,
)
from aqnet.data.splits import Split
from aqnet.errors import DataError
from aqnet.variables import DYNAMIC, STATIC, TARGETS

START = np.datetime64("2014-01-01T00", "h")
TIMES = START + np.arange(3000)
SPLIT = Split("train", TIMES[0], TIMES[-1] + 1)


def some_normaliser(rng):
    return Normaliser(
        rng.normal(size=(49, 11, 2, 2)),
        rng.normal(size=11),
        rng.uniform(0.1, 500, 11),
        rng.normal(size=len(STATIC)),
        rng.uniform(1, 9, len(STATIC)),
        8.0,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(*RATIO_BOUNDS), st.floats(1e-3, 1e5))
def test_there_and_back(seed, ratio, size):
    rng = np.random.default_rng(seed)
    normaliser, ratios = some_normaliser(rng), np.full((3, 11), ratio)
    values, reference = rng.normal(size=(2, 3, 11, 4, 5)) * size
    z = normalise(normaliser, values, reference, ratios)
    np.testing.assert_allclose(
        denormalise(normaliser, z, reference, ratios), values, rtol=1e-9, atol=1e-9 * size
    )


def test_formula_by_hand():
    normaliser = some_normaliser(np.random.default_rng(0))
    values, ratio = np.full((2, 11, 1, 1), 7.0), np.ones((2, 11))
    ratio[1, 3] = 0.5
    z = normalise(normaliser, values, np.full_like(values, 3.0), ratio)
    assert z[0, 3, 0, 0] == pytest.approx(4 / normaliser.spread[3])
    assert z[1, 3, 0, 0] == pytest.approx(8 / normaliser.spread[3])


def test_digest_changes_with_any_number():
    normaliser = some_normaliser(np.random.default_rng(1))
    digests = {normaliser.digest}
    harmonics = {"annual", "diurnal"}
    for name in {field.name for field in fields(normaliser)} - harmonics:
        value = np.array(getattr(normaliser, name), dtype=float)
        value.flat[-1] = np.nextafter(value.flat[-1], np.inf)
        changed = float(value) if name == "utc_offset_h" else value
        digests.add(replace(normaliser, **{name: changed}).digest)
    # 49 terms as well: 24 harmonics of the day, or of the year, alone
    digests |= {replace(normaliser, annual=a, diurnal=24 - a).digest for a in (0, 24)}
    assert len(digests) == 1 + len(fields(normaliser))
    assert replace(normaliser).digest == normaliser.digest


def test_digest_knows_shapes():
    normaliser = some_normaliser(np.random.default_rng(1))
    turned = normaliser.coefficients.reshape(49, 11, 1, 4)
    assert replace(normaliser, coefficients=turned).digest != normaliser.digest


def sample(seed=0, shape=(2, 3)):
    rng = np.random.default_rng(seed)
    climatology = HarmonicClimatology(5 * rng.normal(size=(49, 11, *shape)), 8)
    spread = np.geomspace(0.5, 800, 11)[:, None, None]
    inputs = climatology(TIMES) + spread * rng.normal(size=(len(TIMES), 11, *shape))
    inputs[100:120, 4] = np.nan
    return inputs, climatology, rng.normal(size=(len(STATIC), *shape))


def test_statistics_against_numpy():
    inputs, climatology, static = sample()
    found = fit_normaliser(TIMES, inputs, static, climatology, SPLIT)
    anomalies = inputs - climatology(TIMES)
    np.testing.assert_allclose(found.spread, np.nanstd(anomalies, axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.mean, np.nanmean(inputs, axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.static_mean, static.mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.static_spread, static.std(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(found.climatology(TIMES[:9]), climatology(TIMES[:9]))


def test_pressure_in_float32_keeps_its_spread():
    """100,000 Pa with a spread of 5: squares of values, not of anomalies, would lose it."""
    rng = np.random.default_rng(3)
    inputs, climatology, static = sample()
    inputs[:] = 1e5 + 5 * rng.normal(size=inputs.shape)
    climatology = replace(climatology, coefficients=np.zeros_like(climatology.coefficients))
    climatology.coefficients[0] = 1e5
    found = fit_normaliser(TIMES, inputs.astype(np.float32), static, climatology, SPLIT)
    np.testing.assert_allclose(found.spread, 5, rtol=0.02)


def test_a_variable_that_does_not_vary_is_an_error():
    inputs, climatology, static = sample()
    inputs[:, 2] = climatology(TIMES)[:, 2]
    with pytest.raises(DataError, match=r"'temp': 0\.0"):
        fit_normaliser(TIMES, inputs, static, climatology, SPLIT)


def constant_normaliser(rng):
    mean, spread = rng.normal(size=11) * 1e3, 10 ** rng.uniform(-3, 5, 11)
    zeros, ones = np.zeros(len(STATIC)), np.ones(len(STATIC))
    return Normaliser(mean[None, :, None, None], mean, spread, zeros, ones, 8.0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e5))
def test_a_constant_reference_there_and_back(seed, size):
    rng = np.random.default_rng(seed)
    normaliser = constant_normaliser(rng)
    values, ratio = rng.normal(size=(3, 11, 4, 5)) * size, np.ones((3, 11))
    reference = normaliser.climatology(TIMES[:3])
    assert reference.shape == (3, 11, 1, 1)
    z = normalise(normaliser, values, reference, ratio)
    back = denormalise(normaliser, z, reference, ratio)
    # two roundings of numbers of the size of the largest part
    largest = np.abs(values) + np.abs(reference)
    assert (np.abs(back - values) <= 4 * np.finfo(float).eps * largest).all()


def test_constant_scaling_is_all_that_a_device_needs():
    rng = np.random.default_rng(4)
    normaliser, values = constant_normaliser(rng), rng.normal(size=(2, 11, 3, 3))
    reference, spread = constant_scaling(normaliser)
    expected = normalise(normaliser, values, normaliser.climatology(TIMES[:2]), np.ones((2, 11)))
    found = (values - reference[:, None, None]) / spread[:, None, None]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(DataError, match="not a constant"):
        constant_scaling(some_normaliser(rng))


def test_the_constants_of_the_reference_by_name():
    normaliser = reference_constants()
    reference, spread = constant_scaling(normaliser)
    found = {n: (m, s) for n, m, s in zip(DYNAMIC, reference, spread, strict=True)}
    assert found["u"] == found["v"] == (0, 10) and found["temp"] == (273.15, 30)
    assert found["psfc"] == (101325, 1000) and found["co"] == (200, 100)
    assert found["pm25"] == (25, 15) and found["o3"] == (40, 20) and found["so2"] == (5, 5)
    np.testing.assert_array_equal(normaliser.static_mean[:4], [32, 106, 1039.13, 13381.20])
    np.testing.assert_array_equal(normaliser.static_spread[:4], [12, 16, 1931.40, 67986.97])


@pytest.mark.parametrize("make", [some_normaliser, constant_normaliser])
def test_arrays_and_back(make):
    normaliser = make(np.random.default_rng(5))
    again = normaliser_of_arrays(arrays_of(normaliser))
    assert again.digest == normaliser.digest
    assert isinstance(again.annual, int) and isinstance(again.utc_offset_h, float)
    arrays = arrays_of(normaliser)
    del arrays["annual"]
    with pytest.raises(DataError, match="other fields"):
        normaliser_of_arrays(arrays)


NO_HILLS = (np.array(STATIC) != "elevation").astype(float)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"annual": 2}, "coefficients of another shape"),
        ({"coefficients": np.zeros((49, 11))}, "coefficients of another shape"),
        ({"spread": np.zeros(11)}, r"does not vary(.|\n)*fit it again"),
        ({"spread": np.full(11, -1.0)}, r"does not vary(.|\n)*fit it again"),
        ({"static_spread": -NO_HILLS}, r"does not vary(.|\n)*fit it again"),
        ({"static_spread": NO_HILLS}, r"not vary(.|\n)*'elevation': 0\.0(.|\n)*constant_static"),
        ({"mean": np.full(11, np.nan)}, "mean"),
        ({"static_mean": np.zeros(3)}, "static_mean"),
    ],
)
def test_what_cannot_be_inverted_is_an_error(change, what):
    with pytest.raises(DataError, match=what):
        replace(some_normaliser(np.random.default_rng(6)), **change)


def test_static_moments_of_the_active_cells():
    static = np.random.default_rng(7).normal(size=(len(STATIC), 3, 5))
    active = np.arange(15).reshape(3, 5) % 2 == 0
    static[:, ~active] = np.nan
    mean, spread = static_moments(static, active)
    np.testing.assert_allclose(mean, np.nanmean(static, axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(spread, np.nanstd(static, axis=(1, 2)), rtol=1e-12)


def test_target_channels():
    assert tuple(DYNAMIC[i] for i in target_channels()) == TARGETS


# ---- level relative to climatology


def constant_history(level):
    """Pollutants with climatology 40 and an anomaly of `level`, weather with climatology 0."""
    times = START + np.arange(400)
    coefficients = np.zeros((49, 11, 2, 2))
    coefficients[0, target_channels()] = 40.0
    values = np.zeros((400, 11, 2, 2))
    values[:, target_channels()] = 40.0 + np.asarray(level)[:, None, None]
    return History.build(times, values, HarmonicClimatology(coefficients, 8))


@pytest.mark.parametrize(("level", "ratio"), [(-20, 0.5), (0, 1), (20, 1.5), (-39, 0.2), (90, 2.0)])
def test_level_ratio_by_hand(level, ratio):
    found = level_ratio(constant_history(np.full(6, level)), np.array([300, 399]), 100)
    expected = np.ones((2, 11))
    expected[:, target_channels()] = ratio
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_level_ratio_follows_its_window_and_is_nan_where_unknown():
    history = constant_history(np.zeros(6))
    values = history.anomalies + history.climatology(history.times)
    values[:200, target_channels()] *= 0.5
    values[300:, target_channels()[1]] = np.nan
    changed = History.build(history.times, values, history.climatology)
    found = level_ratio(changed, np.array([150, 249, 299, 399]), 100)
    np.testing.assert_allclose(found[:3, target_channels()[0]], [0.5, 0.75, 1.0], rtol=1e-6)
    assert np.isnan(found[3, target_channels()[1]]) and found[3, target_channels()[2]] == 1


def test_on_the_store_only_training_counts(store, splits):
    """Fitted twice, the second time with everything after training replaced: the same digest."""
    times, end = store.times, 17520 + 500
    inputs = store.read("inputs", slice(0, end))[:, :, ::8, ::8]
    static = store.read("static")[:, ::8, ::8]
    train = splits["train"].contains(times[:end])

    def digest(values):
        climatology = fit_climatology(times[:end][train], values[train], splits["train"], 8)
        return fit_normaliser(
            times[:end][train], values[train], static, climatology, splits["train"]
        ).digest

    changed = inputs.copy()
    changed[~train] = 1e6
    assert digest(inputs) == digest(changed)
    changed[np.flatnonzero(train)[-1]] += 1
    assert digest(inputs) != digest(changed)
