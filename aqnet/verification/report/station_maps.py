"""Maps of an episode over a network of stations: truth, forecast, difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, withStroke

from aqnet.verification.report.style import edges, require, upper_limit
from aqnet.verification.report.wording import LABELS, UNIT

__all__ = ["EpisodeMaps", "draw_episode_maps"]

_TERRAIN_M = (100, 200, 400, 700, 1000, 1500, 2000)


@dataclass(frozen=True, eq=False)
class EpisodeMaps:
    """Truth and forecast on the grid at K valid times.

    Parameters
    ----------
    pollutant : str
        Key such as "pm25".
    lead_h : int
        Lead time of the forecast [h].
    valid_times : (K,) datetime64, UTC
    lat, lon : (H,), (W,)
        Cell centres, degrees north and east.
    truth, forecast : (K, H, W)
        ug/m3, NaN where unknown.
    elevation_m : (H, W)
        Height of the cells [m].
    scored : (H, W) bool
        Cells that count in the grid scores.
    station_lat, station_lon : (S,)
        Degrees.
    station_observed : (K, S)
        ug/m3, NaN where missing.
    station_withheld : (S,) bool
        Stations that the analysis does not use.

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    pollutant: str
    lead_h: int
    valid_times: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    elevation_m: np.ndarray
    scored: np.ndarray
    station_lat: np.ndarray
    station_lon: np.ndarray
    station_observed: np.ndarray
    station_withheld: np.ndarray

    def __post_init__(self) -> None:
        k, s = np.size(self.valid_times), np.size(self.station_lat)
        grid = (np.size(self.lat), np.size(self.lon))
        require(
            "EpisodeMaps",
            valid_times=(self.valid_times, (max(k, 1),)),
            lat=(self.lat, grid[:1]),
            lon=(self.lon, grid[1:]),
            truth=(self.truth, (k, *grid)),
            forecast=(self.forecast, (k, *grid)),
            elevation_m=(self.elevation_m, grid),
            scored=(self.scored, grid),
            station_lat=(self.station_lat, (s,)),
            station_lon=(self.station_lon, (s,)),
            station_observed=(self.station_observed, (k, s)),
            station_withheld=(self.station_withheld, (s,)),
        )


def _draw_stations(axes: object, maps: EpisodeMaps, values: np.ndarray | None, mesh: object):
    for withheld, marker in ((False, "o"), (True, "D")):
        chosen = np.asarray(maps.station_withheld, dtype=bool) == withheld
        place = (np.asarray(maps.station_lon)[chosen], np.asarray(maps.station_lat)[chosen])
        ring = {"marker": marker, "edgecolor": "black", "lw": 0.9, "zorder": 4}
        ring["path_effects"] = [withStroke(linewidth=2.6, foreground="white"), Normal()]
        if values is None:
            axes.scatter(*place, s=14, facecolor="none", **ring)
        else:
            colours = {"c": values[chosen], "cmap": mesh.cmap, "norm": mesh.norm}
            axes.scatter(*place, s=46, **ring, **colours)


def _draw_map(axes: object, maps: EpisodeMaps, field: np.ndarray, **colours: object) -> object:
    mesh = axes.pcolormesh(edges(maps.lon), edges(maps.lat), field, **colours)
    lines = {"levels": _TERRAIN_M, "colors": "#222222", "linewidths": 0.55}
    terrain = axes.contour(maps.lon, maps.lat, maps.elevation_m, **lines)
    # A pale edge keeps thin lines visible on the dark end of the colour map.
    terrain.set(path_effects=[withStroke(linewidth=1.3, foreground="#ffffff99"), Normal()])
    hatched = {"levels": [0.5, 1.5], "colors": "none", "hatches": ["///"]}
    outside = ~np.asarray(maps.scored, dtype=bool)
    if outside.any():
        area = axes.contourf(maps.lon, maps.lat, outside.astype(float), **hatched)
        area.set(edgecolor="#a8a8a8", linewidth=0)
    # One degree of longitude is cos(latitude) of one of latitude.
    axes.set_aspect(1 / np.cos(np.radians(np.mean(maps.lat))))
    axes.tick_params(labelsize=8)
    return mesh


def _valid_label(time: np.datetime64, utc_offset_h: int) -> str:
    hour = np.datetime64(time, "h")
    local = hour + np.timedelta64(utc_offset_h, "h")
    return (
        f"valid {str(hour)[:10]} {str(hour)[11:13]}:00 UTC"
        f"\n({str(local)[5:10]} {str(local)[11:13]}:00 local)"
    )


def draw_episode_maps(maps: EpisodeMaps, utc_offset_h: int = 8) -> Figure:
    """Truth, forecast and difference in columns, one row per valid time.

    Parameters
    ----------
    maps : EpisodeMaps
    utc_offset_h : int
        Local time minus UTC [h], for the labels (Beijing 8).

    Returns
    -------
    matplotlib Figure
        Truth and forecast share one colour scale from 0 (viridis); the difference is centred
        on zero (red: forecast too high). Both end at the 99.5th percentile.
    """
    count, label = len(maps.valid_times), LABELS.get(maps.pollutant, maps.pollutant)
    figure = Figure(figsize=(9.0, 3.05 * count + 1.1), layout="constrained")
    axes = figure.subplots(count, 3, squeeze=False, sharex=True, sharey=True)
    difference = np.asarray(maps.forecast) - np.asarray(maps.truth)
    top, spread = upper_limit(maps.truth, maps.station_observed), upper_limit(difference)
    scale = {"cmap": "viridis", "norm": Normalize(0, top)}
    centred = {"cmap": "RdBu_r", "norm": Normalize(-spread, spread)}
    for k, row in enumerate(axes):
        shared = _draw_map(row[0], maps, maps.truth[k], **scale)
        _draw_stations(row[0], maps, np.asarray(maps.station_observed)[k], shared)
        _draw_map(row[1], maps, maps.forecast[k], **scale)
        signed = _draw_map(row[2], maps, difference[k], **centred)
        for panel in row[1:]:
            _draw_stations(panel, maps, None, None)
        row[0].set_ylabel(_valid_label(maps.valid_times[k], utc_offset_h), fontsize=8.5)
    titles = ("truth (analysis)", f"forecast, {maps.lead_h} h ahead", "forecast - truth")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=11)
    for panel in axes[-1]:
        panel.set_xlabel("longitude [deg E]", fontsize=8.5)
    _colour_bars(figure, axes, (shared, signed), label)
    return figure


def _colour_bars(figure: Figure, axes: np.ndarray, meshes: tuple, label: str) -> None:
    style = {"location": "bottom", "aspect": 45, "extend": "max", "pad": 0.02}
    figure.colorbar(meshes[0], ax=axes[:, :2], label=f"{label} [{UNIT}]", **style)
    style |= {"aspect": 22, "extend": "both"}
    figure.colorbar(meshes[1], ax=axes[:, 2], label=f"difference [{UNIT}]", **style)
