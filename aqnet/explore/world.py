"""What a manifest of either kind offers to look at: hours of fields, places, and their series."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from aqnet.data.geography import outlines
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import Manifest, load_manifest, resolve_manifest
from aqnet.data.stations.samples import MAX_ERROR_RATIO
from aqnet.data.store import AnalysisStore, open_store
from aqnet.data.years.year_set import YearSet, open_years
from aqnet.errors import CoverageError, explain
from aqnet.grid import Grid
from aqnet.io import station_store, stores_folder
from aqnet.variables import DYNAMIC, STATIC, TARGETS

__all__ = ["CITIES", "Place", "World", "clock", "open_world"]

# Rough centres (degrees north, degrees east), for stores that have no stations.
CITIES = {
    "Beijing": (39.9, 116.4),
    "Shanghai": (31.2, 121.5),
    "Guangzhou": (23.1, 113.3),
    "Chengdu": (30.6, 104.1),
    "Wuhan": (30.6, 114.3),
    "Xi'an": (34.3, 108.9),
    "Lanzhou": (36.0, 103.8),
    "Shenyang": (41.8, 123.4),
    "Urumqi": (43.8, 87.6),
    "Lhasa": (29.7, 91.1),
}
_TARGET = [DYNAMIC.index(name) for name in TARGETS]
_HOURS_KEPT = 64  # in memory: 90 MB of 128 x 256 cells


@dataclass(frozen=True)
class Place:
    """A place with a series: a station, or the cell of a city.

    `lat`, `lon` in degrees; `kind` is "station", "withheld station" or "cell".
    """

    name: str
    lat: float
    lon: float
    kind: str


@dataclass(frozen=True, eq=False)
class World:
    """Hours of a manifest's store or stores.

    Attributes
    ----------
    manifest : Manifest or GridManifest
    source : AnalysisStore or YearSet
    grid, mask, elevation_m : Grid, (H, W) bool, (H, W) m
    times : (T,) datetime64[h]
        UTC, ends of the averaging hours.
    places : tuple of Place
    step_h : int
        Between the points of a series: a series of fields reads a whole field for each.
    """

    manifest: Manifest | GridManifest
    source: AnalysisStore | YearSet
    grid: Grid
    mask: np.ndarray
    elevation_m: np.ndarray
    times: np.ndarray
    places: tuple[Place, ...]
    step_h: int
    _kept: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._kept["hour"] = lru_cache(_HOURS_KEPT)(self._read_hour)
        self._kept["series"] = {}
        if self.has_stations:
            self._kept["observed"] = self.source.read("station_values")
            shape = (len(self.times), len(DYNAMIC), *self.grid.shape)
            # takes memory only where it is written: 11 kB an hour that was looked at
            self._kept["held"] = np.empty(shape, np.float32), np.zeros(len(self.times), bool)

    @property
    def has_stations(self) -> bool:
        """Whether the places are stations with observations of their own."""
        return isinstance(self.source, AnalysisStore)

    @property
    def lines(self) -> list[np.ndarray]:
        """Coasts and land boundaries with a point on the grid, (n, 2): longitude, latitude."""
        if "lines" not in self._kept:
            lat, lon = (np.sort(axis[[0, -1]]) for axis in self.grid.edges())
            low, high = (lon[0], lat[0]), (lon[1], lat[1])
            inside = [x for x in outlines() if ((x >= low) & (x <= high)).all(1).any()]
            self._kept["lines"] = inside
        return self._kept["lines"]

    @property
    def utc_offset_h(self) -> float:
        """Of the local clock [h]."""
        return self.manifest.source_utc_offset_h

    @property
    def credit(self) -> str:
        """Source and licence of the data in one line."""
        doi = "" if self.manifest.doi == "none" else f", doi:{self.manifest.doi}"
        licence = self.manifest.licence.split(";")[0]
        return f"Data: {self.manifest.title}{doi}; {licence}"

    def row(self, time: np.datetime64) -> int:
        """Row of an hour, UTC; CoverageError if there is none."""
        time = np.datetime64(time, "h")
        row = int(np.searchsorted(self.times, time))
        if row == len(self.times) or self.times[row] != time:
            raise CoverageError(
                explain(f"there is no hour {time} UTC in {self.manifest.name}",
                        expected=f"an hour from {self.times[0]} to {self.times[-1]} UTC",
                        found=time, remedy="choose another time")
            )  # fmt: skip
        return row

    # ---- fields

    def hour(self, time: np.datetime64) -> np.ndarray:
        """(11, H, W) float32 in the order DYNAMIC and its units; NaN where there is no value."""
        return self._kept["hour"](self.row(time))

    def _read_hour(self, row: int) -> np.ndarray:
        rows = slice(row, row + 1)
        return self.analyses(rows)[0] if self.has_stations else self.source.read(rows)[0]

    def analyses(self, rows: slice) -> np.ndarray:
        """(n, 11, H, W) float32: many hours of an analysis of stations, read once."""
        held, there = self._kept["held"]
        missing = rows.start + np.flatnonzero(~there[rows])
        if missing.size:
            gap = slice(int(missing[0]), int(missing[-1]) + 1)
            held[gap], there[gap] = self.source.read("inputs", gap), True
        return held[rows]

    def truth(self, time: np.datetime64) -> np.ndarray:
        """(6, H, W) ug/m3 in the order TARGETS: what forecasts of this hour are scored against.

        Of an analysis of stations NaN where its error is too large to score with.
        """
        if not self.has_stations:
            return self.hour(time)[_TARGET]
        rows = slice(self.row(time), self.row(time) + 1)
        good = self.source.read("targets_error_ratio", rows)[0] <= MAX_ERROR_RATIO
        return np.where(good, self.source.read("targets", rows)[0], np.nan)

    def wind(self, time: np.datetime64) -> np.ndarray:
        """(2, H, W) m/s, eastward and northward."""
        return self.hour(time)[[DYNAMIC.index("u"), DYNAMIC.index("v")]]

    def limits(self, name: str) -> tuple[float, float]:
        """Ends of a colour scale for a variable, from 48 hours spread over all times.

        To the 99.5th percentile: of pollutants from 0, of weather from the smallest value.
        """
        if name not in self._kept:
            at = DYNAMIC.index(name)
            rows = np.linspace(0, len(self.times) - 1, 48).astype(int).tolist()
            sample = np.concatenate([self._read_hour(row)[at].ravel() for row in rows])
            sample = sample[np.isfinite(sample)]
            low, high = np.percentile(sample, [0, 99.5]) if sample.size else (0.0, 1.0)
            low = 0.0 if name in TARGETS else float(low)
            self._kept[name] = (low, max(float(high), low + 1e-6))
        return self._kept[name]

    # ---- places

    def at_place(self, place: int, fields: np.ndarray) -> np.ndarray:
        """Values (...) of fields (..., H, W) there: bilinear at a station, else of the cell."""
        flat = fields.reshape(*fields.shape[:-2], -1)
        cells, weights = self._kept.setdefault(("cells", place), self._cells(self.places[place]))
        return (flat[..., cells] * weights).sum(-1)

    def _cells(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        if self.has_stations:
            cells, weights = self.grid.bilinear([place.lat], [place.lon])
            return cells[0], weights[0]
        return np.array([np.ravel_multi_index(self.cell(place), self.grid.shape)]), np.ones(1)

    def cell(self, place: Place) -> tuple[int, int]:
        """Row and column of the cell that a place lies in."""
        return (int(np.abs(self.grid.lat - place.lat).argmin()),
                int(np.abs(self.grid.lon - place.lon).argmin()))  # fmt: skip

    def series(self, place: int, pollutant: str, times: np.ndarray) -> np.ndarray:
        """(n,) ug/m3 at hours in UTC: observations of a station, else values of the cell.

        NaN for hours that are missing or outside the store.
        """
        p, found = TARGETS.index(pollutant), np.full(len(times), np.nan)
        rows = np.searchsorted(self.times, times).clip(max=len(self.times) - 1)
        for i in np.flatnonzero(self.times[rows] == times):
            found[i] = self._at(int(rows[i]), place)[p]
        return found

    def _at(self, row: int, place: int) -> np.ndarray:
        """(6,) ug/m3 of an hour at a place."""
        if self.has_stations:
            return self._kept["observed"][row, place]
        held = self._kept["series"]
        if row not in held:  # all places at once: whoever looks at one looks at the next
            fields = self._read_hour(row)[_TARGET]
            held[row] = np.stack([self.at_place(i, fields) for i in range(len(self.places))])
        return held[row][place]


def clock(time: np.datetime64, utc_offset_h: float) -> str:
    """2016-12-20 12:00 UTC = 2016-12-20 20:00 UTC+8."""
    time = np.datetime64(time, "h").astype("datetime64[m]")
    local = time + np.timedelta64(round(60 * utc_offset_h), "m")
    utc, there = (str(t).replace("T", " ") for t in (time, local))
    return f"{utc} UTC = {there} UTC{utc_offset_h:+g}"


def open_world(manifest: str | Path, folder: str | Path | None = None) -> World:
    """Open the data of a manifest.

    Parameters
    ----------
    manifest : str or path
        Name in `data_manifests`, or a YAML file.
    folder : path, optional
        The store (stations), or the folder of the yearly stores (fields; those that are there are
        read). Default: the usual place in the data folder. Forecasts of runs need all years of the
        manifest: with some alone maps work, and `open_forecast` of a run is a CoverageError.

    Raises
    ------
    ManifestError, StoreError, CoverageError
        There is no such manifest or store, or the store is not of this manifest.
    """
    described = load_manifest(resolve_manifest(manifest))
    if isinstance(described, GridManifest):
        return _of_fields(described, stores_folder(described.name, folder))
    return _of_stations(described, station_store(described.name, folder))


def _of_stations(manifest: Manifest, path: Path) -> World:
    store = open_store(path, manifest)
    grid = manifest.grid_object()
    rows = zip(store.stations, store["station_lat"][:], store["station_lon"][:], store.withheld,
               strict=True)  # fmt: skip
    places = tuple(
        Place(name, float(lat), float(lon), "withheld station" if out else "station")
        for name, lat, lon, out in rows
    )
    elevation = store.read("static")[STATIC.index("elevation")]
    mask = np.ones(grid.shape, bool)
    return World(manifest, store, grid, mask, elevation, store.times, places, 1)


def _of_fields(manifest: GridManifest, folder: Path) -> World:
    there = [year for year in manifest.years if (folder / manifest.store_file(year)).exists()]
    years = open_years(manifest, folder, there or None)  # of none, it says what is missing
    lat, lon = years.grid.lat, years.grid.lon
    inside = {
        name: (y, x)
        for name, (y, x) in CITIES.items()
        if lat.min() <= y <= lat.max() and lon.min() <= x <= lon.max()
        and years.mask[np.abs(lat - y).argmin(), np.abs(lon - x).argmin()]
    }  # fmt: skip
    places = tuple(Place(name, y, x, "cell") for name, (y, x) in inside.items())
    elevation = years.static[STATIC.index("elevation")]
    return World(manifest, years, years.grid, years.mask, elevation, years.times, places, 3)
