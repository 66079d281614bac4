"""A variable of one hour on the map, with the wind, and its series at a place."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Colormap

from aqnet.explore.panels import UNKNOWN, Map, Series, View, map_shape
from aqnet.explore.world import World, clock
from aqnet.variables import DYNAMIC, TARGETS, VARIABLES
from aqnet.verification.report.colours import SEQUENTIAL
from aqnet.verification.report.wording import label, unit_of

__all__ = ["MapView", "wind_key"]

_DAYS = 3  # of the series, before and after
_WEATHER = {"temp": "magma", "rh": "YlGnBu", "psfc": "cividis"}


def wind_key(world: World) -> float:
    """Speed [m/s] of the arrow of a map's key: near the strongest of all times."""
    return float(np.ceil(max(1.0, *(world.limits(name)[1] for name in ("u", "v")))))


class MapView(View):
    """Map and series.

    Parameters
    ----------
    world : World
    """

    variables = (*TARGETS, *_WEATHER)

    def __init__(self, world: World) -> None:
        super().__init__(world, (11.0, 4.9))
        left, right = self.figure.subplots(1, 2, width_ratios=(map_shape(world), 1))
        self.map = Map(left, world, SEQUENTIAL, " ", wind_m_s=wind_key(world))
        self._withheld = np.array([p.kind == "withheld station" for p in world.places])
        self.marks = [self._scatter(left, ~self._withheld, "o"),
                      self._scatter(left, self._withheld, "s")]  # fmt: skip
        (self.ring,) = left.plot([], [], "o", ms=13, mfc="none", mec="#b00020", mew=1.8, zorder=6)
        name = "observed" if world.has_stations else f"in the cell, every {world.step_h} h"
        self.series = Series(right, world.utc_offset_h, [(name, {"color": "#0072B2", "lw": 1.2})])
        right.legend(loc="upper left", frameon=False, fontsize=8)

    def _scatter(self, axes: Axes, which: np.ndarray, marker: str) -> PathCollection:
        lat, lon = ([getattr(p, name) for p in self.world.places] for name in ("lat", "lon"))
        return axes.scatter(
            np.array(lon)[which], np.array(lat)[which], c=np.full(which.sum(), np.nan), s=34,
            marker=marker, norm=self.map.image.norm, cmap=SEQUENTIAL, edgecolors="black",
            linewidths=0.9, zorder=5, plotnonfinite=True,
        )  # fmt: skip

    def update(
        self, variable: str, time: np.datetime64, place: int, own_scale: bool = False
    ) -> None:
        """Show another variable, hour or place.

        Parameters
        ----------
        variable : str
            One of `variables`.
        time : datetime64
            UTC, end of the averaging hour.
        place : int
            Position in the places of the world.
        own_scale : bool
            Colours from this hour alone; else the same for all times.
        """
        world, about = self.world, VARIABLES[variable]
        time = np.datetime64(time, "h")
        field = np.where(world.mask, world.hour(time)[DYNAMIC.index(variable)], np.nan)
        self.map.field(field)
        self.map.wind(world.wind(time))
        self.map.image.set_cmap(_cmap(variable))
        own = own_scale and np.isfinite(field).any()
        self.map.scale(*((np.nanmin(field), np.nanmax(field)) if own else world.limits(variable)))
        self.map.bar.set_label(f"{label(variable) if about.is_target else about.long_name} "
                               f"[{about.unit}]", fontsize=8.5)  # fmt: skip
        self._mark_places(variable, time)
        self._show_series(variable if variable in TARGETS else "pm25", time, place)
        what = "analysis of the stations" if world.has_stations else "fields of the store"
        gap = "" if np.isfinite(field).any() else "; NO DATA at this hour"
        self.title(f"{about.long_name} and wind, mean of the hour that ends at "
                   f"{clock(time, world.utc_offset_h)}; {what}{gap}")  # fmt: skip

    def _mark_places(self, variable: str, time: np.datetime64) -> None:
        """Stations in the colour of what they observed; the others are left open."""
        observed = np.full(len(self.world.places), np.nan)
        if self.world.has_stations and variable in TARGETS:
            hour = np.array([time])
            observed[:] = [self.world.series(i, variable, hour)[0] for i in range(len(observed))]
        for marks, which in zip(self.marks, (~self._withheld, self._withheld), strict=True):
            marks.set_array(np.ma.masked_invalid(observed[which]))

    def _show_series(self, pollutant: str, time: np.datetime64, place: int) -> None:
        world, here = self.world, self.world.places[place]
        self.ring.set_data([here.lon], [here.lat])
        hours = time + np.arange(-24 * _DAYS, 24 * _DAYS + 1, world.step_h).astype("timedelta64[h]")
        self.series.show(time, (hours, world.series(place, pollutant, hours)))
        self.series.axes.set_title(f"{here.name} ({here.kind}), {label(pollutant)} "
                                   f"[{unit_of(pollutant)}]", loc="left", fontsize=9.5)  # fmt: skip


def _cmap(variable: str) -> Colormap:
    """Map of a variable with what is unknown in grey."""
    return colormaps[_WEATHER.get(variable, SEQUENTIAL)].with_extremes(bad=UNKNOWN)
