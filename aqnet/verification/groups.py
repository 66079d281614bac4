"""Which pairs are scored together: places by region and terrain, times by season, hour and sun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aqnet.errors import explain
from aqnet.grid import Grid, local_clock, local_solar_hour
from aqnet.metrics import VerificationError

__all__ = [
    "ALL",
    "ASSIMILATED",
    "HOURS",
    "SEASONS",
    "SUN",
    "WITHHELD",
    "Groups",
    "sun_elevation_deg",
    "time_cells",
]

ALL = "all"
# Stations that the analysis of the model's training uses, and those that it never saw.
ASSIMILATED, WITHHELD = "assimilated stations", "withheld stations"
SUN = ("night", "day")
SEASONS = ("DJF", "MAM", "JJA", "SON")
HOURS = tuple(range(24))


def sun_elevation_deg(times: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Elevation of the sun above the horizon, degrees, without refraction.

    Parameters
    ----------
    times : (N,) datetime64, UTC
    lat, lon : (C,)
        Degrees.

    Returns
    -------
    (N, C) float64
        Declination and equation of time by Spencer (1971, Search 2, 172): within 0.05 degrees and
        0.6 minutes, so that day and night change within 3 minutes of the true time.
    """
    times = np.asarray(times).astype("datetime64[s]")
    day = (times - times.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    g = 2 * np.pi * day / 365.0
    c, s = [np.cos(k * g) for k in (1, 2, 3)], [np.sin(k * g) for k in (1, 2, 3)]
    tilt = 0.006918 - 0.399912 * c[0] + 0.070257 * s[0] - 0.006758 * c[1] + 0.000907 * s[1]
    tilt += 0.00148 * s[2] - 0.002697 * c[2]
    late = 0.000075 + 0.001868 * c[0] - 0.032077 * s[0] - 0.014615 * c[1] - 0.040849 * s[1]
    late_h = 24 / (2 * np.pi) * late
    hour = local_solar_hour(times[:, None], lon) + late_h[:, None]
    phi, tilt = np.deg2rad(lat), tilt[:, None]
    height = np.sin(phi) * np.sin(tilt) + np.cos(phi) * np.cos(tilt) * np.cos(
        2 * np.pi * (hour - 12) / 24
    )
    return np.rad2deg(np.arcsin(np.clip(height, -1.0, 1.0)))


def time_cells(valid_times: np.ndarray, utc_offset_h: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `SEASONS` and `HOURS` of valid times, by the local clock; same shape, int."""
    local = local_clock(valid_times, utc_offset_h)
    month = local.astype("datetime64[M]").astype(int) % 12  # 0 is January
    return (month + 1) // 3 % 4, local.astype("datetime64[h]").astype(int) % 24


@dataclass(frozen=True, eq=False)
class Groups:
    """Places that are scored, and the groups that they belong to.

    Attributes
    ----------
    lat, lon : (C,) float64
        Degrees: cell centres or stations.
    weight : (C,) float64
        Finite and positive: km2 of cells, 1 for stations.
    members : mapping of name to (C,) bool
        Groups; they may overlap. `ALL` is added first.
    utc_offset_h : float
        Local clock of seasons and hours minus UTC (Beijing 8).
    classes : (C,) int
        Places in the same groups have the same class, 0 to B - 1.
    in_group : (G, B) bool
        Which classes make up a group.

    Raises
    ------
    VerificationError
        Shapes, weights or an empty group.
    """

    lat: np.ndarray
    lon: np.ndarray
    weight: np.ndarray
    members: Mapping[str, np.ndarray]
    utc_offset_h: float = 8.0
    classes: np.ndarray = field(init=False)
    in_group: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = np.shape(self.lat)
        members = {ALL: np.ones(shape, dtype=bool), **self.members}
        arrays = {"lon": self.lon, "weight": self.weight, **members}
        wrong = {name: np.shape(a) for name, a in arrays.items() if np.shape(a) != shape}
        weight = np.asarray(self.weight, dtype=np.float64)
        empty = [name for name, chosen in members.items() if not np.any(chosen)]
        bad = not (np.isfinite(weight).all() and (weight > 0).all())
        if wrong or empty or bad or len(shape) != 1:
            raise VerificationError(
                explain("places cannot be grouped",
                        expected=f"arrays of shape {shape}, positive weights, groups with members",
                        found=f"other shapes {wrong}, empty {empty}, bad weights {bad}",
                        remedy="leave out groups without places (Groups.of_grid does)")
            )  # fmt: skip
        table, classes = np.unique(np.stack(list(members.values())), axis=1, return_inverse=True)
        values = {"members": members, "weight": weight, "in_group": table}
        values["classes"] = classes.ravel()
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups, `ALL` first."""
        return tuple(self.members)

    @staticmethod
    def of_grid(
        grid: Grid,
        mask: np.ndarray,
        members: Mapping[str, np.ndarray] | None = None,
        utc_offset_h: float = 8.0,
    ) -> Groups:
        """Cells of a grid where `mask` (H, W), weighted by area [km2].

        `members`: name to (H, W) bool. Groups without a cell in the mask are left out: a region
        outside the domain has no score.
        """
        (lat, lon), mask = grid.mesh(), np.asarray(mask, dtype=bool)
        chosen = {name: np.asarray(m, dtype=bool)[mask] for name, m in (members or {}).items()}
        chosen = {name: m for name, m in chosen.items() if m.any()}
        return Groups(lat[mask], lon[mask], grid.cell_area_km2[mask], chosen, utc_offset_h)

    @property
    def member_table(self) -> np.ndarray:
        """(C, G) float64: 1 where a place belongs to a group."""
        return self.in_group.T.astype(np.float64)[self.classes]

    def classes_of(self, *names: str) -> np.ndarray:
        """Classes that belong to all of the named groups; VerificationError for an unknown one."""
        if unknown := [name for name in names if name not in self.names]:
            raise VerificationError(
                explain("no such group", expected=self.names, found=unknown,
                        remedy="choose among them")
            )  # fmt: skip
        rows = [self.names.index(name) for name in names]
        return np.flatnonzero(self.in_group[rows].all(axis=0))

    def by_sun(self, valid_time: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
        """Order of the places by class and then night before day, and the cell of each.

        Returns
        -------
        order : (C,) int
            Places, night before day within a class.
        cell : (C,) int
            2 x class + sun of the ordered places, ascending; day from an elevation of 0 degrees
            half an hour before the valid time, the middle of the hour that it ends.
        """
        middle = np.asarray(valid_time).astype("datetime64[s]") - np.timedelta64(1800, "s")
        day = sun_elevation_deg(middle[None], self.lat, self.lon)[0] > 0
        cell = 2 * self.classes + day
        order = np.argsort(cell, kind="stable")
        return order, cell[order]
