"""Yearly stores of a twin, from one continuous simulation."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.parallel import death_explained, start_worker
from aqnet.data.twin.recipe import twin_config
from aqnet.data.twin.simulate import Simulation, hour_number
from aqnet.data.twin.world import World
from aqnet.data.years.format import YearSpec
from aqnet.data.years.writer import YearWriter, write_shard
from aqnet.errors import CoverageError, ParameterError, StoreError, explain
from aqnet.io import atomic_write_bytes, require_free_space
from aqnet.progress import Progress, silent
from aqnet.variables import DYNAMIC

__all__ = ["enter_year", "make_years", "spin_up", "state_path"]

Window = tuple[str, str]
_BYTES_PER_VALUE = 2.0  # of a compressed value; measured 1.7, with reserve
_WAITING = 2  # shards in memory on their way to the disk


def state_path(folder: Path, manifest: GridManifest, year: int) -> Path:
    """File of the simulation's state at the end of a year."""
    return Path(folder) / f"state_{year}_{manifest.grid}.npz"


def _save_state(simulation: Simulation, path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, **simulation.state())
    atomic_write_bytes(path, stream.getvalue())


def _load_state(simulation: Simulation, path: Path, year: int) -> None:
    if not path.is_file():
        message = explain(
            f"the year {year} continues {year - 1}, whose end is not there",
            expected=f"the file {path}",
            found="no such file",
            remedy=f"make {year - 1} first (--year {year - 1}), or a world that starts "
            f"in {year} (--first-year {year})",
        )
        raise CoverageError(message)
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["config"]) != simulation.digest:
            message = explain(
                f"{path} is the state of another world",
                expected=f"settings with digest {simulation.digest[:16]}",
                found=str(stored["config"])[:16],
                remedy="choose another folder for this world, or delete the file",
            )
            raise StoreError(message)
        simulation.hour = int(stored["hour"])
        simulation.amount[...] = stored["amount"]


def enter_year(simulation: Simulation, manifest: GridManifest, folder: Path, year: int) -> None:
    """Put a simulation before a year that it has not reached: the state of the year before.

    The first year of a world has none; see `spin_up`.

    Raises
    ------
    CoverageError
        The year is not one of the manifest, or the year before has not been simulated.
    StoreError
        The state is that of another world.
    """
    before = hour_number(manifest.times(year)[0]) - 1
    if simulation.hour != before and year != simulation.config.first_year:
        _load_state(simulation, state_path(folder, manifest, year - 1), year)


def spin_up(simulation: Simulation, manifest: GridManifest, year: int, progress: Progress) -> None:
    """Simulate to the hour before the first one of a year that was entered."""
    before = hour_number(manifest.times(year)[0]) - 1
    _run_to(simulation, before, f"spin-up before {year}", progress)


def _run_to(simulation: Simulation, hour: int, step: str, progress: Progress) -> None:
    start = simulation.hour
    while simulation.hour < hour:
        simulation.step()
        progress(step, (simulation.hour - start) / (hour - start))


@contextmanager
def _writers(count: int) -> Iterator[ProcessPoolExecutor]:
    # Without the initializer a killed simulation (kill -9, out of memory) leaves them waiting.
    executor = ProcessPoolExecutor(count, get_context("spawn"), start_worker, (None,))
    try:
        with death_explained(count):
            yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _limited(waiting: list[Future], most: int) -> None:
    while len(waiting) > most:
        waiting.pop(0).result()


def _simulate_into(simulation: Simulation, writer: YearWriter, progress: Progress) -> None:
    """Simulate the hours of a store and hand its shards to a second process."""
    times, step = writer.spec.times, f"simulating {writer.spec.year}"
    _run_to(simulation, hour_number(times[0]) - 1, f"{step}, hours before the window", progress)
    pending, waiting = set(writer.pending()), []
    with _writers(1) as executor:
        for number in range(writer.shards):
            rows = writer.rows(number)
            block = np.stack([simulation.step() for _ in range(rows.start, rows.stop)])
            if number in pending:
                waiting.append(executor.submit(write_shard, writer.partial, number, block))
            _limited(waiting, _WAITING)
            progress(step, rows.stop / len(times) * 0.999)
        _limited(waiting, 0)


def _spec(world: World, manifest: GridManifest, year: int, window: Window | None) -> YearSpec:
    mask = np.ascontiguousarray(world.to_grid(world.mask))
    spec = YearSpec.from_manifest(manifest, year, world.static(), mask)
    if window is None:
        return spec
    first, last = manifest.to_utc(np.array(window, dtype="datetime64[h]"))
    times = spec.times[(spec.times >= first) & (spec.times <= last)]
    if times.size == 0:
        message = explain(
            f"the window has no hours in {year}",
            expected="first and last label, local time of the source, in order",
            found=" to ".join(window),
            remedy="choose labels within the year",
        )
        raise ParameterError(message)
    return replace(spec, times=times)


def _make_year(simulation, manifest, year: int, folder: Path, window, progress) -> Path:
    spec = _spec(simulation.world, manifest, year, window)
    values = len(spec.times) * int(spec.mask.sum()) * len(DYNAMIC)
    require_free_space(folder, int(values * _BYTES_PER_VALUE))
    path, end = folder / manifest.store_file(year), state_path(folder, manifest, year)
    if path.exists() and (window is not None or end.is_file()):
        with YearWriter(path, spec):  # refuses a store of something else
            return path
    enter_year(simulation, manifest, folder, year)  # may refuse: before anything is begun
    with YearWriter(path, spec) as writer:
        spin_up(simulation, manifest, year, progress)
        _simulate_into(simulation, writer, progress)
        if window is None:
            _save_state(simulation, end)
        writer.finish()
    progress(f"simulating {year}", 1.0)
    return path


def make_years(
    manifest: GridManifest,
    years: Sequence[int],
    folder: str | Path,
    *,
    window: Window | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Simulate years of a twin and write their stores.

    The first year of the world starts with a spin-up; every other continues the state that the
    year before left in `folder` (`state_YEAR_GRID.npz`), so hours are continuous over the year's
    end and do not depend on how years are divided between calls. An unfinished store is
    simulated again from the start of its year, and only what is missing is written.

    Parameters
    ----------
    manifest : GridManifest
        Its recipe's settings are the `TwinConfig`.
    years : sequence of int
        Ascending.
    folder : path
        Of stores and states; made if needed.
    window : (str, str), optional
        First and last label, local time: a store of these hours alone, for trials. They are those
        of the yearly store, and the simulation begins where that one does.
    progress : callable
        Called with (step, fraction).

    Returns
    -------
    list of path
        Stores, in the order of `years`.

    Raises
    ------
    CoverageError
        A year is not one of the manifest, or the year before it has not been simulated.
    StoreError
        The folder holds another world.
    ParameterError
        The window has no hours in a year.
    ManifestError
        The settings of the manifest are not a whole `TwinConfig`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(twin_config(manifest))
    return [
        _make_year(simulation, manifest, year, folder, window, progress)
        for year in sorted(set(years))
    ]
