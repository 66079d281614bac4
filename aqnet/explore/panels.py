"""Parts of figures that change by updating what is drawn, and the picture of a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from PIL import Image

from aqnet.data.geography import BORDER_CREDIT
from aqnet.explore.world import World
from aqnet.verification.report.style import plain

__all__ = ["UNKNOWN", "Map", "Series", "View", "map_shape"]

_ARROWS = 18  # along the longer side of a map
_HEIGHTS_M = {"low": (100, 300, 600, 1000), "high": (500, 1500, 3000)}
_DPI = 100
UNKNOWN = "#e4e4e4"  # colour of cells without a value


class View:
    """A figure whose layout is computed once; what changes later moves nothing else.

    Parameters
    ----------
    world : World
    size : (float, float)
        Width and height [inch].

    Attributes
    ----------
    figure : Figure
    """

    def __init__(self, world: World, size: tuple[float, float]) -> None:
        self.world = world
        self.figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(self.figure)
        self._text = self.figure.suptitle(" ", x=0.01, ha="left", fontsize=10)
        self._mark = self.figure.text(0.995, 0.99, "", ha="right", va="top", fontsize=10,
                                      color="#b00020", weight="bold")  # fmt: skip
        if world.manifest.synthetic:
            self._mark.set_text("SYNTHETIC, not observed")

    def _freeze(self) -> None:
        """Write the credits, compute the layout, and keep it."""
        heights = f"White lines: heights of {', '.join(map(str, heights_m(self.world)))} m"
        credits = f"{heights}. {BORDER_CREDIT}." if self.world.lines else f"{heights}."
        text = f"{fill(self.world.credit, 150)}.\n{credits}"
        self.figure.supxlabel(text, fontsize=6.5, color="#666666", x=0.01, ha="left")
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)

    def title(self, text: str) -> None:
        """Set the line above all panels."""
        self._text.set_text(text)

    def png(self) -> bytes:
        """The figure as it is now; the first picture decides the layout of all."""
        if self.figure.get_layout_engine() is not None:
            self._freeze()
        self.figure.canvas.draw()
        picture = Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3])
        held = io.BytesIO()
        picture.save(held, format="png", compress_level=1)  # sent once to a browser nearby
        return held.getvalue()


# ---- maps


def heights_m(world: World) -> tuple[int, ...]:
    """Levels [m] of the contours of the terrain."""
    return _HEIGHTS_M["high" if np.nanmax(world.elevation_m) > 1500 else "low"]


def map_shape(world: World) -> float:
    """Width over height of a map, within 0.9 and 1.5: for the widths of the panels of a figure."""
    lat, lon = (abs(axis[-1] - axis[0]) for axis in world.grid.edges())
    return float(np.clip(lon / lat * np.cos(np.deg2rad(world.grid.lat.mean())), 0.9, 1.5))


class Map:
    """A field on the grid of a world, with heights, outlines, places and wind.

    Parameters
    ----------
    axes : Axes
    world : World
    cmap : str
    label : str or None
        Of the colour bar; None: no bar of its own.
    extend : str
        Which ends of the colours stand for all beyond, as `Figure.colorbar` has it.
    wind_m_s : float
        Speed of the arrow of the key, an eighth of the map's width; 0: no wind.
    """

    def __init__(
        self, axes: Axes, world: World, cmap: str, label: str | None, *, extend: str = "max",
        wind_m_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.axes, self.world, self.bar = axes, world, None
        lat, lon = (np.sort(axis[[0, -1]]) for axis in world.grid.edges())
        self._up = np.sign(world.grid.lat[1] - world.grid.lat[0]).astype(int)
        self._right = np.sign(world.grid.lon[1] - world.grid.lon[0]).astype(int)
        self.image = axes.imshow(
            np.full((2, 2), np.nan), extent=(*lon, *lat), origin="lower",
            cmap=colormaps[cmap].with_extremes(bad=UNKNOWN), interpolation="nearest",
            norm=Normalize(0, 1),
        )  # fmt: skip
        # one degree of longitude is cos(latitude) of one of latitude
        axes.set_aspect(1 / np.cos(np.deg2rad(lat.mean())))
        axes.contour(world.grid.lon, world.grid.lat, world.elevation_m, levels=heights_m(world),
                     colors="white", linewidths=0.5, alpha=0.75)  # fmt: skip
        axes.add_collection(LineCollection(world.lines, colors="#333333", linewidths=0.6))
        axes.set(xlim=lon, ylim=lat)
        axes.tick_params(labelsize=7.5)
        axes.set_xlabel("longitude [deg E]", fontsize=8)
        axes.set_ylabel("latitude [deg N]", fontsize=8)
        if label is not None:
            self.bar = axes.figure.colorbar(self.image, ax=axes, extend=extend, pad=0.02,
                                            aspect=22, shrink=0.9)  # fmt: skip
            self.bar.ax.tick_params(labelsize=7.5)
            self.bar.set_label(label, fontsize=8.5)
        if wind_m_s:
            self._quiver(wind_m_s)

    def field(self, values: np.ndarray) -> None:
        """Show (H, W), in the orientation of the grid."""
        self.image.set_data(values[:: self._up, :: self._right])

    def scale(self, low: float, high: float) -> None:
        """Ends of the colours."""
        self.image.set_clim(low, high)

    # ---- wind

    def _quiver(self, top: float) -> None:
        shape, grid = self.world.grid.shape, self.world.grid
        self._step = max(1, -(-max(shape) // _ARROWS))
        rows, columns = (n // self._step for n in shape)
        lat = grid.lat[: rows * self._step].reshape(rows, -1).mean(1)
        lon = grid.lon[: columns * self._step].reshape(columns, -1).mean(1)
        x, y = np.meshgrid(lon, lat)
        still = np.zeros(x.shape)
        # the key is an eighth of the map's width: arrows of all times have one scale
        self.quiver = self.axes.quiver(
            x, y, still, still, scale=8 * top, scale_units="width", color="#1a1a1a",
            edgecolor="white", linewidth=0.3, width=0.005, minlength=0.6, zorder=4,
        )  # fmt: skip
        # beside the credits: one for all maps of a figure, whose arrows have one scale
        self.axes.quiverkey(self.quiver, 0.9, 0.03, top, f"wind {top:g} m/s", labelpos="W",
                            coordinates="figure", fontproperties={"size": 8})  # fmt: skip

    def wind(self, uv: np.ndarray) -> None:
        """Arrows of wind (2, H, W) [m/s]: means of blocks of cells that are at least half known."""
        rows, columns = (n // self._step for n in self.world.grid.shape)
        cut = uv[:, : rows * self._step, : columns * self._step]
        block = cut.reshape(2, rows, self._step, columns, self._step)
        known = np.isfinite(block).all(0, keepdims=True)
        count = known.sum((2, 4))
        mean = np.where(known, block, 0).sum((2, 4)) / np.maximum(count, 1)
        few = np.broadcast_to(2 * count < self._step**2, mean.shape)
        self.quiver.set_UVC(*np.ma.masked_array(mean, few))


# ---- series


class Series:
    """Lines against local time at one place.

    Parameters
    ----------
    axes : Axes
    utc_offset_h : float
    lines : sequence of (name, style)
        Name in the legend and arguments of `plot`.
    """

    def __init__(self, axes: Axes, utc_offset_h: float, lines: Sequence[tuple[str, dict]]) -> None:
        self.axes, self.offset = axes, np.timedelta64(round(60 * utc_offset_h), "m")
        start = np.array(["2000-01-01"], "datetime64[m]")  # so that the axis is one of dates
        self.lines = [axes.plot(start, [np.nan], label=n, **style)[0] for n, style in lines]
        self.now = axes.axvline(start[0], color="#b00020", lw=1)
        locator = AutoDateLocator(minticks=3, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_xlabel(f"local time (UTC{utc_offset_h:+g})", fontsize=8)
        axes.tick_params(labelsize=7.5)
        plain(axes)

    def local(self, times: np.ndarray) -> np.ndarray:
        """Local clock of times in UTC."""
        return np.asarray(times).astype("datetime64[m]") + self.offset

    def show(self, now: np.datetime64, *lines: tuple[np.ndarray, np.ndarray]) -> None:
        """Show lines of (times in UTC, values) in the order of construction; mark one time."""
        for artist, (times, values) in zip(self.lines, lines, strict=True):
            artist.set_data(self.local(times), values)
        self.now.set_xdata([self.local(now)] * 2)
        every = np.concatenate([self.local(times) for times, _ in lines if len(times)])
        top = max([float(np.nanmax(v)) for _, v in lines if np.isfinite(v).any()], default=1.0)
        self.axes.set_xlim(every.min(), every.max())
        self.axes.set_ylim(0, 1.08 * max(top, 1.0))
