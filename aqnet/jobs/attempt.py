"""Why a start of a job ended badly, for run.json: `python -m aqnet.jobs.attempt RUN CODE LOG`.

The job script calls it. A process that was killed, such as by the kernel for its memory, says
nothing, and the others only that they lost it; then SLURM's line in the log is the reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from aqnet.jobs.runs import Failure, RunFolder

__all__ = ["main", "note_end"]

# `srun: error: n2: task 3: Killed`; a code of its own means that the process has told why.
_KILLED = re.compile(r"^srun: error: (\S+: tasks? \S+: (?!Exited with exit code).*)$", re.MULTILINE)


def note_end(run: RunFolder, code: int, log: str) -> str:
    """Note in run.json why the run failed, unless it was stopped in order; return the reason.

    Parameters
    ----------
    run : RunFolder
    code : int
        Exit code of srun.
    log : str
        What the start has written.
    """
    record = run.record
    if record.status in ("complete", "interrupted"):
        return record.status
    killed = _KILLED.search(log)
    told = record.error if record.status == "failed" else None
    if killed is None and told is not None:
        return told.message
    reason = killed[1] if killed else f"ended with code {code}, without a reason; see its log"
    then = f"; then, in another process: {told.type}: {told.message}" if told else ""
    run.set_status("failed", Failure(type="JobError", message=reason + then))
    return reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Note the end of a start; returns the exit code."""
    folder, code, log = sys.argv[1:] if arguments is None else arguments
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    print(f"the run ended badly: {note_end(RunFolder.open(folder), int(code), text)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
