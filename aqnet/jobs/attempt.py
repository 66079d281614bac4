"""Why a start of a job ended badly, for run.json: `python -m aqnet.jobs.attempt RUN CODE LOG`.

The job script calls it. A process that was killed, such as by the kernel for its memory, says
nothing, and the others only that they lost it; then SLURM's line in the log is the reason. A script
that ends before it can note anything, such as during its imports, has its last words in the log.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from aqnet.jobs.runs import Failure, RunFolder
from aqnet.launch import this_job

__all__ = ["main", "note_end"]

# The first one counts: srun ends the others. `Killed` is a signal from outside; an exit code means
# that the process has told why.
_TASK = re.compile(r"^srun: error: (\S+: tasks? \S+: (.*))$", re.MULTILINE)
_OWN = "Exited with exit code"
_SLURM = ("srun: ", "slurmstepd")
_ERROR = "error: "  # begins what a check of a rehearsal has to say
_LAST = 6  # lines of the log, enough for the end of a traceback


def _unsaid(code: int, log: str) -> str:
    """Reason from a log, but for SLURM's lines: its last error, or its last lines."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(_SLURM)]
    told = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if told:
        return "\n".join(lines[told[-1] :][:_LAST]).removeprefix(_ERROR)
    *before, last = lines[-_LAST:] or ["it is empty"]
    text = f"ended with code {code} before it could note why; the log ends: {last.strip()}"
    return "\n".join([text, *(["before that:"] if before else []), *before])


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
    record, attempts = run.record, run.attempts
    # of an earlier start, if this one ended before it could begin an attempt
    own = bool(attempts) and (attempts[-1].job, attempts[-1].restart) == this_job()
    if record.status == "complete" or (own and record.status == "interrupted"):
        return record.status
    first = _TASK.search(log)
    killed = first is not None and not first[2].startswith(_OWN)
    told = record.error if own and record.status == "failed" else None
    if told is not None and not killed:
        return told.message
    reason = first[1] if killed else _unsaid(code, log)
    then = f"; then, in another process: {told.type}: {told.message}" if told else ""
    run.set_status("failed", Failure(type="JobError", message=reason + then), code)
    return reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Note the end of a start; returns the exit code."""
    folder, code, log = sys.argv[1:] if arguments is None else arguments
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    print(f"the run ended badly: {note_end(RunFolder.open(folder), int(code), text)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
