"""`aqnet data`: build, describe and check data stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c
from aqnet.cli.ingest import ingest
from aqnet.cli.stats import stats
from aqnet.cli.twin import twin

if TYPE_CHECKING:
    from aqnet.data.manifest import GridManifest, Manifest

__all__ = ["data"]


@click.group()
def data() -> None:
    """Build and check data stores."""


@data.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Store to write (default: data/beijing.zarr)."
)
@click.option("--force", is_flag=True, help="Replace an existing store.")
def beijing(out: Path | None, force: bool) -> None:
    """Build the hourly analysis of the Beijing stations as a Zarr store."""
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.data.stations.beijing import build_store
    from aqnet.io import station_store

    manifest = load_manifest(resolve_manifest("beijing"))
    target = station_store(manifest.name, out)
    with sigterm_like_ctrl_c():
        store = build_store(manifest, target, force=force, progress=Progress())
    click.echo(f"store: {store}")


_STORE = click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Store of stations (default: data/NAME.zarr) or folder of years (default: data/NAME).",
)
_DEEP = click.option("--deep", is_flag=True, help="Read every hour, not only some of each year.")


@data.command()
@click.argument("name_or_path")
@_STORE
@_DEEP
def check(name_or_path: str, store: Path | None, deep: bool) -> None:
    """Compare what manifest NAME_OR_PATH describes with it, by digest: files, stores, years.

    A store of stations is always read as a whole.
    """
    from aqnet.data.manifest import GridManifest, load_manifest, resolve_manifest

    manifest = load_manifest(resolve_manifest(name_or_path))
    if isinstance(manifest, GridManifest):
        _check_years(manifest, store, deep)
    else:
        _check_stations(manifest, store)


def _check_stations(manifest: Manifest, store: Path | None) -> None:
    from aqnet.data.store import verify_store
    from aqnet.io import station_store

    manifest.verify()
    click.echo(f"files of {manifest.name}: as the manifest says")
    target = station_store(manifest.name, store)
    if store is None and not target.exists():
        click.echo(f"store: none at {target} (aqnet data {manifest.name} builds it)")
        return
    verify_store(target)
    click.echo(f"store {target}: as it was written")


def _check_years(manifest: GridManifest, store: Path | None, deep: bool) -> None:
    from aqnet.data.years.records import check_stores, coverage_table
    from aqnet.errors import CoverageError, explain
    from aqnet.io import stores_folder

    folder = stores_folder(manifest.name, store)
    if store is not None and not store.is_dir():
        message = explain(
            f"there is no folder of years of {manifest.name}",
            expected=f"a folder that holds {manifest.store_file(manifest.years[0])}",
            found=f"no folder at {store}",
            remedy="correct --store",
        )
        raise CoverageError(message)
    years = check_stores(manifest, folder, deep=deep, progress=Progress())
    if all(year.store is None for year in years):
        click.echo(f"stores: none in {folder} ({manifest.recipe.command} writes them)")
        return
    click.echo(f"{'SYNTHETIC: ' if manifest.synthetic else ''}{manifest.title}")
    click.echo("hours with all variables, % of each month (local time):")
    click.echo(coverage_table(years))
    record = manifest.record()
    said = f"manifest and {manifest.record_path.name}" if record else "manifest; not recorded"
    extent = "every hour" if deep else "attributes, small arrays and sampled hours"
    click.echo(f"stores in {folder}: as written ({extent}), as in the {said}")


@data.command()
@click.argument("name_or_path")
@_STORE
@_DEEP
@click.option(
    "--statistics", help="File of statistics, in the folder of the years (default: statistics.nc)."
)
def record(name_or_path: str, store: Path | None, deep: bool, statistics: str | None) -> None:
    """Verify the years of manifest NAME_OR_PATH and write their digests to NAME.record.yaml.

    The digest of the statistics (aqnet data stats) is recorded with them, if they are there.
    From then on `aqnet data check` and training refuse other stores.
    """
    from aqnet.data.manifest import load_grid_manifest
    from aqnet.data.years.records import record_stores

    manifest = load_grid_manifest(name_or_path)
    written = record_stores(manifest, store, statistics, deep=deep, progress=Progress())
    for entry in written.stores:
        click.echo(f"{entry.year}  {entry.hours} hours  sha256 {entry.content_sha256}")
    if written.statistics:
        click.echo(f"{written.statistics.file}  sha256 {written.statistics.sha256}")
    click.echo(f"record: {manifest.record_path}")


for command in (ingest, stats, twin):
    data.add_command(command)
