"""Small networks on made-up hills, for the tests of the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from aqnet.data.made_up import static_stack
from aqnet.grid import Grid
from aqnet.model.config import ModelConfig
from aqnet.model.network import Domain, FieldTransformer
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.ridge import RidgeFactors, factor_ridge, ridge_matrix
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.variables import INPUTS

torch.set_num_threads(1)

GRID = Grid("hills", 30.0 + 0.4 * np.arange(12), 100.0 + 0.4 * np.arange(16))
SMALL = {"width": 32, "heads": 2, "depth": 2, "lead_times_h": (12, 24, 48)}
ALL = PhysicsConfig(ridge=True)


def terrain(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 600.0, GRID.shape)


def mask(full: bool = False) -> np.ndarray:
    rows, columns = np.indices(GRID.shape)
    return np.ones(GRID.shape, bool) if full else (rows - 4) ** 2 + (columns - 8) ** 2 < 30


def domain(config: ModelConfig, full: bool = False) -> Domain:
    """Hills with ridges, and orders if the configuration has a scan."""
    static = static_stack(GRID, elevation=terrain(), population=0)
    patches = GRID.patches(config.patch).shape
    cells = terrain().reshape(patches[0], config.patch, patches[1], config.patch)
    factors = factor_ridge(ridge_matrix(cells.mean((1, 3))), patches, 4)
    ridge = RidgeFactors(*factors, {}, {"grid_sha256": GRID.digest})
    found = Domain(GRID, mask(full), static, ridge)
    if config.scan.mode == "none":
        return found
    scan, active = config.scan, found.tokens(config)
    spec = scan_spec(GRID, config.patch, scan.regions, scan.sectors, scan.lane_patches, active)
    return Domain(GRID, found.mask, static, found.ridge, build_orders(spec))


def shaken(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Every weight random: nothing is hidden by a start at zero."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=std if parameter.dim() > 1 else 0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    return module


def network(full: bool = False, seed: int = 0, channels=INPUTS, **changes) -> FieldTransformer:
    config = ModelConfig(**{**SMALL, **changes})
    torch.manual_seed(seed)
    return shaken(FieldTransformer(config, channels, domain(config, full))).eval()


def inputs(batch: int = 2, leads: int = 3, seed: int = 1, channels: int = len(INPUTS)) -> dict:
    torch.manual_seed(seed)
    return {
        "fields": torch.randn(batch, channels, *GRID.shape),
        "wind": 6 * torch.randn(batch, 2, 1, 1) + torch.randn(batch, 2, *GRID.shape),
        "calendar": torch.randn(batch, leads, 6),
    }


def one_lead(hours, **options) -> dict:
    lead = torch.as_tensor(hours, dtype=torch.float32)
    return {**inputs(len(lead), 1, **options), "lead_time_h": lead}
