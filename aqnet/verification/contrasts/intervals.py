"""Intervals of the log ratio of two losses over worlds, paired seeds and blocks of time.

Let A and R be the losses of an arm and its reference, averaged over time, seeds and worlds, and
theta = ln(A / R); the gain is 1 - exp(theta). On this scale exchanging the two flips a sign. Two
answers are given, because neither is enough with three worlds:

* A nested bootstrap: worlds, seeds within a world, circular blocks of time (shared by the
  arm, its reference and all seeds of the world). Percentiles of few clusters are too narrow: from
  three worlds whose true effects differ the interval can be no wider than their range, which
  covers the mean of all worlds in 75 % of cases.
* Student's t on the influences u = a / A - r / R of the worlds, whose standard error holds all that
  varies between worlds, also their own seeds and weather (as Hartung and Knapp 2001 with equal
  weights; exact for normal influences). With 3 worlds 2 degrees of freedom, factor 4.3. Within
  fixed worlds the variances of seeds and of blocks add up (Cameron, Gelbach and Miller 2011
  without the term of the intersection, hence not too small), with the degrees of freedom of
  Satterthwaite (1946).

The reported interval reaches to the farthest end of any of them, its p-value is the largest one:
conservative, also where few worlds agree by chance. What the intervals of an arm over a few worlds
cannot say, whatever the method: without the assumption that influences are about normal, nothing
below p = 1/4 (three signs). tests/test_contrast_intervals.py has the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.significance import MAX_BANDWIDTH_SHARE, bartlett_variance_of_mean

__all__ = [
    "BLOCK_H",
    "REPLICATES",
    "Draws",
    "Interval",
    "Paired",
    "Spread",
    "between_worlds",
    "log_ratio",
    "over_time",
    "percentiles",
    "replicates_of",
    "student_t",
    "within_worlds",
]

BLOCK_H = 168  # a week: longer than a front and its pollution, and whole days
REPLICATES = 4000  # the smallest two-sided p is then 0.0005, of use after Holm over 15 arms


@dataclass(frozen=True, eq=False)
class Paired:
    """Losses of an arm and of its reference in one world.

    Attributes
    ----------
    arm, reference : (S, N) float64
        Of the same S seeds at N init times; means over N are losses [1].
    share : (N,) float64
        Weight of each init time, mean 1.
    times : (N,) datetime64[h], ascending
        N = 1 where there is no series: time is not resampled then.
    """

    arm: np.ndarray
    reference: np.ndarray
    share: np.ndarray
    times: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """(2, S): of arm and reference."""
        return np.stack([self.arm.mean(1), self.reference.mean(1)])


class Spread(NamedTuple):
    """Standard error of a log ratio [1] and its degrees of freedom."""

    error: float
    freedom: float


class Interval(NamedTuple):
    """Of a log ratio: ends, p two-sided for 0, p one-sided for a log ratio >= a given null."""

    low: float
    high: float
    p: float
    p_above: float


def _means(worlds: Sequence[Paired]) -> np.ndarray:
    """(2, W): loss of arm and reference in each world."""
    return np.stack([w.losses.mean(1) for w in worlds], axis=1)


def log_ratio(worlds: Sequence[Paired]) -> float:
    """ln of the mean loss of the arm over that of the reference; worlds count equally."""
    arm, reference = _means(worlds).mean(1)
    return float(np.log(arm / reference))


def _influence(pair: np.ndarray, means: np.ndarray) -> np.ndarray:
    """u = a / A - r / R: what a part adds to the log ratio, first order; mean zero."""
    return pair[0] / means[0] - pair[1] / means[1]


# ---- Student's t


def between_worlds(worlds: Sequence[Paired]) -> Spread:
    """From how the worlds differ; needs two."""
    means = _means(worlds)
    u = _influence(means, means.mean(1))
    return Spread(float(u.std(ddof=1) / np.sqrt(u.size)), u.size - 1.0)


def _step_h(times: np.ndarray) -> int:
    return int(np.gcd.reduce(np.diff(times.astype("datetime64[h]").astype(np.int64))))


def _time_variance(u: np.ndarray, share: np.ndarray, times: np.ndarray, block_h: int) -> Spread:
    """Variance (in place of an error) of the mean of influences, and its degrees of freedom.

    Bartlett window of `block_h`, which is what blocks of that length resample, corrected for the
    removed mean; times without weight (another season) count as gaps.
    """
    step, used = _step_h(times), int((share > 0).sum())
    b = block_h / (used * step)
    if b > MAX_BANDWIDTH_SHARE:
        raise VerificationError(
            explain("too few init times for blocks", expected="at least "
                    f"{int(block_h / MAX_BANDWIDTH_SHARE)} h for blocks of {block_h} h",
                    found=f"{used} times {step} h apart", remedy="shorter blocks, a longer period")
        )  # fmt: skip
    hours = (times - times[0]).astype("timedelta64[h]").astype(np.int64)
    variance = bartlett_variance_of_mean(u, hours, max(block_h, step))
    return Spread(variance / (1 - b + b**2 / 3), 1.5 / b)


def _parts(world: Paired, total: np.ndarray, block_h: int) -> list[Spread]:
    """Variances of seeds and of time of the mean influence of one world."""
    found = []
    if len(world.arm) > 1:
        u = _influence(world.losses, total)
        found.append(Spread(float(u.var(ddof=1)) / u.size, u.size - 1.0))
    if world.times.size > 1:
        both = np.stack([world.arm.mean(0), world.reference.mean(0)])
        rest = both - world.losses.mean(1)[:, None] * world.share
        found.append(_time_variance(_influence(rest, total), world.share, world.times, block_h))
    return found


def within_worlds(worlds: Sequence[Paired], block_h: int) -> Spread:
    """From seeds and time within each world, the worlds as they are."""
    total = _means(worlds).mean(1)
    parts = [part for world in worlds for part in _parts(world, total, block_h)]
    if not parts:
        raise VerificationError(
            explain("nothing to resample", expected="several seeds, init times or worlds",
                    found="one seed without a series of times", remedy="run more seeds")
        )  # fmt: skip
    variance = sum(p.error for p in parts)
    squares = sum(p.error**2 / p.freedom for p in parts)
    freedom = variance**2 / squares if squares > 0 else min(p.freedom for p in parts)
    return Spread(float(np.sqrt(variance)) / len(worlds), float(freedom))


def student_t(theta: float, spread: Spread, level: float, null: float = 0.0) -> Interval:
    """Student's t interval of a log ratio; `null` is that of the one-sided p."""
    half = stats.t.ppf((1 + level) / 2, spread.freedom) * spread.error
    return Interval(theta - half, theta + half, 2 * _tail(-abs(theta), spread),
                    _tail(theta - null, spread))  # fmt: skip


