"""One record for each start of a run: where, with what, how it ended, and its log."""

from __future__ import annotations

import os
import platform
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import aqnet
from aqnet.code_state import git_state
from aqnet.jobs.runs.environment import present_environment
from aqnet.jobs.runs.record import Attempt, Failure, dump, load
from aqnet.launch import this_job, this_launch

__all__ = ["begin_attempt", "end_attempt", "log_of_job", "read_attempts"]

ATTEMPTS, LOGS = "attempts", "logs"


def read_attempts(folder: Path) -> list[Attempt]:
    """All starts of the run in a folder, in order.

    Raises
    ------
    RunError
        One of the records is damaged.
    """
    found = [load(path, Attempt) for path in (folder / ATTEMPTS).glob("[0-9]*.json")]
    return sorted(found, key=lambda attempt: attempt.number)


def _write(folder: Path, attempt: Attempt) -> None:
    dump(folder / ATTEMPTS / f"{attempt.number}.json", attempt)


def log_of_job(folder: Path) -> Path | None:
    """The log that the job script of `aqnet submit` writes for this start, if it does."""
    job, restart = this_job()
    path = folder / LOGS / f"job-{job}-{restart}.log"
    return path if job is not None and path.exists() else None


def begin_attempt(folder: Path) -> Attempt:
    """Note a start. One before it that has no end is lost: nobody is left to tell."""
    before = read_attempts(folder)
    for attempt in before:
        if attempt.status == "running":
            _write(folder, attempt.model_copy(update={"status": "lost"}))
    number = before[-1].number + 1 if before else 1
    job, restart = this_job()
    launch = this_launch()
    log, host = log_of_job(folder), socket.gethostname()
    (folder / LOGS).mkdir(exist_ok=True)
    attempt = Attempt(
        number=number, launcher=launch.launcher, command=tuple(sys.argv), job=job, restart=restart,
        host=host, hosts=os.environ.get("SLURM_JOB_NODELIST", host), processes=launch.processes,
        pid=os.getpid(), platform=platform.platform(), cpus=len(os.sched_getaffinity(0)),
        started=datetime.now(UTC), environment=present_environment(),
        sources_sha256=git_state(Path(aqnet.__file__).parent).sources_sha256,
        log=f"{LOGS}/{log.name if log else f'attempt-{number}.log'}",
    )  # fmt: skip
    _write(folder, attempt)
    return attempt


def end_attempt(
    folder: Path, status: str, exit_code: int | None = None, error: Failure | None = None
) -> None:
    """Note how the last start ended; nothing if there was none (a job that SLURM refused)."""
    attempts = read_attempts(folder)
    of_job = log_of_job(folder) is not None
    if of_job and (not attempts or (attempts[-1].job, attempts[-1].restart) != this_job()):
        attempts = [begin_attempt(folder)]  # it ended before Python began
    if attempts:
        change = {"status": status, "exit_code": exit_code, "error": error}
        ended = attempts[-1].model_copy(update=change | {"ended": datetime.now(UTC)})
        _write(folder, Attempt.model_validate(dict(ended)))
