"""From a notebook and a profile to a job that can be submitted; nothing is written here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from aqnet.errors import ParameterError, explain
from aqnet.io import data_root, repository_root, runs_root
from aqnet.jobs.batch import render
from aqnet.jobs.job import JOB_FILE, Job
from aqnet.jobs.notebook import code_digest, read_notebook, run_checks
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import resolve
from aqnet.jobs.profiles import Profile, load_profile
from aqnet.jobs.runs import RUN_DIR, notebook_label, parameters_hash, require_run_dir
from aqnet.jobs.scale import Size, experiment_in, plan_of, scaled, size_of
from aqnet.training.cost import work_of
from aqnet.training.schedule import Plan

__all__ = ["Submission", "chosen_profile", "describe", "prepare"]


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be written and submitted.

    Attributes
    ----------
    notebook : Path
    sha256 : str
        `code_digest` of the notebook.
    values : dict
        Typed parameters.
    files : dict
        Texts to stage, by file name.
    job : Job
    text : str
        The job script.
    plan : Plan or None
        Of a notebook that trains.
    sized : dict
        Parameters that follow from the size and the profile, not from the user.
    then : Submission or None
        Evaluation that starts when this job has ended well.
    """

    notebook: Path
    sha256: str
    values: dict[str, Value]
    files: dict[str, str]
    job: Job
    text: str
    plan: Plan | None
    sized: dict[str, Value]
    then: Submission | None = None


def _refuse(problem: str, expected: object, found: object, remedy: str) -> ParameterError:
    return ParameterError(explain(problem, expected=expected, found=found, remedy=remedy))


def chosen_profile(name: str, settings: Mapping[str, str]) -> Profile:
    """A profile with the user's settings in it.

    Raises
    ------
    ParameterError
        There is no such profile, or a setting is wrong or missing.
    """
    profile = load_profile(name).given(settings)
    missing = profile.missing()
    if missing:
        needed = "; ".join(f"{setting} ({reason})" for setting, reason in missing.items())
        example = " ".join(f"--set {setting}=..." for setting in missing)
        raise _refuse(
            f"the profile {profile.name} leaves settings to you", needed, "nothing", example
        )
    return profile


def _parameters(
    notebook: Path, files: Sequence[str | Path], assignments: Sequence[str] | Mapping[str, Value]
) -> dict[str, Value]:
    content = read_notebook(notebook)
    declared = parse_parameters(content, str(notebook))
    require_run_dir(declared, str(notebook))
    values = resolve(declared, files, assignments)
    if values[RUN_DIR]:
        raise _refuse(f"{RUN_DIR} is set by `aqnet submit`", "no value", values[RUN_DIR],
                      f"leave {RUN_DIR} out")  # fmt: skip
    return values


def _run_path(notebook: Path, values: Mapping[str, Value]) -> Path:
    now, label = datetime.now(UTC), notebook_label(notebook)
    return runs_root() / f"{now:%Y%m%dT%H%M%S}-{label}-{parameters_hash(values)[:8]}"


def _job(profile: Profile, size: Size, run: Path, values: Mapping[str, Value]) -> Job:
    label = run.name.split("-", 1)[1]
    chosen = experiment_in(values) if size.rehearsal else None
    return Job(
        name=f"rehearse-{label}" if size.rehearsal else label,
        run=run, profile=profile, size=size, python=profile.python.value or sys.executable,
        data=data_root(), runs=runs_root(), root=repository_root(), resumable="resume" in values,
        gradient_mb=None if chosen is None else work_of(chosen).gradient_bytes / 1e6,
    )  # fmt: skip


def _submission(
    notebook: Path, values: dict[str, Value], profile: Profile, gpus: int, size: Size
) -> Submission:
    from aqnet.jobs.compile import compile_notebook  # needs IPython

    sized = scaled(values, profile, gpus, size)
    values = values | sized
    content = read_notebook(notebook)
    run_checks(content, values, str(notebook))
    plan = plan_of(values, size)
    job = _job(profile, size, _run_path(notebook, values), values)
    stored = {name: value for name, value in values.items() if name != RUN_DIR}
    plain = profile.model_dump(mode="json")
    files = {
        "script.py": compile_notebook(notebook),
        "notebook.ipynb": notebook.read_text(encoding="utf-8"),
        "parameters.yaml": yaml.safe_dump(stored, sort_keys=False, allow_unicode=True),
        "profile.yaml": yaml.safe_dump(plain, sort_keys=False, allow_unicode=True),
    }
    return Submission(notebook, code_digest(content), values, files, job, render(job), plan, sized)


