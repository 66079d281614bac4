"""Weights of the published model (TopoFlow) in this network: which tensor goes where, and how.

TopoFlow: Kheder et al., npj Climate and Atmospheric Science 2026, doi 10.1038/s41612-026-01417-5.
The published layout is that of its public model code, the earlier one that of the authors'
checkpoints of 2025, without relative position and norm of the patch tokens. The wind scan is off
in both: it has no weights, and cannot run as published. `PublishedForm` is the same model by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.presets import model_preset

__all__ = [
    "LAYOUTS",
    "NEUTRAL",
    "ONLY_EARLIER",
    "ONLY_PUBLISHED",
    "PUBLISHED_INPUTS",
    "TABLE",
    "Row",
    "State",
    "expected_shapes",
    "layout_of",
    "plain_name",
    "published_config",
    "rows_of",
    "tensor_here",
]

LAYOUTS = ("published", "earlier")
# Variables of the weights, in their order; those of `aqnet.variables` may become more.
PUBLISHED_INPUTS = (
    "u", "v", "temp", "rh", "psfc", "pm10", "so2", "no2", "co", "o3",
    "lat2d", "lon2d", "pm25", "elevation", "population",
)  # fmt: skip
BUCKETS = 32  # of the relative position, a direction
# A strength is positive here; the published clamp to [-10, 0] makes a negative one 0.
SMALLEST_ALPHA = 1e-6  # nat per 1000 normalised units

State = dict[str, torch.Tensor]


# ---- how tensors change


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten()


def _first(x: torch.Tensor) -> torch.Tensor:
    return x[0]


def _cells(weight: torch.Tensor) -> torch.Tensor:
    """Convolutions (V, D, 1, p, p) -> (V, p p, D)."""
    return weight.flatten(2).transpose(1, 2)


def _sum(bias: torch.Tensor, name: torch.Tensor) -> torch.Tensor:
    """Bias and name of a variable: without a norm between them they are one number."""
    return bias + name[0]


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Rows (p p V, ...) of the last layer, variable fastest -> variable slowest."""
    return x.unflatten(0, (-1, len(PUBLISHED_INPUTS))).transpose(0, 1).flatten(0, 1)


