"""Skill against other forecasts with 95 % intervals, beside the test of its significance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.groups import ALL
from aqnet.verification.scoreboard import Scoreboard
from aqnet.verification.scores import CellComparison, compare, window_h
from aqnet.verification.significance import MAX_BANDWIDTH_SHARE

__all__ = ["REPLICATES", "Skill", "rmse_skill", "skill_note", "skill_table"]

REPLICATES = 2000  # the ends of a 95 % interval then move by about 2 % of its width


class Skill(NamedTuple):
    """1 - RMSE / RMSE of the reference [1]: positive is better; with the ends of the interval."""

    skill: float
    low: float
    high: float
    block_h: int


def _block_sums(values: np.ndarray, first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Sums of `size` values from `first` on, round the end: shape of `first`."""
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values]))])
    return total[first + size] - total[first]


def rmse_skill(
    loss: np.ndarray,
    reference: np.ndarray,
    times: np.ndarray,
    block_h: int,
    *,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Skill:
    """Skill of a forecast and its interval by the circular block bootstrap.

    Blocks of `block_h` consecutive hours are drawn with replacement, from any hour on and round the
    end of the period (Politis and Romano 1992), the same blocks for both forecasts; hours without
    a pair are part of a block and add nothing. Percentiles of the replicates, which do not depend
    on whether the skill is one of RMSE or of MSE.

    Parameters
    ----------
    loss, reference : (T,)
        Squared errors of each init time on common pairs, as from `Scoreboard.loss_series`.
    times : (T,) datetime64
        Init times, ascending.
    block_h : int
        Hours of a block: longer than the errors are correlated (`significance.bandwidth_h`).
    level : float
        Of the interval, between 0 and 1.
    replicates, seed
        The same seed gives the same interval.

    Raises
    ------
    VerificationError
        Series that do not fit, a reference without error, or fewer than 5 blocks of time.
    """
    a, b = np.asarray(loss, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    times = np.asarray(times).astype("datetime64[h]")
    fits = a.ndim == 1 and a.shape == b.shape == times.shape and a.size > 1
    fits = fits and bool((np.diff(times) > np.timedelta64(0, "h")).all())
    hours = int((times[-1] - times[0]).astype(int)) + 1 if fits else 0
    enough = hours * MAX_BANDWIDTH_SHARE >= block_h
    if not (fits and enough and np.isfinite(a).all() and np.isfinite(b).all() and b.sum() > 0):
        raise VerificationError(
            explain("no interval of skill", expected="two finite series (T,), ascending times, "
                    f"at least {int(block_h / MAX_BANDWIDTH_SHARE)} h, a reference with errors",
                    found=f"shapes {a.shape}, {b.shape}, {times.shape}, {hours} h, "
                    f"mean loss of the reference {b.mean() if b.size else np.nan:g}",
                    remedy="score a longer period")
        )  # fmt: skip
    at = (times - times[0]).astype(int)
    series = np.zeros((2, hours))
    series[:, at] = a, b
    rng, count = np.random.default_rng(seed), -(-hours // block_h)
    first = rng.integers(0, hours, (replicates, count))
    size = np.full(count, block_h)
    size[-1] = hours - block_h * (count - 1)
    mine, other = (_block_sums(one, first, size).sum(1) for one in series)
    usable = other > 0  # all blocks may fall into a gap
    drawn = 1 - np.sqrt(mine[usable] / other[usable])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Skill(float(1 - np.sqrt(a.sum() / b.sum())), float(low), float(high), int(block_h))


def skill_table(
    board: Scoreboard,
    model: str,
    references: Sequence[str],
    group: str = ALL,
    *,
    alpha: float = 0.05,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> pd.DataFrame:
    """Skill of a forecast against others, for each pollutant and lead time of a group.

    Parameters
    ----------
    board : Scoreboard
    model : str
    references : sequence of str
        Other forecasts of the board.
    group : str
    alpha : float
        Level of the tests and 1 - level of the intervals. The Holm correction is over the cells
        (pollutants x lead times) of one reference.
    replicates, seed
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        pollutant, lead_h, group, model, reference, n_times, rmse_over_space_time and
        rmse_of_reference [ug/m3], skill, skill_low, skill_high [1], block_h, statistic, p, p_holm,
        n_effective, verdict (won, lost, tie).

    Raises
    ------
    VerificationError
        Unknown names, a cell without pairs, or too short a period.
    """
    cells = [(lead, name) for name in board.design.pollutants for lead in board.design.leads]
    return pd.DataFrame([
        _row(board, model, group, cell, (1 - alpha, replicates, seed))
        for reference in references
        for cell in compare(board, model, dict.fromkeys(cells, reference), group, alpha)
    ])  # fmt: skip


def skill_note(table: pd.DataFrame) -> str:
    """What the columns of a `skill_table` at its default level are, in a sentence."""
    cells = int(table.groupby(["group", "reference"]).size().max())
    return (
        "skill: 1 - RMSE / RMSE of the reference, 95 % intervals by a circular block bootstrap "
        f"with blocks of block_h hours, {REPLICATES} replicates; p: two-sided Diebold-Mariano "
        "test of squared errors, variance after Newey and West with a Bartlett window of block_h, "
        f"fixed-b t distribution; p_holm and verdict: after Holm's correction for the {cells} "
        "cells of a reference and group, at 5 %"
    )


def _row(
    board: Scoreboard, model: str, group: str, cell: CellComparison,
    bootstrap: tuple[float, int, int],
) -> dict:  # fmt: skip
    at = (cell.lead_h, cell.pollutant, group)
    times, loss = board.loss_series(model, *at)
    _, other = board.loss_series(cell.opponent, *at)
    width, (level, replicates, seed) = window_h(board.design, cell.lead_h), bootstrap
    skill = rmse_skill(loss, other, times, width, level=level, replicates=replicates, seed=seed)
    return {
        "pollutant": cell.pollutant,
        board.design.lead_axis: cell.lead_h,
        "group": group,
        "model": model,
        "reference": cell.opponent,
        "n_times": cell.n_times,
        "rmse_over_space_time": cell.rmse_model,
        "rmse_of_reference": cell.rmse_opponent,
        "skill": skill.skill,
        "skill_low": skill.low,
        "skill_high": skill.high,
        "block_h": skill.block_h,
        "statistic": cell.statistic,
        "p": cell.p,
        "p_holm": cell.p_holm,
        "n_effective": cell.n_effective,
        "verdict": cell.verdict,
    }
