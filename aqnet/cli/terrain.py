"""`aqnet terrain`: build, look at and verify the factors of the ridge barrier."""

from __future__ import annotations

from pathlib import Path

import click

from aqnet.cli.options import with_options
from aqnet.grid import GRIDS

__all__ = ["terrain"]

_factors_options = with_options(
    click.option(
        "--grid", "grid_name", type=click.Choice(sorted(GRIDS)), default="china",
        show_default=True, help="Name of the grid.",
    ),
    click.option("--manifest", help="Of fields: the terrain of its stores, as for a twin with "
                 "rearranged mountains; needs --file."),
    click.option("--folder", type=click.Path(path_type=Path),
                 help="With --manifest: of the stores (default: data/MANIFEST)."),
    click.option("--patch-size", default=2, show_default=True, type=click.IntRange(min=1),
                 help="Cells along a side of a patch."),
    click.option("--rank", default=14, show_default=True, type=click.IntRange(min=1),
                 help="Numbers a patch on each side."),
    click.option("--near-power", default=2.0, show_default=True, type=click.FloatRange(min=0),
                 help="p of the weight (1 + distance in patches) ** -p of a pair."),
    click.option("--sweeps", default=4, show_default=True, type=click.IntRange(min=1),
                 help="Of alternating least squares."),
    click.option("--file", "path", type=click.Path(path_type=Path),
                 help="File (default: data/terrain/GRID-pPATCH-rRANK.safetensors)."),
)  # fmt: skip


def _years(manifest: str, folder: Path | None):
    from aqnet.data.manifest import load_manifest, resolve_manifest
    from aqnet.data.years.year_set import open_years

    return open_years(load_manifest(resolve_manifest(manifest)), folder)


def _elevation(years):
    from aqnet.variables import STATIC

    return years.static[STATIC.index("elevation")]


def _spec(
    grid_name: str, manifest: str | None, folder: Path | None, patch_size: int, rank: int,
    near_power: float, sweeps: int,
):  # fmt: skip
    from aqnet.model.ridge import ridge_spec

    if manifest is None:
        return ridge_spec(GRIDS[grid_name], patch_size, rank, near_power, sweeps)
    years = _years(manifest, folder)
    return ridge_spec(years.grid, patch_size, rank, near_power, sweeps, _elevation(years))


def _show(path: Path, factors) -> None:
    click.echo(f"{path}: {path.stat().st_size / 1e6:.3f} MB, {len(factors.left)} patches")
    for name, value in factors.header.items():
        click.echo(f"  {name:18}{value}")
    e = factors.errors
    click.echo("errors              relative     rms [m]  largest [m]")
    for name, prefix in (("all pairs", ""), ("within 4 patches", "near_")):
        numbers = (e[f"{prefix}{n}"] for n in ("relative", "rms_m", "largest_m"))
        click.echo("{:18}{:10.3f}{:12.1f}{:13.1f}".format(name, *numbers))


@click.group()
def terrain() -> None:
    """Ridges between patches, in few numbers a patch, in one file that all processes read."""


@terrain.command()
@_factors_options
def build(path: Path | None, **options) -> None:
    """Compute the factors of a grid; an existing file is replaced at once or not at all."""
    import time

    from aqnet.model.ridge import ridge_path, save_ridge

    if options["manifest"] and path is None:
        raise click.UsageError("--manifest needs --file: the usual place is for the real terrain")
    spec = _spec(**options)
    path, start = path or ridge_path(spec), time.perf_counter()
    factors = save_ridge(path, spec)
    _show(path, factors)
    click.echo(f"built in {time.perf_counter() - start:.0f} s")


@terrain.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """What a file was computed from, and its errors; every byte is checked."""
    from aqnet.model.ridge import load_ridge

    _show(path, load_ridge(path))


@terrain.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--manifest", help="Of fields: with the terrain of its stores, not the real one.")
@click.option("--folder", type=click.Path(path_type=Path),
              help="With --manifest: of the stores (default: data/MANIFEST).")  # fmt: skip
def verify(path: Path, manifest: str | None, folder: Path | None) -> None:
    """Compute the ridges of a file again and compare its factors with them."""
    from aqnet.model.ridge import verify_ridge

    terrain = _elevation(_years(manifest, folder)) if manifest else None
    _show(path, verify_ridge(path, terrain))
    click.echo("the factors are those of the terrain")
