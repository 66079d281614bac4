"""Exact quantiles of each cell: all hours of a block of cells at once, sorted, in bounded memory.

A value is replaced by its rank among the values that its variable takes (two bytes, because a
bit-rounded variable takes fewer than 65,536 values), and the ranks of a block of cells are
gathered in a scratch file, cells by hours. Then each cell's row is sorted.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aqnet.data.parallel import Workers
from aqnet.data.statistics.counting import KeyCounts, interpolate, order_positions, ranks_of
from aqnet.data.statistics.plan import Plan, Source, batches, segments
from aqnet.errors import ParameterError, explain
from aqnet.io import explain_full_disk
from aqnet.variables import DYNAMIC

__all__ = ["cell_quantiles"]

_SORT_CELLS = 256  # cells of a task of sorting: 18 MB of ranks of four years


@dataclass(frozen=True, eq=False)
class _Block:
    """Active cells `first` to `last` of all variables, and the scratch files of their ranks."""

    plan: Plan
    counts: tuple[KeyCounts, ...]
    folder: Path
    first: int
    last: int

    def ranks(self, variable: int) -> np.memmap:
        """(cells, valid hours) of one variable."""
        shape = (self.last - self.first, int(self.plan.valid[:, variable].sum()))
        kind = self.counts[variable].rank_type
        return np.memmap(self.folder / DYNAMIC[variable], dtype=kind, mode="r+", shape=shape)


def _bytes_of_cell(plan: Plan, counts: tuple[KeyCounts, ...]) -> int:
    """All hours of all variables of one cell."""
    sizes = [c.rank_type.itemsize for c in counts]
    return int((plan.valid.sum(axis=0) * sizes).sum())


def _gather(source: Source, task: tuple[_Block, int, int]) -> None:
    """Write the ranks of hours `start` to `stop` into the scratch files."""
    block, start, stop = task
    plan, cells = block.plan, slice(block.first, block.last)
    bare = ~plan.covered[:, cells]
    parts: list[list[np.ndarray]] = [[] for _ in DYNAMIC]
    for rows, values in batches(source, plan, start, stop):
        for variable, counts in enumerate(block.counts):
            kept = values[plan.valid[rows, variable], variable, cells]
            kept[:, bare[variable]] = counts.values[0]
            parts[variable].append(ranks_of(kept, counts))
    # written once a segment: pieces of 3 kB, not of 192 bytes, in each row of the file
    for variable, ranks in enumerate(parts):
        before, after = plan.valid[:start, variable].sum(), plan.valid[:stop, variable].sum()
        block.ranks(variable)[:, before:after] = np.concatenate(ranks).T


def _sort(_: Source, task: tuple[_Block, int, int, np.ndarray]) -> np.ndarray:
    """Quantiles (Q, 11, n) of cells `start` to `stop` of a block."""
    block, start, stop, q = task
    found = np.empty((len(q), len(DYNAMIC), stop - start))
    for variable, counts in enumerate(block.counts):
        ordered = np.sort(block.ranks(variable)[start:stop], axis=1)
        below, above, weight = order_positions(ordered.shape[1], q)
        values = counts.values.astype(np.float64)
        low, high = (values[ordered[:, place]].T for place in (below, above))
        found[:, variable] = interpolate(low, high, weight[:, None])
    return found


def _allocate(block: _Block) -> None:
    """Reserve the scratch files: a full disk is met here and not in the middle of a write."""
    hours = block.plan.valid.sum(axis=0).tolist()
    for name, number, counts in zip(DYNAMIC, hours, block.counts, strict=True):
        size = (block.last - block.first) * number * counts.rank_type.itemsize
        with (block.folder / name).open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)


def _blocks(cells: int, cell_bytes: int, memory_bytes: int) -> Iterator[tuple[int, int]]:
    if memory_bytes < cell_bytes:
        raise ParameterError(explain(
            "the memory does not hold one cell", expected=f"at least {cell_bytes} bytes",
            found=memory_bytes, remedy="raise the memory for quantiles"))  # fmt: skip
    number = -(-cells * cell_bytes // memory_bytes)
    edges = [cells * i // number for i in range(number + 1)]
    yield from itertools.pairwise(edges)


def cell_quantiles(
    workers: Workers,
    plan: Plan,
    counts: tuple[KeyCounts, ...],
    q: np.ndarray,
    memory_bytes: int,
    scratch: str | Path | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """Quantiles over the hours of a plan, per variable and active cell.

    Parameters
    ----------
    workers : Workers whose state is the source
    plan : Plan
    counts : 11 KeyCounts
        Of all values in `plan`.
    q : (Q,) from 0 to 1
    memory_bytes : int
        Size of the ranks held at once (all processes together). All hours are read once for
        each block of cells that fits: at 128 x 256 cells with 11,317 active, four years are 8.7 GB.
    scratch : path, optional
        Folder of the scratch file, which is that large and gone afterwards; default: the
        system's folder of temporary files (TMPDIR).
    progress : callable
        Called with the fraction done.

    Returns
    -------
    (Q, 11, C) float64
        Equal to numpy.quantile; NaN in cells without values.

    Raises
    ------
    StorageFullError
        No room for the scratch file.
    """
    cells, tasks = plan.shift.shape[1], segments(plan)
    found = np.empty((len(q), len(DYNAMIC), cells))
    blocks = list(_blocks(cells, _bytes_of_cell(plan, counts), memory_bytes))
    light = replace(plan, reference=None)
    for number, (first, last) in enumerate(blocks):
        with tempfile.TemporaryDirectory(dir=scratch, prefix="aqnet-quantiles-") as folder:
            block = _Block(light, counts, Path(folder), first, last)
            with explain_full_disk(folder):
                _allocate(block)
            for done, _ in enumerate(workers.map(_gather, ((block, *task) for task in tasks)), 1):
                progress((number + 0.8 * done / len(tasks)) / len(blocks))
            edges = range(0, last - first, _SORT_CELLS)
            sorts = ((block, e, min(e + _SORT_CELLS, last - first), np.asarray(q)) for e in edges)
            for e, part in zip(edges, workers.map(_sort, sorts), strict=True):
                found[:, :, first + e : first + e + part.shape[2]] = part
        progress((number + 1) / len(blocks))
    found[:, ~plan.covered] = np.nan
    return found
