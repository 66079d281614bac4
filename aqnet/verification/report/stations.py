"""Table of stations: how well cells stand for them, and the scores at each."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from aqnet.verification.place_table import place_table
from aqnet.verification.report.boards import BoardFile
from aqnet.verification.report.page import Cell, Section, Table, Text
from aqnet.verification.report.tables import head
from aqnet.verification.report.wording import label, number, unit_of

__all__ = ["stations_section"]

_SPREAD = {
    "from_analysis": "the analysis sampled there: what no forecast of cells can be free of",
    "spread": "the others of its cell, n/a where it is alone",
}
_ABREAST = 3  # pollutants in one table: the width of a page
_MOST_ROWS = 60  # a national network has 1500 stations: its table is folded


def stations_section(file: BoardFile, lead: int, key: str, title: str) -> Section:
    """Stations of a board that was scored at stations, one table of a lead time.

    Parameters
    ----------
    file : BoardFile
        Its record has "stations".
    lead : int
        Lead time of the scores.
    key, title : str
        Of the section.
    """
    record, rows = file.board.record["stations"], file.board.record["stations"]["table"]
    withheld = sum(bool(row["withheld"]) for row in rows)
    text = [
        f"{len(rows)} stations, {withheld} of them withheld from the analysis; fields are sampled "
        f"by the method {record['sampling']}. Distance is that to the centre of the cell, height "
        f"the station's less the cell's; spread is the root mean square difference of a station "
        f"from {_SPREAD[_spread_of(rows)]}."
    ]
    for name, what in (("outside", "left out"), ("unfitted", "without a climatology")):
        if record[name]:
            listed = "; ".join(f"{k}: {v}" for k, v in list(record[name].items())[:20])
            text.append(f"{len(record[name])} stations {what}: {listed}.")
    names = file.board.design.pollutants
    parts = [names[i : i + _ABREAST] for i in range(0, len(names), _ABREAST)]
    return Section(key, title, [Text(text), *(_table(file, rows, lead, part) for part in parts)])


def _table(file: BoardFile, rows: Sequence[dict], lead: int, pollutants: Sequence[str]) -> Table:
    design, found = file.board.design, place_table(file.board)
    found = found[(found["forecast"] == file.model) & (found[design.lead_axis] == lead)]
    at = found.set_index(["place", "pollutant"])
    lines = []
    for row in sorted(rows, key=lambda r: (bool(r["withheld"]), str(r["id"]))):
        line = [head(str(row["id"])), *_described(row)]
        for pollutant in pollutants:
            line += _scores(at.loc[(row["id"], pollutant)], file, lead, row["id"], pollutant)
            line.append(Cell(_known(row, f"{_spread_of(rows)}_{pollutant}_ug_m3", ".1f")))
        lines.append(line)
    first = [head("", span=9)]
    names = ("station", "network", "class", "used", "lat [deg]", "lon [deg]", "distance [km]",
             "height [m]", "in cell")  # fmt: skip
    second = [head(name, "text" if name in names[:4] else "") for name in names]
    for pollutant in pollutants:
        first.append(head(f"{label(pollutant)} [{unit_of(pollutant)}]", "rule", 3))
        second += [head("RMSE", "rule"), head("bias"), head("spread")]
    title = f"Scores of {file.model} at each station, {lead} {file.lead_unit} ahead"
    return Table([first, second], lines, title, "", file.days, file.command("--places"), file.key,
                 style="scores", folded=len(lines) > _MOST_ROWS)  # fmt: skip


def _spread_of(rows: Sequence[dict]) -> str:
    """Which of `_SPREAD` the rows have."""
    return "from_analysis" if any(k.startswith("from_analysis") for k in rows[0]) else "spread"


def _known(row: dict, name: str, form: str) -> str:
    return "n/a" if row.get(name) is None else format(row[name], form)


def _described(row: dict) -> list[Cell]:
    used = "withheld" if row["withheld"] else "assimilated"
    words = [Cell(str(row[name]), style="text") for name in ("network", "class")]
    numbers = (
        ("lat", ".3f"),
        ("lon", ".3f"),
        ("distance_km", ".1f"),
        ("height_difference_m", ".0f"),
        ("stations_in_cell", "d"),
    )
    return [*words, Cell(used, style="text"), *(Cell(_known(row, *one)) for one in numbers)]


def _scores(one: pd.Series, file: BoardFile, lead: int, place: str, pollutant: str) -> list[Cell]:
    where = {"forecast": file.model, file.board.design.lead_axis: lead, "place": place,
             "pollutant": pollutant}  # fmt: skip
    return [
        Cell(number(one[column], column), float(one[column]), column, where, style)
        for column, style in (("rmse_over_time", "rule"), ("bias_over_time", ""))
    ]
