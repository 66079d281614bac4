"""Sums over hours that add up to moments, correlations and climatologies; read once, merged.

Every sum is over hours t of d(t) = x(t) - s, where s, the shift, is the value of the first valid
hour. A member of a sample lies at most sqrt(N - 1) standard deviations from its mean (Samuelson
1968, J. Am. Stat. Assoc. 63, 1522-1525), so the variance E[d^2] - E[d]^2 loses at most log10(N)
of the 16 digits (5 of them in four years of hours) whatever the data, and sums of different
blocks of time are merged by adding them.
"""

from __future__ import annotations

import numpy as np

from aqnet.data.climatology import harmonic_basis
from aqnet.data.statistics.counting import KeyCounts, count_values, merge_counts
from aqnet.data.statistics.plan import Plan, Source, batches
from aqnet.variables import DYNAMIC, TARGETS

__all__ = ["LOG_OFFSET_UG_M3", "Sums", "log_concentration", "merge", "segment_sums"]

LOG_OFFSET_UG_M3 = 1.0

Sums = dict[str, np.ndarray]


def log_concentration(concentration: np.ndarray) -> np.ndarray:
    """log(max(c, 0) + 1 ug/m3) of concentrations in ug/m3, natural logarithm.

    The offset `LOG_OFFSET_UG_M3` keeps clean air finite; stores may hold -1 to 0 ug/m3, which
    assimilation and regridding leave behind and which counts as 0.
    """
    return np.log1p(np.maximum(concentration, 0.0) / LOG_OFFSET_UG_M3)


def _partners(plan: Plan, lead_h: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows i and j, both of (P,) int, with times[j] = times[i] + lead_h."""
    later = plan.times + np.timedelta64(lead_h, "h")
    j = np.searchsorted(plan.times, later)
    inside = j < len(plan.times)
    i, j = np.flatnonzero(inside), j[inside]
    exact = plan.times[j] == later[i]
    return i[exact], j[exact]


def _pair_table(plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of valid hours: as first (L, n, 11) bool, as second, and row of the first (L, n)."""
    shape = (len(plan.leads_h), *plan.valid.shape)
    first, second, partner = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape[:2], int)
    for number, lead in enumerate(plan.leads_h):
        i, j = _partners(plan, lead)
        both = plan.valid[i] & plan.valid[j]
        first[number, i], second[number, j], partner[number, j] = both, both, i
    return first, second, partner


def merge(total: Sums | None, part: Sums) -> Sums:
    """Add the sums of another block of hours, in place; None is the sum of nothing."""
    if total is None:
        return part
    for name, values in part.items():
        total[name] += values
    return total


def _empty(plan: Plan) -> Sums:
    variables, cells = plan.shift.shape
    leads, terms = len(plan.leads_h), plan.terms
    shapes = {"pair_xy": (variables, leads, cells), "pair_sums": (variables, 4 * leads, cells)}
    if plan.reference is None:
        shapes |= {
            "first": (variables, cells), "second": (variables, cells),
            "log_first": (len(TARGETS), cells), "log_second": (len(TARGETS), cells),
            "basis_y": (variables, terms, cells), "basis_basis": (variables, terms, terms),
        }  # fmt: skip
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def segment_sums(source: Source, task: tuple[Plan, int, int]) -> tuple[Sums, tuple[KeyCounts, ...]]:
    """Sums over the hours of one segment, and counts of the values of each variable.

    Parameters
    ----------
    source : Source
    task : plan, start, stop
        See `segments`. Up to the longest lead time before `start` is read as well: the first
        hours of pairs.

    Returns
    -------
    sums : dict
        first, second (11, C): of d and d^2. log_first, log_second (6, C): of the logarithm of
        the targets, less its shift. basis_basis (11, K, K), basis_y (11, K, C): normal equations.
        pair_xy (11, L, C): of d(t) d(t + h). pair_sums (11, 4 L, C): over pairs, of d(t),
        d(t + h), d(t)^2, d(t + h)^2. With `plan.reference` the pairs alone.
    counts : 11 KeyCounts; none with `plan.reference`
    """
    plan, start, stop = task
    sums, pairs, counts = _empty(plan), _pair_table(plan), []
    back = max(plan.leads_h, default=0)
    reach = int(np.searchsorted(plan.times, plan.times[start] - np.timedelta64(back, "h")))
    before = np.empty((0, *plan.shift.shape), np.float32)
    for rows, values in batches(source, plan, reach, stop):
        window = np.concatenate([before, values])
        first = max(start, rows.start)
        if first < rows.stop:
            _add_batch(sums, plan, pairs, slice(first, rows.stop), window)
        if first < rows.stop and plan.reference is None:
            counts.append(_count(plan, slice(first, rows.stop), values[first - rows.start :]))
        before = window[max(len(window) - back, 0) :]
    return sums, tuple(merge_counts(parts) for parts in zip(*counts, strict=True))


