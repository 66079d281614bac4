"""Run the points of a sweep on this machine, some at a time, each in a process of its own.

A point is held by its process, not by the command that started it: when that is killed, the
processes go on, and the next command waits for them instead of starting their points again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from aqnet.errors import InterruptedRunError
from aqnet.io import atomic_write_text, unlock_folder
from aqnet.jobs.runs import Failure, RunFolder
from aqnet.jobs.subprocesses import noting_stop_signals, python_path
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Notebook, Point
from aqnet.jobs.sweeps.records import TO_DO, PointState, Queue
from aqnet.jobs.sweeps.starts import SCRIPTS, Start, start_of

__all__ = ["By", "run_local"]

By = Literal["papermill", "script"]
_TICK_S = 0.1
_ASK_TIMES = 2

# ---- one process


def _environment(sweep: Sweep, parallel: int) -> dict[str, str]:
    # torch in each process would take all cores
    threads = max(1, len(os.sched_getaffinity(0)) // parallel)
    common = {"OMP_NUM_THREADS": str(threads)}
    return common | os.environ | {"PYTHONPATH": python_path(), "AQNET_RUNS": str(sweep.runs)}


def _command(sweep: Sweep, start: Start, by: By) -> list[str]:
    values = str(start.run / "parameters.yaml")
    if by == "script":
        command = [sys.executable, str(sweep.path / start.script), "--params", values,
                   "--run-dir", str(start.run)]  # fmt: skip
        return [*command, *(["--resume", "auto"] if start.resume else [])]
    program = "from aqnet.cli import main; main(prog_name='aqnet')"
    command = [sys.executable, "-c", program, "run", str(start.notebook.path), "-f", values,
               "--run-dir", str(start.run)]  # fmt: skip
    return [*command, *(["-p", "resume=auto"] if start.resume else [])]


def _take_signals() -> None:
    # A command in the background of a shell ignores SIGINT, and processes inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class _Running:
    """A process at work."""

    start: Start
    process: subprocess.Popen
    since: float


def _launch(sweep: Sweep, start: Start, by: By, parallel: int, lock: int) -> _Running:
    """Start the process, which gets the lock on its point."""
    if not (start.run / "run.json").exists():
        RunFolder.create(
            start.notebook.path, start.values, path=start.run,
            notebook_sha256=start.notebook.sha256,
            started_by="script" if by == "script" else "aqnet run",
        )  # fmt: skip
    with (sweep.path / "logs" / f"{start.point.index:04d}.log").open("ab") as log:
        process = subprocess.Popen(
            _command(sweep, start, by), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=_environment(sweep, parallel), pass_fds=(lock,), start_new_session=True,
            preexec_fn=_take_signals,
        )  # fmt: skip
    sweep.note_holder(str(start.point.index), psutil.Process(process.pid))
    os.close(lock)  # not unlocked: the process has it
    return _Running(start, process, time.monotonic())


def _note_end(running: _Running, log: Path, stopped: bool) -> None:
    """A process that was killed says nothing of it in its run folder."""
    code, run = running.process.returncode, RunFolder.open(running.start.run)
    if run.record.status in ("created", "running"):
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        message = f"the process ended with {how}; its output: {log}"
        failure = Failure(type="ProcessError", message=message)
        run.set_status("interrupted" if stopped else "failed", failure, code)


# ---- all of them


class _Controller:
    """Starts points as slots become free, in the order of the definition."""

    def __init__(
        self, sweep: Sweep, notebooks: Sequence[Notebook | None], parallel: int, by: By,
        wanted: Sequence[str], queue: Queue, echo: Callable[[str], None],
        states: Sequence[PointState],
    ) -> None:  # fmt: skip
        self.sweep, self.notebooks, self.parallel, self.by = sweep, notebooks, parallel, by
        self.wanted, self.queue, self.echo, self.jobs = wanted, queue, echo, sweep.jobs()
        self.to_do = [s.point for s in states if s.status in wanted or s.held]
        self.total, self.ended = len(self.to_do), 0
        self.running: list[_Running] = []
        self.told: set[int] = set()

    def go(self) -> None:
        """Until nothing is left.

        Raises
        ------
        InterruptedRunError
            Stopped by a signal; the processes have ended.
        """
        with noting_stop_signals() as received:
            acted = 0
            while self.running or (self.to_do and not received):
                self._collect(bool(received))
                if not received:
                    self._fill()
                elif len(received) > acted:
                    acted = len(received)
                    self._stop(acted)
                time.sleep(_TICK_S)
        if received:
            cause = signal.Signals(received[0]).name
            raise InterruptedRunError(
                f"the sweep {self.sweep.name} was stopped by {cause}\n"
                "run the same command again to do what is missing"
            )

    def _stop(self, times: int) -> None:
        """Ask, ask again, then kill."""
        self.echo(f"stopping {len(self.running)} points ...\n")
        for each in self.running:
            if each.process.poll() is not None:
                continue
            if times <= _ASK_TIMES:
                each.process.send_signal(signal.SIGINT)
            else:
                os.killpg(each.process.pid, signal.SIGKILL)

    def _fill(self) -> None:
        elsewhere = 0
        for point in list(self.to_do):
            if len(self.running) + elsewhere >= self.parallel:
                return
            lock = self.sweep.hold(str(point.index))
            if lock is None:  # by a process that an earlier command left
                elsewhere += 1
                self._tell_of(point)
                continue
            self.to_do.remove(point)
            state = self.sweep.state(point, self.queue, self.jobs, held=False)
            if state.status in self.wanted:
                self._begin(state, lock)
            else:
                unlock_folder(lock)
                self._say_end(state, None)

    def _tell_of(self, point: Point) -> None:
        if point.index not in self.told:
            self.told.add(point.index)
            self.echo(f"  still running, from before: {point.title}\n")

    def _begin(self, state: PointState, lock: int) -> None:
        start = start_of(self.sweep, state, self.notebooks)
        goes_on = " (goes on)" if start.resume else ""
        self.echo(f"  start: {state.point.title}: {start.run.name}{goes_on}\n")
        self.running.append(_launch(self.sweep, start, self.by, self.parallel, lock))

    def _collect(self, stopped: bool) -> None:
        """Note what has ended; an evaluation follows its run at once."""
        for each in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(each)
            point = each.start.point
            _note_end(each, self.sweep.path / "logs" / f"{point.index:04d}.log", stopped)
            state = self.sweep.state(point, self.queue, self.jobs, held=False)
            if state.status == "missing":
                self.to_do.insert(0, point)
            else:
                self._say_end(state, time.monotonic() - each.since)

    def _say_end(self, state: PointState, seconds: float | None) -> None:
        self.ended += 1
        took = "" if seconds is None else f" in {seconds:.0f} s"
        reason = f": {state.reason}" if state.reason else ""
        head = f"[{self.ended}/{self.total}] {state.status}{took}"
        self.echo(f"{head}: {state.point.title}{reason}\n")


def run_local(
    sweep: Sweep,
    parallel: int,
    by: By,
    failed_too: bool,
    queue: Queue,
    echo: Callable[[str], None],
) -> list[PointState]:
    """Do what is missing, and wait for it; the summary last, if all points are complete.

    Parameters
    ----------
    sweep : Sweep
    parallel : int
        Points at a time.
    by : str
        `papermill`, as `aqnet run`, or `script`, the compiled notebook.
    failed_too : bool
        Do failed points again, from their checkpoints where there are some.
    queue : mapping
        See `Sweep.states`: what SLURM has of this sweep is left to it.
    echo : callable
        Takes the lines of progress.

    Returns
    -------
    list of PointState
        Of all points of the sweep.

    Raises
    ------
    RunError
        Another command runs the sweep.
    ParameterError
        A notebook has changed since the sweep was begun.
    InterruptedRunError
        Stopped by a signal.
    """
    with sweep.controlled():
        notebooks = sweep.notebooks()
        if by == "script":
            _compile(sweep, notebooks)
        wanted = (*TO_DO, "failed") if failed_too else TO_DO
        common = (sweep, notebooks, parallel, by, wanted, queue, echo)
        _Controller(*common, sweep.states(queue)).go()
        states = sweep.states(queue)
        summary = sweep.summary_state(states, queue)
        if summary is not None and all(state.status == "complete" for state in states):
            _Controller(*common, [summary]).go()
        return states


def _compile(sweep: Sweep, notebooks: Sequence[Notebook | None]) -> None:
    from aqnet.jobs.compile import compile_notebook  # needs IPython

    for name, notebook in zip(SCRIPTS, notebooks, strict=True):
        if notebook is not None:
            atomic_write_text(sweep.path / name, compile_notebook(notebook.path))
