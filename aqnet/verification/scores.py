"""Scores of several forecasts on common pairs, and the primary test of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import ErrorSums, VerificationError
from aqnet.model.statistical import STATISTICAL
from aqnet.variables import LEAD_TIMES_H, TARGETS
from aqnet.verification.significance import bandwidth_h, diebold_mariano, holm, verdict

__all__ = [
    "BASELINES",
    "PLACES",
    "CellComparison",
    "PrimaryTest",
    "Scorecard",
    "compare",
    "primary_test",
]

ASSIMILATED, WITHHELD, GRID = PLACES = ("assimilated stations", "withheld stations", "grid")
BASELINES = STATISTICAL
YARDSTICKS = ("ridge",)


class Scorecard:
    """Scores per place, forecast, lead time and pollutant, all forecasts on the same pairs.

    Parameters
    ----------
    forecasts : sequence of str
        Names of the forecasts, in the order of the tables.
    lead_times_h : sequence of int
        Lead times [h], L of them.
    pollutants : sequence of str
        P pollutants.
    """

    def __init__(
        self,
        forecasts: Sequence[str],
        lead_times_h: Sequence[int] = LEAD_TIMES_H,
        pollutants: Sequence[str] = TARGETS,
    ) -> None:
        self.forecasts = tuple(forecasts)
        self.lead_times_h = tuple(lead_times_h)
        self.pollutants = tuple(pollutants)
        self.shape = (len(self.lead_times_h), len(self.pollutants))
        self._sums: dict[tuple[str, str], ErrorSums] = {}
        self._missing: dict[tuple[str, str], np.ndarray] = {}
        self._series: dict[str, list[dict[str, np.ndarray]]] = {}

    @property
    def places(self) -> tuple[str, ...]:
        """Places with scores, in the order of `PLACES`."""
        return tuple(place for place in PLACES if place in self._series)

    def accumulate(
        self,
        place: str,
        init_times: np.ndarray,
        forecasts: Mapping[str, np.ndarray],
        truth: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> None:
        """Add a batch of forecasts. A pair counts only if truth and all forecasts are finite.

        Parameters
        ----------
        place : str
            One of `PLACES`.
        init_times : (N,) datetime64, UTC
            Each init time once per place; batches in any order.
        forecasts : mapping of name to (N, L, P, S)
            ug/m3, one for each name of the scorecard. S is stations or grid cells.
        truth : (N, L, P, S)
            ug/m3, NaN where unknown.
        weight : (S,) or broadcastable, optional
            For the grid 1 in scored cells and 0 elsewhere; cells with weight 0 may be NaN.

        Raises
        ------
        VerificationError
            Unknown place, other forecasts than announced, wrong shapes or times, bad weights.
        """
        self._check(place, init_times, forecasts, truth)
        truth = np.asarray(truth, dtype=np.float64)
        scored = np.broadcast_to(1.0 if weight is None else weight, truth.shape)
        wanted = np.isfinite(truth) & (scored > 0)
        common = wanted & np.all([np.isfinite(forecasts[n]) for n in self.forecasts], axis=0)
        # Booleans in float: a bad weight must reach ErrorSums, which names it.
        weights = np.where(common | ~(scored >= 0), scored, 0.0)
        batch = {"times": np.asarray(init_times).astype("datetime64[h]")}
        batch["weight"] = weights.sum(-1)
        for name in self.forecasts:
            forecast = np.where(common, forecasts[name], 0.0)
            known = np.where(common, truth, np.nan)
            key = (place, name)
            sums = self._sums.setdefault(key, ErrorSums(self.shape))
            sums.update(forecast, known, weights)
            lost = (wanted & ~np.isfinite(forecasts[name])).sum((0, 3))
            self._missing[key] = self._missing.get(key, 0) + lost
            batch[name] = (weights * np.where(common, forecast - truth, 0.0) ** 2).sum(-1)
        self._series.setdefault(place, []).append(batch)

    def _check(
        self, place: str, times: np.ndarray, forecasts: Mapping[str, np.ndarray], truth: np.ndarray
    ) -> None:
        shape = np.shape(truth)
        times = np.asarray(times)
        wrong = [name for name in forecasts if np.shape(forecasts[name]) != shape]
        checks = (
            ("unknown place", PLACES, place, place in PLACES),
            ("other forecasts than announced", self.forecasts, tuple(forecasts),
             set(forecasts) == set(self.forecasts)),
            ("truth has the wrong shape", f"(N, {self.shape[0]}, {self.shape[1]}, S)", shape,
             len(shape) == 4 and shape[1:3] == self.shape),
            ("a forecast has another shape than the truth", shape,
             {name: np.shape(forecasts[name]) for name in wrong}, not wrong),
            ("init times do not match", f"({shape[:1]}) datetime64, none missing",
             f"{times.dtype} {times.shape}",
             np.issubdtype(times.dtype, np.datetime64) and times.shape == shape[:1]
             and not np.isnat(times).any()),
        )  # fmt: skip
        for problem, expected, found, fine in checks:
            if not fine:
                remedy = "see Scorecard.accumulate for names and shapes"
                message = explain(problem, expected=expected, found=found, remedy=remedy)
                raise VerificationError(message)

    def merge(self, other: Scorecard) -> Scorecard:
        """Scorecard of the batches of both (other init times or places), as a new object.

        Raises
        ------
        VerificationError
            The two score other forecasts, lead times or pollutants.
        """
        mine = (self.forecasts, self.lead_times_h, self.pollutants)
        theirs = (other.forecasts, other.lead_times_h, other.pollutants)
        if mine != theirs:
            remedy = "merge parts of one evaluation"
            message = explain("scorecards differ", expected=mine, found=theirs, remedy=remedy)
            raise VerificationError(message)
        merged = Scorecard(*mine)
        for part in (self, other):
            for key, sums in part._sums.items():
                merged._sums[key] = merged._sums.get(key, ErrorSums(self.shape)) + sums
                merged._missing[key] = merged._missing.get(key, 0) + part._missing[key]
            for place, batches in part._series.items():
                merged._series.setdefault(place, []).extend(batches)
        return merged

    def sums(self, place: str, forecast: str) -> ErrorSums:
        """Error sums of shape (L, P). Raises VerificationError if nothing was accumulated."""
        return self._get(self._sums, (place, forecast))

    def missing(self, place: str, forecast: str) -> np.ndarray:
        """(L, P) pairs with known truth that no forecast is scored on as this one lacks them."""
        return self._get(self._missing, (place, forecast))

    def _get(self, store: dict, key: object) -> object:
        if key not in store:
            remedy = "accumulate the forecasts of this place first"
            found, known = key, sorted(map(str, store)) or "nothing accumulated"
            message = explain("no such scores", expected=known, found=found, remedy=remedy)
            raise VerificationError(message)
        return store[key]

    def loss_series(
        self, place: str, forecast: str, lead_h: int, pollutant: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared error per init time, pooled over the stations or cells of a place.

        The weighted sum of squared errors at each init time over the *mean* weight per time,
        so that the mean over times is exactly the square of the pooled RMSE.

        Returns
        -------
        times : (T,) datetime64[h], increasing
            Init times with at least one common pair.
        loss : (T,)
            (ug/m3)^2.

        Raises
        ------
        VerificationError
            Nothing accumulated, or an init time that was accumulated twice.
        """
        batches = self._get(self._series, place)
        cell = (slice(None), self.lead_times_h.index(lead_h), self.pollutants.index(pollutant))
        times = np.concatenate([b["times"] for b in batches])
        weight = np.concatenate([b["weight"][cell] for b in batches])
        error = np.concatenate([b[forecast][cell] for b in batches])
        order = np.argsort(times, kind="stable")
        if np.any(times[order][1:] == times[order][:-1]):
            problem, expected = f"init times accumulated twice: {place}", "each init time once"
            found = f"{times.size - np.unique(times).size} repeated"
            remedy = "accumulate batches that do not overlap"
            message = explain(problem, expected=expected, found=found, remedy=remedy)
            raise VerificationError(message)
        order = order[weight[order] > 0]
        return times[order], error[order] / weight[order].mean() if order.size else error[order]

    def table(self) -> pd.DataFrame:
        """One row per place, pollutant, lead time and forecast; scores in ug/m3, NaN if empty.

        Columns: place, pollutant, lead_h, forecast, n, missing, rmse, mae, bias, correlation.
        """
        rows = []
        for place in self.places:
            for name in self.forecasts:
                sums, missing = self.sums(place, name), self.missing(place, name)
                scores = {k: getattr(sums, k)() for k in ("rmse", "mae", "bias", "correlation")}
                for i, lead in enumerate(self.lead_times_h):
                    for j, pollutant in enumerate(self.pollutants):
                        row = {"place": place, "pollutant": pollutant, "lead_h": lead}
                        row |= {"forecast": name, "n": int(sums.n[i, j])}
                        row["missing"] = int(missing[i, j])
                        rows.append(row | {k: float(v[i, j]) for k, v in scores.items()})
        frame = pd.DataFrame(rows)
        if rows:
            keys = ["place", "pollutant", "lead_h", "forecast"]
            ranks = {k: {v: i for i, v in enumerate(values)} for k, values in self._orders()}
            frame = frame.sort_values(keys, key=lambda c: c.map(ranks[c.name]), kind="stable")
        return frame.reset_index(drop=True)

    def _orders(self) -> tuple[tuple[str, Sequence], ...]:
        return (
            ("place", PLACES),
            ("pollutant", self.pollutants),
            ("lead_h", self.lead_times_h),
            ("forecast", self.forecasts),
        )

    def records(self) -> list[dict]:
        """Rows of `table` for a JSON file: NaN becomes None."""
        rows = self.table().to_dict("records")
        return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in rows]


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
    scorecard: Scorecard,
    model: str,
    opponents: Mapping[tuple[int, str], str],
    place: str = ASSIMILATED,
    alpha: float = 0.05,
) -> tuple[CellComparison, ...]:
    """Compare a model with one opponent per cell by Diebold-Mariano tests on squared error.

    Parameters
    ----------
    scorecard : Scorecard
        Scores of the test period.
    model : str
        Name of the forecast under test.
    opponents : mapping of (lead_h, pollutant) to forecast name
        One for each cell; Holm's correction is over these cells.
    place : str
        One of `PLACES`.
    alpha : float
        Level of the family of tests.

    Raises
    ------
    VerificationError
        A cell without pairs, or too few times for a test.
    """
    results, pairs = [], []
    for (lead, pollutant), opponent in opponents.items():
        times, loss = scorecard.loss_series(place, model, lead, pollutant)
        _, other = scorecard.loss_series(place, opponent, lead, pollutant)
        if times.size == 0:
            found, remedy = f"none for {pollutant} at {lead} h, {place}", "score a longer period"
            message = explain("no pairs", expected="scored pairs", found=found, remedy=remedy)
            raise VerificationError(message)
        results.append(diebold_mariano(loss, other, bandwidth_h(lead), times))
        pairs.append((float(np.sqrt(loss.mean())), float(np.sqrt(other.mean()))))
    adjusted = holm([result.p_value for result in results])
    cells = []
    for (cell, name), dm, (mine, other), p in zip(
        opponents.items(), results, pairs, adjusted, strict=True
    ):
        lead, pollutant = cell
        index = scorecard.lead_times_h.index(lead), scorecard.pollutants.index(pollutant)
        percent = 100 * (mine / other - 1) if other > 0 else float("nan")
        cells.append(
            CellComparison(
                pollutant, lead, name, int(scorecard.sums(place, model).n[index]), dm.n,
                dm.n_effective, mine, other, percent, dm.mean_difference < 0, dm.statistic,
                dm.p_value, float(p), verdict(p, dm.mean_difference, alpha),
            )
        )  # fmt: skip
    return tuple(cells)


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


