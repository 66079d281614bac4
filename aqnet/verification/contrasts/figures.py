"""Pictures of gains: intervals, heat maps, learning curves, null worlds, transport strengths.

Blue is better, red is worse (a diverging map that is perceptual on both sides and safe for colour
blindness); arms differ in colour, marker and dash (Okabe and Ito 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from aqnet.verification.contrasts.tables import Trend
from aqnet.verification.report.style import plain, style_of

__all__ = ["draw_breakdown", "draw_curves", "draw_gains", "draw_heat", "draw_nulls", "draw_trend"]

_BETTER, _WORSE, _UNSURE = "#0072B2", "#D55E00", "#444444"
_MAP = "RdBu"  # positive is blue
_ROW = 0.34  # of a row, inches
_AXES = {"lead_h": "lead time [h]"}
_POINTS = 60  # of a learning curve


def _title(arm: str, reference: str) -> str:
    return f"{arm} against {reference}"


def _colour(low: float, high: float) -> str:
    """Of an interval: better, worse, or with zero inside."""
    return _BETTER if low > 0 else _WORSE if high < 0 else _UNSURE


def _intervals(axes: Axes, table: pd.DataFrame, places: np.ndarray) -> None:
    """Point, thick interval of these worlds, thin interval of worlds like these [%]."""
    for place, row in zip(places, table.itertuples(), strict=True):
        colour = _colour(row.low, row.high)
        axes.plot([100 * row.low, 100 * row.high], [place] * 2, color=colour, lw=1.2)
        axes.plot([100 * row.within_low, 100 * row.within_high], [place] * 2, color=colour, lw=4,
                  alpha=0.45, solid_capstyle="butt")  # fmt: skip
        axes.plot(100 * row.gain, place, "o", color=colour, ms=6)


def _across(axes: Axes, places: np.ndarray, labels: Sequence[str]) -> None:
    axes.axvline(0, color="black", lw=0.9, zorder=0)
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    plain(axes)
    axes.grid(True, axis="x", color="#dddddd", linewidth=0.6)
    axes.grid(False, axis="y")


def draw_gains(table: pd.DataFrame, worlds: pd.DataFrame | None = None) -> Figure:
    """Gain of each contrast with its intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        `estimates.contrast_table`. A tick marks `at_least` of main contrasts.
    worlds : pandas.DataFrame, optional
        `world_table`: the gain in each world, as a cross.
    """
    order = table.sort_values(["main", "gain"], ascending=[False, False])
    places = np.arange(len(order))[::-1].astype(float)
    figure = Figure(figsize=(8.6, 1.5 + _ROW * len(order)), layout="constrained")
    axes = figure.subplots()
    _intervals(axes, order, places)
    for place, row in zip(places, order.itertuples(), strict=True):
        if row.at_least > 0:
            axes.plot([100 * row.at_least] * 2, [place - 0.35, place + 0.35], color="black", lw=1.6)
        if worlds is not None:
            own = worlds[(worlds["arm"] == row.arm) & (worlds["reference"] == row.reference)]
            axes.plot(100 * own["gain"], [place - 0.22] * len(own), "x", color="#777777", ms=5)
    names = [_title(r.arm, r.reference) + (" (main)" if r.main else "") for r in order.itertuples()]
    _across(axes, places, names)
    axes.set_xlabel("gain: 1 - loss / loss of the reference [%]", fontsize=9)
    figure.supxlabel("thin: 95 % for worlds like these; thick: for these worlds; x: each world; "
                     "tick: target", fontsize=9)  # fmt: skip
    return figure


def _panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    columns = min(count, columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for extra in axes[count:]:
        extra.set_visible(False)
    return figure, list(axes[:count])


def draw_heat(table: pd.DataFrame, rows: str = "lead_h", columns: str = "pollutant") -> Figure:
    """Gain [%] by two axes, a panel for each contrast; in brackets where the interval has zero.

    Parameters
    ----------
    table : pandas.DataFrame
        `breakdown_table` by `rows` and `columns`.
    """
    limit = 100 * max(float(table["gain"].abs().max()), 0.01)
    kinds = list(table.groupby(["arm", "reference"], sort=False))
    size = table[columns].nunique(), table[rows].nunique()
    figure, panels = _panels(len(kinds), 2, 1.6 + 0.72 * size[0], 1.1 + 0.5 * size[1])
    for axes, ((arm, reference), own) in zip(panels, kinds, strict=True):
        x, y = (list(dict.fromkeys(own[name])) for name in (columns, rows))
        values = own.set_index([rows, columns])
        field = np.array([[100 * values.loc[(b, a), "gain"] for a in x] for b in y])
        mesh = axes.imshow(field, cmap=_MAP, norm=Normalize(-limit, limit), aspect="auto")
        for i, j in np.ndindex(field.shape):
            row, value = values.loc[(y[i], x[j])], field[i, j]
            sure = row["low"] > 0 or row["high"] < 0
            axes.text(j, i, f"{value:.1f}" if sure else f"({value:.1f})", ha="center",
                      va="center", fontsize=8,
                      color="white" if abs(value) > 0.65 * limit else "black")  # fmt: skip
        axes.set_xticks(range(len(x)), x)
        axes.set_yticks(range(len(y)), y)
        axes.set_title(_title(arm, reference), fontsize=9, loc="left")
        axes.set(xlabel=_AXES.get(columns, columns), ylabel=_AXES.get(rows, rows))
        axes.label_outer()
    figure.colorbar(mesh, ax=panels, label="gain [%]", shrink=0.8)
    return figure


def draw_breakdown(table: pd.DataFrame, by: str) -> Figure:
    """Gain by one axis, a panel for each contrast, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        `breakdown_table` by this axis.
    """
    kinds = list(table.groupby(["arm", "reference"], sort=False))
    labels = list(dict.fromkeys(table[by]))
    figure, panels = _panels(len(kinds), 2, 4.4, 0.9 + 0.28 * len(labels))
    places = np.arange(len(labels))[::-1].astype(float)
    for axes, ((arm, reference), own) in zip(panels, kinds, strict=True):
        _intervals(axes, own, places)
        _across(axes, places, [str(label).replace("_", " ") for label in labels])
        axes.set_title(_title(arm, reference), fontsize=9, loc="left")
    figure.supxlabel("gain [%]; thin: 95 % for worlds like these, thick: for these worlds",
                     fontsize=9)  # fmt: skip
    return figure


def draw_nulls(table: pd.DataFrame) -> Figure:
    """Contrasts that should be null (`null_table`): intervals against the margin (grey)."""
    places = np.arange(len(table))[::-1].astype(float)
    figure = Figure(figsize=(8.6, 1.2 + _ROW * len(table)), layout="constrained")
    axes = figure.subplots()
    margin = 100 * float(table["margin"].iloc[0])
    axes.axvspan(-margin, margin, color="#e6e6e6", zorder=0, lw=0)
    _intervals(axes, table, places)
    names = [f"{r.world}: {_title(r.arm, r.reference)}" for r in table.itertuples()]
    _across(axes, places, names)
    for place, row in zip(places, table.itertuples(), strict=True):
        axes.annotate(row.verdict, (1.01, place), xycoords=("axes fraction", "data"), va="center",
                      fontsize=9)  # fmt: skip
    axes.set_xlabel(f"gain [%]; grey: margin of {margin:g} %", fontsize=9)
    return figure


def draw_trend(table: pd.DataFrame, strengths: Mapping[str, float], found: Trend) -> Figure:
    """Gain in each world (`world_table`) against its strength of transport, with the trend."""
    x = np.array([strengths[w] for w in table["world"]])
    y = 100 * table["gain"].to_numpy()
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = np.array([x.min(), x.max()])
    for slope, style in ((found.slope, "-"), (found.low, ":"), (found.high, ":")):
        axes.plot(ends, y.mean() + 100 * slope * (ends - x.mean()), color=_BETTER, ls=style, lw=1.2)
    half = np.abs(100 * table[["low", "high"]].to_numpy().T - y)
    axes.errorbar(x, y, yerr=half, fmt="o", color="black", capsize=3)
    axes.axhline(0, color="black", lw=0.9, zorder=0)
    axes.set(xlabel="strength of transport [1]", ylabel="gain [%]")
    row = table.iloc[0]
    axes.set_title(f"{_title(row['arm'], row['reference'])}: slope {100 * found.slope:.1f} "
                   f"({100 * found.low:.1f} to {100 * found.high:.1f}) % per unit",
                   fontsize=9, loc="left")  # fmt: skip
    plain(axes)
    return figure


def draw_curves(curves: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Best validation loss so far against steps and seconds.

    Parameters
    ----------
    curves : pandas.DataFrame
        `aqnet.verification.contrasts.cost.curve_table`. Lines are means over worlds and seeds,
        shades the range of the seeds' means over worlds.
    arms : sequence of str
        The first one is drawn in black.
    """
    figure = Figure(figsize=(9.4, 4.0), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("step", "wall_s"), strict=True):
        for arm in arms:
            style = style_of(arm, arms, arms[0]) | {"marker": None}
            _curve(axes, curves[curves["arm"] == arm], column, style | {"label": arm})
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(StrMethodFormatter("{x:g}"))
        plain(axes)
    panels[0].set(xlabel="optimiser steps", ylabel="validation loss, best so far [1]")
    panels[1].set(xlabel="wall time of the training [s]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=min(len(arms), 5), frameon=False, fontsize=9)  # fmt: skip
    return figure


def _curve(axes: Axes, own: pd.DataFrame, column: str, style: Mapping) -> None:
    runs = dict(list(own.groupby(["world", "seed"])))
    start = max(run[column].min() for run in runs.values())
    x = np.linspace(start, min(run[column].max() for run in runs.values()), _POINTS)
    values = pd.DataFrame({k: np.interp(x, run[column], run["best"]) for k, run in runs.items()})
    of_seeds = values.T.groupby(level=1).mean().to_numpy()
    axes.fill_between(x, of_seeds.min(0), of_seeds.max(0), color=style["color"], alpha=0.15, lw=0)
    axes.plot(x, values.mean(axis=1), **style)
