"""Checkpoints of a running training: what goes into them, when they are due, and back."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from lightning.fabric import Fabric

from aqnet.data.order import GlobalOrderSampler
from aqnet.errors import RunError, explain
from aqnet.training.checkpoint import (
    Checkpoint,
    Code,
    Progress,
    check_fits,
    write_checkpoint,
)
from aqnet.training.config import TrainingConfig
from aqnet.training.folder import BEST, CheckpointFolder, to_resume
from aqnet.training.learner import Learner
from aqnet.training.problem import Problem
from aqnet.training.schedule import Plan
from aqnet.training.state import TrainingState, check_same_run, what_decides

__all__ = ["Saver"]


class Saver:
    """Takes up and writes the checkpoints of a run; the first rank touches the files.

    Parameters
    ----------
    folder : path
    problem : Problem
    config : TrainingConfig
    plan : Plan
    fabric : Fabric
    learner : Learner
    sampler : GlobalOrderSampler
    parent : str or None
        `sha256` of the checkpoint that the weights come from.

    Attributes
    ----------
    files : CheckpointFolder
    saved_step : int
        Of the last checkpoint to resume from that this process has written; -1: none.
    safe_step : int
        Up to which nothing is lost: of that checkpoint, or of the one that was taken up.
    """

    def __init__(
        self, folder: Path, problem: Problem, config: TrainingConfig, plan: Plan, fabric: Fabric,
        learner: Learner, sampler: GlobalOrderSampler, parent: str | None,
    ) -> None:  # fmt: skip
        self.files = CheckpointFolder(folder, config.keep_best)
        self.problem, self.config, self.plan = problem, config, plan
        self.fabric, self.learner, self.sampler = fabric, learner, sampler
        self.parent = parent
        self.saved_step, self.safe_step, self._saved_at = -1, 0, time.monotonic()
        self._code = Code.running() if fabric.is_global_zero else None  # git is slow: once

    def begin(self, resume: Path | str | None) -> tuple[TrainingState, list[str]]:
        """Take up the state of a checkpoint, or make sure that the folder is free; what to say."""
        first = self.fabric.is_global_zero
        # One rank reads: hundreds would load the file system, and might see files of different age.
        found = self.fabric.broadcast(to_resume(self.files.folder, resume) if first else None)
        checkpoint, path, note = found or (None, None, "")
        state = TrainingState() if checkpoint is None else self._restore(checkpoint)
        self.safe_step = state.step
        if first:
            self.files.begin(state.best, path)
        told = [] if path is None else [f"continues at step {state.step} from {path}"]
        return state, [*told, *([note] if note else [])]

    def _restore(self, checkpoint: Checkpoint) -> TrainingState:
        check_fits(checkpoint, self.problem.identity, self.problem.model.config)
        saved = checkpoint.training
        check_same_run(saved["config"], self.config, saved["plan"], asdict(self.plan))
        if self.parent not in (None, checkpoint.parent):
            raise RunError(
                explain("the run to continue began with other weights",
                        expected=f"parent {checkpoint.parent or 'none'}",
                        found=f"parent {self.parent}",
                        remedy="give the parent that it began with, or begin a new run")
            )  # fmt: skip
        self.parent = checkpoint.parent
        self.learner.restore(checkpoint)
        self.sampler.load_state_dict(saved["sampler"])
        return TrainingState.from_dict(saved["state"])

    def due(self, more_s: float) -> bool:
        """Whether too much would be unsaved after so many seconds more."""
        return time.monotonic() - self._saved_at + more_s >= 60 * self.config.checkpoint_minutes

    def save(self, state: TrainingState) -> None:
        """Write `last.ckpt`."""
        self._saved_at = time.monotonic()
        self.saved_step = self.safe_step = state.step
        if self.fabric.is_global_zero:
            self.learner.require_finite(state.step)
            training = {
                "state": asdict(state),
                "config": self.config.model_dump(mode="json"),
                "plan": asdict(self.plan),
                "sampler": self.sampler.state_dict(),
                **self.learner.state_dict(),
            }
            last = self._checkpoint(state, training)
            self.files.save_last(state.best, lambda path: write_checkpoint(path, last))

    def add_best(self, state: TrainingState, loss: float) -> None:
        """Write the judged weights if they are among the best."""
        if self.fabric.is_global_zero:
            state.best = self.files.add_best(
                state.best, loss, state.step // self.plan.epoch_steps, state.step,
                lambda path: write_checkpoint(path, self._checkpoint(state, None)),
            )  # fmt: skip

    def finish(self, state: TrainingState) -> None:
        """Leave the best and the last; the best weights go into the model of each rank."""
        if self.fabric.is_global_zero:
            self.files.finish(state.best)
        self.learner.take_weights(self.files.folder / BEST, self.fabric)

    def _checkpoint(self, state: TrainingState, training: dict | None) -> Checkpoint:
        model = self.learner.judged
        return Checkpoint(
            kind=model.kind,
            config=model.config,
            state=model.state_dict(),
            arrays=model.arrays(),
            identity=self.problem.identity,
            progress=Progress(
                step=state.step,
                epoch=state.step // self.plan.epoch_steps,
                val_loss=state.curve.validation[-1] if state.judged else None,
            ),
            parent=self.parent,
            trained_with=what_decides(self.config.model_dump(mode="json"), asdict(self.plan)),
            extra=self.problem.extra,
            training=training,
            code=self._code,
        )
