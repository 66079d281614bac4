"""Checking and recording the yearly stores of a manifest."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from aqnet.data.grid_manifest import GridManifest, GridRecord, StatisticsRecord, StoreRecord
from aqnet.data.statistics.file import load_statistics
from aqnet.data.years.reader import YearStore, open_year, verify_year
from aqnet.data.years.year_set import compare_with_manifest
from aqnet.errors import ChecksumError, CoverageError, explain
from aqnet.io import atomic_write_text, stores_folder
from aqnet.progress import Progress, silent

__all__ = ["CheckedYear", "check_stores", "coverage_table", "record_stores"]

STATISTICS = "statistics.nc"  # where `aqnet data stats` writes


@dataclass(frozen=True)
class CheckedYear:
    """A year of a manifest: its store, None if it is not there, and whether it is recorded."""

    year: int
    store: YearStore | None
    recorded: bool


def check_stores(
    manifest: GridManifest,
    folder: str | Path | None = None,
    deep: bool = False,
    progress: Progress = silent,
) -> list[CheckedYear]:
    """Compare the stores of a manifest with it, with its record, and with their own digests.

    Parameters
    ----------
    manifest : GridManifest
    folder : path, optional
        Folder of the stores; default `stores_folder(manifest.name)`.
    deep : bool
        Read every hour, not only some of each store.
    progress : callable
        Called with a text and the share done, 0 to 1.

    Returns
    -------
    list of CheckedYear
        All years of the manifest; none of them has a store if none was written or recorded.

    Raises
    ------
    StoreError
        A store is damaged, or differs from manifest or record; says what differs.
    CoverageError
        A recorded year is not there; without a record, some years are there and others not.
    ChecksumError, DataError
        The recorded statistics are damaged, not there, or others.
    """
    folder, record = stores_folder(manifest.name, folder), manifest.record()
    found = []
    for year in manifest.years:
        entry = record.store(year) if record else None
        store = _verified(manifest, folder, year, entry, deep, progress)
        found.append(CheckedYear(year, store, entry is not None))
    _refuse_missing_years(manifest, folder, found, record is not None)
    if record and record.statistics:
        digests = {entry.year: entry.content_sha256 for entry in record.stores}
        _statistics(folder, record.statistics.file, digests, record.statistics.sha256)
    return found


def _verified(
    manifest: GridManifest,
    folder: Path,
    year: int,
    entry: StoreRecord | None,
    deep: bool,
    progress: Progress,
) -> YearStore | None:
    path = folder / manifest.store_file(year)
    if not path.exists():
        return None
    compare_with_manifest(open_year(path), manifest, year, entry)
    verify_year(path, deep=deep, progress=progress)
    return open_year(path)


def _refuse_missing_years(
    manifest: GridManifest, folder: Path, years: list[CheckedYear], has_record: bool
) -> None:
    there = [y.year for y in years if y.store is not None]
    wanted = [y.year for y in years if y.recorded] if has_record else list(manifest.years)
    missing = [year for year in wanted if year not in there]
    if not missing or not (there or has_record):
        return
    message = explain(
        f"years of {manifest.name} are missing: {', '.join(map(str, missing))}",
        expected=f"{'recorded' if has_record else 'in the manifest'}: {wanted} in {folder}",
        found=f"stores of {there}" if there else "no store",
        remedy=f"write them: {manifest.recipe.command}; or record the years that there are: "
        f"aqnet data record {manifest.called}",
    )
    raise CoverageError(message)


def _statistics(folder: Path, file: str, stores: dict[int, str], expected: str | None) -> str:
    """Content digest of a file of statistics, which must be those of `stores` (year: digest)."""
    statistics = load_statistics(folder / file, expected)
    of = {int(year): digest for year, digest in statistics.store_sha256.items()}
    other = sorted(year for year, digest in of.items() if stores.get(year) != digest)
    if other:
        message = explain(
            f"{folder / file} describes other stores: {', '.join(map(str, other))}",
            expected="; ".join(f"{year}: {stores.get(year, 'not recorded')}" for year in other),
            found="; ".join(f"{year}: {of[year]}" for year in other),
            remedy="compute the statistics again (aqnet data stats), or delete the file",
        )
        raise ChecksumError(message)
    return statistics.digest


def record_stores(
    manifest: GridManifest,
    folder: str | Path | None = None,
    statistics: str | None = None,
    deep: bool = False,
    progress: Progress = silent,
) -> GridRecord:
    """Verify the stores that there are and write the record beside the manifest.

    Parameters
    ----------
    manifest : GridManifest
    folder : path, optional
        Folder of the stores; default `stores_folder(manifest.name)`.
    statistics : str, optional
        File of statistics in `folder` to record; default: `STATISTICS`, if it is there.
    deep : bool
        Read every hour before recording.
    progress : callable
        Called with a text and the share done, 0 to 1.

    Raises
    ------
    StoreError
        A store is damaged or differs from the manifest.
    CoverageError
        There is no store.
    ChecksumError, DataError
        The statistics are damaged, not there, or of other stores.
    """
    folder, target = stores_folder(manifest.name, folder), manifest.record_path
    stores = []
    for year in manifest.years:
        store = _verified(manifest, folder, year, None, deep, progress)
        if store is not None:
            stores.append(_entry(store))
    if not stores:
        message = explain(
            f"there is nothing to record of {manifest.name}",
            expected=f"stores such as {folder / manifest.store_file(manifest.years[0])}",
            found="none of its years",
            remedy=f"write them: {manifest.recipe.command}",
        )
        raise CoverageError(message)
    file, measured = statistics or STATISTICS, None
    if statistics is not None or (folder / file).exists():
        digests = {entry.year: entry.content_sha256 for entry in stores}
        found = _statistics(folder, file, digests, None)
        measured = StatisticsRecord(file=file, sha256=found)
    record = GridRecord(manifest_sha256=manifest.digest, stores=stores, statistics=measured)
    head = f"# Written by `aqnet data record {manifest.name}`, not by hand.\n"
    body = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, width=100)
    atomic_write_text(target, head + body)
    return record


def _entry(store: YearStore) -> StoreRecord:
    return StoreRecord(
        year=store.year,
        file=store.path.name,
        content_sha256=store.digest,
        hours=len(store.times),
        missing=tuple(tuple(span) for span in store.attributes["missing"]),
    )


def coverage_table(years: list[CheckedYear]) -> str:
    """Hours with all variables, in % of each month (local time), as a table of text."""
    months = calendar.month_abbr[1:]
    lines = ["year  hours  lacking  " + " ".join(f"{month:>3}" for month in months)]
    for checked in years:
        if checked.store is None:
            lines.append(f"{checked.year}  not there")
            continue
        lacking = int((~checked.store.valid.all(1)).sum())
        shares = " ".join(_percent(share) for share in checked.store.coverage())
        note = "" if checked.recorded else "  not recorded"
        lines.append(f"{checked.year}  {len(checked.store.times):5d}  {lacking:7d}  {shares}{note}")
    return "\n".join(lines)


def _percent(share: float) -> str:
    """Three characters; 100 only if nothing lacks."""
    return "  -" if np.isnan(share) else f"{np.floor(100 * share):3.0f}"
