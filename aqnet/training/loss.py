"""The loss: a weighted sum over all known cells of a step, divided by their number."""

from __future__ import annotations

import torch
from torch import nn

from aqnet.model.forecast_model import ForecastModel, LossTerms
from aqnet.training.config import TrainingConfig
from aqnet.variables import TARGETS

__all__ = ["CellLoss", "Objective", "by_lead"]


def by_lead(values: torch.Tensor, lead: torch.Tensor, leads: int) -> torch.Tensor:
    """Sums over samples: values (B, L, 6) at positions lead (B, L) give (leads, 6)."""
    sums = values.new_zeros(leads, values.shape[-1])
    return sums.index_add(0, lead.flatten(), values.flatten(0, 1))


class CellLoss(nn.Module):
    """Loss of single errors, and its weight for each lead time and pollutant.

    "mse" is e**2. "huber" is the same up to `huber_delta` and 2 delta |e| - delta**2 beyond it:
    continuous with its slope, and the same unit as mse.

    Parameters
    ----------
    config : TrainingConfig
    weights : (L, 6) tensor
        Of the problem; those of the pollutants in `config` come on top.
    """

    def __init__(self, config: TrainingConfig, weights: torch.Tensor) -> None:
        super().__init__()
        own = torch.tensor([config.pollutant_weights.get(name, 1.0) for name in TARGETS])
        self.register_buffer("weights", weights.float() * own, persistent=False)
        self.delta = config.huber_delta if config.loss == "huber" else None

    def forward(self, error: torch.Tensor) -> torch.Tensor:
        if self.delta is None:
            return error.square()
        size = error.abs()
        return torch.where(size <= self.delta, error.square(), self.delta * (2 * size - self.delta))


class Objective(nn.Module):
    """Forecaster and loss as one module, so that DDP, autocast and compile see one forward pass.

    Sums, not means: the mean over ranks and passes of means over unequal masks is not the mean.
    The loop adds the gradients of all ranks and passes and divides once, by the number of cells.
    """

    def __init__(self, model: ForecastModel, loss: CellLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """Weighted sum `total` (), and per lead time and pollutant `sums`, `counts` (L, 6)."""
        terms: LossTerms = self.model.terms(batch)
        sums = self.loss(terms.error.float()).sum((-2, -1))
        weights = self.loss.weights
        sums = sums * weights[terms.lead]
        counts = terms.weight.float().sum((-2, -1))
        return {
            "total": sums.sum(),
            "sums": by_lead(sums.detach().double(), terms.lead, len(weights)),
            "counts": by_lead(counts.double(), terms.lead, len(weights)),
        }
