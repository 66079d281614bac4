"""From amounts in the layer to concentrations at the surface, through the mixing depth."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin.config import MixingConfig
from aqnet.data.twin.tracers import LAYER_M, TRACERS, background_amount
from aqnet.data.twin.weather import HourWeather

__all__ = ["surface_concentrations"]

_OZONE, _NO2 = TRACERS.index("o3"), TRACERS.index("no2")
_NIGHT_OZONE = 0.68  # share of ozone that calm, stable nights take away at the ground


def surface_concentrations(amount, emission, weather: HourWeather, config: MixingConfig):
    """Concentrations near the ground, ug/m3, (6, H, W) float32 in the order of `TRACERS`.

    What exceeds the background is spread over the mixing depth (the day's, weighted with the
    hour's: air mixed in the afternoon stays mixed). Fresh emissions stay near the ground as far
    as it is stable: emission times a resistance. Ozone fills the layer whatever its depth; calm
    nights and fresh emissions take it away at the ground.

    Parameters
    ----------
    amount : array, shape (6, H, W)
        ug/m2.
    emission : array, shape (6, H, W)
        ug/m2/s.
    """
    outside = background_amount()[:, None, None]
    depth = config.day_weight * weather.day_depth + (1 - config.day_weight) * weather.depth
    depth = np.maximum(depth, np.float32(config.floor_m))
    fresh = emission * (np.float32(config.surface_resistance_s_m) * weather.stable)
    result = np.minimum(amount, outside) / np.float32(LAYER_M)
    result += np.maximum(amount - outside, 0) / depth
    result += fresh
    ozone = amount[_OZONE] / np.float32(LAYER_M) * (1 - np.float32(_NIGHT_OZONE) * weather.stable)
    result[_OZONE] = ozone * ozone / (ozone + 1.5 * fresh[_NO2] + 1.0)
    return result
