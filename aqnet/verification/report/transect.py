"""A row of the grid through time, above the terrain it crosses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from aqnet.verification.report.maps import scales
from aqnet.verification.report.style import edges, plain, require, upper_limit
from aqnet.verification.report.wording import label, unit_of

__all__ = ["Transect", "draw_transect"]


@dataclass(frozen=True, eq=False)
class Transect:
    """Truth and forecast along a row of cells.

    Parameters
    ----------
    pollutant : str
    lead_h : int
        Lead time of the forecast [h].
    valid_times : (T,) datetime64[h], UTC
    lat : float
        Of the row, degrees N.
    lon : (W,)
        Degrees E.
    truth, forecast : (T, W)
        Unit of the pollutant; NaN outside the mask.
    elevation_m : (W,)

    Raises
    ------
    VerificationError
        An array has another shape.
    """

    pollutant: str
    lead_h: int
    valid_times: np.ndarray
    lat: float
    lon: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    elevation_m: np.ndarray

    def __post_init__(self) -> None:
        shape = (max(len(self.valid_times), 2), len(self.lon))
        require(
            "Transect",
            valid_times=(self.valid_times, shape[:1]),
            truth=(self.truth, shape),
            forecast=(self.forecast, shape),
            elevation_m=(self.elevation_m, shape[1:]),
        )


def draw_transect(transect: Transect, name: str, utc_offset_h: int = 8) -> Figure:
    """Longitude across, time upwards: truth, forecast, difference; below, terrain and means."""
    figure = Figure(figsize=(11.4, 7.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, height_ratios=(3.1, 1))
    difference = transect.forecast - transect.truth
    one, two = scales(upper_limit(transect.truth, transect.forecast), upper_limit(difference))
    local = transect.valid_times.astype("datetime64[h]") + np.timedelta64(utc_offset_h, "h")
    y, x = edges(date2num(local)), edges(transect.lon)
    titles = ("truth", f"{name}, {transect.lead_h} h ahead", "forecast - truth")
    meshes = []
    for axes, values, scale, title in zip(
        panels[0], (transect.truth, transect.forecast, difference), (one, one, two), titles,
        strict=True,
    ):  # fmt: skip
        meshes.append(axes.pcolormesh(x, y, values, **scale, rasterized=True))
        axes.set_title(title, fontsize=10.5)
        axes.set_facecolor("#f2f2f2")
        locator = AutoDateLocator()
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.tick_params(labelsize=8, labelleft=axes is panels[0, 0])
    panels[0, 0].set_ylabel(f"valid time (UTC{utc_offset_h:+d})", fontsize=9)
    unit = unit_of(transect.pollutant)
    style = {"location": "top", "aspect": 45, "pad": 0.02}
    figure.colorbar(meshes[0], ax=list(panels[0, :2]), extend="max",
                    label=f"{label(transect.pollutant)} [{unit}]", **style)  # fmt: skip
    figure.colorbar(meshes[2], ax=panels[0, 2], extend="both", label=f"difference [{unit}]",
                    **style | {"aspect": 22})  # fmt: skip
    for axes, values in zip(
        panels[1], (transect.truth, transect.forecast, difference), strict=True
    ):
        _terrain(axes, transect, values, signed=values is difference)
    panels[1, 0].set_ylabel("height [m]", fontsize=9)
    return figure


def _terrain(axes: object, transect: Transect, values: np.ndarray, *, signed: bool) -> None:
    """Height as a grey area, the mean of the period as a line with its own axis."""
    axes.fill_between(transect.lon, 0, transect.elevation_m, color="#c8c2ba", linewidth=0)
    axes.set_ylim(0, max(1.15 * np.nanmax(transect.elevation_m), 100))
    axes.set_xlabel("longitude [deg E]", fontsize=9)
    plain(axes)
    beside = axes.twinx()
    known = np.isfinite(values).any(axis=0)
    mean = np.full(values.shape[1], np.nan)
    mean[known] = np.nanmean(values[:, known], axis=0)
    beside.plot(transect.lon, mean, color="#0072B2", linewidth=1.6)
    if signed:
        beside.axhline(0, color="#0072B2", linewidth=0.7, linestyle=":")
    else:
        beside.set_ylim(bottom=0)
    beside.set_ylabel(f"mean [{unit_of(transect.pollutant)}]", color="#0072B2", fontsize=8.5)
    beside.spines["top"].set_visible(False)
    for one in (axes, beside):
        one.tick_params(labelsize=8)
