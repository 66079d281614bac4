"""An episode at stations: series at the worst ones, and the fields of the forecast at its peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from aqnet.data.geography import BORDER_CREDIT, outlines
from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.variables import TARGETS
from aqnet.verification.report.colours import SEQUENTIAL
from aqnet.verification.report.episodes import AFTER_H, BEFORE_H, Shown, local_hour, worst_day
from aqnet.verification.report.page import Section, Text, picture
from aqnet.verification.report.series import StationSeries, draw_station_series
from aqnet.verification.report.style import edges, upper_limit
from aqnet.verification.report.wording import label, number, unit_of
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.sampling import Sampling, sample_stations
from aqnet.verification.store.reader import ForecastStore

__all__ = ["StationEpisode", "station_episode_section"]

_SHOWN = 2  # series of so many assimilated and of so many withheld stations


@dataclass(frozen=True, eq=False)
class StationEpisode:
    """Forecasts of a store at the stations of a network.

    Attributes
    ----------
    store : ForecastStore
    observed : Observations
        Of the stations that the store has values at.
    sampling : Sampling
        Bilinear.
    """

    store: ForecastStore
    observed: Observations
    sampling: Sampling

    @staticmethod
    def of(store: ForecastStore, observations: Observations) -> StationEpisode:
        """Leave out the stations that the store has no values at; CoverageError if none is left."""
        sampling = sample_stations(store.grid, store.mask, observations.stations, outside="drop")
        kept = np.isin(observations.stations.ids, sampling.stations.ids)
        return StationEpisode(store, observations.take(kept), sampling)

    def seen(self, times: np.ndarray, pollutant: str) -> np.ndarray:
        """(n, S): observed, NaN where missing."""
        return self.observed.at(times)[:, TARGETS.index(pollutant)]

    def made(self, times: np.ndarray, pollutant: str, lead_h: int) -> np.ndarray:
        """(n, S): forecasts valid at times that the store has."""
        rows = np.searchsorted(self.store.init_times, times - np.timedelta64(lead_h, "h"))
        read = (self.store.read(int(row), lead_h, pollutant, cells=True) for row in rows)
        return np.stack([self.sampling(cells) for cells in read])

    def valid_times(self, lead_h: int) -> np.ndarray:
        """Of the forecasts of a lead time, within the observed period."""
        self.store.lead_index(lead_h)
        valid = self.store.init_times + np.timedelta64(lead_h, "h")
        return valid[(valid >= self.observed.times[0]) & (valid <= self.observed.times[-1])]


def station_episode_section(
    episode: StationEpisode, shown: Shown, first: np.datetime64 | None, last: np.datetime64 | None
) -> Section:
    """Series and maps of a period, or of the worst day of the network.

    Parameters
    ----------
    episode : StationEpisode
    shown : Shown
    first, last : datetime64[h] or None
        Valid times in UTC; None: from `BEFORE_H` before to `AFTER_H` after the end of the 24 h
        with the highest mean of the stations.

    Raises
    ------
    VerificationError
        No forecast is valid in the period, or nothing is observed.
    """
    times = episode.valid_times(shown.lead_h)
    seen = episode.seen(times, shown.pollutant)
    known = np.isfinite(seen)
    total, count = np.where(known, seen, 0.0).sum(1), known.sum(1)
    means = np.divide(total, count, out=np.full(len(times), np.nan), where=count > 0)
    inside, rule = _period(times, means, shown, first, last)
    if not np.isfinite(means[inside]).any():
        raise VerificationError(
            explain("no episode at the stations", expected="forecasts and observations in it",
                    found=f"{int(inside.sum())} valid times, {times[0]} to {times[-1]}",
                    remedy="choose another period")
        )  # fmt: skip
    peak = times[inside][int(np.nanargmax(means[inside]))]
    series = _series(episode, shown, times[inside])
    what, unit = label(shown.pollutant), unit_of(shown.pollutant)
    caption = f"Observed (grey) and forecast {what} [{unit}] against valid time; persistence is "
    caption += "the station's own value at the init time."
    blocks = [
        Text([f"{rule} At the highest hour the stations have {number(np.nanmax(means[inside]))} "
              f"{unit} on average."]),
        picture(draw_station_series(series, shown.name), "Series at stations", caption),
        picture(_draw_peak(episode, shown, peak), f"Maps of {what} at the peak",
                f"{what} [{unit}], forecasts for {local_hour(peak)} by lead time; dots: observed "
                f"(diamonds: withheld stations), in the same colours. {BORDER_CREDIT}."),
    ]  # fmt: skip
    month = str(peak + np.timedelta64(8, "h"))[:7]
    return Section("station-episode", f"Episode at the stations, {month}", blocks)


def _period(
    times: np.ndarray, means: np.ndarray, shown: Shown, first: np.datetime64 | None,
    last: np.datetime64 | None,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """Which valid times, and how they were chosen."""
    if first is not None and last is not None:
        return (times >= first) & (times <= last), f"Period as asked: {first} to {last} UTC."
    end = worst_day(times, means)
    inside = times >= end - np.timedelta64(BEFORE_H, "h")
    rule = (
        f"Rule: the 24 h with the highest mean {label(shown.pollutant)} of the stations among the "
        f"valid times of the store; they end {local_hour(end)}."
    )
    return inside & (times <= end + np.timedelta64(AFTER_H, "h")), rule


def _series(episode: StationEpisode, shown: Shown, times: np.ndarray) -> list[StationSeries]:
    """At the stations with the highest mean, assimilated and withheld, observed for half of it."""
    seen = episode.seen(times, shown.pollutant)
    made = episode.made(times, shown.pollutant, shown.lead_h)
    before = episode.seen(times - np.timedelta64(shown.lead_h, "h"), shown.pollutant)
    stations = episode.observed.stations
    known = np.isfinite(seen)
    level = np.where(known, seen, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    level[known.mean(0) < 0.5] = -1.0
    chosen = []
    for withheld, kind in ((False, "assimilated"), (True, "withheld from the analysis")):
        members = np.flatnonzero((stations.withheld == withheld) & (level >= 0))
        highest = members[np.argsort(-level[members], kind="stable")][:_SHOWN]
        chosen += [(int(s), f"{stations.ids[s]} ({kind})") for s in highest]
    return [
        StationSeries(name, shown.pollutant, shown.lead_h, times, seen[:, s],
                      {shown.name: made[:, s], "persistence": before[:, s]})
        for s, name in chosen
    ]  # fmt: skip


def _draw_peak(episode: StationEpisode, shown: Shown, time: np.datetime64) -> Figure:
    """The forecasts of each lead time for one hour, with the observed values as dots."""
    store, stations = episode.store, episode.observed.stations
    inits = [time - np.timedelta64(lead, "h") for lead in store.lead_times_h]
    held = [(lead, int(np.searchsorted(store.init_times, init)))
            for lead, init in zip(store.lead_times_h, inits, strict=True)
            if init in store.init_times]  # fmt: skip
    values = [store.read(row, lead, shown.pollutant) for lead, row in held]
    seen = episode.seen(np.array([time]), shown.pollutant)[0]
    scale = {"cmap": SEQUENTIAL, "norm": Normalize(0, upper_limit(*values, seen))}
    figure = Figure(figsize=(3.2 * len(held) + 0.6, 3.7), layout="constrained")
    lat, lon = store.grid.lat, store.grid.lon
    panels = figure.subplots(1, len(held), squeeze=False, sharex=True, sharey=True)[0]
    lines = outlines()
    for axes, (lead, _), field in zip(panels, held, values, strict=True):
        mesh = axes.pcolormesh(edges(lon), edges(lat), field, **scale, rasterized=True)
        axes.add_collection(LineCollection(lines, colors="#333333", linewidths=0.5))
        for withheld, marker in ((False, "o"), (True, "D")):
            one = (stations.withheld == withheld) & np.isfinite(seen)
            axes.scatter(stations.lon[one], stations.lat[one], c=seen[one], marker=marker, s=34,
                         edgecolors="white", linewidths=0.9, **scale)  # fmt: skip
        axes.set(xlim=np.sort(lon[[0, -1]]), ylim=np.sort(lat[[0, -1]]))
        axes.set_aspect(1 / np.cos(np.radians(lat.mean())))
        axes.set_title(f"{lead} h ahead", fontsize=10.5)
        axes.set_xlabel("longitude [deg E]", fontsize=8.5)
        axes.tick_params(labelsize=8)
    panels[0].set_ylabel("latitude [deg N]", fontsize=8.5)
    figure.colorbar(mesh, ax=list(panels), extend="max", pad=0.01, aspect=24,
                    label=f"{label(shown.pollutant)} [{unit_of(shown.pollutant)}]")  # fmt: skip
    return figure
