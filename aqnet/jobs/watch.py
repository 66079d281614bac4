"""How a run is getting on, from its folder and, where there is one, SLURM.

A run on this machine has its folder alone. All that is shown is read anew each time; nothing is
written.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from aqnet.errors import RunError, explain
from aqnet.io import runs_root
from aqnet.jobs.runs import RunFolder, find_run
from aqnet.jobs.submit import SUBMISSION
from aqnet.jobs.watch_queue import QueuedJob, ask_slurm
from aqnet.jobs.watch_ranks import describe_ranks
from aqnet.training.heartbeat import HEARTBEAT, Beat, read_beats

__all__ = ["find_watched", "job_of", "report", "tensorboard_lines"]

_JOB = re.compile(r"\d+(_\d+)?")
# Last words of Python, of aqnet and of SLURM.
_ERROR = re.compile(
    r"^(?:\w+(?:\.\w+)*(?:Error|Exception|Interrupt)\b|error:|\w+: error:|.*\bKilled)"
)
_TAIL = 200_000  # bytes of a log in which the last error is looked for
_RESUBMITTED = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)
_WIDTH = 160  # of the line of an error


# ---- which run, which job


def _run_of_job(number: str, root: Path) -> RunFolder:
    job = ask_slurm(number)
    place = Path(job.output).parent.parent if job and job.output else None
    if place is not None and (place / "run.json").is_file():
        return RunFolder.open(place)
    wanted = {number} | ({job.number} if job else set())
    for pattern in (f"*/{SUBMISSION}", "*/attempts/*.json"):
        for path in sorted(root.glob(pattern), reverse=True):
            if json.loads(path.read_text(encoding="utf-8")).get("job") in wanted:
                return RunFolder.open(root / path.relative_to(root).parts[0])
    raise RunError(explain(
        f"there is no run of job {number} in {root}", expected="a job that aqnet submitted",
        found="another job" if job else "a number that SLURM does not know",
        remedy="give the run folder; an element of an array has one when it has started",
    ))  # fmt: skip


def find_watched(name: str) -> RunFolder:
    """The run that a name, a path, or the number of a job of SLURM stands for.

    Raises
    ------
    RunError
        No such run, or several.
    """
    return _run_of_job(name, runs_root()) if _JOB.fullmatch(name) else find_run(name)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _newest_log(run: RunFolder) -> Path | None:
    logs = [*run.path.glob("logs/job-*.log"), *run.path.glob("logs/attempt-*.log")]
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def job_of(run: RunFolder) -> str | None:
    """Number of the newest job of a run: submitted, by itself if need be, or started."""
    found = [attempt.job for attempt in run.attempts if attempt.job]
    if (run.path / SUBMISSION).is_file():
        found.append(json.loads((run.path / SUBMISSION).read_text(encoding="utf-8"))["job"])
    found += [path.name.split("-")[1] for path in run.path.glob("logs/job-*.log")]
    log = _newest_log(run)
    found += _RESUBMITTED.findall(_tail(log)) if log else []
    # of an element of an array (123_4) the number of the array goes first
    return max(found, key=lambda text: tuple(map(int, text.split("_"))), default=None)


# ---- lines


def _training(run: RunFolder) -> list[dict[str, str]]:
    path = run.checkpoints / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))


def _last(rows: Sequence[dict[str, str]], name: str) -> tuple[float, str] | None:
    """The last value of a column, and its step."""
    values = [(float(row[name]), row["step"]) for row in rows if row.get(name)]
    return values[-1] if values else None


def _losses(rows: Sequence[dict[str, str]]) -> list[str]:
    loss, judged = _last(rows, "loss"), _last(rows, "val_loss")
    parts = [f"{loss[0]:.4g} at step {loss[1]}"] if loss else []
    if judged:
        best, at = min((float(row["val_loss"]), row["step"]) for row in rows if row.get("val_loss"))
        parts.append(f"validation {judged[0]:.4g} at step {judged[1]}, best {best:.4g} at {at}")
    return ["; ".join(parts)] if parts else []


def _progress(beat: Beat) -> str:
    text = f"{beat.phase}, step {beat.step} of {beat.steps}, epoch {beat.epoch}"
    if not beat.steps:
        return beat.phase
    left = (beat.steps - beat.step) * beat.seconds_per_step
    ahead = f", {timedelta(seconds=round(left))} to the end" if left else ""
    return f"{text} ({beat.step / beat.steps:.0%}){ahead}"


def _speed(beat: Beat) -> list[str]:
    if not beat.own_seconds_per_step:
        return []
    return [f"{beat.samples_s:.4g} samples/s; a step takes {beat.seconds_per_step:.3g} s, of which "
            f"rank {beat.rank} waits {beat.wait_seconds_per_step:.2g} s"]  # fmt: skip


def _last_error(run: RunFolder) -> list[str]:
    log = _newest_log(run)
    found = [line for line in _tail(log).splitlines() if _ERROR.match(line)] if log else []
    return [f"{found[-1][:_WIDTH]} ({log.relative_to(run.path)})"] if found else []


def tensorboard_lines(run: Path) -> list[str]:
    """How to look at the curves of a run from another machine."""
    return [f"on the login node: tensorboard --port 6006 --logdir {run}/checkpoints/tensorboard",
            "at your desk: ssh -N -L 6006:localhost:6006 USER@LOGIN-NODE, then open "
            "http://localhost:6006"]  # fmt: skip


def _state(run: RunFolder, job: QueuedJob | None) -> str:
    record, starts = run.record, len(run.attempts)
    text = f"{run.path.name}: {record.status}"
    if record.error is not None:
        text += f", {record.error.type}: {record.error.message.splitlines()[0]}"
    if starts > 1:
        text += f"; start {starts}"
    if job is not None and job.over and record.status == "running":
        text += "; but its job is over"
    return text


def _ended(run: RunFolder, job: QueuedJob | None) -> bool:
    if job is not None and not job.over:
        return False
    return run.record.status in ("complete", "failed", "interrupted") or job is not None


def report(run: RunFolder, now: float | None = None) -> tuple[str, bool]:
    """How a run is getting on, and whether it has ended.

    Returns
    -------
    str
        ``name  text`` lines: run, job, progress, speed, loss, ranks, error, tensorboard.
    bool
    """
    number, now = job_of(run), time.time() if now is None else now
    job = ask_slurm(number) if number else None
    ended = _ended(run, job)
    beats = read_beats(run.path / HEARTBEAT)
    lines = [("run", _state(run, job))]
    if number:
        lines.append(("job", str(job) if job else f"{number}: SLURM does not know it here"))
    if beats:
        lines += [("progress", _progress(beats[0])), *(("speed", s) for s in _speed(beats[0]))]
    lines += [("loss", text) for text in _losses(_training(run))]
    if beats and not ended and run.record.status == "running":
        lines += [("ranks", text) for text in describe_ranks(beats, now)]
    lines += [("error", text) for text in _last_error(run)]
    if (run.checkpoints / "tensorboard").is_dir():
        lines += [("curves", text) for text in tensorboard_lines(run.path)]
    return "\n".join(f"{name:<9} {text}" for name, text in lines), ended
