"""The four statistical forecasts: by hand, by a plain loop, and against known figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import HarmonicClimatology, fit_climatology
from aqnet.data.history import History, rows_of
from aqnet.data.splits import HISTORY_H, Split, init_times
from aqnet.data.stations.analysis import carry_forward
from aqnet.errors import DataError
from aqnet.model.statistical import (
    SEES,
    STATISTICAL,
    Situation,
    StatisticalForecasts,
    fit_statistical,
    situation_at,
)
from aqnet.variables import LEAD_TIMES_H, TARGETS

START = np.datetime64("2014-01-01T00", "h")


def rules(r, s, leads=(12,), pollutants=1):
    """The four rules with damping factors r and s for all pollutants."""
    weights = np.zeros((4, len(leads), pollutants, 3))
    weights[0, ..., :2] = 1
    weights[2, ..., 1] = np.reshape(r, (-1, 1))
    weights[3, ..., 1] = np.reshape(s, (-1, 1))
    weights[3, ..., 2] = 1 - np.reshape(s, (-1, 1))
    return StatisticalForecasts(leads, weights)


def one(now, future, anomaly, level):
    return Situation(*(np.array(v, dtype=float).reshape(shape) for v, shape in (
        (now, (1, 1)), (future, (1, 1, 1)), (anomaly, (1, 1)), (level, (1, 1)))))  # fmt: skip


def test_by_hand():
    # climatology 30 now and 50 then; observed 42, so the anomaly is 12; 60-day mean anomaly -10
    at, found = one(30, 50, 12, -10), rules(0.5, 0.25)
    forecasts = {name: found(name, at).item() for name in STATISTICAL}
    assert forecasts == {
        "persistence": 42.0,
        "climatology": 50.0,
        "damped climatology": 50 + 0.5 * 12,
        "trailing-damped": 50 - 10 + 0.25 * (12 + 10),
    }
    assert set(SEES) == set(STATISTICAL)


def test_concentrations_are_not_negative():
    at = one(30, 5, -29, -20)
    assert rules(0.5, 0.25)("damped climatology", at).item() == 0
    assert rules(0.5, 0.25)("persistence", at).item() == 1


@pytest.mark.parametrize(
    ("anomaly", "level", "unknown"),
    [(np.nan, 1.0, {"persistence", "damped climatology", "trailing-damped"}),
     (1.0, np.nan, {"trailing-damped"}),
     (np.nan, np.nan, {"persistence", "damped climatology", "trailing-damped"})],
)  # fmt: skip
def test_what_a_rule_does_not_see_cannot_make_it_unknown(anomaly, level, unknown):
    found = rules(0.5, 0.25)
    at = one(30, 50, anomaly, level)
    assert {name for name in STATISTICAL if np.isnan(found(name, at)).any()} == unknown


def test_a_gap_of_one_pollutant_stays_with_it():
    at = Situation(
        np.full((2, 3), 30.0), np.full((2, 1, 3), 30.0), np.ones((2, 3)), np.ones((2, 3))
    )
    at.anomaly[1, 2] = np.nan
    missing = np.isnan(rules(0.5, 0.2, pollutants=3)("trailing-damped", at))
    assert np.argwhere(missing).tolist() == [[1, 0, 2]]


# ---- against a loop over tiny series

HOURS = HISTORY_H + 700
TIMES = START + np.arange(HOURS)
SPLIT = Split("train", TIMES[0], TIMES[-1] + 1)
LEADS = (3, 30)


def tiny(seed, missing=0.1, cells=()):
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(49, 2, *cells))
    coefficients[0] = 100.0
    climatology = HarmonicClimatology(coefficients, 8)
    noise = np.zeros((HOURS, 2, *cells))
    for t in range(1, HOURS):
        noise[t] = 0.95 * noise[t - 1] + rng.normal(size=noise.shape[1:])
    values = climatology(TIMES) + 3 + noise
    values[rng.random(HOURS) < missing] = np.nan
    return values, climatology


def truth_of(values, init):
    return np.stack([values[rows_of(TIMES, init) + lead] for lead in LEADS], axis=1)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fit_and_forecast_against_a_loop(seed):
    values, climatology = tiny(seed)
    history, init = History.build(TIMES, values, climatology), init_times(SPLIT, max(LEADS))
    found = fit_statistical(history, init, truth_of(values, init), LEADS, SPLIT)
    clim = climatology(START + np.arange(HOURS + 100))
    a = values - clim[:HOURS]
    rows = rows_of(TIMES, init)
    m = np.array([np.nanmean(a[t - HISTORY_H + 1 : t + 1], axis=0) for t in rows])
    at = situation_at(history, rows, LEADS)
    for n, lead in enumerate(LEADS):
        for p in range(2):
            x, y = a[rows, p], a[rows + lead, p]
            known = np.isfinite(x) & np.isfinite(y)
            r = (x * y)[known].sum() / (x * x)[known].sum()
            dx, dy = x - m[:, p], y - m[:, p]
            s = (dx * dy)[known].sum() / (dx * dx)[known].sum()
            future = clim[rows + lead, p]
            expected = {
                "persistence": values[rows, p],
                "climatology": future,
                "damped climatology": future + r * x,
                "trailing-damped": future + m[:, p] + s * dx,
            }
            for name, forecast in expected.items():
                np.testing.assert_allclose(
                    found(name, at)[:, n, p], forecast, rtol=1e-5, err_msg=name
                )


def test_a_damped_series_gives_its_damping():
    """Where 0.6 of every anomaly is left, r = 0.6 and damped climatology is exact."""
    climatology = HarmonicClimatology(np.zeros((49, 1)), 8)
    values = np.random.default_rng(0).uniform(1, 100, (HOURS, 1))
    history, init = History.build(TIMES, values, climatology), init_times(SPLIT, 12)
    rows = rows_of(TIMES, init)
    truth = 0.6 * values[rows][:, None]
    found = fit_statistical(history, init, truth, (12,), SPLIT)
    assert found.weights[2, 0, 0, 1] == pytest.approx(0.6)
    at = situation_at(history, rows, (12,))
    np.testing.assert_allclose(found("damped climatology", at), truth, rtol=1e-6)


def test_factors_of_fields_are_pooled_over_the_cells():
    values, climatology = tiny(5, cells=(2, 2))
    init = init_times(SPLIT, max(LEADS))
    history = History.build(TIMES, values, climatology)
    found = fit_statistical(history, init, truth_of(values, init), LEADS, SPLIT)
    assert found.weights.shape == (4, 2, 2, 3)
    at = situation_at(history, rows_of(TIMES, init), LEADS)
    x, y = at.anomaly[:, 1], truth_of(values, init)[:, 0, 1] - at.future[:, 0, 1]
    known = np.isfinite(x) & np.isfinite(y)
    assert found.weights[2, 0, 1, 1] == pytest.approx((x * y)[known].sum() / (x * x)[known].sum())
    assert found("trailing-damped", at).shape == (len(init), 2, 2, 2, 2)


def test_nothing_after_t_enters_a_forecast():
    values, climatology = tiny(1)
    last = HISTORY_H + 100
    changed = values.copy()
    changed[last + 1 :] = 1e6
    found, rows = rules([0.5, 0.2], [0.4, 0.1], LEADS, 2), np.arange(HISTORY_H, last + 1)
    for name in STATISTICAL:
        a, b = (
            found(name, situation_at(History.build(TIMES, v, climatology), rows, LEADS))
            for v in (values, changed)
        )
        np.testing.assert_array_equal(a, b)


def test_nothing_to_fit_on_is_an_error():
    values, climatology = tiny(2)
    init = init_times(SPLIT, max(LEADS))
    truth = truth_of(values, init)
    truth[:, :, 1] = np.nan
    with pytest.raises(DataError, match="known pairs"):
        fit_statistical(History.build(TIMES, values, climatology), init, truth, LEADS, SPLIT)


# ---- the real stations


@pytest.fixture(scope="module")
def city(stations, splits):
    """Means over all 12 stations: times, values (T, 6), history, fitted rules."""
    times = stations.time.values.astype("datetime64[h]")
    values = np.stack(
        [
            np.ma.masked_invalid(stations[n].values).mean(axis=1, dtype=float).filled(np.nan)
            for n in TARGETS
        ],
        axis=1,
    )
    train = splits["train"].contains(times)
    climatology = fit_climatology(times[train], values[train], splits["train"], 8)
    history = History.build(times, carry_forward(values)[0], climatology)

    def truth(init):
        return values[rows_of(times, init[:, None] + np.array(LEAD_TIMES_H, "timedelta64[h]"))]

    init = init_times(splits["train"], max(LEAD_TIMES_H))
    return (
        history,
        truth,
        fit_statistical(history, init, truth(init), LEAD_TIMES_H, splits["train"]),
    )


def rmse(city, init):
    history, truth, found = city
    at = situation_at(history, rows_of(history.times, init), LEAD_TIMES_H)
    return {
        name: np.sqrt(np.nanmean((found(name, at) - truth(init)) ** 2, axis=0))
        for name in STATISTICAL
    }


@pytest.mark.parametrize(
    ("name", "figures", "tolerance"),
    [("persistence", (9.8, 12.0, 13.2, 13.3), 0.01),
     ("damped climatology", (11.0, 13.3, 15.8, 16.8), 0.015),
     ("trailing-damped", (9.2, 10.1, 10.8, 11.2), 0.04)],
)  # fmt: skip
def test_known_figures_for_so2(city, splits, name, figures, tolerance):
    """RMSE of SO2 in ug/m3 in the test year, stated by the requirements of the project.

    They were made with all init times from 96 h after the start of the test year: with the full
    embargo of 60 days the spring is missing, and all figures are 5 to 8 % lower. Persistence has no
    free parameter, so it agrees to the rounding of the figures; the damped ones depend on how the
    climatology is smoothed, and the trailing one on which gaps the 60-day mean allows as well.
    """
    test = splits["test"]
    hour = np.timedelta64(max(LEAD_TIMES_H), "h")
    found = rmse(city, np.arange(test.start + hour, test.end - hour))
    np.testing.assert_allclose(found[name][:, TARGETS.index("so2")], figures, rtol=tolerance)


def test_order_of_the_rules_for_so2_with_the_full_embargo(city, splits):
    found = rmse(city, init_times(splits["test"], max(LEAD_TIMES_H)))
    so2 = {name: found[name][:, TARGETS.index("so2")] for name in STATISTICAL}
    assert (so2["trailing-damped"] < so2["persistence"]).all()
    assert (so2["persistence"] < so2["damped climatology"]).all()
    assert (so2["damped climatology"] < so2["climatology"] + 0.2).all()


def test_damping_never_hurts_in_training(city, splits):
    """A regression is at least as good as factor 0 (climatology) where it was fitted."""
    found = rmse(city, init_times(splits["train"], max(LEAD_TIMES_H)))
    assert (found["damped climatology"] <= found["climatology"] + 1e-9).all()
