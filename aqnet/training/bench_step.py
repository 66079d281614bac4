"""Cost of one training step beside a network of the published form from torch's own modules.

A step is forward, backward and AdamW, with one sample. Each variant has a process of its own: its
memory is the peak of resident memory above what the process held after its imports, thus weights,
gradients, moments and all that the step keeps.

Operations are counted as in `aqnet.training.cost`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from aqnet.grid import GRIDS
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
from aqnet.model.network import FieldTransformer
from aqnet.model.presets import model_preset
from aqnet.model.published import PUBLISHED_INPUTS
from aqnet.model.published_form import PublishedForm
from aqnet.model.tiled_attention import count_pairs
from aqnet.training.cost import count_operations, domain_like
from aqnet.training.processes import set_heap_limits
from aqnet.variables import INPUTS, TARGETS

__all__ = ["CASES", "REFERENCE", "Case", "Size", "StepCost", "step_costs"]

ONE_LEAD_H = 24.0
_PAGES = {"torch": {"THP_MEM_ALLOC_ENABLE": "0"}, "aqnet": {}}  # read by torch


@dataclass(frozen=True)
class Case:
    """A network, the type of its products and how its process handles memory.

    `tokens` None: the published form. `lead_mode` "one": one lead time a pass, as it has. `memory`
    "torch": as torch starts by itself, on pages of 4 kB and with the limits of the C library;
    "aqnet": as `import aqnet` and a training set them.
    """

    tokens: str | None
    dtype: torch.dtype = torch.float32
    memory: Literal["torch", "aqnet"] = "aqnet"
    lead_mode: Literal["all", "one"] = "all"


REFERENCE = "published"
CASES = {
    REFERENCE: Case(None, memory="torch"),
    "published-memory": Case(None),
    "full": Case("full"),
    "full-bf16": Case("full", torch.bfloat16),
    "full-one-lead": Case("full", lead_mode="one"),
    "full-one-lead-bf16": Case("full", torch.bfloat16, lead_mode="one"),
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
    left_out : float
        Operations among `flop` that are not done: of pairs without weight (`count_pairs`).
    """

    case: str
    tokens: int
    parameters: int
    leads: int
    seconds: float
    memory: int | None
    flop: float
    gflops: float
    left_out: float = 0.0

    @property
    def share_of_peak(self) -> float:
        """Counted operations over what matrix multiply would do in the time."""
        return self.flop / self.seconds / (self.gflops * 1e9)

    @property
    def share_done(self) -> float:
        """The same of those that are done."""
        return self.share_of_peak * (1 - self.left_out / self.flop)


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
                variables=_PAGES[CASES[case].memory],
            )
            found[case] = _better(found.get(case), cost)
    return list(found.values())


def _better(before: StepCost | None, cost: StepCost) -> StepCost:
    return cost if before is None or cost.seconds < before.seconds else before


def _measure(pipe, case: str, size: Size, repeats: int, threads: int) -> None:
    """In a process of its own."""
    if CASES[case].memory == "aqnet":
        set_heap_limits()  # as a training does
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    gflops = matmul_gflops(dtype=CASES[case].dtype)
    told = memory_is_told()
    if told:
        forget_peak()
    before = resident_bytes() if told else 0
    network, inputs = _make(case, size)
    step = _step(network, inputs, CASES[case])
    with count_pairs() as pairs:
        step()  # moments are made here
    seconds = best_seconds(step, "cpu", repeats)
    memory = peak_bytes() - before if told else None
    gflops = max(gflops, matmul_gflops(dtype=CASES[case].dtype))
    flop, tokens = count_operations(network, inputs)
    parameters = sum(p.numel() for p in network.parameters())
    one = CASES[case].tokens is None or CASES[case].lead_mode == "one"
    leads = 1 if one else len(network.config.lead_times_h)
    # six products of a pair: its score, done for all; its value; four backward
    skipped = (pairs.all - pairs.summed) + 4 * (pairs.all - pairs.kept)
    left_out = 2.0 * (size.width // size.heads) * skipped
    pipe.send(StepCost(case, tokens, parameters, leads, seconds, memory, flop, gflops, left_out))


# ---- networks and their inputs


def _make(case: str, size: Size) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    grid = GRIDS[size.grid]
    if CASES[case].tokens is None:
        network = PublishedForm(grid.shape, width=size.width, depth=size.depth, heads=size.heads)
        fields = torch.randn(1, len(PUBLISHED_INPUTS), *grid.shape)
        return network, (fields, torch.full((1,), ONE_LEAD_H))
    config = _configuration(CASES[case], size)
    network = FieldTransformer(config, INPUTS, domain_like(config, grid))
    network.checkpoint_blocks = size.checkpointing
    fields, wind = torch.randn(1, len(INPUTS), *grid.shape), 6.0 * torch.randn(1, 2, *grid.shape)
    if config.lead_mode == "one":
        return network, (fields, wind, torch.randn(1, 1, 6), torch.full((1,), ONE_LEAD_H))
    return network, (fields, wind, torch.randn(1, len(config.lead_times_h), 6))


def _configuration(case: Case, size: Size) -> ModelConfig:
    """The preset "china": physics in all blocks, ridges and rotary position among it.

    Without dropout and drop path, as the published form is measured.
    """
    sides = {"width": size.width, "depth": size.depth, "heads": size.heads}
    sides |= {"tokens": case.tokens, "lead_mode": case.lead_mode}
    return model_preset("china", dropout=0.0, drop_path=0.0, **sides)


# ---- the step


def _step(network: nn.Module, inputs: tuple[torch.Tensor, ...], case: Case):
    optimiser = torch.optim.AdamW(network.parameters())
    outputs = PUBLISHED_INPUTS if case.tokens is None else TARGETS
    target = torch.randn(1, len(outputs), *inputs[0].shape[2:])

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == torch.bfloat16):
            loss = (network(*inputs) - target).square().mean()
        loss.backward()
        optimiser.step()

    return step
