"""Weights, their averages and the optimiser: what a checkpoint must hold to continue exactly."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aqnet.errors import RunError, explain
from aqnet.training.checkpoint import Checkpoint, read_checkpoint
from aqnet.training.config import TrainingConfig
from aqnet.training.loss import CellLoss, Objective
from aqnet.training.optimisation import make_optimiser
from aqnet.training.problem import Problem
from aqnet.training.state import LAST

__all__ = ["Learner", "read_last"]


class Learner:
    """The model of a problem with all that gradient descent keeps beside it.

    Attributes
    ----------
    model : ForecastModel
    loss : CellLoss
    objective : module
        Model and loss, as Fabric set them up.
    average : AveragedModel or None
        A second model with the moving averages of the weights.
    optimiser : AdamW
    """

    def __init__(self, problem: Problem, config: TrainingConfig, fabric: Fabric) -> None:
        self.model, self.loss = problem.model, CellLoss(config, problem.loss_weights)
        if config.activation_checkpointing:
            _checkpoint_blocks(self.model)
        objective = Objective(self.model, self.loss)
        if config.compile:
            objective = torch.compile(objective)
        self.objective = fabric.setup_module(objective)
        self.average = None
        if config.ema_decay:
            rule = get_ema_multi_avg_fn(config.ema_decay)
            self.average = AveragedModel(self.model, multi_avg_fn=rule).requires_grad_(False)
        self.optimiser = make_optimiser(self.model, config)

    @property
    def judged(self) -> torch.nn.Module:
        """The model that is validated and saved: of the averages if there are any."""
        return self.model if self.average is None else self.average.module

    def after_step(self) -> None:
        """Take the new weights into the averages."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict:
        """What a checkpoint of the judged weights lacks."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "weights": None if self.average is None else self.model.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint with a training state."""
        saved = checkpoint.training
        weights = checkpoint.state if self.average is None else saved["weights"]
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint.state)
            self.average.n_averaged.fill_(saved["averaged"])
        self.optimiser.load_state_dict(saved["optimiser"])

    def take_weights(self, path: Path, fabric: Fabric) -> None:
        """Weights of a checkpoint into the model; the first rank reads and sends them."""
        # another node may still see an older file of that name
        if fabric.is_global_zero:
            self.model.load_state_dict(read_checkpoint(path).state)
        if fabric.world_size > 1:
            for value in self.model.state_dict().values():
                dist.broadcast(value, src=0)


def _checkpoint_blocks(model: torch.nn.Module) -> None:
    found = [module for module in model.modules() if hasattr(module, "checkpoint_blocks")]
    if not found:
        raise RunError(
            explain("activation_checkpointing has no effect on this model",
                    expected="a module with `checkpoint_blocks`", found=type(model).__name__,
                    remedy="set activation_checkpointing to false")
        )  # fmt: skip
    for module in found:
        module.checkpoint_blocks = True


def read_last(path: Path) -> Checkpoint:
    """A checkpoint to resume from.

    Raises
    ------
    ModelError
        It cannot be read.
    RunError
        It has no training state.
    """
    checkpoint = read_checkpoint(path, training=True)
    if checkpoint.training is None:
        raise RunError(
            explain(f"{path} cannot be resumed", expected="a training state", found="none",
                    remedy=f"give {LAST}; others are for forecasts and for new trainings")
        )  # fmt: skip
    return checkpoint
