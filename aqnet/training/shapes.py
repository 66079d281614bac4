"""Running a network on tensors that have shapes and no values: what it would compute and keep."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from aqnet.model import aggregation, sorted_attention
from aqnet.model import network as network_module
from aqnet.model.network import FieldTransformer
from aqnet.model.published_form import PublishedForm

__all__ = ["Inputs", "activation_bytes", "count_operations"]

Inputs = tuple[torch.Tensor, ...]


@contextlib.contextmanager
def _replaced(sites: list[tuple[object, str]], value: object) -> Iterator[None]:
    before = [getattr(owner, name) for owner, name in sites]
    try:
        for owner, name in sites:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), own in zip(sites, before, strict=True):
            setattr(owner, name, own)


_CHECKS = [(aggregation, "require_true"), (network_module, "require_true")]


def _no_check(*_values: object, **_named: object) -> None:
    """In the place of checks of values, which shapes do not have."""


class _Shapes(nn.Module):
    """A network that `body(network, inputs, own)` runs; `own`: its parameters and buffers."""

    def __init__(self, network: nn.Module, body: Callable) -> None:
        super().__init__()
        self.network, self.body = network, body

    def forward(self, inputs: Inputs) -> object:
        own = [*self.network.parameters(), *self.network.buffers()]
        return self.body(self.network, inputs, own)


def _on_shapes(network: nn.Module, inputs: Inputs, body: Callable) -> object:
    """What `body(network, inputs, own)` gives on tensors that have shapes and no values."""
    holder = _Shapes(network, body)
    with FakeTensorMode() as mode, _replaced(_CHECKS, _no_check):
        real = {**dict(holder.named_parameters()), **dict(holder.named_buffers())}
        fake = {name: mode.from_tensor(tensor) for name, tensor in real.items()}
        given = tuple(torch.empty(x.shape, dtype=x.dtype) for x in inputs)
        return functional_call(holder, fake, (given,))


# ---- operations


def count_operations(network: nn.Module, inputs: Inputs) -> tuple[float, int]:
    """Operations of a step with these inputs, and tokens; see `aqnet.training.cost`.

    Parameters
    ----------
    network : FieldTransformer or PublishedForm
    inputs : tuple of tensors
        Its arguments; only their shapes count.
    """
    shapes: list[tuple[int, ...]] = []

    def no_attention(q, k, v, *_args, **_named):
        shapes.append((*q.shape, k.shape[-2]))
        return v[..., : q.shape[-2], :]

    def forward(network: nn.Module, inputs: Inputs, _own: object) -> int:
        with FlopCounterMode(display=False) as count:
            network(*inputs)
        return count.get_total_flops()

    with _replaced(_attention_sites(network), no_attention):
        products = _on_shapes(network, inputs, forward)
    attention = sum(12 * math.prod(shape) for shape in shapes)  # B, heads, N, d, sources
    return 3.0 * products + attention, shapes[-1][2]


def _attention_sites(network: nn.Module) -> list[tuple[object, str]]:
    if isinstance(network, PublishedForm):
        return [(nn.functional, "scaled_dot_product_attention")]
    return [(block.attention.core, "forward") for block in network.blocks]


# ---- memory


class _Alive(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there were; `own` do not count."""

    def __init__(self, own: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata: 0 for tensor in own}
        self.now = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key)


# "by_device" stands for a kernel that keeps what that of a GPU does: inputs, output, normalisation.
# The CPU's own keeps its inputs alone, in tiles whose loop would take minutes here.
_LIKE_A_GPU = {"cpu": "cpu"}


def activation_bytes(
    network: FieldTransformer, inputs: Inputs, half: bool, checkpointing: bool
) -> tuple[int, int]:
    """Bytes kept between forward and backward pass, and the most beside them.

    Parameters
    ----------
    network : FieldTransformer
    inputs : tuple of tensors
        Only their shapes count.
    half : bool
        Products in bfloat16.
    checkpointing : bool
        Blocks are recomputed.
    """
    training = network.training

    def step(network: nn.Module, inputs: Inputs, own: list[torch.Tensor]) -> tuple[int, int]:
        with _Alive(own) as alive:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = network(*inputs).square().mean()
            kept = alive.most = alive.now
            loss.backward()
        return kept, alive.most - kept

    blocks, kernels = [(network, "checkpoint_blocks")], [(sorted_attention, "KERNEL_OF")]
    with _replaced(blocks, checkpointing), _replaced(kernels, _LIKE_A_GPU):
        try:
            return _on_shapes(network.train(), inputs, step)
        finally:
            network.train(training)
