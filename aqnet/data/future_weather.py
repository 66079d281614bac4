"""Weather at the valid time: whose stores may give it, and what batches must say of it."""

from __future__ import annotations

import numpy as np

from aqnet.data.years.year_set import YearSet
from aqnet.errors import SampleError, explain
from aqnet.variables import DYNAMIC, VARIABLES

__all__ = ["WEATHER", "check_weather", "weather_provenance"]

WEATHER = tuple(n for n in DYNAMIC if not VARIABLES[n].is_target)  # u, v, temp, rh, psfc
assert DYNAMIC[: len(WEATHER)] == WEATHER  # relied upon where it is normalised


def weather_provenance(years: YearSet, weather: YearSet | None) -> str:
    """What weather at the valid time is, to be stamped on whatever is made with it.

    "none"; "forecast weather: TITLE" for stores whose recipe says `weather_kind: forecast` in its
    settings; for all others "perfect weather: TITLE", for nobody knew it at the init time.
    """
    if weather is None:
        return "none"
    kinds = {s.attributes["recipe"].get("settings", {}).get("weather_kind") for s in weather.stores}
    forecast = kinds == {"forecast"} and weather.digest != years.digest
    kind = "forecast weather" if forecast else "perfect weather"
    return f"{kind}: {'; '.join(store.attributes['title'] for store in weather.stores)}"


def check_weather(years: YearSet, weather: YearSet | None) -> None:
    """Raise SampleError unless the weather, if any, has the grid and the mask of the fields."""
    if weather is None:
        return
    same = (weather.grid.digest == years.grid.digest, np.array_equal(weather.mask, years.mask))
    if not all(same):
        message = explain(
            "the weather does not fit the fields",
            expected=f"grid {years.grid.name} and its mask",
            found=f"grid {weather.grid.name}; same grid: {same[0]}, same mask: {same[1]}",
            remedy="bring the weather onto the grid and mask of the fields",
        )
        raise SampleError(message)
