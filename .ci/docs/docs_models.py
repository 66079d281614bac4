"""Configuration models and records as tables: field, type, default, meaning."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs_text import (
    ROOT,
    UndocumentedError,
    article,
    attributes,
    cell,
    field_comments,
    rst,
    table,
)
from docs_types import describe
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import aqnet
from aqnet.config import Config
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import render
from aqnet.jobs.parameters import Parameter
from aqnet.training.options import FLAT_NAMES

TRAINING = ROOT / "nbs" / "train" / "forecast.ipynb"
# Constants of the simulation: each name says what it is and its unit, the modules say the rest.
WITHOUT_MEANING = "aqnet.data.twin.config"
NEEDS_JUPYTER = (
    "aqnet.jobs.compile",
    "aqnet.jobs.execute",
    "aqnet.jobs.kernel",
    "aqnet.jobs.notebook_end",
)


@cache
def models() -> dict[str, type[Config]]:
    """All models of the package by name."""
    for module in pkgutil.walk_packages(aqnet.__path__, "aqnet."):
        if module.name not in NEEDS_JUPYTER:
            importlib.import_module(module.name)

    def below(model: type[Config]) -> Iterator[type[Config]]:
        for child in model.__subclasses__():
            yield child
            yield from below(child)

    own = (m for m in below(Config) if m.__module__.startswith("aqnet."))
    return {m.__name__: m for m in own if not m.__pydantic_generic_metadata__["args"]}


@cache
def parameters(notebook: Path) -> dict[str, Parameter]:
    """Parameters of a notebook by name."""
    return {p.name: p for p in parse_parameters(notebook)}


@cache
def _of_parameters() -> dict[str, str]:
    """What the training notebook says of its parameters, by flat name."""
    return {n: p.help for n, p in parameters(TRAINING).items() if n in FLAT_NAMES and p.help}


# Prefix of the parameters of the training notebook that set the fields of a model.
_FLAT = dict.fromkeys(("ModelConfig", "TrainingConfig"), "")
_FLAT |= {"PhysicsConfig": "physics_", "ScanConfig": "scan_"}


def _bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model last, before it those of ours that it is made from."""
    return [
        base
        for base in reversed(model.__mro__)
        if issubclass(base, BaseModel) and base.__module__.startswith("aqnet.")
    ]


def _own_text(model: type[BaseModel]) -> dict[str, str]:
    """What the source of a model says of its fields."""
    found: dict[str, str] = {}
    for base in _bases(model):
        found |= field_comments(Path(inspect.getfile(base)), base.__name__)
        found |= {n: text for n, text in attributes(inspect.getdoc(base) or "").items() if text}
    return found


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Meaning of each field; empty where nothing says it."""
    said = _own_text(model)
    if model.__name__ in _FLAT:
        flat, prefix = _of_parameters(), _FLAT[model.__name__]
        named = {f: flat.get(f"{prefix}{f}", "") for f in model.model_fields}
        said = named | said
    texts = " ".join(inspect.getdoc(base) or "" for base in _bases(model))
    above = {f: "see above" for f in model.model_fields if f"`{f}`" in texts}
    return {f: said.get(f) or above.get(f, "") for f in model.model_fields}


def undocumented(model: type[BaseModel]) -> list[str]:
    """Fields of which nothing says what they are."""
    if model.__module__ == WITHOUT_MEANING:
        return []
    # What a docstring lists with its type alone, and the version of a record, need no more words.
    listed = {name for base in _bases(model) for name in attributes(inspect.getdoc(base) or "")}
    plain = listed | {"schema_version"}
    return [f for f, text in meanings(model).items() if not text and f not in plain]


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, (dict, tuple, list)) and not value:
        return "empty"
    return f"`{render(list(value) if isinstance(value, (tuple, set)) else value)}`"


def section(name: str, level: int = 3) -> str:
    """Heading, text and table of a model.

    Raises
    ------
    UndocumentedError
        A field has no meaning.
    """
    model = models()[name]
    if missing := undocumented(model):
        raise UndocumentedError(f"{model.__module__}.{name}: no description of {missing}")
    said = meanings(model)
    rows = []
    for field, info in model.model_fields.items():
        default = info.default_factory() if info.default_factory else info.default
        kind = describe(info.rebuild_annotation())
        rows.append((f"`{field}`", kind, _default(default), cell(said[field])))
    heading = f"{'#' * level} {name.strip('_')} {{ #{name.strip('_').lower()} }}\n"
    return "\n".join((heading, rst(article(inspect.getdoc(model))),
                      table(("Key", "Type", "Default", "Meaning"), rows)))  # fmt: skip
