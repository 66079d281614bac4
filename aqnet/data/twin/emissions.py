"""What is emitted, by people, hour, weekday, season and cold; and dust raised by wind."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin.climate import dryness_index
from aqnet.data.twin.config import TwinConfig
from aqnet.data.twin.tracers import TRACERS
from aqnet.data.twin.weather import HourWeather
from aqnet.data.twin.world import World, correlated_noise

__all__ = ["Emissions", "activity"]

# How far a day's activity shows in the emission of a tracer, 0 to 1.
_RHYTHM = {"pm25": 0.5, "coarse": 0.8, "so2": 0.3, "no2": 1.0, "co": 0.6}
_DUST_FINE = 0.12  # share of PM2.5 in raised dust


def _raw_activity(hour: np.ndarray) -> np.ndarray:
    def peak(centre, width):
        distance = np.abs(np.mod(hour - centre + 12.0, 24.0) - 12.0)
        return np.exp(-((distance / width) ** 2))

    return 0.5 + 0.7 * peak(8.0, 2.5) + 0.8 * peak(18.5, 3.5) + 0.4 * peak(13.0, 3.5)


def activity(hour: np.ndarray) -> np.ndarray:
    """Relative activity of people at a local solar hour; its mean over the day is 1."""
    return _raw_activity(np.asarray(hour)) / _raw_activity(np.arange(0, 24, 0.25)).mean()


class Emissions:
    """Emission fields of a world.

    Parameters
    ----------
    config : TwinConfig
    world : World
    """

    def __init__(self, config: TwinConfig, world: World):
        self._config, self._world = config, world
        settings, geometry = config.emission, world.geometry
        people = (world.population / 1000.0) ** settings.population_power
        noise = correlated_noise(geometry, settings.industrial_length_km, config.emission_seed, 21)
        spread = settings.industrial_spread
        industry = np.exp(spread * noise - 0.5 * spread**2)
        share = settings.industrial_share
        self.base = (people * (1 - share + share * industry)).astype(np.float32)
        dry = dryness_index(geometry.lat, geometry.lon)
        bare = 1 / (1 + np.exp(-(dry - 0.8) / 0.04)) * np.exp(-world.population / 20.0)
        self._bare = (bare * world.land).astype(np.float32)
        self._north = 1 / (1 + np.exp(-(geometry.lat - 33.5)[:, None] / 0.8))

    def _heating(self, day: float, temp: np.ndarray) -> np.ndarray:
        """Heating north of 33.5 N, 15 November to 15 March, more when it is cold; 1 at 273 K."""
        away = abs((day - 15.0 + 182.6) % 365.2425 - 182.6)  # days from mid-January
        on = 1 / (1 + np.exp((away - 60.0) / 4.0))
        return (on * self._north * np.clip((291.0 - temp) / 18.0, 0.0, 2.0)).astype(np.float32)

    def at(self, time_utc: np.datetime64, solar_hour, weather: HourWeather) -> np.ndarray:
        """Emission, ug/m2/s, (6, H, W) float32 in the order of `TRACERS`.

        Parameters
        ----------
        time_utc : datetime64
            Middle of the hour.
        solar_hour : array, shape (W,)
            Local solar hour of the columns.
        """
        settings = self._config.emission
        local = time_utc + np.timedelta64(self._config.utc_offset_h, "h")
        day = (local - local.astype("datetime64[Y]")) / np.timedelta64(1, "D") + 1.0
        weekday = (local.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 0 is Monday
        rhythm = activity(solar_hour) - 1.0
        heating = self._heating(day, weather.temp)
        extra = {"so2": settings.heating_so2, "co": settings.heating_co,
                 "pm25": settings.heating_pm, "no2": settings.heating_no2}  # fmt: skip
        result = np.zeros((len(TRACERS), *self.base.shape), dtype=np.float32)
        if not self._config.sources:
            return result
        for index, name in enumerate(TRACERS[:5]):
            level = getattr(settings, name) * (settings.weekend if weekday >= 5 else 1.0)
            by_hour = (level * (1 + _RHYTHM[name] * rhythm)).astype(np.float32)
            np.multiply(self.base, by_hour[None, :], out=result[index])
            if name in extra:
                result[index] *= 1 + np.float32(extra[name]) * heating
        dust = self._dust(weather)
        result[TRACERS.index("coarse")] += (1 - _DUST_FINE) * dust
        result[TRACERS.index("pm25")] += _DUST_FINE * dust
        return result

    def _dust(self, weather: HourWeather) -> np.ndarray:
        """Dust flux: cubic in the surface wind above a threshold (Gillette and Passi, 1988)."""
        settings = self._config.emission
        speed = np.hypot(weather.u, weather.v)
        lift = np.maximum(speed - np.float32(settings.dust_threshold_m_s), 0) * speed**2
        unfrozen = np.clip((weather.temp - 268.0) / 10.0, 0.0, 1.0)
        return np.float32(settings.dust) * self._bare * lift * unfrozen
