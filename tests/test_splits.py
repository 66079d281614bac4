"""Splits: half-open, embargoed, and nothing fitted or sampled crosses a border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqnet.data.climatology import HarmonicClimatology, fit_climatology
from aqnet.data.history import History
from aqnet.data.normalisation import fit_normaliser
from aqnet.data.splits import (
    HISTORY_H,
    Split,
    SplitError,
    check_no_crossing,
    init_times,
    splits_of,
)
from aqnet.data.stations.analysis import fit_analysis
from aqnet.errors import LeadTimeError
from aqnet.model.statistical import fit_statistical
from aqnet.variables import DYNAMIC, LEAD_TIMES_H

HOUR = np.timedelta64(1, "h")


def hours(n):
    return np.timedelta64(int(n), "h")


@st.composite
def some_split(draw):
    start = np.datetime64("2013-01-01T00", "h") + hours(draw(st.integers(0, 20000)))
    return Split("some", start, start + hours(draw(st.integers(1, 5000))))


@given(some_split(), st.integers(1, 400), st.integers(0, 2000))
def test_init_times_are_all_and_only_those_that_fit(split, lead, history):
    length = int((split.end - split.start) / HOUR)
    if length - history - lead <= 0:
        with pytest.raises(LeadTimeError, match=f"lead time of {lead} h"):
            init_times(split, lead, history)
        return
    times = init_times(split, lead, history)
    assert len(times) == length - history - lead
    assert (np.diff(times) == HOUR).all()
    assert (
        split.contains(times - hours(history)).all() and split.contains(times + hours(lead)).all()
    )
    assert not split.contains(times[:1] - HOUR - hours(history)).any()
    assert not split.contains(times[-1:] + HOUR + hours(lead)).any()


@pytest.mark.parametrize("lead", [0, -1])
def test_a_lead_time_is_at_least_one_hour(lead, splits):
    with pytest.raises(LeadTimeError, match="from 1 h"):
        init_times(splits["test"], lead)


def test_lead_time_beyond_the_split(splits):
    longest = 8760 - HISTORY_H - 1
    assert len(init_times(splits["test"], longest)) == 1
    with pytest.raises(LeadTimeError, match=f"{longest} h"):
        init_times(splits["test"], longest + 1)


def test_splits_are_those_of_the_issue_in_utc(splits):
    # local midnight is 16:00 UTC of the day before
    borders = ["2013-02-28T16", "2015-02-28T16", "2016-02-29T16", "2017-02-28T16"]
    found = [(s.start, s.end) for s in splits.values()]
    assert list(splits) == ["train", "validation", "test"]
    assert found == [tuple(np.array(borders[i : i + 2], "datetime64[h]")) for i in range(3)]


def test_every_hour_of_the_data_is_in_one_split(splits, stations):
    times = stations.time.values.astype("datetime64[h]")
    assert (sum(s.contains(times).astype(int) for s in splits.values()) == 1).all()


def test_embargo_is_history_plus_longest_lead(splits):
    times = {name: init_times(split, max(LEAD_TIMES_H)) for name, split in splits.items()}
    for early, late in (("train", "validation"), ("validation", "test")):
        gap = int((times[late][0] - times[early][-1]) / HOUR)
        assert gap == HISTORY_H + max(LEAD_TIMES_H) + 1
        last_valid = times[early][-1] + hours(max(LEAD_TIMES_H))
        assert last_valid < splits[late].start <= times[late][0] - hours(HISTORY_H)


@pytest.mark.parametrize("offset", [7.0, 5.5])
def test_splits_move_with_the_source_clock(manifest, splits, offset):
    moved = splits_of(manifest.model_copy(update={"source_utc_offset_h": offset}))
    later = np.timedelta64(round((8 - offset) * 60), "m")
    for name, split in moved.items():
        assert split.start == (splits[name].start + later).astype("datetime64[h]")


@pytest.mark.parametrize("outside", [-1, 100])
def test_one_hour_outside_is_refused(outside):
    start = np.datetime64("2014-01-01T00", "h")
    split = Split("train", start, start + hours(100))
    inside = start + np.arange(100)
    check_no_crossing("a mean", inside, split)
    check_no_crossing("nothing", inside[:0], split)
    with pytest.raises(SplitError, match="a mean crosses a border") as caught:
        check_no_crossing("a mean", np.append(inside, start + hours(outside)), split)
    assert "1 hours outside" in str(caught.value) and "split train" in str(caught.value)


# ---- every fit function refuses hours of another split

START = np.datetime64("2014-01-01T00", "h")
TRAIN = Split("train", START, START + hours(2400))


def climatology(times):
    return fit_climatology(times, np.random.default_rng(0).random(len(times)), TRAIN, 8)


def analysis(times):
    values = np.random.default_rng(0).random((len(times), 5))
    place = np.linspace(0, 0.4, 5)
    return fit_analysis("so2", times, values, 40 + place, 116 + place, 0 * place, TRAIN, 8)


def normaliser(times):
    clim = HarmonicClimatology(np.zeros((49, len(DYNAMIC), 2, 2)), 8)
    inputs = np.random.default_rng(0).random((len(times), len(DYNAMIC), 2, 2))
    return fit_normaliser(times, inputs, np.arange(16.0).reshape(4, 2, 2), clim, TRAIN)


def statistical(times):
    everything = np.arange(START - hours(3000), START + hours(9000))
    values = np.random.default_rng(0).random((len(everything), 2))
    history = History.build(everything, values, HarmonicClimatology(np.zeros((49, 2)), 8))
    return fit_statistical(history, times, np.ones((len(times), 1, 2)), (12,), TRAIN)


@pytest.mark.parametrize("fit", [climatology, analysis, normaliser])
def test_fit_functions_refuse_the_next_split(fit):
    inside = np.arange(TRAIN.start, TRAIN.end)
    fit(inside)
    with pytest.raises(SplitError):
        fit(np.append(inside, TRAIN.end))
    with pytest.raises(SplitError):
        fit(np.append(TRAIN.start - HOUR, inside))


def test_damping_factors_refuse_valid_times_and_histories_outside():
    allowed = init_times(TRAIN, 12)
    statistical(allowed)
    with pytest.raises(SplitError, match="damping"):  # a valid time in the next split
        statistical(np.append(allowed, allowed[-1] + HOUR))
    with pytest.raises(SplitError, match="damping"):  # a history that starts before
        statistical(np.append(allowed[0] - HOUR, allowed))
