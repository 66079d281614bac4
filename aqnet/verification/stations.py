"""Stations of any network: two CSV tables, read with their zones and units, validated.

A folder with `stations.csv` and one or more `observations*.csv` or `observations*.csv.gz`:

stations.csv
    id, name, lat, lon (degrees), network; optional elevation_m, class (urban, suburban, rural,
    background, traffic, industrial or unknown), withheld (true or false: not used by the analysis
    that a model was trained on). One line a station.
observations*.csv
    station (an id), time (ISO 8601 with zone: 2018-01-01T00:00Z or 2018-01-01T08:00+08:00; the end
    of the averaging hour), pollutant (pm25, pm10, so2, no2, co, o3), value, unit (any spelling of
    `aqnet.variables.UNIT_ALIASES`). One line a value; what is missing has no line.

Gases are at 273.15 K and 1013.25 hPa, as in all stores; see `gas_reference_factor`.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aqnet.errors import DataError, FieldError, StationFileError, explain
from aqnet.io import atomic_file
from aqnet.variables import TARGETS, VARIABLES, to_lexicon_unit

__all__ = [
    "CLASSES",
    "Observations",
    "Stations",
    "TimeZoneError",
    "gather",
    "read_observations",
    "read_stations_table",
    "utc_hours",
    "write_observations",
]

CLASSES = ("urban", "suburban", "rural", "background", "traffic", "industrial", "unknown")
_ROWS = 2_000_000  # lines read at once: 200 MB


class TimeZoneError(DataError):
    """A time does not say its zone, or does not end a whole hour of UTC."""


@dataclass(frozen=True, eq=False)
class Stations:
    """S stations of one or several networks.

    Attributes
    ----------
    ids, names, networks, classes : (S,) array of str
    lat, lon : (S,) float64, degrees
    elevation_m : (S,) float64
        NaN where it is not known.
    withheld : (S,) bool
        Not used by the analysis that a model was trained on.

    Raises
    ------
    StationFileError
        An id twice, a place off the globe, an unknown class, arrays of other lengths.
    """

    ids: np.ndarray
    names: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    elevation_m: np.ndarray
    networks: np.ndarray
    classes: np.ndarray
    withheld: np.ndarray

    def __post_init__(self) -> None:
        for field in ("ids", "names", "networks", "classes"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype=str))
        for field in ("lat", "lon", "elevation_m"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype=np.float64))
        object.__setattr__(self, "withheld", np.asarray(self.withheld, dtype=bool))
        unique, count = np.unique(self.ids, return_counts=True)
        off = ~((np.abs(self.lat) <= 90) & (self.lon >= -180) & (self.lon < 360))
        checks = [
            ("an id is given twice", "one line a station", unique[count > 1]),
            ("a place is off the globe", "latitude -90 to 90, longitude -180 to 360",
             self.ids[off] if off.shape == self.ids.shape else []),
            ("a class is unknown", CLASSES, sorted(set(self.classes.tolist()) - set(CLASSES))),
            ("lengths differ", "one value a station",
             sorted({len(v) for v in self.__dict__.values()} - {len(self.ids)})),
        ]  # fmt: skip
        for problem, expected, found in checks:
            if len(found):
                raise StationFileError(
                    explain(f"stations: {problem}", expected=expected, found=list(found)[:5],
                            remedy="correct the table of stations")
                )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: np.ndarray) -> Stations:
        """Some of the stations: indices or a bool array."""
        return Stations(**{name: values[chosen] for name, values in self.__dict__.items()})


@dataclass(frozen=True, eq=False)
class Observations:
    """Hourly concentrations at stations.

    Attributes
    ----------
    stations : Stations, S of them
    times : (T,) datetime64[h]
        UTC, ends of hours, every hour from the first to the last.
    values : (T, 6, S) float32
        ug/m3 in the order of TARGETS, NaN where missing.
    dropped : int
        Values outside the valid range that were taken as missing.
    """

    stations: Stations
    times: np.ndarray
    values: np.ndarray
    dropped: int = 0

    def at(self, times: np.ndarray) -> np.ndarray:
        """Values (..., 6, S) at UTC times of any shape; NaN where there is no observation."""
        rows = (np.asarray(times).astype("datetime64[h]") - self.times[0]).astype(np.int64)
        inside = (rows >= 0) & (rows < len(self.times))
        found = self.values[np.where(inside, rows, 0)]
        found[~inside] = np.nan
        return found


# ---- reading


def _error(path: Path, problem: str, expected: object, found: object) -> StationFileError:
    return StationFileError(
        explain(f"{path}: {problem}", expected=expected, found=found, remedy="correct the file")
    )


def _require_columns(path: Path, given: Iterable[str], needed: Iterable[str]) -> None:
    if lacking := sorted(set(needed) - set(given)):
        raise _error(path, f"columns are missing: {', '.join(lacking)}", list(needed), list(given))


def read_stations_table(path: str | Path) -> Stations:
    """Stations of a file `stations.csv`; see the module.

    Raises
    ------
    StationFileError
        Columns or values that are missing or wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise _error(path, "there is no table of stations", "a CSV file", "nothing")
    table = pd.read_csv(path, dtype={"id": str, "name": str, "network": str, "class": str},
                        keep_default_na=False, na_values={"elevation_m": [""]})  # fmt: skip
    _require_columns(path, table.columns, ("id", "name", "lat", "lon", "network"))
    count = len(table)
    withheld = table.get("withheld", pd.Series([False] * count)).astype(str).str.lower()
    if wrong := sorted(set(withheld) - {"true", "false"}):
        raise _error(path, "withheld is no truth value", "true or false", wrong)
    try:
        lat, lon, height = (
            pd.to_numeric(table[name]).to_numpy(np.float64) if name in table
            else np.full(count, np.nan) for name in ("lat", "lon", "elevation_m")
        )  # fmt: skip
    except ValueError as error:
        raise _error(path, "a coordinate is no number", "degrees and metres", error) from error
    classes = table["class"] if "class" in table else ["unknown"] * count
    return Stations(table["id"], table["name"], lat, lon, height, table["network"], classes,
                    withheld == "true")  # fmt: skip


