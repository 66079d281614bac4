"""Advection and diffusion of tracers: conservative, positive, and exact for a uniform field."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin.terrain_flow import CellGeometry

__all__ = ["Transport"]

_COURANT = 0.95


def _van_leer(step: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
    """Limited slope 2ab/(a+b) of neighbouring differences a, b of one sign, otherwise 0.

    van Leer (1974), J. Comput. Phys. 14, 361-370. `step` (n, m+1) differences along the last
    axis; `out`, `work` (n, m). Nothing is divided where the slope is 0, so that 0/0 does not occur.
    """
    a, b = step[..., :-1], step[..., 1:]
    np.multiply(a, b, out=out)
    np.maximum(out, 0, out=out)
    np.add(a, b, out=work)
    np.divide(out, work, out=out, where=out > 0)
    out *= 2


class Transport:
    """Finite volumes in flux form on a regular latitude-longitude grid.

    A tracer is an amount per area (ug/m2) in a layer of uniform air. One step sweeps along one
    axis, then along the other, and carries the air itself along, so that sweeps of a flow
    without divergence leave a uniform field uniform (Easter 1993, Mon. Wea. Rev. 121, 297-304).
    Face values are upwind with van Leer's limiter; the Courant number of a sweep is at most 0.95,
    so amounts stay positive.

    Parameters
    ----------
    geometry : CellGeometry
    inflow : array, shape (n,)
        Amount per area outside the domain, ug/m2.
    """

    def __init__(self, geometry: CellGeometry, inflow: np.ndarray):
        self.geometry = geometry
        self.inflow = np.asarray(inflow, dtype=np.float32)
        self._inverse_area = (1 / geometry.area).astype(np.float32)

    def courant(self, flux_x: np.ndarray, flux_y: np.ndarray, seconds: float) -> float:
        """Largest Courant number of a sweep over `seconds`: what leaves a cell over its area."""
        east, north = flux_x * seconds, flux_y * seconds
        leaving_x = np.maximum(east[:, 1:], 0) - np.minimum(east[:, :-1], 0)
        leaving_y = np.maximum(north[1:], 0) - np.minimum(north[:-1], 0)
        return float(max(np.max(part / self.geometry.area) for part in (leaving_x, leaving_y)))

    def advect(self, amount, flux_x, flux_y, seconds: float) -> np.ndarray:
        """Carry `amount` (n, H, W) float32 along for `seconds`, in place.

        Parameters
        ----------
        flux_x, flux_y : array, shapes (H, W+1), (H+1, W)
            Volume flux through the faces towards east and north, m2/s, without divergence.

        Returns
        -------
        numpy.ndarray, float64, shape (n,)
            Net amount that came in through the border, ug.
        """
        steps = max(1, int(np.ceil(self.courant(flux_x, flux_y, seconds) / _COURANT)))
        dt = seconds / steps
        east = (flux_x * dt).astype(np.float32)
        north = (flux_y * dt).astype(np.float32)
        came_in = np.zeros(amount.shape[0])
        air = np.ones(amount.shape[1:], dtype=np.float32)
        for number in range(steps):
            sweeps = [self._sweep_x, self._sweep_y]
            fluxes = [east, north]
            for k in (0, 1) if number % 2 == 0 else (1, 0):
                came_in += sweeps[k](amount, air, fluxes[k])
        np.maximum(amount, 0, out=amount)  # -1e-42 of rounding, where a cell was emptied
        return came_in

    def _sweep_x(self, amount, air, flux):
        return self._sweep(amount, air, flux, self._inverse_area)

    def _sweep_y(self, amount, air, flux):
        turned = np.ascontiguousarray(amount.swapaxes(1, 2))
        turned_air = np.ascontiguousarray(air.T)
        came_in = self._sweep(
            turned, turned_air, np.ascontiguousarray(flux.T), self._inverse_area.T
        )
        amount[...] = turned.swapaxes(1, 2)
        air[...] = turned_air.T
        return came_in

    def _sweep(self, amount, air, flux, inverse_area) -> np.ndarray:
        """One step along the last axis; `flux` (rows, cols+1) in m2 of air."""
        n, rows, cols = amount.shape
        mixing = np.empty((n, rows, cols + 4), dtype=np.float32)
        mixing[..., :2] = mixing[..., -2:] = self.inflow[:, None, None]
        np.divide(amount, air, out=mixing[..., 2:-2])
        step = np.diff(mixing, axis=-1)  # (n, rows, cols + 3)
        slope = np.empty((n, rows, cols + 2), dtype=np.float32)
        work = np.empty_like(slope)
        _van_leer(step, slope, work)
        # Share of the upwind cell's air that crosses the face.
        padded = np.pad(air / inverse_area, ((0, 0), (1, 1)), "edge")
        east, west = np.maximum(flux, 0), np.minimum(flux, 0)
        half_east = 0.5 * east * (1 - east / padded[:, :-1])
        half_west = 0.5 * west * (1 + west / padded[:, 1:])
        through = mixing[..., 1:-2] * east
        through += mixing[..., 2:-1] * west
        through += slope[..., :-1] * half_east
        through -= slope[..., 1:] * half_west
        amount -= np.diff(through, axis=-1) * inverse_area
        air -= np.diff(flux, axis=-1) * inverse_area
        first, last = (through[..., k].sum(1, dtype=np.float64) for k in (0, -1))
        return first - last

    def diffuse(self, amount, diffusivity_x, diffusivity_y, seconds: float) -> None:
        """Mix `amount` (n, H, W) with its neighbours for `seconds`, in place.

        Parameters
        ----------
        diffusivity_x, diffusivity_y : array, shapes (H, W+1), (H+1, W)
            m2/s at the faces. Nothing passes the border of the domain.
        """
        geometry = self.geometry
        x = (diffusivity_x[:, 1:-1] * (geometry.dy / geometry.dx)).astype(np.float32)
        y = (diffusivity_y[1:-1] * (geometry.dx_edge[1:-1] / geometry.dy)).astype(np.float32)
        # Explicit steps keep amounts positive while less than a cell's content leaves it.
        most = 2 * max(x.max(initial=0), 1e-30) + 2 * max(y.max(initial=0), 1e-30)
        steps = max(1, int(np.ceil(float(most) * seconds / geometry.area.min() / 0.9)))
        x *= seconds / steps
        y *= seconds / steps
        change = np.empty_like(amount)
        for _ in range(steps):
            change[...] = 0
            through = np.diff(amount, axis=2) * x
            change[..., :-1] += through
            change[..., 1:] -= through
            through = np.diff(amount, axis=1) * y
            change[:, :-1] += through
            change[:, 1:] -= through
            change *= self._inverse_area
            amount += change
