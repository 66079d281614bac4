"""Errors of aqnet: each states what was expected, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AqnetError",
    "ChecksumError",
    "CompileError",
    "CoverageError",
    "DataError",
    "FieldError",
    "InterruptedRunError",
    "LeadTimeError",
    "ManifestError",
    "ParameterError",
    "RunError",
    "SampleError",
    "StationFileError",
    "StorageFullError",
    "StoreBusyError",
    "StoreError",
    "TargetExistsError",
    "UnitError",
    "did_you_mean",
    "explain",
]


class AqnetError(Exception):
    """Base of every error that aqnet raises on purpose.

    The command line prints the message without a traceback and ends with `exit_code`.
    """

    exit_code = 1


class ParameterError(AqnetError):
    """A notebook parameter is unknown, has the wrong type or is out of range."""

    exit_code = 2


class CompileError(AqnetError):
    """A notebook cannot become a script, or a script is not that of its notebook."""


class DataError(AqnetError):
    """Data on disk are missing, damaged or not what was asked for."""


class StationFileError(DataError):
    """A station file does not have the columns or values that it must have."""


class ChecksumError(DataError):
    """A file is not the one its manifest describes."""


class ManifestError(DataError):
    """A manifest does not match its schema."""


class StoreError(DataError):
    """A Zarr store is missing, incomplete or of another version."""


class LeadTimeError(DataError):
    """The data cannot serve the lead time that was asked for."""


class UnitError(DataError):
    """Values are not in the unit they should be in, or a unit is not known."""


class FieldError(DataError):
    """A field is infinite, outside its valid range, or has no values at all."""


class CoverageError(DataError):
    """Hours, years or cells that are needed are not there."""


class SampleError(AqnetError):
    """Samples cannot be formed as asked: times, leads, history or cursor do not fit the data."""


class StoreBusyError(AqnetError):
    """Another process is writing the same store."""


class TargetExistsError(AqnetError):
    """Something stands already where a new file or folder should go."""


class StorageFullError(AqnetError):
    """The disk, the quota or the file size limit left no room for a write."""


class RunError(AqnetError):
    """A run failed, or a run folder is not usable."""


class InterruptedRunError(RunError):
    """A run was stopped by Ctrl-C or SIGTERM."""

    exit_code = 130  # 128 + SIGINT, what a shell reports for an interrupted program


def explain(problem: str, *, expected: object, found: object, remedy: str) -> str:
    """Build the message of an error.

    Parameters
    ----------
    problem : str
        What went wrong, naming the file, key or parameter.
    expected, found : object
        What should have been there, and what was there (shown with `str`).
    remedy : str
        What the reader can do about it.

    Returns
    -------
    str
        Four lines: the problem, then one labelled line each for the others.
    """
    return f"{problem}\n  expected: {expected}\n  found:    {found}\n  remedy:   {remedy}"


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Remedy for an unknown name: the nearest of the known ones, or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
