"""The processes of a training: launched by torchrun or SLURM, or this one alone."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
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

from aqnet.training.config import TrainingConfig
from aqnet.training.shutdown import FAILURE, together

__all__ = ["SummingDDP", "as_one", "open_fabric"]


# Buffers are constants here; sending them before each forward pass would cost more than the
# gradients. torch 2.13 has a new name for the option, older ones the second.
_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class SummingDDP(DDPStrategy):
    """DDP that adds gradients instead of averaging them, and notes what a rank brought itself.

    The loop divides by the number of cells of all ranks. `local_finite`: per bucket of the last
    backward pass, whether this rank's own gradients were finite before they met the others'.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**{_BUFFERS: False}, **options)
        self.local_finite: list[torch.Tensor] = []

    def setup_module(self, module: torch.nn.Module) -> DistributedDataParallel:
        """Wrap a module; called by `Fabric.setup_module`."""
        wrapped = super().setup_module(module)
        wrapped.register_comm_hook(self, _add_up)
        return wrapped


def _add_up(strategy, bucket):  # without annotations: DDP refuses them as text
    values = bucket.buffer()
    strategy.local_finite.append(values.isfinite().all())
    return dist.all_reduce(values, async_op=True).get_future().then(lambda done: done.value()[0])


def _launched() -> tuple[ClusterEnvironment, int, int] | None:
    """Environment, processes per node and nodes, if torchrun or srun started this process."""
    if TorchElasticEnvironment.detect():  # first: torchrun may run inside SLURM
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return TorchElasticEnvironment(), local, int(os.environ["WORLD_SIZE"]) // local
    # SLURMEnvironment.detect() takes a Python without srun for a rank, but not a job named `bash`
    if "SLURM_STEP_ID" in os.environ and int(os.environ["SLURM_NTASKS"]) > 1:
        environment = SLURMEnvironment(auto_requeue=False)  # its handlers save inside signals
        nodes = int(os.environ["SLURM_NNODES"])
        return environment, int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


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
    return fabric


@contextmanager
def as_one(fabric: Fabric, folder: Path) -> Iterator[None]:
    """All ranks enter and leave a block together; one that fails in it brings all down.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    folder : path
        On a file system that all ranks see; made if need be. See `shutdown.together`.
    """
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILURE).unlink(missing_ok=True)
    fabric.barrier()
    with together(fabric.global_rank, fabric.world_size, folder):
        yield
        fabric.barrier()  # none is outside while another may still fail
