"""Markdown of the generated pages: tables, and what sources say of the names in them."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class UndocumentedError(Exception):
    """Something that a user can set or read has no description."""


def cell(text: object) -> str:
    """A table cell: one line; what Markdown or HTML would take as its own stays as it is."""
    words = " ".join(str(text).split())
    for sign, code in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("*", "&#42;")):
        words = words.replace(sign, code)
    return words


def code(text: object) -> str:
    """Code in a table cell; empty for empty text."""
    return f"`{' '.join(str(text).split())}`".replace("|", "&#124;") if str(text) else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its cells come from `cell` or `code`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# `code` cannot hold an entity in Markdown: the bar of a choice is written in words there.
def listed(values: Iterable[object]) -> str:
    """Choices in a table cell."""
    return ", ".join(f"`{value}`" for value in values)


def fence(text: str, kind: str = "text") -> str:
    """A block of text as it is."""
    return f"```{kind}\n{text.rstrip()}\n```\n"


def rst(text: str) -> str:
    """A docstring as Markdown: a literal block after `::` becomes a fenced one."""
    found, literal = [], []
    for line in [*textwrap.dedent(text).splitlines(), "end"]:
        if line.startswith("    ") or (literal and not line.strip()):
            literal.append(line)
            continue
        if literal:
            found += [fence(textwrap.dedent("\n".join(literal))), ""]
            literal = []
        found.append("" if line.strip() == "::" else line)
    return "\n".join(found[:-1]).strip() + "\n"


def article(text: str) -> str:
    """First part of a numpy docstring, before its sections."""
    return re.split(r"\n[A-Z]\w+( \w+)?\n-{4,}\n", text)[0].strip()


def attributes(doc: str) -> dict[str, str]:
    """Entries of the section `Attributes` of a numpy docstring, by name; types are left out."""
    section = re.search(r"\nAttributes\n-+\n(.*?)(?=\n\w+( \w+)?\n-{4,}\n|\Z)", doc, re.DOTALL)
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(" : ")[0].split(",")]
            found |= {name: [] for name in names}
        else:
            for name in names:
                found[name].append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


@cache
def _lines(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Comments of a file by line: those after code, and those that have a line alone."""
    after, alone = {}, {}
    with path.open("rb") as stream:
        content = stream.read()
    for token in tokenize.tokenize(io.BytesIO(content).readline):
        if token.type == tokenize.COMMENT:
            kind = alone if token.line.lstrip().startswith("#") else after
            kind[token.start[0]] = token.string.lstrip("#").strip()
    return after, alone


def _said(path: Path, first: int, last: int) -> str:
    """Comment after an entry, or the lines of comment directly above it."""
    after, alone = _lines(path)
    if last in after:
        return "" if after[last].startswith("fmt:") else after[last]
    above = []
    while (first := first - 1) in alone:
        above.insert(0, alone[first])
    return "" if above and above[0].startswith(("----", "%%", "|")) else " ".join(above)


@cache
def tree(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def field_comments(path: Path, name: str) -> dict[str, str]:
    """Comments on the annotated fields of a class in a file; a field without one is left out."""
    body = next(n.body for n in tree(path).body if isinstance(n, ast.ClassDef) and n.name == name)
    fields = [n for n in body if isinstance(n, ast.AnnAssign)]
    said = {n.target.id: _said(path, n.lineno, n.end_lineno) for n in fields}
    return {field: text for field, text in said.items() if text}


def item_comments(path: Path, name: str) -> dict[str, str]:
    """Comments on the items of a mapping or tuple of text that a file assigns to `name`."""
    assigned = [n for n in tree(path).body if isinstance(n, ast.Assign)]
    value = next(n.value for n in assigned if getattr(n.targets[0], "id", "") == name)
    keys = value.keys if isinstance(value, ast.Dict) else value.elts
    ends = value.values if isinstance(value, ast.Dict) else value.elts
    pairs = zip(keys, ends, strict=True)
    return {k.value: _said(path, k.lineno, e.end_lineno) for k, e in pairs}


def require(missing: Iterable[str], where: str) -> None:
    """Raise UndocumentedError if anything is missing."""
    if missing := sorted(missing):
        raise UndocumentedError(f"{where}: no description of {', '.join(missing)}")
