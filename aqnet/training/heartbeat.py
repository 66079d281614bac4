"""A sign of life from each rank: what it does, where it is, and how long it takes by itself.

Every rank rewrites one small file, from a thread of its own. When all wait for one, they go on
writing, and `aqnet watch` tells the one that does not, or that is not among those who wait.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from aqnet.launch import this_job

__all__ = ["HEARTBEAT", "INTERVAL_S", "Beat", "Heart", "read_beats", "write_beat"]

HEARTBEAT = "heartbeat"  # folder in the run folder
INTERVAL_S = 20.0  # 800 ranks: 40 files a second for the metadata server


@dataclass(frozen=True)
class Beat:
    """State of one rank.

    Attributes
    ----------
    rank, world : int
    host : str
    pid : int
    attempt : str
        The same on all ranks of a start, and another for each.
    job : str
        Number and restart of the job of SLURM, such as `4242.0`; empty outside of SLURM.
    phase : str
        opening, training, judging, saving, or ended.
    step, steps, epoch : int
        Optimiser steps done and in all; epochs done.
    own_seconds_per_step, wait_seconds_per_step : float
        Mean since the beat before: of this rank alone, and in collective operations.
    seconds_per_step : float
        Mean since this start, with all that lies between steps; 0 before the second one.
    samples_s : float
        Trained on by all ranks, per second, since the beat before.
    waiting_s : float
        How long it has been waiting for others when this was written; 0: it was not.
    written : float
        Seconds since 1970, by the clock of the host.
    """

    rank: int
    world: int
    host: str
    pid: int
    attempt: str
    job: str = ""
    phase: str = "opening"
    step: int = 0
    steps: int = 0
    epoch: int = 0
    own_seconds_per_step: float = 0.0
    wait_seconds_per_step: float = 0.0
    seconds_per_step: float = 0.0
    samples_s: float = 0.0
    waiting_s: float = 0.0
    written: float = 0.0


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.json"


def write_beat(folder: Path, beat: Beat) -> None:
    """Replace the file of a rank in one piece; a crash of the machine may lose it."""
    path = _path(folder, beat.rank)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(beat)), encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> Beat | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Beat(**{field.name: values[field.name] for field in fields(Beat)})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # torn by a crash, or of another version: as good as no sign of life


def read_beats(folder: Path) -> list[Beat]:
    """Signs of life of the newest start, by rank; a rank that has given none yet is left out."""
    found: Iterable[Beat] = filter(None, map(_read, sorted(folder.glob("rank-*.json"))))
    beats = list(found)
    if not beats:
        return []
    newest = max(beats, key=lambda beat: beat.written).attempt
    return [beat for beat in beats if beat.attempt == newest]


def _job() -> str:
    job, restart = this_job()
    return "" if job is None else f"{job}.{restart}"


class Heart:
    """Writes the beats of this rank while the `with` block runs.

    Parameters
    ----------
    folder : path or None
        None: nothing is written.
    rank, world : int
    attempt : str
    """

    def __init__(self, folder: Path | None, rank: int, world: int, attempt: str) -> None:
        self.folder = folder
        self.beat = Beat(rank, world, socket.gethostname(), os.getpid(), attempt, _job())
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock = threading.Lock()  # of the sums below
        self._begin: tuple[int, float] | None = None  # step and time after the first one
        self._sums = [0, 0, 0.0, 0.0]  # steps, samples, own and waiting time
        self._since = time.perf_counter()
        self._waits: float | None = None  # since then

    def __enter__(self) -> Heart:
        if self.folder is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.folder is not None:
            self._end.set()
            self._thread.join()
            self.phase = "ended"
            self._write()

    @property
    def phase(self) -> str:
        """What the rank does."""
        return self.beat.phase

    @phase.setter
    def phase(self, value: str) -> None:
        """Note what the rank does from now on."""
        with self._lock:
            self.beat = replace(self.beat, phase=value)

    def at(self, step: int, steps: int, epoch: int) -> None:
        """Note the place in the training."""
        with self._lock:
            self.beat = replace(self.beat, step=step, steps=steps, epoch=epoch)

    def wait(self) -> None:
        """Note that this rank has done its part of a step."""
        self._waits = time.perf_counter()

    def count(self, samples: int, own_s: float, wait_s: float) -> None:
        """Note a step: samples of all ranks, own time and waiting time of this rank."""
        with self._lock:
            for i, value in enumerate((1, samples, own_s, wait_s)):
                self._sums[i] += value
            self._waits = None
            if self._begin is None:
                # the loop counts a step before it says that it is there
                self._begin = self.beat.step + 1, time.perf_counter()

    def _current(self) -> Beat:
        with self._lock:
            now = time.perf_counter()
            steps, samples, own, wait = self._sums
            if steps:
                self.beat = replace(
                    self.beat,
                    own_seconds_per_step=own / steps,
                    wait_seconds_per_step=wait / steps,
                    samples_s=samples / max(now - self._since, 1e-9),
                )
            if self._begin is not None and self.beat.step > self._begin[0]:
                pace = (now - self._begin[1]) / (self.beat.step - self._begin[0])
                self.beat = replace(self.beat, seconds_per_step=pace)
            self._sums, self._since = [0, 0, 0.0, 0.0], now
            waiting = 0.0 if self._waits is None else now - self._waits
            return replace(self.beat, waiting_s=waiting, written=time.time())

    def _write(self) -> None:
        # A full disk is told by the checkpoints; no sign of life is told by `aqnet watch`.
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_beat(self.folder, self._current())

    def _run(self) -> None:
        interval = INTERVAL_S / 4  # sooner at first: whoever has just started it looks
        self._write()
        while not self._end.wait(interval):
            self._write()
            interval = min(2 * interval, INTERVAL_S)
