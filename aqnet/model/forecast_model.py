"""What every forecaster offers to training, checkpoints and verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from aqnet.model.config import ModelConfig

__all__ = ["ForecastModel", "LossTerms", "masked_terms"]


@dataclass(frozen=True)
class LossTerms:
    """What a loss is made of; B samples, L leads.

    Attributes
    ----------
    error : (B, L, 6, H, W) [1]
        Normalised forecast minus truth, 0 where `weight` is 0. A forecast that is not finite
        stays so: the training loop names the batch.
    weight : (B, L, 6, H, W), 0 or 1
        Whether the cell counts; 0 wherever the truth is not finite.
    lead : (B, L) int64
        Position of each lead in `config.lead_times_h`.
    scale : broadcasts to `error`, ug/m3
        Of one normalised unit: ``scale * error`` is the error in ug/m3.
    """

    error: torch.Tensor
    weight: torch.Tensor
    lead: torch.Tensor
    scale: torch.Tensor


def masked_terms(
    forecast: torch.Tensor,
    truth: torch.Tensor,
    weight: torch.Tensor,
    lead: torch.Tensor,
    scale: torch.Tensor,
) -> LossTerms:
    """Terms of a normalised forecast and truth; all but `lead` as in `LossTerms`.

    Where the weight is 0 or the truth is not finite, the error is exactly 0, and so is the
    gradient: selected, not multiplied by 0, which would keep a NaN.
    """
    counts = (weight > 0) & torch.isfinite(truth)
    error = torch.where(counts, forecast - truth, 0.0)
    return LossTerms(error, counts.to(error.dtype), lead, scale)


@runtime_checkable
class ForecastModel(Protocol):
    """A torch module that forecasts six pollutants from batches of its kind of samples.

    `kind` says of which: "stations" (batches of `ForecastSamples`) or "grid" (of `FieldSamples`).
    Subclasses of `torch.nn.Module`; the transformer is their attribute `network`.
    """

    kind: Literal["stations", "grid"]
    config: ModelConfig
    network: torch.nn.Module

    def forward(self, batch: dict) -> torch.Tensor:
        """Forecast (B, L, 6, H, W), ug/m3, not negative; what is no part of the domain is NaN."""

    def terms(self, batch: dict) -> LossTerms:
        """Terms of the loss of a batch, before negative concentrations are cut off."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Numbers from which `from_arrays` builds the model anew: all but trained weights."""

    @classmethod
    def from_arrays(cls, config: ModelConfig, arrays: dict[str, np.ndarray]) -> ForecastModel:
        """Inverse of `arrays`, with fresh weights; ModelError if an array is missing."""
