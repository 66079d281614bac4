"""What every manifest says: source, licence, labels of hours, and the three splits."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr, StringConstraints, field_validator, model_validator

from aqnet.config import Config
from aqnet.grid import GRIDS, Grid
from aqnet.io import sha256_json

__all__ = ["DataSet", "Period", "Sha256", "Span", "Split", "Text"]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Period(Config):
    """First and last label of the source, in its own local time, inclusive."""

    start: datetime  # first label
    end: datetime  # last label
    step_h: Literal[1]  # hours between labels


class Span(Config):
    """First and last day, local dates of the source, both inclusive."""

    start: date  # first day
    end: date  # last day

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.end < self.start:
            raise ValueError(f"a span that ends on or after its start, not {self.end}")
        return self


class Split(Config):
    """Three spans that do not overlap, in this order."""

    train: Span  # what is fitted on
    validation: Span  # what is chosen on
    test: Span  # what is judged on

    @model_validator(mode="after")
    def _ordered(self) -> Split:
        for early, late in (("train", "validation"), ("validation", "test")):
            if getattr(self, early).end >= getattr(self, late).start:
                raise ValueError(f"{late} starting after the end of {early}")
        return self


class DataSet(Config):
    """The part that manifests of stations and of grids share.

    Dates and labels are local, as the source publishes them. `to_utc` is the one place where
    they become instants: the END of the averaging hour, in UTC. A value stamped t therefore
    holds nothing measured after t.
    """

    name: Text  # of the data set, its stores and its file
    title: Text  # one line
    source: Text  # where the data come from
    doi: Text  # of the data
    licence: Text  # of the data
    attribution: Text  # credit that the licence asks for
    synthetic: bool  # simulated: marked so wherever the data appear
    # local time of labels minus UTC [h]
    source_utc_offset_h: Annotated[float, Field(ge=-12, le=14)]
    averaging_label: Literal["end", "start"]  # end of its hour that a label names
    averaging_label_note: Text  # how that is known
    split: Split  # train, validation and test
    grid: Literal[tuple(GRIDS)]  # name in aqnet.grid.GRIDS
    quirks: tuple[Text, ...]  # what is odd about the data, in words

    _root: Path | None = PrivateAttr(default=None)

    @field_validator("source_utc_offset_h")
    @classmethod
    def _whole_minutes(cls, offset: float) -> float:
        if offset * 60 != round(offset * 60):
            raise ValueError("an offset of whole minutes")
        return offset

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever the layout of the YAML file."""
        return sha256_json(self.model_dump(mode="json"))

    def to_utc(self, label: np.ndarray) -> np.ndarray:
        """Instants (datetime64[ns], UTC, end of the averaging hour) of local labels.

        Parameters
        ----------
        label : array of datetime64
            As published: local time.
        """
        minutes = round(self.source_utc_offset_h * 60)
        if self.averaging_label == "start":
            minutes -= 60  # all sources are hourly
        return np.asarray(label).astype("datetime64[ns]") - np.timedelta64(minutes, "m")

    def split_bounds(self, name: Literal["train", "validation", "test"]) -> tuple:
        """First instant of a split and first instant after it: start <= t < end, UTC.

        An hour belongs to the split in which its published label lies. The label 00:00 of the
        first day is the first one, so the border is the instant `to_utc(midnight)`.
        """
        span: Span = getattr(self.split, name)
        after = span.end + timedelta(days=1)
        return self.to_utc(np.datetime64(span.start)), self.to_utc(np.datetime64(after))

    def grid_object(self) -> Grid:
        """The grid that `grid` names."""
        return GRIDS[self.grid]
