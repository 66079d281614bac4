"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from aqnet.config import Config
from aqnet.variables import TARGETS

__all__ = ["GROUPS", "TrainingConfig"]

Group = Literal["embedding", "position", "blocks", "decoder", "strengths"]  # of parameters
GROUPS: tuple[str, ...] = get_args(Group)
_Decay = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]
_AtLeastOne = Annotated[int, Field(ge=1)]


class TrainingConfig(Config):
    """How a forecaster is trained; the architecture is `ModelConfig`.

    A *step* is an optimiser step: one update from `effective` samples, over all processes and
    passes. `aqnet.training.schedule.describe_plan` turns these settings into numbers of steps.
    """

    # ---- length
    max_epochs: _AtLeastOne = 6
    max_steps: _Count = 0  # 0: as the epochs say; else the run ends there at the latest
    max_train_samples: _Count = 0  # 0: all; else evenly spread over the split

    # ---- batch
    batch_size: _AtLeastOne = 64  # samples of one process in one pass
    effective_batch: _Count = 0  # samples of a step; 0: batch_size x processes
    reference_batch: _AtLeastOne = 1600
    batch_rule: Literal["fixed", "sqrt", "linear"] = "fixed"

    # ---- learning rate
    learning_rate: _Positive = 1e-3  # peak; at reference_batch unless batch_rule is fixed
    warmup_steps: _Count | None = None  # instead of warmup_share
    warmup_share: Annotated[float, Field(ge=0, le=0.1)] = 0.1  # of the run
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the peak at the end
    rates: dict[Group, _NotNegative] = Field({})  # factor of a group; 1 where it is not named
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor per block, last block 1

    # ---- optimiser
    weight_decay: _NotNegative = 0.1
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    gradient_clip: _Positive = 1.0  # norm
    ema_decay: _Decay = 0.995  # per step; 0: judge the weights as such
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    activation_checkpointing: bool = False
    compile: bool = False

    # ---- loss
    loss: Literal["mse", "huber"] = "mse"
    huber_delta: _Positive = 1.0  # normalised units
    pollutant_weights: dict[str, _NotNegative] = Field({})  # 1 where a target is not named

    # ---- judging and keeping
    max_validation_samples: _Count = 0  # 0: all; else evenly spread over the split
    validate_every: _Count = 0  # optimiser steps; 0: at the end of each epoch
    patience_epochs: _Count = 0  # epochs without a new best before the run ends; 0: never
    keep_best: _AtLeastOne = 3
    checkpoint_minutes: _Positive = 15.0
    max_bad_batches: _Count = 10  # skipped steps with a non-finite loss or gradient

    # ---- machine
    seed: _Count = 0
    accelerator: Literal["cpu", "cuda", "auto"] = "cpu"
    workers: _Count = 0  # processes that read, for each training process
    log_every: _AtLeastOne = 10  # steps
    collective_timeout_minutes: _Positive = 30.0  # how long a rank waits for another

    # ---- closed-form start of the Beijing forecaster
    ridge_penalty: _Positive = 8000.0

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        unknown = sorted(set(self.pollutant_weights) - set(TARGETS))
        if unknown:
            raise ValueError(f"pollutant_weights names {unknown}; known: {list(TARGETS)}")
        if set(TARGETS) <= {n for n, w in self.pollutant_weights.items() if w == 0}:
            raise ValueError("pollutant_weights leaves no pollutant")
        if self.effective_batch % self.batch_size:
            raise ValueError(
                f"effective_batch {self.effective_batch} is not a multiple of "
                f"batch_size {self.batch_size}"
            )
        return self
