"""A year of hourly source files to a yearly store: resumable, parallel, and nothing invented."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.data.geography import china_static
from aqnet.data.manifest import GridManifest
from aqnet.data.parallel import Workers
from aqnet.data.source.caqra import HourSource, SourceFileError, list_hours, native_name, read_hour
from aqnet.data.source.conversion import Conversion, decided, undecided
from aqnet.data.source.files import read_contents
from aqnet.data.source.shards import (
    HOUR_ERRORS,
    Damaged,
    Shard,
    content_of,
    ingest_shard,
    sha256_of,
    unusable,
)
from aqnet.data.static import stacked_static
from aqnet.data.years.format import SHARD_HOURS, YearSpec
from aqnet.data.years.reader import YearStore, open_year
from aqnet.data.years.writer import YearWriter
from aqnet.data.years.year_set import compare_with_manifest
from aqnet.errors import ChecksumError, CoverageError, StoreError, explain
from aqnet.io import atomic_directory, data_root, stores_folder
from aqnet.progress import Progress, silent

__all__ = ["Listing", "compare_sources", "find_hours", "ingest_year", "prepare"]

NO_FILE = "no file"  # why an hour is missing
# Hours whose files are hashed again when a finished store is met: 24 of 6 MB take a second.
_SAMPLES = 24


@dataclass(frozen=True)
class Listing:
    """The hours of a year: all that should be, and those that are there.

    Attributes
    ----------
    times : (T,) datetime64[h], UTC
    sources : dict
        HourSource by time.
    damaged_archives : tuple of str
        Names of archives that could not be listed.
    """

    times: np.ndarray
    sources: Mapping[np.datetime64, HourSource]
    damaged_archives: tuple[str, ...] = ()

    @property
    def no_file(self) -> str:
        """Why an hour without a file is missing."""
        if not self.damaged_archives:
            return NO_FILE
        return f"{NO_FILE}; damaged archives: {', '.join(self.damaged_archives)}"


def ingest_year(
    manifest: GridManifest,
    folder: str | Path,
    year: int,
    out: str | Path | None = None,
    *,
    workers: int = 1,
    damaged: Damaged = "stop",
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write the yearly store of a source, or check the one that is there.

    Parameters
    ----------
    manifest : GridManifest
    folder : path
        Of the source's files or archives; see `list_hours`.
    year : int
        Of the labels; one of the manifest's years.
    out : path, optional
        Folder of the store; default: the manifest's name in the data folder.
    workers : int
        Processes.
    damaged : "stop" or "missing"
        What to do about a file that cannot be read, lacks a variable or has impossible values:
        end with an error, or record the hour as missing with the reason. A wrong unit or
        another grid is a wrong setting or a wrong folder: always an error; so are values in
        more cells of China than the hour that decided the mask has.
    force : bool
        Write the store anew; an existing one stays until the new one is complete.
    progress : callable
        Called with a step and the fraction done.

    Returns
    -------
    pathlib.Path
        Store in `out`, named by `manifest.store_file`.

    Raises
    ------
    SourceFileError, FieldError, UnitError, GridError, DataError
        Files that cannot be used; lists all of a shard (DataError if for several reasons).
    CoverageError
        No hour of the year, no cell of the mask, cells beyond the mask, or a year that is not
        in the manifest.
    ChecksumError, StoreError
        The store is finished, but from other files or from another manifest.
    StoreBusyError, StorageFullError
        Another process is writing the store; no room.
    """
    out = stores_folder(manifest.name, out)
    path = out / manifest.store_file(year)
    listing = find_hours(manifest, folder, year, damaged)
    if path.exists() and not force:
        store = open_year(path)
        compare_with_manifest(store, manifest, year)
        compare_sources(store, listing)
        progress(f"{path.name} is finished; the files are as they were (sampled)", 1.0)
        return path
    progress("grid, weights and mask", 0.0)
    conversion, spec = prepare(manifest, listing, year)
    place = _new_place(path)
    with YearWriter(place, spec, resume=not force) as writer:
        shards = [_shard(writer, n, listing, damaged) for n in writer.pending()]
        _write_shards(conversion, shards, workers, progress)
        writer.finish()
    if len(shards) < writer.shards:  # files may have changed since the first shards were written
        compare_sources(open_year(place), listing)
    if place != path:
        _put_in_place(place, path)
    return path


def find_hours(manifest: GridManifest, folder: str | Path, year: int, damaged: Damaged) -> Listing:
    """List the hours of a year.

    Raises
    ------
    CoverageError
        There is none, or the manifest does not have the year.
    SourceFileError
        See `list_hours`; damaged archives only if `damaged` is "stop".
    """
    times, broken = manifest.times(year), {}
    sources = list_hours(folder, year, manifest, broken if damaged == "missing" else None)
    if not sources:
        message = explain(
            f"no hour of {year} in {folder}",
            expected=f"files like {native_name(np.datetime64(f'{year}-01-01T00'))}, plain or in "
            "zip, tar or tar.gz archives",
            found=f"damaged archives: {', '.join(map(str, broken))}" if broken else "none",
            remedy="give the folder of the source's files, or another year",
        )
        raise CoverageError(message)
    return Listing(times, sources, tuple(sorted(path.name for path in broken)))


# ---- before the first shard


