"""What the commands that describe a job share: its options, and its checks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.options import (
    account_option,
    assignments_option,
    files_option,
    settings_option,
    with_options,
)

if TYPE_CHECKING:
    from aqnet.jobs.submission import Submission

__all__ = ["check_first", "job_options"]

_OPTIONS = (
    click.argument("notebook", type=click.Path(path_type=Path)),
    click.option("--profile", required=True, metavar="NAME|FILE",
                 help="Profile in slurm/, or a file."),
    click.option("--gpus", required=True, type=click.IntRange(1),
                 help="Processes, one for each GPU (LUMI: GCD)."),
    assignments_option,
    files_option,
    account_option,
    settings_option,
    click.option("--rehearsal", is_flag=True, help="The same on 2 nodes at most, 15 minutes."),
    click.option("--then-evaluate", is_flag=True, help="Evaluate when the job has ended well."),
)  # fmt: skip


def job_options(command: Callable) -> Callable:
    """The options that describe a job: those of `prepare`, which the command gets by name."""

    @functools.wraps(command)
    def with_settings(account: str | None, settings: tuple[str, ...], **others: object) -> object:
        from aqnet.jobs.profiles import parse_settings

        return command(settings=parse_settings(settings, account), **others)

    return with_options(*_OPTIONS)(with_settings)


def check_first(submission: Submission, samples: int = 100, queue: bool = False) -> None:
    """Print the checks of a job; ParameterError if one of them refuses it."""
    from aqnet.jobs import preflight as checks

    found = []
    for check in checks.preflight(submission, samples):
        click.echo(str(check))
        found.append(check)
    if queue:
        found.append(checks.check_queue(submission))
        click.echo(str(found[-1]))
    checks.refuse_hopeless(found)
