"""Manifests: what a shipped data file is, where it comes from, and how to read its labels."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr, StringConstraints, field_validator, model_validator

from aqnet.config import Config, load_yaml
from aqnet.errors import ChecksumError, DataError, ManifestError, explain
from aqnet.grid import GRIDS, Grid
from aqnet.io import repository_root, sha256_file, sha256_json

__all__ = [
    "DataFile",
    "Manifest",
    "Period",
    "SourceVariable",
    "Span",
    "Split",
    "SuspectSpan",
    "WeatherSharing",
    "load_manifest",
    "resolve_manifest",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class DataFile(Config):
    """A shipped file: path relative to the folder above the manifest's own, and its digest."""

    path: Text
    sha256: Sha256
    content: Literal["stations", "static"]
    source: Text
    doi: str
    licence: Text
    attribution: Text


class SourceVariable(Config):
    """A variable as the source publishes it."""

    unit: Text
    long_name: Text


class Period(Config):
    """First and last label of the source, in its own local time, inclusive."""

    start: datetime
    end: datetime
    step_h: Literal[1]


class Span(Config):
    """First and last day, local dates of the source, both inclusive."""

    start: date
    end: date

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.end < self.start:
            raise ValueError(f"a span that ends on or after its start, not {self.end}")
        return self


class Split(Config):
    """Three spans that do not overlap, in this order."""

    train: Span
    validation: Span
    test: Span

    @model_validator(mode="after")
    def _ordered(self) -> Split:
        for early, late in (("train", "validation"), ("validation", "test")):
            if getattr(self, early).end >= getattr(self, late).start:
                raise ValueError(f"{late} starting after the end of {early}")
        return self


class WeatherSharing(Config):
    """Groups of stations with the same weather series, from this label (local time) on."""

    start: datetime
    groups: tuple[tuple[Text, ...], ...]


class SuspectSpan(Config):
    """First and last label (local time, inclusive) of hours whose values look wrong, and why."""

    start: datetime
    end: datetime
    reason: Text


