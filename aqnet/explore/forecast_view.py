"""Two fields side by side with their difference, and series: forecast and truth, or two runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aqnet.errors import CoverageError
from aqnet.explore.forecasts import Forecast
from aqnet.explore.map_view import wind_key
from aqnet.explore.panels import Map, Series, View, map_shape
from aqnet.explore.world import World, clock
from aqnet.variables import TARGETS
from aqnet.verification.report.colours import DIVERGING, SEQUENTIAL
from aqnet.verification.report.wording import label, number, unit_of

__all__ = ["ForecastView", "Moment", "RunsView"]

_BEFORE_H = 48  # of a series, before the init time
_OBSERVED = {"color": "0.55", "lw": 3.0}
_FIRST = {"color": "#0072B2", "marker": "s", "ls": (0, (5, 2)), "lw": 1.5, "ms": 4.5}
_SECOND = {"color": "#D55E00", "marker": "^", "ls": "-", "lw": 1.5, "ms": 5}


@dataclass(frozen=True)
class Moment:
    """What is looked at.

    Attributes
    ----------
    init : datetime64
        Init time, UTC.
    lead_h : int
        Lead time [h].
    pollutant : str
    place : int
        Position in the places of the world.
    own_scale : bool
        Colours from the fields shown; else the same for all times.
    """

    init: np.datetime64
    lead_h: int
    pollutant: str
    place: int
    own_scale: bool = False

    @property
    def valid(self) -> np.datetime64:
        """Valid time, UTC."""
        return np.datetime64(self.init, "h") + np.timedelta64(self.lead_h, "h")


class _SideBySide(View):
    """Maps of a first and a second field and their difference, above the series of a place."""

    def __init__(self, world: World, lines: list[tuple[str, dict]]) -> None:
        super().__init__(world, (11.5, 2.7 + 4.2 / map_shape(world)))
        places = self.figure.subplot_mosaic([[0, 1, 2], [3, 3, 3]], height_ratios=(1.75, 1))
        wind = wind_key(world)
        self.first = Map(places[0], world, SEQUENTIAL, None, wind_m_s=wind)
        self.second = Map(places[1], world, SEQUENTIAL, " ", wind_m_s=wind)
        self.change = Map(places[2], world, DIVERGING, " ", extend="both")
        for panel in (self.second, self.change):
            panel.axes.set_ylabel("")
            panel.axes.tick_params(labelleft=False)
        self.rings = [panel.axes.plot([], [], "o", ms=10, mfc="none", mec="#b00020", mew=1.6)[0]
                      for panel in (self.first, self.second, self.change)]  # fmt: skip
        self.series = Series(places[3], world.utc_offset_h, lines)

    def _maps(self, moment: Moment, first: np.ndarray, second: np.ndarray, title: str) -> None:
        """Show both fields (H, W), the second minus the first, and the wind of the valid time."""
        world, name = self.world, label(moment.pollutant)
        first, second = (np.where(world.mask, x, np.nan) for x in (first, second))
        top = world.limits(moment.pollutant)[1]
        if moment.own_scale:
            top = max(1.0, *(float(np.nanmax(x)) for x in (first, second) if np.isfinite(x).any()))
        for panel, field in ((self.first, first), (self.second, second)):
            panel.field(field)
            panel.scale(0, top)
        change = second - first
        far = top / 2
        if moment.own_scale and np.isfinite(change).any():
            far = max(1.0, float(np.nanmax(np.abs(change))))
        self.change.field(change)
        self.change.scale(-far, far)
        unit = f"[{unit_of(moment.pollutant)}]"
        self.second.bar.set_label(f"{name} {unit}", fontsize=8.5)
        self.change.bar.set_label(f"difference of {name} {unit}", fontsize=8.5)
        here = world.places[moment.place]
        for ring in self.rings:
            ring.set_data([here.lon], [here.lat])
        text = f"{here.name} ({here.kind}), {name} {unit}; red line: valid time"
        self.series.axes.set_title(text, loc="left", fontsize=9)
        self.title(f"{name}, {title}valid {clock(moment.valid, world.utc_offset_h)}, "
                   f"{moment.lead_h} h after {clock(moment.init, 0).split(' =')[0]}")  # fmt: skip

    def _winds(self, moment: Moment) -> None:
        """The wind of the valid time on both maps; none where the store has none."""
        blank = np.full((2, *self.world.grid.shape), np.nan)
        uv = _or(lambda: self.world.wind(moment.valid), blank)
        for panel in (self.first, self.second):
            panel.wind(uv)

    def _hours(self, moment: Moment, leads: tuple[int, ...]) -> np.ndarray:
        step = np.arange(-_BEFORE_H, max(leads) + 1, self.world.step_h)
        return np.datetime64(moment.init, "h") + step.astype("timedelta64[h]")

    def _line(self, moment: Moment, forecast: Forecast) -> tuple[np.ndarray, np.ndarray]:
        """Valid times and values of all lead times at the place."""
        fields = forecast.all_leads(moment.init)[:, TARGETS.index(moment.pollutant)]
        leads = np.array(forecast.lead_times_h).astype("timedelta64[h]")
        return np.datetime64(moment.init, "h") + leads, self.world.at_place(moment.place, fields)

    def _observed(self, moment: Moment, leads: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        hours = self._hours(moment, leads)
        return hours, self.world.series(moment.place, moment.pollutant, hours)

    def _truth(self, moment: Moment) -> np.ndarray:
        """(H, W) at the valid time; NaN if the store ends before."""
        blank = np.full((len(TARGETS), *self.world.grid.shape), np.nan)
        return _or(lambda: self.world.truth(moment.valid), blank)[TARGETS.index(moment.pollutant)]


def _or(read: Callable[[], np.ndarray], otherwise: np.ndarray) -> np.ndarray:
    """What `read` gives, or something else where the store has no such hour."""
    try:
        return read()
    except CoverageError:
        return otherwise


def _rmse(world: World, forecast: np.ndarray, truth: np.ndarray) -> float:
    """Root of the area-weighted mean squared difference over the cells that both know."""
    error, area = (forecast - truth) ** 2, world.grid.cell_area_km2
    known = np.isfinite(error)
    return float(np.sqrt(np.average(error[known], weights=area[known]))) if known.any() else np.nan


class ForecastView(_SideBySide):
    """A forecast beside what came.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        truth = "observed" if world.has_stations else f"in the store, every {world.step_h} h"
        super().__init__(world, [(truth, _OBSERVED), ("forecast", _SECOND)])
        self.series.axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
        self._truth_name = "analysis of the stations" if world.has_stations else "truth (store)"

    def update(self, forecast: Forecast, moment: Moment) -> None:
        """Show another forecast or moment.

        Raises
        ------
        CoverageError, LeadTimeError
            There is no forecast from this init time, or not of this lead time.
        """
        field = forecast.at(moment.init, moment.lead_h, moment.pollutant)
        truth, unit = self._truth(moment), unit_of(moment.pollutant)
        self._maps(moment, truth, field, "")
        self._winds(moment)
        self.first.axes.set_title(self._truth_name, fontsize=9.5)
        self.second.axes.set_title(_short(forecast.name), fontsize=9.5)
        rmse = _rmse(self.world, np.where(self.world.mask, field, np.nan), truth)
        text = f"forecast - truth, RMSE {number(rmse)} {unit}"
        self.change.axes.set_title(text if np.isfinite(rmse) else "no truth", fontsize=9.5)
        lines = self._observed(moment, forecast.lead_times_h), self._line(moment, forecast)
        self.series.show(moment.valid, *lines)


