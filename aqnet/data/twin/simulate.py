"""The simulation, hour by hour, with a ledger of where every pollutant came from and went."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin.chemistry import react, remove
from aqnet.data.twin.config import TwinConfig
from aqnet.data.twin.emissions import Emissions
from aqnet.data.twin.mixing import surface_concentrations
from aqnet.data.twin.tracers import TRACERS, background_amount
from aqnet.data.twin.transport import Transport
from aqnet.data.twin.weather import HourWeather, Weather
from aqnet.data.twin.world import World, build_world
from aqnet.data.years.format import year_times
from aqnet.grid import local_solar_hour
from aqnet.io import sha256_json
from aqnet.variables import DYNAMIC

__all__ = ["LEDGER", "Simulation", "hour_number"]

LEDGER = ("emission", "transport", "reactions", "deposition", "washout", "venting")
_HOUR_S = 3600.0


def hour_number(time: np.datetime64) -> int:
    """Hours since 1970-01-01 UTC."""
    return int(np.datetime64(time, "h").astype(np.int64))


class Simulation:
    """A world of the twin in time.

    Starts `spin_up_days` before the first hour of `first_year`, with background air everywhere.

    Attributes
    ----------
    hour : int
        End of the last simulated hour, hours since 1970-01-01 UTC.
    amount : numpy.ndarray, float32, shape (6, H, W)
        State: `TRACERS` in ug/m2, rows south to north.
    ledger : dict of str to numpy.ndarray, float64, shape (6,)
        What each process of `LEDGER` added since the start or `reset_ledger`, ug.
    """

    def __init__(self, config: TwinConfig):
        self.config = config
        self.world: World = build_world(config)
        self.weather = Weather(config, self.world)
        self._written_wind = self._other_wind()
        self.emissions = Emissions(config, self.world)
        self.transport = Transport(self.world.geometry, background_amount())
        first = hour_number(year_times(config.first_year, config.utc_offset_h)[0])
        self.hour = first - 1 - 24 * config.spin_up_days
        outside = background_amount()[:, None, None]
        self.amount = np.repeat(outside, self.world.geometry.shape[0], axis=1)
        self.amount = np.repeat(self.amount, self.world.geometry.shape[1], axis=2)
        self._area = self.world.geometry.area
        self._diffusion = _FaceDiffusion(config, self.world)
        self.reset_ledger()

    def _other_wind(self) -> Weather:
        """Weather whose wind is written."""
        seed = self.config.written_wind_seed
        if seed is None:
            return self.weather
        return Weather(self.config.model_copy(update={"weather_seed": seed}), self.world)

    def reset_ledger(self) -> None:
        """Start the ledger anew."""
        self.ledger = {name: np.zeros(len(TRACERS)) for name in LEDGER}

    def totals(self) -> np.ndarray:
        """Amounts in the domain, ug, (6,)."""
        return self._sum(self.amount)

    def _sum(self, field: np.ndarray) -> np.ndarray:
        return np.einsum("nhw,hw->n", field, self._area, dtype=np.float64)

    # ---- time

    def step(self) -> np.ndarray:
        """Simulate the next hour.

        Returns
        -------
        numpy.ndarray, float32, shape (11, H, W)
            Means of the hour, `DYNAMIC` in lexicon units, in the orientation of the grid.
        """
        weather = self.weather.at(self.hour + 0.5)
        before = self.amount.copy()
        self._carry(weather)
        emission = self._transform(weather)
        self.hour += 1
        mean = 0.5 * (before + self.amount)
        surface = surface_concentrations(mean, emission, weather, self.config.mixing)
        return self._written(surface, weather)

    def _carry(self, weather: HourWeather) -> None:
        strength = self.config.transport
        if strength == 0:
            return
        flux = weather.flux_x * strength, weather.flux_y * strength
        self.ledger["transport"] += self.transport.advect(self.amount, *flux, _HOUR_S)
        faces = self._diffusion.at(weather)
        self.transport.diffuse(self.amount, *(strength * k for k in faces), _HOUR_S)

    def _transform(self, weather: HourWeather) -> np.ndarray:
        """Emission, reactions and removal of the hour; returns the emission, ug/m2/s."""
        time = np.datetime64(self.hour, "h") + np.timedelta64(30, "m")
        solar = local_solar_hour(time, self.world.geometry.lon)
        emission = self.emissions.at(time, solar, weather)
        added = emission * np.float32(_HOUR_S)
        self.amount += added
        self.ledger["emission"] += self._sum(added)
        if self.config.reactions:
            change = react(self.amount, emission, weather, self.config)
            self.ledger["reactions"] += self._sum(change)
        if self.config.sinks:
            day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D") + 1.0
            for name, change in zip(
                LEDGER[3:], remove(self.amount, weather, self.config, day), strict=True
            ):
                self.ledger[name] += self._sum(change)
        return emission

    def _written(self, surface: np.ndarray, weather: HourWeather) -> np.ndarray:
        fields = dict(zip(TRACERS, surface, strict=True))
        fields["pm10"] = fields["pm25"] + fields["coarse"]
        fields |= {name: getattr(weather, name) for name in ("u", "v", "temp", "rh", "psfc")}
        if self._written_wind is not self.weather:
            seen = self._written_wind.at(self.hour - 0.5)  # the hour that has just been simulated
            fields |= {"u": seen.u, "v": seen.v}
        return self.world.to_grid(np.stack([fields[name] for name in DYNAMIC]))

    # ---- state between runs

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration, 64 hexadecimal digits."""
        return sha256_json(self.config.model_dump(mode="json"))

    def state(self) -> dict[str, np.ndarray]:
        """What is needed to continue."""
        return {"hour": np.int64(self.hour), "amount": self.amount,
                "config": np.array(self.digest)}  # fmt: skip


class _FaceDiffusion:
    """Diffusivity at the faces, m2/s, small where the terrain step exceeds the mixing depth."""

    def __init__(self, config: TwinConfig, world: World):
        self._largest = config.terrain.diffusivity_m2_s
        self._blocking = config.blocking
        length = config.terrain.length_km * 1e3
        geometry = world.geometry
        step_x, step_y = geometry.face_steps(world.elevation)
        self._squares = (
            ((step_x * length / geometry.dx) ** 2).astype(np.float32),
            ((step_y * length / geometry.dy) ** 2).astype(np.float32),
        )

    def at(self, weather: HourWeather) -> tuple[np.ndarray, np.ndarray]:
        square = weather.depth**2
        deep_x = np.pad(0.5 * (square[:, 1:] + square[:, :-1]), ((0, 0), (1, 1)), "edge")
        deep_y = np.pad(0.5 * (square[1:] + square[:-1]), ((1, 1), (0, 0)), "edge")
        return tuple(
            self._largest * (1 - self._blocking * (1 - np.exp(-step / deep)))
            for step, deep in zip(self._squares, (deep_x, deep_y), strict=True)
        )
