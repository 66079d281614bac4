"""The domain of a network: its grid, what is fixed there, and which patches are tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from aqnet.errors import explain
from aqnet.grid import Grid
from aqnet.model.array_cache import array_digest
from aqnet.model.attention import ModelError, TokenDomain
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.ridge import RIDGE_VERSION, RidgeFactors
from aqnet.model.scan import WindScan, effective_scan_mode
from aqnet.model.scan_cache import RANKS, SCAN_KIND, header_of, scan_options, with_margin
from aqnet.model.scan_orders import ALGORITHM_VERSION, ScanOrders
from aqnet.variables import STATIC

__all__ = ["Domain", "cells_of", "token_domain", "wind_scan"]


@dataclass(frozen=True, eq=False)
class Domain:
    """Where a network forecasts.

    Attributes
    ----------
    grid : Grid
    mask : (H, W) bool
        Cells with data.
    static : (4, H, W) float, order STATIC
        Degrees, degrees, m, persons/km2.
    ridge : RidgeFactors or None
        Of all patches of the grid, row by row (`aqnet terrain build`).
    orders : ScanOrders or None
        Of the patches that are tokens (`aqnet wind-scan build`).

    Raises
    ------
    ModelError
        Shapes that are not those of the grid, no cell with data, elevation with gaps, a static
        field without values.
    """

    grid: Grid
    mask: np.ndarray
    static: np.ndarray
    ridge: RidgeFactors | None = None
    orders: ScanOrders | None = None

    def __post_init__(self) -> None:
        shape = self.grid.shape
        if self.mask.shape != shape or self.mask.dtype != bool or not self.mask.any():
            raise _refuse(
                "the mask is not one of the grid",
                f"bool, shape {shape}, with at least one cell",
                f"{self.mask.dtype}, shape {self.mask.shape}, {int(self.mask.sum())} cells",
            )
        if self.static.shape != (len(STATIC), *shape):
            raise _refuse(
                "the static fields are not of the grid",
                f"{', '.join(STATIC)}: shape {(len(STATIC), *shape)}",
                self.static.shape,
            )
        gaps = int((~np.isfinite(self.elevation)).sum())
        if gaps:
            raise _refuse("the elevation has gaps", "a value in every cell, m", f"{gaps} without")
        known = np.isfinite(self.static[:, self.mask]).any(1)
        if not known.all():
            raise _refuse(
                "a static field has no value in the domain",
                f"values of {', '.join(STATIC)}",
                f"none of {', '.join(n for n, k in zip(STATIC, known, strict=True) if not k)}",
                "build the stores with this field",
            )

    @property
    def elevation(self) -> np.ndarray:
        """(H, W) m."""
        return self.static[STATIC.index("elevation")]

    def tokens(self, config: ModelConfig) -> np.ndarray:
        """Patches that are tokens, (rows, columns) bool; GridError if they do not divide it."""
        active = self.grid.active_patches(self.mask, config.patch)
        if config.tokens == "full":
            return np.ones_like(active)
        return with_margin(active, config.active_margin)

    def digests(self) -> dict[str, str | None]:
        """SHA-256 of grid, mask, scan orders and ridge factors, under the names of `Identity`."""
        return {
            "grid_sha256": self.grid.digest,
            "mask_sha256": hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest(),
            "scan_sha256": None if self.orders is None else _digest_of_scan(self.orders),
            "terrain_sha256": None if self.ridge is None else _digest_of_ridge(self.ridge),
        }


def _refuse(problem: str, expected: object, found: object, remedy: str | None = None) -> ModelError:
    remedy = remedy or "take mask and static fields from the store or the grid itself"
    return ModelError(explain(problem, expected=expected, found=found, remedy=remedy))


def _digest_of_scan(orders: ScanOrders) -> str:
    arrays = {name: getattr(orders, name) for name in RANKS}
    return array_digest(SCAN_KIND, ALGORITHM_VERSION, header_of(orders.spec), arrays)


def _digest_of_ridge(ridge: RidgeFactors) -> str:
    arrays = {"left": ridge.left, "right": ridge.right}
    return array_digest("terrain", RIDGE_VERSION, ridge.header, arrays)


# ---- what the network is built from


def cells_of(active: np.ndarray, patch: int) -> np.ndarray:
    """Flat cells of each token, (N, patch * patch) int64, row by row in patches and within."""
    rows, columns = np.nonzero(active)
    inner = np.arange(patch)
    row = rows[:, None, None] * patch + inner[:, None]
    column = columns[:, None, None] * patch + inner
    return (row * (active.shape[1] * patch) + column).reshape(len(rows), -1)


def token_domain(config: ModelConfig, domain: Domain) -> TokenDomain:
    """Places, mean elevation and ridges of the tokens.

    Raises
    ------
    ModelError
        The configuration asks for ridges and the domain has none, or those of another grid.
    """
    active, at = domain.tokens(config), domain.grid.patches(config.patch)
    rows, columns = np.nonzero(active)
    elevation = domain.elevation.reshape(-1)[cells_of(active, config.patch)].mean(1)
    places = TokenDomain(
        at.lat[rows],
        at.lon[columns],
        elevation.astype(np.float32),
        np.stack([rows, columns], axis=1),
        _ridge_of(config, domain, active),
    )
    places.patch_span = active.shape  # of the grid, whichever of its patches are tokens
    return places


def _ridge_of(config: ModelConfig, domain: Domain, active: np.ndarray):
    if config.physics is None or not config.physics.ridge:
        return None
    wanted, found = (active.size, domain.grid.digest[:12]), None
    if domain.ridge is not None:
        made_for = domain.ridge.header.get("grid_sha256") or "not stated"
        found = (len(domain.ridge.left), made_for[:12])
    if found != wanted:
        raise _refuse(
            "physics.ridge needs the ridges of all patches of the grid",
            "{} patches of the grid {}".format(*wanted),
            "none" if found is None else "{} patches of the grid {}".format(*found),
            f"build them with `aqnet terrain build --grid {domain.grid.name} "
            f"--patch-size {config.patch}`, or set physics.ridge to false",
        )
    at = np.flatnonzero(active)
    return domain.ridge.left[at], domain.ridge.right[at]


def wind_scan(config: ModelConfig, domain: Domain) -> WindScan | None:
    """The scan of a configuration; None where no order is wanted or nothing depends on it.

    Raises
    ------
    ModelError
        The domain has no orders, or those of something else (says what differs).
    """
    scan = config.scan
    mode = effective_scan_mode(scan.mode, depends_on_order=scan.used)
    if mode == "none":
        return None
    if domain.orders is None:
        raise _refuse(
            f"scan mode {mode!r} needs the orders of the tokens",
            "Domain(..., orders=...)",
            "none",
            f"{_how_to_build(config, domain)} and load them, or set scan.mode to 'none'",
        )
    _require_orders(config, domain)
    return WindScan(domain.orders, mode, scan.calm_m_s)


def _require_orders(config: ModelConfig, domain: Domain) -> None:
    spec, scan, active = domain.orders.spec, config.scan, domain.tokens(config)
    asked = _numbers(config.patch, scan) | {"grid": domain.grid.digest[:12]}
    have = {
        "patch": spec.patch_size,
        "regions": spec.regions,
        "sectors": spec.sectors,
        "lane_patches": spec.lane_patches,
        "grid": spec.grid.digest[:12],
    }
    other = [name for name in asked if asked[name] != have[name]]
    if not other and not np.array_equal(spec.active, active):
        asked["tokens"], have["tokens"] = int(active.sum()), int(spec.active.sum())
        other = ["tokens"]
    if other:
        raise _refuse(
            "the scan orders are not those of this configuration",
            ", ".join(f"{name} = {asked[name]}" for name in other),
            ", ".join(f"{name} = {have[name]}" for name in other),
            _how_to_build(config, domain),
        )


def _how_to_build(config: ModelConfig, domain: Domain) -> str:
    """What builds the orders of a configuration; its tokens follow the mask of the stores."""
    scan, which = config.scan, f"--manifest NAME --margin {config.active_margin}"
    if config.tokens == "full":
        which = f"--grid {domain.grid.name} --active all"
    sizes = scan_options(config.patch, scan.regions, scan.sectors, scan.lane_patches)
    note = "" if config.tokens == "full" else " (NAME: the manifest of the stores)"
    return f"build them with `aqnet wind-scan build {which} {sizes}`{note}"


def _numbers(patch: int, scan: ScanConfig) -> dict:
    return {
        "patch": patch,
        "regions": scan.regions,
        "sectors": scan.sectors,
        "lane_patches": scan.lane_patches,
    }
