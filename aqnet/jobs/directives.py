"""What a job script asks of SLURM: its directives, each with its reason."""

from __future__ import annotations

import shlex
import textwrap

from aqnet.errors import ParameterError, explain
from aqnet.jobs.job import Job
from aqnet.jobs.scale import stop_margin

__all__ = ["comment", "directive_lines", "flags"]


def comment(text: str) -> list[str]:
    """A reason as lines of comment."""
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def _directive(option: str) -> str:
    """A line for SLURM, whose quotes are those of a shell, but for the backslash in them."""
    if "\\" in option or not option.isprintable():
        raise ParameterError(
            explain(
                "SLURM cannot read an option",
                expected="one line without a backslash",
                found=repr(option),
                remedy="choose another name or folder",
            )
        )
    return f"#SBATCH {shlex.quote(option)}"


def flags(settings: dict) -> list[tuple[str, str]]:
    """Reason, and option as it is given; `true` makes a flag, `false` leaves it out."""
    found = []
    for name, setting in settings.items():
        if setting.value is not False:
            value = "" if setting.value is True else f"={setting.value}"
            found.append((setting.reason, f"--{name}{value}"))
    return found


def _resources(job: Job) -> list[tuple[str, str]]:
    profile, size = job.profile, job.size
    tasks, request = size.tasks_per_node, profile.gpu_request
    found = [
        (profile.gpu, f"--nodes={size.nodes}"),
        (profile.per_node.reason, f"--ntasks-per-node={tasks}"),
        (profile.cpus_per_task.reason, f"--cpus-per-task={profile.cpus_per_task.value}"),
    ]
    if request.value != "none":
        prefix = "gpus-per-node=" if request.value == "gpus-per-node" else "gres=gpu:"
        found.append((request.reason, f"--{prefix}{tasks}"))
    if profile.memory_gb.value is not None:
        memory = f"--mem={round(profile.memory_gb.value * tasks)}G"
        found.append((profile.memory_gb.reason, memory))
    return found


def _directives(job: Job) -> list[tuple[str, str]]:
    profile, size = job.profile, job.size
    found = [("", f"--job-name={job.name}")]
    if profile.account.value is not None:
        found.append(("", f"--account={profile.account.value}"))
    if size.partition is not None:
        limits = profile.limits(size.partition)
        use = f"{limits.use}; limits as of {limits.dated}" if limits else ""
        found.append((use, f"--partition={size.partition}"))
    found += _resources(job)
    stop = stop_margin(profile, size)
    goes_on = profile.continue_by.value == "requeue" and not size.rehearsal
    output = str(job.run / "logs").replace("%", "%%")
    output += "/slurm-%j.out" if job.array is None else "/slurm-%A_%a.out"
    if job.array is not None:
        found.append(("", f"--array={job.array.indices}"))
    return [
        *found,
        ("", f"--time={size.clock}"),
        (profile.stop_seconds.reason, f"--signal=USR1@{stop}"),
        (profile.continue_by.reason, "--requeue" if goes_on else "--no-requeue"),
        ("", "--open-mode=append"),
        ("what SLURM itself says; the output of the job goes to a file for each start",
         f"--output={output}"),
        *flags(profile.directives),
    ]  # fmt: skip


def directive_lines(job: Job) -> list[str]:
    """Lines of the head of a job script.

    Raises
    ------
    ParameterError
        SLURM would read an option otherwise.
    """
    lines = []
    for reason, option in _directives(job):
        lines += [*comment(reason), _directive(option)]
    return lines
