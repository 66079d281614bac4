"""Intervals of gains: blocks and replicates as in slow loops, Student's t, how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from contrast_case import FEW, PLUME, WORLDS, three_arms, times_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.estimates import Contrast, gain, gain_of, null_verdict
from aqnet.verification.contrasts.intervals import (
    Draws,
    Paired,
    between_worlds,
    log_ratio,
    over_time,
    percentiles,
    replicates_of,
    within_worlds,
)
from aqnet.verification.contrasts.runs import read_evaluations
from aqnet.verification.significance import bartlett_variance_of_mean


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return read_evaluations(three_arms(tmp_path_factory.mktemp("runs")))


# ---- resampling

GAPS = np.datetime64("2015-01-01T00", "h") + np.array([0, 6, 12, 18, 42, 48, 54, 60, 66, 90])


@pytest.mark.parametrize("block_h", [6, 12, 20, 48])
def test_blocks_are_those_of_slow_loops(block_h):
    found = over_time(np.random.default_rng(3), GAPS, block_h, 40)
    rng, length = np.random.default_rng(3), 16  # steps of 6 h, the last at 90 h
    block = math.ceil(block_h / 6)
    count = math.ceil(length / block)
    first = rng.integers(0, length, (40, count))
    for row, starts in zip(found, first, strict=True):
        hits = np.zeros(length, int)
        for i, start in enumerate(starts):
            size = block if i < count - 1 else length - block * (count - 1)
            for k in range(size):
                hits[(start + k) % length] += 1
        assert hits.sum() == length
        assert row.tolist() == hits[(GAPS - GAPS[0]).astype(int) // 6].tolist()


def lognormal_worlds(
    rng: np.random.Generator, worlds: int = 3, seeds: int = 3, times: int = 180, *,
    between: float = 0.03, of_seeds: float = 0.01, weather: float = 0.1, true: float = 0.1,
) -> list[Paired]:  # fmt: skip
    """Losses whose log ratio varies by world, by seed and with weather of a memory of 30 h."""
    when, phi = times_of()[0] + 48 * np.arange(times), np.exp(-48 / 30)

    def red(*shape):
        x = rng.standard_normal(shape) * np.sqrt(1 - phi**2)
        x[..., 0] /= np.sqrt(1 - phi**2)
        return signal.lfilter([1], [1, -phi], x, axis=-1)

    found = []
    for _ in range(worlds):
        level = np.log1p(-true) + between * rng.standard_normal()
        common = np.exp(0.1 * rng.standard_normal() + 0.3 * red(times))
        other = common * (1 + 0.02 * rng.standard_normal((seeds, 1)))
        own = np.exp(level + of_seeds * rng.standard_normal((seeds, 1)))
        ratio = own * (1 + weather * red(times) + 0.03 * red(seeds, times))
        found.append(Paired(other * ratio, other, np.ones(times), when))
    return found


@pytest.mark.parametrize("resample_worlds", [True, False])
def test_replicates_are_those_of_slow_loops(resample_worlds):
    rng = np.random.default_rng(0)
    worlds = lognormal_worlds(rng, 2, 3, 20)
    share = rng.uniform(0.5, 1.5, 20)
    worlds[0] = Paired(worlds[0].arm, worlds[0].reference, share / share.mean(), worlds[0].times)
    shape = [(3, w.times) for w in worlds]
    draws = Draws(shape, 96, resample_worlds=resample_worlds, replicates=30)
    total, drawn = np.zeros((2, 30)), np.zeros(30, int)
    for world, one in zip(worlds, draws.worlds, strict=True):
        for replicate, seeds, times in zip(one.replicate, one.seeds, one.times, strict=True):
            drawn[replicate] += 1
            for kind, series in enumerate((world.arm, world.reference)):
                loss = 0.0
                for s in range(3):
                    sums = sum(int(c) * x for c, x in zip(times, series[s], strict=True))
                    loss += seeds[s] * sums / sum(int(c) * v for c, v in
                                                  zip(times, world.share, strict=True))  # fmt: skip
                total[kind, replicate] += loss
    assert (drawn == 2).all()
    expected = np.sort(np.log(total[0] / total[1]))
    assert replicates_of(worlds, draws) == pytest.approx(expected, rel=1e-12)
    if not resample_worlds:
        assert all((np.sort(w.replicate) == np.arange(30)).all() for w in draws.worlds)


def test_draws_share_blocks_between_arms_and_seeds():
    """An arm that is its reference in other units has no spread at all."""
    worlds = lognormal_worlds(np.random.default_rng(1))
    same = [Paired(0.9 * w.reference, w.reference, w.share, w.times) for w in worlds]
    draws = Draws([(3, w.times) for w in worlds], resample_worlds=True, replicates=50)
    assert replicates_of(same, draws) == pytest.approx(np.log(0.9), abs=1e-12)


def test_percentiles_and_their_p_values():
    drawn = np.linspace(-0.3, 0.1, 401)  # a quarter of it above 0
    found = percentiles(drawn, 0.95)
    assert (found.low, found.high) == pytest.approx((-0.29, 0.09))
    assert found.p == pytest.approx(2 * 102 / 402)
    assert percentiles(drawn, 0.95, null=-0.3).p_above == 1.0
    assert percentiles(drawn - 1, 0.95).p == pytest.approx(2 / 402)


# ---- Student's t


def test_spread_between_worlds_is_the_standard_error_of_influences():
    worlds = lognormal_worlds(np.random.default_rng(2), 4)
    arm = np.array([w.arm.mean() for w in worlds])
    other = np.array([w.reference.mean() for w in worlds])
    u = arm / arm.mean() - other / other.mean()
    found = between_worlds(worlds)
    assert found.error == pytest.approx(stats.sem(u)) and found.freedom == 3
    # first order: about the standard error of the logarithms
    assert found.error == pytest.approx(stats.sem(np.log(arm / other)), rel=0.2)


def test_spread_within_worlds_adds_seeds_and_blocks():
    worlds = lognormal_worlds(np.random.default_rng(4), 2, 5)
    means = np.mean([w.losses.mean(1) for w in worlds], axis=0)
    parts = []
    for w in worlds:
        of_seeds = w.arm.mean(1) / means[0] - w.reference.mean(1) / means[1]
        parts.append((of_seeds.var(ddof=1) / 5, 4))
        u = w.arm.mean(0) / means[0] - w.reference.mean(0) / means[1]
        hours = (w.times - w.times[0]).astype(int)
        b = 168 / (180 * 48)
        variance = bartlett_variance_of_mean(u - u.mean(), hours, 168) / (1 - b + b**2 / 3)
        parts.append((variance, 1.5 / b))
    total = sum(v for v, _ in parts)
    found = within_worlds(worlds, 168)
    assert found.error == pytest.approx(np.sqrt(total) / 2)
    assert found.freedom == pytest.approx(total**2 / sum(v**2 / f for v, f in parts))


def test_two_worlds_of_one_loss_each_have_a_t_interval_only():
    worlds = [Paired(np.array([[x]]), np.ones((1, 1)), np.ones(1), GAPS[:1]) for x in (0.9, 0.8)]
    found = gain_of(worlds, PLUME, **FEW)
    assert found.gain == pytest.approx(0.15) and found.resampled == "worlds"
    assert math.isnan(found.within_low) and found.low == found.t_low < found.bootstrap_low
    with pytest.raises(VerificationError, match="nothing to resample"):
        gain_of(worlds[:1], PLUME, **FEW)


def test_the_interval_is_the_farthest_of_all(runs):
    found = gain(runs, PLUME, list(WORLDS), **FEW)
    assert found.low == min(found.t_low, found.bootstrap_low, found.within_low)
    assert found.high == max(found.t_high, found.bootstrap_high, found.within_high)
    assert found.p >= found.p_within and found.freedom == 2
    alone = gain(runs, PLUME, ["a"], **FEW)
    assert (alone.low, alone.high, alone.p) == (alone.within_low, alone.within_high, alone.p_within)
    assert alone.resampled == "seeds, blocks of time"


def coverage(trials: int, true: float = 0.1, **case: float) -> dict[str, float]:
    """How often intervals hold the true gain, and the one-sided test of it rejects."""
    rng, hits = np.random.default_rng(8), {"all": 0, "t": 0, "bootstrap": 0, "rejects": 0}
    for trial in range(trials):
        worlds = lognormal_worlds(rng, true=true, **case)
        found = gain_of(worlds, Contrast("a", "b", true), replicates=200, seed=trial)
        hits["all"] += found.low <= true <= found.high
        hits["t"] += found.t_low <= true <= found.t_high
        hits["bootstrap"] += found.bootstrap_low <= true <= found.bootstrap_high
        hits["rejects"] += found.p_at_least < 0.05
    return {name: count / trials for name, count in hits.items()}


# Of 1000 trials: 0.95 for worlds that differ, 0.99 where they do not (t alone 0.94); one world 0.93
# to 0.95. The percentiles alone: 0.76 where worlds differ, 0.74 for three seeds of one world.
@pytest.mark.parametrize(
    ("case", "too_narrow"),
    [
        ({"between": 0.03}, True),
        ({"between": 0.0, "of_seeds": 0.03}, False),
        ({"between": 0.0, "weather": 0.3, "seeds": 5, "of_seeds": 0.002}, False),
        ({"worlds": 1, "between": 0.0, "of_seeds": 0.03, "weather": 0.02}, True),
        ({"worlds": 1, "between": 0.0, "of_seeds": 0.002, "weather": 0.3, "seeds": 5}, False),
    ],
)
def test_intervals_cover(case, too_narrow):
    found = coverage(120, **case)
    assert found["all"] >= 0.89  # 0.95 less three standard errors
    assert found["rejects"] <= 0.11
    assert (found["bootstrap"] < 0.88) == too_narrow


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [1, 3, 5])
def test_intervals_cover_in_many_trials(worlds):
    found = coverage(1500, worlds=worlds, between=0.02 * (worlds > 1), seeds=5, of_seeds=0.02)
    assert found["all"] >= 0.93 and found["rejects"] <= 0.07


# ---- properties


@st.composite
def pairs(draw):
    """A few worlds with a few seeds and 40 init times, whatever their losses."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([0.01, 0.1, 0.5]))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        shape = (draw(st.integers(1, 4)), 40)
        arm, other = np.exp(size * rng.standard_normal((2, *shape)))
        share = rng.uniform(0.8, 1.2, 40)
        found.append(Paired(arm, other, share / share.mean(), times_of()[:40] + 0))
    return found


