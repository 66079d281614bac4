"""The rooms of the package, from the table that tests/test_structure.py enforces."""

from __future__ import annotations

import ast
import sys

from docs_text import ROOT, UndocumentedError, cell, code, table, tree

sys.path.insert(0, str(ROOT / "tests"))
from test_structure import PACKAGE, ROOMS, imported, modules, room_of

_PRIVATE = {"__init__", "_modidx"}


def _purpose(name: str) -> str:
    """First line of the docstring of a module or package of aqnet."""
    folder = PACKAGE / name
    file = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py"
    text = ast.get_docstring(tree(file)) if file.is_file() else None
    if not text:
        raise UndocumentedError(f"{file}: no docstring")
    return text.splitlines()[0]


def _uses() -> dict[int, set[int]]:
    """For each room, the other rooms that its modules import."""
    found: dict[int, set[int]] = {number: set() for number in range(len(ROOMS))}
    for module, path in modules().items():
        names = imported(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        found[room_of(module)] |= {room_of(name) for name in names}
    return {room: used - {room} for room, used in found.items()}


def rooms_table() -> str:
    """One row a room: what is in it, and which rooms it imports at present."""
    present, rows = _uses(), []
    for number, room in enumerate(ROOMS):
        # A room may be reserved before anything is in it.
        names = [n for n in sorted(room - _PRIVATE) if (PACKAGE / n).is_dir() or
                 (PACKAGE / f"{n}.py").is_file()]  # fmt: skip
        what = "<br>".join(f"{code(n)}: {cell(_purpose(n))}" for n in names)
        used = ", ".join(str(other + 1) for other in sorted(present[number]))
        size = sum(room_of(module) == number for module in modules())
        rows.append((str(number + 1), what, str(size), used or "none"))
    return table(("Room", "What is in it", "Modules", "Imports at present from rooms"), rows)
