"""One shard of a yearly store from the hours of a source: read, converted, written or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aqnet.data.source.caqra import HourSource, SourceFileError, native_name, read_hour
from aqnet.data.source.conversion import Conversion, convert_hour
from aqnet.data.source.files import read_contents
from aqnet.data.years.writer import write_shard
from aqnet.errors import AqnetError, CoverageError, DataError, FieldError, UnitError, explain
from aqnet.grid import GridError
from aqnet.variables import DYNAMIC

__all__ = ["HOUR_ERRORS", "Damaged", "Shard", "content_of", "ingest_shard", "sha256_of", "unusable"]

Damaged = Literal["stop", "missing"]
# What can be wrong with an hour; all else (disk, weights, geography) is not the hour's fault.
HOUR_ERRORS = (SourceFileError, FieldError, UnitError, CoverageError, GridError)
# A wrong unit or another grid is a wrong setting or a wrong folder, never a damaged hour; cells
# beyond the mask say that the hour which decided the mask had gaps.
_ALWAYS_STOP = (UnitError, GridError, CoverageError)


@dataclass(frozen=True)
class Shard:
    """What a process needs to know to write one shard.

    Attributes
    ----------
    partial, number
        See `write_shard`.
    sources : tuple of HourSource or None
        Of each row; None where there is no file.
    no_file : str
        Why such an hour is missing.
    damaged : "stop" or "missing"
    """

    partial: Path
    number: int
    sources: tuple[HourSource | None, ...]
    no_file: str
    damaged: Damaged


def content_of(content: bytes | SourceFileError) -> bytes:
    """The bytes that `read_contents` gives; raises the error that it gives instead."""
    if isinstance(content, SourceFileError):
        raise content
    return content


def ingest_shard(conversion: Conversion, shard: Shard) -> int:
    """Read, convert and write the hours of one shard; return how many are missing.

    Raises
    ------
    SourceFileError, FieldError, UnitError, GridError, CoverageError, DataError
        Hours that cannot be used; lists them all. Nothing is written then.
    StorageFullError
        No room.
    """
    row_of = {source: row for row, source in enumerate(shard.sources) if source is not None}
    shape = (len(shard.sources), len(DYNAMIC), *conversion.area.target_shape)
    inputs = np.full(shape, np.nan, dtype=np.float32)
    digests = np.zeros((len(shard.sources), 32), dtype=np.uint8)
    missing = {row: shard.no_file for row, s in enumerate(shard.sources) if s is None}
    problems = []
    for source, content in read_contents(row_of):
        row = row_of[source]
        try:
            digests[row] = sha256_of(content_of(content))
            hour = read_hour(content, conversion.manifest, source.name)
            inputs[row] = convert_hour(conversion, hour, source.label, source.name)
        except HOUR_ERRORS as problem:
            problems.append((source, problem))
            missing[row] = _reason(source, problem)
    for source, problem in _copies(row_of, digests):
        if row_of[source] not in missing:
            problems.append((source, problem))
            missing[row_of[source]] = _reason(source, problem)
    if problems and (shard.damaged == "stop" or _always_stop(problems)):
        raise unusable(problems)
    write_shard(shard.partial, shard.number, inputs, digests, missing)
    return len(missing)


def _copies(
    row_of: dict[HourSource, int], digests: np.ndarray
) -> Iterator[tuple[HourSource, SourceFileError]]:
    """Hours whose files are equal: one of them is a copy, and nothing tells which."""
    names: dict[bytes, list[str]] = {}
    for source, row in row_of.items():
        names.setdefault(digests[row].tobytes(), []).append(source.name)
    for source, row in row_of.items():
        same = names[digests[row].tobytes()]
        if len(same) > 1:
            yield source, SourceFileError(explain(
                f"{source.name} is byte for byte the file of another hour",
                expected="another file for each hour", found=", ".join(same),
                remedy="fetch these files again"))  # fmt: skip


def sha256_of(content: bytes) -> np.ndarray:
    """SHA-256 of bytes, (32,) uint8."""
    return np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)


def _always_stop(problems: list[tuple[HourSource, AqnetError]]) -> bool:
    return any(isinstance(problem, _ALWAYS_STOP) for _, problem in problems)


def _headline(problem: AqnetError) -> str:
    return f"{type(problem).__name__}: {str(problem).splitlines()[0]}"


def _reason(source: HourSource, problem: AqnetError) -> str:
    """Why an hour is missing, without the folder: equal sources give equal stores."""
    return _headline(problem).replace(source.name, native_name(source.label))


def unusable(problems: list[tuple[HourSource, AqnetError]]) -> AqnetError:
    """One error for all hours that cannot be used: of their kind if they are of one kind."""
    ordered = sorted(problems, key=lambda pair: pair[0].label)
    if len(ordered) == 1:
        return ordered[0][1]
    kinds = {type(problem) for _, problem in ordered}
    kind = kinds.pop() if len(kinds) == 1 else DataError
    lines = "".join(f"\n    {_headline(problem)}" for _, problem in ordered)
    message = explain(
        f"{len(ordered)} hours cannot be used; the first of them:\n{ordered[0][1]}\nall of them:",
        expected="whole files, in the units of the manifest and on one grid",
        found=lines,
        remedy="fetch the files again, correct the manifest, or, if files are damaged, "
        "take their hours as missing: --damaged missing",
    )
    return kind(message)