def _count(plan: Plan, rows: slice, values: np.ndarray) -> list[KeyCounts]:
    valid, covered = plan.valid[rows], plan.covered
    found = []
    for v, keep_bits in enumerate(plan.keep_bits):
        known = values[:, v]
        if not valid[:, v].all():  # each choice copies, and mostly there is nothing to choose
            known = known[valid[:, v]]
        if not covered[v].all():
            known = known[:, covered[v]]
        found.append(count_values(known, keep_bits))
    return found


def _add_batch(sums: Sums, plan: Plan, pairs: tuple, rows: slice, window: np.ndarray) -> None:
    """Add the hours `rows`; `window` ends with them and goes back further."""
    held = slice(rows.stop - len(window), rows.stop)  # rows of the window
    basis = harmonic_basis(plan.times[held], plan.utc_offset_h, plan.annual, plan.diurnal)
    new = slice(rows.start - held.start, len(window))
    for variable, name in enumerate(DYNAMIC):
        d = _departures(plan, variable, window[:, variable], held, basis)
        _add_pairs(sums, pairs, variable, d, held.start, rows.start)
        if plan.reference is None:
            _add_moments(sums, variable, d[new], basis[new], plan.valid[rows, variable])
            if name in TARGETS:
                _add_logarithms(sums, plan, variable, window[new, variable], rows)


def _departures(
    plan: Plan, variable: int, values: np.ndarray, held: slice, basis: np.ndarray
) -> np.ndarray:
    """d of one variable (n, C) float64; 0 where there is no value."""
    d = values.astype(np.float64)
    d -= plan.shift[variable]
    if plan.reference is not None:
        d -= basis @ plan.reference[:, variable]
    d[~plan.valid[held, variable]] = 0.0
    d[:, ~plan.covered[variable]] = 0.0
    return d


def _add_moments(
    sums: Sums, variable: int, d: np.ndarray, basis: np.ndarray, valid: np.ndarray
) -> None:
    sums["first"][variable] += d.sum(axis=0)
    sums["second"][variable] += np.einsum("tc,tc->c", d, d)
    sums["basis_y"][variable] += basis.T @ d  # d is 0 in hours without value
    sums["basis_basis"][variable] += basis[valid].T @ basis[valid]


def _add_logarithms(sums: Sums, plan: Plan, variable: int, values: np.ndarray, rows: slice) -> None:
    target = TARGETS.index(DYNAMIC[variable])
    logs = log_concentration(values.astype(np.float64))
    logs -= log_concentration(plan.shift[variable])
    logs[~plan.valid[rows, variable]] = 0.0
    logs[:, ~plan.covered[variable]] = 0.0
    sums["log_first"][target] += logs.sum(axis=0)
    sums["log_second"][target] += np.einsum("tc,tc->c", logs, logs)


def _add_pairs(
    sums: Sums, pairs: tuple, variable: int, d: np.ndarray, held: int, start: int
) -> None:
    """Add the hours from row `start` on; row `held` is the first of d (n, C)."""
    first, second, partner = pairs
    if not len(first):
        return
    rows = slice(start, held + len(d))
    role = np.concatenate([first[:, rows, variable], second[:, rows, variable]]).astype(np.float64)
    new = d[start - held :]
    half = len(role)
    sums["pair_sums"][variable, :half] += role @ new
    sums["pair_sums"][variable, half:] += role @ (new * new)
    for lead in range(len(first)):
        seconds = np.flatnonzero(second[lead, rows, variable]) + start
        if seconds.size:
            at = partner[lead, seconds] - held
            sums["pair_xy"][variable, lead] += _dot(d, at, seconds - held)


def _dot(d: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Sum over pairs of d[i] d[j]; consecutive rows, the usual case, without copies."""
    if i[-1] - i[0] == j[-1] - j[0] == len(i) - 1:
        return np.einsum("tc,tc->c", d[i[0] : i[-1] + 1], d[j[0] : j[-1] + 1])
    return np.einsum("tc,tc->c", d[i], d[j])
