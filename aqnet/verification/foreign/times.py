"""Init times and lead times of the fields of files made elsewhere: whole hours of UTC."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.errors import LeadTimeError, explain
from aqnet.verification.foreign.layout import Layout, file_error, first_of
from aqnet.verification.stations.network import TimeZoneError

__all__ = ["times_of"]


def times_of(
    path: Path, data: xr.Dataset, layout: Layout, init: np.datetime64 | None
) -> list[tuple]:
    """Init time, lead [h] and position of each field of a file."""
    if layout.time == "init_and_lead":
        names = [first_of(path, data, n, w) for n, w in ((layout.init, "init time"),
                                                       (layout.lead, "lead time"))]  # fmt: skip
        inits, leads = _hours(path, data[names[0]]), _lead_hours(path, data[names[1]])
        return [(t, h, {names[0]: i, names[1]: j}) for i, t in enumerate(inits)
                for j, h in enumerate(leads)]  # fmt: skip
    if layout.time == "steps":
        name = first_of(path, data, layout.step, "time")
        start = _init_of(path, data[name], layout, init)
        if np.issubdtype(data[name].dtype, np.datetime64):
            leads = (_hours(path, data[name]) - np.datetime64(start, "h")).astype(int).tolist()
        else:
            leads = _lead_hours(path, data[name])
        return [(np.datetime64(start, "h"), h, {name: j}) for j, h in enumerate(leads)]
    valid = _hours(path, data[first_of(path, data, layout.valid, "valid time")])
    lead = int(data[layout.rollout_step].values) * layout.step_h
    return [(t - np.timedelta64(lead, "h"), lead, {layout.batch: i}) for i, t in enumerate(valid)]


def _init_of(
    path: Path, time: xr.DataArray, layout: Layout, given: np.datetime64 | None
) -> np.datetime64:
    """Init time that the file states, or `given`; an error if it has neither, or they differ."""
    text = str(time.attrs.get("long_name", ""))
    found = re.search(layout.init_pattern, text) if layout.init_pattern else None
    if not found and given is not None:
        return given
    if not found:
        raise file_error(path, "does not say its init time", layout.init_pattern or "an init time",
                     f"long_name {text!r}", "give it: --init 2018-01-01T00 (UTC)")  # fmt: skip
    day = found.group(1)
    stated = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:8]}T00", "h")
    if given is not None and np.datetime64(given, "h") != stated:
        raise file_error(path, "says another init time than the one given", f"{given}", f"{stated}",
                         "leave --init out, or give the file it belongs to")  # fmt: skip
    return stated


def _hours(path: Path, array: xr.DataArray) -> np.ndarray:
    """Whole hours, UTC, of a decoded time coordinate."""
    units = str(array.encoding.get("units", ""))
    zone = re.search(r"[+-]\d{1,2}:?\d\d\s*$", units)
    if zone and zone.group().strip(" +-0:") != "":
        raise TimeZoneError(
            explain(f"{path}: {array.name} counts from a time that is not UTC", found=units,
                    expected="hours since ... in UTC", remedy="convert the file to UTC")
        )  # fmt: skip
    if not np.issubdtype(array.dtype, np.datetime64):
        raise file_error(path, f"{array.name} is no time", "CF units: hours since ...", array.dtype)
    values = np.atleast_1d(array.values).astype("datetime64[s]")
    hours = values.astype("datetime64[h]")
    if (hours != values).any():
        raise TimeZoneError(
            explain(f"{path}: {array.name} has times that are no whole hours", found=values[:3],
                    expected="hours of UTC", remedy="average or select the hours first")
        )  # fmt: skip
    return hours


def _lead_hours(path: Path, array: xr.DataArray) -> list[int]:
    values = np.atleast_1d(array.values)
    if np.issubdtype(values.dtype, np.timedelta64):
        hours = values / np.timedelta64(1, "h")
    elif str(array.attrs.get("units", "")).lower() in ("hours", "hour", "h", "hr"):
        hours = values.astype(np.float64)
    else:
        raise file_error(path, f"{array.name} has no unit of time", "hours, or a CF time interval",
                     array.attrs.get("units"))  # fmt: skip
    if (hours != np.round(hours)).any() or (hours < 0).any():
        raise LeadTimeError(
            explain(f"{path}: {array.name} are no lead times", expected="whole hours from 0",
                    found=hours[:5], remedy="select the whole hours first")
        )  # fmt: skip
    return hours.astype(int).tolist()
