"""Writing a forecast store: block by block, on any number of processes, resumable after any end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import zarr

from aqnet.data.years.format import round_bits, stamp
from aqnet.data.years.partial_store import (
    STORE,
    finished_parts,
    hold,
    partial_folder,
    place,
    read_begun,
    refuse_difference,
    rewriting,
)
from aqnet.errors import FieldError, StoreError, explain
from aqnet.io import explain_full_disk, unlock_folder
from aqnet.verification.store.folder import begin, block_entry, block_files, complete
from aqnet.verification.store.format import ForecastSpec, block_digest
from aqnet.verification.store.reader import open_forecast_store

__all__ = ["ForecastSpec", "ForecastWriter"]

_POLL_S = 0.5


class ForecastWriter:
    """Builds a forecast store beside its place, and puts it there when it is complete.

    Parameters
    ----------
    path : path
        Store to write.
    spec : ForecastSpec
        What it is to hold; the same on all processes.
    rank, world : int
        This process and their number. Block n belongs to rank n % world; nobody waits for a lock.
    patience_s : float
        How long others are waited for without any block being finished: rank 0 for the blocks of
        others in `finish`, the others for rank 0 to begin.

    Raises
    ------
    StoreBusyError
        Another launch is writing this store.
    StoreError
        `path`, or what is to be resumed, holds something else than `spec`; names what differs.
        Another process made no progress for `patience_s`.
    StorageFullError
        Disk, quota or file size limit; what is finished stays.

    Notes
    -----
    Used as a context manager by every process; rank 0 alone begins, finishes and holds the lock,
    which goes with it when it is killed. Finished blocks are kept, whatever ends the processes,
    and may be continued with another number of them. The partial folder is `.NAME.partial`.
    """

    def __init__(
        self,
        path: str | Path,
        spec: ForecastSpec,
        rank: int = 0,
        world: int = 1,
        patience_s: float = 600.0,
    ) -> None:
        self.path, self.spec = Path(path).absolute(), spec
        self.rank, self.world, self.patience_s = rank, world, patience_s
        self.partial = partial_folder(self.path)
        self._lock: int | None = None
        self._finished = False

    def __enter__(self) -> ForecastWriter:
        with explain_full_disk(self.path):
            if self.path.exists():
                held = open_forecast_store(self.path).identity()
                refuse_difference(self.path, self.spec.identity(), held)
                self._finished = True
            elif self.rank == 0:
                self._lock = hold(self.partial, self.path)
                try:
                    self._begin()
                except BaseException:
                    self._release()
                    raise
            else:
                self._await_beginning()
        return self

    def _begin(self) -> None:
        begun, started = read_begun(self.partial), finished_parts(self.partial)
        if begun is None or (begun != self.spec.identity() and not started):
            begin(self.partial, self.spec)  # nothing of another forecast is lost
        else:
            refuse_difference(self.partial, self.spec.identity(), begun)

    def _await_beginning(self) -> None:
        for _ in _waiting(lambda: 0, self.patience_s, f"{self.path}: rank 0 has not begun it"):
            if read_begun(self.partial) == self.spec.identity():
                return
            if self.path.exists():  # rank 0 needed none of the others
                held = open_forecast_store(self.path).identity()
                refuse_difference(self.path, self.spec.identity(), held)
                self._finished = True
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            unlock_folder(self._lock)
            self._lock = None

    def pending(self) -> list[int]:
        """Blocks of this process that are still to be written."""
        if self._finished:
            return []
        mine = range(self.rank, self.spec.blocks, self.world)
        return [number for number in mine if block_entry(self.partial, self.spec, number) is None]

    def write(self, number: int, values: Mapping[str, np.ndarray]) -> None:
        """Write block `number`: (n, L, H, W) in ug/m3 for each pollutant.

        What lies outside the mask is not kept; what is kept is rounded to `keep_bits`.

        Raises
        ------
        FieldError
            A forecast inside the mask is NaN, infinite or negative.
        StoreError
            Shapes or pollutants do not fit.
        """
        rows, spec = self.spec.rows(number), self.spec
        shape = (rows.stop - rows.start, *spec.shape[1:])
        _check_block(spec, values, shape)
        group = zarr.open_group(self.partial / STORE, mode="r+")
        active = np.flatnonzero(spec.mask)
        kept = []
        with rewriting(self.partial, number, block_files(spec, number)) as entry:
            for name in spec.pollutants:
                whole = values[name].reshape(*shape[:2], -1)
                kept.append(round_bits(whole.take(active, axis=-1), spec.keep_bits))
                _check_values(spec, name, rows, kept[-1])
                stored = np.full(whole.shape, np.nan, np.float32)
                stored[..., active] = kept[-1]
                group[name][rows] = stored.reshape(shape)
            entry["sha256"] = block_digest(np.stack(kept)).tobytes().hex()

    def finish(self) -> str | None:
        """Rank 0: wait for all blocks, complete the store, return the digest of its content.

        The other ranks return None at once: theirs are written.

        Raises
        ------
        StoreError
            Blocks are missing and none was finished for `patience_s`: their process has ended.
        """
        if self.rank != 0:
            return None
        if not self._finished:
            self._await_blocks()
            with explain_full_disk(self.path):
                complete(self.partial, self.spec)
                place(self.partial, self.path)
                self._finished = True
        return open_forecast_store(self.path).digest

    def _await_blocks(self) -> None:
        if own := self.pending():
            raise StoreError(
                explain(f"{self.path} is not complete", expected="no pending block",
                        found=f"{len(own)} of {self.spec.blocks} blocks pending: {own[:8]}",
                        remedy="write them; open the writer again to go on")
            )  # fmt: skip
        what = f"{self.path}: the other processes stopped before their blocks were written"
        for _ in _waiting(lambda: len(self._unfinished()), self.patience_s, what):
            if not self._unfinished():
                return

    def _unfinished(self) -> list[int]:
        blocks = range(self.spec.blocks)
        return [n for n in blocks if block_entry(self.partial, self.spec, n) is None]


# ---- waiting for other processes


def _waiting(left: Callable[[], int], patience_s: float, problem: str) -> Iterator[None]:
    """Yield again and again; StoreError when `left` has not changed for `patience_s`."""
    before, since = None, time.monotonic()
    while True:
        yield
        if (now := left()) != before:
            before, since = now, time.monotonic()
        if time.monotonic() - since > patience_s:
            raise StoreError(
                explain(problem, expected=f"progress within {patience_s:g} s",
                        found="none",
                        remedy="look into the logs of the other processes, then run the same "
                        "command again: what is finished is kept")
            )  # fmt: skip
        time.sleep(_POLL_S)


# ---- refusals


def _check_block(spec: ForecastSpec, values: Mapping[str, np.ndarray], shape: tuple) -> None:
    expected = dict.fromkeys(spec.pollutants, shape)
    found = {name: tuple(array.shape) for name, array in values.items()}
    if expected != found:
        raise StoreError(
            explain("the values of a block do not fit", expected=expected, found=found,
                    remedy="give every pollutant of the ForecastSpec, see ForecastSpec.rows")
        )  # fmt: skip


def _check_values(spec: ForecastSpec, name: str, rows: slice, cells: np.ndarray) -> None:
    wrong = ~(np.isfinite(cells) & (cells >= 0))
    if not wrong.any():
        return
    init, lead, _ = (int(i[0]) for i in np.nonzero(wrong))
    raise FieldError(
        explain(
            f"the forecast of {name} from {stamp(spec.init_times[rows.start + init])} for "
            f"{spec.lead_times_h[lead]} h is no concentration",
            expected="finite values of at least 0 in every cell of the mask, ug/m3",
            found=f"{int(np.isnan(cells[wrong]).sum())} NaN, {int(np.isinf(cells[wrong]).sum())} "
            f"infinite, {int((cells < 0).sum())} negative values in this block",
            remedy="look at the inputs of that hour, or leave the init time out",
        )
    )
