"""Scores of each place of a scoreboard: cells of a grid, or stations by their id."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import (
    VerificationError,
    bias_over_space_time,
    correlation_over_space_time,
    mae_over_space_time,
    rmse_over_space_time,
)
from aqnet.verification.scoreboard import Scoreboard

__all__ = ["place_names", "place_table"]

_SCORES = {
    "rmse_over_time": rmse_over_space_time,
    "mae_over_time": mae_over_space_time,
    "bias_over_time": bias_over_space_time,
    "correlation_over_time": correlation_over_space_time,
}


def place_names(board: Scoreboard) -> list:
    """Ids of the stations that the record names, else positions of the cells: one a place.

    Raises
    ------
    VerificationError
        The board keeps no places.
    """
    count = board.design.each_place
    if not count:
        raise VerificationError(
            explain("the board keeps no places", expected="sums of every cell or station",
                    found="none", remedy="score with each_place=True")
        )  # fmt: skip
    rows = board.record.get("stations", {}).get("table", ())
    return [row["id"] for row in rows] if len(rows) == count else list(range(count))


def place_table(board: Scoreboard) -> pd.DataFrame:
    """One row per forecast, pollutant, lead time and place, all times together.

    Returns
    -------
    pandas.DataFrame
        forecast, pollutant, lead_h or lead_day, place, n, and RMSE, MAE, bias [ug/m3],
        correlation [1] over time; NaN where there is no pair.
    """
    design, names = board.design, place_names(board)
    axes = ("pollutant", design.lead_axis, "place")
    labels = pd.DataFrame(itertools.product(design.pollutants, design.leads, names), columns=axes)
    frames = []
    for forecast, sums in board.sums["place"].items():
        columns = {"n": sums.n} | {name: score(sums) for name, score in _SCORES.items()}
        values = {k: np.swapaxes(v, 0, 1).ravel() for k, v in columns.items()}
        frames.append(labels.assign(**values, forecast=forecast))
    found = pd.concat(frames, ignore_index=True)
    return found[["forecast", *axes, *columns]]
