"""Typed parameters of a notebook, read from its one cell tagged `parameters`.

Each line of that cell declares one parameter::

    name: type = default  # help text [unit] {range}

`type` is int, float, str, bool, list[int], list[float] or list[str], or one of these `| None`.
The default is a literal. Help, unit and range may be left out. The range is `{low..high}` (either
end may be missing) or `{a|b|c}`; for a list it holds for each item. Lines with only a comment are
allowed. The value None is written `null`, as in YAML, on the command line and in files.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aqnet.errors import ParameterError, explain
from aqnet.jobs.notebook import parameters_source, read_notebook
from aqnet.jobs.parameter_types import NULL, TYPES, MismatchError, item_type, show, typed
from aqnet.jobs.parameters import FORM, Parameter

__all__ = ["parse_parameters", "parse_source"]

_OPTIONAL = " | None"
_COMMENT = re.compile(
    r"(?P<help>.*?)\s*(?:\[(?P<unit>[^][]*)\])?\s*(?:\{(?P<range>[^{}]*)\})?", re.DOTALL
)


def _comments(source: str) -> dict[int, str]:
    """Comment text by line number; tokenize, because a `#` may stand inside a string."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _range(text: str, kind: str) -> dict:
    """`low..high` or `a|b|c` as fields of Parameter."""
    if ".." in text and kind in ("int", "float"):
        low, high = (part.strip() for part in text.split("..", 1))
        ends = {
            "minimum": typed(kind, low) if low else None,
            "maximum": typed(kind, high) if high else None,
        }
        given = [end for end in ends.values() if end is not None]
        if not given or given != sorted(given):
            raise MismatchError("a range {low..high} with low <= high", f"{{{text}}}")
        return ends
    choices = tuple(typed(kind, part.strip()) for part in text.split("|"))
    if len(set(choices)) != len(choices) or "" in choices:
        raise MismatchError("different choices {a|b|c}", f"{{{text}}}")
    return {"choices": choices}


def _items(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _type_and_default(statement: ast.stmt) -> tuple[str, bool, object]:
    """Declared type without `| None`, whether it had one, and the literal."""
    simple = (
        isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and statement.value is not None
    )
    if not simple:
        raise MismatchError(f"`{FORM}`", "another statement")
    annotation = ast.unparse(statement.annotation)
    kind = annotation.removesuffix(_OPTIONAL)
    if kind not in TYPES:
        raise MismatchError(f"a type out of {', '.join(TYPES)}, or one `| None`", annotation)
    try:
        default = ast.literal_eval(statement.value)
    except (ValueError, TypeError):
        raise MismatchError("a literal as default", ast.unparse(statement.value)) from None
    optional = annotation != kind
    if optional and default is None:
        return kind, optional, None
    if default == NULL and optional:
        raise MismatchError("None, not its text", show(default))
    if any(isinstance(v, str) != kind.endswith(("str", "str]")) for v in _items(default)):
        raise MismatchError(f"a default of type {annotation}", show(default))
    return kind, optional, default


def _from_statement(statement: ast.stmt, comment: str) -> Parameter:
    kind, optional, default = _type_and_default(statement)
    parts = _COMMENT.fullmatch(comment)
    text = parts["help"].strip()
    if re.search(r"[{}]", text):
        raise MismatchError("one {range} at the end of the comment", comment)
    fields = {"help": text, "unit": (parts["unit"] or "").strip(), "optional": optional}
    if parts["range"] is not None:
        fields |= _range(parts["range"], item_type(kind))
    if optional and NULL in (fields.get("choices") or ()):
        raise MismatchError(f"choices without {NULL}, which is None", comment)
    parameter = Parameter(statement.target.id, kind, default, **fields)
    return replace(parameter, default=parameter.typed(default))


def _line_error(label: str, line: int, source: str, mismatch: MismatchError) -> ParameterError:
    text = source.splitlines()[line - 1].strip()
    return ParameterError(
        explain(
            f"{label}, parameters cell, line {line}: {text}",
            expected=mismatch.expected,
            found=mismatch.found,
            remedy=f"write the line as `{FORM}`",
        )
    )


def parse_source(source: str, label: str) -> list[Parameter]:
    """Read the parameters that the text of a parameters cell declares; see `parse_parameters`."""
    try:
        statements = ast.parse(source).body
        comments = _comments(source)
    except SyntaxError as error:
        mismatch = MismatchError("Python", error.msg)
        raise _line_error(label, error.lineno or 1, source, mismatch) from error
    found: dict[str, Parameter] = {}
    for statement in statements:
        try:
            parameter = _from_statement(statement, comments.get(statement.end_lineno, ""))
            if parameter.name in found:
                raise MismatchError("each name once", f"{parameter.name} again")
        except MismatchError as mismatch:
            raise _line_error(label, statement.lineno, source, mismatch) from None
        found[parameter.name] = parameter
    return list(found.values())


def parse_parameters(nb: str | Path | Mapping, label: str | None = None) -> list[Parameter]:
    """Read the parameters that a notebook declares.

    Parameters
    ----------
    nb : path or mapping
        Notebook file, or its content (a dict or nbformat node of format 4).
    label : str, optional
        Name of the notebook in messages; the path by default.

    Returns
    -------
    list of Parameter
        In the order of the cell.

    Raises
    ------
    ParameterError
        No cell or several cells tagged `parameters`, or a line that is not
        `name: type = literal  # help [unit] {range}`; the message names notebook and line.
    """
    if isinstance(nb, Mapping):
        label = label or "the notebook"
        return parse_source(parameters_source(nb, label), label)
    return parse_parameters(read_notebook(nb), label or str(nb))
