"""The Diebold-Mariano test keeps its level on weather, and Holm's correction is Holm's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from aqnet.metrics import VerificationError
from aqnet.verification.significance import (
    bandwidth_h,
    bartlett_variance_of_mean,
    diebold_mariano,
    fixed_b_t,
    holm,
    verdict,
)

YEAR = 7150  # hourly init times of a test year less 60 days of history and 4 days of lead


def red_noise(rng, runs, hours, tau_h):
    """(runs, hours) AR(1) of unit variance with an e-folding time of tau_h."""
    phi = np.exp(-1 / tau_h)
    shocks = rng.standard_normal((runs, hours + int(15 * tau_h))) * np.sqrt(1 - phi**2)
    return signal.lfilter([1], [1, -phi], shocks, axis=1)[:, -hours:]


def lead_errors(rng, runs, lead_h, tau_h):
    """Errors of the best lead_h-hour forecast of red noise: MA(lead - 1) of hourly shocks."""
    x = red_noise(rng, runs, YEAR + lead_h, tau_h)
    return x[:, lead_h:] - np.exp(-lead_h / tau_h) * x[:, :-lead_h]


def equally_good_losses(rng, runs, lead_h, tau_h, season):
    """Squared errors of two forecasts that are exchangeable, hence of equal accuracy."""
    amplitude = 1 + season * np.cos(2 * np.pi * np.arange(YEAR) / 8766)
    common = lead_errors(rng, runs, lead_h, tau_h)
    own = [0.5 * lead_errors(rng, runs, lead_h, tau_h) for _ in range(2)]
    return [(amplitude * (common + error)) ** 2 for error in own]


@pytest.mark.parametrize(
    ("lead_h", "tau_h", "season"), [(12, 30, 0.0), (48, 36, 0.7), (96, 48, 0.0), (96, 72, 0.7)]
)
def test_size_is_near_five_percent_where_an_iid_test_is_absurd(lead_h, tau_h, season):
    rng, runs = np.random.default_rng(20161220 + lead_h), 400
    losses = equally_good_losses(rng, runs, lead_h, tau_h, season)
    width = bandwidth_h(lead_h)
    p = np.array([diebold_mariano(a, b, width).p_value for a, b in zip(*losses, strict=True)])
    # 400 runs at 5 %: standard deviation 1.1 %, so 2.0 to 8.5 % is three of them
    assert 0.02 <= np.mean(p < 0.05) <= 0.085
    assert np.mean(p < 0.05 / 24) <= 0.015
    d = losses[0] - losses[1]
    naive = np.abs(d.mean(1)) / (d.std(1) / np.sqrt(YEAR)) > 1.96
    assert naive.mean() > 0.35


def test_power_grows_with_the_difference():
    rng = np.random.default_rng(5)
    losses = equally_good_losses(rng, 100, 24, 30, 0.0)
    found = []
    for factor in (1.0, 1.05, 1.15, 1.3):
        pairs = zip(losses[0], factor * losses[1], strict=True)
        found.append(np.mean([diebold_mariano(a, b, 240).p_value < 0.05 for a, b in pairs]))
    assert found[0] < 0.12 and found[-1] > 0.95
    assert found == sorted(found)


def two_losses(seed=0, size=2000):
    rng = np.random.default_rng(seed)
    return red_noise(rng, 2, size, 20) ** 2 + np.array([[0.0], [0.1]])


def test_swapping_the_forecasts_changes_only_the_sign():
    a, b = two_losses()
    one, other = diebold_mariano(a, b, 240), diebold_mariano(b, a, 240)
    assert one.statistic == -other.statistic and one.mean_difference == -other.mean_difference
    assert one.p_value == other.p_value and one.n_effective == other.n_effective
    assert one.mean_difference == pytest.approx((a - b).mean())


@given(st.floats(1e-3, 1e6))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_the_loss_does_not_matter(scale):
    a, b = two_losses()
    one, other = diebold_mariano(a, b, 240), diebold_mariano(scale * a, scale * b, 240)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-6)
    assert other.n_effective == pytest.approx(one.n_effective, rel=1e-6)


def brute_force(d, hours, width):
    """Bartlett variance of the mean by its definition over pairs."""
    u = d - d.mean()
    weight = np.maximum(0, 1 - np.abs(hours[:, None] - hours[None, :]) / width)
    return u @ weight @ u / d.size**2


@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_variance_pairs_values_by_true_time_difference(kept):
    rng = np.random.default_rng(1)
    hours = np.flatnonzero(rng.random(900) < kept)
    hours -= hours[0]
    d = red_noise(rng, 1, 1000, 10)[0][: hours.size]
    expected = brute_force(d, hours, 48)
    assert bartlett_variance_of_mean(d - d.mean(), hours, 48) == pytest.approx(expected, rel=1e-9)
    squeezed = bartlett_variance_of_mean(d - d.mean(), np.arange(d.size), 48)
    assert (squeezed == pytest.approx(expected, rel=1e-9)) == (kept == 1.0)


def test_gaps_keep_the_size():
    rng, runs = np.random.default_rng(8), 300
    losses = equally_good_losses(rng, runs, 24, 30, 0.3)
    start = np.datetime64("2016-03-01T00", "h")
    keep = np.ones(YEAR, dtype=bool)
    for first in rng.integers(0, YEAR - 200, 15):
        keep[first : first + rng.integers(1, 200)] = False
    times = start + np.flatnonzero(keep)
    p = [
        diebold_mariano(a[keep], b[keep], 240, times).p_value for a, b in zip(*losses, strict=True)
    ]
    assert 0.015 <= np.mean(np.array(p) < 0.05) <= 0.09


def test_six_hourly_forecasts_count_their_hours():
    a, b = two_losses(size=2400)
    times = np.datetime64("2016-03-01T00", "h") + 6 * np.arange(400)
    result = diebold_mariano(a[::6], b[::6], 240, times)
    d = (a - b)[::6]
    assert (result.mean_difference / result.statistic) ** 2 == pytest.approx(
        brute_force(d, 6 * np.arange(400), 240)
    )
    assert result.freedom == pytest.approx(1.5 / (240 / 2400))


def test_effective_number_of_white_noise_is_the_number():
    rng = np.random.default_rng(3)
    effective = [
        diebold_mariano(*rng.standard_normal((2, 4000)), 24).n_effective for _ in range(100)
    ]
    assert np.mean(effective) == pytest.approx(4000, rel=0.05)


# Kiefer and Vogelsang (2005), table 1, Bartlett: coefficients of 1, b, b^2, b^3, two-sided level
KIEFER_VOGELSANG = {
    0.10: (1.6449, 2.1859, 0.3142, -0.3427),
    0.05: (1.9600, 2.9694, 0.4160, -0.5324),
    0.02: (2.3263, 4.1618, 0.5368, -0.9060),
}


@pytest.mark.parametrize("level", KIEFER_VOGELSANG)
@pytest.mark.parametrize("share", [0.01, 0.034, 0.1, 0.2])
def test_fixed_b_agrees_with_the_published_critical_values(level, share):
    critical = np.polyval(KIEFER_VOGELSANG[level][::-1], share)
    p_value, _ = fixed_b_t(critical, share)
    assert 0.95 * level < p_value < 1.14 * level  # on the careful side where it is off
    assert 2 * stats.norm.sf(critical) < 0.97 * p_value  # the normal law claims too much


def test_identical_forecasts_tie():
    loss = np.random.default_rng(0).random(2000)
    result = diebold_mariano(loss, loss, 240)
    assert (result.statistic, result.p_value, result.mean_difference) == (0.0, 1.0, 0.0)
    assert verdict(result.p_value, result.mean_difference) == "tie"


@pytest.mark.parametrize("shift", [0.1, 1e-3])
def test_constant_differences_other_than_zero_are_refused(shift):
    loss = np.random.default_rng(0).random(2000)
    with pytest.raises(VerificationError, match="does not vary"):
        diebold_mariano(loss, loss + shift, 240)


@pytest.mark.parametrize(
    "damage",
    [
        lambda a, b: (np.where(np.arange(a.size) == 7, np.nan, a), b),
        lambda a, b: (a, np.where(np.arange(a.size) == 7, np.inf, b)),
        lambda a, b: (a[:-1], b),
        lambda a, b: (a[:, None], b[:, None]),
        lambda a, b: (a[:1], b[:1]),
    ],
)
def test_unusable_losses_are_refused(damage):
    with pytest.raises(VerificationError, match="losses cannot be compared"):
        diebold_mariano(*damage(*two_losses()), 240)


START = np.datetime64("2016-03-01T00", "h")


@pytest.mark.parametrize(
    "times",
    [
        START + np.arange(1999),
        START + np.zeros(2000, dtype=int),
        (START + np.arange(2000))[::-1],
        (START + np.arange(2000)).astype("datetime64[m]") + np.timedelta64(30, "m"),
        np.where(np.arange(2000) == 4, np.datetime64("NaT"), START + np.arange(2000)),
        np.arange(2000),
    ],
)
def test_unusable_times_are_refused(times):
    with pytest.raises(VerificationError, match="times of the losses"):
        diebold_mariano(*two_losses(), 240, times)


def test_short_periods_are_refused():
    a, b = two_losses(size=1199)
    with pytest.raises(VerificationError, match="at least 1200 h"):
        diebold_mariano(a, b, 240)


@pytest.mark.parametrize(("lead", "width"), [(12, 240), (96, 240), (120, 240), (121, 264)])
def test_bandwidth_is_whole_days_and_at_least_twice_the_lead(lead, width):
    assert bandwidth_h(lead) == width


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, then the running maximum
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([[0.6], [0.7]]), [[1.0], [1.0]])
    assert holm([0.04]) == pytest.approx(0.04)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24))
def test_holm_lies_between_no_correction_and_bonferroni(p):
    adjusted, p = holm(p), np.array(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, p * p.size) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_agrees_with_statsmodels():
    reference = pytest.importorskip("statsmodels.stats.multitest").multipletests
    rng = np.random.default_rng(24)
    for size in rng.integers(1, 25, 20):  # statsmodels takes 0.05 s a call
        p = rng.random(size) ** 4
        np.testing.assert_allclose(holm(p), reference(p, method="holm")[1], atol=1e-12)


@pytest.mark.parametrize("p", [[0.1, np.nan], [1.2], [-0.1], []])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(VerificationError, match="bad p-values"):
        holm(p)


@pytest.mark.parametrize(
    ("p", "difference", "outcome"),
    [
        (0.049, -1.0, "won"),
        (0.049, 1.0, "lost"),
        (0.05, -1.0, "tie"),
        (0.9, 5.0, "tie"),
        (0.0, 0.0, "tie"),
    ],
)
def test_verdict(p, difference, outcome):
    assert verdict(p, difference) == outcome


@pytest.mark.parametrize(("p", "difference"), [(np.nan, 1.0), (0.5, np.nan), (1.5, 1.0)])
def test_verdict_refuses_nan(p, difference):
    with pytest.raises(VerificationError, match="no verdict"):
        verdict(p, difference)
