"""Tables of scoreboards: heat maps of skill, and scores with all forecasts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from aqnet.verification.groups import ALL
from aqnet.verification.report.boards import BoardFile, group_title
from aqnet.verification.report.colours import heat
from aqnet.verification.report.page import Cell, Table
from aqnet.verification.report.wording import UNIT, VERDICTS, best_of, label, number, unit_of
from aqnet.verification.score_tables import error_table, event_table, level_table

__all__ = ["SKILL_LIMIT", "head", "region_heat", "score_tables", "skill_cell", "skill_heats"]

_ABREAST = 4  # baselines in one heat map
SKILL_LIMIT = 0.5  # where the colours of heat maps end [1]
_HEAT_NOTE = (
    "1 - RMSE / RMSE of the other: above zero (blue) the model has the smaller error; colours "
    f"end at {SKILL_LIMIT:g}. ▲ better and ▼ worse at 5 % by the Diebold-Mariano test, "
    "corrected (Holm) over the cells of one baseline; no mark: no difference shown."
)


class _Score(NamedTuple):
    column: str
    title: str
    rule: str  # which is best
    has_unit: bool


_ERRORS = (
    _Score("rmse_over_space_time", "RMSE", "lowest", True),
    _Score("mae_over_space_time", "MAE", "lowest", True),
    _Score("bias_over_space_time", "Bias (forecast - truth)", "closest to zero", True),
    _Score("centred_rmse_over_space_time", "RMSE without bias", "lowest", True),
    _Score("correlation_over_space_time", "Correlation", "highest", False),
    _Score("anomaly_correlation_over_space_time", "Anomaly correlation", "highest", False),
)
_PAIRS_BESIDE = "rmse_over_space_time"  # every table would repeat them
_EVENTS = (
    _Score(
        "probability_of_detection_over_space_time", "Probability of detection", "highest", False
    ),
    _Score("false_alarm_ratio_over_space_time", "False alarm ratio", "lowest", False),
    _Score("critical_success_index_over_space_time", "Critical success index", "highest", False),
)
_LEVELS = (
    _Score("accuracy_of_level_over_space_time", "Share of the right level", "highest", False),
    _Score("within_one_level_over_space_time", "Share within one level", "highest", False),
    _Score("accuracy_of_primary_pollutant_over_space_time",
           "Share with the right primary pollutant", "highest", False),
)  # fmt: skip


def head(text: str, style: str = "", span: int = 1) -> Cell:
    """Cell of a head, or first cell of a row."""
    return Cell(text, style=style, span=span, head=True)


# ---- heat maps


def skill_cell(row: pd.Series, keys: Sequence[str], style: str = "") -> Cell:
    """Skill in colour; a mark where the Diebold-Mariano test finds a difference.

    `keys`: columns of the table of skill that tell this row from the others.
    """
    colour, ink = heat(row["skill"], SKILL_LIMIT)
    mark = "" if row["verdict"] == "tie" else VERDICTS[row["verdict"]][0]
    where = {key: row[key] for key in keys}
    return Cell(number(row["skill"], "skill"), float(row["skill"]), "skill", where, style,
                colour, ink, mark)  # fmt: skip


def _lead_heads(file: BoardFile, blocks: Sequence[str]) -> list[list[Cell]]:
    """Two rows of heads: the blocks, and the lead times in each."""
    leads = file.board.design.leads
    first, second = [head("")], [head("", "text")]
    for block in blocks:
        first.append(head(block, "gap", len(leads)))
        second += [head(f"{lead} {file.lead_unit}", _gap(i)) for i, lead in enumerate(leads)]
    return [first, second]


def _gap(index: int) -> str:
    return "gap" if index == 0 else ""


def skill_heats(file: BoardFile, skill: pd.DataFrame) -> list[Table]:
    """Skill of the model by pollutant and lead, one block of columns for each baseline.

    `skill`: `skill_table` of one group of places. One table for every four baselines: the width
    of a page.
    """
    references = list(skill["reference"].unique())
    parts = [references[i : i + _ABREAST] for i in range(0, len(references), _ABREAST)]
    return [_skill_heat(file, skill, part) for part in parts]


def _skill_heat(file: BoardFile, skill: pd.DataFrame, references: Sequence[str]) -> Table:
    keys, rows = (*file.cells, "reference"), []
    for pollutant, part in skill.groupby("pollutant", sort=False):
        cells = [head(label(str(pollutant)))]
        for reference in references:
            lines = part[part["reference"] == reference].iterrows()
            cells += [skill_cell(row, keys, _gap(i)) for i, (_, row) in enumerate(lines)]
        rows.append(cells)
    group = str(skill["group"].iloc[0])
    heads = _lead_heads(file, [f"against {reference}" for reference in references])
    command = file.command("--skill", file.model, "--only", f"group={group}")
    title, note = f"Skill of {file.model}, {group_title(group)}", f"{_HEAT_NOTE} {file.days}"
    return Table(heads, rows, title, "1", note, command, file.key, style="heat")


def region_heat(file: BoardFile, skill: pd.DataFrame, reference: str) -> Table:
    """Skill against one baseline: pollutants and lead times down, groups of places across."""
    part, keys = skill[skill["reference"] == reference], (*file.cells, "reference", "group")
    rows, last = [], None
    for (pollutant, hours), lines in part.groupby(list(file.cells), sort=False):
        first = head(label(pollutant) if pollutant != last else "")
        rows.append(
            [first, Cell(str(hours)), *(skill_cell(row, keys) for _, row in lines.iterrows())]
        )
        last = pollutant
    groups = [head(group_title(group)) for group in part["group"].unique()]
    heads = [[head("", "text"), head(f"lead [{file.lead_unit}]"), *groups]]
    command = file.command("--skill", file.model, "--by", "group")
    title = f"Skill of {file.model} against {reference}, by group of places"
    note = "As above; the correction is over the cells of one column."
    return Table(heads, rows, title, "1", note, command, file.key, style="heat wide")


# ---- scores of all forecasts


def score_tables(file: BoardFile, group: str = ALL) -> list[Table]:
    """Error scores and scores of events of a group of places, one table for each score."""
    cells, found = file.cells, error_table(file.board, file.cells, group=group)
    again = file.table_command(cells, group=group)
    tables = [
        _score_table(file, found, score, cells, again) for score in _ERRORS if score.column in found
    ]
    tables += _level_tables(file, group)
    if "event" not in file.board.sums:
        return tables
    limit = "threshold" if file.days else "threshold_ug_m3"
    found, keys = event_table(file.board, cells, group=group), (*cells, limit)
    again = file.table_command(cells, "--events", group=group)
    windows = [c for c in found if c.startswith("fractions_skill_score")]
    shares = [
        _Score(c, f"Fractions skill score, windows of {c.split('_')[-2]} cells", "highest", False)
        for c in windows
    ]
    return tables + [_score_table(file, found, s, keys, again) for s in (*_EVENTS, *shares)]


def _level_tables(file: BoardFile, group: str) -> list[Table]:
    """Of an index: how often its level and the primary pollutant are right."""
    design = file.board.design
    if not design.index:
        return []
    lead = design.lead_axis
    found = level_table(file.board, (lead,), group=group).assign(pollutant=design.index)
    again = file.table_command((lead,), "--levels", group=group)
    return [_score_table(file, found, s, file.cells, again, ("pollutant",)) for s in _LEVELS]


def _score_table(
    file: BoardFile, found: pd.DataFrame, score: _Score, keys: Sequence[str], command: str,
    unnamed: Sequence[str] = (),
) -> Table:  # fmt: skip
    """Rows by `keys`, the first of which is the pollutant; forecasts across.

    `unnamed`: keys that the table of the command does not have.
    """
    names, rows, last = [file.model, *file.others], [], None
    order = found["pollutant"].map(file.board.design.pollutants.index)
    found = found.iloc[order.argsort(kind="stable")]  # leads of one pollutant together
    known = found.groupby(list(keys))[score.column].transform("count") > 0
    for labels, part in found[known].groupby(list(keys), sort=False):
        where = dict(zip(keys, labels, strict=True))
        first = label(labels[0]) if labels[0] != last else ""
        values = part.set_index("forecast")[score.column].reindex(names)
        where = {key: value for key, value in where.items() if key not in unnamed}
        cells = _scores_row(file, values, score, where)
        if score.column == _PAIRS_BESIDE:
            cells.append(Cell(f"{part['n'].iloc[0]:.0f}", style="same"))
        rows.append([head(first), *(Cell(f"{v:g}") for v in labels[1:]), *cells])
        last = labels[0]
    lead = file.board.design.lead_axis
    titles = {lead: f"lead [{file.lead_unit}]", "threshold_ug_m3": "above [ug/m3]",
              "threshold": "above [unit of the product]"}  # fmt: skip
    heads = [head("", "text"), *(head(titles[key]) for key in keys[1:]), *map(head, names)]
    heads += [head("pairs")] * (score.column == _PAIRS_BESIDE)
    unit = _units(file) if score.has_unit else "1"
    title = f"{score.title}, best: {score.rule}"
    gone = int((~known).sum()) // len(names)
    note = f"{gone} rows without a value for any forecast are left out. " if gone else ""
    return Table([heads], rows, title, unit, note + file.days, command, file.key, style="scores")


def _scores_row(file: BoardFile, values: pd.Series, score: _Score, where: dict) -> list[Cell]:
    best = best_of(values.to_numpy(dtype=float), score.rule)
    cells = []
    for name, value in values.items():
        styles = [s for s, on in (("own", name == file.model), ("best", value == best)) if on]
        cells.append(
            Cell(number(value, score.column), float(value), score.column,
                 {"forecast": name, **where}, " ".join(styles), mark="•" if value == best else "")
        )  # fmt: skip
    return cells


def _units(file: BoardFile) -> str:
    """The unit, and those products that have another."""
    pollutants = file.board.design.pollutants
    others = [f"{label(p)}: {unit_of(p)}" for p in pollutants if unit_of(p) != UNIT]
    return "; ".join([UNIT] * (len(others) < len(pollutants)) + others)
