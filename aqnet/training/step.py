"""One optimiser step over all ranks and passes, or its skipping by all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric import Fabric

from aqnet.training.config import TrainingConfig
from aqnet.training.learner import Learner
from aqnet.training.optimisation import clip_sums, gradients, norm_of, set_rate
from aqnet.training.processes import SummingDDP, moment, seconds_between
from aqnet.training.schedule import Plan
from aqnet.training.seeds import derive

__all__ = ["Outcome", "Stepper"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step did; the same on every rank.

    Attributes
    ----------
    total, cells : float
        Weighted sum of the loss over all known cells, and their number; 0 if it was skipped.
    sums, counts : (L, 6) float64
        The same for each lead time and pollutant.
    norm : float
        Of the mean gradient, before clipping.
    skipped : str
        Why and with which samples, or empty.
    stop, save : bool
        Whether any rank asked for it.
    waited : float
        Seconds that this rank spent in collective operations alone; not the same on every rank.
    """

    total: float
    cells: float
    sums: np.ndarray
    counts: np.ndarray
    norm: float
    skipped: str
    stop: bool
    save: bool
    waited: float


@dataclass(frozen=True, eq=False)
class _Pass:
    out: dict[str, torch.Tensor]
    hours: np.ndarray  # init times, hours since 1970 UTC

    @property
    def times(self) -> str:
        return ", ".join(map(str, self.hours.astype("datetime64[h]")))


class Stepper:
    """Makes optimiser steps.

    Gradients of sums are added over passes and ranks and divided once by the number of known
    cells. All ranks then decide alike, from one small all-reduced vector, read once a step.

    Parameters
    ----------
    fabric : Fabric
    learner : Learner
    config : TrainingConfig
    plan : Plan
    """

    def __init__(
        self, fabric: Fabric, learner: Learner, config: TrainingConfig, plan: Plan
    ) -> None:
        self.fabric, self.learner, self.config, self.plan = fabric, learner, config, plan
        self.parallel = isinstance(fabric.strategy, SummingDDP)  # of one rank, too

    def __call__(self, step: int, batches: Iterator[dict], stop: bool, save: bool) -> Outcome:
        """Make a step, counted from 0, with the next `plan.passes` batches of this rank."""
        optimiser = self.learner.optimiser
        self.learner.model.train()
        set_rate(optimiser, self.plan.rate(step))
        optimiser.zero_grad()
        if self.parallel:
            self.fabric.strategy.local_finite.clear()
        passes = [self._pass(step, number, next(batches)) for number in range(self.plan.passes)]
        sums = gradients(self.learner.model)
        norm = norm_of(sums)
        flags, table, norm = self._agree(passes, norm, stop, save)
        waited = self._waited()
        bad, stop, save, total = flags
        cells = table[1].sum()
        if bad:
            self.learner.require_finite(step)  # or the samples would be blamed
        skipped = self._describe(passes, cells) if bad or not cells else ""
        if skipped:
            total = cells = norm = 0.0
            table = np.zeros_like(table)
        else:
            norm = clip_sums(sums, norm, cells, self.config.gradient_clip)
            optimiser.step()
            self.learner.after_step()
        return Outcome(total, float(cells), *table, norm, skipped, bool(stop), bool(save), waited)

    def _waited(self) -> float:
        """Seconds since the last of this rank's own gradients, which then met the others'."""
        if not self.parallel:
            return 0.0
        return seconds_between(self.fabric.strategy.own_end, moment(self.fabric.device))

    def _pass(self, step: int, number: int, batch: dict) -> _Pass:
        # Random numbers depend on the place alone: no state to store, and a replay is exact.
        torch.manual_seed(derive(self.config.seed, "noise", step, number, self.fabric.global_rank))
        waits = self.parallel and number < self.plan.passes - 1  # ranks meet in the last pass
        with self.fabric.no_backward_sync(self.learner.objective, enabled=waits):
            out = self.learner.objective(self.fabric.to_device(batch))
            self.fabric.backward(out["total"])
        return _Pass({k: v.detach() for k, v in out.items()}, batch["hours"].numpy())

    def _agree(
        self, passes: list[_Pass], norm: torch.Tensor, stop: bool, save: bool
    ) -> tuple[list[float], np.ndarray, float]:
        """Flags and sums over all ranks: [bad, stop, save, total], (2, L, 6), and the norm."""
        totals = torch.stack([each.out["total"] for each in passes])
        bad = ~(totals.isfinite().all() & norm.isfinite())
        wishes = torch.tensor([stop, save], dtype=torch.float64, device=norm.device)
        parts = [bad.double()[None], wishes, totals.double().sum()[None]]
        parts += [sum(each.out[name] for each in passes).flatten() for name in ("sums", "counts")]
        vector = self.fabric.all_reduce(torch.cat(parts).double(), reduce_op="sum")
        values = torch.cat([vector, norm.double()[None]]).cpu().numpy()  # the step's only sync
        leads = passes[0].out["sums"].shape
        return values[:4].tolist(), values[4:-1].reshape(2, *leads), float(values[-1])

    def _describe(self, passes: list[_Pass], cells: float) -> str:
        """Which samples made a step unusable, from all ranks."""
        own = self._own_faults(passes)
        if self.parallel:
            lists: list = [None] * self.fabric.world_size
            dist.all_gather_object(lists, own)
            own = [f"rank {rank}: {fault}" for rank, each in enumerate(lists) for fault in each]
        if own:
            return "; ".join(own)
        return "the sum of all gradients is not finite" if cells else "no target is known"

    def _own_faults(self, passes: list[_Pass]) -> list[str]:
        faults = [
            f"the loss of pass {number} is not finite, init times {each.times}"
            for number, each in enumerate(passes)
            if not each.out["total"].isfinite()
        ]
        if self.parallel:
            finite = all(bool(each) for each in self.fabric.strategy.local_finite)
        else:
            finite = bool(norm_of(gradients(self.learner.model)).isfinite())
        if not faults and not finite:
            times = ", ".join(each.times for each in passes)
            faults = [f"the gradient is not finite, init times {times}"]
        return faults


def require_summing(fabric: Fabric) -> None:
    """Several ranks need the strategy of `open_fabric`: others average gradients."""
    if fabric.world_size > 1 and not isinstance(fabric.strategy, SummingDDP):
        raise TypeError(f"train() needs SummingDDP for several ranks, not {fabric.strategy}")
