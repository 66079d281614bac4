"""Reactions, deposition, rain and exchange with the air above, an hour at a time."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin import climate
from aqnet.data.twin.config import ChemistryConfig, TwinConfig
from aqnet.data.twin.tracers import BACKGROUND, LAYER_M, TRACERS, background_amount
from aqnet.data.twin.weather import HourWeather

__all__ = ["ozone_background", "react", "remove"]

PM25, COARSE, SO2, NO2, CO, O3 = range(len(TRACERS))
# Molar masses: (NH4)2SO4 of SO2 is 132.1 / 64.1, NH4NO3 of NO2 is 80.0 / 46.0.
_SULPHATE, _NITRATE = 132.1 / 64.1, 80.0 / 46.0
_WASHED = np.array([1.0, 1.0, 0.5, 0.2, 0.0, 0.1], dtype=np.float32)  # relative to particles


def ozone_background(day: float) -> float:
    """Ozone of the air above and outside, ug/m3: highest in late spring."""
    return BACKGROUND["o3"] + 18.0 * climate.season(day, 150.0)


def react(amount: np.ndarray, emission: np.ndarray, weather: HourWeather, config: TwinConfig):
    """One hour of chemistry, in place.

    SO2 becomes ammonium sulphate, faster in humid air; NO2 becomes nitric acid by day and by
    night, and ammonium nitrate as far as it is cold; CO oxidises; ozone is produced by light and
    NO2 in warm air with saturating yield, and titrated by fresh emissions.

    Parameters
    ----------
    amount : array, shape (6, H, W), float32
        ug/m2, changed.
    emission : array, shape (6, H, W)
        ug/m2/s.

    Returns
    -------
    numpy.ndarray, float32, shape (6, H, W)
        What the reactions added, ug/m2.
    """
    rates, light, depth = config.chemistry, weather.sunlight, weather.day_depth
    before = amount.copy()
    humid = np.clip((weather.rh - 60.0) / 40.0, 0.0, 1.0) ** 2
    lost = -np.expm1(-(rates.so2_oxidation * (0.5 + light) + rates.so2_oxidation_humid * humid))
    sulphate = amount[SO2] * lost
    amount[SO2] -= sulphate
    amount[PM25] += np.float32(_SULPHATE) * sulphate
    lost = -np.expm1(-(rates.no2_day * light + rates.no2_night * (light <= 0)))
    nitric = amount[NO2] * lost
    amount[NO2] -= nitric
    cold = 1 / (1 + np.exp((weather.temp - 288.0) / 6.0))
    amount[PM25] += np.float32(_NITRATE * rates.nitrate_yield) * cold * nitric
    amount[CO] *= np.float32(np.exp(-rates.co_loss))
    amount[O3] += _ozone(amount, emission, weather, rates, depth)
    np.maximum(amount[O3], 0, out=amount[O3])
    return amount - before


def _ozone(amount, emission, weather, rates: ChemistryConfig, depth) -> np.ndarray:
    """Net change of ozone in an hour, ug/m2."""
    no2 = amount[NO2] / depth
    warm = np.exp(np.clip((weather.temp - 298.0) / 22.0, -4.0, 0.8))
    # Too much NO2 takes the radicals that make ozone: the yield falls again above 4 half-values.
    ratio = no2 / np.float32(rates.ozone_half_no2)
    produced = (
        rates.ozone_production * weather.sunlight * warm * ratio / (1 + ratio + (ratio / 4.0) ** 2)
    )
    ozone = amount[O3] / np.float32(LAYER_M)
    titrated = rates.titration * 3600.0 * emission[NO2] / depth * ozone / (ozone + 30.0)
    change = (produced - titrated) * np.float32(LAYER_M)
    return np.maximum(change, -0.9 * amount[O3]).astype(np.float32)


def remove(amount: np.ndarray, weather: HourWeather, config: TwinConfig, day: float):
    """One hour of deposition, rain and exchange with the air above, in place.

    Returns
    -------
    deposition, washout, venting : numpy.ndarray, float32, shape (6, H, W)
        What each added (negative: removed), ug/m2. Exchange with the air above tends to the
        background and may bring in.
    """
    rates = config.chemistry
    speeds = [rates.deposition_pm_mm_s, rates.deposition_coarse_mm_s, rates.deposition_so2_mm_s,
              rates.deposition_no2_mm_s, 0.0, rates.deposition_o3_mm_s]  # fmt: skip
    contact = 3600.0 * 1e-3 * (1 - 0.7 * weather.stable) / weather.day_depth
    dry = np.float32(speeds)[:, None, None] * contact.astype(np.float32)
    wet = _WASHED[:, None, None] * (rates.washout * weather.rain**0.75).astype(np.float32)
    total = dry + wet
    share = -np.expm1(-total)
    gone = amount * share
    amount -= gone
    with np.errstate(invalid="ignore", divide="ignore"):
        by_rain = np.where(total > 0, wet / total, 0) * gone
    outside = background_amount()
    outside[O3] = ozone_background(day) * LAYER_M
    rate = rates.venting * weather.depth / 1000.0
    exchanged = np.repeat(-np.expm1(-rate)[None], len(TRACERS), axis=0)
    exchanged[O3] += np.float32(rates.ozone_loss)
    exchanged *= outside[:, None, None] - amount
    amount += exchanged
    return by_rain - gone, -by_rain, exchanged
