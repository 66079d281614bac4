"""How long a view takes to follow a control: what is read, what is drawn, the picture."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aqnet.errors import CoverageError
from aqnet.explore.attention import footprints_of_run, prior_footprints
from aqnet.explore.footprint_view import MEAN, FootprintView
from aqnet.explore.forecast_view import ForecastView, Moment, RunsView
from aqnet.explore.forecasts import Forecast, open_forecast
from aqnet.explore.map_view import MapView
from aqnet.explore.panels import View
from aqnet.explore.scan_view import ScanView
from aqnet.explore.world import World
from aqnet.variables import TARGETS

__all__ = ["Redraw", "redraw_times"]


@dataclass(frozen=True)
class Redraw:
    """Times of the redraws of a view [s].

    Attributes
    ----------
    view : str
    seconds : (n,)
        From the change of a control to the bytes of the picture.
    drawing : (n,)
        Of these, for drawing and packing the picture.
    """

    view: str
    seconds: np.ndarray
    drawing: np.ndarray


def redraw_times(
    world: World, first: str, second: str, repeats: int, seed: int = 0
) -> list[Redraw]:
    """Redraws of all views after jumps to random hours, variables and places.

    Parameters
    ----------
    world : World
    first, second : str
        Sources of forecasts, see `open_forecast`. The second one is that of the view of a forecast
        and, if it is a run, of the footprints.
    repeats : int
        Of each view, after one that is not counted: it computes the layout.
    seed : int
    """
    rng = np.random.default_rng(seed)
    changes = _changes(world, open_forecast(world, first), open_forecast(world, second), rng)
    found = []
    for name, (view, change) in changes.items():
        hours = (world.times[row] for row in rng.permutation(len(world.times)))
        measured = (_measured(view, change, hour) for hour in hours)
        times = np.array(list(itertools.islice(filter(None, measured), repeats + 1)))
        found.append(Redraw(name, *times[1:].T))
    return found


def _changes(
    world: World, a: Forecast, b: Forecast, rng: np.random.Generator
) -> dict[str, tuple[View, Callable[[View, np.datetime64], None]]]:
    """Each view, and what shows an hour in it, with the other choices at random."""
    prints = prior_footprints(world) if b.model is None else footprints_of_run(b)
    at = world.grid.patches(2)
    bands = tuple(max(1, n // 2) for n in at.shape)

    def place() -> int:
        return int(rng.integers(len(world.places)))

    def moment(hour: np.datetime64) -> Moment:
        lead = min(set(a.lead_times_h) & set(b.lead_times_h))
        return Moment(hour, lead, str(rng.choice(TARGETS)), place())

    def look(view: FootprintView, hour: np.datetime64) -> None:
        centre = rng.choice(at.lat), rng.choice(at.lon)
        lead = rng.choice(prints.lead_times_h or (0,))
        view.update(prints, hour, centre, prints.parts[-1], MEAN, int(lead))

    return {
        "map": (MapView(world), lambda v, t: v.update(str(rng.choice(v.variables)), t, place())),
        "scan": (
            ScanView(world, 2, bands, 3),
            lambda v, t: v.update(t, str(rng.choice(v.kinds)), float(rng.uniform(0.1, 1))),
        ),
        "footprint": (FootprintView(world), look),
        "forecast": (ForecastView(world), lambda v, t: v.update(b, moment(t))),
        "two runs": (RunsView(world), lambda v, t: v.update(a, b, moment(t))),
    }


def _measured(view: View, change: Callable, hour: np.datetime64) -> tuple[float, float] | None:
    """Seconds in all and of drawing; None if there is no forecast from this hour."""
    started = time.perf_counter()
    try:
        change(view, hour)
    except CoverageError:
        return None
    drawn = time.perf_counter()
    view.png()
    ended = time.perf_counter()
    return ended - started, ended - drawn
