"""How much lower is the loss of one arm than that of another, and how sure is that?

Runs are paired: same world, same seed (hence the same initial weights where the networks share
them, order of samples and noise), same init times. Intervals: see
`aqnet.verification.contrasts.intervals`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.intervals import (
    BLOCK_H,
    REPLICATES,
    Draws,
    Interval,
    Paired,
    Spread,
    between_worlds,
    log_ratio,
    percentiles,
    replicates_of,
    student_t,
    within_worlds,
)
from aqnet.verification.contrasts.runs import EVERYTHING, Cells, Evaluations, Label
from aqnet.verification.significance import holm

__all__ = ["Contrast", "Gain", "contrast_table", "gain", "gain_of", "null_verdict", "paired"]

LEVEL = 0.95


class Contrast(NamedTuple):
    """A question: is the loss of `arm` lower than that of `reference`, by more than `at_least`?

    `main` contrasts were named before the runs and stand alone; the others are one family for
    Holm's correction. A `reference` that is a number is a loss, taken as known exactly.
    """

    arm: str
    reference: str | float
    at_least: float = 0.0
    main: bool = False


class Gain(NamedTuple):
    """1 - loss / loss of the reference [1]: positive is better; the rest of a row of a table.

    `within_*` is the 95 % interval for other seeds and other weather of these very worlds (with one
    seed a world: for other weather), `low` to `high` that for other worlds too: the farthest ends
    of `t_*`, `bootstrap_*` and `within_*`.
    `p`: two-sided, of no gain; `p_at_least`: one-sided, of a gain of at most `at_least`; both for
    `low` to `high`. `freedom` of `t_*`. `resampled`: what `low` to `high` allow for.
    """

    arm: str
    reference: str
    worlds: int
    pairs: int
    loss: float
    loss_of_reference: float
    gain: float
    low: float
    high: float
    p: float
    at_least: float
    p_at_least: float
    within_low: float
    within_high: float
    p_within: float
    t_low: float
    t_high: float
    bootstrap_low: float
    bootstrap_high: float
    freedom: float
    block_h: int
    resampled: str


def paired(
    evaluations: Evaluations,
    arm: str,
    reference: str | float,
    worlds: Sequence[str],
    cells: Cells = EVERYTHING,
) -> list[Paired]:
    """Losses of an arm and its reference in each world, of the seeds of the arm.

    Parameters
    ----------
    evaluations : Evaluations
    arm : str
    reference : str or float
        An arm, or a published loss, taken as known exactly.
    worlds : sequence of str
    cells : Cells

    Raises
    ------
    VerificationError
        The arm has no run in a world, or a run of it no partner: a run of the reference in the
        same world with the same seed. More seeds of the reference do not count.
    """
    found = []
    for world in worlds:
        seeds = evaluations.seeds(arm, world)
        constant = not isinstance(reference, str)
        partners = seeds if constant else evaluations.seeds(reference, world)
        if not seeds or (lone := sorted(set(seeds) - set(partners))):
            raise VerificationError(
                explain(f"{arm} and {reference} are not paired in {world}",
                        expected=f"seeds of {reference}: {list(partners)}",
                        found=f"no run of {arm}" if not seeds else f"{arm} alone: {lone}",
                        remedy="finish the runs, or leave the world or these seeds out")
            )  # fmt: skip
        names = [arm] if constant else [arm, reference]
        labels = [Label(name, world, seed) for name in names for seed in seeds]
        loss, share = evaluations.series(labels, cells)
        own = loss[: len(seeds)]
        other = float(reference) * np.tile(share, (len(seeds), 1)) if constant else loss[len(own) :]
        found.append(Paired(own, other, share, evaluations.worlds[world].times))
    return found


def gain(
    evaluations: Evaluations,
    contrast: Contrast,
    worlds: Sequence[str],
    cells: Cells = EVERYTHING,
    *,
    block_h: int = BLOCK_H,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Gain:
    """Gain of an arm over its reference in some worlds, with its intervals.

    Parameters
    ----------
    evaluations : Evaluations
    contrast : Contrast
        `reference` may be a number: a published loss.
    worlds : sequence of str
        Taken as a sample of worlds if there are several.
    cells : Cells
        Group of places, lead times, pollutants, season; constants of the loss.
    block_h : int
        Length of the blocks of time [h]: longer than the lead times.
    replicates, seed
        Of the bootstrap; the same seed gives the same interval.

    Raises
    ------
    VerificationError
        Runs without a partner, unknown names, or too few init times for the blocks.
    """
    pairs = paired(evaluations, contrast.arm, contrast.reference, worlds, cells)
    return gain_of(pairs, contrast, block_h=block_h, replicates=replicates, seed=seed)


def gain_of(
    pairs: Sequence[Paired],
    contrast: Contrast,
    *,
    block_h: int = BLOCK_H,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Gain:
    """`gain` of losses that are paired already."""
    theta, null = log_ratio(pairs), float(np.log1p(-contrast.at_least))
    several = len(pairs) > 1
    settings = (block_h, replicates, seed)
    found, inner = [], Interval(*[np.nan] * 4)
    if not several or any(w.arm.size > 1 for w in pairs):  # one loss a world: nothing within it
        spread = within_worlds(pairs, block_h)
        t, drawn = _both(theta, null, spread, pairs, False, settings)
        found, inner = [(t, drawn)], _farther(t, drawn)
    if several:
        spread = between_worlds(pairs)
        t, drawn = _both(theta, null, spread, pairs, True, settings)
        found.append((t, drawn))
    outer = _farther(*itertools.chain(*found))
    loss, other = np.mean([w.losses.mean(1) for w in pairs], axis=0)
    return Gain(
        contrast.arm, str(contrast.reference), len(pairs), sum(len(w.arm) for w in pairs),
        float(loss), float(other), float(-np.expm1(theta)), *_ends(outer), outer.p,
        contrast.at_least, outer.p_above, *_ends(inner), inner.p, *_ends(t), *_ends(drawn),
        spread.freedom, block_h, _resampled(pairs),
    )  # fmt: skip


def _ends(interval: Interval) -> tuple[float, float]:
    return float(-np.expm1(interval.high)), float(-np.expm1(interval.low))


def _farther(*found: Interval) -> Interval:
    """The farthest ends and the largest p-values."""
    lows, *rest = zip(*found, strict=True)
    return Interval(min(lows), *map(max, rest))


def _both(
    theta: float, null: float, spread: Spread, pairs: Sequence[Paired], worlds_too: bool,
    settings: tuple[int, int, int],
) -> tuple[Interval, Interval]:  # fmt: skip
    """Student's t and the bootstrap."""
    drawn = replicates_of(pairs, _draws_for(pairs, worlds_too, *settings))
    return student_t(theta, spread, LEVEL, null), percentiles(drawn, LEVEL, null)


