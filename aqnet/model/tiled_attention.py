"""Attention with biases on a CPU by matrix products alone, a tile of scores at a time.

A tile is a thousand receivers and sources of one sample and head (of several where there are few
tokens, as in windows). Its scores stay in the processor's cache and are made twice, forward and
backward (Dao et al. 2022, FlashAttention); all else is products of matrices, which run at the
processor's full speed, in 16 bit too. Scores are logarithms to base 2, whose powers torch computes
four times as fast as those of e. 16-bit inputs: their own products are of 16 bit; features, softmax
and what follows are float32.

A weight too small for the type to notice is 0, and blocks of such weights at the ends of a tile are
left out, but for their scores in the forward pass. Plumes make many where a block's tokens are near
each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from aqnet.model.attention import pick_tokens
from aqnet.model.tiles import (
    LOG2_E,
    Laid,
    Rooms,
    Tile,
    block_peaks,
    block_span,
    kept_tiles,
    lay_out,
    row_tiles,
    sources,
)

__all__ = ["Pairs", "count_pairs", "least_log2", "tiled_attention"]

SHORT_FROM = 256  # tokens from which 16-bit products serve: roundings of few do not average out
SPARE_BITS = 16  # so many tokens, 2**16, of the least weight are less than the last bit of a sum


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
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention with the bias fq_i . fk_j - alpha relu(height_j - height_i) [nat].

    Parameters
    ----------
    scale : float
        Of q . k.
    q, k, v : (B, heads, N, d)
        Fastest where neighbours among the tokens are near each other, as of `compact_order`.
    fq, fk : (1 or B, 1 or heads, N, rank), at least float32
    height : (N,) or (B, N), or None
    alpha : (heads,); not used without heights
    order : (N,) or (B, N), optional
        Places to which the tokens of the output go.

    Returns
    -------
    (B, heads, N, d) in the dtype of q, as a view of (B, N, heads, d); first derivatives only.
    """
    # a processor multiplies float16 100 times slower than bfloat16
    if q.dtype == torch.float16 or (q.dtype == torch.bfloat16 and q.shape[2] < SHORT_FROM):
        wide = (x.float() for x in (q, k, v))
        return _Tiled.apply(scale, *wide, fq, fk, height, alpha, order).to(q.dtype)
    return _Tiled.apply(scale, q, k, v, fq, fk, height, alpha, order)


# ---- pairs


@dataclass(eq=False)
class Pairs:
    """Pairs of receiver and source, of all samples and heads.

    Attributes
    ----------
    all : int
    summed, kept : int
        Whose values the forward pass summed, whose gradients the backward pass computed.
    """

    all: int = 0
    summed: int = 0
    kept: int = 0

    def add(self, other: Pairs) -> None:
        """Take in another count."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


_COUNTS: list[Pairs] = []


@contextmanager
def count_pairs() -> Iterator[Pairs]:
    """Count the pairs of the backward passes of `tiled_attention` inside, in any thread."""
    _COUNTS.append(pairs := Pairs())
    try:
        yield pairs
    finally:
        _COUNTS.remove(pairs)


def _size(some: slice) -> int:
    return some.stop - some.start


# ---- products


def _product(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """start + a @ b; of one sample and head as plain matrices: in 16 bit up to twice as fast."""
    if a.shape[0] > 1:
        return a @ b if start is None else torch.baddbmm(start, a, b)
    return (a[0] @ b[0] if start is None else torch.addmm(start[0], a[0], b[0]))[None]


def _add(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1) -> torch.Tensor:
    """out = beta * out + a @ b, as `_product`; returns out."""
    if a.shape[0] > 1:
        return torch.baddbmm(out, a, b, beta=beta, out=out)
    torch.addmm(out[0], a[0], b[0], beta=beta, out=out[0])
    return out


def _accumulate(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """out += a @ b, whose product may be of 16 bit."""
    if a.dtype == out.dtype:
        _add(out, a, b)
    else:
        out += _product(a, b)


def _precise(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """out = a @ b, in float32 of factors of 16 bit, too; returns out."""
    if a.dtype == out.dtype:
        return _add(out, a, b, beta=0)
    rounded = _product(a, b)  # to 8 bits; the second product is what was lost by it
    return out.copy_(rounded).sub_(_product(-a, b, rounded))


def _scores(x: Laid, tile: Tile, out: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Scores to base 2 (g, receivers, sources) in `out`; of mixed ones max(h_i, h_j) in `other`."""
    rows, keys, c = tile.rows, tile.keys, tile.columns
    if x.short:
        _precise(out, x.short[0][:, rows], x.short[1][:, keys].transpose(1, 2))
    beta = x.scale if x.short else 0.0
    _add(out, x.left[:, rows, :c], x.right[:, keys, :c].transpose(1, 2), beta)
    if tile.mixed:
        torch.maximum(x.height[:, None, keys], x.height[:, rows, None], out=other)
        out.addcmul_(other, x.alpha[:, None, None], value=-1)
    return out


