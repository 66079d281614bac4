"""The text of a job script: every value quoted, every setting of the profile with its reason.

The script runs what was staged in the run folder, and checks its digests first. On a second start,
requeued by SLURM or by itself, it goes on from the last checkpoint.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from aqnet.errors import ParameterError, explain
from aqnet.jobs.directives import comment, directive_lines, flags
from aqnet.jobs.job import JOB_FILE, Job, Summary
from aqnet.jobs.rehearsal import note_end, rehearsal_checks

__all__ = ["render"]

_JOB_ID = '"$SLURM_JOB_ID"'
_SAME_ELEMENT = '--array="$SLURM_ARRAY_TASK_ID" '


def _quoted(text: str) -> str:
    """Shell text of a value in which `{job}` stands for the number of the job."""
    return _JOB_ID.join(shlex.quote(part) if part else "" for part in text.split("{job}")) or "''"


def _places(job: Job) -> list[str]:
    """Run folder, and where the code of the job is."""
    if job.array is None:
        return [f"run={shlex.quote(str(job.run))}", 'staged="$run/staged"']
    cases = [
        f"    {i}) name={shlex.quote(each.run)} digest={each.parameters_sha256} ;;"
        for i, each in enumerate(job.array.elements)
    ]
    return [
        "# run folder of each element, and SHA-256 of its parameters",
        'case "$SLURM_ARRAY_TASK_ID" in',
        *cases,
        '    *) echo "error: no element $SLURM_ARRAY_TASK_ID"; exit 2 ;;',
        "esac",
        f'run={shlex.quote(str(job.runs))}/"$name"',
        f"staged={shlex.quote(str(job.array.code / 'staged'))}",
        'mkdir -p "$run/logs"',
    ]


def _interpreter(job: Job) -> str:
    """Words of the interpreter, in its container if there is one, as an array of the shell."""
    container = []
    if job.profile.container is not None:
        image = job.profile.container.image.value
        container = [*job.profile.container.command.value, "--bind", _binds(job), image]
    return f"python=({shlex.join([*container, job.python])})"


def _note_early_end(job: Job) -> list[str]:
    """Have run.json say why a job ended before it came to its run, such as at a digest.

    A container that a command of the profile brings (module load) cannot run this note before that
    command has run; then the log alone says why, and run.json stays as it was.
    """
    note = note_end("$status")
    return [
        _interpreter(job),
        "code=  # of the run; empty until it begins",
        "note_early_end() {",
        "    local status=$?",
        "    set +e",
        '    if [ -z "$code" ] && [ "$status" -ne 0 ]; then',
        f'        AQNET_ROOT="$staged" PYTHONPATH="$staged" PYTHONNOUSERSITE=1 {note}',
        "    fi",
        '    exit "$status"',
        "}",
        "trap note_early_end EXIT",
    ]


def _begin(job: Job) -> list[str]:
    code, checks = '"$run"', []
    if job.array is not None:
        code = shlex.quote(str(job.array.code))
        checks = ['(cd "$run" && echo "$digest  parameters.yaml" | sha256sum --check --quiet)']
    return [
        "set -eo pipefail",
        "ulimit -c 0  # no core files: each is as large as a process",
        *_places(job),
        'log="$run/logs/job-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}.log"',
        'exec >>"$log" 2>&1',
        *_note_early_end(job),
        'echo "job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST, '
        '$(date --utc +%FT%TZ)"',
        "# what was staged is what runs",
        f"(cd {code} && sha256sum --check --quiet staged.sha256)",
        *checks,
    ]


def _environment(job: Job) -> list[str]:
    profile, lines = job.profile, []
    for name, setting in profile.unset.items():
        lines += [*comment(setting.reason), f"unset {name}"]
    if profile.commands.value:
        lines += comment(profile.commands.reason)
        lines += [shlex.join(command) for command in profile.commands.value]
    for name, setting in profile.environment.items():
        lines += [*comment(setting.reason), f"export {name}={_quoted(setting.value)}"]
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
        # Ignored until the script listens (aqnet.jobs.script): it would kill a Python that starts.
        'trap "" USR1',
        *([f"mkdir -p {folders}"] if folders else []),
        'exec "$@"',
    ]
    return "; ".join(steps)


def _launch(job: Job) -> list[str]:
    profile, size = job.profile, job.size
    options = [
        ("", f"--cpus-per-task={profile.cpus_per_task.value}"),
        ("the first process goes on alone at the end of a training; sites may set a limit",
         "--wait=0"),
        *flags(profile.srun),
    ]  # fmt: skip
    if profile.cpu_masks.value and size.whole_nodes:
        masks = ",".join(profile.cpu_masks.value)
        options.append((profile.cpu_masks.reason, f"--cpu-bind=mask_cpu:{masks}"))
    why = [line for reason, _ in options for line in comment(reason)]
    srun = shlex.join(option for _, option in options)
    return [
        *why,
        f'each() {{ srun {srun} bash -c {shlex.quote(_each(job))} each "$@"; }}',
        "# byte code once, by the interpreter that uses it, not by every process",
        '"${python[@]}" -m compileall -q "$staged/aqnet"',
        "export PYTHONDONTWRITEBYTECODE=1",
    ]


def _run(job: Job) -> list[str]:
    script = "script.py" if job.array is None else job.array.script
    values = "$staged" if job.array is None else "$run"
    command = f'"$staged/{script}" --params "{values}/parameters.yaml" --run-dir "$run"'
    if not job.resumable:
        return ["code=0", f'each "${{python[@]}}" {command} || code=$?']
    return [
        "resume=()",
        "# a run that was stopped goes on, whatever it began from; of two checkpoints one is whole",
        "for last in last.ckpt last-previous.ckpt; do",
        '    if [ -e "$run/checkpoints/$last" ]; then resume=(--resume auto); fi',
        "done",
        "code=0",
        f'each "${{python[@]}}" {command} "${{resume[@]}}" || code=$?',
    ]


def _sbatch(job: Job, script: str) -> str:
    """Submit a script from a job; of an array, for the same element alone."""
    return f"sbatch {'' if job.array is None else _SAME_ELEMENT}{script}"


def _summary(summary: Summary | None) -> list[str]:
    if summary is None:
        return []
    sweep, run, script = map(shlex.quote, (str(summary.sweep), summary.run, str(summary.script)))
    ready = f'"${{python[@]}}" -m aqnet.jobs.sweeps.ready {sweep} {run}'
    return [
        "# Who completes the sweep submits its summary. A dependency on a job that resubmits",
        "# itself, or that failed and was retried in another array, would never be met.",
        f'if [ "$code" -eq 0 ] && {ready}; then sbatch {script}; fi',
    ]


def _end(job: Job) -> list[str]:
    profile, lines = job.profile, []
    own = f'"$run/{JOB_FILE}"' if job.array is None else shlex.quote(str(job.run / JOB_FILE))
    ways = {
        "requeue": 'scontrol requeue "$SLURM_JOB_ID"',
        "resubmit": _sbatch(job, own),
    }
    way = ways.get(profile.continue_by.value)
    noted = note_end("$code")
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
        lines += [f'if [ "$code" -eq 0 ]; then {_sbatch(job, shlex.quote(str(job.follow_up)))}; fi']
    lines += _summary(job.summary)
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
    command = "submit" if job.array is None else "sweep"
    title = f"Rendered by `aqnet {command}` for the profile {job.profile.name}: {job.profile.title}"
    head = ["#!/bin/bash", *comment(title), *directive_lines(job)]
    return _blocks(
        (
            head,
            _begin(job),
            _environment(job),
            _launch(job),
            rehearsal_checks(job),
            _run(job),
            _end(job),
        )
    )
