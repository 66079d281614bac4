"""Run the points of a sweep as arrays of SLURM jobs.

Code, scripts and profile are staged once for the sweep (`code-<n>/staged`); each element runs them
in a run folder of its own. Every element counts against the jobs that a user may have queued (the
profile's `array_limit`), so arrays are submitted as room frees: each as large as there is room for,
and no smaller than a quarter of the limit unless it is the last. With a throttle an array waits for
the one before it (`--dependency=afterany`), so that no more than that many run at once; evaluations
are throttled by themselves. The summary is submitted by the element after which all points are
complete (aqnet.jobs.sweeps.ready), or by the next command if they are already.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from aqnet.errors import ParameterError, RunError, explain
from aqnet.io import (
    atomic_write_json,
    atomic_write_text,
    data_root,
    repository_root,
    sha256_file,
)
from aqnet.jobs.batch import render
from aqnet.jobs.job import JOB_FILE, Array, Element, Job, Summary
from aqnet.jobs.notebook import run_checks
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.scale import Size, plan_of, scaled
from aqnet.jobs.stage import DIGESTS, STAGED, stage
from aqnet.jobs.submit import SUBMISSION, job_number, sbatch
from aqnet.jobs.sweeps.cluster import Cluster
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Notebook
from aqnet.jobs.sweeps.queue import own_jobs, read_queue
from aqnet.jobs.sweeps.records import TO_DO, ArrayRecord
from aqnet.jobs.sweeps.starts import SCRIPTS, Start, evaluation_of, start_of

__all__ = ["submit_arrays"]

POLL_S = 30.0  # between looks for room


class _Arrays:
    """Submits what is to do, array by array."""

    def __init__(
        self, sweep: Sweep, cluster: Cluster, notebooks: Sequence[Notebook | None],
        echo: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.sweep, self.cluster, self.notebooks, self.echo = sweep, cluster, notebooks, echo
        self.code = sweep.path / "code-1"
        # The last of several jobs ends well: only it can start the evaluation.
        self.resubmits = cluster.profile.continue_by.value == "resubmit"
        # Queued jobs of a point: its evaluation waits in the queue, too.
        self.cost = 1 if notebooks[1] is None or self.resubmits else 2
        self.summary: Summary | None = None

    def sized(self, values: dict[str, Value], script: str) -> dict[str, Value]:
        """Values with the parameters that follow from the cluster, checked again."""
        notebook = self.notebooks[SCRIPTS.index(script)]
        size = self.size(script)
        found = values | scaled(values, self.cluster.profile, size.gpus, size)
        run_checks(notebook.content, found, str(notebook.path))
        plan_of(found, size)  # batch and processes go together
        return found

    def size(self, script: str) -> Size:
        """Of a point; one process for what follows it."""
        return self.cluster.size if script == SCRIPTS[0] else self.cluster.evaluation_size

    # ---- files

    def stage(self, again: bool) -> None:
        """Use the code that was staged before; stage it where there is none, or `again`."""
        from aqnet.jobs.compile import compile_notebook  # needs IPython

        found = len(list(self.sweep.path.glob(f"code-*/{DIGESTS}")))
        self.code = self.sweep.path / f"code-{found + 1 if again or not found else found}"
        if (self.code / DIGESTS).exists():
            return
        profile = self.cluster.profile.model_dump(mode="json")
        files = {"profile.yaml": yaml.safe_dump(profile, sort_keys=False, allow_unicode=True)}
        for name, each in zip(SCRIPTS, self.notebooks, strict=True):
            if each is not None:
                files[name] = compile_notebook(each.path)
                files[f"{Path(name).stem}.ipynb"] = each.path.read_text(encoding="utf-8")
        if (self.code / STAGED).exists():  # stopped before the digests were written
            shutil.rmtree(self.code)
        self.code.mkdir(exist_ok=True)
        stage(self.code, repository_root(), files)

    def _job(self, folder: Path, starts: Sequence[Start], follow_up: Path | None = None) -> Job:
        files = [start.run / "parameters.yaml" for start in starts]
        digests = [sha256_file(file) if file.exists() else "0" * 64 for file in files]
        elements = tuple(Element(s.run.name, d) for s, d in zip(starts, digests, strict=True))
        first, profile = starts[0], self.cluster.profile
        # an evaluation is the last of its point; so is a point that nothing evaluates
        last = SCRIPTS[0] if self.notebooks[1] is None else SCRIPTS[1]
        # of the summary always the same: elements of different arrays may hold different scripts
        own = "summary" if first.script == SCRIPTS[2] else folder.name
        return Job(
            name=f"{self.sweep.name}-{self.sweep.stored.created:%Y%m%dT%H%M%S}-{own}",
            run=folder, profile=profile, python=profile.python.value or sys.executable,
            size=self.size(first.script),
            data=data_root(), runs=self.sweep.runs, root=repository_root(),
            resumable=first.notebook.resumable, follow_up=follow_up,
            array=Array(elements, self.cluster.throttle, self.code, first.script),
            summary=self.summary if first.script == last else None,
        )  # fmt: skip

    def _write(
        self, folder: Path, starts: Sequence[Start], follow_up: Path | None = None
    ) -> ArrayRecord:
        """Run folders, job script and record of an array that is not submitted yet."""
        for start in starts:
            if not (start.run / "run.json").exists():
                RunFolder.create(
                    start.notebook.path, start.values, path=start.run, started_by="script",
                    notebook_sha256=start.notebook.sha256, package=self.code / STAGED / "aqnet",
                )  # fmt: skip
        (folder / "logs").mkdir(parents=True)
        job = self._job(folder, starts, follow_up)
        record = ArrayRecord(
            job_name=job.name, runs=tuple(s.run.name for s in starts),
            processes=job.size.gpus, profile=job.profile.name,
        )  # fmt: skip
        atomic_write_text(folder / JOB_FILE, render(job))
        (folder / JOB_FILE).chmod(0o444)
        atomic_write_json(folder / "array.json", record.model_dump(mode="json"))
        return record

    def _send(self, folder: Path, record: ArrayRecord, *options: str) -> str:
        script = folder / JOB_FILE
        number = job_number(sbatch(["--parsable", *options, str(script)]), script)
        sent = record.model_copy(update={"job": number, "submitted": datetime.now(UTC)})
        atomic_write_json(folder / "array.json", sent.model_dump(mode="json"))
        files = {"script": script, "staged": self.code / DIGESTS}
        for index, name in enumerate(record.runs):
            run = self.sweep.runs / name
            places = {key: os.path.relpath(path, run) for key, path in files.items()}
            atomic_write_json(run / SUBMISSION, places | {
                "schema_version": 1, "job": f"{number}_{index}", "sweep": self.sweep.name,
                "submitted": sent.submitted.isoformat(), "profile": record.profile,
                "processes": record.processes, "sbatch_options": list(options),
                **{f"{key}_sha256": sha256_file(path) for key, path in files.items()},
            })  # fmt: skip
        return number

    # ---- arrays

    def ask(self, starts: Sequence[Start]) -> None:
        """Have SLURM judge an array, of which nothing is written.

        Raises
        ------
        RunError
        """
        sbatch(["--test-only"], render(self._job(self.sweep.path / "arrays" / "000", starts)))

    def submit(self, starts: Sequence[Start]) -> None:
        """Submit an array, and that of the evaluations after it."""
        folder = self._next()
        then = folder.with_name(f"{folder.name}-evaluate")
        chained = starts[0].script == SCRIPTS[0] and self.notebooks[1] is not None
        after = self._dependency()
        try:
            if chained:
                after_it = self._write(then, [self._evaluation(s) for s in starts])
            follow_up = then / JOB_FILE if chained and self.resubmits else None
            record = self._write(folder, starts, follow_up)
            number = self._send(folder, record, *after)
        except RunError:
            for each in (folder, then):
                shutil.rmtree(each, ignore_errors=True)
            raise
        if chained and not self.resubmits:
            self._send(then, after_it, f"--dependency=aftercorr:{number}",
                       "--kill-on-invalid-dep=yes")  # fmt: skip
        self.echo(f"submitted: job {number}, {len(starts)} elements{' '.join(['', *after])}\n")

    def _next(self) -> Path:
        numbers = [int(path.name[:3]) for path in self.sweep.path.glob("arrays/*")]
        return self.sweep.path / "arrays" / f"{max(numbers, default=0) + 1:03d}"

    def submit_summary(self, start: Start, now: bool) -> None:
        """Submit the summary `now`, or write its job for the element that completes the sweep."""
        folder = self._next()
        folder = folder.with_name(f"{folder.name}-summary")
        record = self._write(folder, [start])
        self.summary = Summary(self.sweep.path, start.run.name, folder / JOB_FILE)
        if now:
            number = self._send(folder, record)
            self.echo(f"submitted: job {number}, the summary\n")
        else:
            self.echo("the summary is submitted by the element that completes the sweep\n")

    def _evaluation(self, start: Start) -> Start:
        return evaluation_of(self.sweep, start.point, start.run, self.notebooks[1], self.sized)

    def _dependency(self) -> list[str]:
        """With a throttle, after all arrays of this sweep that are still there."""
        if self.cluster.throttle is None:
            return []
        names = {record.job_name for folder, record in self.sweep.arrays()
                 if folder.name.isdigit()}  # fmt: skip
        here = {number.partition("_")[0] for name, _, _, number in own_jobs() if name in names}
        return [f"--dependency=afterany:{':'.join(sorted(here))}"] if here else []

    def room(self) -> int:
        """Points that may be queued now."""
        return max(0, self.cluster.limit - len(own_jobs())) // self.cost

    def all(self, starts: Sequence[Start], wait: bool) -> int:
        """Submit all as room frees, or what there is room for; return how many are left."""
        left, told = list(starts), False
        least = max(1, self.cluster.limit // (4 * self.cost))
        while left:
            room = self.room()
            if room >= min(least, len(left)):
                self.submit(left[:room])
                left, told = left[room:], False
                continue
            if not wait:
                break
            if not told:
                self.echo(f"{len(left)} wait for room in the queue (array_limit "
                          f"{self.cluster.limit}); Ctrl-C leaves what is submitted\n")  # fmt: skip
                told = True
            time.sleep(POLL_S)
        return len(left)


def submit_arrays(
    sweep: Sweep,
    cluster: Cluster,
    failed_too: bool,
    echo: Callable[[str], None],
    restage: bool = False,
    wait: bool = True,
) -> int:
    """Submit what is missing; the summary by itself only if all points are complete.

    Parameters
    ----------
    sweep : Sweep
    cluster : Cluster
    failed_too : bool
        Failed points again, from their checkpoints where there are some.
    echo : callable
        Takes the lines of progress.
    restage : bool
        With the code as it is now, not as it was when the sweep was begun.
    wait : bool
        Wait for room in the queue, until all are submitted.

    Returns
    -------
    int
        Points for which there was no room.

    Raises
    ------
    RunError
        There is no SLURM here, it refuses an array, or another command runs the sweep.
    ParameterError
        A notebook has changed since the sweep was begun, the parameters do not fit the size, or
        `array_limit` is too small for a single point.
    """
    if shutil.which("sbatch") is None:
        raise RunError(explain(
            "jobs cannot be submitted here", expected="sbatch on the path", found="none",
            remedy="log in to the cluster, or run the sweep here: leave --profile out",
        ))  # fmt: skip
    with sweep.controlled():
        arrays = _Arrays(sweep, cluster, sweep.notebooks(), echo)
        if cluster.limit < arrays.cost:
            raise ParameterError(explain(
                "array_limit is too small", expected=f"{arrays.cost}: a run and its evaluation",
                found=cluster.limit, remedy="--set array_limit=...",
            ))  # fmt: skip
        wanted = (*TO_DO, "failed") if failed_too else TO_DO
        queue = read_queue(sweep)
        states = sweep.states(queue)
        summary = sweep.summary_state(states, queue)
        to_do = [s for s in [*states, *filter(None, [summary])] if s.status in wanted]
        starts = [start_of(sweep, s, arrays.notebooks, arrays.sized) for s in to_do]
        groups = [[s for s in starts if s.script == name] for name in SCRIPTS]
        for group in filter(None, groups):
            arrays.ask(group[:1])
        if starts:
            arrays.stage(restage)
        complete = all(state.status == "complete" for state in states)
        if groups[2] and (complete or groups[0] or groups[1]):
            arrays.submit_summary(*groups[2], now=complete)
        return sum(arrays.all(group, wait) for group in groups[:2])
