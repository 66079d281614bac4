"""Exact quantiles of rounded floats: their bit patterns are few, so they are counted.

A store keeps `keep_bits` bits of the mantissa, so a variable takes some ten thousand values
however many hours there are. Interpreted as an integer with the sign bit undone, a float32
sorts like the number it stands for; without the bits that are zero it is a `key`. Counts of keys
of different blocks are merged by adding them, and every order statistic can be read off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from aqnet.errors import FieldError, explain

__all__ = [
    "KeyCounts",
    "count_values",
    "interpolate",
    "keys_of",
    "merge_counts",
    "order_positions",
    "quantiles",
    "ranks_of",
    "values_of",
]

# Counted in a table up to this range of keys (128 MB of counts), by sorting beyond it.
_TABLE = 1 << 24


@dataclass(frozen=True, eq=False)
class KeyCounts:
    """How often each value occurs: keys (n,) int32, ascending, and counts (n,) int64."""

    keys: np.ndarray
    counts: np.ndarray
    keep_bits: int

    @property
    def values(self) -> np.ndarray:
        """(n,) float32: the values that occur, ascending."""
        return values_of(self.keys, self.keep_bits)

    @property
    def rank_type(self) -> np.dtype:
        """Smallest type that holds a position among the values."""
        return np.dtype(np.uint16 if len(self.keys) <= 1 << 16 else np.uint32)

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())


def keys_of(values: np.ndarray, keep_bits: int) -> np.ndarray:
    """Integers (int32) that sort like `values` (float32, finite, `keep_bits` bits of mantissa).

    Raises
    ------
    FieldError
        A value has more bits than that.
    """
    bits, drop = np.ascontiguousarray(values, dtype=np.float32).view(np.int32), 23 - keep_bits
    if drop and np.bitwise_or.reduce(bits, axis=None) & ((1 << drop) - 1):
        raise FieldError(explain(
            "values are not rounded as stated", expected=f"{keep_bits} bits of mantissa",
            found="more", remedy="state the keep_bits that the store has"))  # fmt: skip
    # complement the magnitude of negative numbers: the larger, the further down
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> drop


def values_of(keys: np.ndarray, keep_bits: int) -> np.ndarray:
    """Inverse of `keys_of`: float32."""
    drop = 23 - keep_bits
    whole = np.asarray(keys, dtype=np.int32) << drop
    whole |= np.where(whole < 0, (1 << drop) - 1, 0).astype(np.int32)
    return (whole ^ ((whole >> 31) & 0x7FFFFFFF)).view(np.float32)


def _tally(keys: np.ndarray, counts: np.ndarray | None, keep_bits: int) -> KeyCounts:
    if not keys.size:
        return KeyCounts(np.empty(0, np.int32), np.empty(0, np.int64), keep_bits)
    low, high = int(keys.min()), int(keys.max())
    if high - low < _TABLE:
        # weights are added as float64: exact up to 2^53 values
        table = np.bincount((keys - low).ravel(), counts)
        places = np.flatnonzero(table)
        found = (places + low).astype(np.int32)
        return KeyCounts(found, table[places].astype(np.int64), keep_bits)
    found, first, number = np.unique(keys.ravel(), return_inverse=True, return_counts=True)
    if counts is not None:
        number = np.zeros(len(found), np.int64)
        np.add.at(number, first, counts)
    return KeyCounts(found, number.astype(np.int64), keep_bits)


def count_values(values: np.ndarray, keep_bits: int) -> KeyCounts:
    """Count the values (any shape, float32, finite) of a block; see `keys_of`."""
    return _tally(keys_of(values, keep_bits), None, keep_bits)


def merge_counts(parts: Iterable[KeyCounts]) -> KeyCounts:
    """Counts of all blocks together, whatever their order."""
    parts = list(parts)
    keys = np.concatenate([part.keys for part in parts])
    return _tally(keys, np.concatenate([part.counts for part in parts]), parts[0].keep_bits)


def ranks_of(values: np.ndarray, counts: KeyCounts) -> np.ndarray:
    """Position of each value among `counts.values`, of type `counts.rank_type`."""
    keys, known, kind = keys_of(values, counts.keep_bits), counts.keys, counts.rank_type
    low, high = int(known[0]), int(known[-1])
    if high - low >= _TABLE:
        return np.searchsorted(known, keys).astype(kind)
    table = np.zeros(high - low + 1, dtype=kind)
    table[known - low] = np.arange(len(known))
    return table[keys - low]


# ---- quantiles, as numpy's method "linear" (Hyndman and Fan 1996, Am. Stat. 50, definition 7)


def order_positions(number: int, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions below and above each quantile among `number` sorted values, and the weight."""
    virtual = (number - 1) * np.asarray(q, dtype=np.float64)
    below = np.floor(virtual).astype(np.int64)
    return below, np.minimum(below + 1, number - 1), virtual - below


def interpolate(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Between order statistics, with the roundings of numpy: float64."""
    below, above = np.asarray(below, np.float64), np.asarray(above, np.float64)
    step = above - below
    return np.where(weight >= 0.5, above - step * (1 - weight), below + step * weight)


def quantiles(
    counts: KeyCounts, q: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """Quantiles of all counted values, equal to `numpy.quantile` of them as float64.

    Parameters
    ----------
    counts : KeyCounts, not empty
    q : (Q,) from 0 to 1
    transform : callable, optional
        A function that does not decrease: quantiles of the transformed values. Order statistics
        are transformed before the interpolation, so the result is exact as well; it differs from
        the transformed quantile only where a quantile lies between two order statistics.

    Returns
    -------
    (Q,) float64
    """
    ends, values = np.cumsum(counts.counts), counts.values.astype(np.float64)
    if transform is not None:
        values = transform(values)
    below, above, weight = order_positions(int(ends[-1]), q)
    pick = [values[np.searchsorted(ends, place, side="right")] for place in (below, above)]
    return interpolate(*pick, weight)
