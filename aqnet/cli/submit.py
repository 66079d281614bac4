"""`aqnet submit`."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import assignments_option, files_option, need_lab

__all__ = ["submit"]


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--profile", required=True, metavar="NAME|FILE", help="Profile in slurm/, or a file.")
@click.option(
    "--gpus", required=True, type=click.IntRange(1), help="Processes, one for each GPU (LUMI: GCD)."
)
@assignments_option
@files_option
@click.option("--account", help="Project to bill; the same as --set account=...")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a setting of the profile, such as partition, time or per_node; repeatable.",
)
@click.option("--rehearsal", is_flag=True, help="The same on 2 nodes at most, for 15 minutes.")
@click.option("--then-evaluate", is_flag=True, help="Evaluate when the job has ended well.")
@click.option("--dry-run", is_flag=True, help="Show the job script; write and submit nothing.")
def submit(
    notebook: Path,
    profile: str,
    gpus: int,
    assignments: tuple[str, ...],
    files: tuple[Path, ...],
    account: str | None,
    settings: tuple[str, ...],
    rehearsal: bool,
    then_evaluate: bool,
    dry_run: bool,
) -> None:
    """Submit NOTEBOOK as a job of SLURM.

    Parameters, settings and the job script are checked (by `sbatch --test-only` too, where there is
    one) before anything is written; what is not right ends with exit code 2. Code, parameters and
    profile are copied into the run folder, and the job runs the copies. On 128, 400 and 800 GPUs a
    training on fields gets the batch of that scale, unless -p gives another.
    """
    from aqnet.jobs import submit as jobs
    from aqnet.jobs.profiles import parse_settings
    from aqnet.jobs.submission import describe, prepare

    given = parse_settings(settings, account)
    with need_lab("notebooks cannot be compiled"):
        ready = prepare(
            notebook, profile, gpus, assignments, files, given, rehearsal, then_evaluate
        )
    click.echo(describe(ready))
    for each in filter(None, (ready, ready.then)):
        click.echo(f"\n---- {each.job.run / jobs.JOB_FILE}\n{each.text}----")
    answer = jobs.dry_submit(ready)
    click.echo(answer or "sbatch --test-only: not asked, there is no sbatch here")
    if dry_run:
        click.echo("dry run: nothing was written or submitted")
        return
    numbers = jobs.submit(ready)
    click.echo(f"submitted: job {', then '.join(numbers)}")
    click.echo(f"run folder: {ready.job.run}")
    click.echo(f"output: {ready.job.run / 'logs'}")
    if ready.plan is not None:
        click.echo(f"tensorboard --logdir {ready.job.run / 'checkpoints' / 'tensorboard'}")
