"""Writing a yearly store: shard by shard, by several processes, resumable after any end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import zarr

from aqnet.data.store import array_digest, content_digest
from aqnet.data.years.format import LAYOUT, SHARD_HOURS, YearSpec, stamp
from aqnet.data.years.partial_store import (
    STORE,
    hold,
    partial_folder,
    place,
    read_begun,
    refuse_difference,
    write_small,
)
from aqnet.data.years.reader import YearStore, open_year
from aqnet.data.years.shards import begin, shard_entry, shard_rows, write_shard
from aqnet.errors import StoreError, explain
from aqnet.io import explain_full_disk, unlock_folder

__all__ = ["YearWriter", "write_shard", "write_year"]


class YearWriter:
    """Builds a yearly store beside its place, and puts it there when it is complete.

    Parameters
    ----------
    path : path
        Store to write.
    spec : YearSpec
        What it is to hold.
    resume : bool
        Go on from the shards that an earlier process finished, and leave one's own for the next
        if the block ends early. Otherwise begin anew and leave nothing.

    Raises
    ------
    StoreBusyError
        Another process is writing this store.
    StoreError
        `path`, or what is to be resumed, holds something else than `spec`; names what differs.
    StorageFullError
        Disk, quota or file size limit; what is finished stays (with `resume`).

    Notes
    -----
    Used as a context manager. A finished store of the same `spec` has nothing pending, and
    `finish` returns its digest.

    Workers get `partial` and call `write_shard`. The lock is on `partial`; that of a killed
    writer goes with it, or with the last of its forked workers, which may still be writing.
    """

    def __init__(self, path: str | Path, spec: YearSpec, resume: bool = True) -> None:
        self.path, self.spec, self.resume = Path(path).absolute(), spec, resume
        self.partial = partial_folder(self.path)
        self._lock: int | None = None
        self._finished = False

    def __enter__(self) -> YearWriter:
        with explain_full_disk(self.path):
            if not self.path.exists():
                self._lock = hold(self.partial, self.path)
            try:
                self._open()
            except BaseException:
                self._release()
                raise
        return self

    def _open(self) -> None:
        if self.path.exists():  # it may have been finished before the lock was ours
            refuse_difference(self.path, self.spec.identity(), _identity(self.path))
            self._finished = True
            if self._lock is not None:
                shutil.rmtree(self.partial)
            return
        begun = read_begun(self.partial)
        if begun is None or not self.resume:
            begin(self.partial, self.spec)
        else:
            refuse_difference(self.partial, self.spec.identity(), begun)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self.resume and not self._finished:
                shutil.rmtree(self.partial)
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            unlock_folder(self._lock)
            self._lock = None

    @property
    def shards(self) -> int:
        """Number of shards of the store."""
        return -(-len(self.spec.times) // SHARD_HOURS)

    def rows(self, number: int) -> slice:
        """Rows of shard `number`: 48 hours, fewer in the last one."""
        return shard_rows(number, len(self.spec.times))

    def pending(self) -> list[int]:
        """Shards that are still to be written."""
        if self._finished:
            return []
        return [n for n in range(self.shards) if shard_entry(self.partial, n) is None]

    def write(
        self,
        number: int,
        inputs: np.ndarray,
        source_sha256: np.ndarray | None = None,
        missing: Mapping[int, str] | None = None,
    ) -> None:
        """Write one shard; see `write_shard`. StoreError: the store is finished or not held."""
        if self._finished or self._lock is None:
            message = explain(
                f"{self.path} cannot be written to",
                expected="a store in progress, inside `with YearWriter(...)`",
                found="a finished store" if self._finished else "a writer that is not open",
                remedy="delete the store first if it is to be written again",
            )
            raise StoreError(message)
        write_shard(self.partial, number, inputs, source_sha256, missing)

    def finish(self) -> str:
        """Complete the store, give it its name, and return the digest of its content.

        Raises
        ------
        StoreError
            Shards are pending.
        """
        if self._finished:
            return open_year(self.path).digest
        if pending := self.pending():
            message = explain(
                f"{self.path} is not complete",
                expected="no pending shard",
                found=f"{len(pending)} of {self.shards} pending: {pending}",
                remedy="write them; open the writer again to go on",
            )
            raise StoreError(message)
        with explain_full_disk(self.path):
            digest = _complete(self.partial, self.spec)
            place(self.partial, self.path)
            self._finished = True
        return digest


def write_year(
    path: str | Path,
    spec: YearSpec,
    fields: Callable[[slice], np.ndarray],
    missing: Mapping[int, str] | None = None,
) -> YearStore:
    """Write a whole store in this process, and open it; `YearWriter` resumes and shares the work.

    Parameters
    ----------
    path : path
        Store to write; what was begun there is begun anew. A finished store of the same `spec` is
        left alone, whatever its fields are.
    spec : YearSpec
        What it is to hold.
    fields : callable
        Gives the fields of a slice of rows of the store, (hours, variables, H, W) as `write_shard`
        takes them; called once a shard, in order.
    missing : mapping, optional
        Row of the store: reason why its hour is missing.

    Raises
    ------
    StoreError
        `missing` names a row that the store does not have; otherwise see `YearWriter`.
    FieldError
        See `write_shard`.
    StoreBusyError, StorageFullError
        See `YearWriter`.
    """
    stray = sorted(row for row in missing or {} if not 0 <= row < len(spec.times))
    if stray:
        raise StoreError(explain(
            f"rows in `missing` that {path} does not have", expected=f"0 to {len(spec.times) - 1}",
            found=stray, remedy="count rows from the first hour of the store",
        ))  # fmt: skip
    with YearWriter(path, spec, resume=False) as writer:
        for number in writer.pending():
            rows = writer.rows(number)
            lost = {row - rows.start: why for row, why in (missing or {}).items()
                    if rows.start <= row < rows.stop}  # fmt: skip
            writer.write(number, fields(rows), missing=lost)
        writer.finish()
    return open_year(path)


def _identity(path: Path) -> dict:
    """`YearSpec.identity` of a finished store."""
    attributes = dict(open_year(path).attributes)
    digests = attributes.pop("array_sha256")
    del attributes["content_sha256"], attributes["missing"]
    of_hours = ("inputs_valid", "source_sha256", "step_sha256")
    return attributes | {f"array {n}": d for n, d in digests.items() if n not in of_hours}


def _complete(partial: Path, spec: YearSpec) -> str:
    """Write the arrays and attributes that need all shards; may be repeated."""
    shards = range(-(-len(spec.times) // SHARD_HOURS))
    entries = [shard_entry(partial, number) for number in shards]
    arrays = spec.arrays() | {
        "inputs_valid": np.concatenate([np.array(e["valid"], dtype=bool) for e in entries]),
        "source_sha256": _bytes([text for e in entries for text in e["source_sha256"]]),
        "step_sha256": _bytes([text for e in entries for text in e["step_sha256"]]),
    }
    group = zarr.open_group(partial / STORE, mode="r+")
    for name, values in arrays.items():
        write_small(group, name, values, LAYOUT[name][1])
    attributes = spec.header() | {
        "missing": _spans(spec.times, entries),
        "array_sha256": {name: array_digest(values) for name, values in arrays.items()},
    }
    attributes["content_sha256"] = content_digest(attributes)
    group.attrs.update(attributes)
    return attributes["content_sha256"]


def _bytes(digests: list[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)


def _spans(times: np.ndarray, entries: list[dict]) -> list[list[str]]:
    """Missing hours as [first, last, reason]; consecutive hours of one reason are one span."""
    reasons = {
        SHARD_HOURS * entry["number"] + int(row): reason
        for entry in entries
        for row, reason in entry["missing"].items()
    }
    spans: list[tuple[int, int, str]] = []
    for row, reason in sorted(reasons.items()):
        hour_ago = times[row] - np.timedelta64(1, "h")
        if spans and times[spans[-1][1]] == hour_ago and spans[-1][2] == reason:
            spans[-1] = (spans[-1][0], row, reason)
        else:
            spans.append((row, row, reason))
    return [[stamp(times[first]), stamp(times[last]), why] for first, last, why in spans]