_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def utc_hours(texts: Iterable[str], where: str) -> np.ndarray:
    """(N,) datetime64[h], UTC, of ISO 8601 texts with a zone.

    Raises
    ------
    TimeZoneError
        A text has no zone, is no time, or is not a whole hour in UTC.
    """
    texts = pd.Series(list(texts), dtype=str)
    codes, unique = pd.factorize(texts)
    for text in unique:
        if not _ZONE.search(text):
            raise _no_zone(where, text, "no zone")
    try:
        times = pd.to_datetime(unique, utc=True, format="ISO8601").tz_localize(None)
    except ValueError as error:
        raise _no_zone(where, str(error), "no time") from error
    values = np.asarray(times, dtype="datetime64[s]")
    hours = values.astype("datetime64[h]")
    if len(odd := np.flatnonzero(hours != values)):
        raise _no_zone(where, unique[odd[0]], "not a whole hour of UTC")
    return hours[codes]


def _no_zone(where: str, text: str, problem: str) -> TimeZoneError:
    return TimeZoneError(
        explain(f"{where}: a time has {problem}" if problem == "no zone" else
                f"{where}: a time is {problem}",
                expected="ISO 8601 with zone, a whole hour: 2018-01-01T08:00+08:00 or ...T00:00Z",
                found=repr(text), remedy="write the zone (China: +08:00); no zone is assumed")
    )  # fmt: skip


def read_observations(folder: str | Path, invalid: str = "refuse") -> Observations:
    """Stations and observations of a folder; see the module.

    Parameters
    ----------
    folder : path
    invalid : str
        Values outside the valid range of `aqnet.variables`: "refuse", or take as "missing" and
        count.

    Raises
    ------
    StationFileError
        Columns, ids or pollutants that are missing or unknown; a value given twice.
    TimeZoneError
        A time without zone.
    UnitError
        A unit that is not one of concentration.
    FieldError
        An invalid value, if refused.
    """
    folder = Path(folder)
    stations = read_stations_table(folder / "stations.csv")
    files = sorted([*folder.glob("observations*.csv"), *folder.glob("observations*.csv.gz")])
    if not files:
        raise _error(folder, "there are no observations", "observations*.csv[.gz]", "none")
    parts = [_part(file, table, stations) for file in files for table in _tables(file)]
    hour, pollutant, station, value = (np.concatenate(c) for c in zip(*parts, strict=True))
    return gather(stations, hour, pollutant, station, value, str(folder), invalid)


def _tables(file: Path) -> Iterator[pd.DataFrame]:
    """Lines of a file of observations, `_ROWS` at a time."""
    columns = {"station": str, "time": str, "pollutant": str, "unit": str, "value": np.float32}
    _require_columns(file, pd.read_csv(file, nrows=0).columns, columns)
    try:
        yield from pd.read_csv(file, usecols=list(columns), dtype=columns, chunksize=_ROWS)
    except ValueError as error:
        raise _error(file, "a value is no number", "numbers", error) from error


