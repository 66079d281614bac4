"""The text of a job script: every value quoted, every setting of the profile with its reason.

The script runs what was staged in the run folder, and checks its digests first. On a second start,
requeued by SLURM or by itself, it goes on from the last checkpoint.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aqnet.errors import ParameterError, explain
from aqnet.jobs.profiles import Profile
from aqnet.jobs.scale import Size

__all__ = ["JOB_FILE", "Job", "render"]

JOB_FILE = "job.sbatch"  # in the run folder
_JOB_ID = '"$SLURM_JOB_ID"'


@dataclass(frozen=True)
class Job:
    """What a job script is made from.

    Attributes
    ----------
    name : str
    run : Path
        Absolute path of the run folder, which holds `staged/` (aqnet.jobs.stage).
    profile : Profile
    size : Size
    python : str
        Interpreter, in the container if there is one.
    data, runs, root : Path
        Folders of the data, of the runs, and the repository; the last for relative paths in
        parameters.
    resumable : bool
        The notebook has a parameter `resume`.
    follow_up : Path or None
        Job script to submit when this one ends well.
    """

    name: str
    run: Path
    profile: Profile
    size: Size
    python: str
    data: Path
    runs: Path
    root: Path
    resumable: bool
    follow_up: Path | None = None


def _why(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def _quoted(text: str) -> str:
    """Shell text of a value in which `{job}` stands for the number of the job."""
    return _JOB_ID.join(shlex.quote(part) if part else "" for part in text.split("{job}")) or "''"


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


def _options(settings: dict) -> list[tuple[str, str]]:
    """Reason, and option as it is given; `true` makes a flag, `false` leaves it out."""
    found = []
    for name, setting in settings.items():
        if setting.value is not False:
            value = "" if setting.value is True else f"={setting.value}"
            found.append((setting.reason, f"--{name}{value}"))
    return found


# ---- what is asked of SLURM


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
    stop = min(profile.stop_seconds.value, size.seconds // 3)
    goes_on = profile.continue_by.value == "requeue" and not size.rehearsal
    output = str(job.run / "logs").replace("%", "%%") + "/slurm-%j.out"
    return [
        *found,
        ("", f"--time={size.clock}"),
        (profile.stop_seconds.reason, f"--signal=USR1@{stop}"),
        (profile.continue_by.reason, "--requeue" if goes_on else "--no-requeue"),
        ("", "--open-mode=append"),
        ("what SLURM itself says; the output of the job goes to a file for each start",
         f"--output={output}"),
        *_options(profile.directives),
    ]  # fmt: skip


# ---- what the script does


def _begin(job: Job) -> list[str]:
    return [
        "set -eo pipefail",
        "ulimit -c 0  # no core files: each is as large as a process",
        f"run={shlex.quote(str(job.run))}",
        'staged="$run/staged"',
        'log="$run/logs/job-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}.log"',
        'exec >>"$log" 2>&1',
        'echo "job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST, '
        '$(date --utc +%FT%TZ)"',
        "# what was staged is what runs",
        '(cd "$run" && sha256sum --check --quiet staged.sha256)',
    ]


def _environment(job: Job) -> list[str]:
    profile, lines = job.profile, []
    for name, setting in profile.unset.items():
        lines += [*_why(setting.reason), f"unset {name}"]
    if profile.commands.value:
        lines += _why(profile.commands.reason)
        lines += [shlex.join(command) for command in profile.commands.value]
    for name, setting in profile.environment.items():
        lines += [*_why(setting.reason), f"export {name}={_quoted(setting.value)}"]
    places = {"AQNET_DATA": job.data, "AQNET_RUNS": job.runs}
    lines += [f"export {name}={shlex.quote(str(path))}" for name, path in places.items()]
    if job.size.rehearsal and profile.fabric.value:
        lines += ["export NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=INIT,NET"]
    return [
        *lines,
        'export AQNET_ROOT="$staged" PYTHONPATH="$staged" PYTHONNOUSERSITE=1 MPLBACKEND=Agg',
        'export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"',
        "# sed reads to the end, so that no pipe breaks; ssh between nodes is not needed",
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        "export MASTER_ADDR",
    ]


def _binds(job: Job) -> str:
    """Folders that the container has to see, by their real paths."""
    places = dict.fromkeys(str(p.resolve()) for p in (job.root, job.data, job.runs, job.run))
    for place in places:
        if "," in place or ":" in place:
            raise ParameterError(explain(
                "a folder cannot be bound into the container", expected="a path without , and :",
                found=place, remedy="move the repository, the data or the runs",
            ))  # fmt: skip
    return ",".join(places)


def _each(job: Job) -> str:
    """What a task does before it becomes its command."""
    folders = " ".join(_quoted(folder) for folder in job.profile.folders.value)
    steps = [
        # Ignored until the training loop listens: it would kill a Python that still imports.
        'trap "" USR1',
        *([f"mkdir -p {folders}"] if folders else []),
        'exec "$@"',
    ]
    return "; ".join(steps)


def _launch(job: Job) -> list[str]:
    profile, size = job.profile, job.size
    container = []
    if profile.container is not None:
        image = profile.container.image.value
        container = [*profile.container.command.value, "--bind", _binds(job), image]
    options = [("", f"--cpus-per-task={profile.cpus_per_task.value}"), *_options(profile.srun)]
    if profile.cpu_masks.value and size.whole_nodes:
        masks = ",".join(profile.cpu_masks.value)
        options.append((profile.cpu_masks.reason, f"--cpu-bind=mask_cpu:{masks}"))
    why = [line for reason, _ in options for line in _why(reason)]
    srun = shlex.join(option for _, option in options)
    return [
        *why,
        f"python=({shlex.join([*container, job.python])})",
        f'each() {{ srun {srun} bash -c {shlex.quote(_each(job))} each "$@"; }}',
        "# byte code once, by the interpreter that uses it, not by every process",
        '"${python[@]}" -m compileall -q "$staged/aqnet"',
        "export PYTHONDONTWRITEBYTECODE=1",
    ]


def _rehearse(job: Job) -> list[str]:
    """What only a rehearsal checks before the run."""
    nodes = job.profile.gpu_numa.value
    if not (
        job.size.rehearsal and job.size.whole_nodes and job.profile.accelerator.value == "cuda"
    ):
        return []
    words = " ".join(map(str, nodes))
    return [
        "# cores and GPU of each process on one NUMA node, and all GPUs to be seen",
        f'each "${{python[@]}}" -m aqnet.jobs.binding {words}'.rstrip(),
    ]


def _run(job: Job) -> list[str]:
    command = '"$staged/script.py" --params "$staged/parameters.yaml" --run-dir "$run"'
    if not job.resumable:
        return ["code=0", f'each "${{python[@]}}" {command} || code=$?']
    return [
        "resume=()",
        "# a run that was stopped goes on, whatever it began from",
        'if [ -e "$run/checkpoints/last.ckpt" ]; then resume=(--resume auto); fi',
        "code=0",
        f'each "${{python[@]}}" {command} "${{resume[@]}}" || code=$?',
    ]


def _end(job: Job) -> list[str]:
    profile, lines = job.profile, []
    if job.size.rehearsal and profile.fabric.value and job.size.nodes > 1:
        lines += [
            *_why(profile.fabric.reason),
            f'if [ "$code" -eq 0 ] && ! grep -Eq {shlex.quote(profile.fabric.value)} "$log"; then',
            '    echo "error: the fast network was not found; this was sockets"',
            "    exit 1",
            "fi",
        ]
    ways = {
        "requeue": 'scontrol requeue "$SLURM_JOB_ID"',
        "resubmit": f'sbatch "$run/{JOB_FILE}"',
    }
    way = ways.get(profile.continue_by.value)
    noted = '"${python[@]}" -m aqnet.jobs.attempt "$run" "$code" "$log"'
    if way and job.resumable and not job.size.rehearsal:
        lines += [
            "# the time was up, and all ranks left with a checkpoint; not if somebody stopped it;",
            "# the log is of this start alone, so that one that fails at once is not repeated",
            'if [ "$code" -ne 0 ] && grep -q "stopped by SIGUSR1" "$log"; then',
            f"    {way}",
            'elif [ "$code" -ne 0 ]; then',
            f"    {noted}",
            "fi",
        ]
    else:
        lines += [f'if [ "$code" -ne 0 ]; then {noted}; fi']
    if job.follow_up is not None:
        follow = f"sbatch {shlex.quote(str(job.follow_up))}"
        lines += [f'if [ "$code" -eq 0 ]; then {follow}; fi']
    return [*lines, 'exit "$code"']


def _blocks(parts: Iterable[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def render(job: Job) -> str:
    """Text of the job script.

    Raises
    ------
    ParameterError
        A path or name that SLURM's or the container's options cannot carry.
    """
    title = f"Rendered by `aqnet submit` for the profile {job.profile.name}: {job.profile.title}"
    head = ["#!/bin/bash", *_why(title)]
    for reason, option in _directives(job):
        head += [*_why(reason), _directive(option)]
    return _blocks(
        (head, _begin(job), _environment(job), _launch(job), _rehearse(job), _run(job), _end(job))
    )
