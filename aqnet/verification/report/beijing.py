"""The report of a station evaluation with a training behind it, such as the one of Beijing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aqnet.verification.bootstrap import skill_table
from aqnet.verification.report.boards import origin_section
from aqnet.verification.report.context import ReportContext, summary
from aqnet.verification.report.leads import BARS, draw_rmse, rmse_table
from aqnet.verification.report.page import (
    Cell,
    Listing,
    Page,
    Section,
    Table,
    Text,
    picture,
    render_page,
    write_page,
)
from aqnet.verification.report.series import draw_station_series, draw_training_curve
from aqnet.verification.report.station_maps import draw_episode_maps
from aqnet.verification.report.tables import head, score_tables, skill_heats
from aqnet.verification.report.wording import (
    PAIRS_TEXT,
    UNIT,
    VERDICTS,
    label,
    number,
    p_value,
)
from aqnet.verification.scores import ASSIMILATED, WITHHELD, CellComparison, PrimaryTest

__all__ = ["render_report", "report_page", "write_report"]


# ---- the primary test


def _difference(percent: float) -> Cell:
    kind = "better" if percent < 0 else "worse" if percent > 0 else "same"
    return Cell(number(percent, "percent"), style=kind)


def _verdict(cell: CellComparison) -> Cell:
    sign, kind = VERDICTS[cell.verdict]
    return Cell(cell.verdict, style=f"verdict {kind}", mark=sign)


def _entry(cell: CellComparison, column: str, value: float, style: str = "") -> Cell:
    """A number that the table of skill has too."""
    row = {"pollutant": cell.pollutant, "lead_h": cell.lead_h, "reference": cell.opponent}
    text = p_value(value) if column == "p" else f"{value:.0f}"
    text = number(value) if column.startswith("rmse") else text
    return Cell(text, float(value), column, row, style)


def _primary_row(primary: PrimaryTest, index: int) -> list[Cell]:
    cell, before = primary.cells[index], primary.cells[index - 1] if index else None
    new = before is None or before.pollutant != cell.pollutant
    cells = [
        head(label(cell.pollutant) if new else ""),
        Cell(str(cell.lead_h)),
        _entry(cell, "rmse_over_space_time", cell.rmse_model, "own"),
        Cell(cell.opponent, style="text rule"),
        _entry(cell, "rmse_of_reference", cell.rmse_opponent),
        _difference(cell.difference_percent),
        _entry(cell, "n_effective", cell.n_effective, "rule"),
        _entry(cell, "p", cell.p),
        Cell(p_value(cell.p_holm)),
        _verdict(cell),
    ]
    for others in primary.yardsticks.values():
        other = others[index]
        cells += [_entry(other, "rmse_of_reference", other.rmse_opponent, "rule"),
                  _difference(other.difference_percent), _verdict(other)]  # fmt: skip
    return cells


def _primary_table(context: ReportContext) -> Table:
    primary, (file, group) = context.primary, context.boards[context.primary.place]
    first = [head("", span=3), head("against the best baseline", "rule", 3),
             head("Diebold-Mariano test", "rule", 4)]  # fmt: skip
    names = ("pollutant", "lead [h]", "model", "baseline", "RMSE", "model is [%]", "effective n",
             "p", "p (Holm)", "verdict")  # fmt: skip
    styles = {"pollutant": "text", "baseline": "text rule", "effective n": "rule"}
    second = [head(name, styles.get(name, "")) for name in names]
    for name in primary.yardsticks:
        first.append(head(f"against {name}", "rule", 3))
        second += [head("RMSE", "rule"), head("model is [%]"), head("verdict", "text")]
    rows = [_primary_row(primary, index) for index in range(len(primary.cells))]
    note = "The command has the test against every baseline; Holm's correction here is over these."
    command = file.command("--skill", primary.model, "--only", f"group={group}")
    return Table([first, second], rows, note=note, command=command, source=file.key,
                 key="primary-table")  # fmt: skip


def _primary_section(context: ReportContext) -> Section:
    primary = context.primary
    before = (
        f"Test year, {primary.place} pooled, RMSE in {UNIT}. The baseline is the best of "
        f'{", ".join(primary.baselines)} on the validation year. "Model is" gives the model\'s '
        "RMSE relative to the other: below zero (blue) it has the smaller error. Verdicts: ▲ won "
        f"and ▼ lost at {100 * primary.alpha:g} % after Holm's correction, = no difference shown."
    )
    counts = sorted({cell.n_times for cell in primary.cells})
    times = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    after = (
        "The test compares squared errors per init time. Hourly forecasts of the same weather are "
        "not independent, so the variance of the mean difference sums autocovariances up to "
        "max(2 x lead time, 240 h) with Bartlett weights, and the statistic is compared with a t "
        "distribution that knows this variance to be estimated (fixed-b asymptotics). "
        '"Effective n" is the number of independent times that would fix the mean difference as '
        f"well; the cells have {times} init times."
    )
    blocks = [Text([before]), _primary_table(context), Text([after])]
    return Section("primary", "Model against the best baseline", blocks)


# ---- all scores


def _places_section(context: ReportContext) -> Section:
    parts = []
    for index, (place, (file, group)) in enumerate(context.boards.items(), start=1):
        rows = context.scores[context.scores["place"] == place]
        lacking = rows.groupby("forecast", sort=False)["missing"].sum()
        missing = [f"{name} {n}" for name, n in lacking.items() if n]
        text = context.places[place]
        if missing:
            text += (" Pairs with known truth that a forecast lacks, and which are therefore "
                     f"scored for none: {', '.join(missing)}.")  # fmt: skip
        title = place[:1].upper() + place[1:]
        blocks = [Text([text]), *score_tables(file, group)]
        parts.append(Section(f"place-{index}", title, blocks, side=True))
    return Section("scores", "All scores", [Text([PAIRS_TEXT])], parts)


# ---- pictures


def _leads_section(context: ReportContext) -> Section:
    """Skill and RMSE at the stations; the grid is in the tables."""
    blocks: list = []
    for place in (ASSIMILATED, WITHHELD):
        if place in context.boards:
            file, group = context.boards[place]
            skill = skill_table(file.board, file.model, file.others, group)
            figure = draw_rmse(rmse_table(file, group), file.model)
            caption = f"Test year, stations pooled, {UNIT}. {BARS} Vertical axes differ."
            blocks += [*skill_heats(file, skill),
                       picture(figure, f"RMSE against lead time, {place}", caption,
                               f"At the {place}")]  # fmt: skip
    return Section("lead", "Skill and error against lead time", blocks)


def _episode_section(context: ReportContext) -> Section:
    episode, offset = context.episode, context.utc_offset_h
    name = label(episode.pollutant)
    maps = (
        f"{name} ({UNIT}), forecasts made {episode.lead_h} h before the valid time. Dots: "
        "assimilated stations, diamonds: withheld; their colour in the first column is the "
        "observed value. Thin lines: height of 100, 200, 400, 700, 1000, 1500 and 2000 m. "
        "Hatched: cells too far from a station, which the grid scores leave out."
    )
    series = "Observed (grey) and forecast concentrations against valid time."
    blocks = [
        picture(draw_episode_maps(episode, offset), f"Maps of {name}: truth, forecast, difference",
                maps),
        picture(draw_station_series(context.series, context.primary.model, offset),
                "Time series through the episode", series),
    ]  # fmt: skip
    return Section("episode", context.episode_title, blocks)


def report_page(report: ReportContext) -> Page:
    """The report as data."""
    primary, total = report.primary, len(report.primary.cells)
    sees = [(name, report.sees[name]) for name in report.scores["forecast"].unique()]
    after = ("No forecast uses anything later than its init time t, and nothing is fitted on the "
             "test year.")  # fmt: skip
    curve = picture(draw_training_curve(report.training), "Training curve", "Loss per epoch; the "
                    "dotted line marks the checkpoint that is judged here.")  # fmt: skip
    provenance = [
        Section(f"provenance-{index}", title, [_values(items)])
        for index, (title, items) in enumerate(report.provenance.items(), start=1)
    ]
    sections = [
        Section("summary", "Summary", [Text(summary(report), bullets=True)]),
        _primary_section(report),
        Section("sees", "What each forecast may see", [Listing(sees), Text([after])]),
        _leads_section(report),
        _episode_section(report),
        _places_section(report),
        Section("training", "Training", [curve]),
        origin_section(list({file.key: file for file, _ in report.boards.values()}.values())),
        Section("provenance", "Provenance", [], provenance),
    ]
    counts = [
        (f"{primary.won} of {total}", "cells won"),
        (f"{primary.lost} of {total}", "cells lost"),
        (f"{primary.tied} of {total}", "no difference shown"),
        (f"{primary.lower} of {total}", "cells with lower RMSE"),
    ]
    return Page(report.title, report.subtitle, sections, report.synthetic, counts)


def _values(items: Mapping[str, object]) -> Listing:
    return Listing([(key, str(value)) for key, value in items.items()], code=True)


def render_report(report: ReportContext) -> str:
    """`render_page` of `report_page`."""
    return render_page(report_page(report))


def write_report(path: str | Path, report: ReportContext) -> Path:
    """Render a report and write it in one piece; the file written."""
    return write_page(path, report_page(report))
