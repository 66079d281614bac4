"""What a pair of arms says about the physics: losses, their paired difference, one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.estimates import Contrast, Gain, gain, null_verdict
from aqnet.verification.contrasts.runs import Cells, Evaluations
from aqnet.verification.contrasts.tables import loss_table
from aqnet.verification.report.style import plain

__all__ = ["SAME_PARAMETERS", "Verdict", "draw_verdict", "verdict"]

SAME_PARAMETERS = 0.01  # share by which the arms may differ in size
_UNITS = {"spread": "spread of the training split", "original": "original constants"}
_SPREAD, _ORIGINAL = Cells(), Cells(constants="original")


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a pair of arms says; losses are in two units, see `aqnet.verification.contrasts.runs`.

    Attributes
    ----------
    seeds : pandas.DataFrame
        A row for each run, as `loss_table` of
        `aqnet.verification.contrasts.tables`, the reference first.
    losses : pandas.DataFrame
        A row for each arm, means over seeds: arm, seeds, loss, loss_original_constants [1] with
        low and high of the latter (95 %, over seeds and blocks of time), target.
    gains : pandas.DataFrame
        A row for each unit of the loss (`constants`): fields of `Gain` of the arm over the
        reference, difference (reference minus arm, [1]), outcome (of `null_verdict`); both of
        `aqnet.verification.contrasts.estimates`.
    notes : tuple of str
        Where the pair is not a fair one.
    sentence : str
        On the loss with the original constants.
    """

    seeds: pd.DataFrame
    losses: pd.DataFrame
    gains: pd.DataFrame
    notes: tuple[str, ...]
    sentence: str


def verdict(
    evaluations: Evaluations,
    arm: str,
    reference: str,
    target: float,
    margin: float = 0.01,
    **settings: int,
) -> Verdict:
    """Judge an arm against its reference, and both against a published loss.

    Parameters
    ----------
    evaluations : Evaluations
        Of one world, with both arms, seeds paired.
    arm, reference : str
    target : float
        Loss with the original constants [1], taken as known exactly. A number of other data: that
        it is passed or missed says nothing about the physics.
    margin : float
        Relative difference [1] that counts as none, if the interval stays within it.
    settings
        block_h, replicates, seed of `aqnet.verification.contrasts.estimates.gain`.

    Raises
    ------
    VerificationError
        More than one world, no such arm, seeds without partner, too few init times.
    """
    world = _one_world(evaluations)
    contrast = Contrast(arm, reference, main=True)
    found = {c.constants: gain(evaluations, contrast, [world], c, **settings)
             for c in (_SPREAD, _ORIGINAL)}  # fmt: skip
    runs = _runs(evaluations, world, (reference, arm))
    spread = runs.groupby("arm")["loss"].mean()
    rows = [{"arm": name, "loss": spread[name]}
            | _against(evaluations, name, target, world, settings)
            for name in (reference, arm)]  # fmt: skip
    losses = pd.DataFrame(rows)
    gains = pd.DataFrame([
        {"constants": name, "difference": g.loss_of_reference - g.loss,
         "outcome": null_verdict(g, margin)} | g._asdict()
        for name, g in found.items()
    ])  # fmt: skip
    sentence = f"{_told(found['original'], margin)}; {_told_target(rows[1])}."
    return Verdict(runs, losses, gains, _notes(runs), sentence)


def _one_world(evaluations: Evaluations) -> str:
    if len(evaluations.worlds) != 1:
        raise VerificationError(
            explain("a pair is judged in one world", expected="evaluations of one data set",
                    found=", ".join(evaluations.worlds), remedy="give the sweep one manifest")
        )  # fmt: skip
    return next(iter(evaluations.worlds))


def _runs(evaluations: Evaluations, world: str, arms: tuple[str, str]) -> pd.DataFrame:
    """Rows of `loss_table`, the reference first."""
    table = loss_table(evaluations, [world])
    return pd.concat([table[table["arm"] == arm] for arm in arms], ignore_index=True)


def _against(
    evaluations: Evaluations, arm: str, target: float, world: str, settings: dict[str, int]
) -> dict[str, object]:
    """Loss of an arm beside a number; its interval is that of the gain over the number."""
    found = gain(evaluations, Contrast(arm, target), [world], _ORIGINAL, **settings)
    return {"seeds": found.pairs, "loss_original_constants": found.loss,
            "low": target * (1 - found.high), "high": target * (1 - found.low),
            "target": target}  # fmt: skip


