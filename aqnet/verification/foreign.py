"""Forecasts made elsewhere: files checked against a layout, and their fields in ug/m3.

Gases given as mass mixing ratio q [kg/kg] need a density, which the user chooses by name:

"273K"
    q x 101325 Pa / (287.05 J/kg/K x 273.15 K) = q x 1.2923 kg/m3: the concentration at the
    reference state of all stores of aqnet, whatever the pressure and temperature of the place.
"ambient"
    q x p / (287.05 J/kg/K x T), with pressure and temperature from the files: what an instrument
    without reference state would measure. The mass of water vapour (up to 3 % of the air) is
    neglected in both.

Without a choice they are refused. Concentrations [kg/m3, ug/m3] are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.data.year_format import stamp
from aqnet.errors import DataError, LeadTimeError, UnitError, explain
from aqnet.grid import Grid, GridError
from aqnet.variables import to_lexicon_unit
from aqnet.verification.foreign_layout import Layout, load_layout
from aqnet.verification.stations import TimeZoneError

__all__ = ["DENSITIES", "ForeignFileError", "ForeignForecasts", "open_foreign"]

DENSITIES = ("273K", "ambient")
R_DRY = 287.05  # J/kg/K, dry air (ICAO standard atmosphere)
RHO_273K = 101_325 / (R_DRY * 273.15)  # kg/m3
_RATIO = ("kg/kg", "kg kg-1", "kg kg**-1", "kg kg^-1")
_ZERO_FROM = -1.0  # ug/m3; below, a negative value is no noise of packing


class ForeignFileError(DataError):
    """A file of forecasts made elsewhere is not as its layout says."""


def _error(
    path: Path, problem: str, expected: object, found: object, remedy: str = ""
) -> DataError:
    remedy = remedy or "name the right layout, or write one: see foreign_layout.Layout"
    return ForeignFileError(
        explain(f"{path}: {problem}", expected=expected, found=found, remedy=remedy)
    )


@dataclass(frozen=True, eq=False)
class ForeignForecasts:
    """Files of a source, opened: where each field stands.

    Attributes
    ----------
    layout : Layout
    places : dict of (init time, lead [h]) to (file, positions by dimension)
    grid : Grid
        Rows and longitudes sorted to ascend, those in the turn around `centre`.
    """

    layout: Layout
    files: tuple[Path, ...]
    places: dict[tuple[np.datetime64, int], tuple[Path, dict[str, int]]]
    grid: Grid
    order: tuple[np.ndarray, np.ndarray]

    @property
    def init_times(self) -> np.ndarray:
        """(N,) datetime64[h] UTC, ascending."""
        return np.array(sorted({time for time, _ in self.places}), dtype="datetime64[h]")

    @property
    def lead_times_h(self) -> tuple[int, ...]:
        """All lead times of any init time, without 0."""
        return tuple(sorted({lead for _, lead in self.places} - {0}))

    def field(self, time: np.datetime64, lead: int, pollutant: str, gases: Mapping) -> np.ndarray:
        """(H, W) float64 on `grid`, ug/m3; `gases`: density and the names it needs."""
        path, position = self.places[np.datetime64(time, "h"), lead]
        about = self.layout.variables[pollutant]
        with _open(path) as data:
            value, unit = _select(path, data, about.model_dump(), position, self.layout)
            if unit in _RATIO:
                value = value * _density(path, data, pollutant, position, self, gases) * 1e9
            else:
                value = to_lexicon_unit(pollutant, value, unit)
        value = value[np.ix_(*self.order)]
        if self.layout.negative_to_zero:
            value = np.where((value < 0) & (value >= _ZERO_FROM), 0.0, value)
        return value


def _open(path: Path) -> xr.Dataset:
    try:
        if path.is_dir():
            return xr.open_zarr(path, decode_timedelta=True, consolidated=None)
        return xr.open_dataset(path, decode_timedelta=True)
    except (OSError, ValueError) as error:
        raise _error(path, "cannot be opened", "NetCDF or Zarr", error) from error


def _first(path: Path, data: xr.Dataset, names: Sequence[str], what: str) -> str:
    for name in names:
        if name in data.variables:
            return name
    raise _error(path, f"there is no {what}", " or ".join(names), sorted(map(str, data.variables)))


def _select(
    path: Path, data: xr.Dataset, about: Mapping, position: Mapping[str, int], layout: Layout
) -> tuple[np.ndarray, str]:
    """A field (lat, lon) and its unit."""
    name, level = about["name"], about.get("level") or {}
    if name not in data:
        raise _error(path, f"there is no variable {name}", name, sorted(map(str, data.data_vars)))
    array = data[name]
    if about.get("last"):
        array = array.isel({about["last"]: -1})
    array = array.isel({dim: at for dim, at in position.items() if dim in array.dims})
    for dim, value in level.items():
        if dim in array.dims:
            if value not in array[dim].values:
                raise _error(path, f"{name} has no level {value:g}", value, array[dim].values)
            array = array.sel({dim: value})
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1], drop=True)
    wanted = [_first(path, data, names, "axis") for names in (layout.lat, layout.lon)]
    if sorted(map(str, array.dims)) != sorted(wanted):
        raise _error(path, f"{name} has other dimensions", wanted, array.dims)
    unit = about.get("unit") or array.attrs.get("units")
    if unit is None:
        raise UnitError(
            explain(f"{path}: {name} does not say its unit", expected="an attribute `units`, or "
                    "`unit` in the layout", found="none", remedy="state it in the layout")
        )  # fmt: skip
    return array.transpose(*wanted).values.astype(np.float64), str(unit)


def _density(
    path: Path, data: xr.Dataset, pollutant: str, position: Mapping[str, int],
    foreign: ForeignForecasts, gases: Mapping,
) -> np.ndarray | float:  # fmt: skip
    density = gases.get("density")
    if density == "273K":
        return RHO_273K
    needs = ("pressure", "temperature")
    if density != "ambient" or not all(gases.get(name) for name in needs):
        raise UnitError(
            explain(f"{path}: {pollutant} is a mass mixing ratio", found=f"density {density!r}, "
                    f"{', '.join(f'{n} {gases.get(n)!r}' for n in needs)}",
                    expected="a density: '273K', or 'ambient' with the names of pressure [Pa] and "
                    "temperature [K] in the files", remedy="choose one by name")
        )  # fmt: skip
    level = foreign.layout.variables[pollutant].level
    values = {}
    for name, unit in (("pressure", "Pa"), ("temperature", "K")):
        found = _select(path, data, {"name": gases[name], "level": level}, position, foreign.layout)
        if found[1] != unit:
            raise UnitError(
                explain(f"{path}: {gases[name]} is not in {unit}", expected=unit, found=found[1],
                        remedy=f"name a variable in {unit}")
            )  # fmt: skip
        values[name] = found[0]
    return values["pressure"] / (R_DRY * values["temperature"])


# ---- where the fields stand


def open_foreign(
    files: Sequence[str | Path],
    layout: str | Path | Layout,
    *,
    centre_lon: float = 105.0,
    init: np.datetime64 | None = None,
) -> ForeignForecasts:
    """Check files of forecasts made elsewhere and find their fields.

    Parameters
    ----------
    files : sequence of paths
        NetCDF files or Zarr folders.
    layout : str, path or Layout
        See `load_layout`.
    centre_lon : float
        Longitudes are brought to the turn of 360 degrees around it.
    init : datetime64, optional
        Init time, UTC, of one file whose times do not say it.

    Raises
    ------
    ForeignFileError
        A file is not as the layout says, or a field is there twice.
    TimeZoneError
        Times are not in UTC or not whole hours.
    GridError
        The grids of the files differ or are not regular.
    """
    layout = layout if isinstance(layout, Layout) else load_layout(layout)
    places: dict = {}
    grids, order = {}, None
    for path in map(Path, files):
        with _open(path) as data:
            grid, order = _grid(path, data, layout, centre_lon)
            grids[grid.digest] = grid
            for time, lead, position in _times(path, data, layout, init):
                if (time, lead) in places:
                    raise _error(path, f"the forecast from {stamp(time)} for {lead} h is there "
                                 "twice", "one file each", places[time, lead][0],
                                 "give each file once")  # fmt: skip
                places[time, lead] = path, position
    if len(grids) != 1:
        raise GridError(
            explain("the files do not have one grid", expected="the same latitudes and longitudes",
                    found=f"{len(grids)} grids", remedy="import them as separate stores")
        )  # fmt: skip
    return ForeignForecasts(layout, tuple(map(Path, files)), places, grid, order)


def _grid(
    path: Path, data: xr.Dataset, layout: Layout, centre_lon: float
) -> tuple[Grid, tuple[np.ndarray, np.ndarray]]:
    lat, lon = (
        data[_first(path, data, names, what)].values.astype(np.float64)
        for names, what in ((layout.lat, "latitude"), (layout.lon, "longitude"))
    )
    if lat.ndim != 1 or lon.ndim != 1:
        found = f"shapes {lat.shape}, {lon.shape}"
        remedy = "regrid it to a regular grid first"
        raise _error(path, "latitudes and longitudes are no axes", "1-D axes", found, remedy)
    turned = centre_lon - 180 + (lon - centre_lon + 180) % 360
    rows, cols = np.argsort(lat), np.argsort(turned)
    lat, turned = lat[rows].round(6), turned[cols].round(6)  # float32 axes
    if (np.diff(turned) <= 0).any():
        raise _error(path, "a longitude is there twice", "each once", f"{lon[0]:g} to {lon[-1]:g}")
    return Grid(path.stem, lat, turned), (rows, cols)


def _times(path: Path, data: xr.Dataset, layout: Layout, init: np.datetime64 | None) -> list[tuple]:
    """Init time, lead [h] and position of each field of a file."""
    if layout.time == "init_and_lead":
        names = [_first(path, data, n, w) for n, w in ((layout.init, "init time"),
                                                       (layout.lead, "lead time"))]  # fmt: skip
        inits, leads = _hours(path, data[names[0]]), _lead_hours(path, data[names[1]])
        return [(t, h, {names[0]: i, names[1]: j}) for i, t in enumerate(inits)
                for j, h in enumerate(leads)]  # fmt: skip
    if layout.time == "steps":
        name = _first(path, data, layout.step, "time")
        start = init if init is not None else _init_of(path, data[name], layout)
        if np.issubdtype(data[name].dtype, np.datetime64):
            leads = (_hours(path, data[name]) - np.datetime64(start, "h")).astype(int).tolist()
        else:
            leads = _lead_hours(path, data[name])
        return [(np.datetime64(start, "h"), h, {name: j}) for j, h in enumerate(leads)]
    valid = _hours(path, data[_first(path, data, layout.valid, "valid time")])
    lead = int(data[layout.rollout_step].values) * layout.step_h
    return [(t - np.timedelta64(lead, "h"), lead, {layout.batch: i}) for i, t in enumerate(valid)]


def _init_of(path: Path, time: xr.DataArray, layout: Layout) -> np.datetime64:
    text = str(time.attrs.get("long_name", ""))
    found = re.search(layout.init_pattern, text) if layout.init_pattern else None
    if not found:
        raise _error(path, "does not say its init time", layout.init_pattern or "an init time",
                     f"long_name {text!r}", "give it: --init 2018-01-01T00 (UTC)")  # fmt: skip
    day = found.group(1)
    return np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:8]}T00", "h")


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
        raise _error(path, f"{array.name} is no time", "CF units: hours since ...", array.dtype)
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
        raise _error(path, f"{array.name} has no unit of time", "hours, or a CF time interval",
                     array.attrs.get("units"))  # fmt: skip
    if (hours != np.round(hours)).any() or (hours < 0).any():
        raise LeadTimeError(
            explain(f"{path}: {array.name} are no lead times", expected="whole hours from 0",
                    found=hours[:5], remedy="select the whole hours first")
        )  # fmt: skip
    return hours.astype(int).tolist()
