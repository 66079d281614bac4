"""The pollutants that the twin carries, and what surrounds its domain."""

from __future__ import annotations

import numpy as np

__all__ = ["BACKGROUND", "LAYER_M", "TRACERS", "background_amount"]

# Amounts per area, ug/m2. PM10 is pm25 + coarse; no2 stands for NO2 with what it exchanges with.
TRACERS = ("pm25", "coarse", "so2", "no2", "co", "o3")
LAYER_M = 1000.0  # depth that the background fills
# Concentration of air that comes in, ug/m3; ozone is the mean of the year, see `chemistry`.
BACKGROUND = {"pm25": 6.0, "coarse": 4.0, "so2": 0.6, "no2": 1.0, "co": 150.0, "o3": 60.0}


def background_amount() -> np.ndarray:
    """Background amounts per area, ug/m2, (6,) float32, in the order of `TRACERS`."""
    return np.array([BACKGROUND[name] * LAYER_M for name in TRACERS], dtype=np.float32)
