"""Figures of the report, drawn from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, withStroke

from aqnet.errors import explain
from aqnet.metrics import VerificationError

__all__ = [
    "LABELS",
    "UNIT",
    "EpisodeMaps",
    "StationSeries",
    "TrainingCurve",
    "draw_episode_maps",
    "draw_rmse_against_lead",
    "draw_station_series",
    "draw_training_curve",
    "style_of",
]

LABELS = {"pm25": "PM2.5", "pm10": "PM10", "so2": "SO2", "no2": "NO2", "co": "CO", "o3": "O3"}
UNIT = "ug/m3"
# Okabe and Ito (2008): told apart with every common form of colour blindness. Markers and
# dashes say the same again for a print in grey.
_STYLES = (
    ("#0072B2", "s", (0, (5, 2))),
    ("#D55E00", "^", (0, (2, 1.5))),
    ("#009E73", "D", (0, (6, 2, 1, 2))),
    ("#CC79A7", "v", (0, (1, 1))),
    ("#E69F00", "P", (0, (4, 1, 1, 1, 1, 1))),
    ("#56B4E9", "X", (0, (8, 2))),
)
_TERRAIN_M = (100, 200, 400, 700, 1000, 1500, 2000)
_LIMITS_PERCENTILE = 99.5  # one capped hour must not flatten all other colours


def style_of(name: str, names: Sequence[str], model: str = "model") -> dict:
    """Line style of a forecast, the same in every figure: the model black and solid."""
    if name == model:
        return {"color": "black", "marker": "o", "linestyle": "-", "linewidth": 2.0, "zorder": 5}
    others = [other for other in names if other != model]
    color, marker, dash = _STYLES[others.index(name) % len(_STYLES)]
    return {"color": color, "marker": marker, "linestyle": dash, "linewidth": 1.4}


def _require(owner: str, **arrays: tuple[np.ndarray, tuple[int, ...]]) -> None:
    """Raise VerificationError for the first array that has another shape than stated."""
    for name, (array, shape) in arrays.items():
        if np.shape(array) != shape:
            raise VerificationError(
                explain(
                    f"{owner}.{name} has the wrong shape",
                    expected=shape,
                    found=np.shape(array),
                    remedy=f"see the shapes in the docstring of {owner}",
                )
            )


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
        _require(
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


@dataclass(frozen=True, eq=False)
class StationSeries:
    """Observations and forecasts of one lead time at one station (or their mean).

    Parameters
    ----------
    station : str
        Name in the title.
    pollutant : str
        Key such as "pm25".
    lead_h : int
        Lead time of all forecasts [h].
    valid_times : (T,) datetime64, UTC
    observed : (T,)
        ug/m3, NaN where missing.
    forecasts : mapping of name to (T,)
        ug/m3.

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    station: str
    pollutant: str
    lead_h: int
    valid_times: np.ndarray
    observed: np.ndarray
    forecasts: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        shape = (max(np.size(self.valid_times), 1),)
        series = {f"forecasts[{name!r}]": (v, shape) for name, v in self.forecasts.items()}
        times = {"valid_times": (self.valid_times, shape), "observed": (self.observed, shape)}
        _require("StationSeries", **times, **series)


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """Loss per epoch.

    Parameters
    ----------
    epochs : (E,) int
    train_loss, validation_loss : (E,)
        In the unit named by `label`; NaN where not computed.
    label : str
        Axis label with the unit.
    best_epoch : int
        Epoch of the checkpoint that was evaluated.

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    epochs: np.ndarray
    train_loss: np.ndarray
    validation_loss: np.ndarray
    label: str
    best_epoch: int

    def __post_init__(self) -> None:
        shape = (max(np.size(self.epochs), 1),)
        _require(
            "TrainingCurve",
            epochs=(self.epochs, shape),
            train_loss=(self.train_loss, shape),
            validation_loss=(self.validation_loss, shape),
        )


def _plain(axes: object) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_rmse_against_lead(scores: pd.DataFrame, model: str = "model") -> Figure:
    """RMSE against lead time, one panel per pollutant, all forecasts.

    Parameters
    ----------
    scores : DataFrame
        Rows of one place of `Scorecard.table`: columns pollutant, lead_h, forecast and
        rmse [ug/m3].
    model : str
        Forecast drawn in black.

    Returns
    -------
    matplotlib Figure
    """
    pollutants, names = scores["pollutant"].unique(), list(scores["forecast"].unique())
    rows = -(-len(pollutants) // 3)
    figure = Figure(figsize=(10.5, 2.9 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, pollutant in zip(panels, pollutants, strict=False):
        part = scores[scores["pollutant"] == pollutant]
        leads = sorted(part["lead_h"].unique())
        for name in names:
            one = part[part["forecast"] == name].set_index("lead_h")["rmse"].reindex(leads)
            # Equal steps between lead times: they double, and 12 h would vanish otherwise.
            axes.plot(range(len(leads)), one, **style_of(name, names, model), markersize=4.5)
        axes.set_xticks(range(len(leads)), [str(lead) for lead in leads])
        axes.set_title(LABELS.get(pollutant, pollutant), loc="left", fontsize=11)
        axes.set_xlabel("lead time [h]")
        axes.set_ylabel(f"RMSE [{UNIT}]")
        _plain(axes)
    for axes in panels[len(pollutants) :]:
        axes.set_visible(False)
    handles = [Line2D([], [], **style_of(name, names, model), label=name) for name in names]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(names), 4), frameon=False
    )
    return figure


def _limit(*arrays: np.ndarray) -> float:
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = np.abs(values[np.isfinite(values)])
    return max(float(np.percentile(values, _LIMITS_PERCENTILE)), 1.0) if values.size else 1.0


def _edges(centres: np.ndarray) -> np.ndarray:
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([2 * centres[:1] - middle[:1], middle, 2 * centres[-1:] - middle[-1:]])


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
    mesh = axes.pcolormesh(_edges(maps.lon), _edges(maps.lat), field, **colours)
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
    top, spread = _limit(maps.truth, maps.station_observed), _limit(difference)
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


def draw_station_series(
    series: Sequence[StationSeries], model: str = "model", utc_offset_h: int = 8
) -> Figure:
    """Observations (grey area) and forecasts against valid time, one panel per series.

    Parameters
    ----------
    series : sequence of StationSeries
        At least one.
    model : str
        Forecast drawn in black.
    utc_offset_h : int
        Added to UTC for the time axis [h] (Beijing 8).

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(10.5, 2.6 * len(series) + 0.5), layout="constrained")
    panels = figure.subplots(len(series), 1, squeeze=False, sharex=True)[:, 0]
    names = list(dict.fromkeys(name for one in series for name in one.forecasts))
    for axes, one in zip(panels, series, strict=True):
        hours = np.asarray(one.valid_times).astype("datetime64[h]")
        local = hours + np.timedelta64(utc_offset_h, "h")
        axes.fill_between(local, 0, one.observed, color="#c9c9c9", label="observed", linewidth=0)
        for name, values in one.forecasts.items():
            line = style_of(name, names, model) | {"marker": "", "linewidth": 1.5}
            axes.plot(local, values, label=name, **line)
        label = LABELS.get(one.pollutant, one.pollutant)
        axes.set_title(f"{one.station}, {label}, {one.lead_h} h ahead", loc="left", fontsize=11)
        axes.set_ylabel(f"{label} [{UNIT}]")
        axes.set_ylim(bottom=0)
        _plain(axes)
    locator = AutoDateLocator()
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panels[-1].set_xlabel(f"valid time (UTC{utc_offset_h:+d})")
    panels[0].legend(loc="upper left", ncols=1 + len(names), frameon=False, fontsize=9)
    return figure


def draw_training_curve(curve: TrainingCurve) -> Figure:
    """Train and validation loss per epoch, with the epoch that was evaluated.

    Parameters
    ----------
    curve : TrainingCurve

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(7.0, 3.0), layout="constrained")
    axes = figure.subplots()
    marks = {"marker": "o", "markersize": 3.5}
    axes.plot(curve.epochs, curve.train_loss, color="#0072B2", ls="--", label="train", **marks)
    axes.plot(curve.epochs, curve.validation_loss, color="#D55E00", label="validation", **marks)
    axes.axvline(curve.best_epoch, color="#777777", lw=0.9, ls=":", label="evaluated checkpoint")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(fill(curve.label, 32))
    axes.legend(frameon=False, fontsize=9)
    _plain(axes)
    return figure
