"""Climatological temperature, pressure and humidity of East Asia as smooth functions."""

from __future__ import annotations

import numpy as np

__all__ = ["dryness_index", "mean_humidity", "mean_temperature", "sea_level_pressure", "sun"]

_GRAVITY, _GAS = 9.80665, 287.05


def season(day: float, warmest: float = 203.0) -> float:
    """Cosine of the year: 1 on day `warmest` (22 July), -1 half a year later."""
    return float(np.cos(2 * np.pi * (day - warmest) / 365.2425))


def sun(lat: np.ndarray, solar_hour: np.ndarray, day: float) -> np.ndarray:
    """Cosine of the solar zenith angle (negative below the horizon), (H, W).

    Declination by Cooper (1969): 23.45 degrees times sin(2 pi (284 + day) / 365).
    """
    tilt = np.deg2rad(23.45) * np.sin(2 * np.pi * (284 + day) / 365.0)
    phi = np.deg2rad(lat)[:, None]
    angle = np.cos(2 * np.pi * (solar_hour - 12) / 24)[None, :]
    return np.sin(phi) * np.sin(tilt) + np.cos(phi) * np.cos(tilt) * angle


def mean_temperature(lat, elevation, land, day: float, lapse_k_per_km: float) -> np.ndarray:
    """Mean temperature of a day, K, (H, W).

    Sea-level mean and amplitude of the year are quadratics in latitude: at 19 N (Hainan) 298 K and
    5 K, in Beijing 286.9 K and 15.4 K, in Harbin 282.7 K and 18.7 K. Over sea the amplitude is 0.55
    of that over land, and as early in the year.
    """
    north = (np.asarray(lat) - 19.0)[:, None]
    mean = 298.0 - 0.38 * north - 0.0072 * north**2
    amplitude = (5.0 + 0.44 * north + 0.0027 * north**2) * np.where(land, 1.0, 0.55)
    # High ground has a smaller amplitude.
    amplitude = amplitude * (1 - 0.06 * np.minimum(elevation, 5000.0) / 1000.0)
    return mean + amplitude * season(day) - lapse_k_per_km * elevation / 1000.0


def sea_level_pressure(lat, lon, day: float) -> np.ndarray:
    """Mean sea-level pressure, Pa, (H, W): winter high over Mongolia, summer low over the land."""
    north, east = (np.asarray(lat) - 35.0)[:, None] / 15.0, (np.asarray(lon) - 105.0)[None] / 25.0
    winter = 102500.0 + 900.0 * north - 400.0 * east - 200.0 * north**2
    summer = 100250.0 - 50.0 * north + 350.0 * east
    weight = 0.5 * (1 + season(day))
    return winter * (1 - weight) + summer * weight


def surface_pressure(at_sea_level, temperature, elevation, lapse_k_per_km: float) -> np.ndarray:
    """Hypsometric equation with the mean temperature of the column below, Pa, (H, W)."""
    column = temperature + 0.5e-3 * lapse_k_per_km * elevation
    return at_sea_level * np.exp(-_GRAVITY * elevation / (_GAS * column))


def dryness_index(lat, lon) -> np.ndarray:
    """0 in the wet southeast to 1 in the deserts of the northwest, (H, W)."""
    lat, lon = np.asarray(lat)[:, None], np.asarray(lon)[None, :]
    wet = (lon - 98.0) / 22.0 - (lat - 33.0) / 14.0
    return 1 / (1 + np.exp(2.2 * (wet - 0.35)))


def mean_humidity(dry: np.ndarray, day: float) -> np.ndarray:
    """Daily mean relative humidity, %: monsoon summers where the index is between its ends."""
    monsoon = dry * (1 - dry) * np.where(dry < 0.5, 0.25 + 1.5 * dry, 1.0)
    return 78.0 - 36.0 * dry + 64.0 * monsoon * season(day, 225.0)
