"""`aqnet bench redraw`: how fast the pictures of nbs/explore follow their controls."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

__all__ = ["redraw"]


@click.command()
@click.argument("manifest", default="beijing")
@click.option("--folder", type=click.Path(path_type=Path),
              help="The store (stations), or the folder of the yearly stores.")  # fmt: skip
@click.option("--run", "run_", metavar="RUN",
              help="Run or forecast store for forecasts, footprints; default a rule.")  # fmt: skip
@click.option("--repeats", default=20, show_default=True, type=click.IntRange(min=1),
              help="Redraws of each view, each a jump to another hour.")  # fmt: skip
def redraw(manifest: str, folder: Path | None, run_: str | None, repeats: int) -> None:
    """Seconds from a change of a control of the notebooks in nbs/explore to the new picture.

    The browser adds what it takes to fetch and show the picture, about 0.2 MB.
    """
    from aqnet.explore.bench_redraw import redraw_times
    from aqnet.explore.forecasts import RULES
    from aqnet.explore.world import open_world
    from aqnet.model.bench_machine import describe_machine

    click.echo(describe_machine())
    world, rules = open_world(manifest, folder), list(RULES)
    rows, columns = world.grid.shape
    click.echo(f"{world.manifest.name}, {rows} x {columns} cells, forecasts: {rules[0]} and "
               f"{run_ or rules[1]}")  # fmt: skip
    click.echo(f"{'view':12}{'median [s]':>12}{'slowest [s]':>13}{'of it drawing [s]':>19}")
    for found in redraw_times(world, rules[0], run_ or rules[1], repeats):
        slowest = int(np.argmax(found.seconds))
        click.echo(f"{found.view:12}{np.median(found.seconds):12.3f}{found.seconds.max():13.3f}"
                   f"{found.drawing[slowest]:19.3f}")  # fmt: skip
