"""The report of one run: a single HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from aqnet.errors import explain
from aqnet.io import atomic_write_text
from aqnet.metrics import VerificationError
from aqnet.verification import figures
from aqnet.verification.scores import ASSIMILATED, GRID, WITHHELD, CellComparison, PrimaryTest

__all__ = ["TRANSPORT_CAVEAT", "ReportContext", "render_report", "write_report"]

TRANSPORT_CAVEAT = (
    "The domain is a box of 80 km. At a wind of 3 m/s air travels 130 km in 12 h and crosses the "
    "box in 7 to 8 h: at every lead time the air over the box has come from outside, where the "
    "model sees nothing. These scores therefore cannot show what transport physics is worth."
)
_SCORES = (
    ("rmse", "RMSE", figures.UNIT, "lowest"),
    ("mae", "MAE", figures.UNIT, "lowest"),
    ("bias", "Bias (forecast - truth)", figures.UNIT, "closest to zero"),
    ("correlation", "Correlation", "1", "highest"),
)
_MARKS = {
    "won": ("▲", "won", "better"),
    "lost": ("▼", "lost", "worse"),
    "tie": ("=", "tie", "same"),
}
_COLUMNS = ("place", "pollutant", "lead_h", "forecast", "n", "missing")
_DPI = 130


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
        `Scorecard.table()` of the test period.
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
    sees: Mapping[str, str]
    places: Mapping[str, str]
    episode: figures.EpisodeMaps
    episode_title: str
    series: Sequence[figures.StationSeries]
    training: figures.TrainingCurve
    provenance: Mapping[str, Mapping[str, object]]
    synthetic: bool
    utc_offset_h: int = 8
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        columns = [*_COLUMNS, *(score[0] for score in _SCORES)]
        _complete("columns of scores", columns, self.scores.columns)
        _complete("descriptions of forecasts", self.scores["forecast"].unique(), self.sees)
        _complete("descriptions of places", self.scores["place"].unique(), self.places)
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
                remedy="pass the complete output of Scorecard.table and primary_test",
            )
        )


def _label(pollutant: str) -> str:
    return figures.LABELS.get(pollutant, pollutant)


def _listing(cells: Sequence[CellComparison]) -> str:
    """Cells in words: "PM2.5 at 12 and 24 h; O3 at 96 h"."""
    leads: dict[str, list[str]] = {}
    for cell in cells:
        leads.setdefault(_label(cell.pollutant), []).append(str(cell.lead_h))
    joined = (
        f"{name} at {' and '.join(filter(None, [', '.join(hours[:-1]), hours[-1]]))} h"
        for name, hours in leads.items()
    )
    return "; ".join(joined)


def _outcome(primary: PrimaryTest) -> list[str]:
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
    median = _number(100 * (np.nanmedian(ratio) - 1), "percent")
    higher = [c for c, r in zip(context.primary.cells, ratio, strict=True) if r >= 1]
    where = f" It is not lower for {_listing(higher)}." if higher else ""
    return (
        f"Scored {'on' if place == GRID else 'at'} the {place}, the model has a lower RMSE than "
        f"the same baselines in {int((ratio < 1).sum())} of {ratio.size} cells; the median change "
        f"of RMSE is {median} %.{where}"
    )


def _summary(context: ReportContext) -> list[str]:
    primary = context.primary
    text = _outcome(primary)
    text += [_against_yardstick(name, cells) for name, cells in primary.yardsticks.items()]
    elsewhere = (_elsewhere(context, place) for place in context.scores["place"].unique())
    return text + [line for line in elsewhere if line] + [TRANSPORT_CAVEAT, *context.notes]


def _number(value: float, score: str = "rmse") -> str:
    """Three or so significant digits with a real minus sign; n/a for NaN."""
    if not np.isfinite(value):
        return "n/a"
    size = abs(value)
    digits = 2 if score == "correlation" or size < 10 else 1 if size < 100 else 0
    sign = "+" if score in ("bias", "percent") else "-"
    text = f"{value:{sign}z.{1 if score == 'percent' else digits}f}"  # z: no negative zero
    return text.replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _signed(percent: float) -> dict[str, str]:
    kind = "better" if percent < 0 else "worse" if percent > 0 else "same"
    return {"text": _number(percent, "percent"), "kind": kind}


def _times_text(primary: PrimaryTest) -> str:
    counts = sorted({cell.n_times for cell in primary.cells})
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def _primary_rows(primary: PrimaryTest) -> list[dict]:
    rows = []
    for index, cell in enumerate(primary.cells):
        mark, word, kind = _MARKS[cell.verdict]
        others = [cells[index] for cells in primary.yardsticks.values()]
        row = {
            "pollutant": _label(cell.pollutant),
            "first": index == 0 or primary.cells[index - 1].pollutant != cell.pollutant,
            "lead_h": cell.lead_h,
            "model": _number(cell.rmse_model),
            "baseline": cell.opponent,
            "baseline_rmse": _number(cell.rmse_opponent),
            "difference": _signed(cell.difference_percent),
            "n_effective": f"{cell.n_effective:.0f}",
            "p": _p(cell.p),
            "p_holm": _p(cell.p_holm),
            "verdict": {"mark": mark, "word": word, "kind": kind},
        }
        row["yardsticks"] = [
            {
                "rmse": _number(other.rmse_opponent),
                "difference": _signed(other.difference_percent),
                "verdict": dict(zip(("mark", "word", "kind"), _MARKS[other.verdict], strict=True)),
            }
            for other in others
        ]
        rows.append(row)
    return rows


def _best(values: np.ndarray, rule: str) -> float:
    """The value to set in bold; NaN if all are missing."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan
    if rule == "closest to zero":
        return known[np.abs(known).argmin()]
    return known.min() if rule == "lowest" else known.max()


