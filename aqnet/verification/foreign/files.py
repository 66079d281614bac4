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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from aqnet.data.years.format import stamp
from aqnet.errors import ParameterError, UnitError, explain
from aqnet.grid import Grid, GridError
from aqnet.units import to_lexicon_unit
from aqnet.verification.foreign.layout import (
    ForeignFileError,
    Layout,
    file_error,
    first_of,
    load_layout,
)
from aqnet.verification.foreign.times import times_of

__all__ = ["ForeignFileError", "ForeignForecasts", "open_foreign"]

R_DRY = 287.05  # J/kg/K, dry air (ICAO standard atmosphere)
RHO_273K = 101_325 / (R_DRY * 273.15)  # kg/m3
_RATIO = ("kg/kg", "kg kg-1", "kg kg**-1", "kg kg^-1")
_ZERO_FROM = -1.0  # ug/m3; below, a negative value is no noise of packing


@dataclass(frozen=True, eq=False)
class ForeignForecasts:
    """Files of a source, opened: where each field stands.

    Attributes
    ----------
    layout : Layout
    places : dict of (init time, lead [h]) to (file, positions by dimension)
    grid : Grid
        Rows and longitudes sorted to ascend, those in the turn around `centre`.
    orders : dict of file to (rows, columns)
        Which of the file's rows and columns stand there: files of one grid may run either way.
    """

    layout: Layout
    files: tuple[Path, ...]
    places: dict[tuple[np.datetime64, int], tuple[Path, dict[str, int]]]
    grid: Grid
    orders: dict[Path, tuple[np.ndarray, np.ndarray]]
    _opened: dict[Path, xr.Dataset] = field(default_factory=dict, repr=False)

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
        about, data = self.layout.variables[pollutant], self._file(path)
        value, unit = _select(path, data, about.model_dump(), position, self.layout)
        if unit in _RATIO:
            value = value * _density(path, data, pollutant, position, self, gases) * 1e9
        else:
            value = to_lexicon_unit(pollutant, value, unit)
        value = value[np.ix_(*self.orders[path])]
        if self.layout.negative_to_zero:
            value = np.where((value < 0) & (value >= _ZERO_FROM), 0.0, value)
        return value

    def _file(self, path: Path) -> xr.Dataset:
        """The file, which stays open until the next one: fields come file by file."""
        if path not in self._opened:
            self.close()
            self._opened[path] = _open(path)
        return self._opened[path]

    def close(self) -> None:
        """Close the file that is open; reading opens it again."""
        while self._opened:
            self._opened.popitem()[1].close()


def _open(path: Path) -> xr.Dataset:
    try:
        if path.is_dir():
            return xr.open_zarr(path, decode_timedelta=True, consolidated=None)
        return xr.open_dataset(path, decode_timedelta=True)
    except (OSError, ValueError) as error:
        raise file_error(path, "cannot be opened", "NetCDF or Zarr", error) from error


def _select(
    path: Path, data: xr.Dataset, about: Mapping, position: Mapping[str, int], layout: Layout
) -> tuple[np.ndarray, str]:
    """A field (lat, lon) and its unit."""
    name, level = about["name"], about.get("level") or {}
    if name not in data:
        raise file_error(
            path, f"there is no variable {name}", name, sorted(map(str, data.data_vars))
        )
    array = data[name]
    if about.get("last") in array.dims:
        array = array.isel({about["last"]: -1})
    array = array.isel({dim: at for dim, at in position.items() if dim in array.dims})
    for dim, value in level.items():
        if dim in array.dims:
            if value not in array[dim].values:
                raise file_error(path, f"{name} has no level {value:g}", value, array[dim].values)
            array = array.sel({dim: value})
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1], drop=True)
    wanted = [first_of(path, data, names, "axis") for names in (layout.lat, layout.lon)]
    if sorted(map(str, array.dims)) != sorted(wanted):
        raise file_error(path, f"{name} has other dimensions", wanted, array.dims)
    unit = about.get("unit") or array.attrs.get("units")
    if unit is None:
        raise UnitError(
            explain(f"{path}: {name} does not say its unit", expected="an attribute `units`, or "
                    "for a pollutant `unit` in the layout", found="none",
                    remedy="state it there")
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
    of = foreign.layout.variables[pollutant]
    values = {}
    for name, unit in (("pressure", "Pa"), ("temperature", "K")):
        about = {"name": gases[name], "level": of.level, "last": of.last}
        found = _select(path, data, about, position, foreign.layout)
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
        A file is not as the layout says, a field is there twice, or the file says another `init`.
    ParameterError
        `init` is given for several files, or for a layout that says it.
    TimeZoneError
        Times are not in UTC or not whole hours.
    GridError
        The grids of the files differ or are not regular.
    """
    layout = layout if isinstance(layout, Layout) else load_layout(layout)
    _check_init(init, files, layout)
    places: dict = {}
    grids, orders = {}, {}
    for path in map(Path, files):
        with _open(path) as data:
            grid, orders[path] = _grid(path, data, layout, centre_lon)
            grids[grid.digest] = grid
            for time, lead, position in times_of(path, data, layout, init):
                if (time, lead) in places:
                    raise file_error(path, f"the forecast from {stamp(time)} for {lead} h is there "
                                 "twice", "one file each", places[time, lead][0],
                                 "give each file once")  # fmt: skip
                places[time, lead] = path, position
    if len(grids) != 1:
        raise GridError(
            explain("the files do not have one grid", expected="the same latitudes and longitudes",
                    found=f"{len(grids)} grids", remedy="import them as separate stores")
        )  # fmt: skip
    return ForeignForecasts(layout, tuple(map(Path, files)), places, grid, orders)


def _check_init(
    init: np.datetime64 | None, files: Sequence[str | Path], layout: Layout
) -> None:
    """Refuse an init time for several files, or where the layout says theirs."""
    if init is None or (layout.time == "steps" and len(files) == 1):
        return
    raise ParameterError(
        explain("an init time can be given for one file whose layout has time: steps",
                expected="one such file", found=f"{len(files)} files, time: {layout.time}",
                remedy="import the files one by one, or leave the init time out")
    )  # fmt: skip


def _grid(
    path: Path, data: xr.Dataset, layout: Layout, centre_lon: float
) -> tuple[Grid, tuple[np.ndarray, np.ndarray]]:
    lat, lon = (
        data[first_of(path, data, names, what)].values.astype(np.float64)
        for names, what in ((layout.lat, "latitude"), (layout.lon, "longitude"))
    )
    if lat.ndim != 1 or lon.ndim != 1:
        found = f"shapes {lat.shape}, {lon.shape}"
        remedy = "regrid it to a regular grid first"
        raise file_error(path, "latitudes and longitudes are no axes", "1-D axes", found, remedy)
    turned = centre_lon - 180 + (lon - centre_lon + 180) % 360
    rows, cols = np.argsort(lat), np.argsort(turned)
    lat, turned = lat[rows].round(6), turned[cols].round(6)  # float32 axes
    if (np.diff(turned) <= 0).any():
        raise file_error(
            path, "a longitude is there twice", "each once", f"{lon[0]:g} to {lon[-1]:g}"
        )
    return Grid(path.stem, lat, turned), (rows, cols)
