"""Types of configuration fields in words."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from docs_text import listed
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PLAIN = {
    int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path",
    date: "date", datetime: "date and time", type(None): "null", None: "null", dict: "mapping",
    object: "value",
}  # fmt: skip
_SIGNS = {
    annotated_types.Ge: ("ge", ">="), annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "<="), annotated_types.Lt: ("lt", "<"),
    annotated_types.MultipleOf: ("multiple_of", "multiple of"),
    annotated_types.MinLen: ("min_length", "at least"),
    annotated_types.MaxLen: ("max_length", "at most"),
}  # fmt: skip


# What a parameter of a notebook may be, lists aside.
_SCALARS = {bool, int, float, str, type(None)}


def _limits(metadata: Sequence[object]) -> list[str]:
    found = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += _limits(item.metadata)
        if type(item) in _SIGNS:
            name, sign = _SIGNS[type(item)]
            value = getattr(item, name)
            entries = " entries" if name.endswith("length") else ""
            # one word at least is what everybody expects of a text
            found += [] if entries and value <= 1 else [f"{sign} {value}{entries}"]
    return found


def _model(kind: type[BaseModel]) -> str:
    made_from = kind.__pydantic_generic_metadata__
    if made_from["args"]:  # Setting[T]
        words = describe(made_from["args"][0])
        return f"{words} ([with reason](#{made_from['origin'].__name__.lower()}))"
    return f"[{kind.__name__}](#{kind.__name__.strip('_').lower()})"


def describe(kind: object) -> str:
    """A type in words, as Markdown for a table cell.

    Raises
    ------
    TypeError
        A kind of type that no configuration had so far.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = _limits(kind.__metadata__)
        return ", ".join((describe(arguments[0]), *limits)).replace("|", "&#124;")
    if origin is Literal:
        return listed("null" if value is None else value for value in arguments)
    if origin in (Union, types.UnionType):
        plain = _SCALARS if set(arguments) >= _SCALARS else set()
        words = [describe(argument) for argument in arguments if argument not in plain]
        return " or ".join(["one value"] * bool(plain) + words)
    if origin in (tuple, list, Sequence):
        many = origin is not tuple or arguments[-1] is Ellipsis
        words = [describe(a) for a in arguments if a is not Ellipsis]
        return f"list of {words[0]}" if many else f"list [{'; '.join(words)}]"
    if origin in (dict, Mapping):
        return f"mapping of {describe(arguments[0])} to {describe(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _model(kind)
    if isinstance(kind, TypeVar):
        return "any value"
    if kind in _PLAIN:
        return _PLAIN[kind]
    raise TypeError(f"no words for the type {kind!r}")
