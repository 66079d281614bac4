"""Stop a sweep: the command that runs it, the points that run here, and those in SLURM's queue."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import psutil

from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.queue import cancel_elements, read_queue
from aqnet.jobs.sweeps.records import Holder

__all__ = ["cancel_sweep"]

_TICK_S = 0.1
PATIENCE_S = 60.0  # for checkpoints; then the user is told what still runs


def _ask(what: str, holder: Holder, number: int) -> tuple[str, psutil.Process | None]:
    process = holder.process()
    if process is None:
        return f"{what} is run by a process on {holder.host}: cancel it there", None
    with suppress(psutil.NoSuchProcess):  # it has just ended
        process.send_signal(number)
    return f"asked to stop: {what} (process {holder.pid})", process


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended in time."""
    end = time.monotonic() + PATIENCE_S
    while processes and time.monotonic() < end:
        processes = [process for process in processes if not _ended(process)]
        time.sleep(_TICK_S)
    return processes


def cancel_sweep(sweep: Sweep) -> list[str]:
    """Ask all that runs to stop, and wait for it; cancel all that waits.

    Runs that are asked write their checkpoints where their notebooks do that. A command that runs
    the sweep here passes the signal on to its points.

    Returns
    -------
    list of str
        What was done, one line each.

    Raises
    ------
    RunError
        SLURM does not answer.
    """
    lines, asked = [], []
    command = sweep.holder("sweep")
    if command is not None:
        line, process = _ask(f"the command that runs {sweep.name}", command, signal.SIGTERM)
        lines, asked = [line], [process] if process else []
        _wait(asked)
    queue = read_queue(sweep)
    states = sweep.states(queue)
    summary = sweep.summary_state(states, queue)
    states += [] if summary is None else [summary]
    for state in states:
        holder = sweep.holder(str(state.point.index)) if state.held else None
        if holder is not None:
            line, process = _ask(state.point.title, holder, signal.SIGINT)
            lines, asked = [*lines, line], [*asked, *([process] if process else [])]
    count = cancel_elements(states, queue)
    lines += [f"cancelled {count} elements in SLURM's queue"] if count else []
    if queue is None:
        lines.append("there is no SLURM here: its elements were not cancelled")
    lines += [f"process {process.pid} has not ended yet" for process in _wait(asked)]
    return lines or ["nothing was running or waiting"]