def least_log2(dtype: torch.dtype) -> float:
    """Logarithm to base 2 of a weight, as a share of its row, up to which it is made 0.

    Forward, of the row's largest weight so far; backward, of their sum.
    """
    return math.log2(torch.finfo(dtype).eps) - SPARE_BITS


def _weights(scores: torch.Tensor) -> torch.Tensor:
    """Powers of 2, in place, of scores below the logarithm of a row's largest weight or its sum.

    No power is subnormal: one takes a processor many times as long.
    """
    return torch.threshold_(scores, least_log2(scores.dtype), -math.inf).exp2_()


def _weighs(peaks: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Which scores weigh something beside `level`; what is not a number does."""
    return (peaks - level < least_log2(peaks.dtype)).logical_not_()


# ---- forward and backward


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, q, k, v, fq, fk, height, alpha, order):
        laid = lay_out(scale, q, k, v, fq, fk, height, alpha)
        rooms, out = Rooms(laid, 2), torch.empty_like(laid.values)
        lost = torch.empty_like(out) if laid.short else None
        norm, ctx.kept, ctx.pairs = laid.left.new_empty(*out.shape[:2], 1), [], Pairs()
        for at, x, rows in row_tiles(laid):
            total, norm[at, rows], kept = _attended(x, rows, rooms, ctx.pairs)
            ctx.kept.append(kept)
            out[at, rows] = total
            if lost is not None:
                lost[at, rows] = total.sub_(out[at, rows]).to(out.dtype)
        # in the layout of the layer that follows, which keeps the same memory
        out = out.view(q.shape).transpose(1, 2)
        back = None if order is None else torch.argsort(order, dim=-1)
        out = out.contiguous() if back is None else pick_tokens(out, back, 2)
        ctx.scale, out = scale, out.transpose(1, 2)
        ctx.save_for_backward(q, k, v, fq, fk, height, alpha, order, out, lost, norm)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        for pairs in _COUNTS:
            pairs.add(ctx.pairs)
        *inputs, order, out, lost, norm = ctx.saved_tensors
        laid = lay_out(ctx.scale, *inputs)
        grad, mean = _sorted_back(grad, out, lost, order)
        sums, rooms = _Sums(laid, keys=ctx.needs_input_grad[5]), Rooms(laid, 3)
        for (at, x, _), kept in zip(row_tiles(laid), ctx.kept, strict=True):
            own = tuple(z[at] for z in (grad, mean, norm))
            for tile in kept:
                _take_back(x, at, tile, *own, sums, rooms(x, tile))
        return sums.gradients(ctx.scale, *inputs[:5])


def _attended(
    x: Laid, rows: slice, rooms: Rooms, pairs: Pairs
) -> tuple[torch.Tensor, torch.Tensor, list[Tile]]:
    """Output (g, receivers, d), logarithm to base 2 of the sum of weights, and what counts.

    Output of 16-bit values in float32, too: the backward pass needs it.
    """
    shape, values = (x.values.shape[0], _size(rows)), x.values.to(x.left.dtype)
    total = x.left.new_zeros(*shape, values.shape[-1])
    highest, weight = x.left.new_full((*shape, 1), -math.inf), x.left.new_zeros(*shape, 1)
    peaks = {}
    for keys in sources(x, rows):
        tile = x.tile(rows, keys)
        scores = _scores(x, tile, *rooms(x, tile))
        peaks[keys.start] = peak = block_peaks(scores)
        some = block_span(_weighs(peak, highest).flatten(0, 1).any(0).tolist(), keys)
        if some is None:
            continue
        pairs.summed += math.prod(shape) * _size(some)
        scores = scores[..., some.start - keys.start : some.stop - keys.start]
        before, highest = highest, torch.maximum(highest, peak.amax(-1, keepdim=True))
        weights, shrink = _weights(scores.sub_(highest)), (before - highest).exp2_()
        weight.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        _add(total.mul_(shrink), weights, values[:, some])
    norm = weight.log2().add_(highest)
    every = torch.cat([peaks[start] for start in sorted(peaks)], dim=-1)
    kept = kept_tiles(x, rows, _weighs(every, norm))
    pairs.all += math.prod(shape) * values.shape[1]
    pairs.kept += shape[0] * sum(_size(tile.rows) * _size(tile.keys) for tile in kept)
    return total.div_(weight), norm, kept


def _sorted_back(
    grad: torch.Tensor, out: torch.Tensor, lost: torch.Tensor | None, order: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient (G, N, d), and mean (G, N, 1) of its product with the values under the weights.

    The mean is precise for outputs of 16 bit, too, by what they `lost`: the gradients of a row of
    scores have to cancel, because features are large numbers.
    """
    precise = torch.promote_types(grad.dtype, torch.float32)
    mean = (grad.to(precise) * out).sum(-1, keepdim=True)
    if order is not None:
        grad, mean = (
            pick_tokens(x.transpose(1, 2), order, 2).transpose(1, 2) for x in (grad, mean)
        )
    grad, mean = grad.contiguous().flatten(0, 1), mean.flatten(0, 1)
    if lost is not None:
        mean = mean + (grad.to(precise) * lost).sum(-1, keepdim=True)
    return grad, mean


def _take_back(x: Laid, at: slice, tile: Tile, grad, mean, norm, sums: _Sums, rooms) -> None:
    """Gradients from a tile; `grad` (g, N, d), `mean` and `norm` (g, N, 1)."""
    rows, keys, (one, other, third) = tile.rows, tile.keys, rooms
    grad = grad[:, rows]
    weights = _weights(_scores(x, tile, one, third).sub_(norm[:, rows]))
    _accumulate(sums.values[at, :, keys], grad.transpose(1, 2), weights.to(grad.dtype))
    slope = _precise(other, grad, x.values[:, keys].transpose(1, 2))
    sums.add(x, at, tile, slope.sub_(mean[:, rows]).mul_(weights), third)


class _Sums:
    """Gradients, tile by tile; `keys`: also of the features of keys.

    Those of keys and values are (G, columns, N): products with the scores on the right.
    """

    def __init__(self, laid: Laid, keys: bool) -> None:
        self.laid, self.keys, precise = laid, keys, laid.left.dtype
        # of keys, the columns whose gradient is wanted
        self.columns = slice(0, laid.plain) if keys else laid.own
        self.left = torch.zeros_like(laid.left)
        kept = (laid.left[..., self.columns], laid.values)
        self.right, self.values = (_transposed_zeros(x, precise) for x in kept)
        self.short = laid.short and (
            torch.zeros_like(laid.short[0], dtype=precise),
            _transposed_zeros(laid.short[1], precise),
        )
        self.alpha = torch.zeros_like(laid.alpha)

    def add(self, x: Laid, at: slice, tile: Tile, slope, higher) -> None:
        """Take in a tile, given the gradient of its scores in nat; `higher`: see `_scores`."""
        rows, keys, c = tile.rows, tile.keys, tile.columns
        if x.short:
            short = slope.to(x.short[0].dtype)
            self.short[0][at, rows] += _product(short, x.short[1][:, keys])
            self.short[1][at, :, keys] += _product(x.short[0][:, rows].transpose(1, 2), short)
        _add(self.left[at, rows, :c], slope, x.right[:, keys, :c])
        if self.right.shape[1]:
            _add(self.right[at, :, keys], x.left[:, rows, self.columns].transpose(1, 2), slope)
        if tile.mixed:
            self.alpha[at] -= higher.mul_(slope).sum((1, 2))

    def gradients(self, scale: float, q, k, v, fq, fk) -> tuple[torch.Tensor | None, ...]:
        """As autograd wants them from the inputs of `tiled_attention`."""
        laid, rank, shape = self.laid, fq.shape[-1], q.shape[:2]
        if laid.height is not None:
            one, height = self.left[..., laid.plain :].unbind(-1)
            self.alpha += (laid.height * one - height).sum(-1)
        right = self.right.mul_(1 / LOG2_E).transpose(1, 2)  # `left` has the factor
        values = self.values.transpose(1, 2)
        left, right, values = (x.unflatten(0, shape) for x in (self.left, right, values))
        dfk = _shared(right[..., :rank], fk) if self.keys else None
        dfq = _shared(left[..., :rank], fq)
        dq, dk = left[..., laid.own], right[..., laid.own] if self.keys else right
        if self.short:
            dq, dk = self.short[0].unflatten(0, shape), self.short[1].transpose(1, 2)
            dk = dk.unflatten(0, shape) * scale
        alpha = self.alpha.view(shape).sum(0)
        dq, dk, dv = (dq * scale).to(q.dtype), dk.to(k.dtype), values.to(v.dtype)
        return None, dq, dk, dv, dfq, dfk, None, alpha, None


def _transposed_zeros(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.new_zeros(len(x), x.shape[2], x.shape[1], dtype=dtype)


def _shared(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the samples and heads that share features."""
    axes = [axis for axis in (0, 1) if like.shape[axis] < gradient.shape[axis]]
    return gradient.sum(axes, keepdim=True) if axes else gradient
