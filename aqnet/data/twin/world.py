"""The ground of the twin: cells, terrain, people, borders; real or rearranged by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from aqnet.data.geography import china_static
from aqnet.data.twin.config import TwinConfig
from aqnet.data.twin.synoptic import seeded
from aqnet.data.twin.terrain_flow import CellGeometry
from aqnet.errors import explain
from aqnet.grid import GRIDS, Grid, GridError

__all__ = ["World", "build_world", "correlated_noise", "rearranged"]

_BASIN_KM = 220.0  # scale above which a rearranged terrain keeps the real one


@dataclass(frozen=True, eq=False)
class World:
    """Fields of shape (H, W), rows south to north whatever the grid's orientation.

    elevation in m (sea 0), population in persons/km2, land and mask (China) bool. `flat`: stores
    are told that the elevation is 0.
    """

    grid: Grid
    geometry: CellGeometry
    elevation: np.ndarray
    population: np.ndarray
    land: np.ndarray
    mask: np.ndarray
    north_to_south: bool
    flat: bool = False

    def to_grid(self, field: np.ndarray) -> np.ndarray:
        """A field (..., H, W) in the orientation of the grid."""
        return field[..., ::-1, :] if self.north_to_south else field

    def static(self) -> np.ndarray:
        """Static variables of a store, (4, H, W) float32, in the orientation of the grid."""
        lat2d, lon2d = self.grid.mesh()
        written = np.zeros_like(self.elevation) if self.flat else self.elevation
        fields = [self.to_grid(written), self.to_grid(self.population)]
        return np.stack([lat2d, lon2d, *fields]).astype(np.float32)


def correlated_noise(geometry: CellGeometry, length_km: float, *key: int) -> np.ndarray:
    """Gaussian noise (H, W) of mean 0 and variance 1, smooth over `length_km`; a world's own.

    Drawn on a fixed mesh of 0.25 degree; cells take its nearest point, so that all grids see the
    same pattern.
    """
    fine_lat, fine_lon = np.arange(10.125, 60, 0.25), np.arange(70.125, 140, 0.25)
    noise = seeded(*key).standard_normal((fine_lat.size, fine_lon.size))
    sigma = length_km / (0.25 * 111.2)
    smooth = gaussian_filter(noise, (sigma, sigma / np.cos(np.deg2rad(36.0))), mode="wrap")
    smooth = (smooth - smooth.mean()) / smooth.std()
    rows = np.clip(np.rint((geometry.lat - fine_lat[0]) / 0.25).astype(int), 0, fine_lat.size - 1)
    cols = np.clip(np.rint((geometry.lon - fine_lon[0]) / 0.25).astype(int), 0, fine_lon.size - 1)
    return smooth[np.ix_(rows, cols)]


def rearranged(elevation: np.ndarray, geometry: CellGeometry, seed: int) -> np.ndarray:
    """Another terrain with the statistics of the real one.

    The terrain smoothed over 220 km stays. What it lacks, divided by its local amplitude, gets
    random phases under its own Fourier amplitudes, then its own distribution by rank, and its
    local amplitude back: plains stay plains, mountain country stays mountainous, but ridges and
    basins lie elsewhere. Sea stays sea.

    Parameters
    ----------
    elevation : array, shape (H, W)
        m, sea 0.
    seed : int
        0 returns the real terrain.
    """
    if seed == 0:
        return elevation
    sigma = (_BASIN_KM * 1e3 / geometry.dy, _BASIN_KM * 1e3 / float(geometry.dx.mean()))
    smooth = gaussian_filter(elevation, sigma)
    rough = elevation - smooth
    amplitude = np.sqrt(gaussian_filter(rough**2, sigma)) + 1.0
    shape = rough / amplitude
    spectrum = np.abs(np.fft.rfft2(shape))
    phases = np.fft.rfft2(seeded(seed, 11).standard_normal(shape.shape))
    noise = np.fft.irfft2(spectrum * phases / np.maximum(np.abs(phases), 1e-12), shape.shape)
    ranked = np.empty(shape.size)
    ranked[np.argsort(noise.ravel(), kind="stable")] = np.sort(shape.ravel())
    other = np.maximum(smooth + amplitude * ranked.reshape(shape.shape), 1.0)
    return np.where(elevation > 0, other, 0.0)


def build_world(config: TwinConfig) -> World:
    """World of a configuration.

    Raises
    ------
    GridError
        Unknown grid, or one with places where the terrain or the population is not known.
    DataError
        The shipped geography is missing or damaged.
    """
    if config.grid not in GRIDS:
        message = explain("the twin needs a named grid", expected=f"one of {', '.join(GRIDS)}",
                          found=config.grid, remedy="choose one of them")  # fmt: skip
        raise GridError(message)
    grid = GRIDS[config.grid]
    static = china_static(grid)
    down = grid.lat[0] > grid.lat[-1]
    elevation, population, mask = (
        static[name].values[::-1] if down else static[name].values
        for name in ("elevation", "population", "mask")
    )
    if static.attrs["missing"]:
        message = explain(
            f"the twin cannot be simulated on the grid {config.grid}",
            expected="terrain and population in every cell, outside China as well",
            found=static.attrs["missing"],
            remedy="choose the grid china or one of its coarser versions",
        )
        raise GridError(message)
    lat_edges, lon_edges = (np.sort(edges) for edges in grid.edges())
    geometry = CellGeometry(lat_edges, lon_edges)
    elevation = elevation.astype(np.float64)
    population = population.astype(np.float64)
    land = (elevation > 0.5) | (population > 0)
    return World(grid, geometry, rearranged(elevation, geometry, config.terrain_seed), population,
                 land, mask, bool(down), config.written_terrain == "flat")  # fmt: skip
