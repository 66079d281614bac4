"""Manifests of hourly fields on a grid: the recipe of yearly stores, and the record of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr, field_validator, model_validator

from aqnet.config import Config, load_yaml
from aqnet.data.dataset import DataSet, Sha256, Text
from aqnet.errors import CoverageError, ManifestError, UnitError, explain
from aqnet.io import repository_root, sha256_json
from aqnet.units import REFERENCE_STATES, to_lexicon_unit
from aqnet.variables import DYNAMIC, STATIC, VARIABLES

if TYPE_CHECKING:  # years imports this module
    from aqnet.data.years.reader import YearStore

__all__ = ["GridManifest", "GridRecord", "Recipe", "StatisticsRecord", "StoreRecord"]

Year = Annotated[int, Field(ge=1900, le=2200)]
Setting = str | int | float | bool | None


class Recipe(Config):
    """The command that makes the stores, and the settings that decide what is in them."""

    command: Text  # of aqnet, without options
    # all that decides what the command writes
    settings: dict[str, Setting | tuple[Setting, ...] | dict[str, Setting]]


# Keys that say how a data set is described or used, not what its stores hold: an ingest of a week
# must not be lost to a corrected sentence, a new year, or another split.
_NOT_IN_STORES = {
    "title", "source", "doi", "licence", "attribution", "quirks", "years", "split",
    "averaging_label_note", "source_utc_offset_note", "reference_state_note", "wind_reference_note",
    "constant_static",
}  # fmt: skip


# Keys whose difference shows in another line of a comparison.
_COMPARED_ALONE = {"grid", "name", "source_utc_offset_h", "synthetic"}
_NOT_THERE = "(not there)"


def _unequal(ours: dict, theirs: dict, above: str = "") -> Iterator[tuple[str, tuple]]:
    """Keys, with dots where nested, and both values, of what differs."""
    for key in sorted({*ours, *theirs}):
        pair = (ours.get(key, _NOT_THERE), theirs.get(key, _NOT_THERE))
        if all(isinstance(value, dict) for value in pair):
            yield from _unequal(*pair, f"{above}{key}.")
        elif pair[0] != pair[1]:
            yield f"{above}{key}", pair


class GridManifest(DataSet):
    """Description of hourly fields on a grid; see `data_manifests/caqra.yaml`.

    The manifest is the recipe: what decides the content of a store goes into `digest`, which
    every store carries. What was measured of the stores is in the record beside it,
    `NAME.record.yaml`.
    """

    kind: Literal["grid"]  # hourly fields on a grid
    recipe: Recipe  # what makes the stores
    years: tuple[Year, ...]  # of labels; a store each
    units: dict[str, Text]  # of each variable in the source's files
    # of a variable in these files, the preferred one first; known names where it is left out
    source_names: dict[str, tuple[Text, ...]] = Field(default_factory=dict)
    source_utc_offset_note: Text  # how the offset is known
    # temperature at which gas concentrations are given
    reference_state: Literal[tuple(REFERENCE_STATES)]
    reference_state_note: Text  # how that is known
    # u and v along rows and columns of the source (then turned), or east and north
    wind_reference: Literal["grid", "earth"]
    wind_reference_note: Text  # how that is known
    # static fields that are the same in all cells on purpose: only shifted where others are scaled
    constant_static: tuple[Literal[STATIC], ...] = ()

    _path: Path | None = PrivateAttr(default=None)

    @property
    def content(self) -> dict:
        """The keys that decide what a store holds, as JSON values; every store carries them."""
        return self.model_dump(mode="json", exclude=_NOT_IN_STORES)

    @property
    def digest(self) -> str:
        """SHA-256 of `content`: texts, years and splits do not make other stores."""
        return sha256_json(self.content)

    @field_validator("source_utc_offset_h")
    @classmethod
    def _whole_hours(cls, offset: float) -> float:
        if offset != round(offset):
            raise ValueError("whole hours: a store has one field an hour of UTC")
        return offset

    @field_validator("years")
    @classmethod
    def _ascending(cls, years: tuple[int, ...]) -> tuple[int, ...]:
        if not years or list(years) != sorted(set(years)):
            raise ValueError("at least one year, ascending")
        return years

    @field_validator("units")
    @classmethod
    def _known_units(cls, units: dict[str, str]) -> dict[str, str]:
        if sorted(units) != sorted(DYNAMIC):
            raise ValueError(f"a unit for each of {', '.join(DYNAMIC)}, and for nothing else")
        for name, unit in units.items():
            try:
                to_lexicon_unit(name, np.zeros(1), unit)
            except UnitError as problem:  # pydantic collects ValueErrors
                raise ValueError(" ".join(str(problem).split())) from problem
        return units

    @field_validator("source_names")
    @classmethod
    def _known_names(cls, names: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if unknown := sorted(set(names) - set(DYNAMIC)):
            raise ValueError(f"names of {', '.join(DYNAMIC)}, not of {', '.join(unknown)}")
        return names

    @model_validator(mode="after")
    def _split_within_years(self) -> GridManifest:
        first, last = self.split.train.start.year, self.split.test.end.year
        if first < self.years[0] or last > self.years[-1]:
            raise ValueError(f"a split within the years {self.years[0]} to {self.years[-1]}")
        return self

    def names_of(self, name: str) -> tuple[str, ...]:
        """Names that a variable may have in the source's files, the first one preferred."""
        return self.source_names.get(name) or VARIABLES[name].source_names

    def times(self, year: int) -> np.ndarray:
        """Hours of the store of `year`: (8760,) or (8784,) datetime64[h], UTC, ends of hours.

        Those whose label, local time of the source, lies in `year`.
        """
        if year not in self.years:
            message = explain(
                f"manifest {self.name} does not have the year {year}",
                expected=f"one of {', '.join(map(str, self.years))}",
                found=year,
                remedy="choose one of them, or add the year to `years` of the manifest",
            )
            raise CoverageError(message)
        labels = np.arange(f"{year}-01-01T00", f"{year + 1}-01-01T00", dtype="datetime64[h]")
        return self.to_utc(labels).astype("datetime64[h]")

    def differences(self, store: YearStore, year: int, entry: StoreRecord | None = None) -> dict:
        """What of a store is not as this manifest, and an entry of its record, say.

        Returns
        -------
        dict
            Key: (expected, found); empty for a store that is the one described.
        """
        grid, held = self.grid_object(), store.attributes
        pairs = {
            "manifest": (self.name, held["manifest"]),
            "manifest_sha256": (self.digest, held["manifest_sha256"]),
            "year": (year, store.year),
            "grid": (f"{grid.name} {grid.digest}", f"{held['grid']['name']} {store.grid.digest}"),
            "synthetic": (self.synthetic, store.synthetic),
            "utc_offset_h": (self.source_utc_offset_h, held["utc_offset_h"]),
            "variables": (list(DYNAMIC), held["variables"]),
            "units": ({n: VARIABLES[n].unit for n in (*DYNAMIC, *STATIC)}, held["units"]),
            "keep_bits": ({n: VARIABLES[n].keep_bits for n in DYNAMIC}, held["keep_bits"]),
            "hours": (_extent(self.times(year)), _extent(store.times)),
        }
        ours, theirs = ({k: v for k, v in content.items() if k not in _COMPARED_ALONE}
                        for content in (self.content, held["manifest_content"]))  # fmt: skip
        pairs |= {f"`{key}` of the manifest": pair for key, pair in _unequal(ours, theirs)}
        if entry is not None:
            pairs["content_sha256"] = (entry.content_sha256, store.digest)
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def store_file(self, year: int) -> str:
        """Name of the store of a year."""
        return f"data_{year}_{self.grid}_masked.zarr"

    # ---- the record

    @property
    def called(self) -> str:
        """What commands find it by: its name in `data_manifests`, else the path of its file."""
        usual = repository_root() / "data_manifests" / f"{self.name}.yaml"
        own = self._path in (None, usual)
        return self.name if own else str(self._path)

    @property
    def record_path(self) -> Path:
        """File of the record, beside the manifest."""
        if self._path is None:
            message = explain(
                f"manifest {self.name} has no record",
                expected="a manifest read from a file, with its record beside it",
                found="a manifest that was made in memory",
                remedy="load it with load_manifest",
            )
            raise CoverageError(message)
        return self._path.with_name(f"{self._path.stem}.record.yaml")

    def record(self) -> GridRecord | None:
        """The record beside the manifest; None if there is none.

        Raises
        ------
        ManifestError
            The file is not a record, or records stores of another manifest.
        """
        if self._path is None or not self.record_path.is_file():
            return None
        record = load_yaml(self.record_path, GridRecord)
        if record.manifest_sha256 != self.digest:
            message = explain(
                f"{self.record_path} records stores of another manifest",
                expected=f"manifest_sha256 {self.digest}",
                found=f"manifest_sha256 {record.manifest_sha256}",
                remedy="undo the change of the manifest; or delete the record, write the stores "
                f"again ({self.recipe.command}) and record them (aqnet data record {self.called})",
            )
            raise ManifestError(message)
        return record


def _extent(times: np.ndarray) -> str:
    return f"{len(times)} from {times[0]}Z to {times[-1]}Z"


class StoreRecord(Config):
    """A yearly store as it was measured."""

    year: Year  # of labels
    file: Text  # name of the store
    content_sha256: Sha256  # of its content
    hours: Annotated[int, Field(gt=0)]  # number of hours
    missing: tuple[tuple[Text, Text, Text], ...]  # first and last hour, and why


class StatisticsRecord(Config):
    """The file of statistics of the training years, and the SHA-256 of its content."""

    file: Text  # name, in the folder of the stores
    sha256: Sha256  # of its content


class GridRecord(Config):
    """What `aqnet data record NAME` found: digests and missing hours of the stores."""

    manifest_sha256: Sha256  # digest of the manifest that the stores were made by
    stores: tuple[StoreRecord, ...]  # one a year
    statistics: StatisticsRecord | None  # null: not computed yet

    def store(self, year: int) -> StoreRecord | None:
        """Entry of a year; None if it has none."""
        return next((entry for entry in self.stores if entry.year == year), None)
