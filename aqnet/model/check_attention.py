"""Physics attention against its dense float64 form: on any device, dtype and kernel."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch

from aqnet.model.attention import PhysicalContext, map_tokens
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig
from aqnet.model.position import geometry

__all__ = [
    "TOLERANCES",
    "Sizes",
    "check_cases",
    "errors_against_oracle",
    "made_up_context",
    "on_device",
    "tolerance",
]

# Relative to the largest value of the oracle; the second holds for biases of hundreds of nats,
# a narrow plume over 5,000 km.
TOLERANCES = {
    torch.float64: (1e-9, 1e-9),
    torch.float32: (1e-5, 2e-4),
    torch.bfloat16: (1e-2, 1e-2),
    torch.float16: (1e-2, 1e-2),
}
NARROW_KM = (63.0, 125.0, 200.0, 900.0)  # one patch of the full grid, and wider
WIDE_KM = (900.0, 2000.0)
DRAWS = 4
# Inputs are of order 1. Where a softmax has one weight of 1, gradients vanish and rounding is left.
# The gradient of a strength is a sum over B N rows of terms of size sqrt(d) and random sign: where
# tokens are so sparse that most of them cancel, the scale is a share of what that sum usually is.
SMALLEST_SCALE, SHARE_OF_SUM = 0.3, 0.05


@dataclass(frozen=True)
class Sizes:
    """Shape of a comparison."""

    batch: int = 1
    heads: int = 4
    tokens: int = 700
    head_dim: int = 32
    rank: int = 6


def tolerance(dtype: torch.dtype, full_domain: bool) -> float:
    """Largest error allowed, relative to the largest value of the oracle."""
    return TOLERANCES[dtype][full_domain]


def made_up_context(sizes: Sizes, seed: int = 0) -> PhysicalContext:
    """Random places, terrain, winds and ridges of the extent of China, in physical units."""
    generator = torch.Generator().manual_seed(seed)
    n, batch, rank = sizes.tokens, sizes.batch, sizes.rank

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        share = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * share

    return PhysicalContext(
        geometry=geometry(uniform(17.5, 54.5, n), uniform(73.0, 136.0, n)),
        elevation=uniform(-100.0, 5500.0, n),
        wind=uniform(-12.0, 12.0, batch, n, 2),
        lead_time_h=uniform(12.0, 96.0, batch),
        ridge=(uniform(0.0, 30.0, n, rank), uniform(0.0, 30.0, n, rank)),
        patch=torch.stack([torch.arange(n) // 32, torch.arange(n) % 32], dim=-1),
        patch_span=(-(-n // 32), min(n, 32)),
    )


def _run(core: PhysicsAttention, tensors, grads, context) -> list[dict[str, torch.Tensor]]:
    """Output and gradients for each gradient of the output."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = core(*leaves, context)
    learned = dict(core.named_parameters())
    found = []
    for grad in grads:
        back = torch.autograd.grad(out, [*leaves, *learned.values()], grad, retain_graph=True)
        named = zip(("output", "q", "k", "v", *learned), (out, *back), strict=True)
        found.append({name: x.detach().double().cpu() for name, x in named})
    return found


def errors_against_oracle(
    config: PhysicsConfig,
    sizes: Sizes,
    dtype: torch.dtype,
    device: str = "cpu",
    seed: int = 0,
    context: PhysicalContext | None = None,
) -> dict[str, float]:
    """Errors of the output and of every gradient, relative to the oracle's largest value.

    The largest value is that of several draws: the gradient of a strength is a sum over all tokens,
    and a sum of random signs may happen to be near zero.

    Parameters
    ----------
    config : PhysicsConfig
    sizes : Sizes
    dtype : torch.dtype
        Of queries, keys and values. Strengths are float64 with float64, else float32.
    device : str
    context : PhysicalContext, optional
        `made_up_context` by default.

    Returns
    -------
    dict of str to float
        "output", "q", "k", "v" and the names of the learned parameters.
    """
    torch.manual_seed(seed)
    context = made_up_context(sizes, seed) if context is None else context
    shape = (sizes.batch, sizes.heads, context.elevation.shape[-1], sizes.head_dim)
    *tensors, grad = (torch.randn(shape).to(dtype) for _ in range(4))
    more = [torch.randn(shape) for _ in range(DRAWS)]
    core = PhysicsAttention(sizes.heads, config)
    oracle = copy.deepcopy(core).double()
    oracle.method = "dense"
    draws = [x.double() for x in (grad, *more)]
    want, *others = _run(oracle, [x.double() for x in tensors], draws, context)
    if dtype == torch.float64:
        core = core.double()
    moved = [x.to(device) for x in tensors]
    (have,) = _run(core.to(device), moved, [grad.to(device)], on_device(context, device))
    usual = (sizes.batch * context.elevation.shape[-1] * sizes.head_dim) ** 0.5
    errors = {}
    for name, x in want.items():
        floor = SMALLEST_SCALE if name in ("output", "q", "k", "v") else SHARE_OF_SUM * usual
        scale = max(floor, *(o[name].abs().max().item() for o in (want, *others)))
        errors[name] = (have[name] - x).abs().max().item() / scale
    return errors


def on_device(context: PhysicalContext, device: str) -> PhysicalContext:
    """A context, moved to a device."""
    lead = context.lead_time_h
    moved = replace(context, lead_time_h=None if lead is None else lead.to(device))
    return map_tokens(moved, lambda x, _: x.to(device))


def check_cases(
    device: str, kernel: str, dtype: torch.dtype, sizes: Sizes
) -> list[tuple[str, float, float, str]]:
    """Compare every bias, and all together, with the oracle.

    Returns
    -------
    list of (case, largest error, tolerance, name of the worst output or gradient)
    """
    off = {"elevation": "off", "plume": "off", "position": "none", "kernel": kernel}
    cases = {
        "elevation": ({"elevation": "receiver_uphill"}, False),
        "elevation, published": ({"elevation": "source_uphill"}, False),
        "plume, wide": ({"plume": "learned", "plume_sigma_km": WIDE_KM}, True),
        "plume, narrow": ({"plume": "learned", "plume_sigma_km": NARROW_KM}, True),
        "plume, one lead": ({"plume": "lead", "plume_sigma_km": NARROW_KM}, True),
        "ridge": ({"ridge": True}, False),
        "all": (
            {
                "elevation": "receiver_uphill",
                "plume": "learned",
                "plume_sigma_km": NARROW_KM,
                "ridge": True,
                "position": "rotary",
            },
            True,
        ),
    }
    found = []
    for name, (switches, full) in cases.items():
        config = PhysicsConfig(**{**off, **switches})
        errors = errors_against_oracle(config, sizes, dtype, device)
        worst = max(errors, key=errors.get)
        found.append((name, errors[worst], tolerance(dtype, full), worst))
    return found