class RunsView(_SideBySide):
    """Two forecasts from the same init time side by side, and what came.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        truth = "observed" if world.has_stations else f"in the store, every {world.step_h} h"
        super().__init__(world, [(truth, _OBSERVED), ("A", _FIRST), ("B", _SECOND)])
        self.series.axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=3)

    def update(self, first: Forecast, second: Forecast, moment: Moment) -> None:
        """Show other forecasts or another moment; errors as `ForecastView.update`."""
        a, b = (f.at(moment.init, moment.lead_h, moment.pollutant) for f in (first, second))
        self._maps(moment, a, b, "two forecasts, ")
        self._winds(moment)
        truth, unit = self._truth(moment), unit_of(moment.pollutant)
        for panel, name, forecast, field in (
            (self.first, "A", first, a), (self.second, "B", second, b)
        ):  # fmt: skip
            rmse = number(_rmse(self.world, np.where(self.world.mask, field, np.nan), truth))
            panel.axes.set_title(f"{name}: {_short(forecast.name)}\nRMSE {rmse} {unit}",
                                 fontsize=8.5)  # fmt: skip
        self.change.axes.set_title("B - A", fontsize=9.5)
        leads = tuple(sorted({*first.lead_times_h, *second.lead_times_h}))
        lines = self._line(moment, first), self._line(moment, second)
        self.series.show(moment.valid, self._observed(moment, leads), *lines)


def _short(name: str) -> str:
    """A name that fits above a map."""
    return name if len(name) <= 38 else f"{name[:35]}..."
