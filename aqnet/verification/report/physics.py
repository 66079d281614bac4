"""Physics checks in a report: what `aqnet physics` and `aqnet probe` wrote."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from aqnet.errors import explain
from aqnet.io import sha256_file
from aqnet.metrics import VerificationError
from aqnet.verification.report.boards import record_items
from aqnet.verification.report.page import Cell, Command, Listing, Picture, Section, Table, Text
from aqnet.verification.report.tables import head

__all__ = ["physics_section"]

_RESULTS = "results.json"
_TITLES = {"physics": "Values and mass budget", "probe": "Counterfactual probes"}
_APART = ("record", "pictures", "version", "kind")
_MOST_ROWS, _MOST_LISTED = 40, 12  # longer tables are folded, longer lists named by their ends


def physics_section(folders: Sequence[Path]) -> Section:
    """Results and pictures of each folder.

    Raises
    ------
    VerificationError
        A folder without results.json, or one that lacks what `aqnet physics` writes.
    """
    parts = [_part(Path(folder), index) for index, folder in enumerate(folders, start=1)]
    return Section("physics", "Physics checks", [], parts)


def _part(folder: Path, index: int) -> Section:
    path = folder / _RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        made, shown = results["record"], results["pictures"]
        images = [_picture(folder / one["file"], one) for one in shown]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise VerificationError(
            explain(f"{folder} holds no results of physics checks", found=repr(problem),
                    expected=f"{_RESULTS} with `record` and `pictures`, and the pictures",
                    remedy="give a folder that aqnet physics or aqnet probe wrote")
        ) from problem  # fmt: skip
    origin = [("file", str(path)), ("SHA-256", sha256_file(path)), *record_items(made)]
    blocks = [*images, *_values(results), Command(shlex.join(made["command"]), "Made by"),
              Listing(origin, code=True)]  # fmt: skip
    title = _TITLES.get(results.get("kind"), folder.name)
    return Section(f"physics-{index}", title, blocks)


def _values(results: dict) -> list:
    """Everything that is neither a picture nor the record; definitions last."""
    held = {k: v for k, v in results.items() if k not in _APART}
    last = held.pop("definitions", {})
    blocks = [block for name, value in held.items() for block in _blocks(name, value)]
    return [*blocks, *_blocks("definitions", last)]


def _blocks(name: str, value: object) -> list:
    """Tables for lists of objects, a listing for the rest of an object."""
    if _is_table(value):
        return [_table(name, value)]
    if not isinstance(value, dict):
        return [Listing([(_words(name), _text(value))])]
    plain = [(k, v) for k, v in value.items() if not _is_table(v)]
    blocks: list = [_table(f"{name}, {k}", v) for k, v in value.items() if _is_table(v)]
    if plain:
        blocks += [Text([f"{_words(name).capitalize()}:"]),
                   Listing([(_words(k), _text(v)) for k, v in plain])]  # fmt: skip
    return blocks


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(name: str, rows: list[dict]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[Cell(_text(row.get(c)), style=_style(row.get(c))) for c in columns] for row in rows]
    heads = [head(_words(column), _style(rows[0].get(column))) for column in columns]
    return Table([heads], lines, f"{_words(name).capitalize()} ({len(rows)} rows)", style="scores",
                 folded=len(rows) > _MOST_ROWS)  # fmt: skip


def _style(value: object) -> str:
    return "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "text"


def _text(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{_words(k)} {_text(v)}" for k, v in value.items())
    if isinstance(value, list) and len(value) > _MOST_LISTED:
        return f"{len(value)}: {_text(value[0])} to {_text(value[-1])}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _picture(path: Path, one: dict) -> Picture:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(f"data:image/png;base64,{data}", one["title"], one["caption"], one["title"])
