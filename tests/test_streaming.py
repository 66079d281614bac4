"""Sums over blocks of hours: equal to numpy whatever the blocks, the gaps and the mask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.climatology import harmonic_basis
from aqnet.data.splits import Split, SplitError
from aqnet.data.statistics import plan as statistics_plan
from aqnet.data.statistics.counting import merge_counts
from aqnet.data.statistics.plan import FieldSeries, batches, make_plan
from aqnet.data.statistics.streaming import log_concentration, merge, segment_sums
from aqnet.data.years.format import round_bits
from aqnet.errors import CoverageError, FieldError
from aqnet.variables import DYNAMIC, STATIC, TARGETS

START = np.datetime64("2013-01-01T00", "h")
LEADS = (3, 12)
AT = [DYNAMIC.index(name) for name in TARGETS]
PRESSURE = DYNAMIC.index("psfc")


def series(seed, hours=40, shape=(2, 3), gaps=0.2):
    """Hours with jumps in time, missing fields, a mask, and a cell without any pm10."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(hours) < 0.05, 7, 1)
    times = START + np.cumsum(steps)
    values = np.exp(rng.normal(size=(hours, 11, *shape))) * 20
    values[:, PRESSURE] = 1e5 + 3 * rng.normal(size=(hours, *shape))
    mask = np.ones(shape, bool)
    mask[0, 0] = mask.size == 1
    valid = rng.random((hours, 11)) > gaps
    values = round_bits(values, 14)
    values[:, :, ~mask] = np.nan
    if mask.size > 3:
        values[:, DYNAMIC.index("pm10"), 1, 1] = np.nan
    values[~valid] = np.nan
    return FieldSeries(times, values, valid, mask, np.zeros((len(STATIC), *shape)))


def plan_of(source, split=None, **options):
    split = split or Split("train", source.times[0], source.times[-1] + 1)
    settings = {"leads_h": LEADS, "annual": 0, "diurnal": 1, "keep_bits": (14,) * 11, **options}
    return make_plan(source, split, 8.0, **settings)


def expected_sums(source, plan):
    """The definitions, in one pass over all hours in memory."""
    known = source.values[:, :, source.mask].astype(np.float64)
    d = np.nan_to_num(known - plan.shift)
    basis = harmonic_basis(source.times, 8.0, plan.annual, plan.diurnal)
    logs = np.log(np.maximum(known[:, AT], 0) + 1) - np.log(plan.shift[AT] + 1)
    found = {
        "first": d.sum(0), "second": (d**2).sum(0), "log_first": np.nansum(logs, 0),
        "log_second": np.nansum(logs**2, 0), "basis_y": np.einsum("tk,tvc->vkc", basis, d),
        "basis_basis": np.einsum("tk,tl,tv->vkl", basis, basis, source.valid.astype(float)),
        "pair_xy": np.zeros((11, len(LEADS), d.shape[2])),
        "pair_sums": np.zeros((11, 4 * len(LEADS), d.shape[2])),
    }  # fmt: skip
    for lead_row, lead in enumerate(LEADS):
        for i, time in enumerate(source.times):
            for j in np.flatnonzero(source.times == time + lead):
                both = (source.valid[i] & source.valid[j])[:, None]
                x, y = d[i] * both, d[j] * both
                found["pair_xy"][:, lead_row] += x * y
                for part, values in enumerate((x, y, x**2, y**2)):
                    found["pair_sums"][:, part * len(LEADS) + lead_row] += values
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 39), max_size=4, unique=True),
    st.randoms(use_true_random=False),
    st.sampled_from([5, 16, 96]),
)
def test_blocks_in_any_order_add_up(seed, cuts, random, batch_h):
    source = series(seed)
    if not source.valid.any(0).all():
        return
    plan = plan_of(source)
    edges = [0, *sorted(cuts), 40]
    blocks = list(itertools.pairwise(edges))
    random.shuffle(blocks)
    total, counted = None, []
    before, statistics_plan.BATCH_H = statistics_plan.BATCH_H, batch_h
    try:
        for block in blocks:
            sums, counts = segment_sums(source, (plan, *block))
            total = merge(total, sums)
            counted.append(counts)
    finally:
        statistics_plan.BATCH_H = before
    for name, values in expected_sums(source, plan).items():
        scale = np.abs(values).max() + 1
        np.testing.assert_allclose(total[name], values, rtol=1e-11, atol=1e-12 * scale)
    for variable, parts in enumerate(zip(*counted, strict=True)):
        known = source.values[:, variable]
        assert merge_counts(parts).total == np.isfinite(known).sum()


