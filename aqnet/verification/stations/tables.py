"""The two CSV tables of stations of any network, read with their zones and units.

A folder with `stations.csv` and one or more `observations*.csv` or `observations*.csv.gz`:

stations.csv
    id, name, lat, lon (degrees), network; optional elevation_m, class (urban, suburban, rural,
    background, traffic, industrial or unknown), withheld (true or false: not used by the analysis
    that a model was trained on). One line a station.
observations*.csv
    station (an id), time (ISO 8601 with zone: 2018-01-01T00:00Z or 2018-01-01T08:00+08:00; the end
    of the averaging hour), pollutant (pm25, pm10, so2, no2, co, o3), value, unit (any spelling of
    `aqnet.units.UNIT_ALIASES`). One line a value; what is missing has no line.

Gases are at 273.15 K and 1013.25 hPa, as in all stores; see `gas_reference_factor`.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.io import atomic_file
from aqnet.units import to_lexicon_unit
from aqnet.variables import TARGETS
from aqnet.verification.stations.network import (
    Observations,
    Stations,
    TimeZoneError,
    gather,
    table_error,
)

__all__ = ["read_observations", "read_stations_table", "utc_hours", "write_observations"]

_ROWS = 2_000_000  # lines read at once: 200 MB


def _require_columns(path: Path, given: Iterable[str], needed: Iterable[str]) -> None:
    if lacking := sorted(set(needed) - set(given)):
        raise table_error(
            path, f"columns are missing: {', '.join(lacking)}", list(needed), list(given)
        )


def read_stations_table(path: str | Path) -> Stations:
    """Stations of a file `stations.csv`; see the module.

    Raises
    ------
    StationFileError
        Columns or values that are missing or wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise table_error(path, "there is no table of stations", "a CSV file", "nothing")
    table = pd.read_csv(path, dtype={"id": str, "name": str, "network": str, "class": str},
                        keep_default_na=False, na_values={"elevation_m": [""]})  # fmt: skip
    _require_columns(path, table.columns, ("id", "name", "lat", "lon", "network"))
    count = len(table)
    withheld = table.get("withheld", pd.Series([False] * count)).astype(str).str.lower()
    if wrong := sorted(set(withheld) - {"true", "false"}):
        raise table_error(path, "withheld is no truth value", "true or false", wrong)
    try:
        lat, lon, height = (
            pd.to_numeric(table[name]).to_numpy(np.float64) if name in table
            else np.full(count, np.nan) for name in ("lat", "lon", "elevation_m")
        )  # fmt: skip
    except ValueError as error:
        raise table_error(path, "a coordinate is no number", "degrees and metres", error) from error
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
    if (codes < 0).any():  # pandas counts what is missing as no value of its own
        raise _no_zone(where, "", "no zone")
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
        raise table_error(folder, "there are no observations", "observations*.csv[.gz]", "none")
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
        raise table_error(file, "a value is no number", "numbers", error) from error


def _part(file: Path, table: pd.DataFrame, stations: Stations) -> tuple[np.ndarray, ...]:
    """Hours since 1970, positions of pollutant and station, values in ug/m3 of some lines."""
    place = pd.Index(stations.ids).get_indexer(table["station"])
    if (place < 0).any():
        unknown = sorted(set(table["station"][place < 0].astype(str)))
        raise table_error(file, "unknown stations", "ids of stations.csv", unknown[:5])
    pollutant = pd.Index(TARGETS).get_indexer(table["pollutant"])
    if (pollutant < 0).any():
        unknown = sorted(set(table["pollutant"][pollutant < 0].astype(str)))
        raise table_error(file, "unknown pollutants", TARGETS, unknown)
    value = table["value"].to_numpy(np.float32, copy=True)
    for (name, unit), lines in table.groupby(["pollutant", "unit"], dropna=False).indices.items():
        value[lines] = to_lexicon_unit(name, value[lines], str(unit))
    hours = utc_hours(table["time"], str(file)).astype(np.int64).astype(np.int32)
    return hours, pollutant.astype(np.int8), place.astype(np.int32), value


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
