"""Scores of a model and its rivals at the places of a scoreboard, and the primary test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import ErrorSums, VerificationError, lowest_rmse
from aqnet.model.statistical import STATISTICAL
from aqnet.verification.groups import ALL, ASSIMILATED, WITHHELD
from aqnet.verification.score_tables import error_table, pooled
from aqnet.verification.scoreboard import Design, Scoreboard
from aqnet.verification.significance import bandwidth_h, diebold_mariano, holm, verdict

__all__ = [
    "ASSIMILATED",
    "BASELINES",
    "GRID",
    "PLACES",
    "WITHHELD",
    "CellComparison",
    "PrimaryTest",
    "best_forecasts",
    "compare",
    "place_scores",
    "primary_test",
    "records",
    "window_h",
]

GRID = "grid"
PLACES = (ASSIMILATED, WITHHELD, GRID)
BASELINES = STATISTICAL
YARDSTICKS = ("ridge",)
_SCORES = ("rmse", "mae", "bias", "correlation", "centred_rmse")


# ---- tables


def place_scores(stations: Scoreboard, grid: Scoreboard | None = None) -> pd.DataFrame:
    """Scores at the assimilated stations, the withheld ones and on the grid.

    Parameters
    ----------
    stations : Scoreboard
        With the groups `ASSIMILATED` and `WITHHELD`.
    grid : Scoreboard, optional

    Returns
    -------
    pandas.DataFrame
        One row per place, pollutant, lead time and forecast, in this order: place, pollutant,
        lead_h, forecast, n, missing, rmse, mae, bias, centred_rmse [ug/m3], correlation [1].
    """
    parts = [_place_rows(stations, group, group) for group in (ASSIMILATED, WITHHELD)]
    if grid is not None:
        parts.append(_place_rows(grid, ALL, GRID))
    return pd.concat(parts, ignore_index=True)


def _place_rows(board: Scoreboard, group: str, place: str) -> pd.DataFrame:
    design, at = board.design, board.design.groups.index(group)
    table = error_table(board, ("pollutant", "lead_h"), group=group)
    names, leads, pollutants = design.forecasts, design.lead_times_h, design.pollutants
    missing = np.stack([board.missing[name][..., at] for name in names])
    order = ("forecast", names), ("lead_h", leads), ("pollutant", pollutants)
    ranks = [table[column].map(labels.index) for column, labels in order]
    columns = {score: table[f"{score}_over_space_time"] for score in _SCORES}
    kept = table[["pollutant", "lead_h", "forecast", "n"]]
    kept = kept.assign(missing=missing[tuple(ranks)].astype(int), **columns)
    kept.insert(0, "place", place)
    return kept.iloc[np.lexsort((ranks[0], ranks[1], ranks[2]))]


def records(table: pd.DataFrame) -> list[dict]:
    """Rows of a table for a JSON file: NaN becomes None."""
    rows = table.to_dict("records")
    return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in rows]


# ---- comparisons


@dataclass(frozen=True)
class CellComparison:
    """A model against one opponent for one lead time and pollutant (RMSE in ug/m3)."""

    pollutant: str
    lead_h: int
    opponent: str
    n: int  # pairs
    n_times: int  # init times of the test
    n_effective: float
    rmse_model: float
    rmse_opponent: float
    difference_percent: float  # of the opponent's RMSE; negative: the model is better
    lower: bool
    statistic: float
    p: float
    p_holm: float
    verdict: str  # won | lost | tie


def compare(
    board: Scoreboard,
    model: str,
    opponents: Mapping[tuple[int, str], str],
    group: str = ASSIMILATED,
    alpha: float = 0.05,
) -> tuple[CellComparison, ...]:
    """Compare a model with one opponent per cell by Diebold-Mariano tests on squared error.

    Parameters
    ----------
    board : Scoreboard
        Scores of the test period.
    model : str
        Name of the forecast under test.
    opponents : mapping of (lead, pollutant) to forecast name
        One for each cell; Holm's correction is over these cells.
    group : str
        Of places.
    alpha : float
        Level of the family of tests.

    Raises
    ------
    VerificationError
        Unknown names, a cell without pairs, or too few times for a test.
    """
    design = board.design
    counts = _pooled(board, model, group).n
    tests, rmse = [], []
    for (lead, pollutant), opponent in opponents.items():
        times, loss = board.loss_series(model, lead, pollutant, group)
        _, other = board.loss_series(opponent, lead, pollutant, group)
        if times.size == 0:
            found = f"none for {pollutant} at {design.lead_axis} {lead}, {group}"
            message = explain("no pairs", expected="scored pairs", found=found,
                              remedy="score a longer period")  # fmt: skip
            raise VerificationError(message)
        tests.append(diebold_mariano(loss, other, window_h(design, lead), times))
        rmse.append((float(np.sqrt(loss.mean())), float(np.sqrt(other.mean()))))
    adjusted = holm([test.p_value for test in tests])
    cells = []
    for (cell, name), dm, (mine, other), p in zip(
        opponents.items(), tests, rmse, adjusted, strict=True
    ):
        lead, pollutant = cell
        index = (design.leads.index(lead), design.pollutants.index(pollutant))
        percent = 100 * (mine / other - 1) if other > 0 else float("nan")
        cells.append(
            CellComparison(
                pollutant, lead, name, int(counts[index]), dm.n, dm.n_effective, mine, other,
                percent, dm.mean_difference < 0, dm.statistic, dm.p_value, float(p),
                verdict(p, dm.mean_difference, alpha),
            )
        )  # fmt: skip
    return tuple(cells)


def best_forecasts(
    board: Scoreboard, names: Sequence[str], group: str = ASSIMILATED
) -> dict[tuple[int, str], tuple[str, float]]:
    """The forecast of lowest RMSE per (lead, pollutant), with that RMSE [ug/m3].

    Cells in the order pollutant, lead time. VerificationError for a cell without pairs.
    """
    sums = [_pooled(board, name, group) for name in names]
    best, rmse = lowest_rmse(sums), np.stack([each.rmse() for each in sums])
    return {
        (lead, pollutant): (names[best[i, j]], float(rmse[best[i, j], i, j]))
        for j, pollutant in enumerate(board.design.pollutants)
        for i, lead in enumerate(board.design.leads)
    }


def _pooled(board: Scoreboard, forecast: str, group: str) -> ErrorSums:
    """Errors of a group, (L, P)."""
    return pooled(board, "error", forecast, (board.design.lead_axis, "pollutant"), group=group)


def window_h(design: Design, lead: int) -> int:
    """Hours over which errors of a lead time share weather; see `bandwidth_h`.

    The last hour of lead day d is 24 (d + 1) h ahead.
    """
    return bandwidth_h(lead if design.lead_axis == "lead_h" else 24 * (lead + 1))


@dataclass(frozen=True)
class PrimaryTest:
    """Outcome of `primary_test`."""

    cells: tuple[CellComparison, ...]  # against the best baseline of each cell
    yardsticks: dict[str, tuple[CellComparison, ...]]  # against each further forecast
    validation_rmse: dict[tuple[int, str], float]  # of the chosen baseline [ug/m3]
    model: str
    baselines: tuple[str, ...]
    place: str
    alpha: float

    def _count(self, outcome: str) -> int:
        return sum(cell.verdict == outcome for cell in self.cells)

    @property
    def won(self) -> int:
        """Cells where the model is significantly better than the best baseline."""
        return self._count("won")

    @property
    def lost(self) -> int:
        """Cells where it is significantly worse."""
        return self._count("lost")

    @property
    def tied(self) -> int:
        """Cells where no difference could be shown."""
        return self._count("tie")

    @property
    def lower(self) -> int:
        """Cells where the model has the lower RMSE, significant or not."""
        return sum(cell.lower for cell in self.cells)

    def table(self) -> pd.DataFrame:
        """One row per cell: fields of `CellComparison` with those of each yardstick appended.

        `opponent` is called baseline here; `validation_rmse` is the baseline's. The columns
        of a yardstick end in its name, for example `rmse_ridge`, `verdict_ridge`.
        """
        frame = pd.DataFrame([asdict(cell) for cell in self.cells])
        frame = frame.rename(columns={"opponent": "baseline", "rmse_opponent": "rmse_baseline"})
        validation = [self.validation_rmse[cell.lead_h, cell.pollutant] for cell in self.cells]
        frame.insert(3, "validation_rmse", validation)
        for name, cells in self.yardsticks.items():
            frame[f"rmse_{name}"] = [cell.rmse_opponent for cell in cells]
            for field in ("difference_percent", "p", "p_holm", "verdict"):
                frame[f"{field}_{name}"] = [getattr(cell, field) for cell in cells]
        return frame

    def summary(self) -> dict:
        """Counts for a JSON file: won, lost, tied, lower, and the same for each yardstick."""
        counts = {"won": self.won, "lost": self.lost, "tied": self.tied, "lower": self.lower}
        for name, cells in self.yardsticks.items():
            verdicts = [cell.verdict for cell in cells]
            outcome = {"won": "won", "lost": "lost", "tied": "tie"}
            counts[name] = {key: verdicts.count(value) for key, value in outcome.items()}
            counts[name]["lower"] = sum(cell.lower for cell in cells)
        return {"cells": len(self.cells), "alpha": self.alpha, **counts}


def primary_test(
    validation: Scoreboard,
    test: Scoreboard,
    model: str = "model",
    baselines: Sequence[str] = BASELINES,
    yardsticks: Sequence[str] = YARDSTICKS,
    place: str = ASSIMILATED,
    alpha: float = 0.05,
) -> PrimaryTest:
    """Compare the model with the best baseline of each cell, as chosen on validation.

    Parameters
    ----------
    validation, test : Scoreboard
        Scores of the validation period (chooses the baseline) and of the test period.
    model, baselines, yardsticks : forecast names
        Yardsticks are compared with the model too but are not among the opponents to beat;
        Holm's correction is over the cells of each comparison by itself.
    place : str
        Group of places, pooled.
    alpha : float
        Level of each family of tests.

    Returns
    -------
    PrimaryTest
        Cells in the order pollutant, lead time.

    Raises
    ------
    VerificationError
        A forecast without scores, a cell without pairs, or too few times for a test.
    """
    best = best_forecasts(validation, tuple(baselines), place)
    cells = compare(test, model, {key: name for key, (name, _) in best.items()}, place, alpha)
    further = {
        name: compare(test, model, dict.fromkeys(best, name), place, alpha) for name in yardsticks
    }
    chosen = {key: rmse for key, (_, rmse) in best.items()}
    return PrimaryTest(cells, further, chosen, model, tuple(baselines), place, alpha)
