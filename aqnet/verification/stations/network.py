"""Stations of any network and their hourly observations, validated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aqnet.errors import DataError, FieldError, StationFileError, explain
from aqnet.variables import TARGETS, VARIABLES

__all__ = ["CLASSES", "Observations", "Stations", "TimeZoneError", "gather", "table_error"]

CLASSES = ("urban", "suburban", "rural", "background", "traffic", "industrial", "unknown")


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
        unequal = sorted({len(v) for v in self.__dict__.values()} - {len(self.ids)})
        if unequal:
            raise _station_error("lengths differ", "one value a station", unequal)
        unique, count = np.unique(self.ids, return_counts=True)
        off = ~((np.abs(self.lat) <= 90) & (self.lon >= -180) & (self.lon < 360))
        checks = [
            ("an id is given twice", "one line a station", unique[count > 1]),
            ("a place is off the globe", "latitude -90 to 90, longitude -180 to 360",
             self.ids[off]),
            ("a class is unknown", CLASSES, sorted(set(self.classes.tolist()) - set(CLASSES))),
        ]  # fmt: skip
        for problem, expected, found in checks:
            if len(found):
                raise _station_error(problem, expected, found)

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

    def between(self, first: np.datetime64, last: np.datetime64) -> Observations:
        """Every hour from `first` to `last`, inclusive; NaN where there is no observation."""
        times = np.arange(first, last + np.timedelta64(1, "h"), dtype="datetime64[h]")
        return Observations(self.stations, times, self.at(times), self.dropped)

    def only(self, times: np.ndarray) -> Observations:
        """The same hours, NaN but at some UTC times of any shape."""
        kept = np.isin(self.times, times)[:, None, None]
        return replace(self, values=np.where(kept, self.values, np.float32("nan")))

    def take(self, chosen: np.ndarray) -> Observations:
        """Those of some stations: indices or a bool array."""
        return Observations(self.stations.take(chosen), self.times, self.values[..., chosen],
                            self.dropped)  # fmt: skip


def _station_error(problem: str, expected: object, found: object) -> StationFileError:
    return StationFileError(
        explain(f"stations: {problem}", expected=expected, found=list(found)[:5],
                remedy="correct the table of stations")
    )  # fmt: skip


def table_error(
    path: str | Path, problem: str, expected: object, found: object
) -> StationFileError:
    """A file of stations or observations is not as it should be."""
    return StationFileError(
        explain(f"{path}: {problem}", expected=expected, found=found, remedy="correct the file")
    )


def gather(
    stations: Stations, hour: np.ndarray, pollutant: np.ndarray, station: np.ndarray,
    value: np.ndarray, where: str, invalid: str = "refuse",
) -> Observations:  # fmt: skip
    """Observations of single values: hours since 1970 UTC, positions, ug/m3; see the reader."""
    known = np.isfinite(value)
    hour, pollutant, station, value = (a[known] for a in (hour, pollutant, station, value))
    if not value.size:
        raise table_error(where, "there is no value", "at least one", "none")
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
        raise table_error(where, "a value is given twice", "one line a value",
                     f"{stations.ids[station[twice]]}, {TARGETS[pollutant[twice]]}, "
                     f"{np.datetime64(int(hour[twice]), 'h')}Z")  # fmt: skip
    dense.reshape(-1)[flat[~bad]] = value[~bad]
    times = np.datetime64(start, "h") + np.arange(hours).astype("timedelta64[h]")
    return Observations(stations, times, dense, int(bad.sum()))
