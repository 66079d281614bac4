"""Normalisation where the model is.

Batches hold physical values of active cells. What every sample shares (mask, static fields,
statistics) is a buffer of a module that moves to the device with the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from aqnet.data.future_weather import WEATHER
from aqnet.data.normalisation import Normaliser, constant_scaling, target_channels
from aqnet.variables import DYNAMIC, STATIC

__all__ = ["DeviceNormaliser"]


class DeviceNormaliser(nn.Module):
    """Batches of `FieldSamples` as a model wants them, computed where this module is.

    Parameters
    ----------
    normaliser : Normaliser
        With a constant reference for each variable.
    static : (4, H, W), order STATIC
    mask : (H, W) bool
    history_h : sequence of int
        That of the samples; only names the `channels` of the inputs.

    Raises
    ------
    DataError
        The normaliser's reference is not a constant.
    """

    def __init__(
        self,
        normaliser: Normaliser,
        static: np.ndarray,
        mask: np.ndarray,
        history_h: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        self.shape = mask.shape
        mean, spread = constant_scaling(normaliser)
        fixed = static[:, mask] - normaliser.static_mean[:, None]
        fixed /= normaliser.static_spread[:, None]
        at = target_channels()
        arrays = {"mean": mean[:, None], "spread": spread[:, None], "static": fixed,
                  "target_mean": mean[at, None], "target_spread": spread[at, None]}  # fmt: skip
        for name, values in arrays.items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))
        self.register_buffer("cells", torch.from_numpy(np.flatnonzero(mask)))
        dynamic = [n if h == 0 else f"{n}_{h}h_ago" for h in history_h for n in DYNAMIC]
        self.channels = (*dynamic, *STATIC, "known")

    def forward(self, batch: dict) -> dict:
        """Normalised inputs, targets and weights; the rest of the batch as it is.

        Returns
        -------
        dict
            inputs (B, C, H, W): z of the dynamic variables of each history hour, of the static
            ones, and 1 where every one of them is known; targets (B, L, 6, H, W): z; weights: 1
            where the target is known, else 0; weather (B, L, 5, H, W). Of targets and weather
            only what is in the batch; everything is exactly 0 where it is masked or unknown.
        """
        fields = torch.cat([_z(batch["inputs"], self.mean, self.spread).flatten(1, 2),
                            self.static.expand(len(batch["inputs"]), -1, -1)], dim=1)  # fmt: skip
        known = torch.isfinite(fields).all(dim=1, keepdim=True).to(fields.dtype)
        out = {"inputs": self.on_grid(torch.cat([_zero_unknown(fields), known], dim=1))}
        if "targets" in batch:
            target = _z(batch["targets"], self.target_mean, self.target_spread)
            out["targets"] = self.on_grid(_zero_unknown(target))
            out["weights"] = self.on_grid(torch.isfinite(target).to(target.dtype))
        if "weather" in batch:
            n = len(WEATHER)  # the first dynamic variables
            ahead = _z(batch["weather"], self.mean[:n], self.spread[:n])
            out["weather"] = self.on_grid(_zero_unknown(ahead))
        return batch | out

    def on_grid(self, values: torch.Tensor, outside: float = 0.0) -> torch.Tensor:
        """Active cells (..., N) onto the grid (..., H, W)."""
        fields = values.new_full((*values.shape[:-1], math.prod(self.shape)), outside)
        return fields.index_copy_(-1, self.cells, values).unflatten(-1, self.shape)

    def physical(self, targets: torch.Tensor) -> torch.Tensor:
        """Inverse for targets (..., 6, H, W): ug/m3, NaN outside the mask."""
        packed = targets.flatten(-2)[..., self.cells]
        return self.on_grid(packed * self.target_spread + self.target_mean, outside=math.nan)


def _z(values: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    return (values - mean) / spread


def _zero_unknown(z: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(z), z, torch.zeros_like(z))
