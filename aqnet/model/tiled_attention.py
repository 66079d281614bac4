"""Attention with biases on a CPU by matrix products alone, some receivers at a time.

The scores of a tile stay in the processor's cache and are made twice, forward and backward; all
else is products of matrices, which run at the processor's full speed, in 16 bit too. A tile is a
few hundred receivers of one sample and head, or all of many where there are few tokens: windows.
16-bit inputs: their own products are of 16 bit; features, softmax and what follows are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["TILE_ROWS", "tiled_attention"]

_softmax_back = torch.ops.aten._softmax_backward_data
TILE_ROWS = 256  # receivers at a time; 128 to 512 are within 10 % of each other
TILE_SCORES = 2**18  # of a tile that several samples and heads share: 1 MB in float32


@torch.compiler.disable  # its loops would be unrolled
def tiled_attention(
    scale: float,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    fq: torch.Tensor,
    fk: torch.Tensor,
    height: torch.Tensor | None,
    alpha: torch.Tensor,
) -> torch.Tensor:
    """Attention with the bias fq_i . fk_j - alpha relu(height_j - height_i) [nat].

    Parameters
    ----------
    scale : float
        Of q . k.
    q, k, v : (B, heads, N, d)
        With heights: tokens from the lowest to the highest.
    fq, fk : (1 or B, 1 or heads, N, rank), at least float32
    height : (N,) or (B, N), ascending, or None
    alpha : (heads,); not used without heights

    Returns
    -------
    (B, heads, N, d) in the dtype of q; first derivatives only.
    """
    if q.dtype == torch.float16:  # a processor multiplies it 100 times slower than bfloat16
        wide = (x.float() for x in (q, k, v))
        return _Tiled.apply(scale, *wide, fq, fk, height, alpha).to(q.dtype)
    return _Tiled.apply(scale, q, k, v, fq, fk, height, alpha)


# ---- layout


@dataclass(frozen=True)
class _Laid:
    """Tokens (G, N, ..) of G samples and heads: all of them, or those of a tile (`some`).

    Columns of `left` and `right`: features, `own` queries and keys (none if these are of 16 bit),
    and the climb alpha (h_i - h_j), which concerns sources above the receiver. Features come first:
    their large terms have cancelled before the small ones are added.
    """

    left: torch.Tensor
    right: torch.Tensor
    own: slice
    plain: int  # columns without the climb
    short: tuple[torch.Tensor, torch.Tensor] | None  # queries and keys of 16 bit
    values: torch.Tensor
    height: torch.Tensor | None  # (G, N)
    alpha: torch.Tensor  # (G,)

    def some(self, at: slice) -> _Laid:
        """Some samples and heads."""
        left, right, values = (x[at] for x in (self.left, self.right, self.values))
        short = self.short and tuple(x[at] for x in self.short)
        height = None if self.height is None else self.height[at]
        return _Laid(left, right, self.own, self.plain, short, values, height, self.alpha[at])

    def border(self, last: int) -> int:
        """Sources from here on lie above all receivers of a tile that ends at `last`."""
        return self.right.shape[1] if self.height is None else last

    def climb(self, a: int, b: int) -> torch.Tensor:
        """relu(height_j - height_i) among the receivers of a tile."""
        return (self.height[:, None, a:b] - self.height[:, a:b, None]).relu_()


def _lay_out(scale, q, k, v, fq, fk, height, alpha) -> _Laid:
    shape, precise = (*q.shape[:3], -1), torch.promote_types(q.dtype, torch.float32)
    short = None if q.dtype == precise else ((q * scale).contiguous(), k.contiguous())
    left, right, rank = [fq], [fk], fq.shape[-1]
    if short is None:
        left, right = [fq, q * scale], [fk, k]
    plain = sum(x.shape[-1] for x in left)
    if height is not None:
        height = height.expand(len(q), -1)[:, None].expand(shape[:3])
        one, rise = torch.ones_like(height), height * alpha[:, None]
        left += [torch.stack([rise, -alpha[:, None] * one], dim=-1)]
        right += [torch.stack([one, height], dim=-1)]
        height = height.flatten(0, 1)
    left, right = (torch.cat([x.expand(shape) for x in side], dim=-1) for side in (left, right))
    left, right, values = (x.flatten(0, 1) for x in (left, right, v.contiguous()))
    short = short and tuple(x.flatten(0, 1) for x in short)
    return _Laid(
        left, right, slice(rank, plain), plain, short, values, height, alpha.repeat(len(q))
    )


def _tiles(x: torch.Tensor) -> Iterator[tuple[slice, int, int]]:
    """Samples and heads, first and last receiver of all tiles."""
    groups, n, _ = x.shape
    step = max(1, TILE_SCORES // (min(n, TILE_ROWS) * n))
    for first in range(0, groups, step):
        for a in range(0, n, TILE_ROWS):
            yield slice(first, min(first + step, groups)), a, min(a + TILE_ROWS, n)


def _room(x: torch.Tensor) -> torch.Tensor:
    at, a, b = next(_tiles(x))
    return x.new_empty(at.stop, b - a, x.shape[1])


def _product(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """start + a @ b; of one sample and head as plain matrices: in 16 bit up to twice as fast."""
    if len(a) > 1:
        return a @ b if start is None else torch.baddbmm(start, a, b)
    return (a[0] @ b[0] if start is None else torch.addmm(start[0], a[0], b[0]))[None]


def _add(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1) -> None:
    """out = beta * out + a @ b, as `_product`."""
    if len(a) > 1:
        torch.baddbmm(out, a, b, beta=beta, out=out)
    else:
        torch.addmm(out[0], a[0], b[0], beta=beta, out=out[0])


def _weights(x: _Laid, a: int, b: int, scores: torch.Tensor) -> torch.Tensor:
    """Softmax of the scores of receivers a..b, (g, b - a, N); `scores` is where they are made."""
    scores, border, beta = scores[: len(x.left), : b - a], x.border(b), 0
    if x.short:
        q, k = x.short[0][:, a:b], x.short[1].transpose(1, 2)
        rounded = _product(q, k)  # to 8 bits; the second product is what was lost by it
        scores.copy_(rounded).sub_(_product(-q, k, rounded))
        beta = 1
    p, below, above = x.plain, scores[..., :border], scores[..., border:]
    _add(below, x.left[:, a:b, :p], x.right[:, :border, :p].transpose(1, 2), beta)
    if x.height is not None:
        scores[..., a:b] -= x.alpha[:, None, None] * x.climb(a, b)
        _add(above, x.left[:, a:b], x.right[:, border:].transpose(1, 2), beta)
    return torch.softmax(scores, dim=-1)


# ---- forward and backward


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, q, k, v, fq, fk, height, alpha):
        laid = _lay_out(scale, q, k, v, fq, fk, height, alpha)
        out, scores = torch.empty_like(laid.values), _room(laid.left)
        for at, a, b in _tiles(out):
            x = laid.some(at)
            out[at, a:b] = _product(_weights(x, a, b, scores).to(q.dtype), x.values)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, fq, fk, height, alpha)
        return out.view(q.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        laid = _lay_out(ctx.scale, *inputs)
        precise, grad = laid.left.dtype, grad.contiguous().flatten(0, 1)
        sums, scores = _Sums(laid, keys=ctx.needs_input_grad[5]), _room(laid.left)
        for at, a, b in _tiles(grad):
            x = laid.some(at)
            weights, given = _weights(x, a, b, scores), grad[at, a:b]
            sums.values[at] += _product(weights.to(given.dtype).transpose(1, 2), given)
            slope = _product(given, x.values.transpose(1, 2)).to(precise)
            sums.add(x, at, a, b, _softmax_back(slope, weights, -1, precise))
        return sums.gradients(ctx.scale, *inputs[:5])


class _Sums:
    """Gradients, tile by tile; `keys`: also of the features of keys."""

    def __init__(self, laid: _Laid, keys: bool) -> None:
        self.laid, self.keys = laid, keys
        precise, left = laid.left.dtype, laid.left[..., : laid.plain]
        self.left = torch.empty_like(left)
        # of keys, the columns whose gradient is wanted
        self.columns = slice(0, laid.plain) if keys else laid.own
        self.right = torch.zeros_like(left[..., self.columns])
        self.values = torch.zeros_like(laid.values, dtype=precise)
        self.short = laid.short and tuple(torch.zeros_like(x, dtype=precise) for x in laid.short)
        self.alpha = torch.zeros_like(laid.alpha)

    def add(self, x: _Laid, at: slice, a: int, b: int, slope: torch.Tensor) -> None:
        """Take in a tile, given the gradient of its scores."""
        if x.short:
            short = slope.to(x.short[0].dtype)
            self.short[0][at, a:b] = _product(short, x.short[1])
            self.short[1][at] += _product(short.transpose(1, 2), x.short[0][:, a:b])
        border, p = x.border(b), x.plain
        left, right = self.left[at, a:b], self.right[at]
        _add(left, slope[..., :border], x.right[:, :border, :p], beta=0)
        if right.shape[-1]:
            _add(right, slope.transpose(1, 2), x.left[:, a:b, self.columns])
        if x.height is None:
            return
        above = _product(slope[..., border:], x.right[:, border:])
        left += above[..., :p]
        rise = x.height[:, a:b] * above[..., p] - above[..., p + 1]
        self.alpha[at] += rise.sum(1) - (slope[..., a:b] * x.climb(a, b)).sum((1, 2))

    def gradients(self, scale: float, q, k, v, fq, fk) -> tuple[torch.Tensor | None, ...]:
        """As autograd wants them from the inputs of `tiled_attention`."""
        own, rank, shape = self.laid.own, fq.shape[-1], q.shape[:2]
        left, right, values = (x.unflatten(0, shape) for x in (self.left, self.right, self.values))
        dfk = _shared(right[..., :rank], fk) if self.keys else None
        dfq = _shared(left[..., :rank], fq)
        dq, dk = left[..., own], right[..., own] if self.keys else right
        if self.short:
            dq, dk = (x.unflatten(0, shape) for x in self.short)
        dq, alpha = dq.mul_(scale).to(q.dtype), self.alpha.view(shape).sum(0)
        return None, dq, dk.to(k.dtype), values.to(v.dtype), dfq, dfk, None, alpha


def _shared(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the samples and heads that share features."""
    axes = [axis for axis in (0, 1) if like.shape[axis] < gradient.shape[axis]]
    return gradient.sum(axes, keepdim=True) if axes else gradient
