"""`aqnet submit`."""

from __future__ import annotations

import click

from aqnet.cli.console import need_lab
from aqnet.cli.job import check_first, job_options

__all__ = ["submit"]


@click.command()
@job_options
@click.option("--dry-run", is_flag=True, help="Show the job script; write and submit nothing.")
@click.option(
    "--preflight/--no-preflight",
    "checked",
    default=True,
    help="Check data, memory, loader and time first (training notebooks).",
)
def submit(dry_run: bool, checked: bool, **options: object) -> None:
    """Submit NOTEBOOK as a job of SLURM.

    Parameters, settings and the job script are checked (by `sbatch --test-only` too, where there is
    one) before anything is written, and a training notebook as `aqnet preflight` does; what is not
    right ends with exit code 2. Code, parameters and profile are copied into the run folder, and
    the job runs the copies. On 128, 400 and 800 GPUs a training on fields gets the batch of that
    scale, unless -p gives another.
    """
    from aqnet.jobs import submit as jobs
    from aqnet.jobs.submission import describe, prepare
    from aqnet.jobs.watch import tensorboard_lines

    with need_lab("notebooks cannot be compiled"):
        ready = prepare(**options)
    click.echo(describe(ready))
    for each in filter(None, (ready, ready.then)):
        click.echo(f"\n---- {each.job.run / jobs.JOB_FILE}\n{each.text}----")
    if checked and ready.plan is not None:
        check_first(ready)
    answer = jobs.dry_submit(ready)
    click.echo(answer or "sbatch --test-only: not asked, there is no sbatch here")
    if dry_run:
        click.echo("dry run: nothing was written or submitted")
        return
    numbers = jobs.submit(ready)
    click.echo(f"submitted: job {', then '.join(numbers)}")
    click.echo(f"run folder: {ready.job.run}")
    click.echo(f"output: {ready.job.run / 'logs'}")
    click.echo(f"how it gets on: aqnet watch {numbers[0]}")
    if ready.plan is not None:
        click.echo("curves, " + "\n        ".join(tensorboard_lines(ready.job.run)))
