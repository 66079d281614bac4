"""The order in which patches are scanned along the wind of an hour."""

from __future__ import annotations

import numpy as np
import torch

from aqnet.explore.map_view import wind_key
from aqnet.explore.panels import Map, View
from aqnet.explore.world import World, clock
from aqnet.model.scan import WindScan
from aqnet.model.scan_orders import KINDS, build_orders, scan_spec
from aqnet.verification.report.colours import SEQUENTIAL

__all__ = ["ScanView"]

_TRAIL = 40  # patches of the line that shows the last steps


class ScanView(View):
    """Place of each patch in the order, up to a share of it, and the wind that makes the order.

    Parameters
    ----------
    world : World
    patch : int
        Cells along the side of a patch.
    regions : (int, int)
        Bands of patch rows and columns, for the order "region".
    lane_patches : int
        Width of a lane across the wind, for the order "lanes".
    """

    kinds = KINDS

    def __init__(
        self, world: World, patch: int, regions: tuple[int, int], lane_patches: int
    ) -> None:
        super().__init__(world, (11.0, 4.9))
        active = world.grid.active_patches(world.mask, patch)
        spec = scan_spec(world.grid, patch, regions, lane_patches=lane_patches, active=active)
        orders = build_orders(spec)
        self.patch, self.active, self.regions = patch, active, regions
        self.scans = {kind: WindScan(orders, kind) for kind in KINDS}
        geometry, (rows, columns) = world.grid.patches(patch), np.nonzero(active)
        self.lat, self.lon = geometry.lat[rows], geometry.lon[columns]
        left, right = self.figure.subplots(1, 2, width_ratios=(1, 1))
        self.wind = Map(left, world, "Blues", "wind speed [m/s]", wind_m_s=wind_key(world))
        self.order = Map(right, world, SEQUENTIAL, "place in the order [1], 0: read first (upwind)")
        self.order.scale(0, 1)
        right.set_ylabel("")
        (self.trail,) = right.plot([], [], "-", color="#b00020", lw=1.2, zorder=6)
        (self.head,) = right.plot([], [], "o", color="#b00020", ms=5, zorder=7)

    def order_of(self, time: np.datetime64, kind: str) -> np.ndarray:
        """Tokens (N,) from upwind to downwind; `kind` one of `kinds`, time in UTC."""
        u, v = torch.from_numpy(self.world.wind(time))[:, None]
        return self.scans[kind](u, v, torch.from_numpy(self.world.mask)).order[0].numpy()

    def update(self, time: np.datetime64, kind: str, share: float) -> None:
        """Show another hour (UTC), another order, or the order up to another share [1]."""
        world, order = self.world, self.order_of(time, kind)
        seen = max(2, round(share * order.size))
        place = np.full(order.size, np.nan)
        place[order[:seen]] = np.arange(seen) / (order.size - 1)
        image = np.full(self.active.shape, np.nan)
        image[self.active] = place
        self.order.field(image.repeat(self.patch, 0).repeat(self.patch, 1))
        trail = order[max(0, seen - _TRAIL) : seen]
        self.trail.set_data(self.lon[trail], self.lat[trail])
        self.head.set_data(self.lon[trail[-1:]], self.lat[trail[-1:]])
        uv = world.wind(time)
        self.wind.field(np.where(world.mask, np.hypot(*uv), np.nan))
        self.wind.scale(0, 1.5 * wind_key(world))
        self.wind.wind(uv)
        about = f", {self.regions[0]} x {self.regions[1]} regions" if kind == "region" else ""
        self.order.axes.set_title(f"order '{kind}'{about}: {seen} of {order.size} patches, red: "
                                  f"last {trail.size}", fontsize=9)  # fmt: skip
        self.title(
            f"Scan along the wind of the hour that ends at {clock(time, world.utc_offset_h)}"
        )
