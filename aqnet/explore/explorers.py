"""The explorers of `nbs/explore`: a view and its controls, ready to be shown in JupyterLab."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from aqnet.explore.attention import Footprints, footprints_of_run, prior_footprints
from aqnet.explore.controls import (
    Explorer,
    TimeControl,
    choice,
    own_scale,
    place_choice,
    pollutant_choice,
    slider,
)
from aqnet.explore.footprint_view import MEAN, FootprintView
from aqnet.explore.forecast_view import ForecastView, Moment, RunsView
from aqnet.explore.forecasts import Forecast, open_forecast
from aqnet.explore.map_view import MapView
from aqnet.explore.scan_view import ScanView
from aqnet.explore.world import World
from aqnet.variables import LEAD_TIMES_H, TARGETS, VARIABLES
from aqnet.verification.report.wording import label

__all__ = [
    "explore_footprint",
    "explore_forecast",
    "explore_map",
    "explore_runs",
    "explore_scan",
]

PRIOR = "before learning"


def explore_map(world: World, time: str, variable: str = "pm25") -> Explorer:
    """Map of a variable with wind; `time` in UTC, such as "2016-12-20T12"."""
    view = MapView(world)
    names = [(label(n) if n in TARGETS else VARIABLES[n].long_name, n) for n in view.variables]
    what, place, own = choice("variable", names, variable), place_choice(world), own_scale()
    when = TimeControl(world, time, "hour ending")
    return Explorer(
        view, [[what, place, own], [when]],
        lambda: view.update(what.value, when.hour, place.value, own.value),
    )  # fmt: skip


def explore_scan(
    world: World, time: str, patch: int = 2, regions: Sequence[int] | None = None,
    lane_patches: int = 3,
) -> Explorer:  # fmt: skip
    """Order of the patches along the wind; `regions` None: each of 2 x 2 patches."""
    shape = world.grid.patches(patch).shape
    bands = tuple(regions) if regions else tuple(max(1, n // 2) for n in shape)
    view = ScanView(world, patch, bands, lane_patches)
    kind, share = choice("order", view.kinds, "region"), slider("share read [1]", 1, 0.02, 1, 0.02)
    when = TimeControl(world, time, "hour ending")
    return Explorer(
        view, [[kind, share], [when]], lambda: view.update(when.hour, kind.value, share.value)
    )


def explore_footprint(
    world: World, time: str, names: Sequence[str], patch: int = 2,
    sigma_km: float | None = None, travel_h: float | None = None,
) -> Explorer:  # fmt: skip
    """Footprint of a patch before learning, and of the runs `names`; see `prior_footprints`."""
    view, open_ = FootprintView(world), _Opened(world)
    made: dict[str, Footprints] = {PRIOR: prior_footprints(world, patch, sigma_km, travel_h)}
    of, part = choice("of", [PRIOR, *names], width="420px"), choice("part", ["-"])
    head, lead = choice("head", [MEAN], width="210px"), choice("lead [h]", [0], width="150px")
    place, (lat, lon) = place_choice(world), _position(world, patch)
    when = TimeControl(world, time, "hour ending")

    gone_to: list[int] = []

    def go() -> None:
        if gone_to != [place.value]:
            gone_to[:] = [place.value]
            here = world.places[place.value]
            lat.value, lon.value = here.lat, here.lon

    def update() -> None:
        go()  # here, where a change of controls does not draw again
        if of.value not in made:
            made[of.value] = footprints_of_run(open_(of.value))
        found = made[of.value]
        _offer(part, found.parts)
        _offer(head, [MEAN, *map(str, range(1, found.heads + 1))] if found.heads > 1 else [MEAN])
        _offer(lead, found.lead_times_h or [0])
        lead.layout.display = None if found.lead_times_h else "none"
        view.update(found, when.hour, (lat.value, lon.value), part.value, head.value, lead.value)

    return Explorer(view, [[of, part, head, lead], [place, lat, lon], [when]], update)


def explore_forecast(
    world: World, time: str, names: Sequence[str], pollutant: str = "pm25"
) -> Explorer:
    """A forecast beside the truth; `names`: see `sources`; `time`: the init time, UTC."""
    view, open_ = ForecastView(world), _Opened(world)
    of, moment = choice("forecast", names, width="460px"), _Moments(world, time, pollutant)

    def update() -> None:
        forecast = open_(of.value)
        view.update(forecast, moment.of(forecast))

    return Explorer(view, [[of], *moment.rows], update)


def explore_runs(
    world: World, time: str, names: Sequence[str], pollutant: str = "pm25"
) -> Explorer:
    """Two forecasts side by side; arguments as `explore_forecast`, two names at least."""
    view, open_ = RunsView(world), _Opened(world)
    a, b = choice("A", names, width="460px"), choice("B", names, names[1], "460px")
    moment = _Moments(world, time, pollutant)

    def update() -> None:
        both = open_(a.value), open_(b.value)
        view.update(*both, moment.of(*both))

    return Explorer(view, [[a, b], *moment.rows], update)


# ---- parts


class _Opened:
    """Forecasts by the name of their source, opened when they are first looked at."""

    def __init__(self, world: World) -> None:
        self.world, self.held = world, {}

    def __call__(self, name: str) -> Forecast:
        if name not in self.held:
            self.held[name] = open_forecast(self.world, name)
        return self.held[name]


class _Moments:
    """Controls of a `Moment`."""

    def __init__(self, world: World, time: str, pollutant: str) -> None:
        self.pollutant, self.place, self.own = (
            pollutant_choice(pollutant), place_choice(world), own_scale()
        )  # fmt: skip
        self.lead = choice("lead [h]", LEAD_TIMES_H, 24, "150px")
        self.time = TimeControl(world, time, "init")
        self.rows = [[self.pollutant, self.lead, self.place, self.own], [self.time]]

    def of(self, *forecasts: Forecast) -> Moment:
        """What the controls say; offers the lead times that all forecasts have."""
        common = set.intersection(*(set(f.lead_times_h) for f in forecasts))
        _offer(self.lead, sorted(common) or forecasts[0].lead_times_h)
        return Moment(self.time.hour, self.lead.value, self.pollutant.value, self.place.value,
                      self.own.value)  # fmt: skip


def _offer(control: widgets.Dropdown, options: Sequence) -> None:
    """Other options; the value stays if it is among them."""
    if tuple(options) != tuple(control.options):
        before = control.value
        control.options = tuple(options)
        if before in options:
            control.value = before


def _position(world: World, patch: int) -> tuple[widgets.FloatSlider, widgets.FloatSlider]:
    """Sliders of latitude and longitude over the centres of the patches, one a step."""
    at = world.grid.patches(patch)
    return tuple(
        slider(name, float(axis.mean()), float(axis.min()), float(axis.max()),
               float(abs(axis[1] - axis[0])))
        for name, axis in (("latitude [deg N]", at.lat), ("longitude [deg E]", at.lon))
    )  # fmt: skip
