"""Attention with biases on a CPU by matrix products alone, a tile of scores at a time.

A tile is a few hundred receivers and sources of one sample and head (of several where there are few
tokens, as in windows). Its scores stay in the processor's cache and are made twice, forward and
backward (Dao et al. 2022, FlashAttention); all else is products of matrices, which run at the
processor's full speed, in 16 bit too. Scores are logarithms to base 2, whose powers torch computes
four times as fast as those of e. 16-bit inputs: their own products are of 16 bit; features, softmax
and what follows are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from aqnet.model.attention import pick_tokens

__all__ = ["TILE_KEYS", "TILE_ROWS", "TILE_SCORES", "tiled_attention"]

# Receivers and sources of a tile: 4 MB of scores in float32. At 8,192 tokens in float32, 512 x 512
# took as long and 256 x 1,024 a tenth more; in 16 bit, 256 rows of all sources a third more.
TILE_ROWS, TILE_KEYS = 1024, 1024
SHORT_FROM = 256  # tokens from which 16-bit products serve: roundings of few do not average out
TILE_SCORES = 2**18  # of a tile that several samples and heads share: 1 MB in float32
# A weight below is 0: 8,192 of them are 2**-51 of a sum of which float32 keeps 2**-24. Barriers make
# many so small that their powers would be subnormal, which took a processor twice as long.
LEAST_LOG2 = -64.0
_LOG2_E = math.log2(math.e)


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
        With heights: tokens from the lowest to the highest.
    fq, fk : (1 or B, 1 or heads, N, rank), at least float32
    height : (N,) or (B, N), ascending, or None
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


# ---- layout


@dataclass(frozen=True)
class _Laid:
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

    def some(self, at: slice) -> _Laid:
        """Some samples and heads."""
        left, right, values = (x[at] for x in (self.left, self.right, self.values))
        short = self.short and tuple(x[at] for x in self.short)
        height = None if self.height is None else self.height[at]
        own, alpha = self.own, self.alpha[at]
        return _Laid(left, right, own, self.plain, short, self.scale, values, height, alpha)

    def columns(self, rows: slice, keys: slice) -> int:
        """Columns of a tile: without the climb if a source of it may lie below a receiver."""
        above = self.height is not None and keys.start >= rows.stop
        return self.left.shape[-1] if above else self.plain

    def climb(self, rows: slice, keys: slice) -> torch.Tensor | None:
        """relu(height_j - height_i) of a tile that has sources below and above; else None."""
        if self.height is None or keys.stop <= rows.start or keys.start >= rows.stop:
            return None
        return (self.height[:, None, keys] - self.height[:, rows, None]).relu_()


def _lay_out(scale, q, k, v, fq, fk, height, alpha) -> _Laid:
    shape, precise = (*q.shape[:3], -1), torch.promote_types(q.dtype, torch.float32)
    short = None if q.dtype == precise else (q.contiguous(), k.contiguous())
    left, right, rank = [fq * _LOG2_E], [fk], fq.shape[-1]
    if short is None:
        left, right = [*left, q * (scale * _LOG2_E)], [fk, k]
    plain, alpha = sum(x.shape[-1] for x in left), alpha * _LOG2_E
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
    return _Laid(left, right, own, plain, short, scale * _LOG2_E, values, height, alpha)


def _parts(n: int, size: int) -> list[slice]:
    return [slice(a, min(a + size, n)) for a in range(0, n, size)]


def _groups(x: torch.Tensor) -> list[slice]:
    """Samples and heads that share tiles."""
    groups, n, _ = x.shape
    return _parts(groups, max(1, TILE_SCORES // (min(n, TILE_ROWS) * min(n, TILE_KEYS))))


def _tiles(laid: _Laid) -> Iterator[tuple[slice, _Laid, slice]]:
    """Samples and heads, their tokens, and some of their receivers; one after the other."""
    for at in _groups(laid.values):
        x = laid.some(at)
        for rows in _parts(x.values.shape[1], TILE_ROWS):
            yield at, x, rows


class _Rooms:
    """Memory for the scores of a tile, used again for each."""

    def __init__(self, laid: _Laid, count: int) -> None:
        n = laid.values.shape[1]
        most = _groups(laid.values)[0].stop * min(n, TILE_ROWS) * min(n, TILE_KEYS)
        self.rooms = [laid.left.new_empty(most) for _ in range(count)]

    def __call__(self, x: _Laid, rows: slice, keys: slice) -> list[torch.Tensor]:
        """Rooms (g, receivers, sources)."""
        shape = (len(x.left), rows.stop - rows.start, keys.stop - keys.start)
        return [room[: math.prod(shape)].view(shape) for room in self.rooms]


# ---- products


def _product(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """start + a @ b; of one sample and head as plain matrices: in 16 bit up to twice as fast."""
    if len(a) > 1:
        return a @ b if start is None else torch.baddbmm(start, a, b)
    return (a[0] @ b[0] if start is None else torch.addmm(start[0], a[0], b[0]))[None]


def _add(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1) -> torch.Tensor:
    """out = beta * out + a @ b, as `_product`; returns out."""
    if len(a) > 1:
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


def _scores(x: _Laid, rows: slice, keys: slice, out: torch.Tensor) -> torch.Tensor:
    """Scores to base 2 of a tile, (g, receivers, sources), in `out`."""
    if x.short:
        _precise(out, x.short[0][:, rows], x.short[1][:, keys].transpose(1, 2))
    c, beta = x.columns(rows, keys), x.scale if x.short else 0.0
    _add(out, x.left[:, rows, :c], x.right[:, keys, :c].transpose(1, 2), beta)
    climb = x.climb(rows, keys)
    return out if climb is None else out.sub_(climb.mul_(x.alpha[:, None, None]))


def _weights(scores: torch.Tensor) -> torch.Tensor:
    """Powers of 2, in place, of scores below the logarithm of a row's largest weight or its sum."""
    return torch.threshold_(scores, LEAST_LOG2, -math.inf).exp2_()


