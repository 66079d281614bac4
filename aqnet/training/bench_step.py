"""Cost of one training step beside a network of the published form from torch's own modules.

A step is forward, backward and AdamW, with one sample. Each variant has a process of its own: its
memory is the peak of resident memory above what the process held after its imports, thus weights,
gradients, moments and all that the step keeps.

Floating-point operations are those that the formulas need, however they are computed: three times
the matrix products of a forward pass (torch.utils.flop_counter), plus 12 N^2 D for each attention
of N tokens of width D (two products forward, four backward). Recomputed scores or blocks and the
columns of the biases are not counted as work.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aqnet.data.geography import china_static
from aqnet.grid import GRIDS, Grid
from aqnet.model.bench_machine import (
    best_seconds,
    forget_peak,
    in_own_process,
    matmul_gflops,
    memory_is_told,
    peak_bytes,
    resident_bytes,
)
from aqnet.model.config import ModelConfig
from aqnet.model.network import Domain, FieldTransformer
from aqnet.model.presets import model_preset
from aqnet.model.published_form import PublishedForm
from aqnet.model.ridge import RidgeFactors
from aqnet.variables import INPUTS, STATIC, TARGETS

__all__ = ["CASES", "REFERENCE", "Case", "Size", "StepCost", "step_costs"]

RIDGE_RANK = 14
ONE_LEAD_H = 24.0


@dataclass(frozen=True)
class Case:
    """A network and the type of its products; `tokens` None: the published form."""

    tokens: str | None
    dtype: torch.dtype = torch.float32


REFERENCE = "published"
CASES = {
    REFERENCE: Case(None),
    "full": Case("full"),
    "full-bf16": Case("full", torch.bfloat16),
    "active": Case("active"),
    "active-bf16": Case("active", torch.bfloat16),
}


@dataclass(frozen=True)
class Size:
    """Grid (a name of GRIDS that covers China) and network."""

    grid: str = "china"
    width: int = 768
    depth: int = 6
    heads: int = 8
    checkpointing: bool = False  # of our blocks: recompute instead of keep


@dataclass(frozen=True)
class StepCost:
    """What a step of a case costs.

    Attributes
    ----------
    case : str
    tokens, parameters, leads : int
        `leads`: lead times that one pass forecasts.
    seconds : float
        Shortest step after a warm-up.
    memory : int or None
        Peak, bytes; None where the system does not tell.
    flop : float
        Operations that the formulas need.
    gflops : float
        The machine's matrix multiply in the precision of the case, GFLOP/s.
    """

    case: str
    tokens: int
    parameters: int
    leads: int
    seconds: float
    memory: int | None
    flop: float
    gflops: float

    @property
    def share_of_peak(self) -> float:
        """Counted operations over what matrix multiply would do in the time."""
        return self.flop / self.seconds / (self.gflops * 1e9)


def step_costs(
    size: Size, cases: tuple[str, ...] = tuple(CASES), repeats: int = 2, rounds: int = 1
) -> list[StepCost]:
    """Cost of a step of each of `cases` (keys of CASES).

    Cases are measured in turn, `rounds` times, so that a change of the machine's speed meets all.

    Raises
    ------
    AqnetError
        A measuring process ended without an answer, as when it ran out of memory.
    """
    found: dict[str, StepCost] = {}
    for _ in range(rounds):
        for case in cases:
            cost = in_own_process(
                f"a step of {case!r}",
                "choose fewer cases or a smaller grid, or --checkpointing",
                _measure,
                case,
                size,
                repeats,
                torch.get_num_threads(),
            )
            found[case] = _better(found.get(case), cost)
    return list(found.values())


def _better(before: StepCost | None, cost: StepCost) -> StepCost:
    return cost if before is None or cost.seconds < before.seconds else before


def _measure(pipe, case: str, size: Size, repeats: int, threads: int) -> None:
    """In a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    gflops = matmul_gflops(dtype=CASES[case].dtype)
    told = memory_is_told()
    if told:
        forget_peak()
    before = resident_bytes() if told else 0
    network, inputs = _make(case, size)
    step = _step(network, inputs, CASES[case])
    step()  # moments are made here
    seconds = best_seconds(step, "cpu", repeats)
    memory = peak_bytes() - before if told else None
    gflops = max(gflops, matmul_gflops(dtype=CASES[case].dtype))
    flop, tokens = _counted(network, inputs)
    parameters = sum(p.numel() for p in network.parameters())
    leads = 1 if CASES[case].tokens is None else len(network.config.lead_times_h)
    pipe.send(StepCost(case, tokens, parameters, leads, seconds, memory, flop, gflops))


