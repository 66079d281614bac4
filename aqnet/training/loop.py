"""The training loop, for any forecaster, on any number of processes.

Lightning Fabric gives devices, precision, DDP and the launch under SLURM or torchrun. The loop is
our own, because three things cannot be had from the automatic optimisation of Lightning's Trainer:
a resume that is exact in the middle of an epoch and of an accumulation window, a loss that is one
sum over the cells of all ranks and passes divided by their number, and steps that all ranks skip
together.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from aqnet.errors import InterruptedRunError, RunError, explain
from aqnet.training.config import TrainingConfig
from aqnet.training.folder import LAST
from aqnet.training.heartbeat import Heart
from aqnet.training.learner import Learner
from aqnet.training.loaders import training_loader, validation_loader
from aqnet.training.logs import RunLog, named_values
from aqnet.training.problem import Problem
from aqnet.training.processes import as_one, open_fabric
from aqnet.training.saving import Saver
from aqnet.training.schedule import describe_plan, judged_samples
from aqnet.training.seeds import derive
from aqnet.training.shutdown import StopRequest
from aqnet.training.state import TrainingCurve, TrainingState
from aqnet.training.step import Outcome, Stepper, require_summing
from aqnet.training.validation import judge

__all__ = ["TrainingCurve", "train"]

_PAUSE = 8  # validation batches between looks for a stop signal


def train(
    problem: Problem,
    config: TrainingConfig,
    folder: Path,
    resume: Path | str | None = None,
    echo: Callable[[str], None] = print,
    fabric: Fabric | None = None,
    parent: str | None = None,
    beats: Path | None = None,
) -> TrainingCurve:
    """Train the model of a problem in place; every rank calls this.

    `folder` gets the best checkpoints (`best-val_loss_*`), `best.ckpt`, `last.ckpt` to resume
    from, until the end also the one before it, `metrics.csv` and `tensorboard/`. Checkpoints lie
    between optimiser steps, so a resumed run repeats an interrupted step from its first pass.

    Parameters
    ----------
    problem : Problem
        Its model ends with the weights of `best.ckpt`.
    config : TrainingConfig
    folder : path
        On a file system that all ranks see; must not hold another training.
    resume : path or "auto", optional
        A `last.ckpt`, of this folder or another. "auto": that of this folder or, if it is gone
        or cannot be read, the one before it, which is said; begin if there is none.
    echo : callable
        Takes the lines of the log, on the first rank.
    fabric : Fabric, optional
        Launched, by `open_fabric`; made if not given.
    parent : str, optional
        `sha256` of the checkpoint that the model's weights come from, for the record.
    beats : path, optional
        Folder for signs of life of the ranks, which `aqnet watch` shows (`heartbeat`).

    Returns
    -------
    TrainingCurve

    Raises
    ------
    InterruptedRunError
        SIGTERM, SIGINT or SIGUSR1 came; `last.ckpt` holds all steps done.
    RunError
        Too many steps were skipped, or the validation loss is not finite; the folder is in use;
        other settings than those of the run to resume.
    ModelError
        The checkpoint to resume from fits other data, or another model.
    ParameterError
        Settings that do not fit the samples and processes.
    StorageFullError
        No room for a checkpoint; the older ones are untouched.
    """
    fabric, folder = fabric or open_fabric(config), Path(folder)
    require_summing(fabric)
    with StopRequest() as stop, as_one(fabric, folder, beats) as heart:
        run = _Run(problem, config, folder, fabric, stop, parent, heart)
        run.begin(resume, echo)
        run.go()
    return run.state.curve


class _Run:
    """A training between its first and its last step."""

    def __init__(
        self, problem: Problem, config: TrainingConfig, folder: Path, fabric: Fabric,
        stop: StopRequest, parent: str | None, heart: Heart,
    ) -> None:  # fmt: skip
        self.problem, self.config, self.fabric = problem, config, fabric
        self.stop, self.heart = stop, heart
        self.lead_times_h = problem.model.config.lead_times_h
        self.plan = describe_plan(config, len(problem.train), fabric.world_size)
        self.sampler, self.loader = training_loader(problem.train, config, self.plan, fabric)
        self.validation = validation_loader(problem.validation, config, fabric)
        self.learner = Learner(problem, config, fabric)
        self.step = Stepper(fabric, self.learner, config, self.plan)
        if self.step.parallel:
            fabric.strategy.on_own_end = heart.wait
        self.saver = Saver(
            folder, problem, config, self.plan, fabric, self.learner, self.sampler, parent
        )
        self.state = TrainingState()
        # s, of the last step and judgement; before the first ones, also after a resume, any length
        self.took, self.judging = math.inf, math.inf
        self.last: Outcome | None = None  # the last step

    def begin(self, resume: Path | str | None, echo: Callable[[str], None]) -> None:
        """Take up the state of a checkpoint, or make sure that the folder is free."""
        self.state, notes = self.saver.begin(resume)
        folder, first = self.saver.files.folder, self.fabric.is_global_zero
        self.log = RunLog(folder, self.state.step, echo, first)
        for line in (str(self.plan), *notes):
            self.log.say(line)

    # ---- steps

    def go(self) -> None:
        """Make the steps that are left; end with the best weights in the model."""
        self._between_steps()
        while not self._ended():
            epoch = self.state.step // self.plan.epoch_steps
            self.sampler.set_epoch(epoch)
            # For the workers, which start in the first epoch and live on. Reading draws no number.
            torch.manual_seed(derive(self.config.seed, "workers", epoch, self.fabric.global_rank))
            batches = iter(self.loader)
            for _ in range(self.sampler.batches_left):
                self._make_step(batches)
                self._between_steps()
                if self._ended():
                    break
        self.log.close()
        self.saver.finish(self.state)

    def _ended(self) -> bool:
        step, patience = self.state.step, self.config.patience_epochs * self.plan.epoch_steps
        stale = step - self.state.curve.best_step
        return step >= self.plan.steps or (patience > 0 and self.state.judged and stale >= patience)

    def _make_step(self, batches: Iterator[dict]) -> None:
        begin = time.monotonic()
        # the next chance to save comes after this step and another one
        due = self.fabric.is_global_zero and self.saver.due(2 * self.took)
        done = self.step(self.state.step, batches, self.stop.signal is not None, due)
        self.took = time.monotonic() - begin
        self.sampler.advance()
        self.state.step += 1
        self.state.train_sum += done.total
        self.state.train_cells += done.cells
        self.last = done
        if done.skipped:
            self._note_skipped(done)
        self.log.count(self.plan.effective)
        self.heart.count(self.plan.effective, self.took - done.waited, done.waited)
        if self.state.step % self.config.log_every == 0 and not done.skipped:
            self._record_step(done)

    def _note_skipped(self, done: Outcome) -> None:
        self.state.skipped.append(f"step {self.state.step}: {done.skipped}")
        self.log.say(f"skipped step={self.state.step} {done.skipped}")
        if len(self.state.skipped) > self.config.max_bad_batches:
            raise RunError(
                explain("too many steps had to be skipped",
                        expected=f"at most max_bad_batches = {self.config.max_bad_batches}",
                        found="\n            ".join(self.state.skipped),
                        remedy="look at these samples; lower learning_rate or gradient_clip")
            )  # fmt: skip

    def _record_step(self, done: Outcome) -> None:
        losses = done.sums / np.where(done.counts > 0, done.counts, np.nan)
        head = {
            "epoch": self.state.step // self.plan.epoch_steps,
            "loss": done.total / done.cells,
            "lr": self.plan.rate(self.state.step - 1),
            "gradient_norm": done.norm,
            "samples_s": self.log.speed(),
        }
        self.log.record(self.state.step, head, named_values("loss", losses, self.lead_times_h))

    # ---- between steps

    def _between_steps(self) -> None:
        """Judge, save and stop where it is due; all ranks come to the same conclusions."""
        self.heart.at(self.state.step, self.plan.steps, self.state.step // self.plan.epoch_steps)
        step, every = self.state.step, self.config.validate_every or self.plan.epoch_steps
        if not self.state.judged and (step % every == 0 or step == self.plan.steps):
            self._judge()
        elif self.last is not None and self.last.save:
            self._save()
        if self.last is not None and self.last.stop and not self._ended():
            self._leave()
        self.heart.phase = "training"

    def _judge(self) -> None:
        begin = time.monotonic()
        if self.state.step != self.saver.safe_step and self.saver.due(self.judging):
            self._save()  # a long judgement is no chance to save
        self.heart.phase = "judging"
        outcome = judge(
            self.learner.judged, self.learner.loss, self.validation, self.fabric, self._pause
        )
        state, epoch = self.state, self.state.step // self.plan.epoch_steps
        train = state.take_train_loss()
        best = state.curve.add(epoch, state.step, train, outcome)
        self.saver.add_best(state, outcome.loss)
        more = named_values("val_loss", outcome.losses, self.lead_times_h)
        more |= named_values("val_rmse_ug_m3", outcome.rmse, self.lead_times_h)
        head = {"epoch": epoch, "val_loss": outcome.loss, "train_loss": train, "best": int(best)}
        self.log.record(state.step, head, more)
        self._save()
        self.judging = time.monotonic() - begin
        self.log.speed()  # of training alone: begin anew

    def _pause(self, number: int) -> None:
        """Leave a long validation, to repeat it; at batches that all ranks reach."""
        judged = judged_samples(self.config, len(self.problem.validation))
        common = judged // self.fabric.world_size // self.config.batch_size
        if number % _PAUSE or number > common:
            return
        asked = torch.tensor(float(self.stop.signal is not None), device=self.fabric.device)
        if self.fabric.all_reduce(asked, reduce_op="sum") > 0:
            self._leave()

    def _agreed_signal(self) -> str:
        """Name of the stop signal, which may have reached other ranks only; SIGTERM goes first."""
        own = signal.Signals[self.stop.signal].value if self.stop.signal else 0
        number = torch.tensor(float(own), device=self.fabric.device)
        return signal.Signals(int(self.fabric.all_reduce(number, reduce_op="max"))).name

    def _save(self) -> None:
        self.heart.phase = "saving"
        self.saver.save(self.state)

    def _leave(self) -> None:
        if self.saver.saved_step != self.state.step:
            self._save()
        # Also a barrier: a launcher may end all as soon as one has left.
        name = self._agreed_signal()
        self.log.close()
        where = self.saver.files.folder / LAST
        raise InterruptedRunError(
            explain(f"training was stopped by {name}",
                    expected=f"{self.plan.steps} steps", found=f"{self.state.step} done",
                    remedy=f"resume from {where}")
        )  # fmt: skip