def _notes(runs: pd.DataFrame) -> tuple[str, ...]:
    notes, seeds = [], runs.groupby("arm", sort=False)["seed"].nunique()
    sizes = runs["parameters"]
    if sizes.max() > (1 + SAME_PARAMETERS) * sizes.min():
        more = 100 * (sizes.max() / sizes.min() - 1)
        notes.append(f"the arms differ in size by {more:.1f} %, more than the "
                     f"{100 * SAME_PARAMETERS:g} % of a fair pair")  # fmt: skip
    if runs["optimiser_steps"].nunique() > 1:
        steps = ", ".join(f"{n:g}" for n in sorted(runs["optimiser_steps"].unique()))
        notes.append(f"the runs did not make the same number of optimiser steps: {steps}")
    if seeds.min() < 2:
        notes.append("one seed: the interval allows for other weather, not for other seeds")
    return tuple(notes)


def _told(found: Gain, margin: float) -> str:
    name, other = found.arm, found.reference
    interval = (
        f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} %, "
        f"{found.pairs} paired seeds"
    )
    size = f"{100 * abs(found.gain):.1f} %"
    outcome = null_verdict(found, margin)
    if outcome == "gain":
        return f"{name} beats {other}: its loss is lower by {size} ({interval})"
    if outcome == "loss":
        return f"{other} beats {name}, whose loss is higher by {size} (gain with {interval})"
    word = "lower" if found.gain >= 0 else "higher"
    text = f"the loss of {name} is {word} by {size} (gain with {interval})"
    if outcome == "null":
        return f"no difference between {name} and {other} beyond {100 * margin:g} %: {text}"
    return f"no difference between {name} and {other} is shown, nor excluded: {text}"


def _told_target(row: dict[str, object]) -> str:
    low, high, target = row["low"], row["high"], row["target"]
    place = "below" if high < target else "above" if low > target else "not clear of"
    return (
        f"in the original constants it is {row['loss_original_constants']:.3f} ({low:.3f} to "
        f"{high:.3f}), {place} {target:.3f}, which other data and another normaliser gave"
    )


def draw_verdict(found: Verdict) -> Figure:
    """Losses of the paired runs with the target, and the gain in both units with intervals."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    pairs, gains = figure.subplots(1, 2, width_ratios=(1.2, 1))
    _draw_runs(pairs, found)
    _draw_gains(gains, found.gains)
    return figure


def _draw_runs(axes: Axes, found: Verdict) -> None:
    arms = list(found.losses["arm"])
    for _, own in found.seeds.groupby("seed"):
        losses = own.set_index("arm")["loss_original_constants"]
        axes.plot([arms.index(a) for a in losses.index], losses, "-o", color="#7F7F7F",
                  markersize=4, linewidth=0.8)  # fmt: skip
    means = found.losses["loss_original_constants"]
    errors = [means - found.losses["low"], found.losses["high"] - means]
    axes.errorbar(range(len(arms)), means, errors, fmt="D", color="black", capsize=5,
                  label="mean and 95 %")  # fmt: skip
    target = float(found.losses["target"].iloc[0])
    axes.axhline(target, linestyle="--", color="#D55E00",
                 label=f"{target:.3f}: other data, other normaliser")  # fmt: skip
    axes.set_xticks(range(len(arms)), arms)
    axes.set_xlim(-0.4, len(arms) - 0.6)
    axes.set_ylabel("loss in original constants [1]")
    axes.set_title("runs of the same seed are joined", fontsize=9)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    plain(axes)


def _draw_gains(axes: Axes, gains: pd.DataFrame) -> None:
    percent = 100 * gains[["gain", "low", "high"]]
    errors = [percent["gain"] - percent["low"], percent["high"] - percent["gain"]]
    axes.errorbar(percent["gain"], range(len(gains)), xerr=errors, fmt="D", color="black",
                  capsize=5)  # fmt: skip
    axes.axvline(0, color="#7F7F7F", linewidth=1)
    axes.set_yticks(range(len(gains)), [_UNITS[name].replace(" of", "\nof") for name in
                                        gains["constants"]])  # fmt: skip
    axes.set_ylim(-0.6, len(gains) - 0.4)
    first = gains.iloc[0]
    axes.set_xlabel(f"loss of {first['arm']} lower than\nof {first['reference']} by [%]")
    axes.set_title("paired gain, 95 % over seeds and blocks of time", fontsize=9)
    plain(axes)
