"""Attention with biases on a CPU by matrix products alone, some receivers at a time.

The scores of a few hundred receivers stay in the processor's cache and are made twice, forward and
backward; all else is products of matrices, which run at the processor's full speed, in 16 bit too.
16-bit inputs: their own products are of 16 bit; features, softmax and what follows are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["TILE_ROWS", "tiled_attention"]

_softmax_back = torch.ops.aten._softmax_backward_data
TILE_ROWS = 256  # receivers at a time; 128 to 512 are within 10 % of each other


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
    """All tokens, or those of one sample and head (`one`).

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
    height: torch.Tensor | None
    alpha: torch.Tensor

    def one(self, sample: int, head: int) -> _Laid:
        """One sample and head: tensors (N, ..), heights (N,)."""
        left, right, values = (x[sample, head] for x in (self.left, self.right, self.values))
        short = self.short and tuple(x[sample, head] for x in self.short)
        height = None if self.height is None else self.height[sample % len(self.height)]
        alpha = self.alpha[head : head + 1]
        return _Laid(left, right, self.own, self.plain, short, values, height, alpha)

    def border(self, last: int) -> int:
        """Sources from here on lie above all receivers of a tile that ends at `last`."""
        return len(self.right) if self.height is None else last

    def climb(self, a: int, b: int) -> torch.Tensor:
        """relu(height_j - height_i) among the receivers of a tile."""
        return (self.height[None, a:b] - self.height[a:b, None]).relu_()


def _lay_out(scale, q, k, v, fq, fk, height, alpha) -> _Laid:
    shape, precise = (*q.shape[:3], -1), torch.promote_types(q.dtype, torch.float32)
    short = None if q.dtype == precise else ((q * scale).contiguous(), k.contiguous())
    left, right, rank = [fq], [fk], fq.shape[-1]
    if short is None:
        left, right = [fq, q * scale], [fk, k]
    plain = sum(x.shape[-1] for x in left)
    if height is not None:
        height = height if height.dim() == 2 else height[None]
        one, rise = torch.ones_like(height)[:, None], height[:, None] * alpha[:, None]
        left += [torch.stack([rise, -alpha[:, None] * one], dim=-1)]
        right += [torch.stack([one, height[:, None]], dim=-1)]
    left, right = (torch.cat([x.expand(shape) for x in side], dim=-1) for side in (left, right))
    return _Laid(left, right, slice(rank, plain), plain, short, v.contiguous(), height, alpha)


def _tiles(x: torch.Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Sample, head, first and last receiver of all tiles."""
    batch, heads, n, _ = x.shape
    for sample in range(batch):
        for head in range(heads):
            for a in range(0, n, TILE_ROWS):
                yield sample, head, a, min(a + TILE_ROWS, n)


def _weights(x: _Laid, a: int, b: int, scores: torch.Tensor) -> torch.Tensor:
    """Softmax of the scores of receivers a..b, (b - a, N); `scores` is where they are made."""
    scores, border, beta = scores[: b - a], x.border(b), 0
    if x.short:
        q, k = x.short[0][a:b], x.short[1].T
        rounded = q @ k  # to 8 bits; the second product is what was lost by it
        scores.copy_(rounded).sub_(torch.addmm(rounded, -q, k))
        beta = 1
    p, below, above = x.plain, scores[:, :border], scores[:, border:]
    torch.addmm(below, x.left[a:b, :p], x.right[:border, :p].T, beta=beta, out=below)
    if x.height is not None:
        scores[:, a:b] -= x.alpha * x.climb(a, b)
        torch.addmm(above, x.left[a:b], x.right[border:].T, beta=beta, out=above)
    return torch.softmax(scores, dim=-1)


# ---- forward and backward


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, q, k, v, fq, fk, height, alpha):
        laid, out = _lay_out(scale, q, k, v, fq, fk, height, alpha), torch.empty_like(q)
        scores = laid.left.new_empty(TILE_ROWS, q.shape[2])
        for sample, head, a, b in _tiles(q):
            x = laid.one(sample, head)
            out[sample, head, a:b] = _weights(x, a, b, scores).to(q.dtype) @ x.values
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, fq, fk, height, alpha)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        laid = _lay_out(ctx.scale, *inputs)
        precise = laid.left.dtype
        grad = grad.contiguous()
        sums = _Sums(laid, keys=ctx.needs_input_grad[5])
        scores = laid.left.new_empty(TILE_ROWS, grad.shape[2])
        for sample, head, a, b in _tiles(grad):
            x, at = laid.one(sample, head), (sample, head)
            weights, given = _weights(x, a, b, scores), grad[at][a:b]
            sums.values[at] += weights.to(given.dtype).T @ given
            slope = _softmax_back((given @ x.values.T).to(precise), weights, -1, precise)
            sums.add(x, at, a, b, slope)
        return sums.gradients(ctx.scale, *inputs[:5])


class _Sums:
    """Gradients, tile by tile; `keys`: also of the features of keys."""

    def __init__(self, laid: _Laid, keys: bool) -> None:
        self.laid, self.keys = laid, keys
        precise, left = laid.left.dtype, laid.left[..., : laid.plain]
        self.left = torch.empty_like(left)
        self.columns = (
            slice(0, laid.plain) if keys else laid.own
        )  # of keys, whose gradient is wanted
        self.right = torch.zeros_like(left[..., self.columns])
        self.values = torch.zeros_like(laid.values, dtype=precise)
        self.short = laid.short and tuple(torch.zeros_like(x, dtype=precise) for x in laid.short)
        self.alpha = torch.zeros_like(laid.alpha)

    def add(self, x: _Laid, at: tuple[int, int], a: int, b: int, slope: torch.Tensor) -> None:
        """Take in a tile, given the gradient of its scores."""
        if x.short:
            short = slope.to(x.short[0].dtype)
            self.short[0][at][a:b] = short @ x.short[1]
            self.short[1][at] += short.T @ x.short[0][a:b]
        border, p = x.border(b), x.plain
        left, right = self.left[at][a:b], self.right[at]
        torch.mm(slope[:, :border], x.right[:border, :p], out=left)
        if right.shape[-1]:
            right.addmm_(slope.T, x.left[a:b, self.columns])
        if x.height is None:
            return
        above = slope[:, border:] @ x.right[border:]
        left += above[:, :p]
        rise = x.height[a:b] * above[:, p] - above[:, p + 1]
        self.alpha[at[1]] += rise.sum() - (slope[:, a:b] * x.climb(a, b)).sum()

    def gradients(self, scale: float, q, k, v, fq, fk) -> tuple[torch.Tensor | None, ...]:
        """As autograd wants them from the inputs of `tiled_attention`."""
        own, rank = self.laid.own, fq.shape[-1]
        dk = self.right[..., own] if self.keys else self.right
        dq, dk = self.short or (self.left[..., own], dk)
        dfk = _shared(self.right[..., :rank], fk) if self.keys else None
        dfq = _shared(self.left[..., :rank], fq)
        dq = dq.mul_(scale).to(q.dtype)
        return None, dq, dk.to(k.dtype), self.values.to(v.dtype), dfq, dfk, None, self.alpha


def _shared(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the samples and heads that share features."""
    axes = [axis for axis in (0, 1) if like.shape[axis] < gradient.shape[axis]]
    return gradient.sum(axes, keepdim=True) if axes else gradient
