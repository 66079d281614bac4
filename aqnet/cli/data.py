"""`aqnet data`: build, describe and check data stores."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.console import Progress, sigterm_like_ctrl_c

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
    from aqnet.data.beijing import build_store
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.io import data_root

    manifest = load_manifest(resolve_manifest("beijing"))
    target = out or data_root() / "beijing.zarr"
    with sigterm_like_ctrl_c():
        store = build_store(manifest, target, force=force, progress=Progress())
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
