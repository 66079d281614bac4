"""The training loop: Lightning with averaged weights, progress lines and one checkpoint."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, Sampler

from aqnet.data.order import seeded_order
from aqnet.data.samples import ForecastSamples, GriddedFields
from aqnet.errors import RunError, explain
from aqnet.training.checkpoint import load_checkpoint, save_checkpoint
from aqnet.training.config import TrainingConfig
from aqnet.training.setup import Preparation
from aqnet.training.task import ForecastTask

__all__ = ["TrainingCurve", "train"]

_LINE_EVERY_S = 10.0


@dataclass
class TrainingCurve:
    """Losses per epoch; 1 is the loss of the uncorrected start on the training split.

    Epoch 0 is the model before gradient descent (statistical forecast and regression); its
    training loss is not measured (NaN).
    """

    epoch: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1

    def to_dict(self) -> dict:
        """For a JSON file; NaN becomes None."""
        train = [None if np.isnan(v) else v for v in self.train]
        return {"epoch": self.epoch, "train": train, "validation": self.validation,
                "best_epoch": self.best_epoch}


class _SeededSampler(Sampler):
    def __init__(self, indices: np.ndarray, seed: int) -> None:
        self.indices, self.seed, self.epoch = indices, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self):
        return iter(seeded_order(self.indices, self.seed, self.epoch).tolist())


def _finite(what: str, loss: torch.Tensor) -> float:
    if torch.isfinite(loss):
        return float(loss)
    raise RunError(explain(f"{what} is not finite", expected="a number", found=float(loss),
                           remedy="lower learning_rate; look for NaN in the store"))


class _Recorder(Callback):
    """Progress lines, the curve, and the checkpoint of the lowest validation loss."""

    def __init__(self, echo: Callable[[str], None], save: Callable[[], None]) -> None:
        self.echo, self.save = echo, save
        self.curve, self._begin, self._last = TrainingCurve(), 0.0, 0.0

    def on_fit_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._begin = self._last = time.monotonic()

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._begin = time.monotonic()

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._last >= _LINE_EVERY_S
        self._last = now if due else self._last
        return due

    def on_train_batch_end(self, trainer: Trainer, task, outputs, batch, batch_idx) -> None:
        loss = _finite("the loss of a training batch", outputs["loss"])
        if not self._line_is_due():
            return
        done = trainer.global_step / trainer.estimated_stepping_batches
        left = (time.monotonic() - self._begin) * (1 - done) / done
        self.echo(f"  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, {done:4.0%} done, "
                  f"batch loss {loss:.3f}, about {left:.0f} s left")

    def on_validation_batch_end(
        self, trainer: Trainer, task, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        if self._line_is_due():
            self.echo(f"  validation batch {batch_idx + 1}")

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        loss = _finite("the validation loss", trainer.callback_metrics["val_loss"])
        epoch = 0 if trainer.sanity_checking else trainer.current_epoch + 1
        best = not self.curve.validation or loss < min(self.curve.validation)
        self.curve.epoch.append(epoch)
        self.curve.validation.append(loss)
        if best:
            self.curve.best_epoch = epoch
            self.save()
        self.echo(f"epoch {epoch}: validation loss {loss:.4f}" + (" (best)" if best else ""))

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        self.curve.train.append(float(trainer.callback_metrics["train_loss"]))


def _as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch  # `__getitems__` makes whole batches


def _training_loader(samples: ForecastSamples, sampler: Sampler, size: int) -> DataLoader:
    # An incomplete last batch would weigh its samples more; fewer samples than a batch are one.
    size = min(size, len(sampler))
    return DataLoader(samples, batch_size=size, sampler=sampler, collate_fn=_as_it_is,
                      drop_last=True)


def _chosen_samples(samples: ForecastSamples, maximum: int) -> np.ndarray:
    if maximum == 0 or maximum >= len(samples):
        return np.arange(len(samples))
    return np.linspace(0, len(samples) - 1, maximum).round().astype(int)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, device lines and warnings about what is meant to be so."""
    chatty = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = chatty.level
    chatty.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The fields are in memory: worker processes would only copy them.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Inside Lightning 2.6, about torch 2.13.
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*is deprecated.*")
            yield
    finally:
        chatty.setLevel(level)


def _fit(trainer: Trainer, task: ForecastTask, *loaders: DataLoader) -> None:
    """Fit; on Ctrl-C Lightning turns SIGINT off and exits with 1: undo both."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, *loaders)
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def train(
    fields: GriddedFields,
    prepared: Preparation,
    config: TrainingConfig,
    checkpoint: Path,
    echo: Callable[[str], None] = print,
) -> TrainingCurve:
    """Train in place and keep the weights of the lowest validation loss in `checkpoint`.

    Parameters
    ----------
    fields : GriddedFields
    prepared : Preparation
        Its model is trained, and ends with the weights that are in the checkpoint.
    config : TrainingConfig
    checkpoint : path
        Written whole at each new best epoch; epoch 0 is the model before gradient descent.
    echo : callable
        Takes progress lines, at least one every 10 s.

    Returns
    -------
    TrainingCurve

    Raises
    ------
    RunError
        A loss is not finite.
    KeyboardInterrupt
        Ctrl-C; the checkpoint of the best epoch so far stays.
    StorageFullError
        No room for the checkpoint.
    """
    leads = prepared.model.config.lead_times_h
    samples = ForecastSamples(fields, "train", leads)
    sampler = _SeededSampler(_chosen_samples(samples, config.max_train_samples), config.seed)
    task = ForecastTask(prepared.model, config, torch.as_tensor(prepared.residual_variance))

    def save() -> None:
        save_checkpoint(checkpoint, task.averaged, fields.normaliser, prepared.statistical,
                        prepared.chosen, fields.static, fields.digest, prepared.residual_variance)

    recorder = _Recorder(echo, save)
    seed_everything(config.seed, verbose=False)
    validation = DataLoader(ForecastSamples(fields, "validation", leads), batch_size=512,
                            collate_fn=_as_it_is)
    with _quiet_lightning():
        trainer = Trainer(
            max_epochs=config.max_epochs, accelerator=config.accelerator, devices=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=config.gradient_clip, num_sanity_val_steps=-1, callbacks=[recorder],
        )
        _fit(trainer, task, _training_loader(samples, sampler, config.batch_size), validation)
    prepared.model.load_state_dict(load_checkpoint(checkpoint).model.state_dict())
    recorder.curve.train.insert(0, float("nan"))
    return recorder.curve
