"""What statistics are computed from: the hours of a split, read in pieces, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aqnet.data.splits import Split, check_no_crossing
from aqnet.errors import CoverageError, FieldError, explain
from aqnet.variables import DYNAMIC

__all__ = [
    "BATCH_H",
    "SEGMENT_H",
    "FieldSeries",
    "Plan",
    "Source",
    "batches",
    "make_plan",
    "segments",
]

BATCH_H = 96  # hours in memory at once: at 128 x 256 cells 138 MB as read
# Hours of one task. Fixed, and merged in order, so that results do not depend on the number of
# processes. 62 days: 6 tasks a year; a task reads 96 hours twice (6 %) and returns 80 MB.
SEGMENT_H = 1488


class Source(Protocol):
    """What statistics are computed from: a `YearSet`, or arrays in memory (`FieldSeries`)."""

    times: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    static: np.ndarray

    def read(self, rows: slice) -> np.ndarray:
        """Hours `rows`, (n, 11, H, W) float32, NaN where there is no value."""


@dataclass(frozen=True, eq=False)
class FieldSeries:
    """Fields in memory as a source.

    times (T,) datetime64[h] UTC, ascending; values (T, 11, H, W) float32; valid (T, 11) bool,
    whether the variable has values in that hour; mask (H, W) bool; static (4, H, W).
    """

    times: np.ndarray
    values: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    static: np.ndarray

    def read(self, rows: slice) -> np.ndarray:
        """Hours `rows`."""
        return self.values[rows]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is summed: hours, basis, pairs and shift; the same for all tasks.

    Attributes
    ----------
    split : Split
    start, stop : int
        Rows of the source that lie in the split.
    times : (n,) datetime64[h]; valid : (n, 11) bool
        Of these rows.
    leads_h : tuple of int
        Lead times of the correlations [h].
    utc_offset_h, annual, diurnal : of the harmonic basis
    keep_bits : tuple of 11 int
        Bits of mantissa that the values have.
    shift : (11, C) float64
        Subtracted from the values; NaN in cells that never have a value of the variable.
    reference : (K, 11, C) float64, optional
        Coefficients of a climatology that is subtracted as well: sums of anomalies.
    """

    split: Split
    start: int
    stop: int
    times: np.ndarray
    valid: np.ndarray
    leads_h: tuple[int, ...]
    utc_offset_h: float
    annual: int
    diurnal: int
    keep_bits: tuple[int, ...]
    shift: np.ndarray
    reference: np.ndarray | None = None

    @property
    def terms(self) -> int:
        """Number of harmonic terms K."""
        return (2 * self.annual + 1) * (2 * self.diurnal + 1)

    @property
    def covered(self) -> np.ndarray:
        """(11, C) bool: cells with values of the variable."""
        return np.isfinite(self.shift)


def make_plan(
    source: Source,
    split: Split,
    utc_offset_h: float,
    leads_h: tuple[int, ...],
    annual: int,
    diurnal: int,
    keep_bits: tuple[int, ...],
) -> Plan:
    """Look up the hours of a split in a source, and the shift.

    Raises
    ------
    CoverageError
        The source has no hour in the split, or a variable no valid hour there.
    """
    rows = np.flatnonzero(split.contains(source.times))
    if not rows.size:
        raise CoverageError(explain(
            "no hours for statistics", expected=f"hours in [{split.start}, {split.end}) UTC",
            found=f"{len(source.times)} hours, none of them inside",
            remedy=f"open the years of the split {split.name}"))  # fmt: skip
    start, stop = int(rows[0]), int(rows[-1]) + 1
    times, valid = source.times[start:stop], source.valid[start:stop]
    check_no_crossing("statistics", times, split)
    shift = _first_values(source, start, valid)
    return Plan(
        split,
        start,
        stop,
        times,
        valid,
        tuple(leads_h),
        utc_offset_h,
        annual,
        diurnal,
        tuple(keep_bits),
        shift,
    )


def _first_values(source: Source, start: int, valid: np.ndarray) -> np.ndarray:
    """Values of the first valid hour of each variable in the active cells, (11, C) float64."""
    absent = [n for n, there in zip(DYNAMIC, valid.any(0), strict=True) if not there]
    if absent:
        raise CoverageError(explain(
            "variables without values in the split", expected="at least one valid hour of each",
            found=f"none of {', '.join(absent)}",
            remedy="check the stores: aqnet data check"))  # fmt: skip
    first, found = valid.argmax(axis=0), np.empty((len(DYNAMIC), int(source.mask.sum())))
    for row in np.unique(first):
        hour = source.read(slice(start + row, start + row + 1))[0]
        here = first == row
        found[here] = hour[here][:, source.mask]
    return found


def segments(plan: Plan) -> list[tuple[int, int]]:
    """Tasks: first row and row after the last one, counted from `plan.start`."""
    hours = len(plan.times)
    return [(a, min(a + SEGMENT_H, hours)) for a in range(0, hours, SEGMENT_H)]


def batches(
    source: Source, plan: Plan, start: int, stop: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Read hours `start` to `stop` (counted from `plan.start`) in pieces of the active cells.

    Yields
    ------
    rows : slice
    values : (n, 11, C) float32

    Raises
    ------
    FieldError
        A valid hour has values in other cells than the first one had.
    """
    covered, cells = plan.covered, np.flatnonzero(source.mask)
    for first in range(start, stop, BATCH_H):
        rows = slice(first, min(first + BATCH_H, stop))
        there = slice(plan.start + rows.start, plan.start + rows.stop)
        check_no_crossing("statistics", source.times[there], plan.split)
        fields = source.read(there)
        values = np.take(fields.reshape(*fields.shape[:2], -1), cells, axis=2)
        same = (np.isfinite(values) == covered).all(axis=2) | ~plan.valid[rows]
        if not same.all():
            raise _patchy(plan, rows, values, same)
        yield rows, values


def _patchy(plan: Plan, rows: slice, values: np.ndarray, same: np.ndarray) -> FieldError:
    hour, variable = np.argwhere(~same)[0]
    there = np.isfinite(values[hour, variable])
    return FieldError(explain(
        f"{DYNAMIC[variable]} at {plan.times[rows][hour]} UTC: values in other cells than before",
        expected=f"values in the same {plan.covered[variable].sum()} cells in every valid hour",
        found=f"values in {there.sum()} cells",
        remedy="write the hour as missing, or mask these cells in the store"))  # fmt: skip
