"""What came out of a sweep: one row for each point, paired differences, learning curves.

All is read from the run folders, whatever ran them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from aqnet.errors import ParameterError, explain
from aqnet.io import atomic_write_text
from aqnet.jobs.parameter_types import render
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.definition import SEED, parse_metric
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.records import PointState

__all__ = ["RESULTS", "Results", "collect", "learning_curves", "paired_differences"]

RESULTS = "results.csv"
CONFIDENCE = 0.95
_CURVE = ("step", "train", "validation")
_REDUCTIONS = {"min": min, "max": max, "first": lambda v: v[0], "last": lambda v: v[-1]}


@dataclass(frozen=True)
class Results:
    """Table of a sweep.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns point, label, arm, setting, the parameters that vary, seed, status, the metrics,
        optimiser_steps [1], wall_s [s, of all starts together], code (first digits of the digest
        of the package that ran), run, evaluation, reason. Empty where there is nothing yet.
    notes : tuple of str
        What the reader of the table has to know: metrics that complete runs lack, and points
        that ran with different code.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    def write(self, sweep: Sweep) -> Path:
        """Write results.csv into the folder of the sweep."""
        path = sweep.path / RESULTS
        atomic_write_text(path, self.table.to_csv(index=False, lineterminator="\n"))
        return path


# ---- one run


def _at(metrics: object, keys: Sequence[str]) -> object:
    for key in keys:
        if not isinstance(metrics, Mapping) or key not in metrics:
            return None
        metrics = metrics[key]
    return metrics


def _number(metrics: Mapping, text: str) -> float | None:
    """Value of a metric; None where there is no such number."""
    _, reduction, keys = parse_metric(text)
    found = _at(metrics, keys)
    if reduction:
        numbers = [v for v in found if v is not None] if isinstance(found, list) else []
        found = _REDUCTIONS[reduction](numbers) if numbers else None
    usable = isinstance(found, (int, float)) and math.isfinite(found)
    return found if usable else None


def _metrics(run: Path | None) -> dict | None:
    """Of a complete run."""
    folder = RunFolder.open(run) if run is not None else None
    if folder is None or folder.record.status != "complete" or not folder.metrics_path.exists():
        return None
    return folder.read_metrics()


def _work(run: Path | None) -> dict[str, object]:
    """Wall time and code of all starts of a run."""
    attempts = RunFolder.open(run).attempts if run is not None else []
    seconds = [(a.ended - a.started).total_seconds() for a in attempts if a.ended is not None]
    codes = dict.fromkeys((a.sources_sha256 or "unknown")[:8] for a in attempts)
    return {"wall_s": round(sum(seconds), 1) if seconds else None, "code": " ".join(codes)}


# ---- the table


def collect(
    sweep: Sweep, states: Sequence[PointState], metrics: Mapping[str, str] | None = None
) -> Results:
    """Read the run folders of a sweep.

    Parameters
    ----------
    sweep : Sweep
    states : sequence of PointState
        As `Sweep.states` gives them.
    metrics : mapping, optional
        Metric by column; those of the definition by default.

    Returns
    -------
    Results
    """
    chosen = sweep.stored.definition.metrics if metrics is None else metrics
    rows, lacking = [], dict.fromkeys(chosen, "")
    for state in states:
        found = {"run": _metrics(state.run), "evaluation": _metrics(state.evaluation)}
        values = {}
        for name, text in chosen.items():
            measured = found[parse_metric(text)[0]]
            values[name] = _number(measured or {}, text)
            if state.status == "complete" and values[name] is None:
                lacking[name] = f"{text} is no number in metrics.json of {state.run.name}"
        steps = _number(found["run"] or {}, "last curve.step")
        rows.append(_row(sweep, state) | values | {"optimiser_steps": steps} | _work(state.run)
                    | _ends(state))  # fmt: skip
    table = pd.DataFrame(rows).convert_dtypes()
    return Results(table, (*filter(None, lacking.values()), *_codes(table)))


def _row(sweep: Sweep, state: PointState) -> dict[str, object]:
    point = state.point
    values = {name: point.values[name] for name in sweep.stored.definition.varied}
    shown = {k: render(v) if isinstance(v, list) else v for k, v in values.items()}
    return {"point": point.index, "label": point.label, "arm": point.arm,
            "setting": point.setting, **shown, SEED: point.seed,
            "status": state.status}  # fmt: skip


