"""Where the hours of a source are: files named after hours, plain or inside daily archives."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aqnet.data.manifest import GridManifest
from aqnet.errors import DataError, explain

__all__ = [
    "HourSource",
    "SourceFileError",
    "list_hours",
    "native_name",
    "read_contents",
    "unreadable",
]

# The daily means of the same source, CN-Reanalysis-daily-*, have another name and do not match.
_NAME = re.compile(r"CN-Reanalysis(\d{4})(\d{2})(\d{2})(\d{2})\.nc")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# What zipfile, tarfile and their decompressors raise on archives that are damaged, encrypted or
# packed by an unknown method (the last two: RuntimeError).
_BROKEN_ARCHIVE = (
    OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError
)  # fmt: skip


class SourceFileError(DataError):
    """A source file cannot be read, is there twice, or lacks a variable."""


@dataclass(frozen=True)
class HourSource:
    """Where one hour is: a file, or a member of an archive.

    Attributes
    ----------
    label : datetime64[h]
        Local time of the source, as in the name.
    path : pathlib.Path
        NetCDF file, or the archive that holds it.
    member : str or None
        Name inside the archive.
    """

    label: np.datetime64
    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """For messages: the path, and the member of the archive."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


# ---- finding hours


def native_name(label: np.datetime64) -> str:
    """File name of an hour: `CN-Reanalysis2013010107.nc`."""
    digits = re.sub(r"\D", "", str(np.datetime64(label, "h")))
    return f"CN-Reanalysis{digits}.nc"


def _label(name: str, where: object) -> np.datetime64 | None:
    """Label in a file name; None for a file of another kind."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return np.datetime64("{}-{}-{}T{}".format(*match.groups()), "h")
    except ValueError as problem:
        message = explain(
            f"{where} is not named after an hour",
            expected="CN-ReanalysisYYYYMMDDHH.nc with HH from 00 to 23",
            found=name,
            remedy="rename or remove the file",
        )
        raise SourceFileError(message) from problem


@contextmanager
def _broken_archive(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN_ARCHIVE as problem:
        message = explain(
            f"archive {path} is damaged",
            expected="a zip or tar archive that can be read to its end",
            found=f"{type(problem).__name__}: {problem}",
            remedy="fetch the archive again, or take it out of the folder",
        )
        raise SourceFileError(message) from problem


def _members(path: Path) -> list[str]:
    """Names of the files in an archive. Compressed tar archives are read to their end."""
    with _broken_archive(path):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return [m.filename for m in archive.infolist() if not m.is_dir()]
        with tarfile.open(path) as archive:
            return [m.name for m in archive if m.isfile()]


def _no_entry(error: OSError) -> None:
    message = explain(
        f"folder {error.filename} cannot be listed",
        expected="a source folder of which every part can be read",
        found=os.strerror(error.errno),
        remedy="grant the right to read it, or take it out of the source folder",
    )
    raise SourceFileError(message) from error


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in a fixed order; follows links to folders."""
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_no_entry):
        folders.sort()
        yield from (Path(here, name) for name in sorted(names))


def _sources(folder: Path, damaged: dict[Path, str] | None) -> Iterator[HourSource]:
    for path in _files(folder):
        if not path.name.endswith(_ARCHIVES):
            label = _label(path.name, path)
            if label is not None:
                yield HourSource(label, path)
            continue
        try:
            members = _members(path)
        except SourceFileError as problem:
            if damaged is None:
                raise
            damaged[path] = str(problem)
            continue
        for member in members:
            label = _label(member.rsplit("/", 1)[-1], f"{path}: {member}")
            if label is not None:
                yield HourSource(label, path, member)


def _twice(first: HourSource, second: HourSource) -> SourceFileError:
    message = explain(
        f"the hour {first.label} is there twice",
        expected="one file for each hour",
        found=f"{first.name}\n            {second.name}",
        remedy="take one of them out of the folder",
    )
    return SourceFileError(message)