def prepare(manifest: GridManifest, listing: Listing, year: int) -> tuple[Conversion, YearSpec]:
    """Decide grid, weights and mask from the first readable hour.

    The mask holds the cells inside the polygons of China in which that hour has a value of every
    variable. Weights are kept in the data folder, in `weights/`.

    Raises
    ------
    SourceFileError, FieldError, UnitError, GridError, DataError
        The first hours, as many as a shard has, cannot be used; lists them.
    CoverageError
        The source covers no cell of China.
    """
    grid, problems = manifest.grid_object(), []
    static = china_static(grid)
    for source in list(listing.sources.values())[:SHARD_HOURS]:
        try:
            ((_, content),) = read_contents([source])
            hour = read_hour(content_of(content), manifest, source.name)
            first = undecided(manifest, hour, grid, static, data_root() / "weights")
            conversion = decided(first, hour, source)
        except HOUR_ERRORS as problem:
            problems.append((source, problem))
            continue
        return conversion, _spec(manifest, year, static, conversion)
    raise unusable(problems)


def _spec(
    manifest: GridManifest, year: int, static: xr.Dataset, conversion: Conversion
) -> YearSpec:
    """The store to be; what was decided here goes into its recipe."""
    spec = YearSpec.from_manifest(manifest, year, stacked_static(static), conversion.mask)
    decisions = conversion.described()
    if static.attrs["missing"]:  # the store holds NaN there
        decisions["static_missing"] = static.attrs["missing"]
    recipe = spec.attributes["recipe"] | {"ingest": decisions}
    return replace(spec, attributes=spec.attributes | {"recipe": recipe})


# ---- processes


def _shard(writer: YearWriter, number: int, listing: Listing, damaged: Damaged) -> Shard:
    rows = writer.rows(number)
    sources = tuple(listing.sources.get(time) for time in listing.times[rows])
    return Shard(writer.partial, number, sources, listing.no_file, damaged)


def _write_shards(
    conversion: Conversion, shards: list[Shard], workers: int, progress: Progress
) -> None:
    """Write shards; the first error ends it.

    Other processes are ended in the middle of a shard. The journal names those that are whole, so
    that the next run writes it again.
    """
    with Workers(workers if workers > 1 else 0, conversion) as pool:
        for done, _ in enumerate(pool.map(ingest_shard, shards), start=1):
            progress("hours", done / len(shards))


# ---- a finished store


def compare_sources(store: YearStore, listing: Listing, samples: int = _SAMPLES) -> None:
    """Compare a store with the files it was made from: which there are, and some digests.

    Parameters
    ----------
    store : YearStore
    listing : Listing
        Of the files as they are now.
    samples : int
        Hours whose files are read and hashed, spread over the year. Those of the hours that are
        missing in the store although there is a file are read as well: they may be mended.

    Raises
    ------
    StoreError
        There are other hours than the store was made from.
    ChecksumError
        A file is not the one that the store was made from.
    """
    recorded = store.source_sha256.any(axis=1)
    listed, unread = np.array([time in listing.sources for time in store.times]), _unread(store)
    there = listed & ~unread
    if (recorded != there).any():
        raise _other_hours(store, there, recorded)
    rows, lacking = np.flatnonzero(there), np.flatnonzero(listed & ~store.valid.any(axis=1))
    rows = rows[np.unique(np.linspace(0, rows.size - 1, samples).astype(int))]
    row_of = {listing.sources[store.times[row]]: row for row in np.union1d(rows, lacking)}
    for source, content in read_contents(row_of):
        row = row_of[source]
        if unread[row] and isinstance(content, SourceFileError):
            continue
        if not np.array_equal(sha256_of(content_of(content)), store.source_sha256[row]):
            raise _other_file(store, source, row, sha256_of(content))


def _unread(store: YearStore) -> np.ndarray:
    """Hours whose file could not even be read, (T,) bool: they are missing without a digest."""
    unread = np.zeros(len(store.times), dtype=bool)
    for gap in store.missing:
        if not gap.reason.startswith(NO_FILE):
            unread |= (store.times >= gap.first) & (store.times <= gap.last)
    return unread & ~store.source_sha256.any(axis=1)


def _other_hours(store: YearStore, there: np.ndarray, recorded: np.ndarray) -> StoreError:
    new, gone = (store.times[a & ~b] for a, b in ((there, recorded), (recorded, there)))
    parts = [
        f"{len(times)} hours {what}, the first at {times[0]} UTC"
        for times, what in ((new, "more"), (gone, "that are not there any more"))
        if len(times)
    ]
    message = explain(
        f"{store.path} was made from other files",
        expected=f"the {int(recorded.sum())} hours it was made from",
        found="; ".join(parts),
        remedy="give the folder it was made from, or write it anew: --force",
    )
    return StoreError(message)


def _other_file(store: YearStore, source: HourSource, row: int, found: np.ndarray) -> ChecksumError:
    digest = store.source_sha256[row]
    message = explain(
        f"{source.name} is not the file that {store.path} was made from",
        expected=f"sha256 {digest.tobytes().hex()}" if digest.any() else "an unreadable file",
        found=f"sha256 {found.tobytes().hex()}",
        remedy="restore the file, or write the store anew: --force",
    )
    return ChecksumError(message)


def _new_place(path: Path) -> Path:
    """Where to write: `path`, or beside the store that is there, which stays until the end."""
    if not path.exists():
        return path
    place = path.with_name(f"{path.name}.anew")
    if place.exists():  # complete, but its process died before it came into place
        shutil.rmtree(place)
    return place


def _put_in_place(new: Path, path: Path) -> None:
    """Replace a store by its new version, whole or not at all."""
    with atomic_directory(path, replace=True) as folder:
        for entry in sorted(new.iterdir()):
            entry.rename(folder / entry.name)
    new.rmdir()
