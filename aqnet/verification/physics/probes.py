"""Counterfactual probes: the wind turned or calmed, a source removed, a ridge raised or flattened.

A probe changes the inputs of a forecast and looks at the difference it makes, in ug/m3; the numbers
are in `aqnet.verification.physics.probe_quantities`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from aqnet.errors import CoverageError, ParameterError, explain
from aqnet.grid import Grid, distance_km
from aqnet.variables import DYNAMIC, TARGETS

__all__ = [
    "Forecasts",
    "Place",
    "Ridge",
    "Scene",
    "Surroundings",
    "calmed",
    "flattened",
    "raised",
    "surroundings_of",
    "turned",
    "without_source",
]

_U, _V = DYNAMIC.index("u"), DYNAMIC.index("v")
TARGET_CHANNELS = [DYNAMIC.index(name) for name in TARGETS]
LEAST_WIND_M_S = 1.0  # below it there is no downwind
BACKGROUND_PERCENTILE = 10.0  # of the active cells: clean air of that hour


@dataclass(frozen=True, eq=False)
class Scene:
    """Inputs of B forecasts.

    Attributes
    ----------
    times : (B,) datetime64[h]
        Init times, UTC.
    values : (B, K, 11, N) float32
        The dynamic variables in lexicon units, of K hours back from the init time (that first), in
        the active cells.
    grid : Grid
    mask : (H, W) bool
        Active cells.
    elevation : (H, W) float, optional
        Terrain [m] in place of that of the model.
    """

    times: np.ndarray
    values: np.ndarray
    grid: Grid
    mask: np.ndarray
    elevation: np.ndarray | None = None

    def targets(self) -> np.ndarray:
        """(B, 6, N) ug/m3 at the init times."""
        return self.values[:, 0, TARGET_CHANNELS]

    def only(self, chosen: np.ndarray) -> Scene:
        """Some of the init times."""
        return replace(self, times=self.times[chosen], values=self.values[chosen])


# What is probed: forecasts (B, L, 6, N) in ug/m3 of a scene.
Forecasts = Callable[[Scene], np.ndarray]


@dataclass(frozen=True)
class Place:
    """A region around a source or receptor: centre [degrees] and radius [km]."""

    lat: float
    lon: float
    radius_km: float


@dataclass(frozen=True)
class Ridge:
    """A Gaussian ridge half-way between two places, across the line that joins them.

    Attributes
    ----------
    height_m : float
        Of its crest above the terrain.
    half_width_km, half_length_km : float
        Standard deviations along the line and across it.
    """

    height_m: float = 1500.0
    half_width_km: float = 60.0
    half_length_km: float = 300.0


# ---- where things are, seen from the source


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Active cells as seen from a place, and the wind there.

    Attributes
    ----------
    distance_km, bearing : (N,)
        Great-circle distance, and direction [rad] anticlockwise from east, from the centre.
    inside : (N,) bool
        Within the radius.
    area_km2 : (N,)
    wind : (B, 2)
        Mean u and v within the radius at the init times [m/s].
    """

    place: Place
    distance_km: np.ndarray
    bearing: np.ndarray
    inside: np.ndarray
    area_km2: np.ndarray
    wind: np.ndarray = field(repr=False)

    @property
    def speed(self) -> np.ndarray:
        """(B,) m/s."""
        return np.hypot(*self.wind.T)

    @property
    def blows(self) -> np.ndarray:
        """(B,) bool: the wind is fast enough to have a direction."""
        return self.speed >= LEAST_WIND_M_S

    def along_km(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, N): coordinates along the wind and to its left; NaN without wind."""
        heading = np.where(self.blows, np.arctan2(self.wind[:, 1], self.wind[:, 0]), np.nan)
        angle = self.bearing - heading[:, None]
        return self.distance_km * np.cos(angle), self.distance_km * np.sin(angle)


def _bearing(lat1: float, lon1: float, lat2: np.ndarray, lon2: np.ndarray) -> np.ndarray:
    """Direction in which the great circle from 1 to 2 starts, rad anticlockwise from east."""
    a, b, turn = np.deg2rad(lat1), np.deg2rad(lat2), np.deg2rad(lon2 - lon1)
    east = np.sin(turn) * np.cos(b)
    north = np.cos(a) * np.sin(b) - np.sin(a) * np.cos(b) * np.cos(turn)
    return np.arctan2(north, east)


def surroundings_of(scene: Scene, place: Place) -> Surroundings:
    """Active cells and wind of a scene around a place; CoverageError if it has no active cell."""
    lat, lon = (axis[scene.mask] for axis in scene.grid.mesh())
    distance = distance_km(place.lat, place.lon, lat, lon)
    inside, area = distance <= place.radius_km, scene.grid.cell_area_km2[scene.mask]
    if not inside.any():
        raise CoverageError(
            explain("no cell of the data lies within the place",
                    expected=f"a cell centre within {place.radius_km:g} km of {place.lat:g} N, "
                    f"{place.lon:g} E", found=f"the nearest is {distance.min():.0f} km away",
                    remedy="choose another place or a larger radius")
        )  # fmt: skip
    weight = area[inside] / area[inside].sum()
    wind = scene.values[:, 0, [_U, _V]][..., inside].astype(np.float64) @ weight
    bearing = _bearing(place.lat, place.lon, lat, lon)
    return Surroundings(place, distance, bearing, inside, area, wind)


# ---- changes of a scene


def turned(scene: Scene, degrees: float = 180.0) -> Scene:
    """The wind everywhere turned anticlockwise, in all hours that the scene holds."""
    values, angle = scene.values.copy(), np.deg2rad(degrees)
    u, v = scene.values[:, :, _U], scene.values[:, :, _V]
    values[:, :, _U] = np.cos(angle) * u - np.sin(angle) * v
    values[:, :, _V] = np.sin(angle) * u + np.cos(angle) * v
    return replace(scene, values=values)


def calmed(scene: Scene) -> Scene:
    """No wind anywhere, in all hours that the scene holds."""
    values = scene.values.copy()
    values[:, :, [_U, _V]] = np.where(np.isfinite(values[:, :, [_U, _V]]), 0.0, np.nan)
    return replace(scene, values=values)


def without_source(scene: Scene, source: Surroundings) -> Scene:
    """The pollution over a source down to its background, in all hours that the scene holds.

    Background is the lowest tenth of the active cells in that hour (10th percentile); no value
    rises. Only what is in the air goes: the emission goes on, as far as the model knows of it.
    """
    values = scene.values.copy()
    air = values[:, :, TARGET_CHANNELS]
    background = np.nanpercentile(air, BACKGROUND_PERCENTILE, axis=-1, keepdims=True)
    air[..., source.inside] = np.minimum(air[..., source.inside], background)
    values[:, :, TARGET_CHANNELS] = air
    return replace(scene, values=values)


def _shape_of(scene: Scene, ridge: Ridge, start: Place, end: Place) -> np.ndarray:
    """(H, W) [1]: 1 on the crest of a ridge between two places."""
    apart = distance_km(start.lat, start.lon, end.lat, end.lon)
    if apart < 2 * ridge.half_width_km:
        raise ParameterError(
            explain("there is no room for a ridge between source and receptor",
                    expected=f"{2 * ridge.half_width_km:g} km", found=f"{apart:.0f} km",
                    remedy="choose a receptor farther away, or a narrower ridge")
        )  # fmt: skip
    lat, lon = scene.grid.mesh()
    far = distance_km(start.lat, start.lon, lat, lon)
    angle = _bearing(start.lat, start.lon, lat, lon) - _bearing(
        start.lat, start.lon, np.float64(end.lat), np.float64(end.lon)
    )
    along, across = far * np.cos(angle) - apart / 2, far * np.sin(angle)
    return np.exp(
        -0.5 * (along / ridge.half_width_km) ** 2 - 0.5 * (across / ridge.half_length_km) ** 2
    )


def raised(scene: Scene, elevation: np.ndarray, ridge: Ridge, start: Place, end: Place) -> Scene:
    """`ridge` on top of `elevation` (H, W) [m], between two places.

    Raises
    ------
    ParameterError
        The places are closer than the ridge is wide.
    """
    shape = _shape_of(scene, ridge, start, end)
    return replace(scene, elevation=elevation + ridge.height_m * shape)


def flattened(scene: Scene, elevation: np.ndarray, ridge: Ridge, start: Place, end: Place) -> Scene:
    """Terrain between two places brought down to the higher of them, where `ridge` would stand."""
    shape = _shape_of(scene, ridge, start, end)
    base = max(_height_at(scene.grid, elevation, place) for place in (start, end))
    return replace(scene, elevation=elevation - np.maximum(elevation - base, 0.0) * shape)


def _height_at(grid: Grid, elevation: np.ndarray, place: Place) -> float:
    lat, lon = grid.mesh()
    inside = distance_km(place.lat, place.lon, lat, lon) <= place.radius_km
    return float(elevation[inside].mean())