def _evaluation_notebook(notebook: Path, values: Mapping[str, Value]) -> Path:
    folder = notebook.absolute().parent.parent / "evaluate"
    names = dict.fromkeys((notebook.stem, str(values.get("preset", notebook.stem))))
    wanted = [folder / f"{name}.ipynb" for name in names]
    found = next((path for path in wanted if path.is_file()), None)
    if found is None:
        raise _refuse(f"there is no evaluation for {notebook}", " or ".join(map(str, wanted)),
                      "no such notebook", "leave --then-evaluate out")  # fmt: skip
    return found


def _with_evaluation(first: Submission, notebook: Path) -> Submission:
    given = {"train_run": str(first.job.run)}
    values, profile = _parameters(notebook, (), given), first.job.profile
    then = _submission(notebook, values, profile, 1, size_of(profile, 1, first.job.size.rehearsal))
    if profile.continue_by.value != "resubmit":
        return replace(first, then=then)
    # The last of several jobs ends well: only it can start the evaluation.
    job = replace(first.job, follow_up=then.job.run / JOB_FILE)
    return replace(first, then=then, job=job, text=render(job))


def prepare(
    notebook: str | Path,
    profile: str,
    gpus: int,
    assignments: Sequence[str] | Mapping[str, Value] = (),
    files: Sequence[str | Path] = (),
    settings: Mapping[str, str] | None = None,
    rehearsal: bool = False,
    then_evaluate: bool = False,
) -> Submission:
    """Check everything, and render the job script; nothing is written.

    Parameters
    ----------
    notebook : path
        Notebook with typed parameters.
    profile : str
        Name in `slurm/`, or path of a profile.
    gpus : int
        Processes; what a GPU is says the profile.
    assignments, files
        See `aqnet.jobs.parameters.resolve`.
    settings : mapping, optional
        Settings of the profile in the user's hand; see `aqnet.jobs.profiles.GIVEN`.
    rehearsal : bool
        The same on 2 nodes at most, for 15 minutes.
    then_evaluate : bool
        Chain `evaluate/NAME.ipynb` beside the notebook's folder, NAME that of the notebook or of
        its preset.

    Raises
    ------
    ParameterError
        Anything that is not right.
    CompileError
        The notebook is no script.
    """
    notebook = Path(notebook)
    values = _parameters(notebook, files, assignments)
    chosen = chosen_profile(profile, settings or {})
    size = size_of(chosen, gpus, rehearsal)
    first = _submission(notebook, values, chosen, gpus, size)
    if not then_evaluate:
        return first
    return _with_evaluation(first, _evaluation_notebook(notebook, first.values))


# ---- what it will do, in words


def _hours(size: Size, profile: Profile) -> str:
    hours, factor = size.gpu_hours, profile.billed.value
    text = f"at most {hours:,.1f} GPU-hours ({size.gpus} x {size.clock})"
    return text if factor == 1 else f"{text}, billed as {hours * factor:,.1f}"


def describe(submission: Submission) -> str:
    """Size, plan and cost of a job, one fact a line."""
    job, size = submission.job, submission.job.size
    lines = [
        f"{submission.notebook} on {job.profile.name}{', rehearsal' if size.rehearsal else ''}: "
        f"{size.gpus} processes on {size.nodes} nodes x {size.tasks_per_node}"
        + (f", partition {size.partition}" if size.partition else ""),
        f"  GPU here:   {job.profile.gpu}",
        f"  cost:       {_hours(size, job.profile)}",
    ]
    if submission.sized:
        lines.append(f"  set here:   {', '.join(f'{k}={v}' for k, v in submission.sized.items())}")
    if submission.plan is not None:
        lines.append(f"  plan:       {submission.plan}")
    limits = job.profile.limits(size.partition)
    if limits is not None:
        lines.append(f"  limits:     {limits.name} as of {limits.dated}: {limits.max_nodes} nodes, "
                     f"{limits.max_hours} h, {limits.max_jobs} jobs")  # fmt: skip
    if submission.then is not None:
        lines += ["then, if it ends well:", describe(submission.then)]
    return "\n".join(lines)
