"""The published network from torch's own modules: what `import` is tested and timed against.

TopoFlow (Kheder et al., npj Climate and Atmospheric Science 2026,
doi 10.1038/s41612-026-01417-5) with its wind scan off, which cannot run as published. Parameters
carry the names and shapes of its state dict; the formulas are those of the paper and of its
public model code.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["PublishedForm"]

SCALE_M = 1000.0  # divides elevations, although the model is given normalised ones
LARGEST_BIAS = 10.0
BUCKETS, LARGEST_OFFSET = 32, 128  # of the relative position, a direction


class PublishedForm(nn.Module):
    """Fields (B, V, H, W) in normalised units and lead times (B,) h -> fields (B, V, H, W).

    Without dropout and drop path: evaluation is exact, and training a little cheaper than there.

    Parameters
    ----------
    shape : (H, W)
    variables : number of input variables, V
    elevation : index of the elevation among them
    width, depth, heads, patch : int
    relative, patch_norm : bool
        Relative position in block 0 and norm of the patch tokens: both absent from the earlier
        layout.
    """

    def __init__(
        self,
        shape: tuple[int, int] = (128, 256),
        variables: int = 15,
        elevation: int = 13,
        width: int = 768,
        depth: int = 6,
        heads: int = 8,
        patch: int = 2,
        relative: bool = True,
        patch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.patch = shape[0] // patch, shape[1] // patch, patch
        self.variables, self.elevation = variables, elevation
        self.patch_embed = PatchTokens(variables, width, patch, patch_norm)
        self.var_embed = nn.Parameter(torch.randn(1, variables, width) * 0.02)
        self.var_query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.var_agg = nn.MultiheadAttention(width, heads, batch_first=True)
        self.pos_embed = nn.Parameter(torch.randn(1, self.rows * self.columns, width) * 0.02)
        self.lead_time_embed = nn.Linear(1, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, index == 0, relative and index == 0)
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, variables * patch**2),
        )

    def forward(self, fields: torch.Tensor, lead_time_h: torch.Tensor) -> torch.Tensor:
        tokens = self.patch_embed(fields) + self.var_embed[:, :, None]
        each = tokens.transpose(1, 2).flatten(0, 1)  # (B N, V, D)
        query = self.var_query.expand(len(each), -1, -1)
        x = self.var_agg(query, each, each, need_weights=False)[0].view(
            len(fields), -1, each.shape[-1]
        )
        x = x + self.pos_embed + self.lead_time_embed(lead_time_h[:, None])[:, None]
        height = functional.avg_pool2d(fields[:, self.elevation], self.patch).flatten(1)
        for block in self.blocks:
            x = block(x, height, (self.rows, self.columns))
        cells = self.head(self.norm(x)).unflatten(1, (self.rows, self.columns))
        cells = cells.unflatten(-1, (self.patch, self.patch, self.variables))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class PatchTokens(nn.Module):
    """A convolution for each variable: (B, V, H, W) -> (B, V, N, D)."""

    def __init__(self, variables: int, width: int, patch: int, norm: bool) -> None:
        super().__init__()
        self.proj_weights = nn.Parameter(torch.randn(variables, width, 1, patch, patch) / patch)
        self.proj_biases = nn.Parameter(torch.zeros(variables, width))
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        variables, width, _, patch, _ = self.proj_weights.shape
        out = functional.conv2d(
            fields,
            self.proj_weights.flatten(0, 1),
            self.proj_biases.flatten(),
            stride=patch,
            groups=variables,
        )
        return self.norm(out.unflatten(1, (variables, width)).flatten(3).transpose(2, 3))


class TransformerBlock(nn.Module):
    """Pre-norm block on tokens (B, N, D), with or without biases of its attention."""

    def __init__(self, width: int, heads: int, terrain: bool, relative: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = BiasedAttention(width, heads, terrain, relative)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(
        self, x: torch.Tensor, height: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), height, shape)
        return x + self.mlp(self.norm2(x))


class BiasedAttention(nn.Module):
    """Attention plus terms of elevation and relative position, all dense."""

    def __init__(self, width: int, heads: int, terrain: bool, relative: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.alpha = nn.Parameter(torch.full((1,), 2.0)) if terrain else None
        self.rel_pos_bias = RelativeTable(heads) if relative else None

    def forward(
        self, x: torch.Tensor, height: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = None
        if self.alpha is not None:
            climb = (
                functional.relu(height[:, None, :] - height[:, :, None]) / SCALE_M
            )  # key - query
            bias = (-self.alpha * climb).clamp(-LARGEST_BIAS, 0.0)[:, None]
        if self.rel_pos_bias is not None:
            bias = bias + self.rel_pos_bias(*shape)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).flatten(2))


class RelativeTable(nn.Module):
    """Learned bias (1, heads, N, N) by buckets of the offset, as of T5 (Raffel et al. 2020)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.bias_table = nn.Parameter(torch.randn(BUCKETS**2, heads) * 0.02)

    def forward(self, rows: int, columns: int) -> torch.Tensor:
        down, across = offset_bucket(rows), offset_bucket(columns)
        bucket = across[None, :, None, :] * BUCKETS + down[:, None, :, None]
        return self.bias_table[bucket.reshape(rows * columns, -1)].permute(2, 0, 1)[None]


def offset_bucket(n: int) -> torch.Tensor:
    """Bucket (query, key) of offsets along a side of n patches, stretched to LARGEST_OFFSET.

    Half of the buckets are for keys before the query (north or west of it); offsets below 8 have
    their own, larger ones a share of the logarithm.
    """
    half, exact = BUCKETS // 2, BUCKETS // 4
    place = torch.tensor([k * LARGEST_OFFSET // n for k in range(n)])
    offset = place[None, :] - place[:, None]
    distance = offset.abs()
    # 8, 16, .. are borders of buckets: the float32 logarithm decides there, as published.
    share = (distance.clamp_min(1).float() / exact).log() / torch.tensor(
        LARGEST_OFFSET / exact
    ).log()
    far = (exact + (share * (half - exact)).long()).clamp_max(half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset < 0)
