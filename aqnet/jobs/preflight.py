"""What can be known of a job before it waits in a queue: a list of checks, and whether to submit.

A check has passed, is a warning, or refuses the job: then the job could not run, would wait for its
data most of the time, or would not come to its end. What depends on a check that refused is left
out. Figures of GPUs and network are those that the profile states (`aqnet.jobs.machine`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.store import open_store, verify_store
from aqnet.data.training_data import TrainingData, open_training_data
from aqnet.data.years.records import check_stores
from aqnet.errors import AqnetError, CoverageError, ParameterError, explain
from aqnet.io import repository_root, station_store, stores_folder
from aqnet.jobs.checks import Check, Status, attempt
from aqnet.jobs.estimates import (
    Reading,
    check_cost,
    check_host,
    check_loader,
    check_memory,
    check_start,
    check_time,
    read_samples,
)
from aqnet.jobs.job import Job
from aqnet.jobs.prediction import predict
from aqnet.jobs.scale import experiment_in
from aqnet.jobs.submission import Submission
from aqnet.jobs.submit import dry_submit
from aqnet.model.domain import Domain
from aqnet.training.checkpoint import check_fits, fill_model, read_checkpoint
from aqnet.training.cost import Work, work_of
from aqnet.training.experiment import Experiment
from aqnet.training.folder import AUTO, read_last
from aqnet.training.parent import take_weights
from aqnet.training.problem import Problem, open_problem, orders_of, ridge_of
from aqnet.training.schedule import Plan, describe_plan, judged_samples
from aqnet.training.state import check_same_run

__all__ = ["check_queue", "preflight", "refuse_hopeless"]


def preflight(submission: Submission, samples: int = 100) -> Iterator[Check]:
    """Check a job, one check after the other.

    Parameters
    ----------
    submission : Submission
        Its parameters, plan and size have been checked by `prepare`.
    samples : int
        To read, in order to measure how fast they come.
    """
    job = submission.job
    yield Check("parameters", "passed", f"valid; {submission.plan or 'no training'}")
    yield attempt("image", lambda: _image(job))
    chosen = experiment_in(submission.values)
    if chosen is None:
        return
    work = work_of(chosen)
    yield check_memory(work, chosen.training, job)
    problem = None
    for check, problem in _data(chosen):  # noqa: B007  the last one is used below
        yield check
    if problem is None:
        return
    plan = describe_plan(chosen.training, len(problem.train), job.size.gpus)
    yield _samples(submission.plan, plan)
    if parent := str(submission.values.get("parent") or ""):
        yield attempt("parent", lambda: _parent(repository_root() / parent, problem))
    resume = str(submission.values.get("resume") or "")
    check, done = _resume(resume, problem, chosen, plan)
    yield check
    yield attempt("room", lambda: _room(problem, chosen, job.runs))
    reading = read_samples(problem.train, chosen.training.batch_size, samples)
    yield check_host(reading, work, chosen.training, job)
    left = replace(plan, steps=plan.steps - done)
    judged = judged_samples(chosen.training, len(problem.validation))
    yield from _predicted(work, reading, chosen, left, judged, job)


def _predicted(
    work: Work, reading: Reading, chosen: Experiment, plan: Plan, judged: int, job: Job
) -> Iterator[Check]:
    machine, training = job.profile.machine, chosen.training
    unknown = {"the section machine": "it is left out"} if machine is None else machine.unknown()
    if unknown:
        yield check_loader(reading, training, plan, job, None)
        named = f"the profile does not state {', '.join(unknown)}"
        yield Check("time", "warning", f"not predicted: {named}")
        return
    predicted = predict(work, machine, plan, training, job.size.tasks_per_node, judged)
    yield check_loader(reading, training, plan, job, predicted.step_s)
    yield check_time(predicted, plan, job)
    yield check_cost(predicted, job)
    yield check_start(predicted)


def refuse_hopeless(checks: list[Check]) -> None:
    """Raise if a check refused the job.

    Raises
    ------
    ParameterError
        Exit code 2, as for every job that cannot be submitted.
    """
    refused = [check for check in checks if check.status == "refused"]
    if refused:
        raise ParameterError(explain(
            "this job is hopeless", expected="checks that passed, or warnings",
            found="\n            ".join(f"{c.name}: {c.text.splitlines()[0]}" for c in refused),
            remedy="see the checks above; --no-preflight submits without them",
        ))  # fmt: skip


def check_queue(submission: Submission, now: datetime | None = None) -> Check:
    """When SLURM would start the job, by its own estimate for the queue as it is."""

    def ask() -> tuple[Status, str]:
        answer = dry_submit(submission)
        if answer is None:
            return "warning", "not asked: there is no sbatch here"
        begin = re.search(r"to start at (\d{4}-\S+)", answer)
        if begin is None:
            return "passed", answer
        wait = datetime.fromisoformat(begin[1]) - (now or datetime.now())
        hours = max(0.0, wait.total_seconds() / 3600)
        return "passed", f"would start in {hours:.1f} h, at {begin[1]} (sbatch --test-only)"

    return attempt("queue", ask)


# ---- the job's own files


def _image(job: Job) -> tuple[Status, str]:
    container = job.profile.container
    if container is None:
        here = Path(job.python).is_file() or shutil.which(job.python)
        return ("passed" if here else "refused",
                f"none; {job.python}{'' if here else ' is not there'}")  # fmt: skip
    path = Path(container.image.value)
    if not path.exists():
        return "refused", f"{path} does not exist"
    readable = os.access(path, os.R_OK)
    size = f"{path.stat().st_size / 1e9:.1f} GB" if path.is_file() else "a folder"
    return ("passed", f"{path}: {size}") if readable else ("refused", f"{path} cannot be read")


def _room(problem: Problem, chosen: Experiment, runs: Path) -> tuple[Status, str]:
    """Room for the checkpoints: those that are kept, and one more of each kind while written."""
    weights = sum(v.numel() * v.element_size() for v in problem.model.state_dict().values())
    trained = sum(4 * p.numel() for p in problem.model.parameters())
    last = weights + 2 * trained + (weights if chosen.training.ema_decay else 0)
    needed = (chosen.training.keep_best + 2) * weights + 3 * last
    place = next(folder for folder in (runs, *runs.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = (
        f"{needed / 1e9:.3g} GB for checkpoints (one to resume from {last / 1e9:.3g} GB); "
        f"{free / 1e9:.1f} GB free in {place}, quotas not counted"
    )
    return "passed" if free > 2 * needed else "warning" if free > needed else "refused", text


# ---- data, statistics, caches


def _data(chosen: Experiment) -> Iterator[tuple[Check, Problem | None]]:
    """Checks of what is read; with the last one the problem, if all of them passed."""
    try:
        manifest = load_manifest(resolve_manifest(chosen.manifest))
    except AqnetError as error:
        yield Check("manifest", "refused", str(error)), None
        return
    steps = _of_fields if isinstance(manifest, GridManifest) else _of_stations
    for check in steps(manifest, chosen):
        yield check, None
        if check.status == "refused":
            return
    try:
        problem = open_problem(chosen)
    except AqnetError as error:
        yield Check("problem", "refused", str(error)), None
        return
    count = sum(p.numel() for p in problem.model.parameters())
    text = (
        f"{count:,} parameters, {len(problem.train):,} training and "
        f"{len(problem.validation):,} validation samples"
    )
    yield Check("problem", "passed", text), problem


def _of_stations(manifest: object, chosen: Experiment) -> Iterator[Check]:
    path = station_store(manifest.name, chosen.store)

    def store() -> tuple[Status, str]:
        open_store(path, manifest)
        digest = verify_store(path)
        return "passed", f"{path}: of manifest {manifest.name}, every array read, {digest[:12]}"

    yield attempt("stores", store)


def _of_fields(manifest: GridManifest, chosen: Experiment) -> Iterator[Check]:
    opened: list[TrainingData] = []

    def stores() -> tuple[Status, str]:
        years = [year for year in check_stores(manifest, chosen.folder) if year.store is not None]
        if not years:
            raise CoverageError(explain(
                f"there are no stores of {manifest.name}", expected="yearly stores",
                found=f"none in {stores_folder(manifest.name, chosen.folder)}",
                remedy=f"write them: {manifest.recipe.command}",
            ))  # fmt: skip
        hours = sum(len(year.store.times) for year in years)
        return "passed", (
            f"{'SYNTHETIC, ' if manifest.synthetic else ''}{len(years)} years, {hours:,} hours, as "
            "manifest and record say (attributes, small arrays, sampled hours)"
        )

    def statistics() -> tuple[Status, str]:
        opened.append(open_training_data(manifest, chosen.folder))
        found = opened[0].statistics
        split = f"the training split, {found.split.start} to {found.split.end} UTC"
        return "passed", f"recorded, of these stores and {split}; {found.digest[:12]}"

    yield attempt("stores", stores)
    yield attempt("statistics", statistics)
    if opened:
        years = opened[0].years
        domain = Domain(years.grid, years.mask, years.static)
        yield attempt("wind scan", lambda: _cache(orders_of(domain, chosen.model, chosen.scan)))
        yield attempt("terrain", lambda: _cache(ridge_of(domain, chosen.model, chosen.terrain)))


def _cache(arrays: object | None) -> tuple[Status, str]:
    if arrays is None:
        return "passed", "not used by this model"
    return "passed", "whole, and made for this grid and model"


def _samples(expected: Plan | None, found: Plan) -> Check:
    """Whether the steps that were planned from the calendar are those of the stores."""
    if expected is None or expected.steps == found.steps:
        return Check("samples", "passed", f"{found.samples:,}, {found.epoch_steps} steps per epoch")
    text = f"{found.samples:,} instead of {expected.samples:,}; so {found}"
    return Check("samples", "warning", text)


# ---- checkpoints


def _parent(path: Path, problem: Problem) -> tuple[Status, str]:
    """Of the weights to begin with: other data or settings are wanted, or a mistake."""
    differences = take_weights(problem, read_checkpoint(path), path)
    if not differences:
        return "passed", f"{path}: whole, of this data and model"
    return "warning", f"{path}: whole, and fits; {'; '.join(differences)}"


def _resume(resume: str, problem: Problem, chosen: Experiment, plan: Plan) -> tuple[Check, int]:
    """The check, and steps that are done already."""
    if resume in ("", AUTO):
        return Check("resume", "passed", "not asked for: a new run"), 0
    path = repository_root() / resume
    try:
        checkpoint = read_last(path)
        check_fits(checkpoint, problem.identity, problem.model.config)
        saved = checkpoint.training
        check_same_run(saved["config"], chosen.training, saved["plan"], asdict(plan))
        fill_model(problem.model, checkpoint.state)
    except AqnetError as error:
        return Check("resume", "refused", str(error)), 0
    step = saved["state"]["step"]
    text = f"{path}: whole, of this data, model and run; step {step} of {plan.steps}"
    if step < plan.steps:
        return Check("resume", "passed", text), step
    return Check("resume", "refused", f"{text}: nothing is left to train"), 0
