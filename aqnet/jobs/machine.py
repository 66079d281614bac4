"""Stated figures of a machine: what a prediction of time, memory and cost is made from.

They stand in the section `machine` of a profile. A profile may leave it out, and a figure that only
the site knows may be `required`; what needs a figure that is not there then says so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aqnet.config import Config
from aqnet.jobs.settings import Asked, Positive, Setting, Share

__all__ = ["Machine"]

Precision = Literal["32-true", "bf16-mixed"]  # of TrainingConfig.precision
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Machine(Config):
    """Figures of one node and its network; `gpu` is what the profile calls so.

    Attributes
    ----------
    peak_tflops : dict
        By precision: largest rate of matrix products of a GPU [TFLOP/s].
    reached : dict
        By precision: share of the peak that a training step reaches [1].
    gpu_memory_gb, host_memory_gb : float
        Memory of a GPU; of a node, that of all its processes together [GB].
    node_bandwidth_gb_s : float
        Of the network, out of a node [GB/s].
    gpu_bandwidth_gb_s : float
        Between GPUs of a node [GB/s].
    latency_us : float
        Of a message between nodes [us].
    bandwidth_reached : float
        Share of both bandwidths that an all-reduce reaches [1].
    overlap : float
        Share of the last backward pass behind which an all-reduce hides [1].
    step_spread : float
        Standard deviation of a process's own step time over its mean [1].
    opens_per_s : float
        Files that the file system opens for all processes together [1/s].
    read_gb_s, node_read_gb_s, write_gb_s : float
        Read from the file system by all processes, by a node; written by one process [GB/s].
    launch_s, launch_ms_per_process : float
        From srun to interpreters that start, containers included: fixed part [s], and of each [ms].
    image_gb : float
        What a node reads of image or environment until training begins [GB].
    import_s : float
        Imports of the processes of a node, all at once, from files that are in memory [s].
    group_s, group_ms_per_process : float
        Process group and communicator: fixed part [s], and of each process [ms].
    first_step_s : float
        Of the first step, beyond an ordinary one: kernels are loaded, memory is obtained [s].
    """

    peak_tflops: dict[Precision, Asked[Positive]]
    reached: dict[Precision, Asked[Share]]
    gpu_memory_gb: Asked[Positive]
    host_memory_gb: Asked[Positive]
    node_bandwidth_gb_s: Asked[Positive]
    gpu_bandwidth_gb_s: Asked[Positive]
    latency_us: Asked[Positive]
    bandwidth_reached: Asked[Share]
    overlap: Asked[Fraction]
    step_spread: Asked[Fraction]
    opens_per_s: Asked[Positive]
    read_gb_s: Asked[Positive]
    node_read_gb_s: Asked[Positive]
    write_gb_s: Asked[Positive]
    launch_s: Asked[NotNegative]
    launch_ms_per_process: Asked[NotNegative]
    image_gb: Asked[NotNegative]
    import_s: Asked[NotNegative]
    group_s: Asked[NotNegative]
    group_ms_per_process: Asked[NotNegative]
    first_step_s: Asked[NotNegative]

    def unknown(self) -> dict[str, str]:
        """Figures that the profile leaves open, with the reason."""
        found: dict[str, object] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            each = value if isinstance(value, dict) else {"": value}
            found |= {f"{name} {key}".strip(): setting for key, setting in each.items()}
        return {n: s.reason for n, s in found.items() if not isinstance(s, Setting)}

    def known(self, name: str) -> float | None:
        """A figure by its name; None where the profile leaves it open."""
        return getattr(getattr(self, name), "value", None)
