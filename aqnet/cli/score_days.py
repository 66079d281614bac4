"""Options of `aqnet score` for daily products, and what they do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from aqnet.cli.options import with_options
from aqnet.errors import ParameterError, explain

if TYPE_CHECKING:
    from aqnet.verification.scoreboard import Scoreboard

__all__ = ["DayChoice", "day_coverage", "day_options"]


class DayChoice(NamedTuple):
    """What was asked for; `edition` is None for hours."""

    edition: str | None
    composite: bool
    products: tuple[str, ...]

    def score(self, *given: object, **options: object) -> Scoreboard:
        """`aqnet.verification.days.scores.score_days` of what was asked for."""
        from aqnet.verification.days.scores import score_days

        return score_days(*given, **self._asked(), **options)

    def score_stations(self, *given: object, **options: object) -> Scoreboard:
        """`aqnet.verification.stations.days.score_station_days` of what was asked for."""
        from aqnet.verification.stations.days import score_station_days

        return score_station_days(*given, **self._asked(), **options)

    def _asked(self) -> dict:
        return {"standard": self.edition, "composite": self.composite,
                "products": self.products or None}  # fmt: skip


def day_options(command: Callable) -> Callable:
    """Add --days, --edition, --composite and --product, given as one argument `day_choice`."""

    @functools.wraps(command)
    def chosen(*, days: bool, edition: str | None, composite: bool, products: tuple[str, ...],
               **others: object) -> object:  # fmt: skip
        if days != (edition is not None) or (not days and (composite or products)):
            raise ParameterError(
                explain("daily products follow an edition of the standards",
                        expected="--days with --edition, then --composite or --product",
                        found=f"--days {days}, --edition {edition}, --composite {composite}, "
                        f"--product {list(products)}", remedy="for example --days --edition 2012")
            )  # fmt: skip
        if days and (others["pollutants"] or others["climatology"]):
            raise ParameterError(
                explain("days have products, and no anomaly correlations", expected="--days "
                        "without --pollutants and --climatology",
                        found=f"--pollutants {others['pollutants']}, --climatology "
                        f"{others['climatology']}", remedy='choose with --product "PM2.5 24 h '
                        'mean"; for the usual day add --baseline climatology')
            )  # fmt: skip
        return command(day_choice=DayChoice(edition, composite, products), **others)

    return with_options(
        click.option("--days", is_flag=True, help="Daily products of hourly forecasts: means, 8 h "
                     "ozone, exceedances, AQI, on Beijing days."),
        click.option("--edition", metavar="NAME", help="Of the standards: 2012 (data of 2013 to "
                     "August 2018), 2012-amended, 2026-transition, 2031."),
        click.option("--composite", is_flag=True, help="Days of hours that were each forecast a "
                     "fixed time before; labelled so, without AQI."),
        click.option("--product", "products", multiple=True, metavar="NAME",
                     help='Such as "PM2.5 24 h mean"; repeatable, default all.'),
    )(chosen)  # fmt: skip


def day_coverage(board: Scoreboard) -> str:
    """What was scored, in words."""
    d = board.design
    unit = "days" if d.lead_days else "hours"
    return (f"{', '.join(d.forecasts)}; {', '.join(d.pollutants)}; edition {d.edition}; days of "
            f"{d.days}; {unit} ahead {', '.join(map(str, d.leads))}; "
            f"{int((board.weight.sum((1, 2, 3)) > 0).sum())} of {len(board.times)} "
            f"{'init times' if d.lead_days else 'days'} have pairs")  # fmt: skip
