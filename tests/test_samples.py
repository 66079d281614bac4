"""Samples: nothing of the future goes in, no border is crossed, the calendar follows the sun."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import HOURS, LEADS, START, arrays, load, splits, tiny
from threadpoolctl import threadpool_limits

from aqnet.data.climatology import CALENDAR, calendar_features
from aqnet.data.normalisation import target_channels
from aqnet.data.splits import HISTORY_H, splits_of
from aqnet.data.stations.samples import (
    ForecastSamples,
    batch_arrays,
    load_fields,
    observed_at,
)
from aqnet.errors import DataError, LeadTimeError

H = np.timedelta64(1, "h")
AHEAD = {"target", "weight"}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["train", "validation", "test"]),
       st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True))
def test_no_sample_crosses_a_border(name, leads):
    samples, split = ForecastSamples(tiny()[0], name, sorted(leads)), splits()[name]
    assert samples.times[0] - HISTORY_H * H >= split.start
    assert samples.times[-1] + max(leads) * H < split.end
    # and none that fits is left out
    assert len(samples) == int((split.end - split.start) / H) - HISTORY_H - max(leads)


def altered_after(row: int, valid: bool = True) -> dict[str, np.ndarray]:
    """The store with everything after a row replaced."""
    content, rng = arrays(), np.random.default_rng(1)
    after = slice(row + 1, None)
    for name in ("inputs", "targets", "station_values"):
        shape = content[name][after].shape
        content[name][after] = content[name][after] * rng.uniform(0.5, 2, shape) + 3
    content["inputs_valid"][after] = valid
    content["targets_error_ratio"][after] = 0.9
    return content


@pytest.mark.parametrize("valid", [True, False])
def test_inputs_do_not_see_what_comes_after(valid):
    fields, stations = tiny()
    validation = ForecastSamples(fields, "validation", LEADS)
    rows = validation.rows[[0, 40, 100]]
    other, other_stations = load(altered_after(rows[-1], valid))
    here, there = (batch_arrays(f, rows[-1:], LEADS) for f in (fields, other))
    for name in here:
        if name not in AHEAD:
            assert here[name].tobytes() == there[name].tobytes(), name
    assert not np.array_equal(here["target"], there["target"])
    level, changed = (s.history.mean_anomaly(rows, 24) for s in (stations, other_stations))
    np.testing.assert_array_equal(level, changed)
    assert fields.normaliser.digest == other.normaliser.digest
    # the altered hours do matter to whoever may see them
    later = [batch_arrays(f, rows[-1:] + 1, LEADS)["anomaly"] for f in (fields, other)]
    assert not np.array_equal(*later)


def test_targets_are_the_analysis_at_the_valid_time():
    fields, stations = tiny()
    samples = ForecastSamples(fields, "test", LEADS)
    batch = samples.__getitems__([5, 17])
    for i, sample in enumerate((5, 17)):
        for k, lead in enumerate(LEADS):
            row = int((samples.times[sample] + lead * H - START) / H)
            scored, weight = fields.scored[row], batch["weight"][i, k].numpy()
            np.testing.assert_array_equal(weight, scored.astype(np.float32))
            wanted = np.where(scored, fields.targets[row], 0)
            np.testing.assert_array_equal(batch["target"][i, k].numpy(), wanted)
    seen = observed_at(stations, samples.rows[:3], LEADS)
    assert seen.shape == (3, 3, 6, 6)
    wanted = stations.observed[samples.rows[2] + LEADS[1]]
    np.testing.assert_array_equal(seen[2, 1], wanted)


def test_inputs_are_the_hour_itself_and_trailing_means():
    fields, _ = tiny()
    content, clim = arrays(), fields.history.climatology
    row = int(ForecastSamples(fields, "test", LEADS).rows[30])
    batch = {name: a[0] for name, a in batch_arrays(fields, np.array([row]), LEADS).items()}
    for name, hours in (("anomaly", 1), ("mean_24h", 24), ("mean_30d", 720), ("level", 1440)):
        rows = np.arange(row - hours + 1, row + 1)
        wanted = content["inputs"][rows] - clim(START + rows)
        spread = fields.normaliser.spread[:, None, None]
        np.testing.assert_allclose(batch[name] / spread, wanted.mean(0) / spread, atol=2e-5)
    np.testing.assert_allclose(batch["wind"], content["inputs"][row, :2], atol=1e-5)
    np.testing.assert_allclose(batch["now"], clim(START + np.array([row]), target_channels())[0],
                               rtol=1e-6)
    ahead = clim(START + row + np.array([LEADS[2]]), target_channels())[0]
    np.testing.assert_allclose(batch["future"][2], ahead, rtol=1e-6)
    assert batch["hours"] == (START + row).astype(np.int64)


def test_one_sample_is_a_batch_of_one():
    samples = ForecastSamples(tiny()[0], "test", LEADS)
    one, batch = samples[7], samples.__getitems__([3, 7])
    assert {name: tuple(v.shape) for name, v in one.items()} == {
        name: tuple(v.shape[1:]) for name, v in batch.items()}
    for name in one:
        torch.testing.assert_close(one[name], batch[name][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("leads", [(), (0,), (0, 12), (24, 12), (12, 12), (-12, 12), (12.5,)])
def test_bad_lead_times_are_refused(leads):
    with pytest.raises(LeadTimeError, match="increasing whole hours"):
        ForecastSamples(tiny()[0], "train", leads)


def test_a_lead_time_beyond_the_split_is_refused():
    longest = 75 * 24 - HISTORY_H - 1
    assert len(ForecastSamples(tiny()[0], "validation", (12, longest))) == 1
    with pytest.raises(LeadTimeError, match=f"{longest + 1} h"):
        ForecastSamples(tiny()[0], "validation", (12, longest + 1))


def test_hours_with_unknown_inputs_are_no_init_times():
    content = arrays()
    first = int((splits()["test"].start - START) / H) + HISTORY_H
    gone = slice(first + 10, first + 30)  # 20 h: the mean of 24 h needs six of them
    content["inputs"][gone, 3] = np.nan
    content["inputs_valid"][gone, 3] = False
    fields, _ = load(content)
    rows = ForecastSamples(fields, "test", LEADS).rows
    all_rows = np.arange(first, HOURS - max(LEADS))
    # five hours after the gap the window of 24 h still holds fewer than six known ones
    assert sorted(set(all_rows) - set(rows)) == list(range(first + 10, first + 35))
    batch = batch_arrays(fields, rows, LEADS)
    assert all(np.isfinite(values).all() for values in batch.values())


def test_a_split_without_a_usable_hour_is_refused():
    fields = tiny()[0]
    nothing = replace(fields, inputs_valid=np.zeros_like(fields.inputs_valid))
    with pytest.raises(DataError, match="test has no usable init time"):
        ForecastSamples(nothing, "test", LEADS)


def test_scored_cells_are_known_and_well_analysed():
    fields, content = tiny()[0], arrays()
    wanted = (content["targets_error_ratio"] <= 0.5) & np.isfinite(content["targets"])
    np.testing.assert_array_equal(fields.scored, wanted)
    assert 0 < wanted.mean() < 1


# ---- calendar


def test_calendar_is_in_solar_time():
    noon_utc = np.array(["2015-06-21T12"], "datetime64[h]")
    at_greenwich = calendar_features(noon_utc, 0.0)[0]
    np.testing.assert_allclose(at_greenwich[:4], [0, -1, 0, 1], atol=1e-6)  # noon: half a turn
    at_beijing = calendar_features(noon_utc, 116.4)[0]
    turn = 2 * np.pi * (12 + 116.4 / 15) / 24
    wanted = [f(k * turn) for k in (1, 2) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(at_beijing[:4], wanted, atol=1e-6)
    np.testing.assert_array_equal(at_beijing[4:], at_greenwich[4:])


def test_a_shift_of_the_zone_is_seen():
    times = START + np.arange(48)
    right, shifted = calendar_features(times, 116.4), calendar_features(times + 8, 116.4)
    assert np.abs(right - shifted)[:, :4].max() > 1
    np.testing.assert_allclose(shifted[:, :4], calendar_features(times, 116.4 + 120)[:, :4],
                               atol=1e-5)


def test_calendar_repeats_after_a_day_and_a_year():
    times = START + np.arange(24 * 3)
    features = calendar_features(times, 116.4)
    assert features.shape == (72, len(CALENDAR))
    np.testing.assert_allclose(features[:24, :4], features[24:48, :4], atol=1e-6)
    year = calendar_features(times + 8766, 116.4)  # 365.25 days
    np.testing.assert_allclose(features[:, 4:], year[:, 4:], atol=1e-3)


def test_the_calendar_of_a_batch_is_that_of_the_valid_time():
    fields = tiny()[0]
    samples = ForecastSamples(fields, "test", LEADS)
    batch = samples.__getitems__([3])
    lon = float(fields.lon.mean())
    for k, lead in enumerate(LEADS):
        wanted = calendar_features(samples.times[3:4] + lead * H, lon)[0]
        np.testing.assert_array_equal(batch["calendar"][0, k].numpy(), wanted)


def test_what_is_fitted_does_not_depend_on_the_number_of_threads(store, manifest):
    # Trained with two threads and judged with one, the real data had two normalisers.
    found = set()
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            found.add(load_fields(store, splits_of(manifest)).normaliser.digest)
    assert len(found) == 1