# ---- forward and backward


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, q, k, v, fq, fk, height, alpha, order):
        laid = _lay_out(scale, q, k, v, fq, fk, height, alpha)
        room, out = _Rooms(laid, 1), torch.empty_like(laid.values)
        lost = torch.empty_like(out) if laid.short else None
        norm = laid.left.new_empty(*out.shape[:2], 1)
        for at, x, rows in _tiles(laid):
            total, norm[at, rows] = _attended(x, rows, room)
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
        *inputs, order, out, lost, norm = ctx.saved_tensors
        laid = _lay_out(ctx.scale, *inputs)
        grad, mean = _sorted_back(grad, out, lost, order)
        sums, rooms = _Sums(laid, keys=ctx.needs_input_grad[5]), _Rooms(laid, 2)
        for at, x, rows in _tiles(laid):
            own = (z[at, rows] for z in (grad, mean, norm))
            _take_back(x, at, rows, *own, sums, rooms)
        return sums.gradients(ctx.scale, *inputs[:5])


def _attended(x: _Laid, rows: slice, room: _Rooms) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (g, receivers, d), and the logarithm to base 2 of the sum of weights.

    Of 16-bit values in float32, too: the backward pass needs it.
    """
    shape, values = (len(x.values), rows.stop - rows.start), x.values.to(x.left.dtype)
    total = x.left.new_zeros(*shape, values.shape[-1])
    highest, weight = x.left.new_full((*shape, 1), -math.inf), x.left.new_zeros(*shape, 1)
    for keys in _parts(values.shape[1], TILE_KEYS):
        scores = _scores(x, rows, keys, *room(x, rows, keys))
        before, highest = highest, torch.maximum(highest, scores.amax(-1, keepdim=True))
        weights, shrink = _weights(scores.sub_(highest)), (before - highest).exp2_()
        weight.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        _add(total.mul_(shrink), weights, values[:, keys])
    return total.div_(weight), weight.log2_().add_(highest)


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


def _take_back(x: _Laid, at: slice, rows: slice, grad, mean, norm, sums: _Sums, rooms) -> None:
    """Gradients from some receivers; `mean` and `norm` (g, receivers, 1)."""
    for keys in _parts(x.values.shape[1], TILE_KEYS):
        one, other = rooms(x, rows, keys)
        weights = _weights(_scores(x, rows, keys, one).sub_(norm))
        _accumulate(sums.values[at, :, keys], grad.transpose(1, 2), weights.to(grad.dtype))
        slope = _precise(other, grad, x.values[:, keys].transpose(1, 2))
        sums.add(x, at, rows, keys, slope.sub_(mean).mul_(weights))


class _Sums:
    """Gradients, tile by tile; `keys`: also of the features of keys.

    Those of keys and values are (G, columns, N): products with the scores on the right.
    """

    def __init__(self, laid: _Laid, keys: bool) -> None:
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

    def add(self, x: _Laid, at: slice, rows: slice, keys: slice, slope: torch.Tensor) -> None:
        """Take in a tile, given the gradient of its scores in nat."""
        if x.short:
            short = slope.to(x.short[0].dtype)
            self.short[0][at, rows] += _product(short, x.short[1][:, keys])
            self.short[1][at, :, keys] += _product(x.short[0][:, rows].transpose(1, 2), short)
        c = x.columns(rows, keys)
        _add(self.left[at, rows, :c], slope, x.right[:, keys, :c])
        if self.right.shape[1]:
            _add(self.right[at, :, keys], x.left[:, rows, self.columns].transpose(1, 2), slope)
        climb = x.climb(rows, keys)
        if climb is not None:
            self.alpha[at] -= climb.mul_(slope).sum((1, 2))

    def gradients(self, scale: float, q, k, v, fq, fk) -> tuple[torch.Tensor | None, ...]:
        """As autograd wants them from the inputs of `tiled_attention`."""
        laid, rank, shape = self.laid, fq.shape[-1], q.shape[:2]
        if laid.height is not None:
            one, height = self.left[..., laid.plain :].unbind(-1)
            self.alpha += (laid.height * one - height).sum(-1)
        right = self.right.mul_(1 / _LOG2_E).transpose(1, 2)  # `left` has the factor
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
