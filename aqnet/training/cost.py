"""What an experiment costs, before it is run: operations, memory, and bytes sent and read.

Computed from the shapes of its network alone: in seconds, without its memory, on a login node.

Operations are those that the formulas need, however they are computed: three times the matrix
products of a forward pass (torch.utils.flop_counter), plus 12 N^2 D for each attention of N tokens
of width D (two products forward, four backward). Recomputed scores or blocks and the columns of the
biases are not counted as work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from aqnet.data.climatology import CALENDAR
from aqnet.data.geography import china_static
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.static import stacked_static
from aqnet.grid import Grid
from aqnet.model.config import ModelConfig
from aqnet.model.domain import Domain
from aqnet.model.forecaster import channel_names
from aqnet.model.network import FieldTransformer
from aqnet.model.ridge import RidgeFactors
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.training.problem import Problem
from aqnet.training.shapes import Inputs, activation_bytes, count_operations
from aqnet.variables import DYNAMIC, STATIC

if TYPE_CHECKING:
    from aqnet.training.experiment import Experiment

__all__ = ["Memory", "Work", "count_operations", "domain_like", "work_of"]

_NUMBER = 4  # bytes of a float32
_RIDGE_RANK = 14  # of `aqnet terrain build`
_STORED = 0.24  # compressed size over float32: 3 GB a year of 128 x 256 cells, the largest seen


@dataclass(frozen=True)
class Memory:
    """Largest memory of a training process [bytes]; `total` is the sum.

    Attributes
    ----------
    weights, gradients, moments, averages : int
        4, 4, 8 bytes a parameter, and 4 more with a moving average of the weights.
    buckets : int
        In which DDP sends the gradients: 4 bytes a parameter, of several processes.
    constants : int
        Places, ridges and masks.
    kept : int
        What the forward pass leaves for the backward one, of all samples of a pass.
    working : int
        What lives beside that for the length of an operation.
    """

    weights: int
    gradients: int
    moments: int
    averages: int
    buckets: int
    constants: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(vars(self).values())


@dataclass(frozen=True, eq=False)
class Work:
    """What a network costs to train.

    Attributes
    ----------
    flop_per_sample : float
        Of a sample, forward and backward; a third of it forward. See the head of this module.
    tokens, parameters : int
    gradient_bytes : int
        That each process sends into the sum over all of them, once an optimiser step.
    optimiser_bytes : int
        The two moments of AdamW.
    average_bytes : int
        Moving average of the weights, if there is one.
    constant_bytes : int
        Of places, ridges and masks, which every process reads or builds.
    sample_bytes : int
        float32 fields of the hours that a sample is read from.
    read_bytes : int
        The same as it lies in yearly stores.
    """

    flop_per_sample: float
    tokens: int
    parameters: int
    gradient_bytes: int
    optimiser_bytes: int
    average_bytes: int
    constant_bytes: int
    sample_bytes: int
    read_bytes: int
    network: FieldTransformer = field(repr=False)

    def memory(
        self, batch_size: int, precision: str = "32-true", checkpointing: bool = False,
        parallel: bool = True,
    ) -> Memory:  # fmt: skip
        """Estimated peak of a process with `batch_size` samples a pass.

        Parameters
        ----------
        batch_size : int
        precision : str
            "32-true" or "bf16-mixed".
        checkpointing : bool
            Blocks are recomputed in the backward pass instead of kept.
        parallel : bool
            One of several processes.

        Notes
        -----
        `kept` is the sum of all storages that are alive between forward and backward pass of the
        network, run on shapes alone. In float32 with mlp_ratio 4 a block keeps about 11.5 tensors
        of tokens x width: the two sums that are normalised; queries, keys, values, output and
        features (about one) of attention in its own order; 4 of the hidden layer, before GELU; and
        a byte a number of each of two dropouts. `working` is the largest sum beside it until the
        end of the backward pass. What libraries and the allocator take is not in it.
        Attention is that of a GPU; on CPUs it keeps about one of these tensors less.
        """
        inputs = _inputs(self.network, batch_size)
        half = precision == "bf16-mixed"
        kept, working = activation_bytes(self.network, inputs, half, checkpointing)
        return Memory(
            weights=_NUMBER * self.parameters,
            gradients=self.gradient_bytes,
            moments=self.optimiser_bytes,
            averages=self.average_bytes,
            buckets=self.gradient_bytes if parallel else 0,
            constants=self.constant_bytes,
            kept=kept,
            working=working,
        )

    def memory_bytes(
        self, batch_size: int, precision: str = "32-true", checkpointing: bool = False
    ) -> int:
        """Sum of `memory`."""
        return self.memory(batch_size, precision, checkpointing).total


def work_of(subject: Experiment | Problem) -> Work:
    """What training an experiment, or a problem opened from it, costs.

    An experiment is counted without its data: on fields, with the cells of China in its grid as
    mask. The mask of a problem is that of its stores, which may lack cells at the border; its
    `average_bytes` is 0, for only the experiment says whether there is an average.

    Parameters
    ----------
    subject : Experiment or Problem
    """
    opened = isinstance(subject, Problem)
    network = subject.model.network if opened else _network_of(subject)
    config, averaged = network.config, not opened and subject.training.ema_decay > 0
    flop, tokens = count_operations(network, _inputs(network, 1))
    size = _NUMBER * sum(p.numel() for p in network.parameters() if p.requires_grad)
    hours = len(config.history_h) + _leads(config)
    sample = _NUMBER * hours * len(DYNAMIC) * math.prod(network.shape)
    return Work(
        flop_per_sample=flop,
        tokens=tokens,
        parameters=size // _NUMBER,
        gradient_bytes=size,
        optimiser_bytes=2 * size,
        average_bytes=size * averaged,
        constant_bytes=sum(b.numel() * b.element_size() for b in network.buffers()),
        sample_bytes=sample,
        read_bytes=round(_STORED * sample),
        network=network,
    )


# ---- the network and its inputs


def _leads(config: ModelConfig) -> int:
    return 1 if config.lead_mode == "one" else len(config.lead_times_h)


def _network_of(subject: Experiment) -> FieldTransformer:
    manifest, config = load_manifest(resolve_manifest(subject.manifest)), subject.model
    grid = manifest.grid_object()
    if not isinstance(manifest, GridManifest):
        static = np.zeros((len(STATIC), *grid.shape), np.float32)
        domain = Domain(grid, np.ones(grid.shape, bool), static)
        return FieldTransformer(config, channel_names(config), domain)
    dynamic = [n if h == 0 else f"{n}_{h}h_ago" for h in config.history_h for n in DYNAMIC]
    channels = (*dynamic, *STATIC, "known")  # those of DeviceNormaliser
    return FieldTransformer(config, channels, domain_like(config, grid))


def domain_like(config: ModelConfig, grid: Grid) -> Domain:
    """China on a grid with its terrain and scan orders; ridges are random, which costs the same.

    Parameters
    ----------
    config : ModelConfig
    grid : Grid
        Covered by the geography of China.
    """
    static = china_static(grid)
    values, mask = stacked_static(static), static.mask.values
    random = np.random.default_rng(0)
    shape = (mask.size // config.patch**2, _RIDGE_RANK)
    left, right = (random.uniform(0, 9, shape).astype("f4") for _ in range(2))
    plain = Domain(grid, mask, values, RidgeFactors(left, right, {}, {"grid_sha256": grid.digest}))
    scan = config.scan
    if not scan.needs_orders:
        return plain
    spec = scan_spec(
        grid, config.patch, scan.regions, scan.sectors, scan.lane_patches, plain.tokens(config)
    )
    return Domain(grid, mask, values, plain.ridge, build_orders(spec))


def _inputs(network: FieldTransformer, batch: int) -> Inputs:
    """Arguments of the network, without values."""
    config, (height, width) = network.config, network.shape
    shapes = [
        (batch, len(network.channels), height, width),
        (batch, 2, height, width),
        (batch, _leads(config), len(CALENDAR)),
    ]
    if config.lead_mode == "one":
        shapes.append((batch,))
    return tuple(torch.empty(shape, device="meta") for shape in shapes)
