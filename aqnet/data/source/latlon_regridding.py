"""From one regular latitude-longitude grid to another, by the weights of `regridding`."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from aqnet.data.source.regridding import RegridWeights
from aqnet.errors import ParameterError, explain
from aqnet.grid import Grid

__all__ = ["METHODS", "latlon_weights"]


def latlon_weights(method: str, source: Grid, target: Grid) -> RegridWeights:
    """Weights from `source` to `target`; both may ascend or descend.

    Parameters
    ----------
    method : str
        "area": shares of overlap on the sphere, which keep the total of a concentration over area;
        the part of a target cell beyond the source has no weight. "bilinear": the four centres
        around a target centre; none where it lies outside the outermost source centres.
    source, target : Grid
        Longitudes must be in the same turn: see `aqnet.verification.foreign.files`.

    Returns
    -------
    RegridWeights
        On a sphere the overlap of two cells is that of their longitudes times that of the sines
        of their latitudes: the weights are the product of two small matrices, and exact.

    Raises
    ------
    ParameterError
        Another method.
    """
    if method not in METHODS:
        raise ParameterError(
            explain("no such way of regridding", expected=" or ".join(METHODS), found=method,
                    remedy="choose one of them")
        )  # fmt: skip
    rows, cols = METHODS[method](source, target)
    matrix = sparse.csr_array(sparse.kron(rows, cols, format="csr"))
    matrix.sort_indices()
    return RegridWeights(
        method,
        source.shape,
        target.shape,
        source.digest,
        target.digest,
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data,
    )


def _shares(source: np.ndarray, target: np.ndarray) -> sparse.csr_array:
    """Share of each target interval that lies in each source interval; edges, any direction."""
    bounds = [np.sort(np.stack([e[:-1], e[1:]]), axis=0) for e in (source, target)]
    (low, high), (first, last) = bounds
    shared = np.minimum(last[:, None], high) - np.maximum(first[:, None], low)
    width = (last - first)[:, None]
    # equal edges that were computed differently would share 1e-16 of a cell with a neighbour
    return sparse.csr_array(np.where(shared > 1e-12 * width, shared / width, 0.0))


def _area(source: Grid, target: Grid) -> tuple[sparse.csr_array, sparse.csr_array]:
    (lat_s, lon_s), (lat_t, lon_t) = source.edges(), target.edges()
    sines = [np.sin(np.deg2rad(np.clip(lat, -90, 90))) for lat in (lat_s, lat_t)]
    return _shares(*sines), _shares(lon_s, lon_t)


def _bilinear(source: Grid, target: Grid) -> tuple[sparse.csr_array, sparse.csr_array]:
    return _linear(source.lat, target.lat), _linear(source.lon, target.lon)


def _linear(source: np.ndarray, target: np.ndarray) -> sparse.csr_array:
    """Weights of the two source centres around each target centre; none outside."""
    place = (target - source[0]) / (source[1] - source[0])
    inside = np.flatnonzero((place >= -1e-9) & (place <= source.size - 1 + 1e-9))
    place = np.clip(place[inside], 0, source.size - 1)
    low = np.clip(np.floor(place).astype(np.int64), 0, source.size - 2)
    weight = np.concatenate([1 - (place - low), place - low])
    pairs = (np.tile(inside, 2), np.concatenate([low, low + 1]))
    matrix = sparse.csr_array((weight, pairs), shape=(target.size, source.size))
    matrix.eliminate_zeros()
    return matrix


METHODS = {"area": _area, "bilinear": _bilinear}
