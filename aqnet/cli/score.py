"""`aqnet score` scores forecast stores, `aqnet scoreboard` prints tables of what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress, command_line
from aqnet.cli.options import folder_option, recorded_option
from aqnet.cli.score_days import DayChoice, day_coverage, day_options
from aqnet.cli.score_stations import StationChoice, station_coverage, station_options
from aqnet.cli.times import parse_leads
from aqnet.cli.truth import grid_manifest, open_truth
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.data.climatology import HarmonicClimatology
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.manifest import Manifest
    from aqnet.data.years.year_set import YearSet
    from aqnet.verification.scoreboard import Scoreboard
    from aqnet.verification.store.reader import ForecastStore

__all__ = ["score", "scoreboard"]

_PATH = click.Path(path_type=Path)
# The third and fourth, and the analysis, at stations only.
_BASELINES = ("persistence", "climatology", "damped climatology", "trailing-damped", "analysis",
              "none")  # fmt: skip
_AXES = ("lead_h", "lead_day", "season", "hour", "pollutant", "group", "sun")


@click.command()
@click.argument("stores", type=_PATH, nargs=-1, required=True, metavar="STORE...")
@click.option("--manifest", help="Of the truth: name or file. With --stations: of the training "
              "period of baselines, of heights and regions.")  # fmt: skip
@folder_option
@click.option("--out", type=_PATH, required=True, metavar="FILE", help="Scoreboard, NAME.npz.")
@click.option("--baseline", "baselines", multiple=True, type=click.Choice(_BASELINES),
              help="Beside the stores; repeatable. Default persistence; with --stations and "
              "--manifest the first four.")  # fmt: skip
@click.option("--leads", metavar="HOURS", help="12,24; default those of the stores.")
@click.option("--pollutants", metavar="NAMES", help="pm25,o3; default those of the stores.")
@click.option("--climatology/--no-climatology", default=False,
              help="Anomaly correlations, by recorded statistics of the manifest.")  # fmt: skip
@recorded_option
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes.")  # fmt: skip
@day_options
@station_options
def score(
    day_choice: DayChoice,
    station_choice: StationChoice,
    stores: tuple[Path, ...],
    out: Path,
    workers: int,
    baselines: tuple[str, ...],
    manifest: str | None,
    folder: Path | None,
    leads: str | None,
    pollutants: str | None,
    climatology: bool,
    recorded: bool,
) -> None:
    """Score forecast stores and baselines on common pairs, by region, terrain, season and hour.

    \b
    aqnet score f.zarr --manifest twin --out scores.npz --climatology --workers 2
    aqnet scoreboard scores.npz --by pollutant,lead_h --only group=sichuan_basin
    aqnet score hourly.zarr --days --edition 2012 --manifest twin --out days.npz
    aqnet scoreboard days.npz --levels
    aqnet score f.zarr --stations network --manifest twin --sampling nearest --out stations.npz
    aqnet scoreboard stations.npz --skill model --only "group=withheld stations"
    """
    from aqnet.variables import STATIC
    from aqnet.verification import scoring
    from aqnet.verification.provenance import score_record, truth_record
    from aqnet.verification.regions import china_groups
    from aqnet.verification.store.reader import open_forecast_store

    beside = _baselines(baselines)
    opened = [open_forecast_store(path) for path in stores]
    names = pollutants and tuple(pollutants.split(","))
    hourly = {"lead_times_h": parse_leads(leads), "pollutants": names}
    common = {"workers": workers, "progress": Progress()}
    if station_choice.folder is not None:
        described, years = _station_context(manifest, folder, opened, recorded)
        if day_choice.edition:
            del hourly["pollutants"]  # products choose them
        board = station_choice.score(
            opened, described, years, beside, day_choice, **hourly, **common
        )
        told = day_coverage(board) if day_choice.edition else station_coverage(board)
        record = score_record(
            command_line(), opened, station_choice.truth(), edition=day_choice.edition
        )
        _write(board, record | board.record, out, told)
        return
    described = grid_manifest(manifest, "stores are scored against fields",
                              "score at stations: --stations FOLDER")  # fmt: skip
    truth = open_truth(described, folder, opened, recorded)
    usual, statistics = None, None
    if climatology or "climatology" in beside:
        usual, statistics = _climatology(described, folder)
    members = china_groups(truth.grid, truth.static[STATIC.index("elevation")])
    options = common | {"baselines": _or_persistence(beside), "climatology": usual}
    if day_choice.edition:
        board = day_choice.score(opened, truth, members, lead_times_h=hourly["lead_times_h"],
                                 **options)  # fmt: skip
        told = day_coverage(board)
    else:
        board = scoring.score(opened, truth, members, **hourly, **options)
        told = _coverage(board, opened, truth)
    record = score_record(
        command_line(), opened, truth_record(described, truth), edition=day_choice.edition,
        statistics=statistics,
    )  # fmt: skip
    _write(board, record, out, told)


def _write(board: Scoreboard, record: dict, out: Path, told: str) -> None:
    from aqnet.verification.scoreboard import save_scoreboard

    board.record = record
    save_scoreboard(board, out)
    click.echo(f"{out}: {told}")


def _baselines(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """As asked for; ("none",) for none, () for no choice."""
    if "none" in chosen and len(chosen) > 1:
        raise ParameterError(
            explain("baselines, or none?", expected="--baseline none alone", found=list(chosen),
                    remedy="leave one of them out")
        )  # fmt: skip
    return chosen


def _or_persistence(chosen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in chosen or ("persistence",) if name != "none")


def _station_context(
    manifest: str | None, folder: Path | None, stores: list[ForecastStore], recorded: bool
) -> tuple[Manifest | GridManifest | None, YearSet | None]:
    """The manifest of --stations, and the yearly stores if it is one of fields."""
    from aqnet.data.grid_manifest import GridManifest
    from aqnet.data.manifest import load_manifest, resolve_manifest

    if manifest is None:
        return None, None
    described = load_manifest(resolve_manifest(manifest))
    if not isinstance(described, GridManifest):
        return described, None
    return described, open_truth(described, folder, stores, recorded)


def _coverage(board: Scoreboard, stores: list[ForecastStore], truth: YearSet) -> str:
    """What was scored of what the stores hold."""
    import numpy as np

    held = np.unique(np.concatenate([store.init_times for store in stores]))
    leads = np.asarray(board.design.lead_times_h).astype("timedelta64[h]")
    known = np.isin(board.times[:, None] + leads, truth.times)
    mine = [int(store.mask.sum()) for store in stores]
    return (f"{', '.join(board.design.forecasts)}; {len(board.times)} of {held.size} init times, "
            f"truth at {known.mean():.1%} of the valid times, {board.design.each_place} cells of "
            f"{', '.join(map(str, mine))} in the stores and {int(truth.mask.sum())} in the truth"
            )  # fmt: skip


def _climatology(manifest: GridManifest, folder: Path | None) -> tuple[HarmonicClimatology, str]:
    """Climatology of the recorded statistics, and their SHA-256."""
    from aqnet.data.statistics.file import load_statistics
    from aqnet.io import stores_folder

    record = manifest.record()
    entry = record.statistics if record else None
    if entry is None:
        raise ParameterError(
            explain(f"the statistics of {manifest.name} are not recorded",
                    expected="a climatology of the training years", found="none",
                    remedy=f"aqnet data stats {manifest.name}, then aqnet data record "
                    f"{manifest.name}; or score without climatology")
        )  # fmt: skip
    path = stores_folder(manifest.name, folder) / entry.file
    return load_statistics(path, entry.sha256).climatology, entry.sha256


@click.command()
@click.argument("board", type=_PATH)
@click.option("--by", help="Of " + ", ".join(_AXES) + "; default pollutant and lead time.")
@click.option("--only", multiple=True, metavar="AXIS=LABEL",
              help="season=DJF; repeatable. With --skill a group.")  # fmt: skip
@click.option("--events", is_flag=True, help="Scores of exceedances instead of errors.")
@click.option("--levels", is_flag=True, help="Of an AQI: right level, right primary pollutant.")
@click.option("--places", is_flag=True, help="Errors of every station or cell.")
@click.option("--skill", metavar="FORECAST",
              help="Of it against all others, intervals; --by group: of every group.")  # fmt: skip
@click.option("--csv", type=_PATH, help="Write the table to a file instead.")
def scoreboard(board: Path, by: str | None, only: tuple[str, ...], events: bool, levels: bool,
               places: bool, skill: str | None, csv: Path | None) -> None:  # fmt: skip
    """Print a table of a scoreboard; scores are named by their definition, units are ug/m3."""
    import pandas as pd

    from aqnet.io import atomic_write_text
    from aqnet.verification.bootstrap import skill_note, skill_table
    from aqnet.verification.place_table import place_table
    from aqnet.verification.score_tables import error_table, event_table, level_table
    from aqnet.verification.scoreboard import load_scoreboard

    labels = dict(_label(text) for text in only)
    _refuse_unused(by, labels, events=events, levels=levels, places=places, skill=skill)
    opened = load_scoreboard(board)
    lead = opened.design.lead_axis
    by = by or (lead if levels else f"pollutant,{lead}")
    axes = tuple(part.strip() for part in by.split(",") if part.strip())
    if skill:
        others = [name for name in opened.design.forecasts if name != skill]
        groups = opened.design.groups if "group" in axes else (str(labels.get("group", "all")),)
        table = pd.concat([skill_table(opened, skill, others, group) for group in groups])
    elif places:
        table = place_table(opened)
    else:
        make = level_table if levels else event_table if events else error_table
        table = make(opened, axes, **labels)
    if csv:
        atomic_write_text(csv, table.to_csv(index=False))
        click.echo(f"{csv}: {len(table)} rows")
    else:
        click.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
        if skill:
            click.echo(skill_note(table))


def _refuse_unused(by: str | None, labels: Mapping, **kinds: object) -> None:
    """Refuse a second kind of table, and what the kind that was chosen does not look at."""
    chosen = [f"--{name}" for name, value in kinds.items() if value]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} are different tables: choose one")
    if kinds["places"] and (by or labels):
        raise click.UsageError("--places lists every place: leave out --by and --only")
    if not kinds["skill"]:
        return
    if by not in (None, "group") or not labels.keys() <= {"group"}:
        raise click.UsageError("--skill goes with --only group=LABEL or --by group, no other axis")
    if by and labels:
        raise click.UsageError("--skill --by group is of every group: leave out --only")


def _label(text: str) -> tuple[str, object]:
    axis, equals, label = text.partition("=")
    if not equals or axis not in _AXES:
        raise ParameterError(
            explain("a selection cannot be read", expected="AXIS=LABEL, AXIS one of "
                    f"{', '.join(_AXES)}", found=text, remedy="correct --only")
        )  # fmt: skip
    whole = axis in ("lead_h", "lead_day", "hour") and label.isdecimal()
    return axis, int(label) if whole else label
