"""Manifests: what a shipped data file is, where it comes from, and how to read its labels."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from aqnet.config import Config, load_yaml, read_yaml
from aqnet.data.dataset import DataSet, Period, Sha256, Span, Split, Text
from aqnet.data.grid_manifest import GridManifest, GridRecord
from aqnet.errors import ChecksumError, DataError, ManifestError, explain
from aqnet.io import repository_root, sha256_file

__all__ = [
    "DataFile",
    "GridManifest",
    "GridRecord",
    "Manifest",
    "Period",
    "SourceVariable",
    "Span",
    "Split",
    "SuspectSpan",
    "WeatherSharing",
    "load_grid_manifest",
    "load_manifest",
    "resolve_manifest",
]


class DataFile(Config):
    """A shipped file: path relative to the folder above the manifest's own, and its digest."""

    path: Text  # relative to the folder above the manifest's own
    sha256: Sha256  # of the file
    content: Literal["stations", "static"]  # what it holds
    source: Text  # where it comes from
    doi: str  # of the source
    licence: Text  # of the file
    attribution: Text  # credit that the licence asks for


class SourceVariable(Config):
    """A variable as the source publishes it."""

    unit: Text  # as published
    long_name: Text  # what it is


class WeatherSharing(Config):
    """Groups of stations with the same weather series, from this label (local time) on."""

    start: datetime  # first label (local time) of these groups
    groups: tuple[tuple[Text, ...], ...]  # stations with the same weather series


class SuspectSpan(Config):
    """First and last label (local time, inclusive) of hours whose values look wrong, and why."""

    start: datetime  # first label (local time)
    end: datetime  # last label, inclusive
    reason: Text  # what looks wrong


class Manifest(DataSet):
    """Description of a data set of stations; see `data_manifests/beijing.yaml`."""

    kind: Literal["stations"]  # hourly measurements at stations
    files: tuple[DataFile, ...]  # that ship
    variables: dict[str, SourceVariable]  # by their published names
    period: Period  # of the measurements
    stations: tuple[Text, ...]  # names of all
    withheld_stations: tuple[Text, ...]  # kept out of the analysis, to judge forecasts at
    # which stations carry one weather series, from when on
    weather_sharing: tuple[WeatherSharing, ...]
    # hours whose temperature, pressure and humidity are left out
    weather_suspect: tuple[SuspectSpan, ...]

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


_KINDS = {"stations": Manifest, "grid": GridManifest}


def load_manifest(path: str | Path) -> Manifest | GridManifest:
    """Read and validate a manifest; its files are looked for beside it.

    Parameters
    ----------
    path : path
        YAML file, e.g. `data_manifests/beijing.yaml`.

    Returns
    -------
    Manifest or GridManifest
        As its key `kind` says: "stations" or "grid".

    Raises
    ------
    ManifestError
        No such file, not YAML, or a key that is unknown, missing or of the wrong type.
    """
    kind = read_yaml(path).get("kind")
    if kind not in _KINDS:
        message = explain(
            f"{path}: what kind of manifest is this?",
            expected=f"kind: {' or '.join(_KINDS)}",
            found=f"kind: {kind}" if kind is not None else "no key `kind`",
            remedy="write the key `kind`",
        )
        raise ManifestError(message)
    manifest = load_yaml(path, _KINDS[kind])
    manifest._root = Path(path).resolve().parent.parent
    if isinstance(manifest, GridManifest):
        manifest._path = Path(path).resolve()
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
    known = sorted(
        p.stem for p in path.parent.glob("*.yaml") if not p.name.endswith(".record.yaml")
    )
    message = explain(
        f"there is no manifest {name_or_path}",
        expected=f"the file {path}",
        found=f"manifests in that folder: {', '.join(known) or 'none'}",
        remedy="give the name of one of them, or the path of a .yaml file",
    )
    raise ManifestError(message)


def load_grid_manifest(name_or_path: str | Path) -> GridManifest:
    """Read the manifest of yearly stores, by name or path.

    Raises
    ------
    ManifestError
        As `resolve_manifest` and `load_manifest`; or it describes stations.
    """
    manifest = load_manifest(resolve_manifest(name_or_path))
    if isinstance(manifest, GridManifest):
        return manifest
    message = explain(
        f"manifest {manifest.name} has no yearly stores",
        expected="kind: grid",
        found=f"kind: {manifest.kind}",
        remedy="name another manifest, such as caqra or twin",
    )
    raise ManifestError(message)
