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
from aqnet.verification.significance import (
    MAX_BANDWIDTH_SHARE,
    bandwidth_h,
    diebold_mariano,
    holm,
    verdict,
)

__all__ = ["REPLICATES", "Skill", "rmse_skill", "skill_table"]

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
    rows = []
    for reference in references:
        part = [
            _row(board, model, reference, pollutant, lead, group, (1 - alpha, replicates, seed))
            for pollutant in board.design.pollutants
            for lead in board.design.lead_times_h
        ]
        adjusted = holm(np.array([row["p"] for row in part]))
        for row, p in zip(part, adjusted, strict=True):
            outcome = verdict(float(p), row.pop("mean_difference"), alpha)
            rows.append(row | {"p_holm": float(p), "verdict": outcome})
    return pd.DataFrame(rows)


def _row(
    board: Scoreboard, model: str, reference: str, pollutant: str, lead: int, group: str,
    bootstrap: tuple[float, int, int],
) -> dict:  # fmt: skip
    times, loss = board.loss_series(model, lead, pollutant, group)
    _, other = board.loss_series(reference, lead, pollutant, group)
    if not times.size:
        raise VerificationError(
            explain("no pairs", expected="scored pairs", remedy="score a longer period",
                    found=f"none for {pollutant} at {lead} h, {group}")
        )  # fmt: skip
    width, (level, replicates, seed) = bandwidth_h(lead), bootstrap
    test = diebold_mariano(loss, other, width, times)
    skill = rmse_skill(loss, other, times, width, level=level, replicates=replicates, seed=seed)
    return {
        "pollutant": pollutant,
        "lead_h": lead,
        "group": group,
        "model": model,
        "reference": reference,
        "n_times": int(times.size),
        "rmse_over_space_time": float(np.sqrt(loss.mean())),
        "rmse_of_reference": float(np.sqrt(other.mean())),
        "skill": skill.skill,
        "skill_low": skill.low,
        "skill_high": skill.high,
        "block_h": skill.block_h,
        "statistic": test.statistic,
        "p": test.p_value,
        "n_effective": test.n_effective,
        "mean_difference": test.mean_difference,
    }
