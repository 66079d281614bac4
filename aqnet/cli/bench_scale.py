"""`aqnet bench scale`: steps and starts of a few processes beside what is predicted for them."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["scale"]


@click.command()
@click.option("--record", type=click.Path(path_type=Path), help="Also write it to this JSON file.")
def scale(record: Path | None) -> None:
    """Measured against predicted: the training engine with 1, 2 and 4 processes on this machine.

    The prediction knows one process, and sums of plain vectors over two. Takes one to two minutes;
    more processes than cores share them.
    """
    from aqnet.jobs.bench_scale import measure, predictions

    found = measure()
    click.echo(f"{found.machine}, {found.cores} cores")
    heads = ("s a step", "predicted", "error", "s to update", "predicted", "error", "files", "own")
    widths = (11, 11, 8, 13, 11, 8, 7, 6)
    named = "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    click.echo(f"{'processes':>9}{named}")
    for group, predicted in zip(found.groups, predictions(found).values(), strict=True):
        step, start = group.step_s, group.first_update_s
        click.echo(
            f"{group.ranks:>9}{step:>11.3f}{predicted.step_s:>11.3f}"
            f"{predicted.step_s / step - 1:>+8.0%}{start:>13.1f}{predicted.first_update_s:>11.1f}"
            f"{predicted.first_update_s / start - 1:>+8.0%}{group.files:>7}{group.own_files:>6}"
        )
    click.echo("one process: what the prediction is made from; files: opened by Python before the "
               "first update,\nown: of them outside of the environment")  # fmt: skip
    if record is not None:
        found.write(record)
