"""`aqnet checkpoint`: look at checkpoints, compare them, and import the published one."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.checkpoint_import import import_published

__all__ = ["checkpoint"]

_FILE = click.Path(path_type=Path)


@click.group()
def checkpoint() -> None:
    """Trained forecasters: what a file holds, and how two of them differ."""


@checkpoint.command()
@click.argument("path", metavar="FILE", type=_FILE)
def inspect(path: Path) -> None:
    """Configuration, data, code, weights by group; every byte of the file is checked."""
    from aqnet.training.checkpoint_report import describe_checkpoint

    click.echo(describe_checkpoint(path))


@checkpoint.command()
@click.argument("first", metavar="A", type=_FILE)
@click.argument("second", metavar="B", type=_FILE)
def diff(first: Path, second: Path) -> None:
    """Differences in configuration, data, code and, by group, in the weights.

    The change of a group is the norm of B - A divided by the norm of A.
    """
    from aqnet.training.checkpoint_report import compare_checkpoints

    click.echo(compare_checkpoints(first, second))


checkpoint.add_command(import_published)
