"""Two to six boards side by side: the same cells, differences with intervals and tests."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.bootstrap import rmse_skill
from aqnet.verification.groups import ALL
from aqnet.verification.report.boards import TABLE_FILE, BoardFile, group_title
from aqnet.verification.report.leads import draw_skill
from aqnet.verification.report.page import Cell, Section, Table, Text, picture
from aqnet.verification.report.tables import SKILL_LIMIT, head, skill_cell
from aqnet.verification.report.wording import joined, label, number, unit_of
from aqnet.verification.scores import window_h
from aqnet.verification.significance import diebold_mariano, holm, verdict

__all__ = ["compare_boards", "comparison_section", "titles"]

# Weights of the pairs of an init time agree to rounding where the pairs are the same.
_SAME_WEIGHT = 1e-9


def titles(files: Sequence[BoardFile]) -> list[str]:
    """Name of the judged forecast of each board, with the board where names repeat."""
    names = [file.model for file in files]
    return [
        f"{name} (board {i})" if names.count(name) > 1 else name
        for i, name in enumerate(names, start=1)
    ]


def compare_boards(files: Sequence[BoardFile], group: str = ALL) -> pd.DataFrame:
    """Skill of the judged forecast of each board against that of each board before it.

    Parameters
    ----------
    files : sequence of BoardFile
        Two to six, with the same lead times and pollutants.
    group : str
        Of places, in every board.

    Returns
    -------
    pandas.DataFrame
        pollutant, lead_h or lead_day, group, model, reference, n_times, rmse and
        rmse_of_reference and rmse_difference [unit of the pollutant], skill, skill_low,
        skill_high [1], p, p_holm, verdict. Over the init times that two boards have in common.

    Raises
    ------
    VerificationError
        Other cells, or pairs that differ at an init time: then RMSE of different truths would
        be compared.
    """
    _check_cells(files)
    names, design = titles(files), files[0].board.design
    cells = [(p, lead) for p in design.pollutants for lead in design.leads]
    parts = []
    for b, a in combinations(range(len(files)), 2):
        rows = [_row(files[a], files[b], cell, group) for cell in cells]
        adjusted = holm(np.array([row["p"] for row in rows]))
        for row, p in zip(rows, adjusted, strict=True):
            outcome = verdict(float(p), row.pop("mean_difference"), 0.05)
            row |= {"p_holm": float(p), "verdict": outcome}
            parts.append(row | {"group": group, "model": names[a], "reference": names[b]})
    first = ["pollutant", design.lead_axis, "group", "model", "reference"]
    found = pd.DataFrame(parts)
    return found[[*first, *(c for c in found if c not in first)]]


def _check_cells(files: Sequence[BoardFile]) -> None:
    def cells(file: BoardFile) -> tuple:
        design = file.board.design
        return design.pollutants, design.lead_axis, design.leads, design.edition, design.days

    wrong = [file for file in files if cells(file) != cells(files[0])]
    if len(files) < 2 or wrong:
        raise VerificationError(
            explain("boards with other cells cannot be compared", expected=cells(files[0]),
                    found=cells(wrong[0]) if wrong else "one board", remedy="score the stores "
                    "with the same lead times and pollutants")
        )  # fmt: skip


def _row(mine: BoardFile, other: BoardFile, cell: tuple, group: str) -> dict:
    pollutant, lead = cell
    times, a, b = _common(mine, other, pollutant, lead, group)
    block = window_h(mine.board.design, lead)
    test, skill = diebold_mariano(a, b, block, times), rmse_skill(a, b, times, block)
    rmse = [float(np.sqrt(loss.mean())) for loss in (a, b)]
    return {
        "pollutant": pollutant,
        mine.board.design.lead_axis: lead,
        "n_times": int(times.size),
        "rmse": rmse[0],
        "rmse_of_reference": rmse[1],
        "rmse_difference": rmse[0] - rmse[1],
        "skill": skill.skill,
        "skill_low": skill.low,
        "skill_high": skill.high,
        "p": test.p_value,
        "mean_difference": test.mean_difference,
    }


def _common(
    mine: BoardFile, other: BoardFile, pollutant: str, lead: int, group: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Init times of both boards and the squared errors there."""
    found = []
    for file in (mine, other):
        design, board = file.board.design, file.board
        at = [
            design.labels(axis).index(name)
            for axis, name in ((design.lead_axis, lead), ("pollutant", pollutant), ("group", group))
        ]
        weight = board.weight[:, *at]
        found.append((board.times, weight, board.squares[file.model][:, *at]))
    (times, w, a), (others, v, b) = found
    both, i, j = np.intersect1d(times[w > 0], others[v > 0], return_indices=True)
    w, a, v, b = w[w > 0][i], a[w > 0][i], v[v > 0][j], b[v > 0][j]
    if not both.size or not np.allclose(w, v, rtol=_SAME_WEIGHT):
        differ = int((~np.isclose(w, v, rtol=_SAME_WEIGHT)).sum())
        raise VerificationError(
            explain(f"{mine.path} and {other.path} were not scored on the same pairs",
                    expected="init times in common, the same cells or stations at each",
                    found=f"{both.size} in common, other pairs at {differ} of them ({pollutant}, "
                    f"{lead} {mine.lead_unit}, {group})",
                    remedy="score both stores in one command: aqnet score A B ...")
        )  # fmt: skip
    return both, a / w.mean(), b / w.mean()