def _score_table(rows: pd.DataFrame, score: tuple[str, str, str, str], model: str) -> dict:
    """One score at one place: pollutants and lead times down, forecasts across."""
    key, title, unit, rule = score
    names = [model, *(name for name in rows["forecast"].unique() if name != model)]
    lines, last = [], None
    for (pollutant, lead), part in rows.groupby(["pollutant", "lead_h"], sort=False):
        values = part.set_index("forecast")[key].reindex(names).to_numpy(dtype=float)
        best = _best(values, rule)
        cells = [
            {"text": _number(v, key), "best": v == best, "model": name == model}
            for name, v in zip(names, values, strict=True)
        ]
        line = {"pollutant": _label(pollutant), "first": pollutant != last, "lead_h": lead}
        lines.append(line | {"cells": cells, "n": int(part["n"].iloc[0])})
        last = pollutant
    return {"title": title, "unit": unit, "rule": rule, "names": names, "lines": lines}


def _place_sections(context: ReportContext) -> list[dict]:
    sections = []
    for number, place in enumerate(context.scores["place"].unique(), start=1):
        rows = context.scores[context.scores["place"] == place]
        lacking = rows.groupby("forecast", sort=False)["missing"].sum()
        tables = [_score_table(rows, score, context.primary.model) for score in _SCORES]
        sections.append(
            {
                "id": f"place-{number}",
                "title": place[:1].upper() + place[1:],
                "text": context.places[place],
                "missing": [f"{name} {n}" for name, n in lacking.items() if n],
                "tables": tables,
            }
        )
    return sections


def _image(figure: Figure, alt: str, caption: str) -> dict[str, str]:
    buffer = io.BytesIO()
    # Without the software tag the bytes depend on the arrays alone.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": f"data:image/png;base64,{data}", "alt": alt, "caption": caption}


def _lead_figures(context: ReportContext) -> list[dict]:
    images = []
    for place in (ASSIMILATED, WITHHELD):
        rows = context.scores[context.scores["place"] == place]
        if not rows.empty:
            alt = f"RMSE against lead time, {place}"
            caption = f"Test year, stations pooled, {figures.UNIT}; vertical axes differ."
            figure = figures.draw_rmse_against_lead(rows, context.primary.model)
            images.append({"title": f"At the {place}"} | _image(figure, alt, caption))
    return images


def _maps_figure(context: ReportContext) -> dict:
    episode = context.episode
    name = _label(episode.pollutant)
    caption = (
        f"{name} ({figures.UNIT}), forecasts made {episode.lead_h} h before the valid time. Dots: "
        "assimilated stations, diamonds: withheld; their colour in the first column is the "
        "observed value. Thin lines: height of 100, 200, 400, 700, 1000, 1500 and 2000 m. "
        "Hatched: cells too far from a station, which the grid scores leave out."
    )
    figure = figures.draw_episode_maps(episode, context.utc_offset_h)
    return _image(figure, f"Maps of {name}: truth, forecast, difference", caption)


def _series_figure(context: ReportContext) -> dict:
    figure = figures.draw_station_series(
        context.series, context.primary.model, context.utc_offset_h
    )
    caption = "Observed (grey) and forecast concentrations against valid time."
    return _image(figure, "Time series through the episode", caption)


def _training_figure(context: ReportContext) -> dict:
    figure = figures.draw_training_curve(context.training)
    caption = "Loss per epoch; the dotted line marks the checkpoint that is judged here."
    return _image(figure, "Training curve", caption)


def render_report(report: ReportContext) -> str:
    """Render a report as one HTML page without scripts or references to other files.

    Parameters
    ----------
    report : ReportContext

    Returns
    -------
    str
        HTML 5, UTF-8, images inline as PNG. Text from the context is escaped.
    """
    loader = PackageLoader("aqnet.verification", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        report=report,
        summary=_summary(report),
        primary_rows=_primary_rows(report.primary),
        yardsticks=list(report.primary.yardsticks),
        times_text=_times_text(report.primary),
        sees=[(name, report.sees[name]) for name in report.scores["forecast"].unique()],
        sections=_place_sections(report),
        lead_images=_lead_figures(report),
        maps_image=_maps_figure(report),
        series_image=_series_figure(report),
        training_image=_training_figure(report),
        unit=figures.UNIT,
    )


def write_report(path: str | Path, report: ReportContext) -> Path:
    """Render a report and write it in one piece.

    Parameters
    ----------
    path : path
        HTML file; an old one is replaced.
    report : ReportContext

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    StorageFullError
        No room on the disk; nothing is left behind.
    """
    atomic_write_text(path, render_report(report))
    return Path(path)
