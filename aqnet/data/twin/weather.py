"""Weather of an hour: winds that carry and winds that are seen, temperature to mixing depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aqnet.data.geography import monthly_winds
from aqnet.data.twin import climate
from aqnet.data.twin.config import TwinConfig
from aqnet.data.twin.synoptic import SynopticModes
from aqnet.data.twin.terrain_flow import TerrainFlow, face_fluxes
from aqnet.data.twin.world import World
from aqnet.grid import local_solar_hour
from aqnet.variables import saturation_vapour_pressure_hpa

__all__ = ["HourWeather", "Weather"]

_AIR_DENSITY, _EARTH_SPIN = 1.2, 7.2921e-5
_CLOSED_CELLS = 4
_FRONT = 1.6  # sharpness of fronts: tanh of this many standard deviations of the thermal wave


@dataclass(frozen=True, eq=False)
class HourWeather:
    """Fields of one hour, (H, W) unless stated, rows south to north.

    Written to stores: u, v (m/s), temp (K), rh (%), psfc (Pa). Hidden: flux_x (H, W+1) and
    flux_y (H+1, W), the carrying flow through the faces in m2/s before the switch `transport`;
    depth, the mixing depth of the hour, and day_depth, that of the day's afternoon (m);
    sunlight (cosine of the zenith angle, dimmed by cloud, 0 at night); stable (0 by day in deep
    mixing to 1 on calm nights); rain (mm/h); wind (speed of the carrying layer, m/s).
    """

    u: np.ndarray
    v: np.ndarray
    temp: np.ndarray
    rh: np.ndarray
    psfc: np.ndarray
    flux_x: np.ndarray
    flux_y: np.ndarray
    depth: np.ndarray
    day_depth: np.ndarray
    sunlight: np.ndarray
    stable: np.ndarray
    rain: np.ndarray
    wind: np.ndarray


class _Moment(NamedTuple):
    """Day of the year (1.0 is its beginning), local solar hour (W,), cosine of the sun's zenith
    angle (H, W), and growth of the mixing layer (1, W): 0 at night, 1 at 14 h."""

    day: float
    solar: np.ndarray
    light: np.ndarray
    grown: np.ndarray


class _Waves(NamedTuple):
    """Synoptic fields: psi (H+1, W+1), m2/s, before blocking; the others (H, W), without unit."""

    psi: np.ndarray
    front: np.ndarray
    thermal: np.ndarray
    moist: np.ndarray
    wet: np.ndarray
    cloud: np.ndarray


def _centres(corners: np.ndarray) -> np.ndarray:
    """Means of the four corners of every cell, (..., H, W) of (..., H+1, W+1)."""
    rows = corners[..., 1:, :] + corners[..., :-1, :]
    return 0.25 * (rows[..., 1:] + rows[..., :-1])


class Weather:
    """Weather of a world; `at(hour)` is a pure function of the configuration and the hour.

    Parameters
    ----------
    config : TwinConfig
    world : World
    """

    def __init__(self, config: TwinConfig, world: World):
        self.config, self.world = config, world
        geometry, terrain = world.geometry, config.terrain
        self._modes = SynopticModes(config.synoptic, config.weather_seed)
        self._flow = TerrainFlow(geometry, world.elevation, config.blocking * terrain.resistance,
                                 terrain.step_scale_m, terrain.length_km * 1e3)  # fmt: skip
        self._mean_psi = self._monthly_streamfunctions()
        self._dry = climate.dryness_index(geometry.lat, geometry.lon)
        self._dry_corner = climate.dryness_index(geometry.lat_edges, geometry.lon_edges)
        self._coriolis = 2 * _EARTH_SPIN * np.sin(np.deg2rad(geometry.lat))[:, None]
        self._uphill = self._slopes()
        self._window = self._border_window()

    # ---- parts that do not change

    def _monthly_streamfunctions(self) -> np.ndarray:
        """Rotational part of the mean surface wind, (12, H+1, W+1), m2/s."""
        winds, geometry = monthly_winds(), self.world.geometry
        near = winds[["u", "v"]].interp(lat=geometry.lat, lon=geometry.lon)
        fits = [
            self._flow.fit(near["u"].values[m].astype(float), near["v"].values[m].astype(float))
            for m in range(12)
        ]
        return self.config.synoptic.mean_wind_factor * np.stack([p - p.mean() for p in fits])

    def _slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Direction uphill times steepness (saturating at 1 % slope), east and north parts."""
        step_x, step_y = self.world.geometry.face_steps(self.world.elevation)
        x = 0.5 * (step_x[:, 1:] + step_x[:, :-1]) / self.world.geometry.dx
        y = 0.5 * (step_y[1:] + step_y[:-1]) / self.world.geometry.dy
        steep = np.hypot(x, y)
        factor = np.tanh(steep / 0.01) / np.maximum(steep, 1e-9)
        return x * factor, y * factor

    def _border_window(self) -> np.ndarray | None:
        """Factor on psi that is 0 on the border: a flow that stays inside; None if open."""
        if self.config.border == "open":
            return None
        rows, cols = (np.arange(n + 1) for n in self.world.geometry.shape)
        inside = [np.minimum(axis, axis[::-1]) / _CLOSED_CELLS for axis in (rows, cols)]
        ramp = [np.sin(np.pi / 2 * np.minimum(x, 1)) ** 2 for x in inside]
        return np.multiply.outer(*ramp)

    # ---- an hour

    def at(self, hour: float) -> HourWeather:
        """Weather at `hour`, hours since 1970-01-01 UTC (the middle of an averaging hour)."""
        moment = self._moment(hour)
        waves = self._waves(hour, moment.day)
        flux_x, flux_y = self._fluxes(waves.psi + self._mean(moment.day), moment.day)
        carried = self.centre_wind(flux_x, flux_y)
        speed = np.hypot(*carried)
        single = dict(zip(("temp", "rh", "psfc"), self._air(waves, moment), strict=True))
        single["u"], single["v"] = self._surface_wind(carried, moment)
        single["depth"], single["day_depth"] = self._depths(waves, moment, speed)
        single["sunlight"] = np.maximum(moment.light, 0) * (1 - 0.9 * waves.cloud)
        single["stable"] = (1 - moment.grown) / (1 + (speed / 7.0) ** 2)
        single["rain"], single["wind"] = self._rain(waves, moment.day), speed
        single = {name: field.astype(np.float32) for name, field in single.items()}
        return HourWeather(flux_x=flux_x, flux_y=flux_y, **single)

    def centre_wind(self, flux_x: np.ndarray, flux_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Wind of the carrying layer at the centres of the cells.

        Parameters
        ----------
        flux_x, flux_y : (H, W+1), (H+1, W)
            Flow through the faces, m2/s, as in `HourWeather`.

        Returns
        -------
        east, north : (H, W)
            m/s.
        """
        geometry = self.world.geometry
        east = 0.5 * (flux_x[:, 1:] + flux_x[:, :-1]) / geometry.dy
        return east, 0.5 * (flux_y[1:] + flux_y[:-1]) / geometry.dx

    def _moment(self, hour: float) -> _Moment:
        time = np.datetime64("1970-01-01", "s") + np.timedelta64(round(hour * 3600), "s")
        day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D") + 1.0
        solar = local_solar_hour(time, self.world.geometry.lon)
        light = climate.sun(self.world.geometry.lat, solar, day)
        grown = np.clip(np.sin(np.pi * (solar - 8.0) / 12.0), 0.0, 1.0)[None, :]
        return _Moment(float(day), solar, light, grown)

    def _waves(self, hour: float, day: float) -> _Waves:
        geometry = self.world.geometry
        corner = self._modes.fields(hour, geometry.lat_edges, geometry.lon_edges)
        psi, thermal, moist = _centres(corner)
        front = _centres(np.tanh(_FRONT * corner[1]))
        wet = 0.75 * moist - 0.45 * psi  # humid air, and air that rises in low pressure
        cloud = 1 / (1 + np.exp(-2.2 * (wet - 0.5 + 0.9 * self._dry)))
        return _Waves(self._synoptic_psi(corner, day), front, thermal, moist, wet, cloud)

    def _rain(self, waves: _Waves, day: float) -> np.ndarray:
        """Rain, mm/h: where the air is wetter than the climate of the place needs for it."""
        threshold = 1.9 - 1.2 * (climate.mean_humidity(self._dry, day) - 45.0) / 35.0
        above = np.maximum(waves.wet - threshold, 0.0)
        return self.config.climate.rain_mm_h * above * (1 - self._dry)

    def _speed(self, day: float) -> np.ndarray:
        """Rms speed of the synoptic flow on the corner rows, m/s, (H+1, 1)."""
        synoptic = self.config.synoptic
        warm = 0.5 * (1 + climate.season(day))
        at_40n = synoptic.winter_speed_m_s * (1 - warm) + synoptic.summer_speed_m_s * warm
        north = np.clip((self.world.geometry.lat_edges - 20.0) / 20.0, 0.0, 1.2)[:, None]
        return at_40n * (synoptic.south_share + (1 - synoptic.south_share) * north)

    def _synoptic_psi(self, corner: np.ndarray, day: float) -> np.ndarray:
        """Streamfunction of the travelling weather, m2/s, (H+1, W+1), before blocking."""
        # A trough along every front: the wind turns where warm and cold air meet.
        kink = np.log(2 * np.cosh(_FRONT * corner[1])) / _FRONT - 0.95
        shape = corner[0] + self.config.synoptic.front_strength * kink
        return shape * self._speed(day) / self._modes.wind_per_psi

    def _mean(self, day: float) -> np.ndarray:
        """Streamfunction of the mean wind, linear in time between the middles of the months."""
        position = (day - 15.2) / 30.4369
        low = int(np.floor(position))
        share = position - low
        return (1 - share) * self._mean_psi[low % 12] + share * self._mean_psi[(low + 1) % 12]

    def _fluxes(self, psi: np.ndarray, day: float) -> tuple[np.ndarray, np.ndarray]:
        """Blocked fluxes: fully where mixing is shallow against the terrain, less where deep.

        The share of blocking follows the climatological depth at noon, which varies slowly: a
        share with fronts in it would make jets of its own.
        """
        terrain, edges = self.config.terrain, self.world.geometry.lat_edges
        depth = self.config.mixing.night_m + self._clear_depth(edges, day)
        shallow = np.clip(2.0 - depth / terrain.deep_mixing_m, 0.0, 1.0)
        share = terrain.least_blocking + (1 - terrain.least_blocking) * shallow
        psi = psi + share * self._flow.correction(psi)
        if self._window is not None:
            psi = psi * self._window
        return face_fluxes(psi)

    def _clear_depth(self, lat: np.ndarray, day: float) -> np.ndarray:
        """Convective mixing depth of a cloudless noon without fronts, m, (rows, 1)."""
        noon = np.maximum(climate.sun(lat, np.array([12.0]), day), 0.05)
        return self.config.mixing.convective_m * noon**0.8

    def _depths(self, waves: _Waves, moment: _Moment, speed) -> tuple[np.ndarray, np.ndarray]:
        """Mixing depth now and at the day's deepest, m."""
        mixing, geometry = self.config.mixing, self.world.geometry
        convective = self._clear_depth(geometry.lat, moment.day) * (1 - 0.6 * waves.cloud)
        convective = convective * (0.75 + 0.6 * self._dry)
        convective = convective * np.where(self.world.land, 1.0, 0.4)
        # Warm air over cold ground is stable, cold air over warm ground is not.
        warmth = 0.5 * (waves.front + waves.thermal)
        still = np.minimum(np.exp(-mixing.stability * warmth), 3.0)  # deepest: some 4 km
        by_wind = mixing.per_wind_s * speed
        return (
            mixing.night_m + convective * moment.grown * still + by_wind,
            mixing.night_m + convective * still + by_wind,
        )

    def _surface_wind(self, carried, moment: _Moment) -> tuple[np.ndarray, np.ndarray]:
        """Wind near the ground: weaker, turned towards low pressure, with slope winds, m/s."""
        terrain = self.config.terrain
        share = terrain.surface_share_night + moment.grown * (
            terrain.surface_share_day - terrain.surface_share_night
        )
        angle = np.deg2rad(terrain.surface_turning_deg) * np.where(self.world.land, 1.0, 0.4)
        east = share * (carried[0] * np.cos(angle) - carried[1] * np.sin(angle))
        north = share * (carried[0] * np.sin(angle) + carried[1] * np.cos(angle))
        breeze = terrain.slope_wind_m_s * np.sin(2 * np.pi * (moment.solar - 9.0) / 24.0)[None]
        return east + breeze * self._uphill[0], north + breeze * self._uphill[1]

    def _air(self, waves: _Waves, moment: _Moment) -> tuple[np.ndarray, ...]:
        """Temperature (K), relative humidity (%), surface pressure (Pa)."""
        settings, world, geometry = self.config.climate, self.world, self.world.geometry
        lapse, warm = settings.lapse_rate_k_per_km, 0.5 * (1 + climate.season(moment.day))
        anomaly = settings.anomaly_winter_k * (1 - warm) + settings.anomaly_summer_k * warm
        mean = climate.mean_temperature(
            geometry.lat, world.elevation, world.land, moment.day, lapse
        )
        daily = mean + anomaly * (0.6 * waves.front + 0.5 * waves.thermal)
        cycle = np.cos(2 * np.pi * (moment.solar - 15.0) / 24.0)[None, :]
        swing = settings.diurnal_k * (1.3 - 0.7 * waves.cloud) * (0.8 + 0.5 * self._dry)
        temp = daily + swing * cycle * np.where(world.land, 1.0, 0.25)
        psfc = climate.surface_pressure(
            self._sea_level(waves, moment), daily, world.elevation, lapse
        )
        return temp, self._humidity(daily, temp, waves, moment.day), psfc

    def _humidity(self, daily, temp, waves: _Waves, day: float) -> np.ndarray:
        """Relative humidity, %: the vapour of a day stays, so it falls as the day warms."""
        usual = np.clip(climate.mean_humidity(self._dry, day) / 100.0, 0.05, 0.95)
        logit = np.log(usual / (1 - usual)) + self.config.climate.humidity_spread * (
            0.8 * waves.moist + 0.4 * waves.front
        )
        vapour = saturation_vapour_pressure_hpa(daily - 273.15) / (1 + np.exp(-logit))
        return np.clip(100.0 * vapour / saturation_vapour_pressure_hpa(temp - 273.15), 5.0, 100.0)

    def _sea_level(self, waves: _Waves, moment: _Moment) -> np.ndarray:
        """Pressure at sea level, Pa: climate, geostrophic waves, and the semidiurnal tide."""
        geometry = self.world.geometry
        factor = self.config.climate.pressure_factor
        wave = factor * _AIR_DENSITY * self._coriolis * _centres(waves.psi)
        tide = 120.0 * np.cos(4 * np.pi * (moment.solar - 10.0) / 24.0)[None, :]
        return climate.sea_level_pressure(geometry.lat, geometry.lon, moment.day) + wave + tide
