"""`aqnet wind-scan`: build, look at and verify the cached scan orders."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.grid import GRIDS

__all__ = ["wind_scan"]


@click.group("wind-scan")
def wind_scan() -> None:
    """Orders of patches along the wind, in one file that all processes read."""


@wind_scan.command()
@click.option(
    "--grid", "grid_name", type=click.Choice(sorted(GRIDS)),
    help="Name of the grid (default: china; with --manifest that of its stores).",
)  # fmt: skip
@click.option("--manifest", help="Of fields: grid and patches of its stores, as training has them.")
@click.option("--folder", type=click.Path(path_type=Path),
              help="With --manifest: of the stores (default: data/MANIFEST).")  # fmt: skip
@click.option("--patch-size", default=2, show_default=True, help="Cells along a side of a patch.")
@click.option(
    "--regions", default=(32, 32), show_default=True, nargs=2, type=int,
    help="Bands of patch rows and of patch columns.",
)  # fmt: skip
@click.option("--sectors", default=16, show_default=True, help="Wind directions.")
@click.option("--lane-patches", default=3, show_default=True, help="Width of a lane, patches.")
@click.option(
    "--active", type=click.Choice(["all", "china", "stores"]),
    help="Patches that are tokens: all (the default without --manifest), those that touch China, "
    "or those with data in the stores of --manifest (the default with it).",
)  # fmt: skip
@click.option(
    "--margin", default=0, show_default=True, type=click.IntRange(min=0),
    help="Patches around those with data (the model's active_margin).",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File (default: data/wind_scan/...).")
def build(
    grid_name: str | None,
    manifest: str | None,
    folder: Path | None,
    patch_size: int,
    regions: tuple[int, int],
    sectors: int,
    lane_patches: int,
    active: str | None,
    margin: int,
    out: Path | None,
) -> None:
    """Build the orders of a grid; an existing file is replaced at once or not at all."""
    from aqnet.model.scan_cache import save_scan, scan_path, with_margin
    from aqnet.model.scan_orders import build_orders, scan_spec

    grid, mask = _place(grid_name, manifest, folder, active)
    chosen = None
    if mask is not None:
        chosen = with_margin(grid.active_patches(mask, patch_size), margin)
    spec = scan_spec(grid, patch_size, regions, sectors, lane_patches, chosen)
    path = out or scan_path(spec)
    digest = save_scan(path, build_orders(spec))
    click.echo(f"{path}: {path.stat().st_size / 1e6:.3f} MB, content {digest}")


def _place(grid_name: str | None, manifest: str | None, folder: Path | None, active: str | None):
    """Grid, and its cells with data (H, W) bool; None where every patch is a token."""
    if manifest is None:
        if folder is not None or active == "stores":
            raise click.UsageError("--folder and --active stores need --manifest")
        grid, mask = GRIDS[grid_name or "china"], None
    else:
        if grid_name is not None:
            raise click.UsageError("--grid or --manifest, not both: stores have a grid")
        grid, mask = _of_stores(manifest, folder)
    if active == "china":
        from aqnet.data.geography import china_static

        return grid, china_static(grid)["mask"].values
    return grid, None if active == "all" else mask


def _of_stores(manifest: str, folder: Path | None):
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.data.years.year_set import open_years

    years = open_years(load_manifest(resolve_manifest(manifest)), folder)
    return years.grid, years.mask


@wind_scan.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Show what the orders in PATH were built for."""
    from aqnet.model.scan_cache import header_of, read_scan

    orders = read_scan(path)
    for name, value in header_of(orders.spec).items():
        if name != "active":
            click.echo(f"{name:>14}: {value}")
    sizes = orders.region_size[orders.region_size > 0]
    click.echo(f"{'in a region':>14}: {sizes.min()} to {sizes.max()} tokens, {sizes.size} regions")


@wind_scan.command()
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path) -> None:
    """Build the orders in PATH again and compare every number."""
    from aqnet.model.scan_cache import verify_scan

    orders = verify_scan(path)
    click.echo(f"{path}: all orders of {orders.region.size} tokens are as they are built now")
