"""Rows of the table of runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from aqnet.jobs.runs.folder import RunFolder
from aqnet.jobs.runs.record import Attempt

__all__ = ["Row", "measured", "row_of", "seconds_of"]


@dataclass(frozen=True)
class Row:
    """One run; `duration` in seconds, None where it is not known."""

    name: str
    status: str
    notebook: str
    created: datetime
    duration: float | None
    metric: float | str | None

    def plain(self) -> dict:
        """For JSON."""
        return asdict(self) | {"created": self.created.isoformat()}


def seconds_of(attempt: Attempt) -> float | None:
    """How long a start took, or has taken so far; None for one that was lost."""
    if attempt.status == "lost":
        return None
    return ((attempt.ended or datetime.now(UTC)) - attempt.started).total_seconds()


def _duration(run: RunFolder) -> float | None:
    known = [s for s in map(seconds_of, run.attempts) if s is not None]
    if known:
        return sum(known)
    record = run.record  # of an older aqnet
    ended = record.started is not None and record.ended is not None
    return (record.ended - record.started).total_seconds() if ended else None


def _at(values: object, path: str) -> float | str | None:
    """Value at `curve.validation.-1`; None where there is none."""
    for key in path.split("."):
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.removeprefix("-").isdecimal():
            place = int(key)
            if not -len(values) <= place < len(values):
                return None
            values = values[place]
        else:
            return None
    return values if isinstance(values, (bool, int, float, str)) else None


def row_of(run: RunFolder, metric: str | None = None) -> Row:
    """Row of a run; `metric` is a path of keys and positions in metrics.json."""
    record = run.record
    has = metric is not None and run.metrics_path.is_file()
    value = _at(run.read_metrics(), metric) if has else None
    return Row(run.path.name, record.status, record.notebook, record.created, _duration(run), value)


def measured(run: RunFolder) -> dict[str, object]:
    """Single values of metrics.json, by path; of lists their length."""
    found: dict[str, object] = {}

    def visit(values: dict, prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                visit(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = f"list of {len(value)}" if isinstance(value, list) else value

    if run.metrics_path.is_file():
        visit(run.read_metrics(), "")
    return found
