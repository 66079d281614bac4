"""Small checkpoints without a real model behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aqnet.code_state import GitState
from aqnet.model.config import ModelConfig
from aqnet.training.checkpoint import Checkpoint, Code, Progress, write_checkpoint
from aqnet.training.identity import Identity

OTHER = "9" * 64  # a SHA-256 of something else
CODE = Code(aqnet="0.2.0", torch="2.13.0", git=GitState(state="clean", commit="c" * 40))


def identity(**changes) -> Identity:
    """What a made-up training over China was made from."""
    facts = {
        "kind": "grid",
        "manifest": "china",
        "manifest_sha256": "a" * 64,
        "stores": (("2013.zarr", "1" * 64), ("2014.zarr", "2" * 64)),
        "grid": "china",
        "grid_sha256": "b" * 64,
        "mask_sha256": "c" * 64,
        "variables": ("u", "v", "temp", "pm10", "so2"),
        "static_variables": ("elevation", "population"),
        "normaliser_sha256": "d" * 64,
        "statistics_sha256": "e" * 64,
        "scan_sha256": None,
        "terrain_sha256": "f" * 64,
        "synthetic": True,
    }
    return Identity(**facts | changes)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of several types and shapes."""
    g = torch.Generator().manual_seed(seed)
    return {
        "network.tokens.weight": torch.randn(3, 4, generator=g),
        "network.blocks.0.mlp.weight": torch.randn(8, 4, generator=g),
        "network.blocks.0.mlp.bias": torch.randn(8, generator=g).bfloat16(),
        "network.blocks.1.mlp.weight": torch.randn(8, 4, generator=g),
        "network.decode.empty": torch.zeros(0, 4),
        "count": torch.tensor(3),
    }


def made_up(**changes) -> Checkpoint:
    """A checkpoint of random numbers."""
    parts = {
        "kind": "grid",
        "config": ModelConfig(width=16, heads=2),
        "state": weights(),
        "arrays": {"domain.mask": np.eye(4, dtype=bool), "domain.lat": np.linspace(18, 53, 4)},
        "identity": identity(),
        "progress": Progress(step=86, epoch=1, val_loss=0.25),
        "extra": {"chosen": [["climatology", "persistence"]], "variance": np.array([0.5, 2.0])},
        "code": CODE,
    }
    return Checkpoint(**parts | changes)


def training_state(numbers: int = 32) -> dict:
    """What an engine stores to go on, with the kinds of values that optimisers hold."""
    moments = {"exp_avg": torch.ones(numbers), "exp_avg_sq": torch.full((numbers,), 2.0)}
    optimiser = {
        "state": {0: {"step": torch.tensor(5.0), **moments}},
        "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.95), "fused": None, "params": [0]}],
    }
    return {"optimiser": optimiser, "step": 5, "best": float("inf"), "curve": [0.5, 0.25]}


def written(path: Path) -> Path:
    """Write a checkpoint with a training state; gives its path back."""
    write_checkpoint(path, made_up(training=training_state()))
    return path


def same_tree(a: object, b: object) -> bool:
    """Equal types and values, tensors bitwise."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_tree(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_tree, a, b))
    return a == b
