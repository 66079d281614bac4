"""Memory, speed of the loader, time and cost of a training, against what the profile states."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset

from aqnet.data.batches import whole_batch
from aqnet.data.order import seeded_order
from aqnet.jobs.checks import Check
from aqnet.jobs.job import Job
from aqnet.jobs.prediction import Prediction
from aqnet.jobs.scale import stop_margin
from aqnet.model.bench_machine import resident_bytes
from aqnet.training.config import TrainingConfig
from aqnet.training.cost import Work
from aqnet.training.schedule import Plan

__all__ = [
    "Reading",
    "check_cost",
    "check_host",
    "check_loader",
    "check_memory",
    "check_start",
    "check_time",
    "read_samples",
]

_GB = 1e9
_TIGHT = 0.85  # of a memory: what libraries take for themselves is not estimated
_HALF, _FULL = 0.5, 0.95  # of the rate at which the processes could train
_AHEAD = 4  # batches of a reader: two fetched ahead, one in the making, one in use
_FIRST_UPDATE_S = 180.0  # what a start is planned for


# ---- memory


def check_memory(work: Work, training: TrainingConfig, job: Job) -> Check:
    """Peak of a training process against the memory of its GPU, or of the process on CPUs."""
    parts = work.memory(
        training.batch_size, training.precision, training.activation_checkpointing,
        parallel=job.size.gpus > 1,
    )  # fmt: skip
    named = ", ".join(f"{name} {size / _GB:.3g}" for name, size in vars(parts).items() if size)
    text = f"{parts.total / _GB:.3g} GB a process, estimated: {named}"
    limit = _figure(job, "gpu_memory_gb")
    if limit is None:
        more = "what there is, the profile does not state (--set gpu_memory_gb=...)"
        return Check("memory", "warning", f"{text}\n{more}")
    share = parts.total / _GB / limit
    status = "passed" if share < _TIGHT else "warning" if share <= 1 else "refused"
    return Check("memory", status, f"{share:.0%} of {limit:g} GB\n{text}")


def check_host(reading: Reading, work: Work, training: TrainingConfig, job: Job) -> Check:
    """Memory of a node: ranks and readers, each as large as this process is now."""
    tasks, readers = job.size.tasks_per_node, training.workers
    ahead = readers * _AHEAD * training.batch_size * work.sample_bytes
    each = (1 + readers) * reading.resident + ahead
    if job.profile.accelerator.value == "cpu":
        each += work.memory_bytes(
            training.batch_size, training.precision, training.activation_checkpointing
        )
    text = (
        f"{tasks * each / _GB:.3g} GB a node: {tasks} ranks, each with {readers} readers of "
        f"{reading.resident / _GB:.3g} GB and {ahead / _GB:.3g} GB of batches; and what is in /tmp "
        "where that is memory"
    )
    limit, own = _figure(job, "host_memory_gb"), job.profile.memory_gb.value
    limit = tasks * own if own is not None else limit
    if limit is None:
        return Check("node memory", "warning", f"{text}\nwhat there is, the profile does not state")
    share = tasks * each / _GB / limit
    status = "passed" if share < _TIGHT else "warning" if share <= 1 else "refused"
    return Check("node memory", status, f"{share:.0%} of {limit:g} GB\n{text}")


def _figure(job: Job, name: str) -> float | None:
    machine = job.profile.machine
    return None if machine is None else machine.known(name)


# ---- reading


@dataclass(frozen=True)
class Reading:
    """What reading samples took, in this one process and in random order.

    Attributes
    ----------
    samples : int
    seconds : float
    resident : int
        Memory of the process after it [bytes].
    """

    samples: int
    seconds: float
    resident: int

    @property
    def rate(self) -> float:
        """Samples a second of one process."""
        return self.samples / self.seconds

    def fed(self, workers: int, needed: float) -> float:
        """Share of the rate `needed` by a rank [samples/s] at which its training can go on."""
        if workers:
            return min(1.0, workers * self.rate / needed)
        return 1 / (1 + needed / self.rate)  # the rank reads by itself, and trains after that


def read_samples(samples: Dataset, batch_size: int, wanted: int) -> Reading:
    """Read `wanted` samples, or as many as there are, in whole batches.

    The first batch opens the stores; it is not counted, if there is another.
    """
    order = seeded_order(np.arange(len(samples)), 0, 0)
    size = min(batch_size, len(samples))
    first = size if len(samples) >= 2 * size else 0
    counted = max(1, min(wanted, len(samples) - first) // size) * size
    numbers = order[: first + counted].tolist()
    loader = iter(DataLoader(samples, size, sampler=numbers, collate_fn=whole_batch))
    if first:
        next(loader)
    begin = time.perf_counter()
    for _ in loader:
        pass
    return Reading(counted, time.perf_counter() - begin, resident_bytes())


def check_loader(
    reading: Reading, training: TrainingConfig, plan: Plan, job: Job, step_s: float | None
) -> Check:
    """Whether the readers of a rank give what its GPU can take; measured on this machine."""
    cores = job.profile.cpus_per_task.value
    workers = min(training.workers, cores)
    text = (
        f"{reading.samples} samples in {reading.seconds:.2f} s: {reading.rate:.1f} samples/s with "
        f"one process of this machine, {workers} for each rank"
    )
    if step_s is None:
        return Check("loader", "warning", f"{text}\nwhat a rank needs is not predicted, see time")
    needed = plan.batch_size * plan.passes / step_s
    fed = reading.fed(workers, needed)
    text = f"{text}\na rank trains {needed:.2f} samples/s: fed to {fed:.0%}"
    if workers < training.workers:
        text += f"; {training.workers} workers have {cores} cores"
    if fed < _HALF:
        return Check("loader", "refused", f"the loader cannot feed half of it: {text}")
    return Check("loader", "passed" if fed >= _FULL else "warning", text)


# ---- time and cost


def check_time(predicted: Prediction, plan: Plan, job: Job) -> Check:
    """Jobs that the run takes, against those that it may take."""
    profile, size = job.profile, job.size
    goes_on = job.resumable and not size.rehearsal and profile.continue_by.value != "nothing"
    allowed = 1 + (profile.continuations.value if goes_on else 0)
    usable = size.seconds - stop_margin(profile, size) - predicted.first_update_s
    text = (
        f"step {predicted.step_s:.3g} s (efficiency {predicted.efficiency:.2f}), epoch "
        f"{predicted.epoch_s / 3600:.3g} h, {plan.steps} steps {predicted.hours:.3g} h"
    )
    if usable <= predicted.step_s:
        return Check("time", "refused", f"not one step fits into {size.clock}: {text}")
    jobs = math.ceil(predicted.hours * 3600 / usable)
    text += f"; {jobs} job{'s' if jobs > 1 else ''} of {size.clock}, {allowed} allowed"
    if jobs > allowed:
        return Check("time", "refused", f"the run cannot end: {text}")
    return Check("time", "passed" if jobs == 1 else "warning", text)


def check_cost(predicted: Prediction, job: Job) -> Check:
    """GPU-hours against what is left of the allocation."""
    factor, left = job.profile.billed.value, job.profile.allocation_gpu_hours.value
    billed = predicted.gpu_hours * factor
    text = f"{predicted.gpu_hours:,.1f} GPU-hours"
    text += "" if factor == 1 else f", billed as {billed:,.1f}"
    if left is None:
        return Check("cost", "passed", f"{text}; --set allocation_gpu_hours=... compares it")
    text += f", of {left:,.1f} that are left"
    return Check("cost", "passed" if billed <= left else "refused", text)


def check_start(predicted: Prediction) -> Check:
    """Time from srun to the first update."""
    text = f"first update {predicted.first_update_s:.0f} s after srun, planned for"
    late = predicted.first_update_s > _FIRST_UPDATE_S
    return Check("start", "warning" if late else "passed", f"{text} {_FIRST_UPDATE_S:.0f} s")
