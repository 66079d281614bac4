"""Cost of physics attention against plain attention, beside the machine's own speed.

Times and memory are of one forward and backward pass. Memory is measured in a process of its own:
the peak above what the process holds with its inputs made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import scaled_dot_product_attention

from aqnet.model.aggregation import VariableTokens
from aqnet.model.bench_machine import (
    best_seconds,
    forget_peak,
    in_own_process,
    memory_is_told,
    peak_bytes,
    resident_bytes,
)
from aqnet.model.check_attention import Sizes, made_up_context, on_device
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig
from aqnet.model.sorted_attention import require_kernel

__all__ = [
    "CASES",
    "Cost",
    "aggregation_costs",
    "attention_costs",
    "growth",
]

_OFF = {"elevation": "off", "plume": "off", "position": "none"}
# None is torch's own attention; "all" is what the limit of 1.5 is about.
CASES: dict[str, dict | None] = {
    "plain": None,
    "rotary": {**_OFF, "position": "rotary"},
    "plume": {**_OFF, "plume": "learned"},
    "ridge": {**_OFF, "ridge": True},
    "elevation": {**_OFF, "elevation": "receiver_uphill"},
    "all": {"ridge": True},
}


@dataclass(frozen=True)
class Cost:
    """Seconds and extra memory [bytes] of a forward and backward pass; None: not measured."""

    case: str
    tokens: int
    seconds: float
    memory: int | None


# ---- what is measured


def _attention(case: str, sizes: Sizes, device: str, kernel: str, dtype: torch.dtype):
    """A call that does one forward and backward pass; tensors laid out as in `SelfAttention`."""
    torch.manual_seed(0)
    shape = (sizes.batch, sizes.tokens, sizes.heads, sizes.head_dim)
    q, k, v, grad = (torch.randn(shape).to(device, dtype).transpose(1, 2) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_()
    switches = CASES[case]
    if switches is None:
        forward = lambda: scaled_dot_product_attention(q, k, v)  # noqa: E731
    else:
        core = PhysicsAttention(sizes.heads, PhysicsConfig(**switches, kernel=kernel)).to(device)
        context = on_device(made_up_context(sizes), device)
        forward = lambda: core(q, k, v, context)  # noqa: E731

    def call() -> None:
        for x in (q, k, v):
            x.grad = None
        forward().backward(grad)

    return call


def _aggregation(case: str, sizes: Sizes, device: str, kernel: str, dtype: torch.dtype):
    """The same for the aggregation of 15 variables at each place; width = heads x head_dim."""
    torch.manual_seed(0)
    width = sizes.heads * sizes.head_dim
    layer = VariableTokens(15, 2, width, sizes.heads).to(device, dtype)
    x = torch.randn(sizes.batch, sizes.tokens, 15, 4).to(device, dtype).requires_grad_()

    def call() -> None:
        layer.zero_grad()
        x.grad = None
        (layer(x) if case == "collapsed" else layer.explicit(x)).sum().backward()

    return call


_MAKERS = {"attention": _attention, "aggregation": _aggregation}


# ---- memory


def _measure_memory(pipe, what: str, threads: int, arguments: tuple) -> None:
    """In a process of its own: peak during one pass minus what is held before it."""
    torch.set_num_threads(threads)
    case, sizes, device, *rest = arguments
    small = Sizes(sizes.batch, sizes.heads, 64, sizes.head_dim, sizes.rank)
    _MAKERS[what](case, small, device, *rest)()  # threads and libraries are set up here
    call = _MAKERS[what](case, sizes, device, *rest)
    if device == "cpu":
        forget_peak()
        before = resident_bytes()
        call()
        pipe.send(peak_bytes() - before)
    else:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        pipe.send(torch.cuda.max_memory_allocated(device) - before)


def extra_memory(what: str, case: str, sizes: Sizes, device: str, kernel: str, dtype) -> int | None:
    """Peak memory of a pass above its inputs, bytes; None where the system does not tell (CPU
    without /proc).

    Raises
    ------
    AqnetError
        The measuring process ended without an answer, as when it ran out of memory.
    """
    if device == "cpu" and not memory_is_told():
        return None
    what_for = f"the memory of {case} at {sizes.tokens} tokens"
    arguments = (case, sizes, device, kernel, dtype)
    return in_own_process(
        what_for, "choose fewer tokens", _measure_memory, what, torch.get_num_threads(), arguments
    )


# ---- tables


def _costs(what, cases, sizes, device, kernel, dtype, repeats, memory) -> list[Cost]:
    """Cases in turn, so that a change of the machine's speed meets all of them."""
    arguments = (sizes, device, kernel, dtype)
    calls = {case: _MAKERS[what](case, *arguments) for case in cases}
    seconds = dict.fromkeys(cases, float("inf"))
    for _ in range(repeats):
        for case, call in calls.items():
            seconds[case] = min(seconds[case], best_seconds(call, device, 1))
    del calls
    peaks = {case: extra_memory(what, case, *arguments) if memory else None for case in cases}
    return [Cost(case, sizes.tokens, seconds[case], peaks[case]) for case in cases]


def attention_costs(
    sizes: Sizes,
    cases: tuple[str, ...] = tuple(CASES),
    device: str = "cpu",
    kernel: str = "by_device",
    dtype: torch.dtype = torch.float32,
    repeats: int = 3,
    memory: bool = True,
) -> list[Cost]:
    """Cost of attention with each of `cases` (keys of CASES); without `memory` its time only.

    Raises
    ------
    ModelError
        The kernel does not serve the device or dtype.
    """
    require_kernel(kernel, torch.device(device).type, dtype)
    return _costs("attention", cases, sizes, device, kernel, dtype, repeats, memory)


def aggregation_costs(
    sizes: Sizes, device: str = "cpu", dtype: torch.dtype = torch.float32, repeats: int = 3
) -> list[Cost]:
    """Cost of collapsed aggregation of 15 variables, and of `torch.nn.MultiheadAttention`."""
    cases = ("nn.MultiheadAttention", "collapsed")
    return _costs("aggregation", cases, sizes, device, "", dtype, repeats, True)


def growth(costs: list[Cost]) -> list[float]:
    """Exponent p of time ~ N ** p between each size and the next."""
    return [
        math.log(b.seconds / a.seconds) / math.log(b.tokens / a.tokens) for a, b in pairwise(costs)
    ]
