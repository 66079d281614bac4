"""`aqnet run` and `aqnet params`."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import echo, need_lab
from aqnet.cli.options import assignments_option, files_option

__all__ = ["params", "run"]


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@assignments_option
@files_option
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of all runs (default: $AQNET_RUNS, or runs/ in the repository).",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="The run folder itself: a free place, or the folder of this very run, to start it again.",
)
def run(
    notebook: Path,
    assignments: tuple[str, ...],
    files: tuple[Path, ...],
    root: Path | None,
    run_dir: Path | None,
) -> None:
    """Run NOTEBOOK with typed parameters in a run folder, a new one by default.

    Defaults of the notebook < files < -p. Unknown names, wrong types and values out of range
    end with exit code 2 before anything starts.
    """
    with need_lab("notebooks cannot be run"):
        from aqnet.jobs.execute import run_notebook

    folder = run_notebook(notebook, assignments, files, root, echo=echo, folder=run_dir)
    click.echo(f"complete: {folder.path}")
    if folder.report_path.exists():
        click.echo(f"report:   {folder.report_path}")


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
def params(notebook: Path) -> None:
    """Show the parameters of NOTEBOOK: name, type, unit, range, default, help."""
    from aqnet.jobs.parameter_cell import parse_parameters
    from aqnet.jobs.parameter_types import render

    for parameter in parse_parameters(notebook):
        click.echo(f"{parameter.name} = {render(parameter.default)}")
        click.echo(f"    {parameter.describe()}")
        if parameter.help:
            click.echo(f"    {parameter.help}")
