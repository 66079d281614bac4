"""Maps of a report: fields in colour, coasts and borders, heights, and their credits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, withStroke

from aqnet.data.geography import BORDER_CREDIT
from aqnet.verification.report.colours import DIVERGING, SEQUENTIAL
from aqnet.verification.report.fields import Fields
from aqnet.verification.report.style import edges, upper_limit
from aqnet.verification.report.wording import label, unit_of

__all__ = ["CREDIT", "draw_beside", "draw_place_maps", "map_axes", "scales"]

Extent = tuple[float, float, float, float]
CREDIT = f"{BORDER_CREDIT}. Heights are those of the data."
_HEIGHTS_M = (500, 1500, 3000)  # basins, second and third step of the terrain of China


def scales(limit: float, spread: float) -> tuple[dict, dict]:
    """Arguments of pcolormesh for concentrations from 0 and for signed differences."""
    return (
        {"cmap": SEQUENTIAL, "norm": Normalize(0, limit)},
        {"cmap": DIVERGING, "norm": Normalize(-spread, spread)},
    )


def map_axes(
    axes: object, fields: Fields, values: np.ndarray, scale: dict, extent: Extent | None = None
) -> object:
    """Draw a field (H, W) with outlines and heights; return the mesh."""
    lat, lon = fields.grid.lat, fields.grid.lon
    mesh = axes.pcolormesh(edges(lon), edges(lat), values, **scale, rasterized=True)
    heights = axes.contour(lon, lat, fields.elevation_m, levels=_HEIGHTS_M, colors="#ffffff",
                           linewidths=0.35, alpha=0.7)  # fmt: skip
    heights.set(path_effects=[withStroke(linewidth=0.8, foreground="#00000055"), Normal()])
    axes.add_collection(LineCollection(fields.lines, colors="#333333", linewidths=0.5))
    west, east, south, north = extent or _extent(fields)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    # One degree of longitude is cos(latitude) of one of latitude.
    axes.set_aspect(1 / np.cos(np.radians((south + north) / 2)))
    axes.tick_params(labelsize=7.5)
    axes.set_facecolor("#f2f2f2")
    return mesh


def _extent(fields: Fields) -> Extent:
    """West, east, south and north of the cells of the mask with a margin of 1 degree."""
    lat, lon = fields.grid.lat[fields.mask.any(1)], fields.grid.lon[fields.mask.any(0)]
    return lon.min() - 1, lon.max() + 1, lat.min() - 1, lat.max() + 1


def draw_place_maps(
    fields: Fields, found: dict[str, np.ndarray], pollutants: Sequence[str], lead: int
) -> Figure:
    """RMSE and bias of every cell, a row for each pollutant, at the lead of this position.

    `found`: `place_fields`.
    """
    figure = Figure(figsize=(10.5, 3.15 * len(pollutants)), layout="constrained")
    grid = figure.subplots(len(pollutants), 2, squeeze=False, sharex=True, sharey=True)
    for p, (row, pollutant) in enumerate(zip(grid, pollutants, strict=True)):
        parts = [found[name][lead, p] for name in ("rmse", "bias")]
        kinds = scales(upper_limit(parts[0]), upper_limit(parts[1]))
        for axes, values, scale, title in zip(row, parts, kinds, ("RMSE", "bias"), strict=True):
            mesh = map_axes(axes, fields, values, scale)
            axes.set_title(f"{label(pollutant)}, {title}", loc="left", fontsize=10)
            bar = figure.colorbar(mesh, ax=axes, extend="max" if title == "RMSE" else "both",
                                  aspect=18, pad=0.02)  # fmt: skip
            bar.set_label(f"{unit_of(pollutant)}", fontsize=8)
            bar.ax.tick_params(labelsize=7.5)
    _label_degrees(grid)
    return figure


def draw_beside(
    fields: Fields, truth: np.ndarray, forecasts: dict[str, np.ndarray], pollutant: str,
    limits: tuple[float, float], title: str = "", extent: Extent | None = None,
) -> Figure:  # fmt: skip
    """Truth, each forecast, and forecast - truth of the last one, side by side.

    Parameters
    ----------
    fields : Fields
    truth : (H, W)
    forecasts : dict of title to (H, W)
    pollutant : str
    limits : float, float
        Ends of the colours of concentration and difference [unit of the pollutant].
    title : str
        Above all panels.
    extent : tuple, optional
        West, east, south, north [degrees]; default all cells.
    """
    count = len(forecasts) + 2
    figure = Figure(figsize=(3.9 * count, 3.9), layout="constrained")
    row = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)
    plain, signed = scales(*limits)
    name, last = list(forecasts.items())[-1]
    panels = [("truth", truth, plain), *((k, v, plain) for k, v in forecasts.items()),
              (f"{name} - truth", last - truth, signed)]  # fmt: skip
    for axes, (text, values, scale) in zip(row[0], panels, strict=True):
        mesh = map_axes(axes, fields, values, scale, extent)
        axes.set_title(text, fontsize=10)
        if values is truth:
            shared = mesh
    unit = f"{label(pollutant)} [{unit_of(pollutant)}]"
    style = {"location": "bottom", "aspect": 40, "pad": 0.03}
    figure.colorbar(shared, ax=list(row[0, :-1]), label=unit, extend="max", **style)
    style["aspect"] = 22
    figure.colorbar(mesh, ax=row[0, -1], label=f"difference [{unit_of(pollutant)}]",
                    extend="both", **style)  # fmt: skip
    _label_degrees(row)
    if title:
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _label_degrees(grid: np.ndarray) -> None:
    for axes in grid[-1]:
        axes.set_xlabel("longitude [deg E]", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("latitude [deg N]", fontsize=8)
