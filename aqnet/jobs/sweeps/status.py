"""What has become of one run of a sweep, from its folder, the processes here and SLURM's queue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.records import Queue, SweepStatus

__all__ = ["status_of"]

_RUNNING = ("RUNNING", "STAGE_OUT", "SIGNALING", "STOPPED")
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED",
            "RESV_DEL_HOLD", "SPECIAL_EXIT")  # fmt: skip


def status_of(
    run: Path | None, held: bool, jobs: Mapping[str, tuple[str, int]], queue: Queue | None
) -> tuple[SweepStatus, str]:
    """Status of a run, and why it did not complete (empty if nothing is known of that).

    Parameters
    ----------
    run : Path or None
        Its folder; None before it has one.
    held : bool
        A process on this machine has it.
    jobs : mapping
        See `Sweep.jobs`.
    queue : mapping or None
        See `Sweep.states`.
    """
    record = RunFolder.open(run).record if run is not None else None
    if record is not None and record.status == "complete":
        return "complete", ""
    job = jobs.get(run.name) if run is not None else None
    queued = queue.get(job, ("", ""))[0] if job and queue is not None else ""
    if held or queued in _RUNNING:
        return "running", ""
    if queued in _WAITING:
        return "waiting", ""
    if record is None:
        return "missing", ""
    error = record.error
    reason = (error.message.splitlines() or [error.type])[0] if error else ""
    if record.status == "interrupted" and queued == "COMPLETING":
        return "running", ""  # a requeued job shows this until its nodes are clean, and runs again
    if record.status in ("failed", "interrupted"):
        return record.status, reason
    if job and queue is None:
        return "unknown", "submitted to SLURM, which is not here to be asked"
    if record.status == "created" and not job:
        return "missing", ""
    if queued == "COMPLETING":
        return "running", ""
    if record.status == "created":
        return "lost", "submitted, and gone from the queue before it started"
    return "lost", "killed while running: neither a process nor a job has it"
