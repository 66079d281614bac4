"""The Lightning task: masked, variance-weighted squared error of the normalised correction."""

from __future__ import annotations

import math

import torch
from lightning import LightningModule
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aqnet.model.forecaster import Forecaster
from aqnet.training.config import TrainingConfig

__all__ = ["ForecastTask", "cell_losses"]


def cell_losses(
    model: Forecaster, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of squared errors of the correction, and of weights, per lead time and pollutant.

    Returns
    -------
    squares, weights : (L, 6)
        Normalised squared error [1] summed over scored cells, and the number of these cells.
        The correction is compared before negative concentrations are cut off, so that the
        gradient does not vanish there.
    """
    wanted = (batch["target"] - model.start(batch)) / model.scale(batch)
    error = (model.correction(batch) - wanted).square() * batch["weight"]
    return error.sum((0, 3, 4)), batch["weight"].sum((0, 3, 4))


class ForecastTask(LightningModule):
    """Trains a `Forecaster`, and judges the moving average of its weights.

    `averaged` is a second model, kept apart from the trained one: what is validated is what is
    saved. (Lightning's EMAWeightAveraging swaps the averages in and out of one model, and has put
    the raw weights back by the time `on_validation_end` runs.)

    Parameters
    ----------
    model : Forecaster
    config : TrainingConfig
    residual_variance : (L, 6) tensor
        Squared errors are divided by it: each lead time and pollutant counts the same, and a
        loss of 1 is that of the uncorrected statistical forecast on the training split.
    """

    def __init__(
        self, model: Forecaster, config: TrainingConfig, residual_variance: torch.Tensor
    ) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.average.requires_grad_(False)
        self.register_buffer("residual_variance", residual_variance.float())
        self._validation: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def averaged(self) -> Forecaster:
        """The forecaster with averaged weights."""
        return self.average.module

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Forecast (B, L, 6, H, W) of the averaged weights, ug/m3."""
        return self.averaged(batch)

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        squares, weights = cell_losses(self.model, batch)
        # A batch may hold no scored cell of a pollutant: that cell then adds nothing.
        loss = (squares / weights.clamp_min(1) / self.residual_variance).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["hours"]))
        return loss

    def on_train_batch_end(self, outputs, batch: dict[str, torch.Tensor], index: int) -> None:
        self.average.update_parameters(self.model)

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        squares, weights = cell_losses(self.averaged, batch)
        self._validation.append((squares.double(), weights.double()))

    def on_validation_epoch_end(self) -> None:
        squares, weights = map(sum, zip(*self._validation, strict=True))
        loss = (squares / weights / self.residual_variance).mean()
        self.log("val_loss", loss.float(), batch_size=1)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        # OneCycleLR divides by zero where the rise is one step long: plan two steps at least.
        shortest = math.ceil(2 / self.config.warmup_share)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.config.learning_rate,
            total_steps=max(self.trainer.estimated_stepping_batches, shortest),
            pct_start=self.config.warmup_share,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
