"""Definition of a sweep: one YAML file, all of whose points are checked before anything starts.

::

    name: width-and-plume
    notebook: nbs/train/forecast.ipynb     # relative to the repository; parameters of all points:
    parameters: {max_epochs: 3, physics: true, physics_elevation: 'off', physics_position: none}
    grid: {width: [32, 64], depth: [2, 4]} # all combinations
    zip:                                   # together: first with first, ...
      learning_rate: [1.0e-4, 2.0e-4]
      batch_size: [64, 128]
    list:                                  # explicit points, such as the arms of an experiment
      - {label: plain, parameters: {physics_plume: 'off'}}
      - {label: plume, parameters: {physics_plume: learned}}
    seeds: 3                               # 0, 1, 2 in each of them; or a list such as [1, 5]
    evaluate:                              # after each; gets the run folder as `train_run`
      notebook: nbs/evaluate/beijing.ipynb
      parameters: {stride: 12}
    summary:                               # once, after all points; gets the name as `sweep`
      notebook: nbs/evaluate/verdict.ipynb
      parameters: {reference: plain}
    metrics: {validation_loss: min curve.validation}   # columns of results.csv

The points are the product of `list`, `zip`, `grid` and `seeds`, the last varying fastest. A metric
is a place in metrics.json of the run, with `min`, `max`, `first` or `last` before it if it is a
list; `evaluation:` in front takes it from the evaluation.

A definition never changes once it has begun, so "all points" are those of the file. The summary is
done once, too: it is not repeated after a point was run again by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, field_validator, model_validator

from aqnet.config import Config, load_yaml
from aqnet.errors import ParameterError, explain
from aqnet.jobs.parameter_types import render

__all__ = [
    "SEED",
    "SWEEP",
    "TRAIN_RUN",
    "Arm",
    "Evaluation",
    "Given",
    "Summary",
    "SweepDefinition",
    "load_definition",
    "parse_metric",
    "text_of",
]

SEED, TRAIN_RUN, SWEEP = "seed", "train_run", "sweep"

Scalar = bool | int | float | str | None
Given = Scalar | tuple[Scalar, ...]
Values = tuple[Given, ...]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Line = Annotated[str, StringConstraints(pattern=r"^\S([^\r\n]*\S)?$")]
_METRIC = re.compile(r"(evaluation:)?(?:(min|max|first|last) )?(\w+(?:\.\w+)*)")


def parse_metric(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Split a metric such as `evaluation:min curve.validation`.

    Returns
    -------
    where, reduction, keys
        `run` or `evaluation`; min, max, first, last or empty; keys in metrics.json.

    Raises
    ------
    ParameterError
        It has another form.
    """
    match = _METRIC.fullmatch(text)
    if match is None:
        raise ParameterError(explain(
            f"not a metric: {text}", expected="[evaluation:][min |max |first |last ]key.key",
            found=text, remedy="for example `min curve.validation`",
        ))  # fmt: skip
    return "evaluation" if match[1] else "run", match[2] or "", tuple(match[3].split("."))


def text_of(values: Mapping[str, object]) -> str:
    """`name=value, ...`, as labels show parameters."""
    return ", ".join(f"{name}={render(value)}" for name, value in values.items())


class Arm(Config):
    """An entry of `list`."""

    label: Line | None = None  # in tables; the parameters in its place
    parameters: dict[str, Given]  # that this entry sets

    @property
    def name(self) -> str:
        """The label, or the parameters in its place."""
        return self.label or text_of(self.parameters) or "defaults"


class _Follower(Config):
    """A notebook that runs after others; the sweep sets one of its parameters."""

    notebook: Line  # relative to the repository
    parameters: dict[str, Given] = Field(default_factory=dict)  # that differ from the defaults
    given: ClassVar[str]

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, parameters: dict[str, Given]) -> dict[str, Given]:
        if cls.given in parameters:
            raise ValueError(f"{cls.given} is set by the sweep")
        return parameters


class Evaluation(_Follower):
    """What runs after each point; its parameter `train_run` is the run folder of the point."""

    given: ClassVar[str] = TRAIN_RUN


class Summary(_Follower):
    """What runs once, when all points are complete; its parameter `sweep` is the sweep's name."""

    given: ClassVar[str] = SWEEP


class SweepDefinition(Config):
    """Content of a sweep file; see the module."""

    name: Name  # of the sweep, its folder and its jobs
    notebook: Line  # relative to the repository
    parameters: dict[str, Given] = Field(default_factory=dict)  # the same in all points
    # all combinations
    grid: dict[str, Annotated[Values, Field(min_length=1)]] = Field(default_factory=dict)
    # together: first with first
    zip: dict[str, Annotated[Values, Field(min_length=1)]] = Field(default_factory=dict)
    list: Annotated[tuple[Arm, ...], Field(min_length=1)] | None = None  # explicit points
    # how many, from 0, or which
    seeds: (
        Annotated[int, Field(ge=1)]
        | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
        | None
    ) = None
    evaluate: Evaluation | None = None  # runs after each point
    summary: Summary | None = None  # runs once, after all points
    metrics: dict[Name, Line] = Field(default_factory=dict)  # columns of results.csv

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, metrics: dict[str, str]) -> dict[str, str]:
        for text in metrics.values():
            try:
                parse_metric(text)
            except ParameterError as error:
                raise ValueError(str(error).splitlines()[0]) from error
        return metrics

    @model_validator(mode="after")
    def _consistent(self) -> SweepDefinition:
        lengths = {name: len(values) for name, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the lists of `zip` need one length, not {text_of(lengths)}")
        names = [arm.name for arm in self.list or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"labels of `list` given twice: {', '.join(twice)}")
        sections = [set(self.parameters), set(self.grid), set(self.zip),
                    {name for arm in self.list or () for name in arm.parameters},
                    {SEED} if self.seeds is not None else set()]  # fmt: skip
        counts = [name for section in sections for name in section]
        several = sorted({name for name in counts if counts.count(name) > 1})
        if several:
            raise ValueError(f"each parameter in one section only, not {', '.join(several)}")
        return self

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the parameters that differ between points, without the seed."""
        of_list = [name for arm in self.list or () for name in arm.parameters]
        return tuple(dict.fromkeys([*of_list, *self.zip, *self.grid]))


def load_definition(path: str | Path) -> SweepDefinition:
    """Read a sweep file.

    Raises
    ------
    ParameterError
        No such file, unknown keys, wrong types, or no points at all.
    """
    return load_yaml(path, SweepDefinition, ParameterError)
