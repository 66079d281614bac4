"""What SLURM says of a job, with or without accounting.

squeue tells how a job waits or runs; scontrol how often it was requeued, where its output goes and,
for minutes, how it ended; sacct knows older jobs where there is accounting. Any may be missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace

__all__ = ["QueuedJob", "ask_slurm"]

_FIELD = re.compile(r"(?:^|\s)(\w+)=(.*?)(?=\s\w+=|\s*$)")
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE",
         "BOOT_FAIL", "PREEMPTED")  # fmt: skip
_PATIENCE_S = 30.0  # a busy controller answers late


@dataclass(frozen=True)
class QueuedJob:
    """State of a job; empty texts where SLURM says nothing.

    Attributes
    ----------
    number : str
    state : str
        Such as PENDING or RUNNING.
    reason : str
        Why it waits, or how it ended.
    nodes : str
    elapsed, limit : str
        Of the present start, as [days-]hours:minutes:seconds.
    start : str
        When it started or, if it waits, when it is expected to.
    restarts : int or None
        None: only scontrol tells.
    output : str
        File of the job's own output.
    """

    number: str
    state: str
    reason: str = ""
    nodes: str = ""
    elapsed: str = ""
    limit: str = ""
    start: str = ""
    restarts: int | None = None
    output: str = ""

    @property
    def over(self) -> bool:
        """Whether it will not run again."""
        return self.state.startswith(_OVER)

    def __str__(self) -> str:
        parts = [f"{self.number}: {self.state}"]
        if self.state == "PENDING":
            parts += [f"({self.reason})", *([f"start {self.start}"] if self.start else [])]
        else:
            parts += [f"{self.elapsed} of {self.limit}"] if self.elapsed else []
            parts += [f"on {self.nodes}"] if self.nodes else []
            parts += [f"({self.reason})"] if self.reason else []
        if self.restarts:
            parts.append(f"requeued {self.restarts} time{'s' * (self.restarts > 1)}")
        return " ".join(parts)


def _ask(*command: str) -> str | None:
    """Output; None if it is not installed, refuses or does not answer."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def _plain(text: str) -> str:
    return "" if text in ("None", "(null)", "Unknown", "N/A") else text


def _from_scontrol(number: str) -> QueuedJob | None:
    text = _ask("scontrol", "show", "job", "--oneliner", number)
    if not text:
        return None
    facts = {name: _plain(value) for name, value in _FIELD.findall(text.splitlines()[0])}
    return QueuedJob(
        number=facts["JobId"], state=facts["JobState"], reason=facts.get("Reason", ""),
        nodes=facts.get("NodeList", ""), elapsed=facts.get("RunTime", ""),
        limit=facts.get("TimeLimit", ""), start=facts.get("StartTime", ""),
        restarts=int(facts.get("Restarts", "0")), output=facts.get("StdOut", ""),
    )  # fmt: skip


def _from_squeue(number: str) -> QueuedJob | None:
    """Of a job that waits or runs; of a whole array the element that is listed first."""
    text = _ask("squeue", "--noheader", f"--jobs={number}", "--format=%A|%T|%r|%N|%M|%l|%S")
    if not text or not text.strip():
        return None
    values = [_plain(value) for value in text.splitlines()[0].strip().split("|")]
    return QueuedJob(*values)


def _from_sacct(number: str) -> QueuedJob | None:
    names = "JobIDRaw,State,NodeList,Elapsed,Timelimit,Start"
    text = _ask("sacct", "--noheader", "--allocations", "--parsable2", "-j", number, "-o", names)
    if not text or not text.strip():
        return None
    values = [_plain(value) for value in text.splitlines()[-1].split("|")]
    job, state, nodes, elapsed, limit, start = values
    return QueuedJob(job, state, "", nodes, elapsed, limit, start)


def ask_slurm(number: str) -> QueuedJob | None:
    """What is known of a job; None without SLURM, or if it has forgotten the job."""
    queued, known = _from_squeue(number), _from_scontrol(number)
    if queued is not None and known is not None and queued.number == known.number:
        return replace(queued, restarts=known.restarts, output=known.output)
    return known or queued or _from_sacct(number)