class Manifest(Config):
    """Description of a data set of stations; see `data_manifests/beijing.yaml`.

    Dates and labels are local, as the source publishes them. `to_utc` is the one place where
    they become instants: the END of the averaging hour, in UTC. A value stamped t therefore
    holds nothing measured after t.
    """

    name: Text
    title: Text
    source: Text
    doi: Text
    licence: Text
    attribution: Text
    files: tuple[DataFile, ...]
    variables: dict[str, SourceVariable]
    period: Period
    source_utc_offset_h: Annotated[float, Field(ge=-12, le=14)]
    averaging_label: Literal["end", "start"]
    averaging_label_note: Text
    split: Split
    history_h: Annotated[int, Field(gt=0)]
    lead_times_h: tuple[Annotated[int, Field(gt=0)], ...]
    grid: Literal[tuple(GRIDS)]
    stations: tuple[Text, ...]
    withheld_stations: tuple[Text, ...]
    weather_sharing: tuple[WeatherSharing, ...]
    weather_suspect: tuple[SuspectSpan, ...]
    quirks: tuple[Text, ...]

    _root: Path | None = PrivateAttr(default=None)

    @field_validator("source_utc_offset_h")
    @classmethod
    def _whole_minutes(cls, offset: float) -> float:
        if offset * 60 != round(offset * 60):
            raise ValueError("an offset of whole minutes")
        return offset

    @model_validator(mode="after")
    def _known_stations(self) -> Manifest:
        if unknown := set(self.withheld_stations) - set(self.stations):
            raise ValueError(f"withheld_stations among stations, not {sorted(unknown)}")
        for epoch in self.weather_sharing:
            members = sorted(name for group in epoch.groups for name in group)
            if members != sorted(self.stations):
                raise ValueError(f"each station in one group of weather_sharing {epoch.start}")
        return self

    @model_validator(mode="after")
    def _sharing_covers_period(self) -> Manifest:
        starts = [epoch.start for epoch in self.weather_sharing]
        if starts[:1] != [self.period.start] or starts != sorted(set(starts)):
            raise ValueError("weather_sharing from the start of the period, in ascending order")
        return self

    @model_validator(mode="after")
    def _split_within_period(self) -> Manifest:
        first, last = self.period.start.date(), self.period.end.date()
        if self.split.train.start < first or self.split.test.end > last:
            raise ValueError(f"a split within the period {first} to {last}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever the layout of the YAML file."""
        return sha256_json(self.model_dump(mode="json"))

    # ---- files

    def file(self, content: str) -> DataFile:
        """The entry of `files` with this content ("stations" or "static")."""
        for entry in self.files:
            if entry.content == content:
                return entry
        message = explain(
            f"manifest {self.name} has no file with content {content!r}",
            expected=f"content: {content}",
            found=[entry.content for entry in self.files],
            remedy="add the file to `files` of the manifest",
        )
        raise ManifestError(message)

    def path(self, content: str, root: str | Path | None = None) -> Path:
        """Path of a file; `root` defaults to the folder above the manifest's own folder."""
        base = root or self._root or repository_root()
        return Path(base) / self.file(content).path

    def verify(self, root: str | Path | None = None, content: str | None = None) -> None:
        """Compare the SHA-256 of the files with the manifest.

        Parameters
        ----------
        root : path, optional
            Folder that the paths are relative to; default: the folder above the manifest's own.
        content : str, optional
            Check this file alone; default: all.

        Raises
        ------
        ChecksumError
            A file differs; names it, both digests and what to do.
        DataError
            A file is not there.
        """
        for entry in self.files:
            if content in (None, entry.content):
                _verify_file(self.path(entry.content, root), entry.sha256, self.name)

    # ---- time

    def to_utc(self, label: np.ndarray) -> np.ndarray:
        """Instants (datetime64[ns], UTC, end of the averaging hour) of local labels.

        Parameters
        ----------
        label : array of datetime64
            As published: local time.
        """
        minutes = round(self.source_utc_offset_h * 60)
        if self.averaging_label == "start":
            minutes -= 60 * self.period.step_h
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


def _verify_file(path: Path, expected: str, name: str) -> None:
    if not path.is_file():
        message = explain(
            f"a data file of manifest {name} is missing",
            expected=path,
            found="no file there",
            remedy="restore the file (git checkout), or give the folder that holds it",
        )
        raise DataError(message)
    found = sha256_file(path)
    if found != expected:
        message = explain(
            f"{path} is not the file that manifest {name} describes",
            expected=f"sha256 {expected}",
            found=f"sha256 {found}",
            remedy="restore the file (git checkout), or, if the change is meant, put the new "
            "sha256 into the manifest",
        )
        raise ChecksumError(message)


def load_manifest(path: str | Path) -> Manifest:
    """Read and validate a manifest; its files are looked for beside it.

    Parameters
    ----------
    path : path
        YAML file, e.g. `data_manifests/beijing.yaml`.

    Raises
    ------
    ManifestError
        No such file, not YAML, or a key that is unknown, missing or of the wrong type.
    """
    manifest = load_yaml(path, Manifest)
    manifest._root = Path(path).resolve().parent.parent
    return manifest


def resolve_manifest(name_or_path: str | Path) -> Path:
    """Path of a manifest: a path to a YAML file as it is, a name in `data_manifests`.

    Raises
    ------
    ManifestError
        There is no such file; lists the names that exist.
    """
    given = Path(name_or_path)
    if given.suffix in (".yaml", ".yml"):
        path = given
    else:
        path = repository_root() / "data_manifests" / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    known = sorted(p.stem for p in path.parent.glob("*.yaml"))
    message = explain(
        f"there is no manifest {name_or_path}",
        expected=f"the file {path}",
        found=f"manifests in that folder: {', '.join(known) or 'none'}",
        remedy="give the name of one of them, or the path of a .yaml file",
    )
    raise ManifestError(message)
