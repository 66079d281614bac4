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
import difflib
import io
import math
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import yaml

from aqnet.config import read_yaml
from aqnet.errors import ParameterError, explain
from aqnet.jobs.notebook import parameters_source, read_notebook

__all__ = [
    "Parameter",
    "check_values",
    "convert",
    "declared_values",
    "parse_assignments",
    "parse_parameters",
    "parse_source",
    "render",
    "resolve",
]

Value = int | float | str | bool | list | None
TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
_OPTIONAL = " | None"
_NULL = "null"
_FORM = "name: type = default  # help [unit] {range}"
_COMMENT = re.compile(
    r"(?P<help>.*?)\s*(?:\[(?P<unit>[^][]*)\])?\s*(?:\{(?P<range>[^{}]*)\})?", re.DOTALL
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook.

    Attributes
    ----------
    name : str
        Python name.
    type : str
        One of int, float, str, bool, list[int], list[float], list[str].
    default : int, float, str, bool, list or None
        Value of that type; None only if `optional`.
    help, unit : str
        From the comment; empty if not given.
    minimum, maximum : float or None
        Closed range of the value, or of each item of a list.
    choices : tuple or None
        Allowed values, or allowed items of a list.
    optional : bool
        Whether the value may be None (declared `type | None`).
    """

    name: str
    type: str
    default: Value
    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple | None = None
    optional: bool = False

    @property
    def item_type(self) -> str:
        """Type of one item of a list; the type itself otherwise."""
        return self.type.removeprefix("list[").removesuffix("]")

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return self.type.startswith("list[")

    def describe(self) -> str:
        """Type, unit and range in one phrase, as error messages and `aqnet params` show it."""
        text = self.type
        if self.unit:
            text += f" in {self.unit}" if self.unit != "1" else " (no unit)"
        if self.choices is not None:
            text += f", one of {', '.join(render(c) for c in self.choices)}"
        if self.minimum is not None or self.maximum is not None:
            low = "" if self.minimum is None else render(self.minimum)
            high = "" if self.maximum is None else render(self.maximum)
            text += f", range {low}..{high}"
        return f"{text}; or {_NULL}" if self.optional else text


# ---- values


class _MismatchError(Exception):
    """A value does not fit; holds what was expected and found."""

    def __init__(self, expected: str, found: str):
        super().__init__(expected, found)
        self.expected, self.found = expected, found


def _show(value: object) -> str:
    return f"{value!r:.80} ({type(value).__name__})"


def _to_int(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _MismatchError("a whole number", _show(value))


def _to_float(value: object) -> float:
    number = value
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            number = float(value)
    except (ValueError, OverflowError):
        raise _MismatchError("a finite number", _show(value)) from None
    if isinstance(number, float) and math.isfinite(number):
        return number
    raise _MismatchError("a finite number", _show(value))


def _to_bool(value: object) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        value = words[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise _MismatchError("true or false", _show(value))


def _to_str(value: object) -> str:
    # YAML reads a plain 2013-03-01 as a date; its ISO text is what was written.
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str):
        return value
    raise _MismatchError("text (in a YAML file: in quotes)", _show(value))


_CONVERTERS = {"int": _to_int, "float": _to_float, "bool": _to_bool, "str": _to_str}


def _split_list(text: str) -> list[str]:
    """Items of `[a, b]` as text, so that each is converted by the declared type, not YAML's."""
    wanted = "a list such as [12,24]"
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise _MismatchError(wanted, _show(text)) from None
    flow = isinstance(node, yaml.SequenceNode) and node.flow_style
    if not flow or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        raise _MismatchError(wanted, _show(text))
    return [item.value for item in node.value]


def _check_range(parameter: Parameter, value: Value) -> None:
    if parameter.choices is not None and value not in parameter.choices:
        raise _MismatchError(f"one of {', '.join(map(repr, parameter.choices))}", repr(value))
    low, high = parameter.minimum, parameter.maximum
    if low is not None and value < low:
        raise _MismatchError(f"at least {low!r}", repr(value))
    if high is not None and value > high:
        raise _MismatchError(f"at most {high!r}", repr(value))


def _converted(parameter: Parameter, value: object) -> Value:
    if parameter.optional and (value is None or value == _NULL):
        return None
    to_item = _CONVERTERS[parameter.item_type]
    if not parameter.is_list:
        result = to_item(value)
        _check_range(parameter, result)
        return result
    if isinstance(value, str):
        value = _split_list(value)
    if not isinstance(value, (list, tuple)):
        raise _MismatchError("a list such as [12,24]", _show(value))
    items = [to_item(item) for item in value]
    for item in items:
        _check_range(parameter, item)
    return items


def convert(parameter: Parameter, value: object, source: str) -> Value:
    """Turn text or a YAML value into a value of the parameter's type and range.

    Parameters
    ----------
    parameter : Parameter
        What is expected.
    value : object
        Text (`"[12,24]"`, `"1e-4"`, `"false"`, `"null"`) or a typed value.
    source : str
        Where the value stands, for the message.

    Returns
    -------
    int, float, str, bool, list or None

    Raises
    ------
    ParameterError
        Wrong type or out of range. A bool is not an int, 12.0 is not an int, and None is a value
        of an optional parameter only.
    """
    try:
        return _converted(parameter, value)
    except _MismatchError as mismatch:
        message = explain(
            f"parameter {parameter.name} ({source}): {mismatch.expected} needed",
            expected=parameter.describe(),
            found=mismatch.found,
            remedy=f"for example -p {parameter.name}={_example(parameter)}",
        )
        raise ParameterError(message) from None


def _example(parameter: Parameter) -> str:
    """A value that fits, where possible one that says more than `null`."""
    if parameter.default is None and parameter.choices:
        item = parameter.choices[0]
        return render([item] if parameter.is_list else item)
    return render(parameter.default)


def render(value: Value) -> str:
    """Text of a value, such that `convert` gives the same value back.

    Parameters
    ----------
    value : int, float, str, bool, list or None

    Returns
    -------
    str
        One line (unless a str holds line breaks itself): `true`, `0.0001`, `[12, 24]`, `null`.
    """
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return yaml.safe_dump(list(value), default_flow_style=True, width=math.inf).strip()
    return value if isinstance(value, str) else repr(value)


# ---- the parameters cell


def _comments(source: str) -> dict[int, str]:
    """Comment text by line number; tokenize, because a `#` may stand inside a string."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _range(text: str, item_type: str) -> dict:
    """`low..high` or `a|b|c` as fields of Parameter."""
    to_item = _CONVERTERS[item_type]
    if ".." in text and item_type in ("int", "float"):
        low, high = (part.strip() for part in text.split("..", 1))
        ends = {
            "minimum": to_item(low) if low else None,
            "maximum": to_item(high) if high else None,
        }
        given = [end for end in ends.values() if end is not None]
        if not given or given != sorted(given):
            raise _MismatchError("a range {low..high} with low <= high", f"{{{text}}}")
        return ends
    choices = tuple(to_item(part.strip()) for part in text.split("|"))
    if len(set(choices)) != len(choices) or "" in choices:
        raise _MismatchError("different choices {a|b|c}", f"{{{text}}}")
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
        raise _MismatchError(f"`{_FORM}`", "another statement")
    annotation = ast.unparse(statement.annotation)
    kind = annotation.removesuffix(_OPTIONAL)
    if kind not in TYPES:
        raise _MismatchError(f"a type out of {', '.join(TYPES)}, or one `| None`", annotation)
    try:
        default = ast.literal_eval(statement.value)
    except (ValueError, TypeError):
        raise _MismatchError("a literal as default", ast.unparse(statement.value)) from None
    optional = annotation != kind
    if optional and default is None:
        return kind, optional, None
    if default == _NULL and optional:
        raise _MismatchError("None, not its text", _show(default))
    if any(isinstance(v, str) != kind.endswith(("str", "str]")) for v in _items(default)):
        raise _MismatchError(f"a default of type {annotation}", _show(default))
    return kind, optional, default


def _from_statement(statement: ast.stmt, comment: str) -> Parameter:
    kind, optional, default = _type_and_default(statement)
    parts = _COMMENT.fullmatch(comment)
    text = parts["help"].strip()
    if re.search(r"[{}]", text):
        raise _MismatchError("one {range} at the end of the comment", comment)
    fields = {"help": text, "unit": (parts["unit"] or "").strip(), "optional": optional}
    if parts["range"] is not None:
        item_type = kind.removeprefix("list[").removesuffix("]")
        fields |= _range(parts["range"], item_type)
    if optional and _NULL in (fields.get("choices") or ()):
        raise _MismatchError(f"choices without {_NULL}, which is None", comment)
    parameter = Parameter(statement.target.id, kind, default, **fields)
    return replace(parameter, default=_converted(parameter, default))


def _line_error(label: str, line: int, source: str, mismatch: _MismatchError) -> ParameterError:
    text = source.splitlines()[line - 1].strip()
    return ParameterError(
        explain(
            f"{label}, parameters cell, line {line}: {text}",
            expected=mismatch.expected,
            found=mismatch.found,
            remedy=f"write the line as `{_FORM}`",
        )
    )


def parse_source(source: str, label: str) -> list[Parameter]:
    """Read the parameters that the text of a parameters cell declares; see `parse_parameters`."""
    try:
        statements = ast.parse(source).body
        comments = _comments(source)
    except SyntaxError as error:
        mismatch = _MismatchError("Python", error.msg)
        raise _line_error(label, error.lineno or 1, source, mismatch) from error
    found: dict[str, Parameter] = {}
    for statement in statements:
        try:
            parameter = _from_statement(statement, comments.get(statement.end_lineno, ""))
            if parameter.name in found:
                raise _MismatchError("each name once", f"{parameter.name} again")
        except _MismatchError as mismatch:
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


# ---- resolving


def parse_assignments(items: Sequence[str]) -> dict[str, str]:
    """Split `name=value` texts, as given with `-p`.

    Raises
    ------
    ParameterError
        A text without `=` or name, or a name given twice.
    """
    result: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        name = name.strip()
        if not separator or not name:
            problem, found = "a parameter must be given as name=value", f"-p {item}"
        elif name in result:
            problem = f"parameter {name} is given twice with -p"
            found = f"{name}={result[name]} and {name}={value}"
        else:
            result[name] = value
            continue
        remedy = "give each parameter once, as -p name=value"
        raise ParameterError(explain(problem, expected="name=value", found=found, remedy=remedy))
    return result


def _unknown(name: str, known: Sequence[str], source: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return explain(
        f"unknown parameter {name} ({source})",
        expected=f"one of {', '.join(known)}" if known else "no parameter at all",
        found=name,
        remedy=f"did you mean {near[0]}?" if near else "`aqnet params NOTEBOOK` lists them",
    )


def resolve(
    parameters: Sequence[Parameter],
    files: Sequence[str | Path] = (),
    assignments: Sequence[str] | Mapping[str, object] = (),
) -> dict[str, Value]:
    """Merge defaults, parameter files and assignments into one typed set of values.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the notebook declares.
    files : sequence of path
        YAML files of `name: value`; a later file overrides an earlier one.
    assignments : sequence of str, or mapping
        `name=value` texts of the command line, or values by name; they override the files.

    Returns
    -------
    dict
        A value of the declared type for every parameter, in the order of `parameters`.

    Raises
    ------
    ParameterError
        Unknown names (with the nearest known one), wrong types, values out of range; all of
        them in one message.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    if not isinstance(assignments, Mapping):
        assignments = parse_assignments(assignments)
    layers = [(str(path), read_yaml(path, ParameterError)) for path in files]
    layers.append(("-p", assignments))
    values = {parameter.name: parameter.default for parameter in parameters}
    problems = []
    for source, given in layers:
        for name, value in given.items():
            if name not in by_name:
                problems.append(_unknown(str(name), list(by_name), source))
                continue
            try:
                values[name] = convert(by_name[name], value, source)
            except ParameterError as error:
                problems.append(str(error))
    if problems:
        raise ParameterError("\n".join(problems))
    return {n: list(v) if isinstance(v, list) else v for n, v in values.items()}


def check_values(parameters: Sequence[Parameter], values: Mapping[str, Value], label: str) -> None:
    """Check values that were typed into a parameters cell, by the rules of the command line.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the saved notebook declares.
    values : mapping
        By name, in the running notebook.
    label : str
        Name of the notebook in messages.

    Raises
    ------
    ParameterError
        Wrong type or out of range; or other names than the saved notebook declares.
    """
    names = [parameter.name for parameter in parameters]
    if set(names) != set(values):
        message = explain(
            f"the parameters that run are not those of {label} as it is saved",
            expected=", ".join(names),
            found=", ".join(values),
            remedy="save the notebook, and run the parameters cell again",
        )
        raise ParameterError(message)
    for parameter in parameters:
        convert(parameter, values[parameter.name], "in the parameters cell")


def declared_values(namespace: Mapping[str, object]) -> dict[str, Value]:
    """Present values of the parameters in a notebook's own namespace.

    Parameters
    ----------
    namespace : mapping
        `globals()` in a cell: the same in JupyterLab, under `aqnet run` and in a compiled script.

    Returns
    -------
    dict
        By name, in the order of the parameters cell (the names that were declared with a type).

    Raises
    ------
    ParameterError
        The parameters cell has not been run.
    """
    names = namespace.get("__annotations__")
    if names is None and "__annotate__" in namespace:  # Python 3.14 computes them when asked
        names = namespace["__annotate__"](1)
    if names:
        return {name: namespace[name] for name in names}
    message = explain(
        "the notebook has no parameters yet",
        expected=f"a parameters cell of `{_FORM}`, run before this one",
        found="no name declared with a type",
        remedy="run the parameters cell",
    )
    raise ParameterError(message)
