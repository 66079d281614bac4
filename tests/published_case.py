"""Random state dicts of realistic size in the published layouts, from frozen random streams."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from aqnet.model.published_form import PublishedForm

REDUCED = {"shape": (16, 32), "width": 64, "depth": 3, "heads": 4}
EARLIER = {"relative": False, "patch_norm": False}
EARLIER_NAMES = {
    "patch_embed.": "token_embeds.",
    "blocks.0.attn.alpha": "blocks.0.attn.elevation_alpha",
    "blocks.0.mlp.fc1.": "blocks.0.mlp.0.",
    "blocks.0.mlp.fc2.": "blocks.0.mlp.2.",
}


def stream(name: str) -> np.random.RandomState:
    """A stream of numbers of its own for each name, the same in every version of numpy."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def _values(name: str, shape: tuple[int, ...], alpha: float) -> np.ndarray:
    normal = stream(name).standard_normal(shape)
    if name.endswith("alpha"):
        return np.full(shape, alpha)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * normal
    if name.endswith("bias") or name.endswith("biases"):
        return 0.05 * normal
    if name == "lead_time_embed.weight":
        return 0.01 * normal  # times hours
    if name in ("var_embed", "var_query", "pos_embed") or "table" in name or "proj_w" in name:
        return 0.5 * normal
    return normal / np.sqrt(shape[-1])


def random_state(form: PublishedForm, alpha: float = 2.0) -> dict[str, torch.Tensor]:
    """Weights of a trained network's size under the names of `form`."""
    return {
        name: torch.tensor(_values(name, tuple(value.shape), alpha), dtype=torch.float32)
        for name, value in form.state_dict().items()
    }


def filled(alpha: float = 2.0, **sizes) -> PublishedForm:
    """The published form with a random state, in evaluation mode."""
    form = PublishedForm(**sizes)
    form.load_state_dict(random_state(form, alpha))
    return form.eval().requires_grad_(False)


def earlier_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state as a checkpoint of the earlier code names it, with its buffers."""
    named = {}
    for name, value in state.items():
        for new, old in EARLIER_NAMES.items():
            name = name.replace(new, old) if name.startswith(new) else name
        named[f"model.climax.{name}"] = value
    alpha = "model.climax.blocks.0.attn.elevation_alpha"
    named[alpha] = named[alpha].reshape(())
    named["model.climax.blocks.0.attn.H_scale"] = torch.tensor(1000.0)
    named["model.target_indices"] = torch.tensor([12, 5, 6, 7, 8, 9])
    return named


def fields(shape: tuple[int, int], samples: int = 1) -> torch.Tensor:
    """Normalised inputs (B, 15, H, W)."""
    values = stream("fields").standard_normal((samples, 15, *shape))
    return torch.tensor(values, dtype=torch.float32)
