"""Gains by place, season, lead time and pollutant, by world, and against transport strength."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.estimates import (
    LEVEL,
    Contrast,
    Gain,
    gain,
    null_verdict,
    paired,
    replicates_within,
)
from aqnet.verification.contrasts.intervals import (
    BLOCK_H,
    REPLICATES,
    Spread,
    log_ratio,
    percentiles,
    student_t,
    within_worlds,
)
from aqnet.verification.contrasts.runs import EVERYTHING, Cells, Evaluations
from aqnet.verification.groups import SEASONS
from aqnet.verification.significance import MAX_BANDWIDTH_SHARE, holm

__all__ = [
    "BY",
    "Trend",
    "block_table",
    "breakdown_table",
    "loss_table",
    "null_table",
    "seasons_of",
    "trend",
    "world_table",
]

BY = ("group", "season", "lead_h", "pollutant")


def loss_table(evaluations: Evaluations, worlds: Sequence[str]) -> pd.DataFrame:
    """What each run of these worlds measured.

    Returns
    -------
    pandas.DataFrame
        arm, world, seed, loss, loss_original_constants [1], parameters, optimiser_steps [1],
        train_wall_s [s].
    """
    names = ("loss", "loss_original_constants", "parameters", "optimiser_steps", "train_wall_s")
    rows = [label._asdict() | {name: evaluations.metrics[label][name] for name in names}
            for label in evaluations.squares if label.world in worlds]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "world", "seed", *names])


def world_table(
    evaluations: Evaluations,
    contrasts: Sequence[Contrast],
    worlds: Sequence[str],
    cells: Cells = EVERYTHING,
    **settings: int,
) -> pd.DataFrame:
    """`Gain` of each contrast in each world by itself, with a column world."""
    return pd.DataFrame([
        {"world": world} | gain(evaluations, c, [world], cells, **settings)._asdict()
        for c in contrasts for world in worlds
    ], columns=["world", *Gain._fields])  # fmt: skip


def seasons_of(evaluations: Evaluations, worlds: Sequence[str], block_h: int) -> tuple[str, ...]:
    """Seasons with enough init times for blocks of `block_h` in each of the worlds."""
    found = []
    for season in SEASONS:
        shares = [
            evaluations.in_season(world, season).any(1).mean()
            * np.ptp(evaluations.worlds[world].times).astype("timedelta64[h]").astype(int)
            for world in worlds
        ]
        if min(shares) * MAX_BANDWIDTH_SHARE >= block_h:
            found.append(season)
    return tuple(found)


def _labels(evaluations: Evaluations, worlds: Sequence[str], axis: str, block_h: int) -> tuple:
    if axis not in BY:
        raise VerificationError(
            explain("gains are not broken down by this", expected=", ".join(BY), found=axis,
                    remedy="choose among them")
        )  # fmt: skip
    if axis == "group":
        return evaluations.groups(worlds)
    if axis == "season":
        return seasons_of(evaluations, worlds, block_h)
    return evaluations.leads_h if axis == "lead_h" else evaluations.pollutants


def _at(cells: Cells, axis: str, label: str | int) -> Cells:
    name = {"lead_h": "leads_h", "pollutant": "pollutants"}.get(axis, axis)
    return replace(cells, **{name: label if name == axis else (label,)})


def breakdown_table(
    evaluations: Evaluations,
    contrasts: Sequence[Contrast],
    worlds: Sequence[str],
    by: Sequence[str],
    cells: Cells = EVERYTHING,
    **settings: int,
) -> pd.DataFrame:
    """Gains for each combination of labels of some axes.

    Parameters
    ----------
    evaluations, contrasts, worlds, cells
        As for `aqnet.verification.contrasts.estimates.contrast_table`.
    by : sequence of str
        Of group (those that all worlds have), season (`seasons_of`), lead_h, pollutant.
    settings
        block_h, replicates, seed.

    Returns
    -------
    pandas.DataFrame
        The columns `by`, the fields of `Gain`, and p_holm: corrected for the cells of a contrast.
    """
    block_h = settings.get("block_h", BLOCK_H)
    labels = [_labels(evaluations, worlds, axis, block_h) for axis in by]
    rows = []
    for contrast in contrasts:
        own = []
        for values in itertools.product(*labels):
            at = dict(zip(by, values, strict=True))
            chosen = cells
            for axis, label in at.items():
                chosen = _at(chosen, axis, label)
            own.append(at | gain(evaluations, contrast, worlds, chosen, **settings)._asdict())
        for row, p in zip(own, holm([r["p"] for r in own]) if own else (), strict=True):
            rows.append(row | {"p_holm": p})
    return pd.DataFrame(rows, columns=[*by, *Gain._fields, "p_holm"])


def block_table(
    evaluations: Evaluations,
    contrasts: Sequence[Contrast],
    worlds: Sequence[str],
    blocks_h: Sequence[int],
    cells: Cells = EVERYTHING,
    **settings: int,
) -> pd.DataFrame:
    """Gains with blocks of several lengths: intervals that still widen had too short blocks."""
    return pd.DataFrame([
        gain(evaluations, c, worlds, cells, block_h=block_h, **settings)._asdict()
        for c in contrasts for block_h in blocks_h
    ], columns=Gain._fields)  # fmt: skip


# ---- worlds without an effect


def null_table(
    evaluations: Evaluations,
    nulls: Mapping[str, Sequence[Contrast]],
    margin: float,
    cells: Cells = EVERYTHING,
    **settings: int,
) -> pd.DataFrame:
    """Contrasts that should be null, each in its world.

    Parameters
    ----------
    evaluations : Evaluations
    nulls : mapping of world to contrasts
    margin : float
        A gain [1] that would not matter; stated before the runs.
    cells : Cells
    settings
        block_h, replicates, seed.

    Returns
    -------
    pandas.DataFrame
        world, the fields of `Gain`, width of the interval [1], margin, verdict (`null_verdict`).
        p-values are not corrected: for a null a correction would be the easy way out.
    """
    rows = []
    for world, contrasts in nulls.items():
        for contrast in contrasts:
            found = gain(evaluations, contrast, [world], cells, **settings)
            rows.append({"world": world} | found._asdict() | {
                "width": found.high - found.low, "margin": margin,
                "verdict": null_verdict(found, margin)})  # fmt: skip
    return pd.DataFrame(rows, columns=["world", *Gain._fields, "width", "margin", "verdict"])


# ---- trend


class Trend(NamedTuple):
    """Slope of the gain against transport strength, least squares [gain per unit of strength].

    The interval allows for seeds and weather of these worlds. It does not say what worlds of other
    terrain would give. `rises`: each stronger transport has a larger gain (mean of its worlds).
    """

    slope: float
    low: float
    high: float
    p: float
    rises: bool


def trend(
    evaluations: Evaluations,
    contrast: Contrast,
    strengths: Mapping[str, float],
    cells: Cells = EVERYTHING,
    *,
    block_h: int = BLOCK_H,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Trend:
    """Does the gain rise with the strength of transport?

    Parameters
    ----------
    evaluations : Evaluations
    contrast : Contrast
    strengths : mapping of world to strength [1]
        At least two strengths. Worlds are drawn independently: if their weather is the same, the
        interval is the wider one.
    cells : Cells
    block_h, replicates, seed
        See `aqnet.verification.contrasts.estimates.gain`.

    Raises
    ------
    VerificationError
        Fewer than two strengths, or as `gain`.
    """
    x = np.array(list(strengths.values()), dtype=float)
    if np.unique(x).size < 2:
        raise VerificationError(
            explain("no trend", expected="worlds of two strengths or more", found=dict(strengths),
                    remedy="run worlds of other strengths")
        )  # fmt: skip
    slopes = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    pairs = [paired(evaluations, contrast.arm, contrast.reference, [w], cells) for w in strengths]
    ratios = np.array([log_ratio(one) for one in pairs])
    parts = [within_worlds(one, block_h) for one in pairs]
    variances = (slopes * np.exp(ratios) * [p.error for p in parts]) ** 2
    freedom = variances.sum() ** 2 / (variances**2 / [p.freedom for p in parts]).sum()
    found = float(slopes @ -np.expm1(ratios))
    t = student_t(found, Spread(float(np.sqrt(variances.sum())), float(freedom)), LEVEL)
    drawn = [replicates_within(one, block_h, replicates, seed + i) for i, one in enumerate(pairs)]
    rng, least = np.random.default_rng(seed), min(d.size for d in drawn)
    drawn = [rng.permutation(d)[:least] for d in drawn]  # they come sorted
    boot = percentiles(np.sort(slopes @ -np.expm1(drawn)), LEVEL)
    means = [-np.expm1(ratios[x == value]).mean() for value in np.unique(x)]
    return Trend(found, min(t.low, boot.low), max(t.high, boot.high), max(t.p, boot.p),
                 bool((np.diff(means) > 0).all()))  # fmt: skip
