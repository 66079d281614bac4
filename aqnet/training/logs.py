"""What a training writes for people and plotting tools: lines, metrics.csv and TensorBoard."""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from lightning.fabric.loggers import CSVLogger, TensorBoardLogger

from aqnet.io import atomic_write_text
from aqnet.variables import TARGETS

__all__ = ["RunLog", "named_values"]

METRICS = "metrics.csv"


def named_values(prefix: str, values: np.ndarray, lead_times_h: tuple[int, ...]) -> dict:
    """Finite values (L, 6) as `prefix/pm25_12h` and so on."""
    return {
        f"{prefix}/{name}_{hours}h": float(values[i, j])
        for i, hours in enumerate(lead_times_h)
        for j, name in enumerate(TARGETS)
        if np.isfinite(values[i, j])
    }


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows_until(path: Path, step: int) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]  # a full disk cuts the last one
    rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(whole)]
    return [row for row in rows if int(row["step"]) <= step]


def _as_csv(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(folder: Path, step: int) -> CSVLogger:
    """Logger of metrics.csv, which it begins anew, with the old rows up to the step."""
    path = folder / METRICS
    kept, rows = path.with_suffix(".kept"), _rows_until(path, step)
    # A start that was killed while it wrote them has left the rows of the one before it here.
    rows = _rows_until(kept, step) if kept.exists() else rows
    if rows:
        atomic_write_text(kept, _as_csv(rows))
    table = CSVLogger(folder.parent, folder.name, "", flush_logs_every_n_steps=1)
    with warnings.catch_warnings():
        # it removes metrics.csv alone; the checkpoints in the folder stay
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        writer = table.experiment
    for row in rows:
        writer.log_metrics(row, int(row.pop("step")))
    writer.save()
    kept.unlink(missing_ok=True)
    return table


class RunLog:
    """Log of the first rank; the others' does nothing.

    A resumed run keeps the rows up to its step: what came after them is done again.

    Parameters
    ----------
    folder : path
        For `metrics.csv` and the folder `tensorboard`.
    step : int
        Where the run starts.
    echo : callable
        Takes the lines: ``step=... epoch=... loss=... lr=... samples_s=...``.
    active : bool
        Whether this is the first rank.
    """

    def __init__(self, folder: Path, step: int, echo: Callable[[str], None], active: bool) -> None:
        self.active, self._echo, self._loggers = active, echo, []
        self._since, self._samples = time.monotonic(), 0
        if active:
            events = TensorBoardLogger(folder, "tensorboard", "", purge_step=step + 1)
            self._loggers = [_table(folder, step), events]

    def say(self, line: str) -> None:
        """One line, from the first rank."""
        if self.active:
            self._echo(line)

    def count(self, samples: int) -> None:
        """Samples that were trained on."""
        self._samples += samples

    def speed(self) -> float:
        """Samples per second since the last call."""
        now = time.monotonic()
        value = self._samples / max(now - self._since, 1e-9)
        self._since, self._samples = now, 0
        return value

    def record(self, step: int, head: Mapping[str, object], more: Mapping[str, float]) -> None:
        """A line of `head`, and its numbers with `more` in the metrics."""
        self.say(" ".join(f"{k}={_text(v)}" for k, v in {"step": step, **head}.items()))
        numbers = {k: v for k, v in {**head, **more}.items() if isinstance(v, (int, float))}
        for logger in self._loggers:
            logger.log_metrics(dict(numbers), step)

    def close(self) -> None:
        """Write what is left."""
        for logger in self._loggers:
            logger.finalize("success")
