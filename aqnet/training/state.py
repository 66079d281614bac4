"""Where a training is, and whether a checkpoint belongs to the same run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from aqnet.errors import RunError, explain
from aqnet.training.config import TrainingConfig
from aqnet.training.validation import Judgement

__all__ = ["TrainingCurve", "TrainingState", "check_same_run", "what_decides"]

# Settings that may change between the parts of a run. With another batch_size, as with another
# number of processes, the resume is valid but not exact: noise and dropout are seeded by step, pass
# and rank. The others do not touch what is computed, but for rounding.
_FREE = {"batch_size", "workers", "log_every", "checkpoint_minutes", "collective_timeout_minutes",
         "accelerator", "max_bad_batches", "compile", "activation_checkpointing"}  # fmt: skip


@dataclass
class TrainingCurve:
    """Losses at each judgement; the first is that of the model before gradient descent.

    Attributes
    ----------
    epoch, step : list of int
        Epochs and optimiser steps done.
    train : list of float
        Mean over the cells of the steps since the judgement before; NaN where there is none.
    validation : list of float
    losses, rmse : list of (L, 6) nested lists
        Validation loss [1] and RMSE [ug/m3] of each lead time and pollutant.
    best_epoch, best_step : int
        Of the lowest validation loss; -1 before the first.
    """

    epoch: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    losses: list[list] = field(default_factory=list)
    rmse: list[list] = field(default_factory=list)
    best_epoch: int = -1
    best_step: int = -1

    def add(self, epoch: int, step: int, train: float, judged: Judgement) -> bool:
        """Append a judgement; whether it is the best so far."""
        best = not self.validation or judged.loss < min(self.validation)
        self.epoch.append(epoch)
        self.step.append(step)
        self.train.append(train)
        self.validation.append(judged.loss)
        self.losses.append(judged.losses.tolist())
        self.rmse.append(judged.rmse.tolist())
        if best:
            self.best_epoch, self.best_step = epoch, step
        return best

    def to_dict(self) -> dict:
        """For a JSON file; NaN becomes None."""
        return _without_nan(asdict(self))


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


@dataclass
class TrainingState:
    """All that changes during a run beside weights, optimiser and sampler.

    Attributes
    ----------
    step : int
        Steps done, skipped ones too.
    skipped : list of str
        One line for each step that was skipped.
    train_sum, train_cells : float
        Of the steps since the last judgement.
    best : list of (float, str)
        Validation loss and file name of the best checkpoints, best first.
    curve : TrainingCurve
    """

    step: int = 0
    skipped: list[str] = field(default_factory=list)
    train_sum: float = 0.0
    train_cells: float = 0.0
    best: list[tuple[float, str]] = field(default_factory=list)
    curve: TrainingCurve = field(default_factory=TrainingCurve)

    @property
    def judged(self) -> bool:
        """Whether the model of this step has been judged."""
        return bool(self.curve.step) and self.curve.step[-1] == self.step

    def take_train_loss(self) -> float:
        """Mean training loss since the last call."""
        cells, total = self.train_cells, self.train_sum
        self.train_sum = self.train_cells = 0.0
        return total / cells if cells else float("nan")

    @classmethod
    def from_dict(cls, values: dict) -> TrainingState:
        """Inverse of `dataclasses.asdict`."""
        return cls(**{**values, "curve": TrainingCurve(**values["curve"])})


def what_decides(config: dict, plan: dict) -> dict:
    """Settings of a `TrainingConfig` and sizes of its `Plan` that decide what a run computes."""
    found = {n: value for n, value in config.items() if n not in _FREE | {"effective_batch"}}
    return found | {n: plan[n] for n in ("samples", "effective", "steps")}


def check_same_run(saved: dict, config: TrainingConfig, saved_plan: dict, plan: dict) -> None:
    """Refuse to continue with settings that would make it another run.

    Raises
    ------
    RunError
        Names each setting that differs.
    """
    before = what_decides(saved, saved_plan)
    here = what_decides(config.model_dump(mode="json"), plan)
    differ = {n: (before.get(n), here[n]) for n in here if before.get(n) != here[n]}
    if not differ:
        return
    sides = ["; ".join(f"{name}: {both[i]}" for name, both in differ.items()) for i in (0, 1)]
    raise RunError(
        explain(f"cannot resume with other settings: {', '.join(differ)}", expected=sides[0],
                found=sides[1], remedy="resume with the settings of the run (batch_size and the "
                "number of processes may change; noise and dropout then are others), or begin a "
                "new one from its best checkpoint")
    )  # fmt: skip
