"""Options of `aqnet score` for stations, and what they do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from aqnet.cli.options import with_options
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.cli.score_days import DayChoice
    from aqnet.data.manifest import GridManifest, Manifest
    from aqnet.data.years.year_set import YearSet
    from aqnet.verification.scoreboard import Scoreboard
    from aqnet.verification.stations.analysis import AnalysisFields
    from aqnet.verification.stations.network import Observations
    from aqnet.verification.store.reader import ForecastStore

__all__ = ["StationChoice", "station_coverage", "station_options"]

_PATH = click.Path(path_type=Path)


class StationChoice(NamedTuple):
    """What was asked for; `folder` is None for fields."""

    folder: Path | None
    sampling: str
    outside: str
    invalid: str

    def observations(self) -> Observations:
        """The tables of the folder."""
        from aqnet.verification.stations.tables import read_observations

        return read_observations(self.folder, self.invalid)

    def score(
        self,
        stores: Sequence[ForecastStore],
        manifest: Manifest | GridManifest | None,
        years: YearSet | None,
        baselines: Sequence[str],
        days: DayChoice,
        **options: object,
    ) -> Scoreboard:
        """`score_stations` with the training split, heights, regions and analysis of a manifest.

        Of days, if asked for: `score_station_days`, whose baseline is persistence.
        """
        from aqnet.data.splits import splits_of
        from aqnet.model.statistical import STATISTICAL
        from aqnet.variables import STATIC
        from aqnet.verification.regions import china_groups
        from aqnet.verification.stations.scoring import score_stations

        if not baselines:
            alone = manifest is None or days.edition is not None
            baselines = ("persistence",) if alone else STATISTICAL
        rules = tuple(name for name in baselines if name not in ("none", "analysis"))
        fit = None if manifest is None else splits_of(manifest)["train"]
        if years is not None and stores[0].grid.digest == years.grid.digest:
            elevation = years.static[STATIC.index("elevation")]
            options |= {"elevation_m": elevation, "members": china_groups(years.grid, elevation)}
        if days.edition is not None:
            own = tuple(name for name in baselines if name != "none")
            return days.score_stations(stores, self.observations(), sampling=self.sampling,
                                       outside=self.outside, baselines=own, **options)  # fmt: skip
        if "analysis" in baselines:
            options["analysis"] = _analysis(manifest, years)
        needs = set(rules) - {"persistence"}
        return score_stations(
            stores, self.observations(), sampling=self.sampling, outside=self.outside,
            baselines=rules, fit=fit if needs else None, **options,
        )  # fmt: skip

    def truth(self) -> dict:
        """What was scored against, for the record of a scoreboard."""
        from aqnet.io import sha256_file, sha256_json

        files = sorted([*self.folder.glob("stations.csv"), *self.folder.glob("observations*.csv*")])
        held = [[file.name, sha256_file(file)] for file in files]
        return {
            "manifest": f"stations of {self.folder.name}",
            "digest": sha256_json(held),
            "folder": str(self.folder.absolute()),
            "stores": held,
            "synthetic": False,
        }


def _analysis(manifest: Manifest | GridManifest | None, years: YearSet | None) -> AnalysisFields:
    """Fields of the manifest: yearly stores, or the analysis of stations."""
    from aqnet.data.store import open_store
    from aqnet.io import station_store
    from aqnet.verification.stations.analysis import AnalysisFields

    if manifest is None:
        raise ParameterError(
            explain("there is no analysis to compare the stations with", expected="--manifest",
                    found="none", remedy="name the manifest of the fields, or leave out "
                    "--baseline analysis")
        )  # fmt: skip
    if years is not None:
        return AnalysisFields.of_years(years)
    store = open_store(station_store(manifest.name), manifest)
    return AnalysisFields.of_store(store, manifest.grid_object())


def station_options(command: Callable) -> Callable:
    """Add --stations and what goes with it, given as one argument `station_choice`."""

    @functools.wraps(command)
    def chosen(*, stations: Path | None, sampling: str | None, outside: str | None,
               invalid: str | None, **others: object) -> object:  # fmt: skip
        given = {"--sampling": sampling, "--outside": outside, "--invalid": invalid}
        unused = [name for name, value in given.items() if value is not None]
        if stations is None and unused:
            raise ParameterError(
                explain("there are no stations", expected="--stations FOLDER", found=unused,
                        remedy="name the folder of stations.csv, or leave these out")
            )  # fmt: skip
        if stations is not None and others["climatology"]:
            raise ParameterError(
                explain("fields alone have a climatology", found="--stations, --climatology",
                        expected="--stations without --climatology", remedy="leave it out; "
                        "anomaly correlations are kept wherever baselines are fitted")
            )  # fmt: skip
        choice = StationChoice(stations, sampling or "bilinear", outside or "refuse",
                               invalid or "refuse")  # fmt: skip
        return command(station_choice=choice, **others)

    return with_options(
        click.option("--stations", type=_PATH, metavar="FOLDER", help="Score at the stations of "
                     "stations.csv and observations*.csv, each weighing the same."),
        click.option("--sampling", type=click.Choice(["nearest", "bilinear"]),
                     help="Of the fields at the stations; default bilinear."),
        click.option("--outside", type=click.Choice(["refuse", "drop"]), help="Stations without "
                     "values, series without a climatology; default refuse."),
        click.option("--invalid", type=click.Choice(["refuse", "missing"]),
                     help="Observations outside their valid range; default refuse."),
    )(chosen)  # fmt: skip


def station_coverage(board: Scoreboard) -> str:
    """What was scored, in words."""
    held, pairs = board.record["stations"], (board.weight.sum((1, 2, 3)) > 0).sum()
    withheld = sum(row["withheld"] for row in held["table"])
    left = f"{len(held['outside'])} stations outside, {len(held['unfitted'])} with series without"
    return (f"{', '.join(board.design.forecasts)}; {board.design.each_place} stations ({withheld} "
            f"withheld), {held['sampling']}; {left} a climatology; {int(pairs)} of "
            f"{len(board.times)} init times have pairs")  # fmt: skip