def _part(file: Path, table: pd.DataFrame, stations: Stations) -> tuple[np.ndarray, ...]:
    """Hours since 1970, positions of pollutant and station, values in ug/m3 of some lines."""
    place = pd.Index(stations.ids).get_indexer(table["station"])
    if (place < 0).any():
        unknown = sorted(set(table["station"][place < 0].astype(str)))
        raise _error(file, "unknown stations", "ids of stations.csv", unknown[:5])
    pollutant = pd.Index(TARGETS).get_indexer(table["pollutant"])
    if (pollutant < 0).any():
        unknown = sorted(set(table["pollutant"][pollutant < 0].astype(str)))
        raise _error(file, "unknown pollutants", TARGETS, unknown)
    value = table["value"].to_numpy(np.float32, copy=True)
    for (name, unit), lines in table.groupby(["pollutant", "unit"], dropna=False).indices.items():
        value[lines] = to_lexicon_unit(name, value[lines], str(unit))
    hours = utc_hours(table["time"], str(file)).astype(np.int64).astype(np.int32)
    return hours, pollutant.astype(np.int8), place.astype(np.int32), value


def gather(
    stations: Stations, hour: np.ndarray, pollutant: np.ndarray, station: np.ndarray,
    value: np.ndarray, where: str, invalid: str = "refuse",
) -> Observations:  # fmt: skip
    """Observations of single values: hours since 1970 UTC, positions, ug/m3; see the reader."""
    known = np.isfinite(value)
    hour, pollutant, station, value = (a[known] for a in (hour, pollutant, station, value))
    if not value.size:
        raise _error(Path(where), "there is no value", "at least one", "none")
    limits = np.array([(VARIABLES[n].valid_min, VARIABLES[n].valid_max) for n in TARGETS])
    low, high = limits[pollutant].T
    bad = (value < low) | (value > high)
    if bad.any() and invalid != "missing":
        first = int(np.flatnonzero(bad)[0])
        raise FieldError(
            explain(f"{where}: {int(bad.sum())} values are outside their valid range",
                    expected=f"{low[first]:g} to {high[first]:g} ug/m3 for "
                    f"{TARGETS[pollutant[first]]}",
                    found=f"{value[first]:g} ug/m3 at {stations.ids[station[first]]}, "
                    f"{np.datetime64(int(hour[first]), 'h')}Z",
                    remedy="correct the source, or read with invalid='missing'")
        )  # fmt: skip
    start, hours = int(hour.min()), int(hour.max() - hour.min()) + 1
    dense = np.full((hours, len(TARGETS), len(stations)), np.nan, np.float32)
    flat = np.ravel_multi_index((hour - start, pollutant, station), dense.shape)
    if len(np.unique(flat)) != len(flat):
        order = np.argsort(flat, kind="stable")
        twice = order[1:][np.diff(flat[order]) == 0][0]
        raise _error(Path(where), "a value is given twice", "one line a value",
                     f"{stations.ids[station[twice]]}, {TARGETS[pollutant[twice]]}, "
                     f"{np.datetime64(int(hour[twice]), 'h')}Z")  # fmt: skip
    dense.reshape(-1)[flat[~bad]] = value[~bad]
    times = np.datetime64(start, "h") + np.arange(hours).astype("timedelta64[h]")
    return Observations(stations, times, dense, int(bad.sum()))


# ---- writing


def write_observations(observations: Observations, folder: str | Path) -> None:
    """Write the two tables of a folder; `read_observations` gives the same back.

    Raises
    ------
    StorageFullError
        No room.
    """
    folder, s = Path(folder), observations.stations
    table = pd.DataFrame({
        "id": s.ids, "name": s.names, "lat": s.lat, "lon": s.lon, "elevation_m": s.elevation_m,
        "network": s.networks, "class": s.classes,
        "withheld": np.where(s.withheld, "true", "false"),
    })  # fmt: skip
    row, pollutant, station = np.nonzero(np.isfinite(observations.values))
    times = np.char.add(np.datetime_as_string(observations.times, unit="m"), "Z")
    lines = pd.DataFrame({
        "station": s.ids[station], "time": times[row],
        "pollutant": np.array(TARGETS)[pollutant],
        "value": observations.values[row, pollutant, station], "unit": "ug/m3",
    })  # fmt: skip
    with atomic_file(folder / "stations.csv") as stream:
        table.to_csv(stream, index=False)
    with (
        atomic_file(folder / "observations.csv.gz") as stream,
        # without name and time of the file: equal observations give equal bytes
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed,
    ):
        lines.to_csv(packed, index=False)
