"""`aqnet data stats`: statistics of the training split of a gridded data set."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c

__all__ = ["stats"]


@click.command()
@click.argument("name_or_path", metavar="NAME")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write (default: FOLDER/statistics.nc)."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder of the stores (default: data/NAME)."
)
@click.option(
    "--annual", type=click.IntRange(0), default=3, show_default=True, help="Harmonics of the year."
)
@click.option(
    "--diurnal", type=click.IntRange(0), default=3, show_default=True, help="Harmonics of the day."
)
@click.option("--anomalies", is_flag=True, help="Lead-time correlations of anomalies too.")
@click.option(
    "--memory-gb",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="Held at once for the quantiles of cells, by all processes together [GB].",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of a scratch file of that size (default: TMPDIR).",
)
def stats(
    name_or_path: str,
    out: Path | None,
    workers: int,
    folder: Path | None,
    annual: int,
    diurnal: int,
    anomalies: bool,
    memory_gb: float,
    scratch: Path | None,
) -> None:
    """Compute the statistics of the training years of manifest NAME, and write them to a file.

    Mean, spread, quantiles, harmonic climatology and lead-time correlations of each cell, of
    valid hours of the training split alone. The same stores give the same file whatever the
    number of processes.
    """
    from aqnet.data.manifest import load_grid_manifest
    from aqnet.data.statistics.compute import Settings, statistics_of_manifest, write_statistics
    from aqnet.io import stores_folder

    manifest = load_grid_manifest(name_or_path)
    folder = stores_folder(manifest.name, folder)
    settings = Settings(
        annual=annual,
        diurnal=diurnal,
        anomalies=anomalies,
        workers=workers,
        memory_bytes=round(memory_gb * 1e9),
        scratch=scratch,
    )
    with sigterm_like_ctrl_c():
        found = statistics_of_manifest(manifest, folder, settings, Progress())
        path = out or folder / "statistics.nc"
        digest = write_statistics(found, path)
    click.echo(f"statistics: {path}")
    click.echo(f"content_sha256: {digest}")
