"""`aqnet checkpoint import`: weights of the published model become a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["import_published"]


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Checkpoint to write; without it, only the report is printed.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "published", "earlier"]),
    default="auto",
    show_default=True,
    help="Names in the file: of the published code, or of 2025.",
)
@click.option(
    "--allow-missing",
    metavar="NAME",
    multiple=True,
    help="Tensor that FILE may lack; what it belongs to starts anew. Repeatable.",
)
@click.option(
    "--allow-unused",
    metavar="NAME",
    multiple=True,
    help="Tensor of FILE to leave aside. Repeatable.",
)
def import_published(
    path: Path,
    output: Path | None,
    layout: str,
    allow_missing: tuple[str, ...],
    allow_unused: tuple[str, ...],
) -> None:
    """Read FILE, a state dict of the published TopoFlow model or a Lightning checkpoint of it.

    Every tensor must be known and every one that the network needs must be there. No code in the
    file is run. Forecasts equal those of the published model with its wind scan off.
    """
    from aqnet.training.published_checkpoint import describe_import, import_file, save_imported

    imported = import_file(path, layout, allow_missing, allow_unused)
    click.echo(describe_import(imported))
    if output is not None:
        sha256 = save_imported(imported, path, output)
        click.echo(f"written: {output}, SHA-256 of its content {sha256}")
