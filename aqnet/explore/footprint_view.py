"""The footprint of attention of one patch on the map, and how far and where from it reaches."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm

from aqnet.explore.attention import Footprints
from aqnet.explore.map_view import wind_key
from aqnet.explore.panels import Map, View, map_shape
from aqnet.explore.world import World, clock
from aqnet.grid import distance_km
from aqnet.verification.report.style import plain

__all__ = ["MEAN", "FootprintView"]

MEAN = "mean of the heads"
_FLOOR = 1 / 300  # of the largest weight: where the colours end


class FootprintView(View):
    """Weights on the map, and their sum against distance.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        super().__init__(world, (11.0, 4.9))
        left, right = self.figure.subplots(1, 2, width_ratios=(map_shape(world), 0.8))
        self.map = Map(left, world, "magma", "weight, share of the largest [1]", extend="min",
                       wind_m_s=wind_key(world))  # fmt: skip
        self.map.image.set_norm(LogNorm(_FLOOR, 1))
        (self.star,) = left.plot([], [], "*", ms=13, mfc="#00e5ff", mec="black", zorder=6)
        styles = (("all", "black", "-"), ("upwind", "#D55E00", "--"), ("downwind", "#0072B2", ":"))
        self.curves = [right.plot([], [], color=c, ls=s, lw=1.6, label=n)[0] for n, c, s in styles]
        right.set_ylim(0, 1.02)
        right.set_xlabel("distance from the patch [km]", fontsize=8.5)
        right.set_title("share of the weight within a distance [1]", fontsize=9.5, loc="left")
        right.tick_params(labelsize=8)
        right.legend(frameon=False, fontsize=8, loc="upper left")
        plain(right)

    def update(
        self, footprints: Footprints, time: np.datetime64, place: tuple[float, float], part: str,
        head: str, lead_h: int,
    ) -> None:  # fmt: skip
        """Show the weights of another patch, hour, part or head.

        Parameters
        ----------
        footprints : Footprints
        time : datetime64
            UTC; the init time of a run.
        place : (float, float)
            Latitude and longitude [degrees]: the patch nearest to it that is a token.
        part : str
            One of `footprints.parts`.
        head : str
            "1", "2", ... or `MEAN`.
        lead_h : int
            Lead time, of runs with a pass for each.
        """
        world = self.world
        mesh = world.grid.patches(footprints.patch).mesh()
        lat, lon = (axis[footprints.active] for axis in mesh)
        token = int(distance_km(*place, lat, lon).argmin())
        weights = footprints.weights(time, token, part, lead_h)
        weights = weights.mean(0) if head == MEAN else weights[int(head) - 1]
        self._draw(footprints, weights)
        self.star.set_data([lon[token]], [lat[token]])
        self.map.wind(world.wind(time))
        self._curves(time, weights, lat, lon, token)
        self.map.axes.set_title(f"{footprints.name[:46]}; {part}, {head}", fontsize=9)
        self.title(f"Where the patch at {lat[token]:.2f} N, {lon[token]:.2f} E looks, "
                   f"{clock(time, world.utc_offset_h)}")  # fmt: skip

    def _draw(self, footprints: Footprints, weights: np.ndarray) -> None:
        image = np.full(footprints.active.shape, np.nan)
        image[footprints.active] = np.maximum(weights / weights.max(), _FLOOR)
        side = footprints.patch
        self.map.field(image.repeat(side, 0).repeat(side, 1))

    def _curves(
        self, time: np.datetime64, weights: np.ndarray, lat: np.ndarray, lon: np.ndarray, token: int
    ) -> None:
        """Sums of the weights within a distance; upwind is where the local wind comes from."""
        far = distance_km(lat[token], lon[token], lat, lon)
        u, v = self._wind_at(time, lat[token], lon[token])
        along = u * (lon - lon[token]) * np.cos(np.deg2rad(lat[token])) + v * (lat - lat[token])
        order = np.argsort(far, kind="stable")
        parts = (np.ones(far.size), along < 0, along > 0)
        for curve, which in zip(self.curves, parts, strict=True):
            curve.set_data(far[order], np.cumsum((weights * which)[order]))
        self.curves[0].axes.set_xlim(0, far.max())

    def _wind_at(self, time: np.datetime64, lat: float, lon: float) -> np.ndarray:
        """(2,) m/s of the cell nearest to a place."""
        grid = self.world.grid
        cell = np.abs(grid.lat - lat).argmin(), np.abs(grid.lon - lon).argmin()
        return np.nan_to_num(self.world.wind(time)[:, *cell])
