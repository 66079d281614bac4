"""The folder of a forecast store in progress: arrays, and a journal of the finished blocks."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zarr

import aqnet
from aqnet.data.store import array_digest, content_digest
from aqnet.io import atomic_write_json
from aqnet.verification.forecast_format import (
    CODECS,
    DIMENSIONS,
    ForecastSpec,
    coordinate_attributes,
    global_attributes,
    variable_attributes,
)

__all__ = [
    "BEGUN",
    "JOURNAL",
    "STORE",
    "block_entry",
    "block_file",
    "complete",
    "make_empty",
    "read_json",
    "sync_size",
]

STORE, JOURNAL, BEGUN = "store", "journal", "begun.json"
_DOTS = {"name": "default", "separator": "."}  # one file a chunk instead of nested folders


def make_empty(partial: Path, spec: ForecastSpec) -> None:
    """Arrays without values and a journal; `BEGUN` last: a half-made beginning is not resumed."""
    for name in (JOURNAL, STORE):
        if (partial / name).exists():
            shutil.rmtree(partial / name)
    group = zarr.create_group(partial / STORE, zarr_format=3)
    inits, leads = spec.chunks
    shard_leads = -(-len(spec.lead_times_h) // leads) * leads
    for name in spec.pollutants:
        group.create_array(
            name,
            shape=spec.shape,
            dtype="float32",
            dimension_names=DIMENSIONS,
            chunks=(inits, leads, *spec.grid.shape),
            shards=(spec.block, shard_leads, *spec.grid.shape),
            compressors=CODECS,
            fill_value=np.nan,
            chunk_key_encoding=_DOTS,
            attributes=variable_attributes(name, spec.header()),
        )
    for name, (dimensions, values) in spec.arrays().items():
        _write_small(group, name, dimensions, values)
    group.attrs.update(global_attributes(spec.header()))
    atomic_write_json(partial / JOURNAL / BEGUN, spec.identity())


def _write_small(
    group: zarr.Group, name: str, dimensions: tuple[str, ...], values: np.ndarray
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        dimension_names=dimensions or None,
        chunks=values.shape,
        chunk_key_encoding=_DOTS,
        attributes=coordinate_attributes()[name],
        overwrite=True,
    )
    array[...] = values


def complete(partial: Path, spec: ForecastSpec) -> None:
    """Write the attributes that need all blocks; may be repeated."""
    entries = [block_entry(partial, spec, number) for number in range(spec.blocks)]
    digests = bytes.fromhex("".join(entry["sha256"] for entry in entries))
    blocks = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    group = zarr.open_group(partial / STORE, mode="r+")
    _write_small(group, "block_sha256", ("block", "byte"), blocks)
    arrays = {name: values for name, (_, values) in spec.arrays().items()}
    arrays["block_sha256"] = blocks
    description = spec.header()
    description["array_sha256"] = {name: array_digest(v) for name, v in arrays.items()}
    description["content_sha256"] = content_digest(description)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    group.attrs.update(global_attributes(description))
    group.attrs["history"] = f"{now}: written by aqnet {aqnet.__version__}"
    for stray in (partial / STORE).rglob("*.partial"):  # what zarr left when it was killed
        stray.unlink()


def read_json(path: Path) -> dict | None:
    """A JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def block_file(partial: Path, spec: ForecastSpec, name: str, number: int) -> Path:
    """File of a pollutant of a block."""
    return partial / STORE / name / f"c.{number}.0.0.0"


def block_entry(partial: Path, spec: ForecastSpec, number: int) -> dict | None:
    """What is known of a finished block; None if it is not finished or its files are others."""
    entry = read_json(partial / JOURNAL / f"{number}.json")
    if entry is None:
        return None
    files = [block_file(partial, spec, name, number) for name in spec.pollutants]
    sizes = [file.stat().st_size if file.exists() else 0 for file in files]
    return entry if entry["bytes"] == sizes else None


def sync_size(file: Path) -> int:
    """Bytes of a file, once they are on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return file.stat().st_size
