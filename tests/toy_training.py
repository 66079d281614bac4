"""A tiny forecaster and in-memory samples, for tests of the training engine."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from aqnet.model.biases import Strength
from aqnet.model.config import ModelConfig
from aqnet.model.forecast_model import LossTerms, masked_terms
from aqnet.training.config import TrainingConfig
from aqnet.training.identity import Identity
from aqnet.training.problem import Problem

LEADS = (12, 24)
SHAPE = (3, 4)
FIRST_HOUR = 400_000  # 2015-08-19T16
IDENTITY = Identity(
    kind="stations",
    manifest="toy",
    manifest_sha256="a" * 64,
    stores=(("toy.zarr", "b" * 64),),
    grid="toy",
    grid_sha256="c" * 64,
    mask_sha256="d" * 64,
    variables=("u",),
    static_variables=("elevation",),
    normaliser_sha256="e" * 64,
    synthetic=True,
)


class ToyNetwork(nn.Module):
    """Cells as tokens: embedding, two blocks with dropout, decoder."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Linear(3, width)
        self.position = nn.Parameter(torch.randn(12, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                          nn.Dropout(dropout))
            for _ in range(2)
        )  # fmt: skip
        self.strength = Strength(1, (1.0,))
        self.decoder = nn.Linear(width, len(LEADS) * 6)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.tokens(inputs.flatten(2).mT) + self.position
        for block in self.blocks:
            x = x + self.strength() * block(x)
        return self.decoder(x).mT.reshape(len(inputs), len(LEADS), 6, *SHAPE)


class ToyForecaster(nn.Module):
    """A `ForecastModel` whose normalised unit is `scale` ug/m3."""

    kind = "stations"

    def __init__(self, dropout: float = 0.2, seed: int = 1, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.config = ModelConfig(lead_times_h=LEADS, width=width, dropout=dropout)
        self.network = ToyNetwork(width, dropout)
        self.register_buffer("scale", torch.tensor([10.0, 20, 5, 8, 300, 15]).view(6, 1, 1))

    def forward(self, batch: dict) -> torch.Tensor:
        return (self.network(batch["inputs"]) * self.scale).clamp_min(0)

    def terms(self, batch: dict) -> LossTerms:
        """As every forecaster."""
        lead = batch["lead"]
        forecast = self.network(batch["inputs"])[torch.arange(len(lead))[:, None], lead]
        return masked_terms(forecast, batch["target"], batch["weight"], lead, self.scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """As every forecaster."""
        return {"scale": self.scale.numpy()}


def nothing(numbers: list[int]) -> None:
    """At each batch."""


class ToySamples(Dataset):
    """n samples with unequal masks and some NaN targets; one lead a sample if `one_lead`.

    `on_batch`: called with the positions of each batch before it is made.
    """

    def __init__(self, n: int, seed: int = 0, one_lead: bool = False) -> None:
        draw = np.random.default_rng(seed)
        leads = 1 if one_lead else len(LEADS)
        self.inputs = torch.from_numpy(draw.normal(size=(n, 3, *SHAPE)).astype("f4"))
        lead = np.tile(np.arange(len(LEADS)), (n, 1))
        if one_lead:
            lead = draw.integers(0, len(LEADS), (n, 1))
        self.lead = torch.from_numpy(lead)
        shape = (n, leads, 6, *SHAPE)
        target = draw.normal(size=shape) + self.inputs.numpy().sum(1)[:, None, None]
        self.weight = torch.from_numpy((draw.random(shape) < draw.random((n, 1, 6, 1, 1)))
                                       .astype("f4"))  # fmt: skip
        target[draw.random(shape) < 0.05] = np.nan
        self.target = torch.from_numpy(target.astype("f4"))
        self.on_batch = nothing

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, numbers: list[int]) -> dict:
        self.on_batch(numbers)
        at = torch.as_tensor(numbers)
        return {
            "hours": FIRST_HOUR + at,
            "inputs": self.inputs[at],
            "lead": self.lead[at],
            "target": self.target[at],
            "weight": self.weight[at],
            "provenance": "toy",
        }


def problem(n: int = 40, n_validation: int = 11, one_lead: bool = False, **model) -> Problem:
    """A fresh problem; the same numbers each time."""
    weights = torch.linspace(0.5, 1.5, len(LEADS) * 6).view(len(LEADS), 6)
    return Problem(
        ToyForecaster(**model),
        ToySamples(n, 0, one_lead),
        ToySamples(n_validation, 1, one_lead),
        weights,
        IDENTITY,
    )


def config(**changes) -> TrainingConfig:
    """5 steps of two passes an epoch, 3 epochs; judged every 4 steps."""
    values = {
        "max_epochs": 3, "batch_size": 4, "effective_batch": 8, "learning_rate": 1e-2,
        "warmup_steps": 1, "ema_decay": 0.9, "validate_every": 4, "log_every": 1, "seed": 5,
    }  # fmt: skip
    return TrainingConfig(**values | changes)
