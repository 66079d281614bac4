"""Configuration models: strict about names and types, immutable, with readable errors."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from aqnet.errors import AqnetError, ManifestError, explain

__all__ = ["Config", "load_yaml", "read_yaml"]


class Config(BaseModel):
    """Base of all configuration models: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


_Model = TypeVar("_Model", bound=BaseModel)


def _duplicate_keys(node: yaml.Node | None, prefix: str = "") -> list[str]:
    """Keys given twice: YAML readers keep the last one silently."""
    found: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found += _duplicate_keys(item, f"{prefix}{index}.")
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        found += [
            f"{prefix}{key.value} (line {key.start_mark.line + 1})"
            for i, (key, _) in enumerate(node.value)
            if key.value in names[:i]
        ]
        for key, value in node.value:
            found += _duplicate_keys(value, f"{prefix}{key.value}.")
    return found


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def read_yaml(path: str | Path, error: type[AqnetError] = ManifestError) -> dict:
    """Read a YAML file that holds one mapping.

    Parameters
    ----------
    path : path
        YAML file, UTF-8.
    error : type
        Class of the error to raise.

    Returns
    -------
    dict
        The mapping; empty for an empty file.

    Raises
    ------
    AqnetError
        Of class `error`: no such file, not YAML, not a mapping, or a key given twice.
    """
    path = Path(path)
    where = f"cannot read {path}"
    if not path.is_file():
        raise error(
            explain(where, expected="a YAML file", found="no file there", remedy="check the path")
        )
    try:
        text = path.read_text(encoding="utf-8")
        # compose only builds nodes; safe_load cannot create Python objects.
        duplicates = _duplicate_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        found = _one_line(problem)
        message = explain(where, expected="YAML in UTF-8", found=found, remedy="correct the file")
        raise error(message) from problem
    if duplicates:
        found = "given twice: " + ", ".join(duplicates)
        message = explain(where, expected="each key once", found=found, remedy="delete one of them")
        raise error(message)
    content = {} if content is None else content
    if not isinstance(content, dict):
        found = f"a {type(content).__name__}"
        remedy = "write `key: value` lines"
        raise error(explain(where, expected="a mapping of keys", found=found, remedy=remedy))
    return content


def _plain(value: object) -> object:
    """YAML knows dates, JSON does not: ISO text, which pydantic reads back."""
    if isinstance(value, date):  # datetime too
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a value that a configuration file can hold")


def _expected(item: dict) -> str:
    special = {"extra_forbidden": "no such key", "missing": "this key"}
    text = special.get(item["type"], item["msg"])
    return text.removeprefix("Input should be ").removeprefix("Value error, ")


def _found(item: dict) -> str:
    if item["type"] == "missing":
        return "nothing"
    value = item["input"]
    return f"{str(value)!r:.80} ({type(value).__name__})"


def load_yaml(
    path: str | Path, model: type[_Model], error: type[AqnetError] = ManifestError
) -> _Model:
    """Read a YAML file into a configuration model.

    Types are strict: text is not turned into a number, nor a number into text. Dates may be
    written plainly (2013-03-01). YAML reads `1e-4` as text: write `1.0e-4`.

    Parameters
    ----------
    path : path
        YAML file.
    model : type
        Subclass of `Config`.
    error : type
        Class of the error to raise.

    Returns
    -------
    model
        Validated instance.

    Raises
    ------
    AqnetError
        Of class `error`: the file cannot be read, or a key is unknown, missing or of the wrong
        type; the message names the file and each key with what was expected and found.
    """
    content = read_yaml(path, error)
    try:
        text = json.dumps(content, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as problem:
        remedy = "use finite numbers, text, true/false, dates, lists and mappings"
        message = explain(
            f"{path} holds a value that cannot be read",
            expected="plain finite values",
            found=problem,
            remedy=remedy,
        )
        raise error(message) from problem
    try:
        # JSON mode: strict, and still reads lists into tuples and ISO text into dates.
        return model.model_validate_json(text, strict=True)
    except ValidationError as problem:
        items = problem.errors(include_url=False)
    keys = [".".join(str(part) for part in item["loc"]) or "(whole file)" for item in items]
    message = explain(
        f"{path} is not a valid {model.__name__}: {', '.join(keys)}",
        expected="; ".join(f"{key}: {_expected(i)}" for key, i in zip(keys, items, strict=True)),
        found="; ".join(f"{key}: {_found(i)}" for key, i in zip(keys, items, strict=True)),
        remedy=f"correct the file; known keys: {', '.join(model.model_fields)}",
    )
    raise error(message)
