"""Weights, their averages and the optimiser: what a checkpoint must hold to continue exactly."""

from __future__ import annotations

from itertools import zip_longest
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

__all__ = ["Learner"]


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

    def require_finite(self, step: int) -> None:
        """RunError if a weight is not finite after these steps: then nothing can be saved."""
        with torch.no_grad():
            bad = [n for n, p in self.model.named_parameters() if not p.isfinite().all()]
        if bad:
            more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
            raise RunError(
                explain(f"the weights are not finite after step {step}", expected="numbers",
                        found=", ".join(bad[:4]) + more,
                        remedy="resume from the last checkpoint; if it comes back, lower "
                        "learning_rate; if not, suspect the machine")
            )  # fmt: skip

    def state_dict(self) -> dict:
        """What a checkpoint of the judged weights lacks."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "parameters": self._parameters(),
            "weights": None if self.average is None else self.model.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
        }

    def _parameters(self) -> list[str]:
        """Names in the order of the optimiser, which knows its state by place alone."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [names[id(p)] for group in self.optimiser.param_groups for p in group["params"]]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint with a training state.

        Raises
        ------
        RunError
            The optimiser's state is of other parameters, or in another order.
        """
        saved, here = checkpoint.training, self._parameters()
        if saved["parameters"] != here:
            pairs = zip_longest(saved["parameters"], here, fillvalue="none")
            place, (then, now) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
            raise RunError(
                explain(f"the optimiser's state is of other parameters, from number {place} on",
                        expected=then, found=now,
                        remedy="resume with the version of the code that wrote the checkpoint")
            )  # fmt: skip
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
