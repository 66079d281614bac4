"""How this process was started: alone, by torchrun or by srun, and in which SLURM job."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from aqnet.errors import ParameterError, explain

__all__ = ["Launch", "this_job", "this_launch"]

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SRUN = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NNODES")
_NO_TASKS = 0xFFFFFFF0  # ids of steps from here on: job script, interactive shell (slurm.h)


@dataclass(frozen=True)
class Launch:
    """What started this process, and its place among those that were started with it.

    Attributes
    ----------
    launcher : "none", "torchrun" or "srun"
    rank, processes : int
        Number of this process, and how many there are.
    local_rank, local_processes : int
        The same of its node.
    """

    launcher: Literal["none", "torchrun", "srun"] = "none"
    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    local_processes: int = 1

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.processes // self.local_processes


def this_launch() -> Launch:
    """Read the variables of torchrun, then those of srun: torchrun may run inside a SLURM step.

    A Python that a job script or the shell of `salloc` calls without srun is alone, though it has
    nearly all variables of a task.

    Raises
    ------
    ParameterError
        Something else started several processes; a variable is missing; or nodes do not have the
        same number of processes.
    """
    launcher: Literal["torchrun", "srun"] = "torchrun"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, processes, local_rank, here = _read(launcher, _TORCHRUN)
    elif int(os.environ.get("SLURM_STEP_ID", _NO_TASKS)) < _NO_TASKS:
        launcher = "srun"
        rank, processes, local_rank, nodes = _read(launcher, _SRUN)
        nodes = min(nodes, processes)  # `srun -n1` in a job of more nodes
        here = processes // nodes if processes % nodes == 0 else 0
    else:
        _refuse_others()
        return Launch()
    if here == 0 or processes % here:
        raise ParameterError(explain(
            "nodes have different numbers of processes", expected="the same number on each",
            found=f"{processes} processes, {here or 'not the same number'} on this node",
            remedy="torchrun --nproc-per-node, srun --ntasks-per-node",
        ))  # fmt: skip
    return Launch(launcher, rank, processes, local_rank, here)


def _read(launcher: str, names: tuple[str, ...]) -> list[int]:
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ParameterError(explain(
            f"{launcher} has not said which process this is", expected=", ".join(names),
            found=f"no {', '.join(missing)}", remedy=f"start it with {launcher} itself",
        ))  # fmt: skip
    return [int(os.environ[name]) for name in names]


def _refuse_others() -> None:
    """RANK without the mark of torchrun: each process would take itself for the only one."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and processes != "1":
        raise ParameterError(explain(
            "something that is neither torchrun nor srun started several processes",
            expected="torchrun or srun, or no RANK and WORLD_SIZE",
            found=f"RANK={os.environ['RANK']} and WORLD_SIZE={processes} without "
            "TORCHELASTIC_RUN_ID", remedy="start them with torchrun, or unset both",
        ))  # fmt: skip


def this_job() -> tuple[str | None, int | None]:
    """Number of the SLURM job of this process and how often it was requeued; None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    return job, None if job is None else int(os.environ.get("SLURM_RESTART_COUNT", "0"))
