"""The folder of a sweep, and what has become of each of its points.

::

    runs/sweeps/<name>/
        sweep.yaml    as given; never changed
        points.json   definition, points, digests of the notebooks; never changed (Stored)
        script.py     compiled notebook, for local runs by script; evaluate.py, summary.py likewise
        code-<n>/     staged/ and its digests (aqnet.jobs.stage), for SLURM
        arrays/<n>/   job.sbatch, array.json (ArrayRecord), logs/; <n>-evaluate/, <n>-summary/
                      likewise
        logs/         output of each point run here
        claims/       who has submitted the summary (aqnet.jobs.sweeps.ready)
        results.csv   (aqnet.jobs.sweeps.results)

The run folders are ordinary ones, beside `sweeps`. A point that starts anew gets another one, with
`-try2`, `-try3` at the end of its name; the last one counts.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import psutil
from pydantic import ValidationError

from aqnet.errors import ParameterError, RunError, explain
from aqnet.io import atomic_write_json, lock_folder, runs_root, unlock_folder
from aqnet.jobs.sweeps.points import Notebook, Point
from aqnet.jobs.sweeps.records import (
    TO_DO,
    ArrayRecord,
    Holder,
    PointState,
    Queue,
    Stored,
    refuse_change,
)
from aqnet.jobs.sweeps.status import status_of

__all__ = ["Sweep", "newest_sweep"]


class Sweep:
    """A sweep on disk. Make one with `aqnet.jobs.sweeps.begin.define_sweep` or `Sweep.open`.

    Attributes
    ----------
    path : Path
        Absolute path of its folder.
    runs : Path
        Folder of all runs.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.runs = path, path.parents[1]

    @classmethod
    def open(cls, name: str, root: str | Path | None = None) -> Sweep:
        """Open the sweep of a name.

        Raises
        ------
        ParameterError
            There is none, or it was written by another version.
        """
        folder = runs_root(root) / "sweeps"
        sweep = cls(folder / name)
        if (sweep.path / "points.json").is_file():
            sweep.stored  # noqa: B018 - read, so that an unusable one is told of here
            return sweep
        known = sorted(path.parent.name for path in folder.glob("*/points.json"))
        raise ParameterError(explain(
            f"there is no sweep {name} in {folder}", expected=", ".join(known) or "no sweep at all",
            found=name, remedy="aqnet sweep run FILE.yaml begins one",
        ))  # fmt: skip

    @cached_property
    def stored(self) -> Stored:
        """Content of points.json."""
        file = self.path / "points.json"
        try:
            return Stored.model_validate_json(file.read_bytes(), strict=True)
        except ValidationError as error:
            raise ParameterError(explain(
                f"{file} is not readable", expected="schema version 1",
                found=error.errors(include_url=False)[0]["msg"],
                remedy="use the version of aqnet that wrote it, or begin a sweep of another name",
            )) from error  # fmt: skip

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.stored.definition.name

    @property
    def points(self) -> tuple[Point, ...]:
        """In the order of the definition."""
        return self.stored.points

    @property
    def summary(self) -> Point | None:
        """What runs after all points, if anything does."""
        return self.stored.summary

    def notebooks(self) -> tuple[Notebook, Notebook | None, Notebook | None]:
        """Those of points, evaluation and summary, which must be those the sweep began with.

        Raises
        ------
        ParameterError
        """
        stored, definition = self.stored, self.stored.definition
        sections = (definition, definition.evaluate, definition.summary)
        notebooks = tuple(s if s is None else Notebook.read(s.notebook) for s in sections)
        names = ("notebook", "evaluate.notebook", "summary.notebook")
        digests = (stored.notebook_sha256, stored.evaluation_sha256, stored.summary_sha256)
        there = [row for row in zip(names, digests, notebooks, strict=True) if row[2] is not None]
        before = {name: digest for name, digest, _ in there}
        refuse_change(self.name, before, {name: read.sha256 for name, _, read in there})
        return notebooks

    # ---- run folders

    def tries(self, base: str) -> list[Path]:
        """Run folders of a point, or of its evaluation, that exist, in order."""
        found = [self.runs / base] if base and (self.runs / base / "run.json").exists() else []
        count = 2
        while found and (self.runs / f"{base}-try{count}" / "run.json").exists():
            found.append(self.runs / f"{base}-try{count}")
            count += 1
        return found

    def next_try(self, base: str) -> Path:
        """A free place for the next one."""
        count = len(self.tries(base)) + 1
        return self.runs / (base if count == 1 else f"{base}-try{count}")

    # ---- who works on it

    @contextmanager
    def controlled(self) -> Iterator[None]:
        """Be the only command that starts points.

        Raises
        ------
        RunError
            Another one does.
        """
        place = self.path / "held" / "sweep"
        lock = lock_folder(place)
        if lock is None:
            holder = self.holder("sweep")
            who = f"process {holder.pid} on {holder.host}" if holder else "another process"
            raise RunError(explain(
                f"the sweep {self.name} is being run", expected="one command at a time", found=who,
                remedy=f"wait for it, or stop it: aqnet sweep cancel {self.name}",
            ))  # fmt: skip
        try:
            self.note_holder("sweep", psutil.Process())
            yield
        finally:
            unlock_folder(lock)

    def hold(self, what: str) -> int | None:
        """Descriptor of the lock on a point (its index as text); None while it is running."""
        return lock_folder(self.path / "held" / what)

    def note_holder(self, what: str, process: psutil.Process) -> None:
        """Note who holds the lock."""
        began = process.create_time()
        content = {"host": socket.gethostname(), "pid": process.pid, "began": began}
        atomic_write_json(self.path / "held" / f"{what}.json", content)

    def holder(self, what: str) -> Holder | None:
        """Who holds the sweep (`sweep`) or a point; None if nobody does."""
        if not (self.path / "held" / what).is_dir():
            return None
        lock = lock_folder(self.path / "held" / what)
        if lock is not None:
            unlock_folder(lock)
            return None
        note = self.path / "held" / f"{what}.json"
        if not note.is_file():
            return Holder("an unknown host", 0, 0.0)
        return Holder(**json.loads(note.read_text(encoding="utf-8")))

    # ---- arrays of SLURM

    def arrays(self) -> list[tuple[Path, ArrayRecord]]:
        """Folders and records of the arrays that were submitted, in order."""
        files = sorted(self.path.glob("arrays/*/array.json"))
        return [(f.parent, ArrayRecord.model_validate_json(f.read_bytes())) for f in files]

    def jobs(self) -> dict[str, tuple[str, int]]:
        """Name of the job and number of the element, by run folder."""
        return {name: (record.job_name, index) for _, record in self.arrays()
                for index, name in enumerate(record.runs)}  # fmt: skip

    # ---- what has become of it

    def states(self, queue: Queue | None) -> list[PointState]:
        """What has become of each point.

        Parameters
        ----------
        queue : mapping or None
            SLURM's state and id by job name and element (`aqnet.jobs.sweeps.queue.read_queue`);
            None where there is no SLURM.
        """
        jobs = self.jobs()
        return [
            self.state(p, queue, jobs, held=self.holder(str(p.index)) is not None)
            for p in self.points
        ]

    def summary_state(self, states: Sequence[PointState], queue: Queue | None) -> PointState | None:
        """What has become of the summary; None where there is none.

        `missing` while it waits for points, of which `states` are the states.
        """
        point = self.summary
        if point is None:
            return None
        held = self.holder(str(point.index)) is not None
        found = self.state(point, queue, self.jobs(), held)
        left = sum(state.status != "complete" for state in states)
        if not left and found.status == "lost" and queue:
            return replace(found, status="waiting", reason="")  # the last job is about to submit it
        if not left or found.status not in (*TO_DO, "unknown"):
            return found
        return replace(found, status="missing", reason=f"waits for {left} of {len(states)} points")

    def state(
        self, point: Point, queue: Queue | None, jobs: Mapping[str, tuple[str, int]], held: bool
    ) -> PointState:
        """What has become of one point; `held`: a process here has it, `jobs`: see there."""
        run, evaluation = (next(iter(self.tries(base)[::-1]), None)
                           for base in (point.run, point.evaluation))  # fmt: skip
        status, reason = status_of(run, held, jobs, queue)
        if status == "complete" and point.evaluation:
            status, reason = status_of(evaluation, held, jobs, queue)
            if status == "lost" and queue and jobs.get(run.name) in queue:
                status, reason = "running", ""  # the job that is about to submit it
        return PointState(point, status, run, evaluation, reason, held)


def newest_sweep() -> Sweep:
    """The sweep that was begun last.

    Raises
    ------
    ParameterError
        There is none.
    """
    folder = runs_root() / "sweeps"
    found = [Sweep(path.parent) for path in folder.glob("[!.]*/points.json")]
    if found:
        return max(found, key=lambda sweep: sweep.stored.created)
    raise ParameterError(explain(
        "there is no sweep yet", expected=f"a folder in {folder}", found="none",
        remedy="aqnet sweep run FILE.yaml",
    ))  # fmt: skip
