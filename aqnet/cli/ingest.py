"""`aqnet data ingest`: hourly source files to a yearly store."""

from __future__ import annotations

import os
from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c

__all__ = ["ingest"]


@click.command()
@click.argument("manifest")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the hourly files or of archives (zip, tar, tar.gz) that hold them.",
)
@click.option("--year", type=int, required=True, help="Year of the labels, local time.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the store (default: data/MANIFEST)."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all cores",
    help="Processes.",
)
@click.option(
    "--damaged",
    type=click.Choice(["stop", "missing"]),
    default="stop",
    show_default=True,
    help="A file that cannot be used: stop, or record its hour as missing.",
)
@click.option("--force", is_flag=True, help="Write the store anew.")
def ingest(
    manifest: str,
    source: Path,
    year: int,
    out: Path | None,
    workers: int,
    damaged: str,
    force: bool,
) -> None:
    """Write the store of one year from the hourly files of a source.

    MANIFEST is a name in data_manifests or the path of a manifest. Run again, an unfinished
    store is continued; of a finished one, the files are compared with what it was made from.
    """
    from aqnet.data.manifest import load_grid_manifest
    from aqnet.data.source.ingest import ingest_year
    from aqnet.data.years.reader import open_year

    recipe = load_grid_manifest(manifest)
    with sigterm_like_ctrl_c():
        path = ingest_year(
            recipe,
            source,
            year,
            out,
            workers=workers,
            damaged=damaged,
            force=force,
            progress=Progress(),
        )
    store = open_year(path)
    lacking = int((~store.valid.all(axis=1)).sum())
    click.echo(f"store: {path}")
    click.echo(f"hours: {len(store.times)}, of which {lacking} lack all or some variables")
    click.echo(f"sha256: {store.digest}")