def _table(x: torch.Tensor) -> torch.Tensor:
    """Table (buckets of columns x of rows, heads) -> (heads, buckets of rows x of columns).

    There the upper half of the buckets is for keys before the query, here for those after it.
    """
    grid = x.unflatten(0, (BUCKETS, BUCKETS)).permute(2, 1, 0)
    turned = torch.arange(BUCKETS).roll(BUCKETS // 2)
    turned[0], turned[BUCKETS // 2] = 0, BUCKETS // 2  # offset 0 has neither side
    return grid[:, turned][:, :, turned].flatten(1)


def _strength(alpha: torch.Tensor) -> torch.Tensor:
    """Inverse of softplus, stable for large values."""
    alpha = alpha.double().reshape(1).clamp_min(SMALLEST_ALPHA)
    return (alpha + (-(-alpha).expm1()).log()).float()


@dataclass(frozen=True)
class Row:
    """Published tensors with their shapes, the name here, and what is done.

    `{i}` is the number of a block. Sizes: V variables, D features, H heads, N patches of p x p
    cells, T entries of the table, R outputs of a patch.
    """

    theirs: dict[str, str]
    ours: str
    change: Callable[..., torch.Tensor] = _same


def _layer(theirs: str, shape: str, ours: str) -> tuple[Row, Row]:
    bias = shape.split()[0]
    return (
        Row({f"{theirs}.weight": shape}, f"{ours}.weight"),
        Row({f"{theirs}.bias": bias}, f"{ours}.bias"),
    )


TABLE = (
    Row({"patch_embed.proj_weights": "V D 1 p p"}, "tokens.weight", _cells),
    Row({"var_query": "1 1 D"}, "tokens.query", _flat),
    Row({"var_agg.in_proj_weight": "3D D"}, "tokens.attention.in_proj_weight"),
    Row({"var_agg.in_proj_bias": "3D"}, "tokens.attention.in_proj_bias"),
    *_layer("var_agg.out_proj", "D D", "tokens.attention.out_proj"),
    Row({"pos_embed": "1 N D"}, "position", _first),
    *_layer("lead_time_embed", "D 1", "lead.out"),  # times hours
    *_layer("blocks.{i}.norm1", "D", "blocks.{i}.norm1"),
    *_layer("blocks.{i}.attn.qkv", "3D D", "blocks.{i}.attention.qkv"),
    *_layer("blocks.{i}.attn.proj", "D D", "blocks.{i}.attention.project"),
    *_layer("blocks.{i}.norm2", "D", "blocks.{i}.norm2"),
    *_layer("blocks.{i}.mlp.fc1", "4D D", "blocks.{i}.mlp.0"),
    *_layer("blocks.{i}.mlp.fc2", "D 4D", "blocks.{i}.mlp.3"),
    Row({"blocks.0.attn.alpha": "1"}, "blocks.0.attention.core.elevation.alpha.raw", _strength),
    *_layer("norm", "D", "decode.norm"),
    *_layer("head.0", "D D", "decode.layers.0.0"),
    *_layer("head.2", "D D", "decode.layers.1.0"),
    Row({"head.4.weight": "R D"}, "decode.out.weight", _rows),
    Row({"head.4.bias": "R"}, "decode.out.bias", _rows),
)
ONLY_PUBLISHED = (
    Row({"patch_embed.proj_biases": "V D"}, "tokens.bias"),
    Row({"var_embed": "1 V D"}, "tokens.name", _first),
    *_layer("patch_embed.norm", "D", "tokens.norm"),
    Row(
        {"blocks.0.attn.rel_pos_bias.bias_table": "T H"},
        "blocks.0.attention.core.relative.table",
        _table,
    ),
)
ONLY_EARLIER = (Row({"patch_embed.proj_biases": "V D", "var_embed": "1 V D"}, "tokens.bias", _sum),)

# Other names of the same tensors; the MLP and the head of block 0 had three forms in 2025.
ALIASES = {
    "token_embeds.": "patch_embed.",
    "blocks.0.attn.elevation_alpha": "blocks.0.attn.alpha",
    "blocks.0.mlp.0.": "blocks.0.mlp.fc1.",
    "blocks.0.mlp.2.": "blocks.0.mlp.fc2.",
    "blocks.0.mlp.3.": "blocks.0.mlp.fc2.",
    "head_fc1.": "head.0.",
    "head_fc2.": "head.2.",
    "head_fc3.": "head.4.",
}
PREFIXES = ("model.", "climax.")
# A missing one of these counts as 0: no bias of the attention, no name of a variable.
NEUTRAL = (
    "blocks.0.attn.alpha",
    "blocks.0.attn.rel_pos_bias.bias_table",
    "patch_embed.proj_biases",
    "var_embed",
)


# ---- names and shapes of a layout


def published_config(layout: str, **changes) -> ModelConfig:
    """Configuration of a layout; `changes` (of sizes) as `model_preset` takes them.

    Raises
    ------
    ModelError
        No such layout, or no such change.
    """
    if layout not in LAYOUTS:
        raise ModelError(
            explain(f"no layout {layout!r}", expected=" or ".join(LAYOUTS), found=layout,
                    remedy="correct the name of the layout")
        )  # fmt: skip
    preset = model_preset("published", **changes)
    if layout == "published":
        return preset
    plain = preset.physics.model_copy(update={"position": "none", "stretch": False})
    return model_preset("published", **(changes | {"patch_norm": False, "physics": plain}))


def rows_of(layout: str, depth: int) -> list[Row]:
    """The table with every block."""
    rows = []
    for row in (*TABLE, *(ONLY_PUBLISHED if layout == "published" else ONLY_EARLIER)):
        blocks = range(depth) if "{i}" in row.ours else (0,)
        rows += [
            Row({n.format(i=i): x for n, x in row.theirs.items()}, row.ours.format(i=i), row.change)
            for i in blocks
        ]
    return rows


def expected_shapes(
    layout: str, config: ModelConfig, shape: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the published tensors, by name, for a grid of `shape` (H, W) cells."""
    v, d, p = len(PUBLISHED_INPUTS), config.width, config.patch
    sizes = {"1": 1, "V": v, "D": d, "3D": 3 * d, "4D": 4 * d, "H": config.heads, "p": p}
    sizes |= {"N": (shape[0] // p) * (shape[1] // p), "T": BUCKETS**2, "R": p * p * v}
    return {
        name: tuple(sizes[size] for size in sizes_of.split())
        for row in rows_of(layout, config.depth)
        for name, sizes_of in row.theirs.items()
    }


def plain_name(name: str) -> str:
    """Name in the published layout."""
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    for other, own in ALIASES.items():
        if name.startswith(other):
            return own + name.removeprefix(other)
    return name


def layout_of(state: State) -> str:
    """Layout of a state dict, by the name of its embedding.

    Raises
    ------
    ModelError
        It has neither's.
    """
    names = [name.removeprefix("model.").removeprefix("climax.") for name in state]
    for start, layout in (("patch_embed.", "published"), ("token_embeds.", "earlier")):
        if any(name.startswith(start) for name in names):
            return layout
    raise ModelError(
        explain("neither the published layout nor the earlier one",
                expected="names patch_embed.* (published) or token_embeds.* (earlier), behind "
                "`model.` and `climax.` or not",
                found=f"{len(names)} names: {', '.join(sorted(state)[:4])}, ..",
                remedy="check the file; a checkpoint of aqnet needs no import")
    )  # fmt: skip


def tensor_here(row: Row, sources: State, config: ModelConfig) -> torch.Tensor:
    """Our tensor of a row, float32, from the published ones by name."""
    tensors = [sources[name].detach().cpu().float() for name in row.theirs]
    if row.change is not _strength:
        return row.change(*tensors).contiguous()
    start = config.physics.elevation_start  # the unit of a strength; the heads share the value
    units = torch.tensor([start[h % len(start)] for h in range(config.heads)])
    return torch.cat([_strength(tensors[0] / unit) for unit in units])
