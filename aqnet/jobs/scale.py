"""Size of a job: presets of batch and accumulation, nodes, optimiser steps and GPU-hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.splits import HISTORY_H, init_times, splits_of
from aqnet.errors import ParameterError, explain
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.profiles import Partition, Profile, seconds_of
from aqnet.training.experiment import Experiment, experiment_of
from aqnet.training.schedule import Plan, describe_plan

__all__ = [
    "REHEARSAL_STEPS",
    "REHEARSAL_VALIDATION",
    "SCALES",
    "Scale",
    "Size",
    "experiment_in",
    "plan_of",
    "samples_in",
    "scaled",
    "size_of",
    "stop_margin",
]

REHEARSAL_NODES, REHEARSAL_SECONDS = 2, 15 * 60
REHEARSAL_STEPS = 20  # optimiser steps: a job that ends by itself, with a validation
# Judged before the first step and after the last: enough for each of 16 processes to see several
# batches. The whole split on so few would take most of the 15 minutes, which nobody predicts.
REHEARSAL_VALIDATION = 256


@dataclass(frozen=True)
class Scale:
    """Batch of a number of GPUs: `gpus` x `batch_size` x `passes` samples an optimiser step."""

    gpus: int
    batch_size: int
    passes: int

    @property
    def effective(self) -> int:
        """Samples of an optimiser step."""
        return self.gpus * self.batch_size * self.passes


# 2 samples a pass: what the full grid leaves room for in 64 GB. Effective batches of the runs that
# are on record: 512 on 128 GPUs, 1,600 on 400, 6,400 on 800.
SCALES = {s.gpus: s for s in (Scale(128, 2, 2), Scale(400, 2, 2), Scale(800, 2, 4))}


@dataclass(frozen=True)
class Size:
    """Processes, nodes and time of a job.

    Attributes
    ----------
    gpus, nodes, tasks_per_node : int
    seconds : int
        Time limit.
    partition : str or None
    whole_nodes : bool
        All processes of each node belong to the job, so that CPU masks of the node hold.
    rehearsal : bool
    """

    gpus: int
    nodes: int
    tasks_per_node: int
    seconds: int
    partition: str | None
    whole_nodes: bool
    rehearsal: bool

    @property
    def gpu_hours(self) -> float:
        """At most, if the job runs to its time limit."""
        return self.gpus * self.seconds / 3600

    @property
    def clock(self) -> str:
        """Time limit as HH:MM:SS."""
        minutes, seconds = divmod(self.seconds, 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


def _refuse(problem: str, expected: object, found: object, remedy: str) -> ParameterError:
    return ParameterError(explain(problem, expected=expected, found=found, remedy=remedy))


def _check_limits(size: Size, limits: Partition) -> None:
    since = f"{limits.name} (as of {limits.dated})"
    if limits.max_nodes is not None and size.nodes > limits.max_nodes:
        raise _refuse(f"too many nodes for {since}", f"at most {limits.max_nodes}", size.nodes,
                      "--set partition=..., or fewer GPUs")  # fmt: skip
    if limits.max_hours is not None and size.seconds > 3600 * limits.max_hours:
        raise _refuse(f"too long for {since}", f"at most {limits.max_hours} h", size.clock,
                      "--set time=...; a run goes on after the limit of a job")  # fmt: skip
    if limits.whole_nodes and not size.whole_nodes:
        raise _refuse(f"{since} gives whole nodes only", f"a multiple of {size.tasks_per_node}",
                      f"{size.gpus} GPUs", "--set small_partition=...")  # fmt: skip


def size_of(profile: Profile, gpus: int, rehearsal: bool = False) -> Size:
    """Nodes, time and partition for a number of GPUs.

    Parameters
    ----------
    profile : Profile
        Without required settings left (`Profile.missing`).
    gpus : int
        Fewer than a node has, or a multiple of that.
    rehearsal : bool
        2 nodes at most, and 15 minutes.

    Raises
    ------
    ParameterError
        The processes cannot be laid out, or the partition does not take the job.
    """
    per_node = profile.per_node.value
    nodes, rest = divmod(gpus, per_node)
    if gpus < 1 or (nodes and rest):
        raise _refuse("the processes do not fill their nodes",
                      f"fewer than {per_node}, or a multiple of it ({profile.name})",
                      f"--gpus {gpus}", f"--gpus {max(nodes, 1) * per_node}")  # fmt: skip
    whole = not rest
    partition = (profile.partition if whole else profile.small_partition).value
    seconds = seconds_of(profile.time.value)
    if rehearsal:
        nodes, seconds = min(nodes, REHEARSAL_NODES), min(seconds, REHEARSAL_SECONDS)
        gpus = nodes * per_node or gpus
        partition = profile.rehearsal_partition.value or partition
    tasks = per_node if whole else rest
    size = Size(gpus, nodes or 1, tasks, seconds, partition, whole, rehearsal)
    limits = profile.limits(partition)
    if limits is not None:
        _check_limits(size, limits)
    return size


def stop_margin(profile: Profile, size: Size) -> int:
    """Seconds before the limit at which SLURM asks a job to stop; a third of a short job."""
    return min(profile.stop_seconds.value, size.seconds // 3)


# ---- what a size means for the training notebook


def experiment_in(values: Mapping[str, Value]) -> Experiment | None:
    """The experiment of a training notebook; None for any other notebook."""
    if not {"preset", "batch_size", "effective_batch"} <= values.keys():
        return None
    return experiment_of(values)


def _manifest(chosen: Experiment) -> object:
    return load_manifest(resolve_manifest(chosen.manifest))


def scaled(
    values: Mapping[str, Value], profile: Profile, gpus: int, size: Size
) -> dict[str, Value]:
    """Parameters that follow from the size and the profile; those that are given stay.

    Parameters
    ----------
    values : mapping
        Typed parameters of the notebook.
    profile : Profile
    gpus : int
        That the run is for: of a rehearsal, those of the run that it rehearses.
    size : Size
        Of the job itself.

    Returns
    -------
    dict
        `accelerator`; for fields on a preset number of GPUs `batch_size` and `effective_batch`;
        in a rehearsal the same passes on fewer processes, few steps, and few samples to judge.
    """
    found: dict[str, Value] = {}
    if "accelerator" in values and values["accelerator"] is None:
        found["accelerator"] = profile.accelerator.value
    chosen = experiment_in(values)
    if chosen is None:
        return found
    scale = SCALES.get(gpus)
    given = values["batch_size"] is not None or values["effective_batch"] is not None
    if scale is not None and not given and isinstance(_manifest(chosen), GridManifest):
        found |= {"batch_size": scale.batch_size, "effective_batch": scale.effective}
    if size.rehearsal:
        found |= _rehearsed(experiment_in({**values, **found}), values, gpus, size)
    return found


def _rehearsed(chosen: Experiment, values: Mapping, gpus: int, size: Size) -> dict[str, Value]:
    training = chosen.training
    together = training.batch_size * gpus
    passes, rest = divmod(training.effective_batch or together, together)
    if rest:
        raise _refuse("effective_batch cannot be had with these processes",
                      f"a multiple of batch_size x processes = {training.batch_size} x {gpus}",
                      training.effective_batch, "change --gpus or effective_batch")  # fmt: skip
    found: dict[str, Value] = {"effective_batch": training.batch_size * size.gpus * passes}
    if "max_steps" in values and not values["max_steps"]:
        found["max_steps"] = REHEARSAL_STEPS
        if values.get("warmup_steps") is not None:
            found["warmup_steps"] = REHEARSAL_STEPS // 10
    if "max_validation_samples" in values and values["max_validation_samples"] is None:
        found["max_validation_samples"] = REHEARSAL_VALIDATION
    return found


def plan_of(values: Mapping[str, Value], size: Size) -> Plan | None:
    """Optimiser steps and learning rate; None for a notebook that does not train.

    The samples are those of `samples_in`.

    Raises
    ------
    ParameterError
        Batch and processes do not go together.
    """
    chosen = experiment_in(values)
    if chosen is None:
        return None
    return describe_plan(chosen.training, samples_in(chosen, "train"), size.gpus)


def samples_in(chosen: Experiment, split: str) -> int:
    """Samples of a split, counted from the manifest: of stores in which no hour is missing."""
    described = _manifest(chosen)
    leads, history, each = chosen.model.lead_times_h, HISTORY_H, 1
    if isinstance(described, GridManifest):
        history = max(chosen.model.history_h)
        each = len(leads) if chosen.model.lead_mode == "one" else 1
    return each * len(init_times(splits_of(described)[split], max(leads), history))
