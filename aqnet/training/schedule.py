"""From settings, samples and processes to optimiser steps and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aqnet.data.order import rounded_batches
from aqnet.errors import ParameterError, explain
from aqnet.training.config import TrainingConfig

__all__ = ["Plan", "describe_plan", "judged_samples"]

_EXPONENT = {"fixed": 0.0, "sqrt": 0.5, "linear": 1.0}
_WARMUP_LIMIT = 0.1  # of the run; the reference asked for 500 of about 2,600 steps


@dataclass(frozen=True)
class Plan:
    """Lengths of a run, in optimiser steps, and its learning rate.

    Attributes
    ----------
    samples, processes : int
    batch_size, passes, effective : int
        Samples of a pass of one process; passes of a process in a step; samples of a step.
    epoch_steps : int
        Steps of an epoch, samples / effective rounded: less than half a batch is left out of the
        epoch, more is filled up from the epoch's beginning.
    steps, warmup : int
    peak, final : float
        Learning rates after the warm-up and at the end.
    """

    samples: int
    processes: int
    batch_size: int
    passes: int
    effective: int
    epoch_steps: int
    steps: int
    warmup: int
    peak: float
    final: float

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: linear rise, then half a cosine."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (self.peak - self.final) * (1 + math.cos(math.pi * done)) / 2

    def __str__(self) -> str:
        return (
            f"{self.samples} samples at {self.effective} a step "
            f"({self.processes} processes x {self.passes} passes x {self.batch_size} samples): "
            f"{self.epoch_steps} optimiser steps per epoch, {self.steps} in all, "
            f"{self.warmup} of them warm-up; "
            f"learning rate {self.peak:.3g}, at the end {self.final:.3g}"
        )


def _wrong(problem: str, expected: object, found: object, remedy: str) -> ParameterError:
    return ParameterError(explain(problem, expected=expected, found=found, remedy=remedy))


def _effective(config: TrainingConfig, processes: int) -> int:
    together = config.batch_size * processes
    effective = config.effective_batch or together
    if effective % together:
        raise _wrong(
            "effective_batch cannot be had with these processes",
            f"a multiple of batch_size x processes = {config.batch_size} x {processes}",
            effective,
            "change effective_batch, batch_size or the number of processes",
        )
    return effective


def _warmup(config: TrainingConfig, steps: int) -> int:
    if config.warmup_steps is None:
        return int(config.warmup_share * steps)
    if config.warmup_steps > _WARMUP_LIMIT * steps:
        raise _wrong(
            "the warm-up is longer than a tenth of the run",
            f"warmup_steps of at most {int(_WARMUP_LIMIT * steps)}, for {steps} optimiser steps",
            config.warmup_steps,
            "count it in optimiser steps, not in batches; or train longer",
        )
    return config.warmup_steps


def describe_plan(config: TrainingConfig, samples: int, processes: int) -> Plan:
    """What a run with these settings will do.

    The learning rate is `learning_rate` x (effective / reference_batch) ** e, with e = 0, 1/2 or 1
    for `batch_rule` fixed, sqrt or linear.

    Parameters
    ----------
    config : TrainingConfig
    samples : int
        Of the training split.
    processes : int

    Raises
    ------
    ParameterError
        The effective batch is no multiple of a pass of all processes or twice the samples, or the
        warm-up is longer than a tenth of the run.
    """
    samples = min(samples, config.max_train_samples or samples)
    effective = _effective(config, processes)
    epoch_steps = rounded_batches(samples, effective)
    if not epoch_steps:
        raise _wrong(
            "there are too few samples for a step",
            f"at least half of the {effective} samples of a step",
            samples,
            "choose a smaller batch_size or effective_batch, or a longer period",
        )
    steps = config.max_epochs * epoch_steps
    steps = min(steps, config.max_steps or steps)
    peak = (
        config.learning_rate * (effective / config.reference_batch) ** _EXPONENT[config.batch_rule]
    )
    passes = effective // (config.batch_size * processes)
    return Plan(samples, processes, config.batch_size, passes, effective, epoch_steps, steps,
                _warmup(config, steps), peak, config.final_rate * peak)  # fmt: skip


def judged_samples(config: TrainingConfig, samples: int) -> int:
    """Samples of a judgement, of a validation split that has so many."""
    return min(samples, config.max_validation_samples or samples)
