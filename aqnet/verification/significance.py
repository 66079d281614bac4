from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import signal, stats

from aqnet.errors import explain
from aqnet.verification.metrics import VerificationError


# Ten days, about two haze episodes. On Beijing station means the differences of squared errors of
# simple forecasts have e-folding times of 4 to 80 h (notebook); the simulated size of the test
# is 4 to 8 % with this window, 6 to 10 % with 4 days.
MIN_BANDWIDTH_H = 240
# The t approximation to the fixed-b law is good up to here (see `fixed_b_t`).
MAX_BANDWIDTH_SHARE = 0.2
# Variance of the mean relative to the size of the losses, squared: below this the difference
# is constant up to float64 rounding.
CONSTANT_BELOW = 1e-12


class DMResult(NamedTuple):
    """Outcome of `diebold_mariano`; `mean_difference` < 0 means that forecast a is better."""

    statistic: float  # mean difference over its standard error [1]
    p_value: float  # two-sided
    mean_difference: float  # mean of loss_a - loss_b, unit of the loss
    n_effective: float  # independent samples that would fix the mean as well [1]
    n: int  # times used
    bandwidth_h: int  # of the Bartlett window [h]
    freedom: float  # degrees of freedom of the reference t distribution


def bandwidth_h(lead_h: int) -> int:
    """Width of the Bartlett window for hourly forecasts of one lead time, in hours.

    max(2 x lead, 240 h), in whole days: errors of forecasts made less than a lead apart share
    weather (an h-step error is at least MA(h-1)); beyond that the weather persists by itself.
    A window of whole days gives the daily cycle of the loss, which averages out over the days,
    no weight in the variance (the Bartlett spectral window is zero at its harmonics).
    """
    width = max(2 * int(lead_h), MIN_BANDWIDTH_H)
    return -(-width // 24) * 24


def _checked_losses(loss_a: np.ndarray, loss_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(loss_a, dtype=np.float64), np.asarray(loss_b, dtype=np.float64)
    bad = a.ndim != 1 or a.shape != b.shape or a.size < 2
    if bad or not (np.isfinite(a).all() and np.isfinite(b).all()):
        missing = (np.sum(~np.isfinite(a)), np.sum(~np.isfinite(b)))
        raise VerificationError(
            explain(
                "losses cannot be compared",
                expected="two finite series (T,) of the same length, T >= 2",
                found=f"shapes {a.shape} and {b.shape}, not finite: {missing[0]} and {missing[1]}",
                remedy="drop the times that one forecast lacks from both, and pass `times`",
            )
        )
    return a, b


def _hours(times: np.ndarray | None, size: int) -> np.ndarray:
    """Whole hours since the first time; hourly without gaps if `times` is None."""
    if times is None:
        return np.arange(size)
    times = np.asarray(times)
    if times.shape == (size,) and np.issubdtype(times.dtype, np.datetime64):
        hours = times.astype("datetime64[h]")
        exact = (hours == times).all()  # False for half hours and for NaT
        if exact and (np.diff(hours).astype(np.int64) > 0).all():
            return (hours - hours[0]).astype(np.int64)
    raise VerificationError(
        explain(
            "times of the losses are not usable",
            expected=f"({size},) datetime64 on whole hours, strictly increasing",
            found=f"{times.dtype} of shape {times.shape}",
            remedy="sort by init time and remove duplicates",
        )
    )


def bartlett_variance_of_mean(departures: np.ndarray, hours: np.ndarray, width_h: int) -> float:
    """Variance of the mean of an autocorrelated series with gaps.

    sum over all pairs (i, j) of max(0, 1 - |hours_i - hours_j| / width_h) d_i d_j / n^2:
    Newey and West (1987), with pairs formed on true time differences, which equals the
    "amplitude modulated" form of Parzen (1963) with zeros in the gaps. Never negative.

    Parameters
    ----------
    departures : (T,)
        Series minus its mean.
    hours : (T,) int
        Time of each value [h], increasing from 0.
    width_h : int
        Lags from here on get no weight [h].
    """
    series = np.zeros(hours[-1] + 1)
    series[hours] = departures
    products = signal.correlate(series, series, method="fft")[series.size - 1 :]
    lags = np.arange(min(width_h, series.size))
    weight = np.where(lags == 0, 1.0, 2.0) * (1 - lags / width_h)
    return max(float(weight @ products[: lags.size]), 0.0) / departures.size**2


def fixed_b_t(statistic: float, share: float) -> tuple[float, float]:
    """Two-sided p-value of a Bartlett t statistic when the window is a share b of the sample.

    The estimated variance is itself random and, because the mean is removed, low by 1 - b +
    b^2/3 on average. Its distribution is close to chi-squared with 3 / (2 b) degrees of freedom
    (Sun 2014, J. Econometrics 178: 659-677; Lazarus et al. 2018, J. Bus. Econ. Stat. 36:
    541-559), so the scaled statistic is compared with Student's t. The critical value at 5 % is
    within 1 % of Kiefer and Vogelsang's (2005, Econometric Theory 21: 1130-1164) for b <= 0.2,
    and unlike their table this reaches the small p-values that Holm needs.

    Returns
    -------
    p_value, degrees of freedom
    """
    freedom = 1.5 / share
    scaled = abs(statistic) * np.sqrt(1 - share + share**2 / 3)
    return float(2 * stats.t.sf(scaled, freedom)), freedom


def _window_share(hours: np.ndarray, width_h: int) -> float:
    """Share b of the window in the time covered by samples (gaps do not count), or refuse."""
    step = int(np.gcd.reduce(np.diff(hours)))
    covered = hours.size * step
    if width_h <= MAX_BANDWIDTH_SHARE * covered:
        return width_h / covered
    needed = int(width_h / MAX_BANDWIDTH_SHARE)
    raise VerificationError(
        explain(
            "too few times for a test of equal accuracy",
            expected=f"at least {needed} h of forecasts for a window of {width_h} h",
            found=f"{hours.size} times {step} h apart: {covered} h",
            remedy="score a longer period, or report the scores without a test",
        )
    )


def diebold_mariano(
    loss_a: np.ndarray, loss_b: np.ndarray, max_lag_h: int, times: np.ndarray | None = None
) -> DMResult:
    """Test whether two forecasts are equally accurate (Diebold and Mariano 1995).

    Parameters
    ----------
    loss_a, loss_b : (T,)
        Losses of the two forecasts, for example squared errors [(ug/m3)^2], at the same times.
    max_lag_h : int
        Width of the Bartlett window [h]: `bandwidth_h(lead_h)`.
    times : (T,) datetime64, optional
        Init times, increasing, gaps allowed; hourly if not given.

    Two-sided p under fixed-b asymptotics (`fixed_b_t`), which replace the Harvey-Leybourne-
    Newbold factor (made for a rectangular window). No difference anywhere: statistic 0, p 1.
    Raises VerificationError on NaN, unequal or short series, unusable times, or a difference
    that is constant but not zero.
    """
    a, b = _checked_losses(loss_a, loss_b)
    size = float(np.abs(a).max() + np.abs(b).max())
    return _tested(a - b, _hours(times, a.size), max_lag_h, size)


def _tested(d: np.ndarray, hours: np.ndarray, width_h: int, size: float) -> DMResult:
    share, mean = _window_share(hours, width_h), float(d.mean())
    if not d.any():  # identical forecasts: a tie by definition
        return DMResult(0.0, 1.0, 0.0, float(d.size), d.size, width_h, 1.5 / share)
    variance = bartlett_variance_of_mean(d - mean, hours, width_h)
    if d.std() <= CONSTANT_BELOW * size or variance == 0.0:
        raise VerificationError(
            explain(
                "the difference of the losses does not vary",
                expected="a difference that is zero throughout, or varies from time to time",
                found=f"constant {mean:g}",
                remedy="look for a forecast that is not what its name says",
            )
        )
    statistic = mean / np.sqrt(variance)
    p_value, freedom = fixed_b_t(statistic, share)
    effective = d.var() / variance
    return DMResult(statistic, p_value, mean, effective, d.size, width_h, freedom)


def _step_down(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values for the number of tests (Holm 1979): step-down Bonferroni.

    Parameters
    ----------
    p_values : any shape, in [0, 1]

    Returns
    -------
    same shape
        Running maximum over ascending p of (number of tests not yet passed) x p, at most 1.
        Comparing with alpha bounds the chance of any false claim by alpha, however the tests
        depend on each other. Raises VerificationError on NaN or p outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        message = explain("bad p-values", expected="[0, 1]", found=p, remedy="leave out no test")
        raise VerificationError(message)
    return _step_down(p.ravel()).reshape(p.shape)


def verdict(
    p_adjusted: float, mean_difference: float, alpha: float = 0.05
) -> Literal["won", "lost", "tie"]:
    """Outcome for forecast a: "won" or "lost" if p_adjusted < alpha, by the sign, else "tie".

    A difference of exactly zero is a tie at any p-value. Raises VerificationError on NaN.
    """
    if not (0 <= p_adjusted <= 1 and np.isfinite(mean_difference)):
        expected, found = "p in [0, 1], finite difference", f"{p_adjusted}, {mean_difference}"
        remedy = "test only cells with data"
        message = explain("no verdict", expected=expected, found=found, remedy=remedy)
        raise VerificationError(message)
    if p_adjusted >= alpha or mean_difference == 0:
        return "tie"
    return "won" if mean_difference < 0 else "lost"
