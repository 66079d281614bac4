"""What a rehearsal checks before it trains: cores and GPUs, and the network between its nodes."""

from __future__ import annotations

import shlex

from aqnet.jobs.directives import comment
from aqnet.jobs.job import Job

__all__ = ["note_end", "rehearsal_checks"]


def note_end(code: str) -> str:
    """Command of a job script that notes in run.json why its start ended with a code."""
    return f'"${{python[@]}}" -m aqnet.jobs.attempt "$run" "{code}" "$log"'


def rehearsal_checks(job: Job) -> list[str]:
    """Lines of the job script of a rehearsal; none of another job."""
    if not job.size.rehearsal:
        return []
    return [*_check_binding(job), *_check_network(job)]


def _check_binding(job: Job) -> list[str]:
    if not job.size.whole_nodes or job.profile.accelerator.value != "cuda":
        return []
    words = ["aqnet.jobs.binding", *map(str, job.profile.gpu_numa.value)]
    return [
        "# cores and GPU of each process on one NUMA node, and all GPUs to be seen",
        f'each "${{python[@]}}" -m {" ".join(words)} || exit $?',
    ]


def _check_network(job: Job) -> list[str]:
    """All-reduces; and that the fast network carried them, before anything is trained."""
    profile, size = job.profile, job.size
    if size.gpus == 1:
        return []
    words = ["aqnet.jobs.check_network", "--accelerator", profile.accelerator.value]
    if job.gradient_mb is not None:
        words += ["--megabytes", f"{job.gradient_mb:.4g}"]
    stated = profile.machine and profile.machine.known("node_bandwidth_gb_s")
    if stated is not None:
        words += ["--stated-gb-s", f"{stated:g}"]
    lines = ["# all-reduces of the gradients' size; names a slow node",
             f'each "${{python[@]}}" -m {shlex.join(words)} || exit $?']  # fmt: skip
    if profile.fabric.value and size.nodes > 1:
        lines += [
            *comment(profile.fabric.reason),
            f'if ! grep -Eq {shlex.quote(profile.fabric.value)} "$log"; then',
            '    echo "error: the fast network was not found; this was sockets"',
            "    exit 1",
            "fi",
        ]
    return lines