def _tail(departure: float, spread: Spread) -> float:
    """P(t <= departure / error); 1/2 for no departure, 0 or 1 for one without any error."""
    if spread.error == 0:
        return (1 + np.sign(departure)) / 2
    return float(stats.t.cdf(departure / spread.error, spread.freedom))


# ---- bootstrap


def over_time(
    rng: np.random.Generator, times: np.ndarray, block_h: int, replicates: int
) -> np.ndarray:
    """How often each init time is in circular blocks that make up a period of the same length.

    Returns
    -------
    (replicates, N) uint8
        Blocks begin at any step and go round the end; the last is cut (Politis and Romano 1992).
    """
    step = _step_h(times)
    at = (times - times[0]).astype("timedelta64[h]").astype(np.int64) // step
    length, block = int(at[-1]) + 1, max(-(-block_h // step), 1)
    count = -(-length // block)
    size = np.full(count, block)
    size[-1] = length - block * (count - 1)
    found = np.empty((replicates, times.size), np.uint8)
    for rows in np.array_split(np.arange(replicates), -(-replicates // 500)):  # memory
        first = rng.integers(0, length, (rows.size, count))
        ends = np.zeros((rows.size, 2 * length + 1), np.int32)
        row = np.arange(rows.size)[:, None]
        np.add.at(ends, (row, first), 1)
        np.add.at(ends, (row, first + size), -1)
        covered = ends.cumsum(1)
        found[rows] = (covered[:, :length] + covered[:, length : 2 * length])[:, at]
    return found


@dataclass(frozen=True, eq=False)
class WorldDraws:
    """Draws (D) of one world: the replicate they belong to, shares of seeds, counts of times."""

    replicate: np.ndarray  # (D,)
    seeds: np.ndarray  # (D, S)
    times: np.ndarray | None  # (D, N)


class Draws:
    """Nested draws for worlds of these seeds and times, to be used for any losses of them.

    Parameters
    ----------
    shape : sequence of (int, (N,) datetime64)
        Number of seeds and init times of each world.
    block_h : int
    resample_worlds : bool
        False: each world as often as it is there.
    replicates, seed : int
    """

    def __init__(
        self,
        shape: Sequence[tuple[int, np.ndarray]],
        block_h: int = BLOCK_H,
        *,
        resample_worlds: bool,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        rng, count = np.random.default_rng(seed), len(shape)
        chosen = np.tile(np.arange(count), (replicates, 1))
        if resample_worlds:
            chosen = rng.integers(0, count, (replicates, count))
        self.replicates, self.worlds = replicates, []
        for world, (seeds, times) in enumerate(shape):
            replicate = np.nonzero(chosen == world)[0]  # once for each time it was drawn
            drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), replicate.size)
            blocks = over_time(rng, times, block_h, replicate.size) if times.size > 1 else None
            self.worlds.append(WorldDraws(replicate, drawn / seeds, blocks))


def replicates_of(worlds: Sequence[Paired], draws: Draws) -> np.ndarray:
    """Log ratios (B,) of the replicates, ascending; those without a single pair are left out."""
    total = np.zeros((2, draws.replicates))
    for world, drawn in zip(worlds, draws.worlds, strict=True):
        pair = np.stack([world.arm, world.reference])
        if drawn.times is None:
            losses = np.einsum("ksn,bs->kb", pair, drawn.seeds)
        else:
            times = drawn.times.astype(np.float64)
            sums = np.einsum("kbs,bs->kb", times @ pair.swapaxes(1, 2), drawn.seeds)
            with np.errstate(invalid="ignore", divide="ignore"):
                losses = sums / (times @ world.share)
        for one, add in zip(total, losses, strict=True):
            np.add.at(one, drawn.replicate, add)
    usable = np.isfinite(total).all(0) & (total > 0).all(0)
    return np.sort(np.log(total[0, usable] / total[1, usable]))


def percentiles(drawn: np.ndarray, level: float, null: float = 0.0) -> Interval:
    """Percentile interval of sorted replicates; p-values count the estimate as one of them."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])

    def above(value: float) -> float:
        return float((1 + (drawn >= value).sum()) / (1 + drawn.size))

    below = float((1 + (drawn <= 0).sum()) / (1 + drawn.size))
    return Interval(float(low), float(high), min(2 * min(above(0.0), below), 1.0), above(null))
