"""Records of a sweep: what is stored of it, its arrays of jobs, what has become of its points."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil

from aqnet.config import Config
from aqnet.errors import ParameterError, explain
from aqnet.jobs.sweeps.definition import SweepDefinition
from aqnet.jobs.sweeps.points import Point

__all__ = [
    "TO_DO",
    "ArrayRecord",
    "Holder",
    "PointState",
    "Queue",
    "Stored",
    "SweepStatus",
    "refuse_change",
]

SweepStatus = Literal[
    "missing", "waiting", "running", "complete", "failed", "interrupted", "lost", "unknown"
]
TO_DO: tuple[SweepStatus, ...] = ("missing", "interrupted", "lost")  # what a restart does
# SLURM's state and id of an element, by the name of its job and its number
Queue = Mapping[tuple[str, int], tuple[str, str]]


class Stored(Config):
    """Content of points.json."""

    schema_version: Literal[1] = 1
    created: datetime  # UTC
    notebook_sha256: str  # over the code of the notebook
    evaluation_sha256: str | None  # over that of the evaluation
    definition: SweepDefinition  # content of the file
    points: tuple[Point, ...]  # in order
    summary_sha256: str | None = None  # over the code of the summary
    summary: Point | None = None  # its parameters, as those of a point


class ArrayRecord(Config):
    """Content of array.json: which element of which jobs has which run folder."""

    schema_version: Literal[1] = 1
    job_name: str  # in the queue
    runs: tuple[str, ...]  # run folder of each element
    job: str | None = None  # number; None until SLURM has given one
    submitted: datetime | None = None  # UTC
    profile: str  # of the cluster
    processes: int  # of each element


@dataclass(frozen=True)
class PointState:
    """What has become of a point.

    Attributes
    ----------
    point : Point
    status : str
        `missing`: not started; `waiting` in SLURM's queue; `running`; `complete`, with its
        evaluation; `failed`; `interrupted` in order; `lost`: killed with whatever ran it;
        `unknown`: submitted, and there is no SLURM here to ask.
    run, evaluation : Path or None
        Last run folder of each, if there is one.
    reason : str
        Why it failed or was interrupted.
    held : bool
        By a process on this machine.
    """

    point: Point
    status: SweepStatus
    run: Path | None
    evaluation: Path | None
    reason: str
    held: bool


@dataclass(frozen=True)
class Holder:
    """The process that holds a sweep or a point."""

    host: str
    pid: int
    began: float

    def process(self) -> psutil.Process | None:
        """It, if it runs on this host."""
        try:
            process = psutil.Process(self.pid)
            same = self.host == socket.gethostname() and process.create_time() == self.began
        except psutil.NoSuchProcess:
            return None
        return process if same else None


def _flat(value: object, name: str = "") -> dict[str, object]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found: dict[str, object] = {}
    for key, item in items:
        where = f"{name}.{key}" if name else str(key)
        nested = isinstance(item, (Mapping, list)) and item
        found |= _flat(item, where) if nested else {where: item}
    return found


def refuse_change(name: str, before: dict, now: dict) -> None:
    """Raise ParameterError with what differs, if anything does."""
    old, new = _flat(before), _flat(now)
    keys = [k for k in dict.fromkeys([*old, *new]) if old.get(k, "none") != new.get(k, "none")]
    if keys:
        raise ParameterError(explain(
            f"the sweep {name} was begun with another definition",
            expected=", ".join(f"{k} = {old.get(k, 'none')}" for k in keys),
            found=", ".join(f"{k} = {new.get(k, 'none')}" for k in keys),
            remedy="choose another name, or go back to the definition that it was begun with",
        ))  # fmt: skip
