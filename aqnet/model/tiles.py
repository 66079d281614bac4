"""Tiles of the scores of attention: which tokens share one, and how they are laid out for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

__all__ = [
    "BLOCK",
    "LOG2_E",
    "TILE",
    "TILE_SCORES",
    "Laid",
    "Rooms",
    "Tile",
    "block_peaks",
    "block_span",
    "compact_order",
    "kept_tiles",
    "lay_out",
    "parts",
    "row_tiles",
    "sources",
]

# Receivers, and sources, of a tile: 4 MB of scores in float32. Tiles of 512 took a tenth longer,
# of 256 by 512 a third (8,192 tokens, two cores).
TILE = 1024
BLOCK = 256  # tokens that are left out together; divides TILE
TILE_SCORES = 2**18  # of a tile that several samples and heads share: 1 MB in float32
LOG2_E = math.log2(math.e)


# ---- tokens that share a tile


def parts(n: int, size: int) -> list[slice]:
    """Slices of `size` of n, the last one shorter."""
    return [slice(a, min(a + size, n)) for a in range(0, n, size)]


@torch.compiler.disable  # its halves would be unrolled
def compact_order(places: torch.Tensor) -> torch.Tensor | None:
    """Order of tokens in which those of a tile, and of a block, are near each other.

    Halves, again and again, across their longer side: a k-d tree whose leaves are blocks. None if
    all tokens fit into one tile.

    Parameters
    ----------
    places : (N, axes) or (B, N, axes), of any unit

    Returns
    -------
    (N,) or (B, N) int64, or None
    """
    n = places.shape[-2]
    if n <= TILE:
        return None
    return _halved(places, torch.arange(n, device=places.device).expand(places.shape[:-1]))


def _halved(places: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens `index` (.., n) with `places` (.., n, axes)."""
    size = TILE if index.shape[-1] > TILE else BLOCK
    leaves = -(-index.shape[-1] // size)
    if leaves == 1:
        return index
    span = places.amax(-2) - places.amin(-2)
    axis = span.argmax(-1)[..., None, None].expand(*index.shape, 1)
    order = places.gather(-1, axis)[..., 0].argsort(stable=True, dim=-1)
    index = index.gather(-1, order)
    places = places.gather(-2, order[..., None].expand_as(places))
    middle = leaves // 2 * size
    halves = [
        _halved(places[..., half, :], index[..., half])
        for half in (slice(None, middle), slice(middle, None))
    ]
    return torch.cat(halves, dim=-1)


def _groups(x: torch.Tensor) -> list[slice]:
    """Samples and heads that share tiles."""
    groups, n, _ = x.shape
    return parts(groups, max(1, TILE_SCORES // min(n, TILE) ** 2))


# ---- layout


@dataclass(frozen=True)
class Tile:
    """Some receivers and sources.

    Attributes
    ----------
    rows, keys : slice
    columns : int
        Of `Laid`, whose product is their score: with both of the climb where all sources lie above
        all receivers, with the first of them, alpha h_i, where some do.
    mixed : bool
        Whether only some do: alpha max(h_i, h_j) is still to be taken from the product.
    """

    rows: slice
    keys: slice
    columns: int
    mixed: bool


@dataclass(frozen=True)
class Laid:
    """Tokens (G, N, ..) of G samples and heads: all of them, or those of a tile (`some`).

    `left` . `right` is the score to base 2. Columns: features, `own` queries and keys (none if
    these are of 16 bit), and the climb alpha (h_i - h_j) of sources above the receiver. Features
    come first: their large terms have cancelled before the small ones are added.
    """

    left: torch.Tensor
    right: torch.Tensor
    own: slice
    plain: int  # columns without the climb
    short: tuple[torch.Tensor, torch.Tensor] | None  # queries and keys of 16 bit
    scale: float  # of the product of `short`
    values: torch.Tensor
    height: torch.Tensor | None  # (G, N)
    alpha: torch.Tensor  # (G,), to base 2

    def some(self, at: slice) -> Laid:
        """Some samples and heads."""
        left, right, values = (x[at] for x in (self.left, self.right, self.values))
        short = self.short and tuple(x[at] for x in self.short)
        height = None if self.height is None else self.height[at]
        own, alpha = self.own, self.alpha[at]
        return Laid(left, right, own, self.plain, short, self.scale, values, height, alpha)

    @cached_property
    def _ranges(self) -> tuple[list[float], list[float]]:
        """Lowest and highest token of each block; without limit where one is not a number."""
        low, high = (
            torch.stack([most(x) for x in self.height.split(BLOCK, dim=1)])
            for most in (torch.min, torch.max)
        )
        return low.nan_to_num(nan=-math.inf).tolist(), high.nan_to_num(nan=math.inf).tolist()

    def tile(self, rows: slice, keys: slice) -> Tile:
        """The tile of these receivers and sources, which are whole blocks."""
        if self.height is None:
            return Tile(rows, keys, self.plain, False)
        low, high = self._ranges
        here, there = (slice(x.start // BLOCK, -(-x.stop // BLOCK)) for x in (rows, keys))
        if max(high[there]) <= min(low[here]):
            return Tile(rows, keys, self.plain, False)
        mixed = min(low[there]) < max(high[here])
        return Tile(rows, keys, self.plain + (1 if mixed else 2), mixed)


def lay_out(scale, q, k, v, fq, fk, height, alpha) -> Laid:
    """Arguments of `aqnet.model.tiled_attention.tiled_attention` as one product."""
    shape, precise = (*q.shape[:3], -1), torch.promote_types(q.dtype, torch.float32)
    short = None if q.dtype == precise else (q.contiguous(), k.contiguous())
    left, right, rank = [fq * LOG2_E], [fk], fq.shape[-1]
    if short is None:
        left, right = [*left, q * (scale * LOG2_E)], [fk, k]
    plain, alpha = sum(x.shape[-1] for x in left), alpha * LOG2_E
    if height is not None:
        height = height.expand(len(q), -1)[:, None].expand(shape[:3])
        one, rise = torch.ones_like(height), height * alpha[:, None]
        left += [torch.stack([rise, -alpha[:, None] * one], dim=-1)]
        right += [torch.stack([one, height], dim=-1)]
        height = height.flatten(0, 1)
    left, right = (torch.cat([x.expand(shape) for x in side], dim=-1) for side in (left, right))
    left, right, values = (x.flatten(0, 1) for x in (left, right, v.contiguous()))
    short = short and tuple(x.flatten(0, 1) for x in short)
    own, alpha = slice(rank, plain), alpha.repeat(len(q))
    return Laid(left, right, own, plain, short, scale * LOG2_E, values, height, alpha)


def row_tiles(laid: Laid) -> Iterator[tuple[slice, Laid, slice]]:
    """Samples and heads, their tokens, and the receivers of a tile; one after the other."""
    for at in _groups(laid.values):
        x = laid.some(at)
        for rows in parts(x.values.shape[1], TILE):
            yield at, x, rows


def sources(laid: Laid, rows: slice) -> list[slice]:
    """Sources of the tiles of these receivers, which come first: they tell what others weigh."""
    every = parts(laid.values.shape[1], TILE)
    return sorted(every, key=lambda keys: keys.start != rows.start)


class Rooms:
    """Memory for the scores of a tile, used again for each."""

    def __init__(self, laid: Laid, count: int) -> None:
        n = laid.values.shape[1]
        most = _groups(laid.values)[0].stop * min(n, TILE) ** 2
        self.rooms = [laid.left.new_empty(most) for _ in range(count)]

    def __call__(self, x: Laid, tile: Tile) -> list[torch.Tensor]:
        """Rooms (g, receivers, sources)."""
        sizes = (part.stop - part.start for part in (tile.rows, tile.keys))
        shape = (x.left.shape[0], *sizes)
        return [room[: math.prod(shape)].view(shape) for room in self.rooms]


# ---- blocks


def block_peaks(scores: torch.Tensor) -> torch.Tensor:
    """Highest score of each receiver in each block of sources, (g, receivers, blocks)."""
    whole = scores.shape[-1] // BLOCK * BLOCK
    found = [scores[..., :whole].unflatten(-1, (-1, BLOCK)).amax(-1)] if whole else []
    if whole < scores.shape[-1]:
        found.append(scores[..., whole:].amax(-1, keepdim=True))
    return torch.cat(found, dim=-1) if len(found) > 1 else found[0]


def block_span(blocks: list[bool], of: slice) -> slice | None:
    """The part of `of` from the first to the last of its blocks that are true."""
    true = [i for i, there in enumerate(blocks) if there]
    if not true:
        return None
    return slice(of.start + true[0] * BLOCK, min(of.start + (true[-1] + 1) * BLOCK, of.stop))


def kept_tiles(x: Laid, rows: slice, counts: torch.Tensor) -> list[Tile]:
    """Tiles of these receivers without the blocks at their borders that weigh nothing.

    `counts` (g, receivers, blocks of all sources): whether anything in a block weighs something.
    """
    counts = torch.stack([part.flatten(0, 1).any(0) for part in counts.split(BLOCK, dim=1)])
    tiles = []
    for keys in parts(x.values.shape[1], TILE):
        some = counts[:, keys.start // BLOCK : -(-keys.stop // BLOCK)]
        here = block_span(some.any(1).tolist(), rows)
        there = block_span(some.any(0).tolist(), keys)
        if here is not None and there is not None:
            tiles.append(x.tile(here, there))
    return tiles
