"""Sums of one field of forecasts and truths over classes of places: the inner loop of scoring.

A year of hourly fields is 3e9 pairs, so a field is brought into the order of its classes once and
every sum is then one pass over consecutive numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aqnet.events import window_sums

__all__ = [
    "FieldOrder",
    "Windows",
    "error_moments",
    "event_counts",
    "place_moments",
    "share_squares",
    "summed",
]


@dataclass(frozen=True, eq=False)
class FieldOrder:
    """Places of one field in the order of their cells.

    Attributes
    ----------
    order : (K,) int
        Places that count.
    cell : (K,) int
        Cell of each, ascending.
    weight : (K,) float64
    size : int
        Number of cells.
    """

    order: np.ndarray
    cell: np.ndarray
    weight: np.ndarray
    size: int

    def __post_init__(self) -> None:
        starts = np.flatnonzero(np.diff(self.cell, prepend=-1))
        held = {"starts": starts, "present": self.cell[starts]}
        held["counts"] = np.diff(starts, append=self.cell.size).astype(np.float64)
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def where(self, known: np.ndarray) -> FieldOrder:
        """Only the places that are known, (C,) bool."""
        kept = known[self.order]
        return FieldOrder(self.order[kept], self.cell[kept], self.weight[kept], self.size)

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """(Q, K) values in order, summed over cells: (Q, size)."""
        found = np.zeros((len(rows), self.size))
        if self.cell.size:
            found[:, self.present] = np.add.reduceat(rows, self.starts, axis=1)
        return found

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(size,) from one value of each cell that is present."""
        found = np.zeros(self.size)
        found[self.present] = values
        return found


def _moments(first: dict[str, np.ndarray], shift: dict[str, float], sums: dict) -> dict:
    """Means and central moments from sums about shifts; `first`: weight and n."""
    weight = first["weight"]
    safe = np.where(weight > 0, weight, 1.0)
    off = {k: sums[k] / safe for k in shift}
    mean = {f"mean_{k}": np.where(weight > 0, shift[k] + off[k], 0.0) for k in shift}
    central = {}
    for pair in ("ff", "oo", "fo", "dd"):
        a, b = pair
        central[f"m_{pair}"] = sums[pair] - weight * off[a] * off[b]
    for pair in ("ff", "oo", "dd"):  # never negative by rounding
        central[f"m_{pair}"] = np.maximum(central[f"m_{pair}"], 0.0)
    return first | mean | central | {"sum_abs": sums["abs"]}


def error_moments(f: np.ndarray, o: np.ndarray, at: FieldOrder) -> dict[str, np.ndarray]:
    """Moments as in `aqnet.metrics.FIELDS`, each (size,).

    Parameters
    ----------
    f, o : (K,) float64
        Forecast and truth in the order of `at`, finite.
    at : FieldOrder

    Notes
    -----
    Sums are taken about the mean of the field: a level of 1e4 ug/m3 then costs no digits.
    """
    w, n = at.weight, max(len(f), 1)
    d = f - o
    shift = {"f": f.sum() / n, "o": o.sum() / n, "d": d.sum() / n}
    rows = np.empty((9, len(f)))  # the last is the weight itself
    x, y, z = f - shift["f"], o - shift["o"], d - shift["d"]
    np.multiply(w, x, out=rows[0])
    np.multiply(w, y, out=rows[1])
    np.multiply(w, z, out=rows[2])
    np.multiply(rows[0], x, out=rows[3])
    np.multiply(rows[1], y, out=rows[4])
    np.multiply(rows[0], y, out=rows[5])
    np.multiply(rows[2], z, out=rows[6])
    np.abs(d, out=rows[7])
    rows[7] *= w
    rows[8] = w
    names = ("f", "o", "d", "ff", "oo", "fo", "dd", "abs", "weight")
    sums = dict(zip(names, at.sums(rows), strict=True))
    first = {"n": at.spread(at.counts), "weight": sums.pop("weight")}
    return _moments(first, shift, sums)


