"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

__all__ = [
    "account_option",
    "assignments_option",
    "device_option",
    "files_option",
    "folder_option",
    "question_options",
    "recorded_option",
    "settings_option",
    "with_options",
]

# ---- of commands that run a notebook

assignments_option = click.option(
    "-p", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable."
)
files_option = click.option(
    "-f",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="YAML file of parameters; repeatable, later files override earlier ones.",
)
account_option = click.option("--account", help="Project to bill; the same as --set account=...")
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a setting of the profile, such as partition or time; repeatable.",
)

# ---- of commands that read yearly stores

folder_option = click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder of the yearly stores."
)
recorded_option = click.option(
    "--recorded/--unrecorded",
    default=True,
    help="Compare the truth with the record of its manifest, or not.",
)

# ---- of commands that ask a checkpoint

device_option = click.option(
    "--device", default="cpu", show_default=True, help="Of torch: cpu, cuda."
)


def question_options(last: str) -> Callable:
    """The data and the period that a forecaster is asked about.

    Parameters
    ----------
    last : str
        Which time `--to` is the last of.
    """
    return with_options(
        click.option(
            "--manifest", help="Name or file; default that of the checkpoint's training."
        ),
        folder_option,
        click.option(
            "--store",
            type=click.Path(path_type=Path),
            help="Analysis of the stations (forecasters for stations).",
        ),
        click.option(
            "--split",
            type=click.Choice(["train", "validation", "test"]),
            help="Init times of this split of the manifest.",
        ),
        click.option(
            "--from", "first", metavar="UTC", help="First init time: 2018-01-01T00."
        ),
        click.option("--to", "last", metavar="UTC", help=f"Last {last} time, inclusive."),
    )


def with_options(*options: Callable) -> Callable:
    """Decorator that gives a command these arguments and options, in this order."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add
