"""Gains beside what they cost: learning curves against steps and seconds, equal wall time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.estimates import Contrast, gain_of, paired
from aqnet.verification.contrasts.intervals import Paired
from aqnet.verification.contrasts.runs import Evaluations, Label

__all__ = ["best_until", "cost_table", "curve_table"]

_NO_TIME = np.zeros(1, "datetime64[h]")


def curve_table(evaluations: Evaluations, curves: Mapping[Label, Mapping]) -> pd.DataFrame:
    """Validation losses while training.

    Parameters
    ----------
    evaluations : Evaluations
        Their train_wall_s over optimiser_steps is taken as the pace of the whole training, with
        its validations.
    curves : mapping of Label to mapping
        `curve` of metrics.json of the training runs: step, validation.

    Returns
    -------
    pandas.DataFrame
        arm, world, seed, step [1], wall_s [s], validation: loss as trained [1]; best: the lowest up
        to there, that of the checkpoint that would be evaluated.

    Raises
    ------
    VerificationError
        A run without a curve, or a curve that is not usable.
    """
    parts = []
    for label in evaluations.squares:
        step, loss = _curve(curves, label)
        measured = evaluations.metrics[label]
        pace = measured["train_wall_s"] / measured["optimiser_steps"]
        values = {"step": step, "wall_s": step * pace, "validation": loss,
                  "best": np.minimum.accumulate(loss)}  # fmt: skip
        parts.append(pd.DataFrame(label._asdict() | values))
    return pd.concat(parts, ignore_index=True)


def _curve(curves: Mapping[Label, Mapping], label: Label) -> tuple[np.ndarray, np.ndarray]:
    curve = curves.get(label) or {}
    step, loss = (np.array(curve.get(k) or [], dtype=float) for k in ("step", "validation"))
    usable = step.ndim == 1 and step.size > 1 and step.shape == loss.shape
    if not (usable and (np.diff(step) > 0).all() and np.isfinite(loss).all()):
        raise VerificationError(
            explain(f"{label} has no usable learning curve", expected="curve.step ascending and "
                    "curve.validation finite, two values at least",
                    found=f"steps of shape {step.shape}, losses of shape {loss.shape}",
                    remedy="look at metrics.json of the training run")
        )  # fmt: skip
    return step, loss


def best_until(curve: pd.DataFrame, wall_s: float) -> float:
    """Lowest validation loss of a run within some seconds.

    Between two validations its logarithm is linear in the logarithm of time, as losses fall: a
    chord would lie above the curve and favour the faster run. Before the first validation after the
    start, which has no logarithm, it is linear in time. The schedule of the learning rate was not
    made for so short a training: a run with fewer steps and its own schedule would be a little
    better. NaN where the seconds of the run are not known.
    """
    seconds, best = curve["wall_s"].to_numpy(), curve["best"].to_numpy()
    if np.isnan([wall_s, *seconds]).any():
        return float("nan")
    after = seconds > 0
    if wall_s <= seconds[after][0] or (best <= 0).any():
        return float(np.interp(wall_s, seconds, best))
    return float(np.exp(np.interp(np.log(wall_s), np.log(seconds[after]), np.log(best[after]))))


def cost_table(
    evaluations: Evaluations,
    contrasts: Sequence[Contrast],
    worlds: Sequence[str],
    curves: pd.DataFrame,
    **settings: int,
) -> pd.DataFrame:
    """Gains at equal steps and at equal wall time, in validation loss while training.

    Equal wall time: the slower run of each pair is read where the faster one had finished.

    Parameters
    ----------
    evaluations, contrasts, worlds
        As for `aqnet.verification.contrasts.estimates.contrast_table`.
    curves : pandas.DataFrame
        `curve_table`.
    settings
        replicates, seed.

    Returns
    -------
    pandas.DataFrame
        arm, reference, parameters_ratio, train_wall_s, train_wall_s_of_reference [s, mean],
        cost_ratio; gain_at_equal_steps, gain_at_equal_time [1] with their 95 % intervals over
        seeds and worlds (columns ..._low, ..._high; the weather of the validation year as it was;
        NaN for one pair); gain_per_1000_s: gain at equal steps over train_wall_s. Times are those
        of the machine, with whatever else ran on it; NaN with a run whose seconds are not known.
    """
    runs = {Label(*key): own for key, own in curves.groupby(["arm", "world", "seed"])}
    return pd.DataFrame([
        _cost(evaluations, contrast, worlds, runs, settings) for contrast in contrasts
    ])  # fmt: skip


def _cost(
    evaluations: Evaluations, contrast: Contrast, worlds: Sequence[str],
    runs: Mapping[Label, pd.DataFrame], settings: Mapping[str, int],
) -> dict:  # fmt: skip
    arm, reference = contrast.arm, contrast.reference
    paired(evaluations, arm, reference, worlds)  # refuses runs without a partner
    labels = [[(Label(arm, w, s), Label(reference, w, s)) for s in evaluations.seeds(arm, w)]
              for w in worlds]  # fmt: skip
    measured = [[evaluations.metrics[label] for label in pair] for own in labels for pair in own]
    seconds = np.array([[m["train_wall_s"] for m in pair] for pair in measured])
    sizes = np.array([[m["parameters"] for m in pair] for pair in measured])
    row = {
        "arm": arm,
        "reference": reference,
        "parameters_ratio": sizes[:, 0].mean() / sizes[:, 1].mean(),
        "train_wall_s": seconds[:, 0].mean(),
        "train_wall_s_of_reference": seconds[:, 1].mean(),
        "cost_ratio": seconds[:, 0].mean() / seconds[:, 1].mean(),
    }
    for name, equal_time in (("steps", False), ("time", True)):
        losses = [[_losses(pair, runs, equal_time) for pair in own] for own in labels]
        row |= _gain_of_losses(losses, contrast, f"gain_at_equal_{name}", settings)
    return row | {"gain_per_1000_s": 1000 * row["gain_at_equal_steps"] / row["train_wall_s"]}


def _losses(
    pair: Sequence[Label], runs: Mapping[Label, pd.DataFrame], equal_time: bool
) -> list[float]:
    ends = [runs[label]["wall_s"].iloc[-1] for label in pair]
    if not equal_time:
        return [float(runs[label]["best"].iloc[-1]) for label in pair]
    return [best_until(runs[label], np.min(ends)) for label in pair]


def _gain_of_losses(
    losses: list[list[list[float]]], contrast: Contrast, name: str, settings: Mapping[str, int]
) -> dict[str, float]:
    """Of [world][seed][arm, reference], without a series of times."""
    worlds = [Paired(*np.array(own).T[..., None], np.ones(1), _NO_TIME) for own in losses]
    nothing = float("nan")
    if not all(np.isfinite(own).all() for own in losses):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), nothing)
    if len(worlds) == 1 and len(losses[0]) == 1:
        one, other = losses[0][0]
        return {name: 1 - one / other, f"{name}_low": nothing, f"{name}_high": nothing}
    found = gain_of(worlds, contrast, **settings)
    return {name: found.gain, f"{name}_low": found.low, f"{name}_high": found.high}
