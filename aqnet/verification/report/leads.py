"""RMSE and skill against lead time, with 95 % intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aqnet.verification.bootstrap import rmse_skill
from aqnet.verification.groups import ALL
from aqnet.verification.report.boards import BoardFile
from aqnet.verification.report.style import plain, style_of
from aqnet.verification.report.wording import label, unit_of
from aqnet.verification.score_tables import error_table
from aqnet.verification.scores import window_h

__all__ = ["BARS", "draw_rmse", "draw_skill", "rmse_table"]

_MOST_BARS = 5
BARS = (
    "Bars: 95 % intervals by the block bootstrap, of the judged forecast alone if there are more "
    f"than {_MOST_BARS}."
)
_COLUMNS = 3
_STEP = 0.07  # between the forecasts of one lead, in steps of the axis: intervals must not hide


def rmse_table(file: BoardFile, group: str = ALL, *, intervals: bool = True) -> pd.DataFrame:
    """RMSE of every forecast, pollutant and lead with the ends of its 95 % interval.

    Returns
    -------
    pandas.DataFrame
        forecast, pollutant, lead_h (hours or days), rmse, low, high [unit of the pollutant]; low
        and high are NaN without `intervals`.
    """
    board = file.board
    found = error_table(board, file.cells, group=group)
    names = {"rmse_over_space_time": "rmse", board.design.lead_axis: "lead_h"}
    found = found.rename(columns=names)[["forecast", "pollutant", "lead_h", "rmse"]]
    found = found.assign(low=np.nan, high=np.nan)
    if intervals:
        ends = [
            _interval(*board.loss_series(r.forecast, r.lead_h, r.pollutant, group),
                      window_h(board.design, r.lead_h))
            for r in found.itertuples()
        ]  # fmt: skip
        found[["low", "high"]] = np.array(ends)
    return found


def _interval(times: np.ndarray, loss: np.ndarray, block_h: int) -> tuple[float, float]:
    """RMSE is 1 - the skill against a reference whose loss is 1 at every time."""
    skill = rmse_skill(loss, np.ones_like(loss), times, block_h)
    return 1 - skill.high, 1 - skill.low


def _panels(pollutants: list[str], leads: list, unit: str, title: str) -> tuple[Figure, list]:
    rows = -(-len(pollutants) // _COLUMNS)
    figure = Figure(figsize=(10.5, 2.9 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for axes, pollutant in zip(panels, pollutants, strict=False):
        # Equal steps between lead times: they double, and 12 h would vanish otherwise.
        axes.set_xticks(range(len(leads)), [str(lead) for lead in leads])
        axes.set_xlabel(f"lead time [{unit}]")
        axes.set_ylabel(f"{title} [{unit_of(pollutant) if title == 'RMSE' else '1'}]")
        axes.set_title(label(pollutant), loc="left", fontsize=11)
        plain(axes)
    for axes in panels[len(pollutants) :]:
        axes.set_visible(False)
    return figure, panels[: len(pollutants)]


def _legend(figure: Figure, names: list[str], model: str) -> None:
    handles = [Line2D([], [], **style_of(name, names, model), label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 4),
                  frameon=False)  # fmt: skip


def _line(axes: object, x: np.ndarray, part: pd.DataFrame, column: str, style: dict) -> None:
    """A line with markers, and its intervals as bars where they are known."""
    axes.plot(x, part[column], **style, markersize=4.5)
    known = np.isfinite(part["low"].to_numpy())
    ends = np.abs(part[["low", "high"]].to_numpy() - part[[column]].to_numpy()).T
    axes.errorbar(x[known], part[column][known], yerr=ends[:, known], fmt="none",
                  ecolor=style["color"], elinewidth=1.1, capsize=2.2)  # fmt: skip


def draw_rmse(scores: pd.DataFrame, model: str, lead_unit: str = "h") -> Figure:
    """RMSE against lead time, one panel per pollutant, all forecasts, bars of 95 %.

    Parameters
    ----------
    scores : DataFrame
        forecast, pollutant, lead_h, rmse, and low, high where intervals are drawn (NaN: none).
    model : str
        Forecast drawn in black.
    lead_unit : str
    """
    return _draw(scores, "rmse", "forecast", model, lead_unit, "RMSE")


def draw_skill(skill: pd.DataFrame, lead_unit: str = "h") -> Figure:
    """Skill of the model against each baseline, bars of 95 %; a line at zero.

    `skill`: `skill_table` of one group of places.
    """
    names = {"skill_low": "low", "skill_high": "high", "lead_day": "lead_h"}
    renamed = skill.rename(columns=names)
    figure = _draw(renamed, "skill", "reference", None, lead_unit, "skill")
    for axes in figure.axes:
        axes.axhline(0, color="#555555", linewidth=0.9, zorder=1)
    return figure


def _draw(
    found: pd.DataFrame, column: str, by: str, model: str | None, unit: str, title: str
) -> Figure:
    pollutants, names = list(found["pollutant"].unique()), list(found[by].unique())
    leads = sorted(found["lead_h"].unique())
    if not {"low", "high"} <= set(found):
        found = found.assign(low=np.nan, high=np.nan)
    if len(names) > _MOST_BARS and model in names:
        found = found.copy()
        found.loc[found[by] != model, ["low", "high"]] = np.nan
    figure, panels = _panels(pollutants, leads, unit, title)
    for axes, pollutant in zip(panels, pollutants, strict=True):
        part = found[found["pollutant"] == pollutant]
        for index, name in enumerate(names):
            one = part[part[by] == name].set_index("lead_h").reindex(leads)
            shift = _STEP * (index - (len(names) - 1) / 2) if one["low"].notna().any() else 0
            _line(axes, np.arange(len(leads)) + shift, one, column, style_of(name, names, model))
    _legend(figure, names, model)
    return figure