# ---- the page


def _command(files: Sequence[BoardFile], group: str) -> str:
    models = [word for file in files for word in ("--model", file.model)]
    paths = [str(file.path) for file in files]
    return shlex.join(
        ["aqnet", "report", *paths, *models, "--group", group, "--comparison-csv", TABLE_FILE]
    )


def _pair_table(files: Sequence[BoardFile], part: pd.DataFrame, command: str, key: str) -> Table:
    """Skill in colour with its interval and the difference of RMSE, pollutants down."""
    file = files[0]
    leads, lead = file.board.design.leads, file.board.design.lead_axis
    first, second = [head("")], [head("", "text")]
    for one in leads:
        first.append(head(f"{one} {file.lead_unit}", "gap", 4))
        second += [head("skill", "gap"), head("95 %: from"), head("to"), head("RMSE diff.")]
    keys, rows = ("pollutant", lead, "model", "reference"), []
    for pollutant, lines in part.groupby("pollutant", sort=False):
        row = [head(f"{label(str(pollutant))} [{unit_of(str(pollutant))}]")]
        for _, line in lines.iterrows():
            where = {k: line[k] for k in keys}
            difference = float(line["rmse_difference"])
            row += [
                skill_cell(line, keys, "gap"),
                *(
                    Cell(number(line[k], "skill"), float(line[k]), k, where)
                    for k in ("skill_low", "skill_high")
                ),
                Cell(number(difference, "bias"), difference, "rmse_difference", where),
            ]
        rows.append(row)
    counts = sorted({str(count) for count in part["n_times"]}, key=int)
    model, reference = part["model"].iloc[0], part["reference"].iloc[0]
    note = (
        f"1 - RMSE of {model} / RMSE of {reference}; colours end at {SKILL_LIMIT:g}, ▲ ▼ as in the "
        f"scorecards. RMSE differences: {model} - {reference}, unit in the first column. "
        f"Init times in common: {' to '.join(dict.fromkeys((counts[0], counts[-1])))}."
    )
    return Table([first, second], rows, f"{model} against {reference}", "1", note, command,
                 "origin", key, "heat")  # fmt: skip


def comparison_section(files: Sequence[BoardFile], group: str = ALL) -> Section:
    """Table and figure of the judged forecasts of several boards."""
    found, names = compare_boards(files, group), titles(files)
    command = _command(files, group)
    blocks: list = [
        Text([f"The judged forecasts of {len(files)} boards ({joined(names)}), "
              f"{group_title(group)}, over the init times that two boards have in common, on the "
              "same pairs. Differences have intervals by the block bootstrap, the same blocks for "
              "both."])
    ]  # fmt: skip
    for index, (_, part) in enumerate(found.groupby(["reference", "model"], sort=False), start=1):
        blocks.append(_pair_table(files, part, command, f"comparison-{index}"))
    against = found[found["reference"] == names[0]].assign(reference=lambda t: t["model"])
    blocks.append(_picture(against, names[0], files[0].lead_unit))
    return Section("comparison", "Comparison of the boards", blocks)


def _picture(against: pd.DataFrame, first: str, unit: str) -> object:
    figure: Figure = draw_skill(against, unit)
    caption = f"Skill against {first} [1] with 95 % intervals; above zero: smaller error than it."
    return picture(figure, f"Skill against {first} by lead time", caption)
