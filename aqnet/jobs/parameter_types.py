"""Values of parameters: text and YAML values turned into the declared types, and back into text."""

from __future__ import annotations

import math
import re
from datetime import date, datetime

import yaml

__all__ = ["NULL", "TYPES", "MismatchError", "Value", "item_type", "render", "show", "typed"]

Value = int | float | str | bool | list | None
TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
NULL = "null"
_LIST = "a list such as [12,24]"


class MismatchError(Exception):
    """A value does not fit; holds what was expected and found."""

    def __init__(self, expected: str, found: str):
        super().__init__(expected, found)
        self.expected, self.found = expected, found


def item_type(kind: str) -> str:
    """Type of one item of a list; the type itself otherwise."""
    return kind.removeprefix("list[").removesuffix("]")


def show(value: object) -> str:
    """A value as errors show it, cut, with its Python type."""
    return f"{value!r:.80} ({type(value).__name__})"


def _to_int(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MismatchError("a whole number", show(value))


def _to_float(value: object) -> float:
    number = value
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            number = float(value)
    except (ValueError, OverflowError):
        raise MismatchError("a finite number", show(value)) from None
    if isinstance(number, float) and math.isfinite(number):
        return number
    raise MismatchError("a finite number", show(value))


def _to_bool(value: object) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        value = words[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise MismatchError("true or false", show(value))


def _to_str(value: object) -> str:
    # YAML reads a plain 2013-03-01 as a date; its ISO text is what was written.
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str):
        return value
    raise MismatchError("text (in a YAML file: in quotes)", show(value))


_CONVERTERS = {"int": _to_int, "float": _to_float, "bool": _to_bool, "str": _to_str}


def _split_list(text: str) -> list[str]:
    """Items of `[a, b]` as text, so that each is converted by the declared type, not YAML's."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise MismatchError(_LIST, show(text)) from None
    flow = isinstance(node, yaml.SequenceNode) and node.flow_style
    if not flow or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        raise MismatchError(_LIST, show(text))
    return [item.value for item in node.value]


def typed(kind: str, value: object) -> Value:
    """Turn text or a YAML value into a value of a type.

    Parameters
    ----------
    kind : str
        One of TYPES.
    value : object
        Text (`"[12,24]"`, `"1e-4"`, `"false"`) or a typed value.

    Raises
    ------
    MismatchError
        It is of another type.
    """
    to_item = _CONVERTERS[item_type(kind)]
    if item_type(kind) == kind:
        return to_item(value)
    items = _split_list(value) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise MismatchError(_LIST, show(value))
    return [to_item(item) for item in items]


def render(value: Value) -> str:
    """Text of a value, such that `typed` gives the same value back.

    Parameters
    ----------
    value : int, float, str, bool, list or None

    Returns
    -------
    str
        One line (unless a str holds line breaks itself): `true`, `0.0001`, `[12, 24]`, `null`.
    """
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return yaml.safe_dump(list(value), default_flow_style=True, width=math.inf).strip()
    return value if isinstance(value, str) else repr(value)
