"""Domain and normaliser as named arrays: what makes a checkpoint independent of files beside it."""

from __future__ import annotations

import json

import numpy as np

from aqnet.data.normalisation import Normaliser, arrays_of, normaliser_of_arrays
from aqnet.errors import DataError, explain
from aqnet.grid import Grid, GridError
from aqnet.model.attention import ModelError
from aqnet.model.domain import Domain
from aqnet.model.ridge import RidgeFactors
from aqnet.model.scan_cache import RANKS
from aqnet.model.scan_orders import ScanOrders, scan_spec

__all__ = ["model_arrays", "model_parts", "required", "text_array", "text_of"]


def model_arrays(domain: Domain, normaliser: Normaliser) -> dict[str, np.ndarray]:
    """Arrays `domain.*` and `normaliser.*`, of types that a tensor can have; text as its bytes."""
    grid, found = domain.grid, {"grid": text_array(domain.grid.name), "lat": domain.grid.lat}
    found |= {"lon": grid.lon, "mask": domain.mask, "static": domain.static}
    if domain.ridge is not None:
        found |= _ridge_arrays(domain.ridge)
    if domain.orders is not None:
        found |= _scan_arrays(domain.orders)
    named = {f"domain.{name}": np.array(values) for name, values in found.items()}
    return named | {f"normaliser.{n}": np.array(v) for n, v in arrays_of(normaliser).items()}


def model_parts(arrays: dict[str, np.ndarray]) -> tuple[Domain, Normaliser]:
    """Inverse of `model_arrays`; other arrays are left alone.

    Raises
    ------
    ModelError
        An array is missing, or they do not fit each other.
    """
    try:
        normaliser = normaliser_of_arrays(_under("normaliser.", arrays))
        return _domain_of(_under("domain.", arrays)), normaliser
    except KeyError as problem:
        raise _incomplete(arrays, f"no {problem}") from problem
    except (DataError, GridError) as problem:
        raise _incomplete(arrays, str(problem).splitlines()[0]) from problem


def text_array(text: str) -> np.ndarray:
    """Text as (n,) uint8, UTF-8: arrays of text cannot become tensors."""
    return np.array(bytearray(text.encode()), dtype=np.uint8)


def text_of(values: np.ndarray) -> str:
    """Inverse of `text_array`."""
    return np.asarray(values, dtype=np.uint8).tobytes().decode()


def required(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """An array by name; ModelError if it is missing."""
    if name not in arrays:
        raise _incomplete(arrays, f"no {name!r}")
    return np.asarray(arrays[name])


def _incomplete(arrays: dict[str, np.ndarray], problem: object) -> ModelError:
    return ModelError(
        explain(
            "the arrays of a model are not complete",
            expected="those that its method `arrays` gives",
            found=f"{problem}, among {', '.join(sorted(arrays)) or 'none'}",
            remedy="take them from a checkpoint that is whole",
        )
    )


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {name: np.asarray(v) for name, v in arrays.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): values for name, values in found.items()}


def _domain_of(a: dict[str, np.ndarray]) -> Domain:
    grid = Grid(text_of(a["grid"]), a["lat"], a["lon"])
    ridge = _ridge_of(a) if "ridge.left" in a else None
    orders = _orders_of(grid, a) if "scan.spec" in a else None
    return Domain(grid, a["mask"].astype(bool), a["static"], ridge, orders)


def _ridge_arrays(ridge: RidgeFactors) -> dict[str, np.ndarray]:
    said = json.dumps({"errors": ridge.errors, "header": ridge.header})
    return {"ridge.left": ridge.left, "ridge.right": ridge.right, "ridge.said": text_array(said)}


def _ridge_of(a: dict[str, np.ndarray]) -> RidgeFactors:
    return RidgeFactors(a["ridge.left"], a["ridge.right"], **json.loads(text_of(a["ridge.said"])))


def _scan_arrays(orders: ScanOrders) -> dict[str, np.ndarray]:
    # the orders themselves: another version of `build_orders` may give others
    spec = orders.spec
    numbers = np.array([spec.patch_size, *spec.regions, spec.sectors, spec.lane_patches])
    ranks = {f"scan.{name}": getattr(orders, name).astype(np.int32) for name in RANKS}
    return {"scan.spec": numbers, "scan.active": spec.active, **ranks}


def _orders_of(grid: Grid, a: dict[str, np.ndarray]) -> ScanOrders:
    patch, rows, columns, sectors, lane = a["scan.spec"].tolist()
    spec = scan_spec(grid, patch, (rows, columns), sectors, lane, a["scan.active"].astype(bool))
    ranks = {name: a[f"scan.{name}"] for name in RANKS}
    small = {n: v.astype(np.min_scalar_type(int(v.max()))) for n, v in ranks.items()}
    return ScanOrders(spec, **small)
