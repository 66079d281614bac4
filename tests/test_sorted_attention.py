"""Fused attention with features and sorting: exactness, merging, kernels and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import relu, scaled_dot_product_attention

from aqnet.model import sorted_attention
from aqnet.model.attention import ModelError
from aqnet.model.sorted_attention import (
    KERNEL_OF,
    KERNELS,
    blockwise_attention,
    dense_attention,
    require_kernel,
)

torch.set_num_threads(1)
# What sorts and merges; the default of a CPU has its own tests.
fused_attention = partial(sorted_attention.fused_attention, kernel="cpu")
EPS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 1e-2}


def random(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


def bias_of(f, g, height, alpha) -> torch.Tensor:
    rise = relu(height[None, :] - height[:, None])
    return f @ g.transpose(-1, -2) - alpha[None, :, None, None] * rise


@settings(max_examples=40, deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 31, 64, 65]),
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    size=st.sampled_from([8, 9, 40, 128]),
    rank=st.integers(0, 5),
    scale=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_features_and_height_together(n, batch, heads, size, rank, scale, seed):
    torch.manual_seed(seed)
    q, k, v, grad = random(4, batch, heads, n, size)
    f, g = random(batch, heads, n, rank), random(1, 1, n, rank)
    height, alpha = random(n).round(decimals=0), torch.rand(heads, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v, f, g, alpha)]
    have = fused_attention(q, k, v, [(f, g)], height, alpha, scale)
    want = dense_attention(q, k, v, bias_of(f, g, height, alpha), scale)
    torch.testing.assert_close(have, want, atol=1e-11, rtol=0)
    pairs = (torch.autograd.grad(x, leaves, grad) for x in (have, want))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("n", [1, 2, 50])
def test_a_strength_of_zero_is_plain_attention(dtype, n):
    torch.manual_seed(0)
    q, k, v = (x.requires_grad_() for x in random(3, 2, 3, n, 16, dtype=dtype))
    f, g = torch.zeros(1, 3, n, 2), torch.randn(1, 1, n, 2)
    alpha = torch.zeros(3, requires_grad=True)
    have = fused_attention(q, k, v, [(f, g)], torch.randn(n), alpha)
    want = scaled_dot_product_attention(q, k, v)
    exact = dense_attention(*(x.double() for x in (q, k, v)), 0.0)
    assert (have - exact).abs().max() <= EPS[dtype] * exact.abs().max()
    assert (have - want).abs().max() <= EPS[dtype] * want.abs().max()
    (slope,) = torch.autograd.grad(have.sum(), alpha)  # zero is no trap: the strength still learns
    assert slope.shape == (3,) and (n < 3 or (slope != 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_cpu_computes_16_bit_in_float32(dtype):
    torch.manual_seed(0)
    q, k, v, grad = random(4, 2, 3, 50, 16, dtype=dtype)
    f, g = random(2, 3, 50, 2, dtype=torch.float32), random(1, 1, 50, 2, dtype=torch.float32)
    height, alpha = torch.randn(50), torch.rand(3, requires_grad=True)
    found = []
    for wide in (dtype, torch.float32):
        leaves = [x.to(wide).requires_grad_() for x in (q, k, v)]
        out = fused_attention(*leaves, [(f, g)], height, alpha)
        found.append([out, *torch.autograd.grad(out, [*leaves, alpha], grad.to(wide))])
    assert found[0][0].dtype == dtype and found[0][-1].dtype == torch.float32
    for have, want in zip(*found, strict=True):
        assert torch.equal(have, want.to(have.dtype))


@pytest.mark.parametrize("factor", [1e-30, 1e3, 1e8])
def test_extreme_heights_neither_overflow_nor_mix(factor):
    torch.manual_seed(0)
    q, k, v = (x.requires_grad_() for x in random(3, 1, 2, 40, 8, dtype=torch.float32))
    height, alpha = factor * torch.randn(40), torch.tensor([1.0, 3.0], requires_grad=True)
    have = fused_attention(q, k, v, [], height, alpha)
    want = dense_attention(
        *(x.double() for x in (q, k, v)),
        -alpha.double()[None, :, None, None] * relu(height[None, :] - height[:, None]).double(),
    )
    assert (have - want).abs().max() < 1e-5
    grads = torch.autograd.grad(have.square().sum(), [q, k, v, alpha])
    assert all(torch.isfinite(g).all() for g in grads)


def test_each_pair_is_met_once():
    for n in (1, 2, 7):
        height = torch.randint(0, 3, (n,)).float()
        met, order = torch.zeros(n, n), torch.argsort(height)[None, None]
        for run in sorted_attention._runs(height):
            keys = run.keys(order)[0, 0]
            for t, i in enumerate(run.queries(order)[0, 0]):
                met[i, keys[: t + 1]] += 1
                if run.climbs:
                    assert (height[keys[: t + 1]] >= height[i]).all()
        assert (met == 1).all()


def test_no_height_is_one_run_and_no_bias_is_the_plain_kernel():
    assert len(sorted_attention._runs(None)) == 1
    q, k, v = random(3, 1, 2, 9, 8)
    assert torch.equal(fused_attention(q, k, v), scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_are_the_dense_form(block):
    torch.manual_seed(0)
    q, k, v = (x.requires_grad_() for x in random(3, 2, 2, 23, 8))
    bias = random(2, 2, 23, 23).requires_grad_()
    have = blockwise_attention(q, k, v, lambda here: bias[:, :, here], block=block)
    want = dense_attention(q, k, v, bias)
    torch.testing.assert_close(have, want, atol=1e-12, rtol=0)
    pairs = (torch.autograd.grad(x.square().sum(), [q, k, v, bias]) for x in (have, want))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_blocks_do_not_keep_the_matrix():
    n, kept = 256, []
    q, k, v = (x.requires_grad_() for x in random(3, 1, 1, n, 8))

    def pack(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        blockwise_attention(q, k, v, lambda here: 0.0, block=32)
    assert max(kept) < n * n / 4


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("cpu", "cuda", torch.float32),
        ("efficient", "cpu", torch.float32),
        ("efficient", "cuda", torch.float64),
        ("flash", "cuda", torch.float32),
        ("flash", "mps", torch.float16),
        ("quick", "cpu", torch.float32),
        ("by_device", "mps", torch.float32),
        ("by_device", "cuda", torch.float64),
    ],
)
def test_what_no_kernel_serves_is_an_error_that_names_the_choices(name, device, dtype):
    with pytest.raises(ModelError) as caught:
        require_kernel(name, device, dtype)
    text = str(caught.value)
    assert all(repr(k) in text for k in KERNELS) and "'blockwise' or 'dense'" in text
    assert device in text and str(dtype) in text
    assert "'by_device' (cpu: tiled, cuda: efficient)" in text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("device", KERNEL_OF)
def test_the_kernel_of_a_device_serves_it(device, dtype):
    kernel = require_kernel("by_device", device, dtype)
    assert kernel is KERNELS[KERNEL_OF[device]] and kernel.device == device


def test_without_a_name_it_is_the_kernel_of_the_device():
    torch.manual_seed(0)
    q, k, v = random(3, 1, 2, 9, 8)
    given = (q, k, v, [], random(9), torch.rand(2).double())
    have = sorted_attention.fused_attention(*given)
    assert torch.equal(have, sorted_attention.fused_attention(*given, kernel="tiled"))


def require_shapes(name: str) -> None:
    kernel = KERNELS[name]
    for each in (kernel, KERNELS[kernel.gradients]):
        try:
            each.forward(*torch.empty(3, 1, 1, 8, 8, device="meta", dtype=each.dtypes[0]), False)
        except NotImplementedError:
            if torch.__version__ >= (2, 13):  # the pinned version knows them; 2.4.0 does not
                raise
            pytest.skip(f"torch {torch.__version__} does not know the shapes of {name!r}")


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.forward])
@pytest.mark.parametrize("n", [1, 33, 64])
@pytest.mark.parametrize("size", [10, 96])
def test_shapes_and_dtypes_of_every_kernel_without_its_device(name, n, size, monkeypatch):
    # torch knows the shapes of the CUDA kernels: on the device `meta` the same code runs without
    # numbers. It would stop at a head size, a dtype or a log-sum-exp that a kernel refuses.
    require_shapes(name)
    kernel = KERNELS[name]
    back = KERNELS[kernel.gradients]
    for dtype in kernel.dtypes:
        q, k, v = (x.to("meta", dtype).requires_grad_() for x in random(3, 2, 3, n, size))
        f, g = (x.to("meta", torch.float32) for x in (random(2, 3, n, 4), random(1, 1, n, 4)))
        alpha = torch.rand(3, device="meta", dtype=torch.float32).requires_grad_()
        seen = []

        def watch(function, seen=seen):
            def call(*tensors):
                seen.extend(tensors[:3])
                return function(*tensors)

            return call

        checked = [
            sorted_attention.Kernel(
                x.device, x.dtypes, watch(x.forward), watch(x.backward) if x.backward else None,
                kernel.gradients, x.widens,
            )
            for x in (kernel, back)
        ]  # fmt: skip
        monkeypatch.setitem(KERNELS, kernel.gradients, checked[1])
        monkeypatch.setattr(
            sorted_attention, "require_kernel", lambda *_, checked=checked: checked[0]
        )
        height = torch.empty(n, device="meta")
        out = fused_attention(q, k, v, [(f, g)], height, alpha, kernel=name)
        grads = torch.autograd.grad(out, [q, k, v, alpha], torch.empty_like(out))
        assert out.shape == q.shape and out.dtype == dtype
        assert [x.shape for x in grads] == [x.shape for x in (q, k, v, alpha)]
        assert all(x.shape[-1] % 8 == 0 for x in seen)
        monkeypatch.undo()


def test_the_log_sum_exp_of_the_efficient_kernel_is_padded_back():
    require_shapes("efficient")
    q, k, v = torch.empty(3, 2, 3, 45, 16, device="meta")
    kernel = KERNELS["efficient"]
    o, lse = kernel.forward(q, k, v, True)
    assert o.shape == q.shape and lse.shape == (2, 3, 45)
    grads = kernel.backward(o, q, k, v, o, lse, True)
    assert [g.shape for g in grads] == [q.shape] * 3


def test_second_derivatives_are_refused():
    q, k, v = (x.requires_grad_() for x in random(3, 1, 1, 4, 8))
    out = fused_attention(q, k, v, [], torch.randn(4).double(), torch.ones(1).double())
    (first,) = torch.autograd.grad(out.sum(), v, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()