def event_counts(
    f: np.ndarray, o: np.ndarray, thresholds: np.ndarray, at: FieldOrder
) -> dict[str, np.ndarray]:
    """Counts as in `aqnet.events.EventSums`, each (size, T), of "value > threshold".

    `thresholds`: (T,) ascending. One histogram of the pair of levels gives all thresholds.
    """
    levels = len(thresholds) + 1
    code = at.cell * levels**2
    for x, step in ((f, levels), (o, 1)):
        for limit in thresholds:
            code += (x > limit) * np.int64(step)
    joint = np.bincount(code, at.weight, at.size * levels**2).reshape(-1, levels, levels)
    # joint[:, i, j]: forecast above i thresholds, truth above j
    low, high = [slice(0, k) for k in range(1, levels)], [slice(k, None) for k in range(1, levels)]
    parts = {
        "hits": (high, high),
        "false_alarms": (high, low),
        "misses": (low, high),
        "correct_negatives": (low, low),
    }
    return {
        name: np.stack([joint[:, a, b].sum((1, 2)) for a, b in zip(*pair, strict=True)], axis=-1)
        for name, pair in parts.items()
    }


def place_moments(f: np.ndarray, o: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Moments over the times of every place: (C,) each from (n, C), with weight 1.

    Pairs count where `known`; values elsewhere may be NaN.
    """
    n = known.sum(0, dtype=np.float64)
    safe = np.where(n > 0, n, 1.0)
    w = known.astype(np.float64)
    if not known.all():
        f, o = np.where(known, f, 0.0), np.where(known, o, 0.0)
    f, o = f.astype(np.float64), o.astype(np.float64)
    d = f - o
    mean = {k: x.sum(0) / safe for k, x in (("f", f), ("o", o), ("d", d))}
    total = np.abs(d).sum(0)
    for k, x in (("f", f), ("o", o), ("d", d)):
        x -= mean[k]
        x *= w
    found = {f"mean_{k}": v for k, v in mean.items()}
    for name, x, y in (("m_ff", f, f), ("m_oo", o, o), ("m_fo", f, o), ("m_dd", d, d)):
        found[name] = np.einsum("nc,nc->c", x, y)
    return found | {"n": n, "weight": n, "sum_abs": total}


class Windows:
    """Squares of shares of windows around the places of a grid, for the fractions skill score.

    Parameters
    ----------
    mask : (H, W) bool
        Cells that are places, in the order of the flattened grid.
    sizes : sequence of int
        Q odd numbers of cells.
    """

    def __init__(self, mask: np.ndarray, sizes: tuple[int, ...]) -> None:
        self.sizes, self._shape = tuple(sizes), mask.shape
        self._flat = np.flatnonzero(mask)
        # Kept for many hours, so as small as the largest count allows.
        self._kind = np.uint16 if max(sizes) ** 2 < 2**16 else np.int32
        self._number = self._counts(np.ones(self._flat.size, dtype=bool))

    def _counts(self, chosen: np.ndarray) -> np.ndarray:
        """(Q, C) int32: chosen places (C,) in the window of each place."""
        field = np.zeros(self._shape, dtype=bool)
        field.ravel()[self._flat] = chosen
        sums = window_sums(field, self.sizes)
        return np.stack([np.take(one, self._flat) for one in sums])

    def counts(
        self, values: np.ndarray, known: np.ndarray, thresholds: np.ndarray, at: FieldOrder
    ) -> np.ndarray:
        """(T, Q, K), in order: known places (C,) of the window above each threshold."""
        found = np.empty((len(thresholds), len(self.sizes), at.order.size), self._kind)
        for row, limit in zip(found, thresholds, strict=True):
            row[:] = np.take(self._counts(known & (values > limit)), at.order, axis=1)
        return found

    def weight(self, known: np.ndarray, at: FieldOrder) -> np.ndarray:
        """(Q, K) weight over the square of the number of known places in a window."""
        number = self._number if known.all() else self._counts(known)
        return at.weight / np.take(number, at.order, axis=1).astype(np.float64) ** 2


def share_squares(
    f: np.ndarray, o: np.ndarray, oo: np.ndarray, weight: np.ndarray, at: FieldOrder
) -> dict[str, np.ndarray]:
    """Sums as in `aqnet.events.NeighbourhoodSums`, each (size, T, Q).

    `f`, `o`: (T, Q, K) `Windows.counts`; `oo`: `summed(weight * o * o)`; `weight`: (Q, K).
    """
    weighted = weight * f
    ff, fo = summed(weighted * f, at), summed(weighted * o, at)
    # The score is 2 fo / (ff + oo): nothing cancels in it.
    return {"difference": ff + oo - 2 * fo, "forecast": ff, "truth": oo}


def summed(rows: np.ndarray, at: FieldOrder) -> np.ndarray:
    """(size, T, Q) from (T, Q, K) in order."""
    sums = at.sums(rows.reshape(rows.shape[0] * rows.shape[1], rows.shape[2]))
    return np.moveaxis(sums.reshape(*rows.shape[:2], at.size), -1, 0)
