"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aqnet.config import Config

__all__ = ["TrainingConfig"]


class TrainingConfig(Config):
    """How a forecaster is trained; the architecture is `ForecasterConfig`."""

    max_epochs: Annotated[int, Field(ge=1)] = 6
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    warmup_share: Annotated[float, Field(gt=0, lt=1)] = 0.15  # of all steps: rise of the rate
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0  # norm
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995  # per step; judged weights are averages
    ridge_penalty: Annotated[float, Field(gt=0)] = 8000.0
    max_train_samples: Annotated[int, Field(ge=0)] = 0  # 0: all; else evenly spread over the split
    seed: Annotated[int, Field(ge=0)] = 0
    accelerator: Literal["cpu", "cuda", "auto"] = "cpu"