def test_pressure_keeps_its_digits():
    """A spread of 0.01 on 100,000 Pa: sums of squares of values would lose it."""
    rng = np.random.default_rng(1)
    source = series(1, hours=200, gaps=0)
    source.values[:, PRESSURE] = (1e5 + rng.normal(size=(200, 2, 3)) * 0.05).astype(np.float32)
    source.values[:, :, ~source.mask] = np.nan
    plan = plan_of(source, keep_bits=(23,) * 11)
    sums, _ = segment_sums(source, (plan, 0, 200))
    mean = sums["first"][PRESSURE] / 200
    std = np.sqrt(sums["second"][PRESSURE] / 200 - mean**2)
    known = source.values[:, PRESSURE, source.mask].astype(np.float64)
    np.testing.assert_allclose(std, known.std(axis=0), rtol=1e-11)
    np.testing.assert_allclose(mean + plan.shift[PRESSURE], known.mean(axis=0), rtol=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-8, 8), st.integers(2, 300))
def test_an_outlier_as_shift_costs_few_digits(seed, log_size, hours):
    """Samuelson's inequality: the first hour may be any member of the sample."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=hours)
    values[0] = 10**log_size
    d = values - values[0]
    variance = (d**2).mean() - d.mean() ** 2
    assert variance == pytest.approx(values.var(), rel=1e-11)


def test_the_logarithm_counts_what_is_below_zero_as_zero():
    np.testing.assert_array_equal(log_concentration(np.array([-1.0, -0.2, 0.0])), 0.0)
    np.testing.assert_allclose(log_concentration(np.array([1.0, 9.0])), np.log([2.0, 10.0]))


def test_hours_outside_the_split_are_not_read():
    source = series(2, hours=60)
    split = Split("train", source.times[10], source.times[40])
    plan = plan_of(source, split)
    assert (plan.start, plan.stop) == (10, 40)
    read = []

    class Watched(FieldSeries):
        def read(self, rows):
            read.extend(range(rows.start, rows.stop))
            return super().read(rows)

    watched = Watched(source.times, source.values, source.valid, source.mask, source.static)
    segment_sums(watched, (plan_of(watched, split), 0, 30))
    assert min(read) == 10 and max(read) == 39


def test_a_plan_of_other_hours_is_refused():
    source, later = series(2), series(2)
    plan = plan_of(source)
    later.times[:] += 10_000
    with pytest.raises(SplitError):
        list(batches(later, plan, 0, 5))


def test_no_hours_or_no_values_are_named():
    source = series(3)
    with pytest.raises(CoverageError, match=r"no hours(.|\n)*open the years"):
        plan_of(source, Split("train", source.times[-1] + 9, source.times[-1] + 99))
    source.valid[:, 3] = False
    with pytest.raises(CoverageError, match="none of rh"):
        plan_of(source)


def test_a_field_with_holes_is_named():
    source = series(4, gaps=0)
    source.values[17, 2, 1, 2] = np.nan
    with pytest.raises(
        FieldError, match=rf"temp at {source.times[17]} UTC(.|\n)*same 5(.|\n)*in 4"
    ):
        segment_sums(source, (plan_of(source), 0, 40))
    source.values[17, 2, 1, 2] = np.inf
    with pytest.raises(FieldError, match="temp"):
        segment_sums(source, (plan_of(source), 0, 40))
