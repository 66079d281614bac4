"""A forecast store, or a part of it, as one NetCDF-4 file with the same CF metadata."""

from __future__ import annotations

import json
from pathlib import Path

import netCDF4
import numpy as np

from aqnet.errors import CoverageError, TargetExistsError, explain
from aqnet.io import explain_full_disk
from aqnet.progress import Progress, silent
from aqnet.verification.store.format import (
    DIMENSIONS,
    coordinate_attributes,
    global_attributes,
    variable_attributes,
)
from aqnet.verification.store.reader import ForecastStore, open_forecast_store

__all__ = ["export_netcdf"]


def export_netcdf(
    path: str | Path,
    file: str | Path,
    first: np.datetime64 | None = None,
    last: np.datetime64 | None = None,
    progress: Progress = silent,
) -> None:
    """Write the init times from `first` to `last` (UTC, inclusive; default all) of a store.

    Raises
    ------
    StoreError
        The store is missing, unfinished or damaged.
    CoverageError
        No init time lies in the period.
    TargetExistsError
        `file` exists.
    """
    store, file = open_forecast_store(path), Path(file)
    if file.exists():
        raise TargetExistsError(
            explain(f"{file} exists already", expected="a free name", found="a file",
                    remedy="delete it, or choose another name")
        )  # fmt: skip
    rows = _rows(store, first, last)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    with explain_full_disk(file):
        try:
            with netCDF4.Dataset(partial, "w", format="NETCDF4") as target:
                _describe(store, target, rows)
                _copy(store, target, rows, progress)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def _rows(store: ForecastStore, first, last) -> slice:
    times = store.init_times
    start = 0 if first is None else int(np.searchsorted(times, first))
    stop = len(times) if last is None else int(np.searchsorted(times, last, side="right"))
    if start >= stop:
        raise CoverageError(
            explain(f"{store.path} has no init time in the period",
                    expected=f"{times[0]} to {times[-1]}", found=f"{first} to {last}",
                    remedy="choose another period")
        )  # fmt: skip
    return slice(start, stop)


def _describe(store: ForecastStore, target: netCDF4.Dataset, rows: slice) -> None:
    about = {k: v for k, v in store.attributes.items() if k != "history"}
    texts = global_attributes(about) | {"history": store.attributes["history"]}
    target.setncatts(texts | {"part": json.dumps([rows.start, rows.stop])})
    times = store.init_times[rows].astype(np.int64)
    leads = np.asarray(store.lead_times_h, np.int64)
    values = {
        "init_time": (("init_time",), times),
        "lead_time": (("lead_time",), leads),
        "valid_time": (("init_time", "lead_time"), times[:, None] + leads),
        "lat": (("lat",), store.grid.lat),
        "lon": (("lon",), store.grid.lon),
        "mask": (("lat", "lon"), store.mask.astype(np.int8)),
        "crs": ((), np.int32(0)),
    }
    shape = (len(times), len(leads), *store.grid.shape)
    for name, size in zip(DIMENSIONS, shape, strict=True):
        target.createDimension(name, size)
    for name, (dimensions, array) in values.items():
        variable = target.createVariable(name, np.asarray(array).dtype.str[1:], dimensions)
        attributes = coordinate_attributes()[name]
        if "flag_values" in attributes:  # CF: of the type of the variable
            attributes["flag_values"] = np.array(attributes["flag_values"], np.int8)
        variable.setncatts(attributes)
        variable[...] = array


def _copy(store: ForecastStore, target: netCDF4.Dataset, rows: slice, progress) -> None:
    inits, leads = min(int(store.attributes["block"]), rows.stop - rows.start), 1
    for number, name in enumerate(store.pollutants):
        variable = target.createVariable(
            name, "f4", DIMENSIONS, compression="zlib", complevel=4, shuffle=True,
            fill_value=np.float32(np.nan), chunksizes=(inits, leads, *store.grid.shape),
        )  # fmt: skip
        variable.setncatts(variable_attributes(name, store.attributes))
        for block in store.blocks():
            start, stop = max(block.start, rows.start), min(block.stop, rows.stop)
            if start < stop:
                variable[start - rows.start : stop - rows.start] = store.read(
                    slice(start, stop), None, name
                )
        progress(f"{name} to NetCDF", (number + 1) / len(store.pollutants))
