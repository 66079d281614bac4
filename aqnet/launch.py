"""How this process was started: alone, by torchrun or by srun, and in which SLURM job."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

__all__ = ["Launch", "this_job", "this_launch"]


@dataclass(frozen=True)
class Launch:
    """What started this process, and its place among those that were started with it.

    Attributes
    ----------
    launcher : "none", "torchrun" or "srun"
    rank, processes : int
        Number of this process, and how many there are.
    local_rank : int
        Number of this process among those of its node.
    nodes : int
    """

    launcher: Literal["none", "torchrun", "srun"] = "none"
    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    nodes: int = 1


def this_launch() -> Launch:
    """Read the variables of torchrun, then those of srun: torchrun may run inside a SLURM step.

    A job script gives its processes all variables of SLURM but SLURM_STEP_ID: a Python that it
    calls without srun is alone. RANK and WORLD_SIZE without torchrun's mark mean nothing either.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher, names = "torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    elif "SLURM_STEP_ID" in os.environ:
        launcher, names = "srun", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NNODES")
    else:
        return Launch()
    rank, processes, local_rank, last = (int(os.environ[name]) for name in names)
    nodes = processes // last if launcher == "torchrun" else last
    return Launch(launcher, rank, processes, local_rank, nodes)


def this_job() -> tuple[str | None, int | None]:
    """Number of the SLURM job of this process and how often it was requeued; None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    return job, None if job is None else int(os.environ.get("SLURM_RESTART_COUNT", "0"))
