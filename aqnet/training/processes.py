"""The processes of a training: launched by torchrun or SLURM, or this one alone."""

from __future__ import annotations

import ctypes
import inspect
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from aqnet.launch import this_launch
from aqnet.training.config import TrainingConfig
from aqnet.training.heartbeat import Heart
from aqnet.training.shutdown import together

__all__ = [
    "FAILURES",
    "SummingDDP",
    "as_one",
    "moment",
    "open_fabric",
    "seconds_between",
    "set_heap_limits",
]

FAILURES = "failure-*.txt"  # in the folder of as_one: the traceback of the rank that failed first


# Buffers are constants here; sending them before each forward pass would cost more than the
# gradients. torch 2.13 has a new name for the option, older ones the second.
_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


def moment(device: torch.device) -> float | torch.cuda.Event:
    """Now: by the clock [s], or on the stream of a GPU, which runs behind the program."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    """Seconds between two moments; waits for the second one."""
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1000


class SummingDDP(DDPStrategy):
    """DDP that adds gradients instead of averaging them, and notes what a rank brought itself.

    The loop divides by the number of cells of all ranks. `local_finite`: per bucket of the last
    backward pass, whether this rank's own gradients were finite before they met the others'.
    `own_end`: moment at which the last of them was there, when `on_own_end` is called; what
    follows is waiting. Gradients are views of the buckets that are sent: beside them they would
    take their size in memory again.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**{_BUFFERS: False}, gradient_as_bucket_view=True, **options)
        self.local_finite: list[torch.Tensor] = []
        self.own_end: float | torch.cuda.Event | None = None
        self.on_own_end: Callable[[], None] = lambda: None

    def setup_module(self, module: torch.nn.Module) -> DistributedDataParallel:
        """Wrap a module; called by `Fabric.setup_module`."""
        wrapped = super().setup_module(module)
        wrapped.register_comm_hook(self, _add_up)
        return wrapped


def _add_up(strategy, bucket):  # without annotations: DDP refuses them as text
    values = bucket.buffer()
    strategy.local_finite.append(values.isfinite().all())
    if bucket.is_last():
        strategy.own_end = moment(values.device)
        strategy.on_own_end()
    return dist.all_reduce(values, async_op=True).get_future().then(lambda done: done.value()[0])


def _launched() -> tuple[ClusterEnvironment, int, int] | None:
    """Environment, processes per node and nodes, if torchrun or srun started this process."""
    launch = this_launch()
    if launch.launcher == "torchrun":
        environment: ClusterEnvironment = TorchElasticEnvironment()
    # SLURMEnvironment.detect() takes a Python without srun for a rank, but not a job named `bash`
    elif launch.launcher == "srun" and launch.processes > 1:
        environment = SLURMEnvironment(auto_requeue=False)  # its handlers save inside signals
    else:
        return None
    return environment, launch.local_processes, launch.nodes


LARGE_BYTES = 32 * 2**20  # the most that every glibc takes
KEPT_BYTES = 2**30  # at the end of the heap
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)


def set_heap_limits() -> None:
    """Keep freed blocks of up to 32 MB for the next ones, give larger ones back; glibc only.

    Of what is free at the end of the heap, 1 GB is kept.

    A training step at full size makes hundreds of tensors of 25 MB. By itself glibc gives the end
    of its heap back whenever 64 MB of it are free, and the next step takes it anew, page by page.
    To give back each such tensor, too, needed 2.8 GB instead of 3.9, and a tenth more time, in a
    virtual machine, where a new page is dear.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        # to set one limit fixes the other at 128 kB, and each freed block would go back
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def open_fabric(config: TrainingConfig) -> Fabric:
    """Fabric for the processes that torchrun or srun started, or for this one alone; launched."""
    options = {"accelerator": config.accelerator, "precision": config.precision}
    launched = _launched()
    if launched is None:
        # by name: Fabric would look for SLURM by itself, and take a job script for one of its tasks
        fabric = Fabric(devices=1, plugins=[LightningEnvironment()], **options)
    else:
        environment, devices, nodes = launched
        timeout = timedelta(minutes=config.collective_timeout_minutes)
        strategy = SummingDDP(cluster_environment=environment, timeout=timeout)
        fabric = Fabric(strategy=strategy, devices=devices, num_nodes=nodes, **options)
    fabric.launch()
    if fabric.device.type == "cpu":
        set_heap_limits()
    return fabric


def _begin_start(fabric: Fabric, folder: Path) -> str:
    """Name of this start, the same on all ranks, and another for each."""
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(FAILURES):  # of earlier starts; another node may see them still
            path.unlink(missing_ok=True)
    return fabric.broadcast(secrets.token_hex(4) if fabric.is_global_zero else None)


@contextmanager
def as_one(
    fabric: Fabric, folder: Path, beats: Path | None = None, phase: str = "opening"
) -> Iterator[Heart]:
    """All ranks enter and leave a block together; one that fails in it brings all down.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    folder : path
        On a file system that all ranks see; made if need be. A failure is noted there, in a file
        named for this start. See `shutdown.together`.
    beats : path, optional
        Folder for signs of life of the ranks (`heartbeat`).
    phase : str
        What the block does, for them.
    """
    rank, world = fabric.global_rank, fabric.world_size
    start = _begin_start(fabric, folder)
    failure = folder / FAILURES.replace("*", start)
    with Heart(beats, rank, world, start) as heart, together(rank, world, failure):
        heart.phase = phase
        yield heart
        fabric.barrier()  # none is outside while another may still fail
