"""Readers of yearly stores that the benchmark of the loader compares.

Raw chunk reads in processes, samples that say what their worker has needed, and a plain xarray
loader.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from aqnet.data.batches import FieldSamples
from aqnet.data.normalisation import reference_constants
from aqnet.data.years.year_set import YearSet
from aqnet.errors import RunError, explain
from aqnet.variables import DYNAMIC, TARGETS

__all__ = [
    "START_METHOD",
    "PlainXarray",
    "WatchedSamples",
    "consume",
    "peak_mb",
    "plain_copy",
    "raw_readers",
]

START_METHOD = "forkserver"  # a fork of this process would share its open stores and memory


# ---- raw reads


def peak_mb() -> float:
    """Largest resident memory of this process so far [MB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def _read_chunks(pipe, paths: list[Path], chunks: list[tuple[int, int]]) -> None:
    """A raw reader's process: at each request read all chunks through zarr, one call each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    arrays = [zarr.open_array(path / "inputs", mode="r") for path in paths]
    while pipe.recv():
        begin = time.process_time()
        for store, row in chunks:
            arrays[store][row]
        pipe.send((peak_mb(), time.process_time() - begin))


@contextmanager
def raw_readers(years: YearSet, batches: list[list[int]], n: int) -> Iterator[Callable]:
    """A function that lets n processes read the chunks of all batches: largest peak, CPU time."""
    context, pipes, processes = get_context(START_METHOD), [], []
    paths = [store.path for store in years.stores]
    for reader in range(n):
        rows = [row for batch in batches[reader::n] for row in batch]
        chunks = list(zip(*(part.tolist() for part in years.locate(np.array(rows))), strict=True))
        ours, theirs = context.Pipe()
        process = context.Process(target=_read_chunks, args=(theirs, paths, chunks), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)

    def read() -> tuple[float, float]:
        try:
            for pipe in pipes:
                pipe.send(True)
            peaks, seconds = zip(*(pipe.recv() for pipe in pipes), strict=True)
        except (EOFError, OSError) as problem:
            message = explain(
                "a raw reader ended before it had read its chunks",
                expected="a process that reads to the end",
                found=f"exit codes {[process.exitcode for process in processes]}",
                remedy="see its message above; check the memory that is free",
            )
            raise RunError(message) from problem
        return max(peaks), sum(seconds)

    try:
        yield read
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            if process.is_alive():
                pipe.send(False)
            process.join()


# ---- loaders


class WatchedSamples(FieldSamples):
    """Samples whose batches say how much memory and time their worker has needed so far."""

    def batch(self, numbers: list[int], new: Callable) -> dict:
        """A batch, with `worker`: process, peak memory [MB] and CPU time [s]."""
        worker = os.getpid(), peak_mb(), time.process_time()
        return super().batch(numbers, new) | {"worker": worker}


def consume(loader: DataLoader, spent: dict[int, float]) -> tuple[float, float]:
    """Take all batches: largest peak of a worker [MB], CPU time since the last pass [s]."""
    peak, before = 0.0, dict(spent)
    for batch in loader:
        process, memory, seconds = batch["worker"]
        peak, spent[process] = max(peak, memory), seconds
    return peak, sum(spent[process] - before.get(process, 0.0) for process in spent)


class PlainXarray(Dataset):
    """The loader of the reference system: `isel` per variable, normalise, resize, stack."""

    def __init__(self, path: Path, leads: tuple[int, ...], shape: tuple[int, int]) -> None:
        self.store = xr.open_zarr(path, chunks=None, consolidated=False)
        self.leads, self.shape, scale = leads, shape, reference_constants()
        self.scale = {n: (scale.mean[i], scale.spread[i]) for i, n in enumerate(DYNAMIC)}

    def __len__(self) -> int:
        return self.store.sizes["time"] - max(self.leads)

    def _field(self, name: str, row: int) -> torch.Tensor:
        mean, spread = self.scale[name]
        values = torch.from_numpy(self.store[name].isel(time=row).values)
        values = ((values - mean) / spread).float()[None, None]
        return interpolate(values, size=self.shape, mode="bilinear", align_corners=False)[0, 0]

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.stack([self._field(name, row) for name in DYNAMIC])
        targets = [self._field(name, row + lead) for lead in self.leads for name in TARGETS]
        return inputs, torch.stack(targets)


def plain_copy(years: YearSet, folder: Path, hours: int) -> Path:
    """The first hours of a store, an array a variable and a chunk an hour, as xarray writes it."""
    path = folder / "plain.zarr"
    group = zarr.create_group(path)
    shape, dimensions = (hours, *years.grid.shape), ("time", "lat", "lon")
    for name in DYNAMIC:
        group.create_array(
            name, shape=shape, dtype="float32", chunks=(1, *shape[1:]), dimension_names=dimensions
        )
    for row in range(hours):
        first = row % len(years.times)  # a short store comes again: only its speed matters
        for name, values in zip(DYNAMIC, years.read(slice(first, first + 1))[0], strict=True):
            group[name][row] = values
    return path
