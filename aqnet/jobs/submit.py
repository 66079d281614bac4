"""Submit a job: run folder, staged files, sbatch.

`sbatch --test-only` is asked before anything is written. What the job runs is fixed once it is
staged.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aqnet.errors import RunError, explain
from aqnet.io import atomic_write_json, atomic_write_text, sha256_file
from aqnet.jobs.job import JOB_FILE
from aqnet.jobs.runs import Failure, RunFolder
from aqnet.jobs.stage import DIGESTS, stage
from aqnet.jobs.submission import Submission

__all__ = ["SUBMISSION", "dry_submit", "job_number", "sbatch", "submit"]

SUBMISSION = "submission.json"  # in the run folder


def _clean_environment() -> dict[str, str]:
    """Without variables that would override the job script, but for the way to the cluster."""
    names = ("SBATCH_", "SLURM_", "SRUN_")
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in os.environ.items() if k in kept or not k.startswith(names)}


def sbatch(arguments: Sequence[str], text: str | None = None) -> str:
    """Answer of `sbatch` with arguments; `text` is a job script for its standard input.

    Raises
    ------
    RunError
        SLURM refuses the job.
    """
    command = ["sbatch", *arguments]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env=_clean_environment(), check=False
    )
    if done.returncode:
        raise RunError(explain(
            "SLURM refuses the job", expected=f"{shlex.join(command)} ends with code 0",
            found=f"code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}",
            remedy="correct the profile or --set; `scontrol show partition` lists limits",
        ))  # fmt: skip
    return (done.stdout + done.stderr).strip()


def dry_submit(submission: Submission) -> str | None:
    """What `sbatch --test-only` says of the jobs; None where there is no sbatch.

    Raises
    ------
    RunError
        SLURM would refuse one of them.
    """
    if shutil.which("sbatch") is None:
        return None
    jobs = [submission] + ([submission.then] if submission.then else [])
    return "\n".join(sbatch(["--test-only"], each.text) for each in jobs)


def _write(submission: Submission) -> None:
    """Run folder, staged files and job script."""
    job = submission.job
    RunFolder.create(
        submission.notebook, submission.values, started_by="script", path=job.run,
        notebook_sha256=submission.sha256,
    )  # fmt: skip
    (job.run / "logs").mkdir()
    stage(job.run, job.root, submission.files)
    atomic_write_text(job.run / JOB_FILE, submission.text)
    (job.run / JOB_FILE).chmod(0o444)


def job_number(answer: str, script: Path) -> str:
    """Number of a job in what `sbatch --parsable` said.

    Raises
    ------
    RunError
        There is none.
    """
    number = re.match(r"\d+", answer)
    if number is None:
        raise RunError(explain("sbatch gave no job number", expected="a number", found=answer,
                               remedy=f"squeue; the job script is {script}"))  # fmt: skip
    return number[0]


def _send(submission: Submission, *options: str) -> str:
    run = submission.job.run
    try:
        answer = sbatch(["--parsable", *options, str(run / JOB_FILE)])
    except RunError as error:
        failure = Failure(type="RunError", message=str(error))
        RunFolder.open(run).set_status("failed", failure)
        raise
    number = job_number(answer, run / JOB_FILE)
    _record(submission, number, options)
    return number


def _record(submission: Submission, number: str, options: Sequence[str]) -> None:
    job, size = submission.job, submission.job.size
    atomic_write_json(job.run / SUBMISSION, {
        "schema_version": 1, "job": number, "submitted": datetime.now(UTC).isoformat(),
        "profile": job.profile.name, "partition": size.partition, "processes": size.gpus,
        "nodes": size.nodes, "time_limit_s": size.seconds, "rehearsal": size.rehearsal,
        "sbatch_options": list(options), "script_sha256": sha256_file(job.run / JOB_FILE),
        "staged_sha256": sha256_file(job.run / DIGESTS),
    })  # fmt: skip


def submit(submission: Submission) -> list[str]:
    """Write the run folder, stage its content and submit the job.

    Returns
    -------
    list of str
        Number of the job, and of the evaluation if SLURM knows it already.

    Raises
    ------
    RunError
        There is no sbatch here, or SLURM refuses the job. The folder of a refused job has status
        `failed`.
    """
    if shutil.which("sbatch") is None:
        raise RunError(explain(
            "jobs cannot be submitted here", expected="sbatch on the path", found="none",
            remedy="log in to the cluster; --dry-run shows the job script anywhere",
        ))  # fmt: skip
    then = submission.then
    for each in filter(None, (submission, then)):
        _write(each)
    numbers = [_send(submission)]
    if then is not None and submission.job.follow_up is None:
        after = f"--dependency=afterok:{numbers[0]}"
        with _told(numbers[0], submission):
            numbers.append(_send(then, after, "--kill-on-invalid-dep=yes"))
    return numbers


@contextmanager
def _told(number: str, submission: Submission) -> Iterator[None]:
    """Name the job that is queued already, if the one after it is not taken."""
    try:
        yield
    except RunError as error:
        raise RunError(explain(
            "the training was submitted, its evaluation was not, or gave no number",
            expected="two jobs",
            found=f"job {number}, which stays queued, of {submission.job.run}; then {error}",
            remedy="see squeue; evaluate by hand when the training has ended, or take it back: "
            f"scancel {number}",
        )) from error  # fmt: skip
