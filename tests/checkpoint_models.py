"""Small untrained forecasters of both kinds, with everything a domain can hold, and batches."""

from __future__ import annotations

import numpy as np
import torch
from checkpoints import identity

from aqnet.data.climatology import calendar_features
from aqnet.data.made_up import static_stack
from aqnet.data.normalisation import reference_constants
from aqnet.grid import Grid
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.domain import Domain
from aqnet.model.forecaster import Forecaster
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.ridge import RidgeFactors
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.model.statistical import STATISTICAL
from aqnet.training.checkpoint import Checkpoint
from aqnet.variables import DYNAMIC, STATIC, TARGETS

LEADS = (12, 48)
SMALL = {"lead_times_h": LEADS, "width": 16, "depth": 2, "heads": 2}
SHAPE = (8, 12)


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Give every weight a random part: nothing is zero by initialisation."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def domain(patch: int = 2, whole: bool = False, caches: bool = False) -> Domain:
    """A domain with mountains; with `caches` also ridges and scan orders."""
    rng, grid = np.random.default_rng(0), Grid("small", np.linspace(42, 35, 8), np.arange(100, 112))
    mask = np.ones(SHAPE, bool)
    mask[:3, :5] = whole
    heights = rng.uniform(0, 3000, SHAPE)
    people = rng.uniform(0, 1e4, SHAPE)
    static = static_stack(grid, elevation=heights, population=people).astype(np.float32)
    if not caches:
        return Domain(grid, mask, static)
    count = SHAPE[0] * SHAPE[1] // patch**2
    left, right = rng.uniform(0, 20, (2, count, 3)).astype(np.float32)
    ridge = RidgeFactors(left, right, {"relative": 0.1}, {"rank": 3, "grid_sha256": grid.digest})
    active = grid.active_patches(mask, patch)
    orders = build_orders(scan_spec(grid, patch, (2, 2), 8, 1, active))
    return Domain(grid, mask, static, ridge, orders)


def grid_model() -> GridForecaster:
    """Fields to fields: physics with ridges, embedded places along the wind."""
    scan = ScanConfig(mode="region", regions=(2, 2), sectors=8, lane_patches=1, rank_embedding=True)
    physics = PhysicsConfig(ridge=True)
    config = ModelConfig(**SMALL, physics=physics, scan=scan, decoder_depth=1)
    return shake(GridForecaster(config, domain(caches=True), reference_constants()))


def grid_batch() -> dict:
    """Two samples in physical units."""
    rng, cells, normal = np.random.default_rng(1), int(domain().mask.sum()), reference_constants()
    z = rng.normal(size=(2, 1, len(DYNAMIC), cells))
    inputs = normal.mean[:, None] + normal.spread[:, None] * z
    hours = np.array(["2014-01-05T06", "2014-07-09T21"], "datetime64[h]").astype(np.int64)
    return {
        "hours": torch.from_numpy(hours),
        "leads_h": torch.tensor(LEADS).repeat(2, 1),
        "inputs": torch.tensor(inputs, dtype=torch.float32),
    }


def station_model() -> Forecaster:
    """A correction of a statistical forecast, with its regression."""
    config = ModelConfig(**SMALL, trailing_means=True, correction=True, linear_part=True)
    rng = np.random.default_rng(2)
    start = rng.uniform(0, 1, (len(LEADS), len(TARGETS), 3))
    model = Forecaster(config, domain(whole=True), reference_constants(), start)
    model.set_linear_part(0.05 * rng.normal(size=model.linear.shape))
    return shake(model)


def station_batch() -> dict[str, torch.Tensor]:
    """Three samples."""
    rng, pollutants = np.random.default_rng(3), len(TARGETS)
    fields = (3, len(DYNAMIC), *SHAPE)
    times = np.array(["2014-01-05T06", "2014-07-09T21", "2014-10-01T00"], "datetime64[h]")
    valid = times[:, None] + np.array(LEADS).astype("timedelta64[h]")
    batch = {name: rng.normal(size=fields) for name in ("anomaly", "level", "mean_24h", "mean_30d")}
    batch |= {
        "ratio": rng.uniform(0.5, 2, fields[:2]),
        "now": rng.uniform(50, 100, (3, pollutants, *SHAPE)),
        "future": rng.uniform(50, 100, (3, len(LEADS), pollutants, *SHAPE)),
        "wind": rng.normal(size=(3, 2, *SHAPE)),
        "calendar": calendar_features(valid, 106.0),
    }
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in batch.items()}


# ---- their checkpoints

CASES = {"grid": (grid_model, grid_batch), "stations": (station_model, station_batch)}


def identity_of(model) -> dict:
    """Fields of the identity that the model itself decides."""
    digests = model.domain.digests() | {"normaliser_sha256": model.normaliser.digest}
    names = {"variables": DYNAMIC, "static_variables": STATIC}
    return {"kind": model.kind, "grid": model.domain.grid.name, **names, **digests}


def of_model(model, **changes) -> Checkpoint:
    """The checkpoint that training would write."""
    statistical = np.random.default_rng(0).uniform(size=(len(STATISTICAL), len(LEADS), 6, 3))
    extra = {"statistical": statistical, "chosen": [["climatology"] * 6] * len(LEADS)}
    parts = {"kind": model.kind, "config": model.config, "state": model.state_dict(),
             "arrays": model.arrays(), "identity": identity(**identity_of(model)),
             "extra": extra if model.kind == "stations" else {}}  # fmt: skip
    return Checkpoint(**parts | changes)


def bitwise(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, NaN included."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
