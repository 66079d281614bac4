"""Flow around terrain: a streamfunction whose fluxes avoid steep faces, exactly without divergence.

All winds of the twin that carry pollutants come from a streamfunction psi on the corners of the
cells. The volume flux through a face (m2/s, wind times face length) is the difference of psi
between its two ends, so what flows into a cell also flows out, whatever the terrain does.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from aqnet.grid import EARTH_RADIUS_KM

__all__ = ["CellGeometry", "TerrainFlow", "face_fluxes"]


class CellGeometry:
    """Lengths and areas of a regular latitude-longitude grid, rows south to north, in m.

    Parameters
    ----------
    lat_edges, lon_edges : array, shapes (H+1,), (W+1,)
        Ascending cell edges, degrees.
    """

    def __init__(self, lat_edges: np.ndarray, lon_edges: np.ndarray):
        radius = EARTH_RADIUS_KM * 1e3
        self.lat_edges, self.lon_edges = np.asarray(lat_edges), np.asarray(lon_edges)
        self.lat = 0.5 * (self.lat_edges[1:] + self.lat_edges[:-1])
        self.lon = 0.5 * (self.lon_edges[1:] + self.lon_edges[:-1])
        self.shape = (self.lat.size, self.lon.size)
        step_lon = np.deg2rad(self.lon_edges[1] - self.lon_edges[0])
        self.dy = radius * np.deg2rad(self.lat_edges[1] - self.lat_edges[0])
        self.dx = radius * step_lon * np.cos(np.deg2rad(self.lat))[:, None]  # (H, 1) at centres
        self.dx_edge = radius * step_lon * np.cos(np.deg2rad(self.lat_edges))[:, None]  # (H+1, 1)
        band = np.diff(np.sin(np.deg2rad(self.lat_edges)))
        self.area = np.repeat(radius**2 * step_lon * band[:, None], self.lon.size, axis=1)

    def face_steps(self, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Difference of a cell field across faces: x (H, W+1), y (H+1, W); 0 at the border."""
        x = np.zeros((self.shape[0], self.shape[1] + 1))
        y = np.zeros((self.shape[0] + 1, self.shape[1]))
        x[:, 1:-1], y[1:-1] = np.diff(height, axis=1), np.diff(height, axis=0)
        return x, y


def face_fluxes(psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eastward flux (H, W+1) and northward flux (H+1, W) in m2/s of psi (H+1, W+1) in m2/s."""
    return -np.diff(psi, axis=0), np.diff(psi, axis=1)


def _differences(rows: int, cols: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Matrices from corners to x-face and y-face fluxes, as `face_fluxes`."""
    along_rows = sparse.diags([-np.ones(rows), np.ones(rows)], [0, 1], shape=(rows, rows + 1))
    along_cols = sparse.diags([-np.ones(cols), np.ones(cols)], [0, 1], shape=(cols, cols + 1))
    x = -sparse.kron(along_rows, sparse.eye(cols + 1), format="csr")
    y = sparse.kron(sparse.eye(rows + 1), along_cols, format="csr")
    return x, y


class TerrainFlow:
    """Blocked streamfunctions over one terrain.

    The blocked flow is the one closest to the free flow that pays for crossing steep faces: it
    minimises sum over faces of w (F - F0)^2 + w r F^2, with F the flux, F0 the free flux, w the
    face's weight in kinetic energy and r = resistance * (1 - exp(-(step / scale)^2)), step being
    the slope across the face times `length_m`. The minimum over streamfunctions is one sparse
    linear system, factorised once; its flow goes around ridges, along valleys, and is weak in
    closed basins.

    Parameters
    ----------
    geometry : CellGeometry
    elevation : array, shape (H, W)
        m.
    resistance : float
        Largest r; 0 leaves every flow as it is.
    step_scale_m : float
        Height step at which blocking sets in.
    length_m : float
        Distance over which the slope counts, so that grids of any step see the same terrain.
    """

    def __init__(self, geometry, elevation, resistance, step_scale_m, length_m):
        self.geometry = geometry
        rows, cols = geometry.shape
        step_x, step_y = geometry.face_steps(np.asarray(elevation, dtype=np.float64))
        slope_x, slope_y = np.abs(step_x) / geometry.dx, np.abs(step_y) / geometry.dy
        self._x, self._y = _differences(rows, cols)
        wx = np.broadcast_to(geometry.dx / geometry.dy, step_x.shape).ravel()
        wy = np.broadcast_to(geometry.dy / geometry.dx_edge, step_y.shape).ravel()
        self._weights = wx, wy
        strength = [
            resistance * (1 - np.exp(-((slope * length_m / step_scale_m) ** 2)))
            for slope in (slope_x, slope_y)
        ]
        self._blocked = resistance > 0
        energy = self._operator(wx, wy)
        self._drag = self._operator(wx * strength[0].ravel(), wy * strength[1].ravel())
        # Only differences of psi matter: the first corner is held by a weight of the same size.
        pin = sparse.csr_matrix(([1.0], ([0], [0])), shape=energy.shape)
        self._energy_lu = splu((energy + pin).tocsc(), permc_spec="MMD_AT_PLUS_A")
        self._lu = splu((energy + self._drag + pin).tocsc(), permc_spec="MMD_AT_PLUS_A")

    def _operator(self, wx: np.ndarray, wy: np.ndarray) -> sparse.csr_matrix:
        return (self._x.T @ sparse.diags(wx) @ self._x) + (self._y.T @ sparse.diags(wy) @ self._y)

    def correction(self, psi: np.ndarray) -> np.ndarray:
        """What blocking adds to the streamfunction psi (H+1, W+1), m2/s."""
        if not self._blocked:
            return np.zeros_like(psi)
        return -self._lu.solve(self._drag @ psi.ravel()).reshape(psi.shape)

    def fit(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Streamfunction (H+1, W+1) of the flow closest to winds u, v (H, W) at centres, m/s.

        The divergent part of the winds has no streamfunction and is left out.
        """
        face_u = 0.5 * (np.pad(u, ((0, 0), (1, 0)), "edge") + np.pad(u, ((0, 0), (0, 1)), "edge"))
        face_v = 0.5 * (np.pad(v, ((1, 0), (0, 0)), "edge") + np.pad(v, ((0, 1), (0, 0)), "edge"))
        flux_x, flux_y = face_u * self.geometry.dy, face_v * self.geometry.dx_edge
        wx, wy = self._weights
        right = self._x.T @ (wx * flux_x.ravel()) + self._y.T @ (wy * flux_y.ravel())
        return self._energy_lu.solve(right).reshape(u.shape[0] + 1, u.shape[1] + 1)
