"""Observations as networks publish them: China's national network, OpenAQ, Beijing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aqnet.data.manifest import Manifest
from aqnet.data.stations.measurements import read_stations
from aqnet.errors import UnitError, explain
from aqnet.units import gas_reference_factor, to_lexicon_unit
from aqnet.variables import GASES, TARGETS
from aqnet.verification.stations.network import Observations, Stations, gather, table_error
from aqnet.verification.stations.tables import read_stations_table, utc_hours

__all__ = ["MOLAR_MASS", "from_beijing", "from_china_daily", "from_openaq"]

# Types of the daily files with hourly values; the others are AQI and trailing means.
_CHINA_TYPES = {"PM2.5": "pm25", "PM10": "pm10", "SO2": "so2", "NO2": "no2", "CO": "co", "O3": "o3"}
MOLAR_MASS = {"so2": 64.066, "no2": 46.006, "co": 28.010, "o3": 47.997}  # g/mol, IUPAC
_MOLAR_VOLUME = 22.414  # l/mol of an ideal gas at 273.15 K and 1013.25 hPa, CODATA
_OPENAQ = ("location_id", "location", "datetime", "lat", "lon", "parameter", "units", "value")


def _at_273k(
    hour: np.ndarray, pollutant: np.ndarray, value: np.ndarray, state: str, offset_h: int
) -> np.ndarray:
    """Values with the gases brought to 273.15 K; see `gas_reference_factor`."""
    gas = np.isin(pollutant, [TARGETS.index(name) for name in GASES])
    hours, place = np.unique(hour, return_inverse=True)
    local = (hours + offset_h).astype("datetime64[h]")
    factor = gas_reference_factor(local, state)[place]
    return np.where(gas, value * factor, value).astype(np.float32)


def from_china_daily(
    files: Sequence[str | Path],
    stations: str | Path,
    reference_state: str = "china_2018_amendment",
    invalid: str = "refuse",
) -> Observations:
    """Daily files of China's national network, one column a station.

    Columns date (20180101), hour (0 to 23), type, then station codes; hours are Beijing time
    (UTC + 8 h) and name the end of the averaging hour (the network's notice on its data: "the
    value of 16 h is the mean of 15:00 to 16:00"). CO is in mg/m3, the others in ug/m3. Types
    other than the six pollutants (AQI, `PM2.5_24h`, ...) are left out.

    Parameters
    ----------
    files : sequence of paths
    stations : path
        Table of stations as `aqnet.verification.stations.tables` describes; codes without a line
        there are left out, because their place is not known.
    reference_state : str
        Of the gases; see `gas_reference_factor`.
    invalid : str
        See `read_observations`.

    Raises
    ------
    StationFileError
        Columns are missing, or no station of the files is in the table.
    """
    table, parts = read_stations_table(stations), []
    for file in files:
        day = pd.read_csv(file, dtype={"date": str, "type": str})
        if lacking := sorted({"date", "hour", "type"} - set(day.columns)):
            raise table_error(file, f"columns are missing: {lacking}", "date, hour, type, stations",
                         list(day.columns[:6]))  # fmt: skip
        day = day[day["type"].isin(_CHINA_TYPES)]
        place = pd.Index(table.ids).get_indexer(day.columns)
        codes, place = day.columns[place >= 0], place[place >= 0]
        label = pd.to_datetime(day["date"]).to_numpy("datetime64[h]")
        label = label + day["hour"].to_numpy().astype("timedelta64[h]")
        hour = (label - np.timedelta64(8, "h")).astype(np.int64)
        pollutant = pd.Index(TARGETS).get_indexer(day["type"].map(_CHINA_TYPES))
        value = day[codes].to_numpy(np.float32, copy=True)
        value[pollutant == TARGETS.index("co")] *= 1000
        shape = value.shape
        parts.append((np.repeat(hour, shape[1]), np.repeat(pollutant, shape[1]),
                      np.tile(place, shape[0]), value.ravel()))  # fmt: skip
    hour, pollutant, station, value = (np.concatenate(c) for c in zip(*parts, strict=True))
    if not value.size:
        raise table_error(stations, "no station of the files is in it", "their codes as ids",
                     list(table.ids[:5]))  # fmt: skip
    value = _at_273k(hour, pollutant, value, reference_state, 8)
    return gather(table, hour, pollutant, station, value, "daily files of China", invalid)


def from_openaq(
    files: Sequence[str | Path],
    reference_state: str,
    gas_ratio: str = "refuse",
    utc_offset_h: int = 8,
    network: str = "OpenAQ",
    invalid: str = "refuse",
) -> Observations:
    """Files of the OpenAQ archive (CSV, also gzipped), hourly.

    Columns location_id, sensors_id, location, datetime (with zone), lat, lon, parameter, units,
    value. Times are taken as ends of hours, as the files of a day (01:00 to 24:00) suggest; the
    archive's documentation does not say so. Other parameters are left out. Of several sensors of
    a location for one pollutant the values of an hour are averaged.

    Parameters
    ----------
    files : sequence of paths
    reference_state : str
        Of the gases given in ug/m3 or mg/m3; see `gas_reference_factor`.
    gas_ratio : str
        Gases in ppm or ppb: "refuse", or "273K": ug/m3 = ppb x molar mass / 22.414 l/mol.
    utc_offset_h : int
        Local clock minus UTC, for the date of the amendment in `reference_state`.
    network, invalid : str
        For the table; see `read_observations`.

    Raises
    ------
    StationFileError, TimeZoneError, UnitError, FieldError
        As `read_observations`.
    """
    tables = []
    for file in files:
        table = pd.read_csv(file, dtype={"location_id": str, "datetime": str, "units": str})
        if lacking := sorted(set(_OPENAQ) - set(table.columns)):
            raise table_error(file, f"columns are missing: {lacking}", _OPENAQ, list(table.columns))
        tables.append(table[table["parameter"].isin(TARGETS)])
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise table_error(files[0], "there is no pollutant", TARGETS, "other parameters")
    places = table.drop_duplicates("location_id")
    count = len(places)
    stations = Stations(places["location_id"], places["location"], places["lat"], places["lon"],
                        np.full(count, np.nan), [network] * count, ["unknown"] * count,
                        np.ones(count, bool))  # fmt: skip
    table["hour"] = utc_hours(table["datetime"], "OpenAQ files").astype(np.int64)
    table["value"] = _in_ug_m3(table, gas_ratio, reference_state, utc_offset_h)
    means = table.groupby(["hour", "parameter", "location_id"], as_index=False)["value"].mean()
    pollutant = pd.Index(TARGETS).get_indexer(means["parameter"])
    station = pd.Index(stations.ids).get_indexer(means["location_id"])
    value = means["value"].to_numpy(np.float32)
    hour = means["hour"].to_numpy()
    return gather(stations, hour, pollutant, station, value, "OpenAQ files", invalid)


def _in_ug_m3(table: pd.DataFrame, gas_ratio: str, state: str, offset_h: int) -> np.ndarray:
    """Values in ug/m3, gases at 273.15 K."""
    value = table["value"].to_numpy(np.float64)
    value = np.where(value <= -999, np.nan, value)  # OpenAQ passes the fill values of its sources
    for (name, unit), lines in table.groupby(["parameter", "units"], dropna=False).indices.items():
        if unit in ("ppm", "ppb") and name in MOLAR_MASS:
            if gas_ratio != "273K":
                raise UnitError(
                    explain(f"{name} of OpenAQ is a mixing ratio", expected="ug/m3 or mg/m3, or "
                            "gas_ratio='273K'", found=unit, remedy="choose the conversion by name")
                )  # fmt: skip
            scale = 1e3 if unit == "ppm" else 1.0
            value[lines] *= scale * MOLAR_MASS[name] / _MOLAR_VOLUME
            continue
        value[lines] = to_lexicon_unit(name, value[lines], str(unit))
        pollutant = np.full(len(lines), TARGETS.index(name))
        hour = table["hour"].to_numpy()[lines]
        value[lines] = _at_273k(hour, pollutant, value[lines], state, offset_h)
    return value


def from_beijing(manifest: Manifest) -> Observations:
    """The observations that ship with aqnet, 12 stations; elevation is that of the grid cell.

    Raises
    ------
    ChecksumError, DataError
        A file is not the one of the manifest or is missing.
    """
    data = read_stations(manifest)
    names = data["station"].values.astype(str)
    count = len(names)
    stations = Stations(names, names, data["lat"].values, data["lon"].values,
                        data["elevation_m"].values, [manifest.name] * count,
                        ["unknown"] * count, data["withheld"].values)  # fmt: skip
    values = np.stack([data[name].values for name in TARGETS], axis=1).astype(np.float32)
    return Observations(stations, data["time"].values.astype("datetime64[h]"), values)