def replicates_within(
    pairs: Sequence[Paired], block_h: int, replicates: int, seed: int
) -> np.ndarray:
    """Log ratios (B,) ascending, of resampled seeds and blocks of these worlds."""
    return replicates_of(pairs, _draws_for(pairs, False, block_h, replicates, seed))


def _draws_for(pairs: Sequence[Paired], worlds_too: bool, *settings: int) -> Draws:
    shape = tuple((len(w.arm), w.times.tobytes()) for w in pairs)
    return _draws(shape, worlds_too, *settings)


@lru_cache(maxsize=4)  # many cells of the same runs are drawn alike; 100 MB each at most
def _draws(
    shape: tuple[tuple[int, bytes], ...], worlds_too: bool, block_h: int, count: int, seed: int
) -> Draws:
    sizes = [(seeds, np.frombuffer(times, "datetime64[h]")) for seeds, times in shape]
    return Draws(sizes, block_h, resample_worlds=worlds_too, replicates=count, seed=seed)


def _resampled(pairs: Sequence[Paired]) -> str:
    """What the interval allows for."""
    levels = {"worlds": len(pairs) > 1, "seeds": any(len(w.arm) > 1 for w in pairs),
              "blocks of time": any(w.times.size > 1 for w in pairs)}  # fmt: skip
    return ", ".join(name for name, used in levels.items() if used)


# ---- tables


def contrast_table(
    evaluations: Evaluations,
    contrasts: Sequence[Contrast],
    worlds: Sequence[str],
    cells: Cells = EVERYTHING,
    **settings: int,
) -> pd.DataFrame:
    """A row for each contrast, as `Gain`, with Holm's correction of those that are not main ones.

    Parameters
    ----------
    evaluations, worlds, cells
        As for `gain`.
    contrasts : sequence of Contrast
        Those that are not `main` are the family, all of them: leave out none that was tried.
    settings
        block_h, replicates, seed, see `gain`.

    Returns
    -------
    pandas.DataFrame
        The fields of `Gain`; main; family: its size (1 for main ones); p_holm; clear_of_zero: the
        interval is above 0 and p_holm below 5 %; reached: the gain is at_least or more, and
        reached_surely: p_at_least is below 5 %, which is not asked of a target on the gain.
    """
    rows = [gain(evaluations, c, worlds, cells, **settings)._asdict() | {"main": c.main}
            for c in contrasts]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*Gain._fields, "main"])
    family = ~table["main"].to_numpy(bool)
    table["family"] = np.where(family, int(family.sum()), 1)
    table["p_holm"] = table["p"]
    if family.any():
        table.loc[family, "p_holm"] = holm(table.loc[family, "p"].to_numpy())
    table["clear_of_zero"] = (table["low"] > 0) & (table["p_holm"] < 1 - LEVEL)
    table["reached"] = table["gain"] >= table["at_least"]
    table["reached_surely"] = table["p_at_least"] < 1 - LEVEL
    return table


def null_verdict(found: Gain, margin: float) -> str:
    """What a contrast that should be null says; a wide interval is no null.

    Returns
    -------
    str
        "null": 0 is in the interval, which is nowhere farther from it than `margin` (a gain; two
        one-sided tests at 2.5 %); "undecided": 0 is in it, and so are gains beyond the margin;
        "gain" or "loss": 0 is not in it.
    """
    if found.low > 0 or found.high < 0:
        return "gain" if found.low > 0 else "loss"
    return "null" if max(-found.low, found.high) <= margin else "undecided"
