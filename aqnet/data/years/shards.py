"""The shards of a yearly store in progress."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zarr

from aqnet.data.years.format import (
    CODECS,
    LAYOUT,
    SHARD_HOURS,
    YearSpec,
    round_bits,
    shard_file,
    stamp,
    step_digest,
)
from aqnet.data.years.partial_store import (
    CHUNK_NAMES,
    STORE,
    make_empty,
    read_entry,
    rewriting,
    write_small,
)
from aqnet.errors import FieldError, StoreError, explain
from aqnet.variables import DYNAMIC

__all__ = ["begin", "shard_entry", "shard_rows", "write_shard"]


def begin(partial: Path, spec: YearSpec) -> None:
    """Make an empty store and journal."""

    def fill(group: zarr.Group) -> None:
        cells = (len(DYNAMIC), *spec.grid.shape)
        kind, dimensions = LAYOUT["inputs"]
        group.create_array(
            "inputs",
            shape=(len(spec.times), *cells),
            dtype=kind,
            dimension_names=dimensions,
            chunks=(1, *cells),
            shards=(SHARD_HOURS, *cells),
            compressors=CODECS,
            fill_value=np.nan,
            chunk_key_encoding=CHUNK_NAMES,
        )
        for name, values in spec.arrays().items():
            write_small(group, name, values, LAYOUT[name][1])
        group.attrs.update(spec.header())

    make_empty(partial, spec.identity(), fill)


def shard_entry(partial: Path, number: int) -> dict | None:
    """What is known of a finished shard; None if it is not finished or its file is another."""
    return read_entry(partial, number, [shard_file(number * SHARD_HOURS)])


def shard_rows(number: int, hours: int) -> slice:
    """Rows of shard `number` in a store of `hours` hours.

    Raises
    ------
    StoreError
        There is no such shard.
    """
    if not 0 <= number * SHARD_HOURS < hours:
        raise _misfit("number", f"0 to {(hours - 1) // SHARD_HOURS}", number)
    return slice(number * SHARD_HOURS, min((number + 1) * SHARD_HOURS, hours))


def write_shard(
    partial: str | Path,
    number: int,
    inputs: np.ndarray,
    source_sha256: np.ndarray | None = None,
    missing: Mapping[int, str] | None = None,
) -> None:
    """Write one shard of a store in progress; different shards may be written by any processes.

    Parameters
    ----------
    partial : path
        `YearWriter.partial`.
    number : int
        Shard, from 0.
    inputs : numpy.ndarray, shape (n, 11, H, W)
        Hours of the shard in the units of `aqnet.variables`; NaN where there is no value. What
        lies outside the mask is not kept; what is kept is rounded to `keep_bits`.
    source_sha256 : numpy.ndarray, uint8, shape (n, 32), optional
        Digest of the file that each hour came from; zeros (default) for none.
    missing : mapping, optional
        Row within the shard: why the hour is missing. Its values are not kept. Hours that lack
        a variable without being named here are recorded as "no values of ...".

    Raises
    ------
    FieldError
        A value inside the mask is infinite.
    StoreError
        Shapes do not fit.
    StorageFullError
        Disk, quota or file size limit.
    """
    partial, missing = Path(partial), dict(missing or {})
    group = zarr.open_group(partial / STORE, mode="r+")
    rows = shard_rows(number, group["inputs"].shape[0])
    values = _prepared(group, rows, inputs, missing)
    source = np.zeros((len(values), 32), np.uint8) if source_sha256 is None else source_sha256
    if source.shape != (len(values), 32) or source.dtype != np.uint8:
        found = f"{source.dtype} {source.shape}"
        raise _misfit("source_sha256", f"uint8 {(len(values), 32)}", found)
    valid = np.isfinite(values).any((2, 3))
    with rewriting(partial, number, [shard_file(rows.start)]) as entry:
        group["inputs"][rows] = values
        entry.update(
            number=number,
            step_sha256=[step_digest(hour).tobytes().hex() for hour in values],
            source_sha256=[digest.tobytes().hex() for digest in source],
            valid=valid.astype(int).tolist(),
            missing=_reasons(valid, missing),
        )


def _misfit(what: str, expected: object, found: object) -> StoreError:
    problem, remedy = f"{what} of a shard does not fit", "see YearWriter.rows and write_shard"
    return StoreError(explain(problem, expected=expected, found=found, remedy=remedy))


def _prepared(
    group: zarr.Group, rows: slice, inputs: np.ndarray, missing: Mapping[int, str]
) -> np.ndarray:
    """Values as they are stored: masked, missing hours without values, bits rounded."""
    shape = (rows.stop - rows.start, *group["inputs"].shape[1:])
    if inputs.shape != shape:
        raise _misfit("inputs", shape, inputs.shape)
    if stray := [row for row in missing if not 0 <= row < shape[0]]:
        raise _misfit("row in `missing`", f"0 to {shape[0] - 1}", stray)
    mask, keep = group["mask"][...], group.attrs["keep_bits"]
    values = np.full(shape, np.nan, np.float32)
    for row in sorted(set(range(shape[0])) - set(missing)):
        for index, name in enumerate(group.attrs["variables"]):
            kept = round_bits(inputs[row, index][mask], keep[name])
            if np.isinf(kept).any():
                time = group["time"][rows.start + row].astype("datetime64[h]")
                raise _infinite(name, time, np.isinf(kept).sum())
            kept[np.isnan(kept)] = np.nan  # one bit pattern: equal hours have equal bytes
            values[row, index][mask] = kept
    return values


def _infinite(name: str, time: np.datetime64, number: int) -> FieldError:
    message = explain(
        f"{name} is infinite at {stamp(time)}",
        expected="finite values, or NaN where there is none",
        found=f"{number} infinite values inside the mask",
        remedy="correct what computes the field, or record the hour as missing",
    )
    return FieldError(message)


def _reasons(valid: np.ndarray, missing: Mapping[int, str]) -> dict[str, str]:
    """Row: why it lacks something."""
    found = {int(row): str(reason) for row, reason in missing.items()}
    for row in np.flatnonzero(~valid.all(1)).tolist():
        lacking = [n for n, there in zip(DYNAMIC, valid[row], strict=True) if not there]
        found.setdefault(row, f"no values of {', '.join(lacking)}")
    return {str(row): found[row] for row in sorted(found)}
