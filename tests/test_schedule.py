"""Steps, warm-up and learning rates are counted in optimiser steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from aqnet.errors import ParameterError
from aqnet.training.config import TrainingConfig
from aqnet.training.loaders import chosen_samples
from aqnet.training.schedule import describe_plan, judged_samples
from aqnet.training.seeds import derive
from aqnet.variables import TARGETS


def reference(**changes) -> TrainingConfig:
    """Settings of the reference: 2 samples a process, 2e-4 at 1,600 samples a step."""
    values = {"max_epochs": 30, "batch_size": 2, "learning_rate": 2e-4, "batch_rule": "sqrt"}
    return TrainingConfig(**values | changes)


@pytest.mark.parametrize(
    ("samples", "processes", "passes", "steps"),
    [
        (138_320, 400, 2, 86),  # one lead a sample: 34,580 times, four leads
        (138_320, 800, 4, 22),
        (34_580, 400, 2, 22),  # all leads
        (34_580, 800, 4, 5),
    ],
)
def test_steps_of_the_reference(samples, processes, passes, steps):
    effective = 2 * passes * processes
    plan = describe_plan(reference(effective_batch=effective), samples, processes)
    assert (plan.passes, plan.epoch_steps, plan.steps) == (passes, steps, 30 * steps)
    assert f"{steps} optimiser steps per epoch" in str(plan)
    assert plan.warmup == 3 * steps


@pytest.mark.parametrize(
    ("rule", "effective", "rate"),
    [
        ("sqrt", 1600, 2e-4), ("sqrt", 6400, 4e-4), ("sqrt", 400, 1e-4),
        ("linear", 6400, 8e-4), ("linear", 1600, 2e-4), ("fixed", 6400, 2e-4),
    ],
)  # fmt: skip
def test_learning_rate_for_the_batch(rule, effective, rate):
    plan = describe_plan(reference(effective_batch=effective, batch_rule=rule), 138_320, 100)
    assert plan.peak == pytest.approx(rate)
    assert max(plan.rate(step) for step in range(plan.steps)) == pytest.approx(rate, rel=1e-3)


def test_rates_rise_linearly_then_fall_as_a_cosine():
    settings = reference(effective_batch=1600, warmup_steps=200, final_rate=0.1)
    plan = describe_plan(settings, 138_320, 400)
    rates = np.array([plan.rate(step) for step in range(plan.steps)])
    np.testing.assert_allclose(rates[:200], 2e-4 * np.arange(1, 201) / 201)
    assert rates.argmax() == 200 and rates[200] == plan.peak
    middle = plan.warmup + (plan.steps - plan.warmup) / 2
    assert plan.rate(middle) == pytest.approx(2e-4 * 0.55)
    assert (np.diff(rates[200:]) < 0).all() and plan.rate(plan.steps) == pytest.approx(2e-5)


def test_a_warmup_above_a_tenth_of_the_run_is_refused():
    with pytest.raises(ParameterError, match=r"(?s)at most 258, for 2580 .*found: +500"):
        describe_plan(reference(effective_batch=1600, warmup_steps=500), 138_320, 400)
    assert describe_plan(reference(effective_batch=1600, warmup_steps=258), 138_320, 400).warmup
    with pytest.raises(ValidationError, match="warmup_share"):
        reference(warmup_share=0.11)
    short = describe_plan(reference(max_steps=300, effective_batch=1600), 138_320, 400)
    assert (short.steps, short.warmup) == (300, 30)


def test_a_short_run_may_have_no_warmup():
    plan = describe_plan(TrainingConfig(max_epochs=1, batch_size=4), 20, 1)
    assert (plan.steps, plan.warmup) == (5, 0) and plan.rate(0) == plan.peak


@pytest.mark.parametrize(
    ("changes", "samples", "processes", "what"),
    [
        ({"effective_batch": 10}, 100, 2, "cannot be had with these processes"),
        ({"effective_batch": 64}, 31, 2, "too few samples"),
    ],
)
def test_what_does_not_fit_is_named(changes, samples, processes, what):
    with pytest.raises(ParameterError, match=what):
        describe_plan(reference(**changes), samples, processes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"effective_batch": 15}, "not a multiple of"),
        ({"pollutant_weights": {"pm2.5": 1}}, "pm2.5"),
        ({"pollutant_weights": dict.fromkeys(TARGETS, 0)}, "leaves no pollutant"),
        ({"rates": {"head": 1.0}}, "head"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, what):
    with pytest.raises(ValidationError, match=what):
        reference(**changes)


def test_limits_on_samples_and_steps():
    plan = describe_plan(reference(max_train_samples=100, effective_batch=40), 138_320, 20)
    assert plan.samples == 100 and plan.epoch_steps == 3 and plan.steps == 90
    assert describe_plan(reference(effective_batch=40, max_steps=7), 100, 20).steps == 7
    assert describe_plan(reference(), 100, 3).effective == 6  # batch_size x processes


# ---- seeds


def test_seeds_are_fixed_and_differ_by_seed_purpose_and_place():
    assert derive(0, "noise", 1, 2, 3) == 6612160207128899553
    places = [derive(seed, purpose, a, b) for seed in range(5) for purpose in ("noise", "order")
              for a in range(12) for b in range(12)]  # fmt: skip
    assert len(set(places)) == 5 * 2 * 144
    assert derive(1, "x", 23) != derive(1, "x", 2, 3) != derive(12, "x", 3)
    assert all(0 <= value < 2**63 for value in places)
    bits = np.array([[value >> bit & 1 for bit in range(63)] for value in places])
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / math.sqrt(bits.size)


@pytest.mark.parametrize(("maximum", "judged"), [(0, 100), (30, 30), (200, 100)])
def test_as_many_samples_are_predicted_as_are_judged(maximum, judged):
    settings = reference(max_validation_samples=maximum)
    assert judged_samples(settings, 100) == len(chosen_samples(100, maximum)) == judged
