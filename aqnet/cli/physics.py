"""`aqnet physics` checks a forecast store: values that no air has, mass against advection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress, command_line
from aqnet.cli.options import folder_option, recorded_option
from aqnet.cli.truth import grid_manifest, open_truth
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    import numpy as np

    from aqnet.data.years.year_set import YearSet

__all__ = ["OUT", "numbers_of", "physics"]

_PATH = click.Path(path_type=Path)
OUT = {"type": _PATH, "required": True, "metavar": "FOLDER"}


@click.command()
@click.argument("store", type=_PATH)
@click.option("--out", **OUT, help="Is made: results.json and pictures.")
@click.option("--budget/--no-budget", default=True, help="Mass budget, and the truth beside.")
@click.option("--manifest", help="Of the truth; default that of the store's data.")
@folder_option
@recorded_option
@click.option("--box", "boxes", multiple=True, metavar="NAME=S,W,N,E",
              help="Region of the budget beside those of China [degrees]; repeatable.")  # fmt: skip
@click.option("--pollutants", metavar="NAMES", help="Of the budget: pm25,o3; default all.")
@click.option("--inits", type=click.IntRange(min=1), default=120, show_default=True,
              help="Init times of the budget, evenly chosen.")  # fmt: skip
def physics(
    store: Path,
    out: Path,
    budget: bool,
    manifest: str | None,
    folder: Path | None,
    recorded: bool,
    boxes: tuple[str, ...],
    pollutants: str | None,
    inits: int,
) -> None:
    """Check a forecast store: values below zero, PM2.5 above PM10, mass against advection.

    \b
    aqnet physics forecast.zarr --out physics
    aqnet physics forecast.zarr --out physics --box "hebei=36,114,41,119" --inits 200
    """
    from aqnet.verification.physics.check_results import write_checks
    from aqnet.verification.provenance import score_record, truth_record
    from aqnet.verification.store.reader import open_forecast_store

    opened = open_forecast_store(store)
    years, truth, members = None, {}, {}
    if budget:
        name = manifest or opened.attributes["data"].get("manifest")
        described = grid_manifest(name, "a mass budget needs winds", "check values: --no-budget")
        years = open_truth(described, folder, [opened], recorded)
        truth, members = truth_record(described, years), _members(years, boxes)
    record = score_record(command_line(), [opened], truth)
    names = pollutants and pollutants.split(",")
    found = write_checks(out, opened, years, members, record, inits=inits, pollutants=names,
                         progress=Progress())  # fmt: skip
    for row in found["values"]:
        if row["violations"]:
            click.echo("{of} {lead_h} h: {check} {pollutant} {share:.2%}, worst {worst_ug_m3:.3g} "
                       "ug/m3".format(**row))  # fmt: skip
    click.echo(f"{out}: {sum(r['violations'] for r in found['values'] if r['of'] == 'forecast')} "
               f"violations in {sum(r['values'] for r in found['values'] if r['of'] == 'forecast')}"
               f" values, {len(found['pictures'])} pictures")  # fmt: skip


def _members(years: YearSet, boxes: tuple[str, ...]) -> dict[str, np.ndarray]:
    from aqnet.variables import STATIC
    from aqnet.verification.regions import region_masks

    members = region_masks(years.grid, years.static[STATIC.index("elevation")])
    lat, lon = years.grid.mesh()
    for text in boxes:
        name, _, numbers = text.partition("=")
        south, west, north, east = numbers_of(numbers, 4, "--box", "hebei=36,114,41,119")
        members[name] = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
        if not (members[name] & years.mask).any():
            raise ParameterError(
                explain(f"the box {name} has no cell of the domain", found=text,
                        expected=f"within {lat.min():.1f} to {lat.max():.1f} N, {lon.min():.1f} "
                        f"to {lon.max():.1f} E: south, west, north, east", remedy="correct --box")
            )  # fmt: skip
    return members


def numbers_of(text: str, count: int, option: str, example: str) -> list[float]:
    """`count` numbers from text such as `example`; ParameterError for other text."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise ParameterError(
            explain(f"{option} cannot be read", expected=f"{count} numbers: {example}", found=text,
                    remedy=f"correct {option}")
        )  # fmt: skip
    return found
