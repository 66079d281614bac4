"""`aqnet compile`."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import need_lab

__all__ = ["compile_command"]


@click.command("compile")
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The script (default: beside the notebook, with ending .py).",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; end with code 1 if the script is stale."
)
def compile_command(notebook: Path, output: Path | None, check: bool) -> None:
    """Compile NOTEBOOK to a script with its own command line.

    The script runs the same cells with the same parameters, without Jupyter: `python SCRIPT
    --help`. Cells tagged `notebook_only` are left out; a magic or shell command is an error.
    """
    with need_lab("notebooks cannot be compiled"):
        from aqnet.jobs.compile import check_script, write_script

    output = output or notebook.with_suffix(".py")
    if check:
        check_script(notebook, output)
        click.echo(f"{output} is what {notebook} compiles to")
        return
    write_script(notebook, output)
    click.echo(f"written: {output}")
