"""How forecasts of other systems lie in their files: names, times, units, from a YAML file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import xarray as xr
from pydantic import Field, model_validator

from aqnet.config import Config, load_yaml
from aqnet.errors import DataError, ParameterError, explain
from aqnet.variables import TARGETS

__all__ = [
    "ForeignFileError",
    "Layout",
    "VariableLayout",
    "file_error",
    "first_of",
    "layout_names",
    "load_layout",
]

_FOLDER = Path(__file__).parent / "layouts"


class ForeignFileError(DataError):
    """A file of forecasts made elsewhere is not as its layout says."""


def file_error(
    path: Path, problem: str, expected: object, found: object, remedy: str = ""
) -> ForeignFileError:
    """A ForeignFileError that names the file."""
    own = "aqnet.verification.foreign.layout.Layout"
    remedy = remedy or f"name the right layout, or write one: see {own}"
    return ForeignFileError(
        explain(f"{path}: {problem}", expected=expected, found=found, remedy=remedy)
    )


def first_of(path: Path, data: xr.Dataset, names: Sequence[str], what: str) -> str:
    """The first of `names` that the file has; ForeignFileError without any."""
    for name in names:
        if name in data.variables:
            return name
    expected, found = " or ".join(names), sorted(map(str, data.variables))
    raise file_error(path, f"there is no {what}", expected, found)


class VariableLayout(Config):
    """A pollutant in the files.

    `unit`: instead of the attribute `units`. `level`: coordinate and value to select. `last`: a
    dimension of which the last entry is the forecast.
    """

    name: str  # in the file
    unit: str | None = None
    level: dict[str, float] = Field(default_factory=dict, max_length=1)
    last: str | None = None


class Layout(Config):
    """Layout of the files of a source; lists are names of which the first that is there counts.

    `time` says where init time and lead time stand: "init_and_lead": two coordinates; "steps":
    one file an init time, whose coordinate `step` is valid times or hours since the init time,
    which is an attribute of that coordinate (`init_pattern`, a regular expression with the date
    YYYYMMDD) or given by the user; "rollout": one file a step, `valid` is the valid time and
    `rollout_step` the number of steps of `step_h` hours since the init time.
    """

    title: str  # what the forecasts are
    time: Literal["init_and_lead", "steps", "rollout"]
    init: list[str] = Field(default_factory=list)  # coordinates of init times
    lead: list[str] = Field(default_factory=list)  # coordinates of lead times
    step: list[str] = Field(default_factory=list)
    init_pattern: str | None = None
    valid: list[str] = Field(default_factory=list)
    rollout_step: str | None = None
    step_h: int | None = None
    batch: str | None = None  # dimension of the forecasts in a file of a rollout
    lat: list[str]  # names of the latitude
    lon: list[str]  # names of the longitude
    values: Literal["instantaneous", "hourly mean"]  # what a value stands for
    negative_to_zero: bool = False  # noise of packing, -1 to 0 ug/m3, becomes zero
    variables: dict[str, VariableLayout]  # by our names

    @model_validator(mode="after")
    def _complete(self) -> Layout:
        needed = {"init_and_lead": ("init", "lead"), "steps": ("step",),
                  "rollout": ("valid", "rollout_step", "step_h")}[self.time]  # fmt: skip
        if lacking := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"time: {self.time} needs {', '.join(lacking)}")
        if unknown := sorted(set(self.variables) - set(TARGETS)):
            raise ValueError(f"unknown pollutants {unknown}; expected some of {TARGETS}")
        return self


def layout_names() -> list[str]:
    """Names of the layouts that ship with aqnet."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_layout(name: str | Path) -> Layout:
    """A layout that ships with aqnet, by name, or of a YAML file.

    Raises
    ------
    ParameterError
        There is none of that name or file.
    ManifestError
        The file does not have the form of a `Layout`.
    """
    path = _FOLDER / f"{name}.yaml" if str(name) in layout_names() else Path(name)
    if not path.is_file():
        raise ParameterError(
            explain(f"there is no layout {name}", expected=", ".join(layout_names()),
                    found="neither a name nor a file", remedy="write a YAML file: see Layout")
        )  # fmt: skip
    return load_yaml(path, Layout)
