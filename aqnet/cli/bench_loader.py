"""`aqnet bench loader`: how fast samples come out of yearly stores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c

__all__ = ["loader"]

_HOURS = 240  # of the made-up store: 10 days, about 130 MB


def _leads(context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as problem:
        raise click.BadParameter("whole hours with commas between, e.g. 12,24,48") from problem


def _years(name: str | None, stores: tuple[Path, ...], folder: str):
    from aqnet.data.made_up import write_made_up_year
    from aqnet.data.manifest import load_grid_manifest
    from aqnet.data.years.reader import open_year
    from aqnet.data.years.year_set import YearSet, open_years

    if stores:
        return YearSet([open_year(path) for path in stores])
    if name is None:
        click.echo(f"no store named: writing {_HOURS} made-up hours into a temporary folder")
        path = write_made_up_year(Path(folder) / "made_up.zarr", "2013-01-01T00", _HOURS)
        return YearSet([open_year(path)])
    manifest = load_grid_manifest(name)
    return open_years(manifest, recorded=False)


@click.command("loader")
@click.argument("name", required=False)
@click.option(
    "--store", "stores", multiple=True, type=click.Path(path_type=Path),
    help="Path of a yearly store instead of NAME; may be repeated.",
)  # fmt: skip
@click.option("--batch-size", default=4, show_default=True, type=click.IntRange(min=1),
              help="Samples of a batch.")  # fmt: skip
@click.option("--samples", default=128, show_default=True, type=click.IntRange(min=1),
              help="Samples of a pass (rounded down to an even number of batches).")  # fmt: skip
@click.option("--leads", default="12,24,48,96", show_default=True, callback=_leads,
              help="Lead times, hours.")  # fmt: skip
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1),
              help="Rounds over all readers, after one that is not counted.")  # fmt: skip
def loader(
    name: str | None,
    stores: tuple[Path, ...],
    batch_size: int,
    samples: int,
    leads: tuple[int, ...],
    rounds: int,
) -> None:
    """Samples a second from the stores of manifest NAME, beside raw chunk reads.

    Without NAME and --store a made-up store at full size is written into a temporary folder.
    """
    from aqnet.data.bench_loader import bench_loader, report

    if name and stores:
        raise click.UsageError("give NAME or --store, not both")
    with sigterm_like_ctrl_c(), tempfile.TemporaryDirectory(prefix="aqnet-bench-") as folder:
        years = _years(name, stores, folder)
        progress = Progress()
        bench = bench_loader(years, batch_size, samples, leads, rounds, progress=progress)
        click.echo("\n".join(report(bench)))
