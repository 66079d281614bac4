"""`aqnet report` writes one offline HTML file of scoreboards, fields and physics checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import Progress
from aqnet.cli.options import folder_option, recorded_option
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.verification.report.boards import BoardFile
    from aqnet.verification.report.fields import Fields
    from aqnet.verification.report.station_episode import StationEpisode

__all__ = ["report"]

_PATH = click.Path(path_type=Path)
_BESIDE = ("store", "truth", "folder", "recorded", "stations")


@click.command()
@click.argument("boards", type=_PATH, nargs=-1, required=True, metavar="BOARD...")
@click.option("--out", type=_PATH, default=Path("report.html"), show_default=True, metavar="FILE",
              help="HTML file to write.")  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="NAME",
              help="Forecast to judge, one for each board; default its first store.")  # fmt: skip
@click.option("--group", default="all", show_default=True, help="Places of scorecards and figures.")
@click.option("--store", type=_PATH, help="Store of the first board: maps, film, episodes.")
@click.option("--truth", metavar="MANIFEST", help="Of the yearly stores, for maps and films.")
@folder_option
@recorded_option
@click.option("--stations", type=_PATH, metavar="FOLDER",
              help="stations.csv and observations*.csv, for an episode there.")  # fmt: skip
@click.option("--from", "first", metavar="UTC", help="First valid time of it: 2016-12-15T16.")
@click.option("--to", "last", metavar="UTC", help="Last; default round the worst day.")
@click.option("--pollutant", default="pm25", show_default=True, help="Of maps, film and episodes.")
@click.option("--lead", type=int, metavar="HOURS", help="Of them; default 24 or the first.")
@click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True,
              help="Of the film, at most; one is about 0.2 MB.")  # fmt: skip
@click.option("--physics", type=_PATH, multiple=True, metavar="FOLDER",
              help="Of aqnet physics or aqnet probe; repeatable.")  # fmt: skip
@click.option("--tests/--without-tests", default=True, show_default=True,
              help="Intervals and tests, which need a period of 50 days or more.")  # fmt: skip
@click.option("--comparison-csv", type=_PATH, metavar="FILE",
              help="Write the comparison of the boards as a table, and no report.")  # fmt: skip
def report(
    boards: tuple[Path, ...],
    out: Path,
    models: tuple[str, ...],
    group: str,
    comparison_csv: Path | None,
    **asked: object,
) -> None:
    """Report of one to six scoreboards: one HTML file that needs no network.

    \b
    aqnet report scores.npz --out report.html
    aqnet report a.npz b.npz --store a.zarr --truth twin --physics checks/ --out report.html
    aqnet report s.npz --store f.zarr --stations beijing/ --from 2016-12-15T16 --to 2016-12-23T16
    """
    from aqnet.io import atomic_write_text
    from aqnet.verification.report.boards import open_boards
    from aqnet.verification.report.comparison import compare_boards
    from aqnet.verification.report.page import write_page

    files = open_boards(boards, models)
    if comparison_csv:
        table = compare_boards(files, group)
        atomic_write_text(comparison_csv, table.to_csv(index=False))
        click.echo(f"{comparison_csv}: {len(table)} rows")
        return
    page = _page(files, group, asked)
    written = write_page(out, page)
    click.echo(f"{written}: {written.stat().st_size / 1e6:.1f} MB")


def _page(files: list[BoardFile], group: str, asked: dict) -> object:
    from aqnet.cli.times import parse_utc
    from aqnet.verification.report.build import Asked, board_report

    period = parse_utc(asked["first"]), parse_utc(asked["last"])
    if (period[0] is None) != (period[1] is None):
        raise ParameterError(
            explain("half a period", expected="--from and --to", found=[asked["first"],
                    asked["last"]], remedy="give both, or neither")
        )  # fmt: skip
    wanted = Asked(group, asked["pollutant"], asked["lead"], asked["tests"], asked["physics"],
                   asked["frames"], *period)  # fmt: skip
    fields, stations = _beside(**{k: asked[k] for k in _BESIDE})
    return board_report(files, wanted, fields, stations, Progress())


def _beside(
    store: Path | None, truth: str | None, folder: Path | None, recorded: bool,
    stations: Path | None,
) -> tuple[Fields | None, StationEpisode | None]:  # fmt: skip
    """Forecasts with the fields, and with the stations, that they are shown beside."""
    if (store is None) != (truth is None and stations is None):
        raise ParameterError(
            explain("maps and episodes need forecasts and what was seen",
                    expected="--store, with --truth, --stations or both",
                    found=f"--store {store}, --truth {truth}, --stations {stations}",
                    remedy="give both sides, or neither")
        )  # fmt: skip
    if store is None:
        return None, None
    from aqnet.cli.truth import grid_manifest, open_truth
    from aqnet.verification.report.fields import Fields
    from aqnet.verification.report.station_episode import StationEpisode
    from aqnet.verification.stations.tables import read_observations
    from aqnet.verification.store.reader import open_forecast_store

    opened, fields, episode = open_forecast_store(store), None, None
    if truth is not None:
        described = grid_manifest(truth, "maps need the truth", "leave --truth out")
        fields = Fields(opened, open_truth(described, folder, [opened], recorded))
    if stations is not None:
        episode = StationEpisode.of(opened, read_observations(stations, "missing"))
    return fields, episode