def list_hours(
    folder: str | Path,
    year: int,
    manifest: GridManifest,
    damaged: dict[Path, str] | None = None,
) -> dict[np.datetime64, HourSource]:
    """Find the hours of a year in a folder, its subfolders and the archives in them.

    Parameters
    ----------
    folder : path
        Searched for `CN-ReanalysisYYYYMMDDHH.nc`, plain or in zip, tar, tar.gz and tgz archives.
        A compressed tar archive has to be read to its end to be listed: zip or tar is faster.
    year : int
        Year of the label (local time of the source).
    manifest : GridManifest
        Tells what instant a label is.
    damaged : dict, optional
        Filled with archives that cannot be read, and why. Without it they are an error.

    Returns
    -------
    dict
        HourSource by time: datetime64[h], UTC, end of the averaging hour; in order of time.

    Raises
    ------
    SourceFileError
        An hour is there twice (names both files), an archive is damaged, the folder is missing,
        or a name has no hour.
    """
    folder = Path(folder)
    if not folder.is_dir():
        message = explain(
            "there is no source folder",
            expected=f"a folder at {folder}",
            found="a file" if folder.exists() else "nothing",
            remedy="give the folder that holds the files or archives of the source",
        )
        raise SourceFileError(message)
    found: dict[np.datetime64, HourSource] = {}
    for source in _sources(folder, damaged):
        if source.label.astype("datetime64[Y]") != np.datetime64(str(year), "Y"):
            continue
        if source.label in found:
            raise _twice(found[source.label], source)
        found[source.label] = source
    labels = np.array(sorted(found), dtype="datetime64[h]")
    times = manifest.to_utc(labels).astype("datetime64[h]")
    return {time: found[label] for time, label in zip(times, labels, strict=True)}


# ---- reading bytes


def _from_zip(path: Path, sources: list[HourSource]) -> Iterator[tuple]:
    with _broken_archive(path), zipfile.ZipFile(path) as archive:
        for source in sources:
            try:
                with _broken_archive(path):
                    content = archive.read(source.member)
            except SourceFileError as problem:
                yield source, problem
            else:
                yield source, content


def _from_tar(path: Path, sources: list[HourSource]) -> Iterator[tuple]:
    """In the order of the archive: going back in a compressed one means to start again."""
    wanted = {source.member: source for source in sources}
    with _broken_archive(path), tarfile.open(path) as archive:
        for member in archive:
            source = wanted.pop(member.name, None)
            if source is not None:
                yield source, archive.extractfile(member).read()
            if not wanted:
                return


def _from_file(path: Path, sources: list[HourSource]) -> Iterator[tuple]:
    for source in sources:
        yield source, path.read_bytes()


def read_contents(
    sources: Iterable[HourSource],
) -> Iterator[tuple[HourSource, bytes | SourceFileError]]:
    """Read the bytes of hours, each archive once.

    Parameters
    ----------
    sources : iterable of HourSource

    Yields
    ------
    HourSource, and the bytes of its NetCDF file or the error met instead; archive by archive.
    """
    by_path: dict[Path, list[HourSource]] = {}
    for source in sources:
        by_path.setdefault(source.path, []).append(source)
    for path, group in by_path.items():
        kind = _from_file if group[0].member is None else _from_tar
        reader = _from_zip if path.suffix == ".zip" else kind
        left = dict.fromkeys(group)
        problem: Exception = SourceFileError(f"not in {path} any more")
        try:
            for source, content in reader(path, group):
                del left[source]
                yield source, content
        except (SourceFileError, OSError) as error:
            problem = error
        for source in left:
            yield source, unreadable(source.name, problem)


def unreadable(where: str, problem: object) -> SourceFileError:
    """The error for a file that is not a whole NetCDF file of one hour."""
    message = explain(
        f"{where} cannot be read",
        expected="a whole NetCDF file of one hour",
        found=f"{type(problem).__name__}: {problem}",
        remedy="fetch the file again, or take the hour as missing: --damaged missing",
    )
    return SourceFileError(message)
