"""Order: the same global batches for every world, resumed exactly, nothing padded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from aqnet.data.order import EvaluationSampler, GlobalOrderSampler, seeded_order
from aqnet.errors import SampleError

WORLDS = st.sampled_from([1, 2, 3, 4, 6, 12])


def ranks(n, seed, world, batch_size, **options):
    return [GlobalOrderSampler(n, seed, r, world, batch_size, **options) for r in range(world)]


def batches(samplers) -> list[frozenset]:
    """Global batches as all ranks take them together."""
    taken = [list(s) for s in samplers]
    size = samplers[0].slice_size
    assert len({len(part) for part in taken}) == 1
    steps = range(0, len(taken[0]), size)
    return [frozenset(i for part in taken for i in part[k : k + size]) for k in steps]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.integers(0, 99), st.integers(0, 99))
def test_order_is_a_pure_function_of_seed_and_epoch(n, seed, epoch):
    indices = np.arange(10, 10 + n)
    order = seeded_order(indices, seed, epoch)
    np.random.default_rng(0).random()
    np.testing.assert_array_equal(order, seeded_order(indices, seed, epoch))
    np.testing.assert_array_equal(np.sort(order), indices)
    if n > 20:
        assert not np.array_equal(order, seeded_order(indices, seed, epoch + 1))
        assert not np.array_equal(order, seeded_order(indices, seed + 1, epoch))


def test_the_order_is_the_one_that_checkpoints_were_made_with():
    # numpy may change what a seed draws; a run could then not be resumed, nor repeated
    assert seeded_order(np.arange(8), 3, 1).tolist() == [2, 1, 4, 0, 5, 7, 6, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 300), st.integers(0, 9), st.integers(0, 5), WORLDS, st.integers(1, 3))
def test_global_batches_do_not_depend_on_the_world(n, seed, epoch, world, times):
    batch_size = 12 * times
    if n < batch_size:
        return
    one, many = ranks(n, seed, 1, batch_size), ranks(n, seed, world, batch_size)
    for sampler in (*one, *many):
        sampler.set_epoch(epoch)
    alone = batches(one)
    assert batches(many) == alone
    assert len(alone) == n // batch_size and all(len(b) == batch_size for b in alone)
    assert len(frozenset().union(*alone)) == len(alone) * batch_size
    order = seeded_order(np.arange(n), seed, epoch)
    assert list(one[0]) == order[: len(alone) * batch_size].tolist()
    assert [len(s) for s in many] == [len(list(s)) for s in many]


@settings(max_examples=60, deadline=None)
@given(st.integers(24, 300), WORLDS, WORLDS, st.integers(0, 30), st.integers(0, 3))
def test_a_run_continues_where_it_was_on_another_world(n, before, after, steps, epoch):
    first = ranks(n, 5, before, 12)
    for sampler in first:
        sampler.set_epoch(epoch)
    whole, steps = batches(first), min(steps, n // 12)
    for sampler in first:
        sampler.advance(steps)
    states = [json.loads(json.dumps(s.state_dict())) for s in first]
    assert all(state == states[0] for state in states)
    second = ranks(n, 5, after, 12)
    for sampler in second:
        sampler.load_state_dict(states[0])
        sampler.set_epoch(epoch)  # as Lightning does before each epoch
    assert batches(second) == whole[steps:]
    assert second[0].batches_left == len(whole) - steps
    second[0].set_epoch(epoch + 1)
    assert second[0].consumed == 0 and len(second[0]) == n // 12 * second[0].slice_size


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 300), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_another_batch_size_repeats_and_skips_nothing(n, size, other, steps):
    first = GlobalOrderSampler(n, 1, batch_size=size)
    first.advance(steps)
    second = GlobalOrderSampler(n, 1, batch_size=other, drop_last=False)
    second.load_state_dict(first.state_dict())
    seen = list(first.order()[: steps * size]) + list(second)
    assert sorted(seen) == list(range(n))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), WORLDS, st.integers(1, 3))
def test_without_drop_last_each_sample_comes_once(n, world, times):
    samplers = ranks(n, 2, world, 12 * times, drop_last=False)
    taken = [list(s) for s in samplers]
    assert sorted(i for part in taken for i in part) == list(range(n))
    assert [len(s) for s in samplers] == [len(part) for part in taken]
    sizes = [len(part) for part in taken]
    assert max(sizes) - min(sizes) <= 1
    samplers[0].advance(samplers[0].batches_left)
    assert samplers[0].consumed == n and len(samplers[0]) == 0


def test_fetching_ahead_does_not_move_the_cursor():
    sampler = GlobalOrderSampler(100, 0, batch_size=10)
    iterator = iter(sampler)
    for _ in range(35):
        next(iterator)
    assert sampler.state_dict()["consumed"] == 0
    sampler.advance()
    assert sampler.state_dict()["consumed"] == 10


def test_a_loader_makes_the_slices_whole_or_in_parts():
    sampler = GlobalOrderSampler(50, 0, rank=1, world=2, batch_size=12)
    wanted = [b[6:].tolist() for b in sampler.global_batches()]
    for accumulation in (1, 2, 3):
        size = sampler.slice_size // accumulation
        loader = DataLoader(torch.arange(50), batch_size=size, sampler=sampler)
        parts = torch.cat(list(loader)).reshape(-1, 6).tolist()
        assert parts == wanted and len(loader) == 4 * accumulation


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"n": 101}, "n differs"),
        ({"seed": 1}, "seed differs"),
        ({"consumed": 101}, "consumed differs"),
        ({"order_sha256": "0" * 64}, "order_sha256 differs"),
    ],
)
def test_a_state_of_other_samples_is_refused(change, key):
    sampler = GlobalOrderSampler(100, 0, batch_size=10)
    with pytest.raises(SampleError, match=key):
        sampler.load_state_dict(sampler.state_dict() | change)
    assert sampler.consumed == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((100, 0, 0, 3, 10), "multiple of the 3 ranks"),
        ((100, 0, 0, 1, 0), "evenly"),
        ((9, 0, 0, 1, 10), "fewer samples"),
        ((100, 0, 2, 2, 10), "outside its world"),
        ((100, 0, -1, 2, 10), "outside its world"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(SampleError, match=words):
        GlobalOrderSampler(*arguments)


def test_advancing_beyond_the_epoch_is_refused():
    sampler = GlobalOrderSampler(100, 0, batch_size=30)
    sampler.advance(3)
    with pytest.raises(SampleError, match="0 to 0"):
        sampler.advance()
    assert list(sampler) == []


@given(st.integers(0, 500), st.integers(1, 40))
def test_evaluation_takes_each_sample_once(n, world):
    parts = [EvaluationSampler(n, r, world) for r in range(world)]
    assert [i for part in parts for i in part] == list(range(n))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and sizes == [len(list(part)) for part in parts]


def test_an_evaluation_rank_outside_its_world_is_refused():
    with pytest.raises(SampleError, match="rank 4 of world 4"):
        EvaluationSampler(10, 4, 4)


# ---- epochs rounded to full batches


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 9), st.integers(0, 5), WORLDS, st.integers(1, 5))
def test_a_filled_epoch_has_rounded_full_batches(n, seed, epoch, world, times):
    batch_size = 12 * times
    expected = int(n / batch_size + 0.5)
    if not expected:
        with pytest.raises(SampleError, match=f"at least {batch_size // 2} samples"):
            ranks(n, seed, world, batch_size, fill=True)
        return
    samplers = ranks(n, seed, world, batch_size, fill=True)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    taken = [list(sampler) for sampler in samplers]
    assert {len(part) for part in taken} == {expected * batch_size // world} == {len(samplers[0])}
    joined = np.concatenate(list(samplers[0].global_batches()))
    order = seeded_order(np.arange(n), seed, epoch)
    np.testing.assert_array_equal(joined[:n], order[: len(joined)])
    np.testing.assert_array_equal(joined[n:], order[: max(0, len(joined) - n)])


def test_a_filled_epoch_is_continued_up_to_its_end():
    first = GlobalOrderSampler(21, 3, batch_size=8, fill=True)
    whole = list(first)
    first.advance(2)
    state = json.loads(json.dumps(first.state_dict()))
    second = GlobalOrderSampler(21, 3, batch_size=8, fill=True)
    second.load_state_dict(state)
    assert list(second) == whole[16:] and second.batches_left == 1
    second.advance()
    assert list(second) == [] and second.state_dict()["consumed"] == 24
    third = GlobalOrderSampler(21, 3, batch_size=8, fill=True)
    third.load_state_dict(second.state_dict())
    assert third.batches_left == 0


def test_a_filled_epoch_keeps_its_batch_size():
    """21 samples are 24 in batches of 8 and 20 in batches of 5: the cursor would skip or repeat."""
    first = GlobalOrderSampler(21, 3, batch_size=8, fill=True)
    first.advance()
    with pytest.raises(SampleError, match="batch_size differs"):
        GlobalOrderSampler(21, 3, batch_size=5, fill=True).load_state_dict(first.state_dict())
    of_before = {k: v for k, v in first.state_dict().items() if k != "batch_size"}
    second = GlobalOrderSampler(21, 3, batch_size=8, fill=True)
    second.load_state_dict(of_before)
    assert second.consumed == 8