SHORT = {"replicates": 100, "block_h": 24}


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_swapped_arms_flip_the_sign_of_the_log_ratio(worlds):
    swapped = [Paired(w.reference, w.arm, w.share, w.times) for w in worlds]
    assert log_ratio(swapped) == pytest.approx(-log_ratio(worlds), abs=1e-12)
    one, other = gain_of(worlds, PLUME, **SHORT), gain_of(swapped, PLUME, **SHORT)
    assert np.log1p(-other.low) == pytest.approx(-np.log1p(-one.high), abs=1e-9)
    assert np.log1p(-other.high) == pytest.approx(-np.log1p(-one.low), abs=1e-9)
    assert other.p == pytest.approx(one.p)


@settings(max_examples=25, deadline=None)
@given(pairs(), st.floats(0.1, 10))
def test_units_of_the_loss_do_not_matter(worlds, scale):
    scaled = [Paired(scale * w.arm, scale * w.reference, w.share, w.times) for w in worlds]
    one, other = gain_of(worlds, PLUME, **SHORT), gain_of(scaled, PLUME, **SHORT)
    for name in ("gain", "low", "high", "p", "within_low", "bootstrap_high"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(pairs(), st.floats(0.5, 2))
def test_intervals_follow_the_arm_and_hold_the_estimate(worlds, factor):
    """A loss times a factor moves the log ratio and both ends by its logarithm."""
    other = [Paired(factor * w.arm, w.reference, w.share, w.times) for w in worlds]
    before, after = gain_of(worlds, PLUME, **SHORT), gain_of(other, PLUME, **SHORT)
    for name in ("gain", "low", "high"):
        moved = np.log1p(-getattr(after, name)) - np.log1p(-getattr(before, name))
        assert moved == pytest.approx(np.log(factor), abs=1e-9)
    assert before.low <= before.gain <= before.high
    assert before.low <= before.within_low and before.within_high <= before.high


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_an_arm_against_itself_is_a_certain_zero(worlds):
    same = [Paired(w.arm, w.arm, w.share, w.times) for w in worlds]
    found = gain_of(same, PLUME, **SHORT)
    assert found.gain == pytest.approx(0, abs=1e-12) == found.low == found.high
    assert found.p > 0.9 and null_verdict(found, 1e-6) == "null"
