"""`aqnet score` scores forecast stores, `aqnet scoreboard` prints tables of what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.data.climatology import HarmonicClimatology
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.years import YearSet
    from aqnet.verification.forecast_reader import ForecastStore

__all__ = ["score", "scoreboard"]

_PATH = click.Path(path_type=Path)
_AXES = ("lead_h", "season", "hour", "pollutant", "group", "sun")


@click.command()
@click.argument("stores", type=_PATH, nargs=-1, required=True, metavar="STORE...")
@click.option("--manifest", required=True, help="Of the truth: name or file.")
@click.option("--folder", type=_PATH, help="Folder of the yearly stores.")
@click.option("--out", type=_PATH, required=True, metavar="FILE", help="Scoreboard, NAME.npz.")
@click.option("--baseline", "baselines", multiple=True, default=("persistence",),
              type=click.Choice(["persistence", "climatology"]), show_default=True)  # fmt: skip
@click.option("--climatology/--no-climatology", default=False,
              help="Anomaly correlations, by recorded statistics of the manifest.")  # fmt: skip
@click.option("--recorded/--unrecorded", default=True,
              help="Compare the truth with the record of its manifest, or not.")  # fmt: skip
@click.option("--workers", type=int, default=1, show_default=True, help="Processes.")
def score(
    stores: tuple[Path, ...],
    out: Path,
    workers: int,
    baselines: tuple[str, ...],
    manifest: str,
    folder: Path | None,
    climatology: bool,
    recorded: bool,
) -> None:
    """Score forecast stores and baselines on common pairs, by region, terrain, season and hour.

    \b
    aqnet score f.zarr --manifest twin --out scores.npz --climatology --workers 2
    aqnet scoreboard scores.npz --by pollutant,lead_h --only group=sichuan_basin
    """
    from aqnet.variables import STATIC
    from aqnet.verification import scoring
    from aqnet.verification.forecast_reader import open_forecast_store
    from aqnet.verification.regions import china_groups
    from aqnet.verification.scoreboard import save_scoreboard

    opened = [open_forecast_store(path) for path in stores]
    described = _manifest(manifest)
    truth = _truth(described, folder, opened, recorded)
    usual = _climatology(described, folder) if climatology or "climatology" in baselines else None
    members = china_groups(truth.grid, truth.static[STATIC.index("elevation")])
    board = scoring.score(opened, truth, members, baselines=baselines, climatology=usual,
                          workers=workers, progress=Progress())  # fmt: skip
    save_scoreboard(board, out)
    click.echo(f"{out}: {len(board.times)} init times, {', '.join(board.design.forecasts)}")


def _manifest(name: str) -> GridManifest:
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.manifest import load_manifest, resolve_manifest

    found = load_manifest(resolve_manifest(name))
    if not isinstance(found, GridManifest):
        raise ParameterError(
            explain("stores are scored against fields", expected="a manifest of kind grid",
                    found=name, remedy="for the Beijing stations run nbs/evaluate/beijing.ipynb")
        )  # fmt: skip
    return found


def _truth(
    manifest: GridManifest, folder: Path | None, stores: list[ForecastStore], recorded: bool
) -> YearSet:
    """Years of the init and valid times that the manifest has."""
    import numpy as np

    from aqnet.data.years import open_years
    from aqnet.grid import local_clock

    times = np.concatenate([s.init_times for s in stores] + [s.valid_times.ravel() for s in stores])
    labels = local_clock(times, manifest.source_utc_offset_h).astype("datetime64[Y]")
    wanted = set((np.unique(labels).astype(int) + 1970).tolist())
    years = tuple(year for year in manifest.years if year in wanted)
    if not years:
        raise ParameterError(
            explain("the manifest has no year of the forecasts", expected=sorted(wanted),
                    found=manifest.years, remedy="give the manifest of the truth")
        )  # fmt: skip
    return open_years(manifest, folder, years, recorded=recorded)


def _climatology(manifest: GridManifest, folder: Path | None) -> HarmonicClimatology:
    from aqnet.data.statistics_file import load_statistics
    from aqnet.io import data_root

    record = manifest.record()
    entry = record.statistics if record else None
    if entry is None:
        raise ParameterError(
            explain(f"the statistics of {manifest.name} are not recorded",
                    expected="a climatology of the training years", found="none",
                    remedy=f"aqnet data stats {manifest.name}, then aqnet data record "
                    f"{manifest.name}; or score without climatology")
        )  # fmt: skip
    path = Path(folder or data_root() / manifest.name) / entry.file
    return load_statistics(path, entry.sha256).climatology


@click.command()
@click.argument("board", type=_PATH)
@click.option("--by", default="pollutant,lead_h", show_default=True, help="Of " + ", ".join(_AXES))
@click.option("--only", multiple=True, metavar="AXIS=LABEL", help="season=DJF; repeatable.")
@click.option("--events", is_flag=True, help="Scores of exceedances instead of errors.")
@click.option("--skill", metavar="FORECAST", help="Skill of it against all others, intervals.")
@click.option("--csv", type=_PATH, help="Write the table to a file instead.")
def scoreboard(board: Path, by: str, only: tuple[str, ...], events: bool, skill: str | None,
               csv: Path | None) -> None:  # fmt: skip
    """Print a table of a scoreboard; scores are named by their definition, units are ug/m3."""
    from aqnet.io import atomic_write_text
    from aqnet.verification.bootstrap import skill_table
    from aqnet.verification.score_tables import error_table, event_table
    from aqnet.verification.scoreboard import load_scoreboard

    opened = load_scoreboard(board)
    labels = dict(_label(text) for text in only)
    axes = tuple(part.strip() for part in by.split(",") if part.strip())
    if skill:
        others = [name for name in opened.design.forecasts if name != skill]
        table = skill_table(opened, skill, others, str(labels.get("group", "all")))
    else:
        table = (event_table if events else error_table)(opened, axes, **labels)
    if csv:
        atomic_write_text(csv, table.to_csv(index=False))
        click.echo(f"{csv}: {len(table)} rows")
    else:
        click.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))


def _label(text: str) -> tuple[str, object]:
    axis, equals, label = text.partition("=")
    if not equals or axis not in _AXES:
        raise ParameterError(
            explain("a selection cannot be read", expected="AXIS=LABEL, AXIS one of "
                    f"{', '.join(_AXES)}", found=text, remedy="correct --only")
        )  # fmt: skip
    return axis, int(label) if axis in ("lead_h", "hour") and label.isdecimal() else label
