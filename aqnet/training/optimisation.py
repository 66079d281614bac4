"""AdamW with groups of parameters, each with its own learning rate and weight decay."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import nn

from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.model.biases import Angle, Strength
from aqnet.training.config import TrainingConfig

__all__ = ["clip_sums", "gradients", "group_of", "make_optimiser", "norm_of", "parameter_groups",
           "set_rate"]  # fmt: skip

# The first pattern that fits the name of a parameter, without `network.`, names its group.
_PATTERNS = (
    ("position", r"(^|\.)(position|table)(\.|$)"),
    ("blocks", r"^blocks\.\d+\."),
    ("decoder", r"^(decode|decoder|persistence|head|out|norm)(_\w+)?(\.|$)"),
    ("embedding", r"^(tokens|embed\w*|variables|aggregation|lead|rank|calendar)(_\w+)?(\.|$)"),
)
_NEVER_DECAYED = ("position", "strengths")
# of a lead time, of the ranks along the wind: they embed numbers, as a table embeds indices
_EMBEDDINGS = re.compile(r"(^|\.)(lead|rank)\.out\.weight$")


def group_of(name: str, owner: nn.Module) -> str:
    """Group of a parameter: one of GROUPS.

    Raises
    ------
    ModelError
        No pattern fits the name.
    """
    if isinstance(owner, (Strength, Angle)):
        return "strengths"
    own = name.removeprefix("network.")
    for group, pattern in _PATTERNS:
        if re.search(pattern, own):
            return group
    raise ModelError(
        explain(f"the parameter {name} belongs to no group with a learning rate",
                expected="; ".join(f"{group}: {pattern}" for group, pattern in _PATTERNS),
                found=name, remedy="add its module to a pattern in aqnet/training/optimisation.py")
    )  # fmt: skip


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    for name, parameter in model.named_parameters():  # a shared one comes once
        yield name, model.get_submodule(name.rpartition(".")[0]), parameter


def _decays(name: str, owner: nn.Module, parameter: nn.Parameter, group: str) -> bool:
    """Matrices do; norms, biases, embeddings, queries, names, positions and strengths do not."""
    leaf = name.rpartition(".")[2]
    free = isinstance(owner, nn.Embedding) or leaf.endswith(("bias", "query", "name"))
    free = free or _EMBEDDINGS.search(name) is not None
    return parameter.ndim > 1 and not free and group not in _NEVER_DECAYED


def _block(name: str) -> int | None:
    found = re.match(r"(?:network\.)?blocks\.(\d+)\.", name)
    return int(found[1]) if found else None


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict]:
    """Groups for an optimiser, each trained parameter in exactly one.

    Returns
    -------
    list of dict
        `name`, `params`, `weight_decay`, and `factor`: of the learning rate, which is
        ``rates[group] * layer_decay ** (blocks above this one)``.
    """
    places = {name: _block(name) for name, _, _ in _named(model)}
    top = max((block for block in places.values() if block is not None), default=0)
    groups: dict[tuple, list] = defaultdict(list)
    for name, owner, parameter in _named(model):
        if not parameter.requires_grad:
            continue
        group, block = group_of(name, owner), places[name]
        above = 0 if block is None else top - block
        factor = config.rates.get(group, 1.0) * config.layer_decay**above
        label = group if above == 0 or config.layer_decay == 1 else f"{group}.{block}"
        groups[label, factor, _decays(name, owner, parameter, group)].append(parameter)
    return [
        {"name": label if decays else f"{label}, no decay", "params": parameters,
         "factor": factor, "weight_decay": config.weight_decay * decays}
        for (label, factor, decays), parameters in groups.items()
    ]  # fmt: skip


def make_optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the learning rate is set before each step."""
    groups = parameter_groups(model, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """Gradients that are there."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def norm_of(sums: list[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm over all gradients; on their device, not finite if one of them is not."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(sums)))


def clip_sums(sums: list[torch.Tensor], norm: float, count: float, limit: float) -> float:
    """Turn sums of gradients over cells into means, of a norm of at most `limit`, in place.

    Parameters
    ----------
    sums : list of tensors
    norm : float
        Of the sums.
    count : float
        Cells.
    limit : float

    Returns
    -------
    float
        Norm of the means before clipping.
    """
    mean = norm / count
    torch._foreach_mul_(sums, min(1.0, limit / max(mean, 1e-12)) / count)
    return mean
