"""Predicted time and cost: units, limits, and what grows with what."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.errors import ParameterError
from aqnet.jobs.machine import Machine
from aqnet.jobs.prediction import (
    all_reduce_s,
    compute_s,
    expected_maximum,
    first_update_parts,
    predict,
    step_parts,
)
from aqnet.jobs.profiles import load_profile
from aqnet.training.config import TrainingConfig
from aqnet.training.schedule import Plan

LUMI = load_profile("lumi").machine
MB = 1e6
WORK = SimpleNamespace(
    flop_per_sample=2e12, tokens=3497, parameters=46_000_000, gradient_bytes=184_000_000,
    optimiser_bytes=368_000_000, average_bytes=0, constant_bytes=1_000_000,
    sample_bytes=7_000_000, read_bytes=1_700_000,
)  # fmt: skip
TRAINING = TrainingConfig(batch_size=2)
ranks_ = st.integers(1, 2048)


def plan(ranks: int, passes: int = 2, epoch_steps: int = 50, steps: int = 500) -> Plan:
    effective = ranks * passes * 2
    return Plan(
        effective * epoch_steps, ranks, 2, passes, effective, epoch_steps, steps, 1, 1e-4, 0.0
    )


def changed(machine: Machine, **figures: float) -> Machine:
    """A machine with other figures."""
    own = {n: getattr(machine, n).model_copy(update={"value": v}) for n, v in figures.items()}
    return machine.model_copy(update=own)


def lumi(ranks: int, **named):
    return predict(WORK, LUMI, plan(ranks, **named), TRAINING, per_node=8, validation_samples=8000)


def test_units_by_hand():
    # 4 TFLOP at 30 % of 47.9 TFLOP/s
    assert compute_s(WORK, LUMI, 2) == pytest.approx(4 / (0.3 * 47.9))
    assert compute_s(WORK, LUMI, 2, "bf16-mixed") == pytest.approx(4 / (0.2 * 191.5))
    assert compute_s(WORK, LUMI, 2, checkpointing=True) == pytest.approx(16 / 3 / (0.3 * 47.9))
    # two processes of a node: all of it once over a link of 50 GB/s, a quarter reached, 20 us a hop
    assert all_reduce_s(25 * MB, LUMI, 2, 8) == pytest.approx(25 * MB / 12.5e9 + 40e-6)
    slow = changed(LUMI, node_bandwidth_gb_s=10.0)
    assert all_reduce_s(25 * MB, slow, 8, 8) == all_reduce_s(25 * MB, LUMI, 8, 8)
    assert all_reduce_s(25 * MB, slow, 16, 8) == pytest.approx(
        2 * 15 / 16 * 25 * MB / 2.5e9 + 8 * 20e-6
    )


@given(ranks_, st.floats(0, 1e10))
def test_a_sum_takes_longer_among_more_and_of_more(ranks, size):
    took = all_reduce_s(size, LUMI, ranks, 8)
    assert took <= all_reduce_s(size, LUMI, ranks + 1, 8)
    assert took <= all_reduce_s(size + 1e6, LUMI, ranks, 8)
    assert (took == 0) == (ranks == 1)
    # however many there are, no more than twice the bytes cross a link
    hops = 2 * math.ceil(math.log2(ranks)) * math.ceil(size / (25 * 2**20) or 1) if ranks > 1 else 0
    assert took <= 2 * size / 12.5e9 + (hops + 24) * 20e-6


def test_expected_maximum_is_that_of_normal_numbers():
    drawn = np.random.default_rng(0).standard_normal((2000, 800))
    for n in (1, 2, 4, 16, 800):
        assert expected_maximum(n) == pytest.approx(drawn[:, :n].max(1).mean(), abs=0.05)


@given(st.integers(1, 255), st.integers(1, 8))
@settings(deadline=None)
def test_more_gpus_are_never_more_efficient_and_start_later(nodes, passes):
    few, more = lumi(8 * nodes, passes=passes), lumi(8 * (nodes + 1), passes=passes)
    assert 0 < more.efficiency <= few.efficiency * 1.02  # validation comes in whole batches
    assert few.efficiency <= 1
    assert few.first_update_s < more.first_update_s
    assert few.step_s == pytest.approx(sum(few.parts.values()))
    assert few.first_update_s == pytest.approx(sum(few.start_parts.values()))
    assert all(value >= 0 for value in [*few.parts.values(), *few.start_parts.values()])


@given(st.integers(1, 200))
@settings(deadline=None)
def test_hours_and_cost_follow_from_the_step(nodes):
    ranks = 8 * nodes
    found = lumi(ranks, epoch_steps=40, steps=400)
    assert found.epoch_s == pytest.approx(40 * found.step_s)
    assert found.hours == pytest.approx(400 * found.step_s / 3600)
    assert found.gpu_hours == pytest.approx(ranks * found.hours)


def test_one_gpu_alone_waits_for_nobody():
    found = predict(WORK, LUMI, plan(1, epoch_steps=5000), TRAINING, per_node=8)
    waits = ("sum of gradients", "agreement", "slowest process")
    assert [found.parts[name] for name in waits] == [0, 0, 0]
    assert found.efficiency > 0.99


@pytest.mark.parametrize(
    ("figure", "factor", "part"),
    [("latency_us", 1000, "agreement"), ("bandwidth_reached", 0.01, "sum of gradients"),
     ("step_spread", 10, "slowest process"), ("read_gb_s", 0.01, "reading"),
     ("write_gb_s", 0.01, "checkpoints")],
)  # fmt: skip
def test_each_figure_has_its_part(figure, factor, part):
    worse = changed(LUMI, **{figure: factor * getattr(LUMI, figure).value})
    before, after = (step_parts(WORK, m, plan(800), TRAINING, 8, 8000) for m in (LUMI, worse))
    assert after[part] > 1.5 * before[part]
    assert after["compute"] == before["compute"]


def test_what_overlaps_costs_nothing_but_the_last_bucket():
    whole = changed(LUMI, overlap=0.0)
    hidden = changed(LUMI, overlap=1.0)
    everything = all_reduce_s(WORK.gradient_bytes, LUMI, 800, 8)
    assert step_parts(WORK, whole, plan(800), TRAINING, 8)["sum of gradients"] == everything
    last = step_parts(WORK, hidden, plan(800), TRAINING, 8)["sum of gradients"]
    assert last == all_reduce_s(25 * 2**20, LUMI, 800, 8) < everything


def test_processes_that_share_cores_take_their_turns():
    one = step_parts(WORK, LUMI, plan(2), TRAINING, per_node=2, at_once=2)
    four = step_parts(WORK, LUMI, plan(4), TRAINING, per_node=4, at_once=2)
    assert four["compute"] == pytest.approx(2 * one["compute"])


def test_files_of_all_processes_are_opened_one_after_the_other():
    start = first_update_parts(WORK, LUMI, plan(800), 8, 1.0, files=300)
    assert start["files"] == pytest.approx(800 * 300 / 20_000)
    many = first_update_parts(WORK, LUMI, plan(800), 8, 1.0, files=10_000)
    assert many["files"] == pytest.approx(400)


def test_a_figure_that_is_not_stated_is_named():
    machine = load_profile("cpu").machine
    with pytest.raises(ParameterError, match="latency_us"):
        predict(WORK, machine, plan(4), TRAINING, per_node=4)


def test_the_presets_of_lumi_keep_to_what_was_planned():
    for ranks in (128, 400, 800):
        found = lumi(ranks, passes=4 if ranks == 800 else 2)
        assert found.first_update_s <= 180
        assert found.efficiency > 0.75
    more = replace(plan(800), steps=0)
    assert predict(WORK, LUMI, more, TRAINING, 8).hours == 0