def _best(
    scorecard: Scorecard, baselines: Sequence[str], place: str
) -> dict[tuple[int, str], tuple[str, float]]:
    """The baseline of lowest RMSE per (lead_h, pollutant), with that RMSE."""
    rmse = np.stack([scorecard.sums(place, name).rmse() for name in baselines])
    if not np.isfinite(rmse).all():
        found = f"{int((~np.isfinite(rmse)).any(0).sum())} cells without pairs"
        remedy = "choose on a validation period that has observations of every pollutant"
        message = explain("no best baseline", expected="scores", found=found, remedy=remedy)
        raise VerificationError(message)
    cells = [(p, q) for q in range(scorecard.shape[1]) for p in range(scorecard.shape[0])]
    return {
        (scorecard.lead_times_h[i], scorecard.pollutants[j]): (
            baselines[int(rmse[:, i, j].argmin())],
            float(rmse[:, i, j].min()),
        )
        for i, j in cells
    }


def primary_test(
    validation: Scorecard,
    test: Scorecard,
    model: str = "model",
    baselines: Sequence[str] = BASELINES,
    yardsticks: Sequence[str] = YARDSTICKS,
    place: str = ASSIMILATED,
    alpha: float = 0.05,
) -> PrimaryTest:
    """Compare the model with the best baseline of each cell, as chosen on validation.

    Parameters
    ----------
    validation, test : Scorecard
        Scores of the validation period (chooses the baseline) and of the test period.
    model, baselines, yardsticks : forecast names
        Yardsticks are compared with the model too but are not among the opponents to beat;
        Holm's correction is over the cells of each comparison by itself.
    place : str
        One of `PLACES`; station-pooled.
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
    best = _best(validation, tuple(baselines), place)
    cells = compare(test, model, {key: name for key, (name, _) in best.items()}, place, alpha)
    further = {
        name: compare(test, model, dict.fromkeys(best, name), place, alpha) for name in yardsticks
    }
    chosen = {key: rmse for key, (_, rmse) in best.items()}
    return PrimaryTest(cells, further, chosen, model, tuple(baselines), place, alpha)
