"""`aqnet watch`."""

from __future__ import annotations

import time
from datetime import datetime

import click

__all__ = ["watch"]


@click.command()
@click.argument("run_or_job")
@click.option("--once", is_flag=True, help="Show it once; else until the run has ended.")
@click.option("--interval", type=click.FloatRange(1), default=30.0, show_default=True,
              metavar="S", help="Seconds between looks.")  # fmt: skip
def watch(run_or_job: str, once: bool, interval: float) -> None:
    """Show how a run is getting on: RUN_OR_JOB is a run folder, its name, or a job's number.

    Progress, speed, losses, ranks that are slow or silent, and the last error, from the run folder
    and, where there is one, SLURM.
    """
    from aqnet.jobs.watch import find_watched, report

    run = find_watched(run_or_job)
    while True:
        text, ended = report(run)
        click.echo(text)
        if once or ended:
            return
        time.sleep(interval)
        click.echo(f"\n{datetime.now():%Y-%m-%d %H:%M:%S}")
