"""How fast samples come out of yearly stores, compared with reading their chunks and nothing else.

In one run, in turn and repeated: raw chunk reads, and `FieldSamples` through a DataLoader, with one
and with two processes; a plain xarray loader beside them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from aqnet.data.batches import FieldSamples, field_loader
from aqnet.data.bench_readers import (
    START_METHOD,
    PlainXarray,
    WatchedSamples,
    consume,
    peak_mb,
    plain_copy,
    raw_readers,
)
from aqnet.data.order import seeded_order
from aqnet.data.splits import Split
from aqnet.data.years.year_set import YearSet
from aqnet.errors import SampleError, explain
from aqnet.progress import Progress, silent

__all__ = ["LoaderBench", "bench_loader", "copy_speed_gb_s", "report"]

PROCESSES = (1, 2)
XARRAY_SAMPLES = 8
_COPY_BYTES = 2**26
_HOUR = np.timedelta64(1, "h")


@dataclass
class LoaderBench:
    """What was measured; rates are hours (chunks) a second, a value for each round.

    hours, samples: of a pass, hours counted once a batch; active: share of cells in the mask;
    rates, cpu_ms (CPU time an hour, of all processes), peaks_mb: by the name of the reader;
    copy_gb_s: `copy_speed_gb_s` in each round.
    """

    store: str
    grid: str
    batch_size: int
    samples: int
    hours: int
    leads: tuple[int, ...]
    active: float
    mb_per_hour: float
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    peaks_mb: dict[str, float] = field(default_factory=dict)
    copy_gb_s: list[float] = field(default_factory=list)

    def ratio(self, workers: int) -> float:
        """Loader over raw with so many processes, median over rounds."""
        loader, raw = (self.rates[_name(kind, workers)] for kind in ("loader", "raw"))
        return statistics.median(a / b for a, b in zip(loader, raw, strict=True))


def _name(kind: str, n: int) -> str:
    many = "es" if kind == "raw" else "s"
    noun = "process" if kind == "raw" else "worker"
    return f"{'raw chunks' if kind == 'raw' else 'FieldSamples'}, {n} {noun}{many if n > 1 else ''}"


XARRAY = "plain xarray, in this process"


def copy_speed_gb_s() -> float:
    """Speed at which numpy copies 64 MB in memory [GB/s], best of five."""
    source, target, best = np.ones(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8), 0.0
    for _ in range(5):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, _COPY_BYTES / 1e9 / (time.perf_counter() - begin))
    return best


def _mb_per_hour(years: YearSet) -> float:
    files = [f for store in years.stores for f in (store.path / "inputs").rglob("*") if f.is_file()]
    return sum(f.stat().st_size for f in files) / 1e6 / len(years.times)


def _chosen(n: int, samples: int, batch_size: int, seed: int) -> np.ndarray:
    """Random samples for an even number of whole batches, so that two workers share equally."""
    batches = min(samples, n) // batch_size // 2 * 2
    if batch_size < 1 or batches < 2:
        raise SampleError(
            explain(
                "too few samples to measure",
                expected="at least two batches",
                found=f"{min(samples, n)} samples for batches of {batch_size}",
                remedy="choose a smaller --batch-size or more --samples, or a longer store",
            )
        )
    return seeded_order(np.arange(n), seed, 0)[: batches * batch_size]


def bench_loader(
    years: YearSet,
    batch_size: int = 4,
    samples: int = 128,
    leads: tuple[int, ...] = (12, 24, 48, 96),
    rounds: int = 3,
    seed: int = 0,
    progress: Progress = silent,
) -> LoaderBench:
    """Measure readers in turn, `rounds` times, after a round that is not counted.

    Raw reads are the chunks that the loader reads, once a batch, through zarr, one call each; with
    two workers they are shared by two processes, batch by batch, as a DataLoader shares them.

    Raises
    ------
    SampleError, LeadTimeError
        The stores have too few hours.
    StoreError
        A chunk is damaged.
    """
    split = Split("all", years.times[0], years.times[-1] + _HOUR)
    data = WatchedSamples(years, split, leads)
    numbers = _chosen(len(data), samples, batch_size, seed)
    rows = np.concatenate([data.index.inputs, data.index.targets], axis=1)[numbers]
    batches = [np.unique(part).tolist() for part in np.split(rows, len(numbers) // batch_size)]
    bench = LoaderBench(
        str(years.stores[0].path), years.grid.name, batch_size, len(numbers),
        sum(map(len, batches)), tuple(leads), years.mask.mean(), _mb_per_hour(years),
    )  # fmt: skip
    with ExitStack() as stack:
        passes = _passes(stack, years, data, numbers, batches, batch_size)
        for number in range(rounds + 1):
            for place, (name, run) in enumerate(passes.items()):
                progress(f"round {number} of {rounds}: {name}",
                         (number + place / len(passes)) / (rounds + 1))  # fmt: skip
                _measure(bench, name, run, counted=number > 0)
            bench.copy_gb_s.append(copy_speed_gb_s())
    bench.peaks_mb["this process"] = peak_mb()
    progress("done", 1.0)
    return bench


def _measure(bench: LoaderBench, name: str, run: Callable, counted: bool) -> None:
    begin, own = time.perf_counter(), time.process_time()
    hours, (peak, others) = run()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - own + others
    if counted:
        bench.rates.setdefault(name, []).append(hours / seconds)
        bench.cpu_ms.setdefault(name, []).append(1e3 * cpu / hours)
        bench.peaks_mb[name] = max(peak, bench.peaks_mb.get(name, 0.0))


def _passes(
    stack: ExitStack,
    years: YearSet,
    data: FieldSamples,
    numbers: np.ndarray,
    batches: list[list[int]],
    batch_size: int,
) -> dict[str, Callable]:
    """Readers by name: each a function that reads once and returns hours and peak memory."""
    passes, hours = {}, sum(map(len, batches))
    for n in PROCESSES:  # the loader first: it has a message for a damaged chunk
        loader = field_loader(data, numbers.tolist(), batch_size, n, START_METHOD)
        passes[_name("loader", n)] = lambda loader=loader, spent={}: (
            hours, consume(loader, spent))  # fmt: skip
        read = stack.enter_context(raw_readers(years, batches, n))
        passes[_name("raw", n)] = lambda read=read: (hours, read())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aqnet-bench-")))
    leads = data.lead_times_h
    copy = plain_copy(years, folder, max(leads) + XARRAY_SAMPLES)
    plain = PlainXarray(copy, leads, years.grid.shape)
    chosen = seeded_order(np.arange(len(plain)), 0, 0)[:XARRAY_SAMPLES].tolist()
    slow = DataLoader(plain, batch_size=min(batch_size, len(chosen)), sampler=chosen)
    passes[XARRAY] = lambda: (len(chosen) * (1 + len(leads)), (0.0, sum(0.0 for _ in slow)))
    return passes


def report(bench: LoaderBench) -> list[str]:
    """Lines of a table: medians over the rounds."""
    per_sample = 1 + len(bench.leads)
    lines = [
        f"store   {bench.store}: grid {bench.grid}, {bench.active:.0%} of the cells active, "
        f"{bench.mb_per_hour:.2f} MB an hour on disk",
        f"a pass  {bench.samples} samples in random order, batches of {bench.batch_size}, leads "
        f"{', '.join(map(str, bench.leads))} h: {bench.hours} chunks, each once a batch",
        "cache   warm: every chunk was read in an uncounted round, so disks are not measured",
        "",
        f"{'reader':<31}{'hours/s':>8}{'samples/s':>10}{'of raw':>8}{'CPU ms/h':>10}{'peak MB':>9}",
    ]
    for name in [*(_name(kind, n) for n in PROCESSES for kind in ("raw", "loader")), XARRAY]:
        rate = statistics.median(bench.rates[name])
        samples = rate * (1 / per_sample if name == XARRAY else bench.samples / bench.hours)
        loads = [n for n in PROCESSES if name == _name("loader", n)]
        of_raw = f"{bench.ratio(loads[0]):.2f}" if loads else ""
        cpu = statistics.median(bench.cpu_ms[name])
        peak = f"{bench.peaks_mb[name]:.0f}" if bench.peaks_mb[name] else ""
        lines.append(f"{name:<31}{rate:>8.0f}{samples:>10.1f}{of_raw:>8}{cpu:>10.2f}{peak:>9}")
    copies = statistics.median(bench.copy_gb_s)
    return [
        *lines, "",
        f"peak memory of this process {bench.peaks_mb['this process']:.0f} MB, with all readers; "
        "in the table that of the largest reader",
        "CPU time of all processes together, for an hour read",
        "raw with 2 processes: two readers at once, each with every other batch",
        f"memory copy {copies:.1f} GB/s (numpy, one thread); medians of "
        f"{len(bench.copy_gb_s) - 1} rounds, readers in turn",
    ]  # fmt: skip
