"""Command line of aqnet."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import aqnet
from aqnet.errors import AqnetError, InterruptedRunError, explain


class _Group(click.Group):
    """Prints an AqnetError as a message, and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AqnetError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            if ctx.params.get("debug"):
                raise
            click.echo("stopped by Ctrl-C or SIGTERM; run the command again to repeat it", err=True)
            ctx.exit(InterruptedRunError.exit_code)


@click.group(cls=_Group)
@click.version_option(aqnet.__version__, prog_name="aqnet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Air-quality forecasting: data, runs of notebooks, reports."""


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option(
    "-p", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable."
)
@click.option(
    "-f",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="YAML file of parameters; repeatable, later files override earlier ones.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of all runs (default: $AQNET_RUNS, or runs/ in the repository).",
)
def run(
    notebook: Path, assignments: tuple[str, ...], files: tuple[Path, ...], root: Path | None
) -> None:
    """Run NOTEBOOK with typed parameters in a new run folder.

    Defaults of the notebook < files < -p. Unknown names, wrong types and values out of range
    end with exit code 2 before anything starts.
    """
    try:
        from aqnet.jobs.execute import run_notebook
    except ModuleNotFoundError as error:
        message = explain(
            "notebooks cannot be run in this environment",
            expected="the packages of the extra `lab` (papermill, ipykernel, ...)",
            found=f"no package {error.name}",
            remedy="pip install -c constraints.txt -e '.[lab]'",
        )
        raise AqnetError(message) from error

    folder = run_notebook(notebook, assignments, files, root, echo=_echo)
    click.echo(f"complete: {folder.path}")
    if folder.report_path.exists():
        click.echo(f"report:   {folder.report_path}")


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
def params(notebook: Path) -> None:
    """Show the parameters of NOTEBOOK: name, type, unit, range, default, help."""
    from aqnet.jobs.parameters import parse_parameters, render

    for parameter in parse_parameters(notebook):
        click.echo(f"{parameter.name} = {render(parameter.default)}")
        click.echo(f"    {parameter.describe()}")
        if parameter.help:
            click.echo(f"    {parameter.help}")


@main.group()
def data() -> None:
    """Build and check data stores."""


@data.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Store to write (default: data/beijing.zarr)."
)
@click.option("--force", is_flag=True, help="Replace an existing store.")
def beijing(out: Path | None, force: bool) -> None:
    """Build the hourly analysis of the Beijing stations as a Zarr store."""
    from aqnet.data.beijing import build_store
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.io import data_root

    manifest = load_manifest(resolve_manifest("beijing"))
    target = out or data_root() / "beijing.zarr"
    with _sigterm_like_ctrl_c():
        store = build_store(manifest, target, force=force, progress=_Progress())
    click.echo(f"store: {store}")


@data.command()
@click.argument("name_or_path")
@click.option(
    "--store", type=click.Path(path_type=Path), help="Store to check (default: data/NAME.zarr)."
)
def check(name_or_path: str, store: Path | None) -> None:
    """Check the files of manifest NAME_OR_PATH, and the store built from them, by digest."""
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.data.store import verify_store
    from aqnet.io import data_root

    manifest = load_manifest(resolve_manifest(name_or_path))
    manifest.verify()
    click.echo(f"files of {manifest.name}: as the manifest says")
    target = store or data_root() / f"{manifest.name}.zarr"
    if store is None and not target.exists():
        click.echo(f"store: none at {target} (aqnet data {manifest.name} builds it)")
        return
    verify_store(target)
    click.echo(f"store {target}: as it was written")


def _echo(text: str) -> None:
    click.echo(text, nl=False)
    sys.stdout.flush()


class _Progress:
    """Progress of a long step: one rewritten line on a terminal, a line each tenth in a log."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None
        self._width = 0

    def __call__(self, step: str, fraction: float) -> None:
        line = f"{fraction:4.0%}  {step}"
        if sys.stdout.isatty():
            click.echo(f"\r{line:<{self._width}}", nl=fraction >= 1)
            self._width = len(line)
        elif self._last != (step, int(fraction * 10)):
            click.echo(line)
        self._last = (step, int(fraction * 10))


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM leave `with` and `finally` blocks, so that half-built folders go away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
