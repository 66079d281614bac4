"""Notebooks stay short enough to read: few cells, and short ones where they are exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "nbs").rglob("*.ipynb"))
CELLS = 40
LINES = 27  # "about 25", without directives


def code_of(path: Path) -> list[list[str]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]).splitlines() for c in cells if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_of_few_cells_and_none_is_empty(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= CELLS
    assert [n for n, cell in enumerate(cells) if not "".join(cell["source"]).strip()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exported_cells_are_short(path):
    exported = [lines for lines in code_of(path) if lines and lines[0].startswith("#| export")]
    bodies = [[line for line in lines if not line.startswith("#|")] for lines in exported]
    assert {b[0]: len(b) for b in bodies if len(b) > LINES} == {}
