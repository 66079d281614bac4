"""Tables of a scoreboard: any axes kept, the rest pooled."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.events import (
    accuracy_over_space_time,
    critical_success_index_over_space_time,
    false_alarm_ratio_over_space_time,
    fractions_skill_score_over_space_time,
    probability_of_detection_over_space_time,
)
from aqnet.metrics import (
    ErrorSums,
    VerificationError,
    anomaly_correlation_over_space_time,
    bias_over_space_time,
    centred_rmse_over_space_time,
    correlation_over_space_time,
    mae_over_space_time,
    rmse_over_space_time,
)
from aqnet.verification.groups import ALL
from aqnet.verification.scoreboard import AXES, Design, Scoreboard, position

__all__ = ["error_table", "event_table", "level_table", "pooled"]

ERRORS = {
    "rmse_over_space_time": rmse_over_space_time,
    "centred_rmse_over_space_time": centred_rmse_over_space_time,
    "mae_over_space_time": mae_over_space_time,
    "bias_over_space_time": bias_over_space_time,
    "correlation_over_space_time": correlation_over_space_time,
}
EVENTS = {
    "probability_of_detection_over_space_time": probability_of_detection_over_space_time,
    "false_alarm_ratio_over_space_time": false_alarm_ratio_over_space_time,
    "critical_success_index_over_space_time": critical_success_index_over_space_time,
}


def _axes(design: Design) -> tuple[str, ...]:
    """`AXES` as tables call them."""
    return (design.lead_axis, *("group" if axis == "class" else axis for axis in AXES[1:]))


def pooled(board: Scoreboard, kind: str, forecast: str, by: Sequence[str], **only: object):
    """Sums of one kind with cells along `by`, everything else pooled.

    Parameters
    ----------
    board : Scoreboard
    kind, forecast : str
    by : sequence of str
        Of "lead_h", "season", "hour", "pollutant", "group", "sun"; these axes stay, in the order
        of `AXES` (groups in place of classes).
    only : axis=label
        Keep one label of an axis, for example season="DJF". group defaults to `ALL` where it is
        not in `by`.

    Raises
    ------
    VerificationError
        No such axis, label or sums, or pollutants would be pooled.
    """
    design, axes = board.design, _axes(board.design)
    for axis in (*by, *only):
        design.labels(axis)
    if "pollutant" not in (*by, *only):
        raise VerificationError(
            explain("pollutants are not pooled", expected="`pollutant` in `by`, or one of them",
                    found=tuple(by), remedy="their levels differ: an RMSE of all is one of CO")
        )  # fmt: skip
    kinds = {k: v for k, v in board.sums.items() if k != "place"}
    sums = kinds[tuple(kinds)[position(tuple(kinds), kind, "kind of sums")]]
    sums = tuple(sums.values())[position(tuple(sums), forecast, "forecast")]
    for axis, label in only.items():
        if axis != "group":
            at = axes.index(axis)
            sums = _taken(sums, at, [position(design.labels(axis), label, axis)])
    names = design.groups if "group" in by else (ALL,)
    names = (only["group"],) if "group" in only else names
    drop = [i for i, axis in enumerate(axes) if axis not in by and axis != "group"]
    parts = []
    for name in names:
        classes = design.in_group[position(design.groups, name, "group")]
        at = AXES.index("class")
        parts.append(_taken(sums, at, list(classes)).pool((at, *drop)))
    if "group" not in by:
        return parts[0]
    return _stacked(parts, sum(axis in by for axis in axes[: AXES.index("class")]))


def _labels(board: Scoreboard, by: Sequence[str], only: Mapping[str, object]) -> pd.DataFrame:
    """One row for each cell that `pooled` keeps, in its order."""
    axes = [axis for axis in _axes(board.design) if axis in by]
    kept = ((only[axis],) if axis in only else board.design.labels(axis) for axis in axes)
    rows = itertools.product(*kept)
    return pd.DataFrame(rows, columns=axes)


def _taken(sums, axis: int, index: list[int]):
    """The cells at `index` along an axis."""
    shape = list(sums.shape)
    shape[axis] = len(index)
    return _with(sums, tuple(shape), {k: np.take(v, index, axis) for k, v in sums.state.items()})


def _stacked(parts: list, axis: int):
    """Sums of equal shape along a new axis of cells."""
    state = {k: np.stack([p.state[k] for p in parts], axis) for k in parts[0].state}
    shape = list(parts[0].shape)
    shape.insert(axis, len(parts))
    return _with(parts[0], tuple(shape), state)


def _with(sums, shape: tuple[int, ...], state: dict[str, np.ndarray]):
    if not isinstance(sums, ErrorSums):
        return sums.like(shape, state)
    made = ErrorSums(shape)
    made.state = state
    return made


def _of_days(board: Scoreboard, frame: pd.DataFrame) -> pd.DataFrame:
    """With the edition of the standards, what days are made of, and the unit; hours as they are."""
    design = board.design
    if not design.edition:
        return frame
    named = frame.get("pollutant", pd.Series(design.index, frame.index))
    unit = np.where(named == design.index, "1", "ug/m3")
    return frame.assign(unit=unit, edition=design.edition, days=design.days)


def error_table(board: Scoreboard, by: Sequence[str] | None = None, **only: object) -> pd.DataFrame:
    """One row per forecast and label of `by`; scores are named by their definition.

    Parameters
    ----------
    board : Scoreboard
    by, only
        As in `pooled`; by default pollutant, lead time and group.

    Returns
    -------
    pandas.DataFrame
        forecast, the columns `by`, n, weight, the error scores [ug/m3; correlations 1],
        `anomaly_correlation_over_space_time` (uncentred) and `centred_...` where the board has
        anomalies; of days also unit, edition and what the days are made of. NaN where there is
        no pair.
    """
    by = ("pollutant", board.design.lead_axis, "group") if by is None else by
    labels = _labels(board, by, only)
    frames = []
    for name in board.design.forecasts:
        sums = pooled(board, "error", name, by, **only)
        columns = {"n": sums.n, "weight": sums.state["weight"]}
        columns |= {score: function(sums) for score, function in ERRORS.items()}
        if "anomaly" in board.sums:
            anomalies = pooled(board, "anomaly", name, by, **only)
            score = "anomaly_correlation_over_space_time"
            columns[score] = anomaly_correlation_over_space_time(anomalies)
            columns[f"centred_{score}"] = correlation_over_space_time(anomalies)
        values = {k: np.ravel(v) for k, v in columns.items()}
        frames.append(labels.assign(**values, forecast=name))
    found = pd.concat(frames, ignore_index=True)
    order = ["forecast", *by, *columns]
    return _of_days(board, found[order])


def event_table(board: Scoreboard, by: Sequence[str] | None = None, **only: object) -> pd.DataFrame:
    """One row per forecast, label of `by`, threshold [ug/m3] and window [cells]; see `error_table`.

    Columns: the contingency scores and, per window, `fractions_skill_score_over_space_time`;
    `by` must hold "pollutant", as each has thresholds of its own.
    """
    design, rows = board.design, []
    by = ("pollutant", design.lead_axis, "group") if by is None else by
    limit_name = "threshold" if design.edition else "threshold_ug_m3"
    position(tuple(by), "pollutant", "axis of thresholds")
    labels = _labels(board, by, only)
    for name in design.forecasts:
        events = pooled(board, "event", name, by, **only)
        scores = {k: f(events) for k, f in EVENTS.items()} | events.state
        shares = None
        if design.windows:
            near = pooled(board, "neighbourhood", name, by, **only)
            shares = fractions_skill_score_over_space_time(near)
        for t in range(len(design.thresholds[0])):
            frame = labels.assign(**{k: v[..., t].ravel() for k, v in scores.items()})
            for q, size in enumerate(design.windows):
                column = f"fractions_skill_score_over_space_time_{size}_cells"
                frame[column] = shares[..., t, q].ravel()
            frame = frame.assign(forecast=name)
            limit = {p: v[t] for p, v in zip(design.pollutants, design.thresholds, strict=True)}
            rows.append(frame.assign(**{limit_name: frame["pollutant"].map(limit)}))
    found = pd.concat(rows, ignore_index=True)
    first = ["forecast", *by, limit_name]
    return _of_days(board, found[[*first, *(c for c in found.columns if c not in first)]])


def level_table(board: Scoreboard, by: Sequence[str] | None = None, **only: object) -> pd.DataFrame:
    """One row per forecast and label of `by`: how often an index had the right level.

    Parameters
    ----------
    board : Scoreboard
        Of days, with an index.
    by, only
        As in `pooled`, without "pollutant"; by default lead day and group.

    Returns
    -------
    pandas.DataFrame
        forecast, the columns `by`, weight, `accuracy_of_level_over_space_time`,
        `within_one_level_...`, `accuracy_of_primary_pollutant_...` [1]: of days whose index was
        above 50, the share whose forecast has a primary pollutant in common with what was seen.

    Raises
    ------
    VerificationError
        As `pooled`; the board has no index.
    """
    index = board.design.index
    position(tuple(board.sums), "level", "kind of sums")
    by = (board.design.lead_axis, "group") if by is None else by
    frames = []
    for name in board.design.forecasts:
        level, primary = (pooled(board, kind, name, by, pollutant=index, **only)
                          for kind in ("level", "primary"))  # fmt: skip
        scores = {
            "weight": level.state["pairs"].sum((-2, -1)),
            "accuracy_of_level_over_space_time": accuracy_over_space_time(level),
            "within_one_level_over_space_time": accuracy_over_space_time(level, within=1),
            "accuracy_of_primary_pollutant_over_space_time": accuracy_over_space_time(
                primary, seen_from=1
            ),
        }
        values = {k: np.ravel(v) for k, v in scores.items()}
        frames.append(_labels(board, by, only).assign(**values, forecast=name))
    found = pd.concat(frames, ignore_index=True)[["forecast", *by, *scores]]
    return _of_days(board, found)