# ---- networks and their inputs


def _make(case: str, size: Size) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    grid = GRIDS[size.grid]
    if CASES[case].tokens is None:
        network = PublishedForm(grid.shape, width=size.width, depth=size.depth, heads=size.heads)
        return network, (torch.randn(1, len(INPUTS), *grid.shape), torch.full((1,), ONE_LEAD_H))
    config = _configuration(CASES[case], size)
    network = FieldTransformer(config, INPUTS, _domain(grid, config))
    network.checkpoint_blocks = size.checkpointing
    shape = (1, len(config.lead_times_h), 6)
    wind = 6.0 * torch.randn(1, 2, *grid.shape)
    return network, (torch.randn(1, len(INPUTS), *grid.shape), wind, torch.randn(shape))


def _configuration(case: Case, size: Size) -> ModelConfig:
    """The preset "china": physics in all blocks, ridges and rotary position among it."""
    sides = {"width": size.width, "depth": size.depth, "heads": size.heads}
    return model_preset("china", tokens=case.tokens, **sides)


def _domain(grid: Grid, config: ModelConfig) -> Domain:
    """China with its terrain; ridge factors are random, which costs the same."""
    static = china_static(grid)
    lat, lon = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    fields = {"lat2d": lat, "lon2d": lon, "elevation": static.elevation.values}
    fields["population"] = static.population.values
    mask, random = static.mask.values, np.random.default_rng(0)
    patches = mask.size // config.patch**2
    left, right = (random.uniform(0, 9, (patches, RIDGE_RANK)).astype("f4") for _ in range(2))
    ridge = RidgeFactors(left, right, {}, {})
    return Domain(grid, mask, np.stack([fields[name] for name in STATIC]), ridge)


# ---- the step


def _step(network: nn.Module, inputs: tuple[torch.Tensor, ...], case: Case):
    optimiser = torch.optim.AdamW(network.parameters())
    target = torch.randn(1, len(INPUTS if case.tokens is None else TARGETS), *inputs[0].shape[2:])

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == torch.bfloat16):
            loss = (network(*inputs) - target).square().mean()
        loss.backward()
        optimiser.step()

    return step


def _counted(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[float, int]:
    """Operations of a step, and tokens; see the head of this module. Ends the training."""
    sites = _attention_sites(network)
    shapes = []

    def no_attention(q, k, v, *_args, **_named):
        shapes.append((*q.shape, k.shape[-2]))
        return v[..., : q.shape[-2], :]

    network.requires_grad_(False)
    with _replaced(sites, no_attention), FlopCounterMode(display=False) as count:
        network(*inputs)
    attention = sum(12 * math.prod(shape) for shape in shapes)  # B, heads, N, d, sources
    return 3.0 * count.get_total_flops() + attention, shapes[-1][2]


def _attention_sites(network: nn.Module) -> list[tuple[object, str]]:
    if isinstance(network, PublishedForm):
        return [(nn.functional, "scaled_dot_product_attention")]
    return [(block.attention.core, "forward") for block in network.blocks]


@contextlib.contextmanager
def _replaced(sites: list[tuple[object, str]], function):
    before = [getattr(owner, name) for owner, name in sites]
    try:
        for owner, name in sites:
            setattr(owner, name, function)
        yield
    finally:
        for (owner, name), own in zip(sites, before, strict=True):
            setattr(owner, name, own)
