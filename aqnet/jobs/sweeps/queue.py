"""What SLURM's queue holds of a sweep.

Elements are found by the name of their array's job and their number in it, so that an element that
SLURM or the job itself has submitted again is still that element.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from aqnet.errors import RunError, explain
from aqnet.jobs.runs import Failure, RunFolder
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.records import PointState, Queue

__all__ = ["cancel_elements", "own_jobs", "read_queue"]

_COLUMNS = "%j|%K|%T|%i"


def _tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(explain(
            "SLURM does not answer", expected=f"{command[0]} ends with code 0",
            found=f"code {done.returncode}: {(done.stderr or done.stdout).strip()}",
            remedy="try again later; nothing was changed",
        ))  # fmt: skip
    return done.stdout


def own_jobs() -> list[list[str]]:
    """Name, element, state and id of all jobs of this user, one for each element."""
    text = _tool("squeue", "--me", "--array", "--noheader", f"--format={_COLUMNS}")
    return [line.strip().split("|") for line in text.splitlines() if line.strip()]


def read_queue(sweep: Sweep) -> Queue | None:
    """SLURM's state and id by job name and element, of the arrays of a sweep.

    Returns
    -------
    mapping or None
        Empty if nothing of the sweep was submitted; None if there is no squeue here.

    Raises
    ------
    RunError
        SLURM does not answer.
    """
    names = {record.job_name for _, record in sweep.arrays()}
    if not names:
        return {}
    if shutil.which("squeue") is None:
        return None
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for name, element, state, number in own_jobs():
        if name not in names or not element.isdigit():
            continue
        # of an element that submitted itself again the job to come counts, not the one that ends
        known = found.get((name, int(element)), ("COMPLETING", ""))
        if known[0] == "COMPLETING":
            found[name, int(element)] = (state, number)
    return found


def cancel_elements(states: Sequence[PointState], queue: Queue | None) -> int:
    """Cancel all elements that wait or run, evaluations too; return how many there were.

    Raises
    ------
    RunError
        SLURM does not answer.
    """
    found = sorted(number for _, number in (queue or {}).values())
    for begin in range(0, len(found), 100):
        _tool("scancel", *found[begin : begin + 100])
    for state in states:
        for path in filter(None, (state.run, state.evaluation)):
            run = RunFolder.open(path)
            if state.status == "waiting" and run.record.status == "created":
                failure = Failure(type="Cancelled", message="cancelled while it waited")
                run.set_status("interrupted", failure)
    return len(found)
