"""`aqnet preflight`."""

from __future__ import annotations

import click

from aqnet.cli.console import need_lab
from aqnet.cli.job import check_first, job_options

__all__ = ["preflight"]


@click.command()
@job_options
@click.option(
    "--samples",
    type=click.IntRange(10),
    default=100,
    show_default=True,
    help="Samples to read, to see how fast they come.",
)
def preflight(samples: int, **options: object) -> None:
    """Check a job of NOTEBOOK before it waits in a queue; submits nothing.

    Parameters, data, statistics, caches, a checkpoint to resume from, memory, the speed of the
    loader, time, GPU-hours, room, the container image; with sbatch also when the job may start. A
    hopeless job ends with exit code 2 and the reason. Run it where the job's files are: on a
    login node of the cluster.
    """
    from aqnet.jobs.submission import describe, prepare

    with need_lab("notebooks cannot be compiled"):
        ready = prepare(**options)
    click.echo(describe(ready))
    check_first(ready, samples, queue=True)
