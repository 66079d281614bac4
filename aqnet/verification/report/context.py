"""What the report of one station evaluation shows, and sentences on its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.report.boards import BoardFile
from aqnet.verification.report.series import StationSeries, TrainingCurve
from aqnet.verification.report.station_maps import EpisodeMaps
from aqnet.verification.report.wording import joined, label, number
from aqnet.verification.scores import GRID, CellComparison, PrimaryTest

__all__ = ["TRANSPORT_CAVEAT", "ReportContext", "outcome", "summary"]

TRANSPORT_CAVEAT = (
    "The domain is a box of 80 km. At a wind of 3 m/s air travels 130 km in 12 h and crosses the "
    "box in 7 to 8 h: at every lead time the air over the box has come from outside, where the "
    "model sees nothing. These scores therefore cannot show what transport physics is worth."
)
_COLUMNS = ("place", "pollutant", "lead_h", "forecast", "n", "missing")
_SCORES = ("rmse", "mae", "bias", "correlation")


@dataclass(frozen=True, eq=False)
class ReportContext:
    """Everything a report shows; figures are drawn from the arrays.

    Parameters
    ----------
    title, subtitle : str
        Heading, and a line that names data set and period.
    primary : PrimaryTest
        Outcome of `primary_test`.
    scores : DataFrame
        `place_scores` of the test period.
    boards : mapping of place to (BoardFile, str)
        The scoreboard behind each place in `scores`, and its group of places.
    sees : mapping of forecast name to str
        What each forecast may use; one entry for each forecast in `scores`
        (`aqnet.model.statistical.SEES` has those of the baselines).
    places : mapping of place to str
        A sentence on each place in `scores`: which stations, which cells.
    episode : EpisodeMaps
        Maps of one episode.
    episode_title : str
        Heading of the maps.
    series : sequence of StationSeries
        Time series through the episode, at least one.
    training : TrainingCurve
    provenance : mapping of section to (mapping of key to value)
        Run id, parameters, data hashes, versions, git: shown as it is.
    utc_offset_h : int
        Local time minus UTC [h], for labels of figures.
    notes : sequence of str
        Further remarks for the summary.
    synthetic : bool
        Whether the data are simulated; the report then says so above everything else.

    Raises
    ------
    VerificationError
        A table lacks columns, rows or cells, or a forecast or place has no description.
    """

    title: str
    subtitle: str
    primary: PrimaryTest
    scores: pd.DataFrame
    boards: Mapping[str, tuple[BoardFile, str]]
    sees: Mapping[str, str]
    places: Mapping[str, str]
    episode: EpisodeMaps
    episode_title: str
    series: Sequence[StationSeries]
    training: TrainingCurve
    provenance: Mapping[str, Mapping[str, object]]
    synthetic: bool
    utc_offset_h: int = 8
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        columns = [*_COLUMNS, *_SCORES]
        _complete("columns of scores", columns, self.scores.columns)
        _complete("descriptions of forecasts", self.scores["forecast"].unique(), self.sees)
        _complete("descriptions of places", self.scores["place"].unique(), self.places)
        _complete("boards of places", self.scores["place"].unique(), self.boards)
        _complete("places in scores", [self.primary.place], self.scores["place"].unique())
        keys = ["place", "pollutant", "lead_h", "forecast"]
        wanted = pd.MultiIndex.from_product([self.scores[key].unique() for key in keys])
        _complete("rows of scores", wanted, pd.MultiIndex.from_frame(self.scores[keys]))
        tested = {(cell.pollutant, cell.lead_h) for cell in self.primary.cells}
        shown = set(zip(self.scores["pollutant"], self.scores["lead_h"], strict=True))
        _complete("cells of the primary test", sorted(shown), tested)
        if not self.series:
            _complete("time series", ["at least one StationSeries"], [])


def _complete(what: str, wanted: Sequence, found: Sequence) -> None:
    lacking = [item for item in wanted if item not in found]
    if lacking:
        raise VerificationError(
            explain(
                f"the report lacks {what}",
                expected=", ".join(map(str, wanted)),
                found=f"without {', '.join(map(str, lacking))}",
                remedy="pass the complete output of place_scores and primary_test",
            )
        )


def _listing(cells: Sequence[CellComparison]) -> str:
    """Cells in words: "PM2.5 at 12 and 24 h; O3 at 96 h"."""
    leads: dict[str, list[str]] = {}
    for cell in cells:
        leads.setdefault(label(cell.pollutant), []).append(str(cell.lead_h))
    texts = (f"{name} at {joined(hours)} h" for name, hours in leads.items())
    return "; ".join(texts)


def outcome(primary: PrimaryTest) -> list[str]:
    """Won, lost and tied cells in words."""
    total, level = len(primary.cells), f"{100 * primary.alpha:g} %"
    by = {v: [cell for cell in primary.cells if cell.verdict == v] for v in ("won", "lost", "tie")}
    text = [
        f"Against the best of {len(primary.baselines)} baselines, chosen per cell on the "
        f"validation year, the model is significantly better in {primary.won} of {total} cells, "
        f"significantly worse in {primary.lost}, and not distinguishable in {primary.tied} "
        f"(Diebold-Mariano test, Holm correction over {total} cells, {level}). "
        f"Its RMSE is lower in {primary.lower} of {total}."
    ]
    if by["won"]:
        text.append(f"The model wins: {_listing(by['won'])}.")
    if by["lost"]:
        text.append(f"The model loses to a baseline: {_listing(by['lost'])}.")
    if by["tie"]:
        text.append(f"The model adds nothing that this test can show: {_listing(by['tie'])}.")
    return text


def _against_yardstick(name: str, cells: Sequence[CellComparison]) -> str:
    won, lost = ([c for c in cells if c.verdict == v] for v in ("won", "lost"))
    lower, total = sum(c.lower for c in cells), len(cells)
    text = (
        f"Against {name}, the further yardstick, the model has the lower RMSE in {lower} of "
        f"{total} cells, is significantly better in {len(won)} and significantly worse in "
        f"{len(lost)}."
    )
    higher = [c for c in cells if not c.lower]
    if higher:
        text += f" The model adds nothing over {name}: {_listing(higher)}."
    return text


def _elsewhere(context: ReportContext, place: str) -> str | None:
    """RMSE of the model against the chosen baselines at another place, in one sentence."""
    rows = context.scores[context.scores["place"] == place]
    if rows.empty or place == context.primary.place:
        return None
    rmse = rows.set_index(["pollutant", "lead_h", "forecast"])["rmse"]
    ratio = np.array(
        [
            rmse[cell.pollutant, cell.lead_h, context.primary.model]
            / rmse[cell.pollutant, cell.lead_h, cell.opponent]
            for cell in context.primary.cells
        ]
    )
    median = number(100 * (np.nanmedian(ratio) - 1), "percent")
    higher = [c for c, r in zip(context.primary.cells, ratio, strict=True) if r >= 1]
    where = f" It is not lower for {_listing(higher)}." if higher else ""
    return (
        f"Scored {'on' if place == GRID else 'at'} the {place}, the model has a lower RMSE than "
        f"the same baselines in {int((ratio < 1).sum())} of {ratio.size} cells; the median change "
        f"of RMSE is {median} %.{where}"
    )


def summary(context: ReportContext) -> list[str]:
    """Sentences that say what the numbers say, with what they cannot show."""
    primary = context.primary
    text = outcome(primary)
    text += [_against_yardstick(name, cells) for name, cells in primary.yardsticks.items()]
    elsewhere = (_elsewhere(context, place) for place in context.scores["place"].unique())
    return text + [line for line in elsewhere if line] + [TRANSPORT_CAVEAT, *context.notes]
