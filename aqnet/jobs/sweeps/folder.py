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
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import psutil
from pydantic import ValidationError

from aqnet.errors import ParameterError, RunError, TargetExistsError, explain
from aqnet.io import (
    atomic_directory,
    atomic_write_json,
    lock_folder,
    runs_root,
    unlock_folder,
)
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.points import Notebook, Plan, Point
from aqnet.jobs.sweeps.records import (
    TO_DO,
    ArrayRecord,
    Holder,
    PointState,
    Queue,
    Stored,
    SweepStatus,
    refuse_change,
)

__all__ = ["Sweep", "define_sweep", "find_sweep", "newest_sweep"]

_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED",
            "RESV_DEL_HOLD", "SPECIAL_EXIT")  # fmt: skip


class Sweep:
    """A sweep on disk. Make one with `define_sweep` or `Sweep.open`.

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
        folder = (Path(root) if root is not None else runs_root()).absolute() / "sweeps"
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
        definition, evaluation, summary = self.stored.definition, None, None
        notebook = Notebook.read(definition.notebook)
        now = {"notebook": notebook.sha256}
        before = {"notebook": self.stored.notebook_sha256}
        if definition.evaluate is not None:
            evaluation = Notebook.read(definition.evaluate.notebook)
            now["evaluate.notebook"] = evaluation.sha256
            before["evaluate.notebook"] = self.stored.evaluation_sha256
        if definition.summary is not None:
            summary = Notebook.read(definition.summary.notebook)
            now["summary.notebook"] = summary.sha256
            before["summary.notebook"] = self.stored.summary_sha256
        refuse_change(self.name, before, now)
        return notebook, evaluation, summary

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
        status, reason = self._of_folder(run, held, jobs, queue)
        if status == "complete" and point.evaluation:
            status, reason = self._of_folder(evaluation, held, jobs, queue)
            if status == "lost" and queue and jobs.get(run.name) in queue:
                status, reason = "running", ""  # the job that is about to submit it
        return PointState(point, status, run, evaluation, reason, held)

    @staticmethod
    def _of_folder(
        run: Path | None, held: bool, jobs: Mapping, queue: Queue | None
    ) -> tuple[SweepStatus, str]:
        record = RunFolder.open(run).record if run is not None else None
        if record is not None and record.status == "complete":
            return "complete", ""
        job = jobs.get(run.name) if run is not None else None
        queued = queue.get(job, ("", ""))[0] if job and queue is not None else ""
        if held or queued in ("RUNNING", "STAGE_OUT", "SIGNALING", "STOPPED"):
            return "running", ""
        if queued in _WAITING:
            return "waiting", ""
        if record is None:
            return "missing", ""
        error = record.error
        reason = (error.message.splitlines() or [error.type])[0] if error else ""
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


def newest_sweep(root: str | Path | None = None) -> Sweep:
    """The sweep that was begun last.

    Raises
    ------
    ParameterError
        There is none.
    """
    folder = (Path(root) if root is not None else runs_root()).absolute() / "sweeps"
    found = [Sweep(path.parent) for path in folder.glob("[!.]*/points.json")]
    if found:
        return max(found, key=lambda sweep: sweep.stored.created)
    raise ParameterError(explain(
        "there is no sweep yet", expected=f"a folder in {folder}", found="none",
        remedy="aqnet sweep run FILE.yaml",
    ))  # fmt: skip


def _stored(plan: Plan) -> Stored:
    return Stored(
        created=plan.created,
        notebook_sha256=plan.notebook.sha256,
        evaluation_sha256=plan.evaluation.sha256 if plan.evaluation else None,
        definition=plan.definition,
        points=plan.points,
        summary_sha256=plan.summary_notebook.sha256 if plan.summary_notebook else None,
        summary=plan.summary,
    )


def find_sweep(plan: Plan, root: str | Path | None = None) -> Sweep | None:
    """The stored sweep of this definition; None if its name is free.

    Raises
    ------
    ParameterError
        The name was used for another definition; the message tells the difference.
    """
    root = (Path(root) if root is not None else runs_root()).absolute()
    name = plan.definition.name
    if not (root / "sweeps" / name).exists():
        return None
    sweep = Sweep.open(name, root)
    parts = {"definition", "notebook_sha256", "evaluation_sha256", "summary_sha256"}
    before, now = (s.model_dump(mode="json", include=parts) for s in (sweep.stored, _stored(plan)))
    refuse_change(name, before, now)
    return sweep


def define_sweep(plan: Plan, text: str, root: str | Path | None = None) -> Sweep:
    """Store a checked sweep, or open the one that was stored before.

    Parameters
    ----------
    plan : Plan
        Of the definition as it is now.
    text : str
        The sweep file.
    root : path, optional
        Folder of all runs; `aqnet.io.runs_root()` by default.

    Raises
    ------
    ParameterError
        See `find_sweep`.
    """
    root = (Path(root) if root is not None else runs_root()).absolute()
    found = find_sweep(plan, root)
    if found is not None:
        return found
    path = root / "sweeps" / plan.definition.name
    with suppress(TargetExistsError), atomic_directory(path) as folder:
        (folder / "sweep.yaml").write_text(text, encoding="utf-8")
        atomic_write_json(folder / "points.json", _stored(plan).model_dump(mode="json"))
        for name in ("sweep.yaml", "points.json"):
            (folder / name).chmod(0o444)
        (folder / "logs").mkdir()
    # it may be that of another command, which was faster
    return find_sweep(plan, root)
