"""Values of a field at stations, and how well the cells there stand for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from aqnet.errors import CoverageError, explain
from aqnet.grid import Grid, GridError, distance_km
from aqnet.verification.stations.network import Stations

__all__ = ["METHODS", "MIN_SHARE", "Sampling", "sample_stations"]

METHODS = ("nearest", "bilinear")
MIN_SHARE = 0.5  # as for regridding: less is mostly somewhere else


@dataclass(frozen=True, eq=False)
class Sampling:
    """How S stations see a grid.

    Attributes
    ----------
    method : str
    stations : Stations
    matrix : sparse (S, N)
        Weights of the N active cells, each row sums to 1.
    cell : (S,) int64
        Cell that the station lies in, position in the flattened grid.
    distance_km : (S,) float64
        From the station to the centre of that cell.
    height_difference_m : (S,) float64
        Height of the station minus that of the cell; NaN where one is not known.
    share : (S,) float64
        Part of the weights that lay in the mask, before they were scaled to 1.
    dropped : dict of str to str
        Stations that were left out, and why.
    """

    method: str
    stations: Stations
    matrix: sparse.csr_array
    cell: np.ndarray
    distance_km: np.ndarray
    height_difference_m: np.ndarray
    share: np.ndarray
    dropped: dict[str, str]

    def __call__(self, cells: np.ndarray) -> np.ndarray:
        """Values (..., S), float32, of active cells (..., N), as `ForecastStore.read` gives."""
        flat = np.ascontiguousarray(cells).reshape(-1, cells.shape[-1])
        return (self.matrix @ flat.T).T.reshape(*cells.shape[:-1], -1).astype(np.float32)

    def table(self) -> list[dict]:
        """A line a station: id, network, class, withheld and the representativeness."""
        s = self.stations
        columns = {
            "id": s.ids, "network": s.networks, "class": s.classes, "withheld": s.withheld,
            "lat": s.lat, "lon": s.lon, "distance_km": self.distance_km.round(2),
            "height_difference_m": self.height_difference_m.round(0), "share": self.share.round(3),
        }  # fmt: skip
        lists = {name: values.tolist() for name, values in columns.items()}
        return [dict(zip(lists, line, strict=True)) for line in zip(*lists.values(), strict=True)]


def sample_stations(
    grid: Grid,
    mask: np.ndarray,
    stations: Stations,
    method: str = "bilinear",
    *,
    elevation_m: np.ndarray | None = None,
    outside: str = "refuse",
) -> Sampling:
    """Weights of the active cells at stations.

    Parameters
    ----------
    grid : Grid
    mask : (H, W) bool
        Active cells.
    stations : Stations
        Longitudes from 0 to 360 are brought to those of the grid.
    method : str
        "nearest": the cell that the station lies in. "bilinear": the four centres around it, those
        in the mask scaled to a sum of 1 if they have at least `MIN_SHARE` of the weight.
    elevation_m : (H, W), optional
        Of the cells, for `height_difference_m`.
    outside : str
        Stations outside the grid or the mask: "refuse", or "drop" and list.

    Raises
    ------
    GridError
        A station is outside, if refused; names them.
    CoverageError
        No station is left.
    """
    lon = grid.lon.mean() - 180 + (stations.lon - grid.lon.mean() + 180) % 360
    row, down = _cell_of(grid.lat, stations.lat)
    col, right = _cell_of(grid.lon, lon)
    if method == "bilinear":
        inside = (np.abs(down) <= 1e-9) & (np.abs(right) <= 1e-9)
        inside &= _between(grid.lat, stations.lat) & _between(grid.lon, lon)
        # the nearest cell's centre stands in for places outside, which are left out below
        lat, east = (np.where(inside, a, axis[i]) for a, axis, i in
                     ((stations.lat, grid.lat, row), (lon, grid.lon, col)))  # fmt: skip
        index, weight = grid.bilinear(lat, east)
        where = "outside the outermost cell centres"
    elif method == "nearest":
        inside = (np.abs(down) <= 1e-9) & (np.abs(right) <= 1e-9)
        index, weight = (row * grid.shape[1] + col)[:, None], np.ones((len(row), 1))
        where = "outside the grid"
    else:
        raise ValueError(f"method: one of {METHODS}, not {method!r}")
    active = mask.ravel()[index]
    share = (weight * active).sum(1)
    reasons = np.where(share >= MIN_SHARE, "", "outside the mask").astype(object)
    reasons[~inside] = where
    kept = np.flatnonzero(reasons == "")
    dropped = {str(stations.ids[i]): reasons[i] for i in np.flatnonzero(reasons != "")}
    _check_outside(grid, dropped, outside, len(kept))
    matrix = _matrix(mask, index[kept], (weight * active)[kept] / share[kept, None])
    cell, chosen = (row * grid.shape[1] + col)[kept], stations.take(kept)
    away = distance_km(chosen.lat, chosen.lon, *(axis.ravel()[cell] for axis in grid.mesh()))
    heights = np.full(mask.size, np.nan) if elevation_m is None else np.ravel(elevation_m)
    return Sampling(method, chosen, matrix, cell, away, chosen.elevation_m - heights[cell],
                    share[kept], dropped)  # fmt: skip


def _cell_of(axis: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell that a coordinate lies in, and how far it is beyond the grid's edge, in cells."""
    position = (value - axis[0]) / (axis[1] - axis[0])
    beyond = position - np.clip(position, -0.5, axis.size - 0.5)
    return np.clip(np.round(position), 0, axis.size - 1).astype(np.int64), beyond


def _between(axis: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Between the outermost centres, as `Grid.bilinear` asks."""
    position = (value - axis[0]) / (axis[1] - axis[0])
    return (position >= -1e-9) & (position <= axis.size - 1 + 1e-9)


def _matrix(mask: np.ndarray, index: np.ndarray, weight: np.ndarray) -> sparse.csr_array:
    """Weights over active cells; cells outside the mask have none."""
    number = np.cumsum(mask.ravel()) - 1
    place, corner = np.nonzero(weight > 0)
    pairs = (place, number[index[place, corner]])
    return sparse.csr_array((weight[place, corner], pairs), shape=(len(index), int(mask.sum())))


def _check_outside(grid: Grid, dropped: dict[str, str], outside: str, kept: int) -> None:
    if dropped and outside != "drop":
        shown = "; ".join(f"{name} {why}" for name, why in list(dropped.items())[:5])
        raise GridError(
            explain(f"{len(dropped)} stations cannot be sampled on {grid.name}",
                    expected=f"places in the mask, {grid.lat.min():g} to {grid.lat.max():g} N, "
                    f"{grid.lon.min():g} to {grid.lon.max():g} E", found=shown,
                    remedy="leave them out by outside='drop', or choose a larger grid")
        )  # fmt: skip
    if not kept:
        raise CoverageError(
            explain(f"no station can be sampled on {grid.name}", expected="at least one",
                    found=f"{len(dropped)} outside", remedy="choose other stations or another grid")
        )  # fmt: skip
