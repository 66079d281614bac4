"""The folder of a forecast store in progress: arrays, blocks, completion."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zarr

import aqnet
from aqnet.data.store import array_digest, content_digest
from aqnet.data.years.partial_store import CHUNK_NAMES, STORE, make_empty, read_entry, write_small
from aqnet.verification.store.format import (
    CODECS,
    DIMENSIONS,
    ForecastSpec,
    coordinate_attributes,
    global_attributes,
    variable_attributes,
)

__all__ = ["begin", "block_entry", "block_files", "complete"]


def begin(partial: Path, spec: ForecastSpec) -> None:
    """Arrays without values and a journal."""

    def fill(group: zarr.Group) -> None:
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
                chunk_key_encoding=CHUNK_NAMES,
                attributes=variable_attributes(name, spec.header()),
            )
        for name, (dimensions, values) in spec.arrays().items():
            _write(group, name, dimensions, values)
        group.attrs.update(global_attributes(spec.header()))

    make_empty(partial, spec.identity(), fill)


def _write(group: zarr.Group, name: str, dimensions: tuple[str, ...], values: np.ndarray) -> None:
    write_small(group, name, values, dimensions, coordinate_attributes()[name])


def complete(partial: Path, spec: ForecastSpec) -> None:
    """Write the attributes that need all blocks; may be repeated."""
    entries = [block_entry(partial, spec, number) for number in range(spec.blocks)]
    digests = bytes.fromhex("".join(entry["sha256"] for entry in entries))
    blocks = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    group = zarr.open_group(partial / STORE, mode="r+")
    _write(group, "block_sha256", ("block", "byte"), blocks)
    arrays = {name: values for name, (_, values) in spec.arrays().items()}
    arrays["block_sha256"] = blocks
    description = spec.header()
    description["array_sha256"] = {name: array_digest(v) for name, v in arrays.items()}
    description["content_sha256"] = content_digest(description)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    group.attrs.update(global_attributes(description))
    group.attrs["history"] = f"{now}: written by aqnet {aqnet.__version__}"


def block_files(spec: ForecastSpec, number: int) -> list[str]:
    """Files of a block inside the store, one a pollutant."""
    return [f"{name}/c.{number}.0.0.0" for name in spec.pollutants]


def block_entry(partial: Path, spec: ForecastSpec, number: int) -> dict | None:
    """What is known of a finished block; None if it is not finished or its files are others."""
    return read_entry(partial, number, block_files(spec, number))
