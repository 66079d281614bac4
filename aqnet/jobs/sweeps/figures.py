"""Figures of a sweep: metric against each parameter, paired differences, learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aqnet.jobs.sweeps.definition import SEED
from aqnet.verification.report.style import style_of

__all__ = ["draw_curves", "draw_differences", "draw_metric"]

_WIDTH, _HEIGHT = 4.2, 3.4  # of a panel, inches
_EACH = 0.6  # of a value on it, at least
_LOG_FROM = 8  # a parameter over a wider range than this factor is shown on a logarithmic axis
_SPREAD = 0.12  # of the seeds beside their value, in units of the distance of two values


def _places(values: pd.Series, axes: Axes) -> np.ndarray:
    """Place of each value on the axis, evenly spaced unless they are numbers."""
    known = list(dict.fromkeys(values))
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in known)
    if not numbers or len(known) < 3:
        known = sorted(known) if numbers else known
        axes.set_xticks(range(len(known)), [str(v) for v in known],
                        rotation=20 if max(len(str(v)) for v in known) > 8 else 0)  # fmt: skip
        axes.set_xlim(-0.5, len(known) - 0.5)
        return np.array([known.index(v) for v in values], float)
    if min(known) > 0 and max(known) / min(known) >= _LOG_FROM:
        axes.set_xscale("log")
    axes.set_xticks(sorted(known), [str(v) for v in sorted(known)])
    axes.minorticks_off()
    return values.astype(float).to_numpy()


def _panel(axes: Axes, table: pd.DataFrame, column: str, metric: str) -> None:
    places = _places(table[column], axes)
    values = table[metric].astype(float).to_numpy()
    seeds = [str(s) for s in table[SEED].astype(object)]
    names = list(dict.fromkeys(seeds))
    step = _SPREAD / max(len(names) - 1, 1) if axes.get_xscale() == "linear" else 0.0
    known = np.unique(places)
    step *= float(np.diff(known).min()) if len(known) > 1 else 1.0
    for number, name in enumerate(names):
        own = np.array([seed == name for seed in seeds])
        style = style_of(name, names, model="")
        shift = (number - (len(names) - 1) / 2) * step * 2
        axes.plot(places[own] + shift, values[own], linestyle="none", markersize=5,
                  color=style["color"], marker=style["marker"], label=f"{SEED} {name}")  # fmt: skip
    means = [values[places == place].mean() for place in known]
    axes.plot(known, means, "_", color="black", markersize=18, markeredgewidth=2, label="mean")
    axes.set_xlabel(column)
    axes.grid(axis="y", alpha=0.3)


def draw_metric(table: pd.DataFrame, metric: str, varied: Sequence[str]) -> Figure:
    """Metric of the complete points against each parameter that varies, seeds as points.

    Parameters
    ----------
    table : pandas.DataFrame
        `aqnet.jobs.sweeps.results.Results.table`.
    metric : str
        Column.
    varied : sequence of str
        Columns of the parameters. Arms come first, in the place of the parameters they set.
    """
    usable = table[(table["status"] == "complete") & table[metric].notna()]
    columns = [c for c in varied if usable[c].nunique() > 1]
    if usable["arm"].nunique() > 1:
        of_arm = usable.groupby("arm")[columns].nunique().max()
        columns = ["arm", *(c for c in columns if of_arm[c] > 1)]
    columns = columns or ["label"]
    widths = [max(_WIDTH, _EACH * usable[column].nunique()) for column in columns]
    figure = Figure(figsize=(sum(widths), _HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, column in zip(panels, columns, strict=True):
        _panel(axes, usable, column, metric)
    panels[0].set_ylabel(metric)
    if len(panels[0].lines) <= 8:
        panels[-1].legend(fontsize="small")
    return figure


def draw_differences(differences: pd.DataFrame, metric: str, baseline: str) -> Figure:
    """Mean paired difference of each label from the baseline, with its interval."""
    rows = differences[differences["pairs"] > 0]
    figure = Figure(figsize=(1.6 * _WIDTH, 1.1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    half = np.nan_to_num((rows["high"] - rows["low"]).to_numpy(float) / 2)
    axes.errorbar(rows["mean_difference"].to_numpy(float), places, xerr=half, fmt="o",
                  color="black", capsize=3)  # fmt: skip
    axes.axvline(0, color="grey", linewidth=1)
    labels = [
        f"{label} ({n} pairs)" for label, n in rows[["label", "pairs"]].itertuples(index=False)
    ]
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{metric} minus that of {baseline}, same seed; 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_curves(curves: pd.DataFrame) -> Figure:
    """Validation loss against optimiser steps: a line for each point, a style for each label."""
    figure = Figure(figsize=(1.9 * _WIDTH, 1.2 * _HEIGHT), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(curves["label"]))
    for label in names:
        style = style_of(label, names, model="") | {"linewidth": 1.1}
        own = curves[curves["label"] == label]
        for number, (_, one) in enumerate(own.groupby(SEED, sort=False, dropna=False)):
            axes.plot(one["step"], one["validation"], markersize=3, **style,
                      label=label if number == 0 else None)  # fmt: skip
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("validation loss")
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize="small")
    return figure
