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
    "--grid", "grid_name", type=click.Choice(sorted(GRIDS)), default="china", show_default=True,
    help="Name of the grid.",
)  # fmt: skip
@click.option("--patch-size", default=2, show_default=True, help="Cells along a side of a patch.")
@click.option(
    "--regions", default=(32, 32), show_default=True, nargs=2, type=int,
    help="Bands of patch rows and of patch columns.",
)  # fmt: skip
@click.option("--sectors", default=16, show_default=True, help="Wind directions.")
@click.option("--lane-patches", default=3, show_default=True, help="Width of a lane, patches.")
@click.option(
    "--active", type=click.Choice(["all", "china"]), default="all", show_default=True,
    help="Patches that are tokens: all, or those that touch China.",
)  # fmt: skip
@click.option(
    "--margin", default=0, show_default=True, type=click.IntRange(min=0),
    help="Patches around those of China (the model's active_margin).",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File (default: data/wind_scan/...).")
def build(
    grid_name: str,
    patch_size: int,
    regions: tuple[int, int],
    sectors: int,
    lane_patches: int,
    active: str,
    margin: int,
    out: Path | None,
) -> None:
    """Build the orders of a grid; an existing file is replaced at once or not at all."""
    import numpy as np
    from scipy.ndimage import binary_dilation

    from aqnet.data.geography import china_static
    from aqnet.model.scan_cache import save_scan, scan_path
    from aqnet.model.scan_orders import build_orders, scan_spec

    grid = GRIDS[grid_name]
    chosen = None
    if active == "china":
        chosen = grid.active_patches(china_static(grid)["mask"].values, patch_size)
        if margin:
            chosen = binary_dilation(chosen, np.ones((3, 3), bool), margin)
    spec = scan_spec(grid, patch_size, regions, sectors, lane_patches, chosen)
    path = out or scan_path(spec)
    digest = save_scan(path, build_orders(spec))
    click.echo(f"{path}: {path.stat().st_size / 1e6:.3f} MB, content {digest}")


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