def _ends(state: PointState) -> dict[str, object]:
    names = {"run": state.run, "evaluation": state.evaluation}
    shown = {name: path.name if path else "" for name, path in names.items()}
    return shown | {"reason": state.reason}


def _codes(table: pd.DataFrame) -> list[str]:
    codes = sorted({code for text in table["code"] for code in text.split()})
    if len(codes) < 2:
        return []
    return [f"the points ran with {len(codes)} versions of the code: {', '.join(codes)}"]


# ---- comparisons


def _refuse_baseline(table: pd.DataFrame, baseline: str) -> ParameterError:
    names = [*dict.fromkeys(filter(None, table["arm"])), *dict.fromkeys(table["label"])]
    return ParameterError(explain(
        f"there is no {baseline!r} in the sweep", expected=", ".join(dict.fromkeys(names)),
        found=baseline, remedy="choose one of the labels",
    ))  # fmt: skip


def _differences(own: pd.DataFrame, reference: Mapping, metric: str, keys: list[str]) -> np.ndarray:
    pairs = [(value, reference.get(tuple(key)))
             for value, *key in own[[metric, *keys]].itertuples(index=False)]  # fmt: skip
    return np.array([value - other for value, other in pairs if other is not None], float)


def paired_differences(table: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """Difference of each label from a baseline, between points that differ in nothing else.

    Parameters
    ----------
    table : pandas.DataFrame
        `Results.table`.
    metric : str
        Column.
    baseline : str
        Label of an arm, paired by setting and seed; or a whole label, paired by seed.

    Returns
    -------
    pandas.DataFrame
        label, pairs (number), unpaired (complete points without a partner), mean_difference
        (label minus baseline, unit of the metric), low and high: 95 % interval of the mean by
        Student's t over the pairs, NaN for fewer than 2.

    Raises
    ------
    ParameterError
        There is no such baseline or metric.
    """
    if metric not in table:
        raise ParameterError(explain(
            "there is no such column", expected=", ".join(table.columns), found=metric,
            remedy="name a metric of the sweep",
        ))  # fmt: skip
    column = "arm" if baseline and (table["arm"] == baseline).any() else "label"
    if not (table[column] == baseline).any():
        raise _refuse_baseline(table, baseline)
    keys = ["setting", SEED] if column == "arm" else [SEED]
    usable = table[(table["status"] == "complete") & table[metric].notna()]
    usable = usable.assign(**{SEED: usable[SEED].astype(object).fillna("none")})
    of_baseline = usable[usable[column] == baseline]
    partners = of_baseline[[metric, *keys]].itertuples(index=False)
    reference = {tuple(key): value for value, *key in partners}
    rows = []
    for label, own in usable[usable[column] != baseline].groupby("label", sort=False):
        differences = _differences(own, reference, metric, keys)
        rows.append({"label": label, "pairs": differences.size,
                     "unpaired": len(own) - differences.size} | _interval(differences))  # fmt: skip
    return pd.DataFrame(
        rows, columns=["label", "pairs", "unpaired", "mean_difference", "low", "high"]
    )


def _interval(differences: np.ndarray) -> dict[str, float]:
    count = differences.size
    mean = float(differences.mean()) if count else math.nan
    half = math.nan
    if count > 1:
        error = float(differences.std(ddof=1)) / math.sqrt(count)
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return {"mean_difference": mean, "low": mean - half, "high": mean + half}


def learning_curves(states: Sequence[PointState]) -> pd.DataFrame:
    """Losses against optimiser steps, of the complete runs that measured a `curve`.

    Returns
    -------
    pandas.DataFrame
        label, seed, step [1], train and validation loss; NaN where there was none.
    """
    parts = []
    for state in states:
        curve = (_metrics(state.run) or {}).get("curve")
        if isinstance(curve, Mapping) and curve.keys() >= set(_CURVE):
            values = {
                name: np.array(curve[name], float) for name in ("step", "train", "validation")
            }
            parts.append(
                pd.DataFrame({"label": state.point.label, SEED: state.point.seed} | values)
            )
    columns = ["label", SEED, "step", "train", "validation"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
