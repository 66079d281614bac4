"""Batches: the hours they name, the same for any number of workers, zero where unknown."""

from __future__ import annotations

import random
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_years import make_year
from torch.utils.data import DataLoader

from aqnet.data import transfer
from aqnet.data.batches import (
    WEATHER,
    DeviceNormaliser,
    FieldSamples,
    field_loader,
    sample_index,
    unpack,
    whole_batch,
)
from aqnet.data.normalisation import Normaliser, reference_constants, target_channels
from aqnet.data.order import EvaluationSampler, GlobalOrderSampler
from aqnet.data.splits import Split
from aqnet.data.transfer import FREE, PooledSamples, SlotPool
from aqnet.data.years.format import SHARD_HOURS
from aqnet.data.years.reader import YearStore, open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import DataError, LeadTimeError, SampleError, StoreError
from aqnet.variables import DYNAMIC, STATIC, TARGETS

H = np.timedelta64(1, "h")
LEADS = (3, 6, 24)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Last 4 days of 2013 with two missing hours, first 4 of 2014, and 4 days of March 2014."""
    folder = tmp_path_factory.mktemp("years")
    rest = tmp_path_factory.mktemp("rest")
    return [
        make_year(folder, 2013, 4, start_label="2013-12-28T00", missing={30: "test", 70: "test"}),
        make_year(folder, 2014, 4),
        make_year(rest, 2014, 4, start_label="2014-03-01T00"),
    ]


@pytest.fixture
def years(paths) -> YearSet:
    return YearSet([open_year(path) for path in paths])


def all_of(years: YearSet) -> Split:
    return Split("all", years.times[0], years.times[-1] + H)


def at_time(years: YearSet, time) -> np.ndarray:
    return years.read(np.flatnonzero(years.times == time))[0]


# ---- the index


@settings(max_examples=25, deadline=None)
@given(
    leads=st.lists(st.integers(1, 72), min_size=1, max_size=3, unique=True).map(sorted),
    back=st.lists(st.integers(1, 24), max_size=2, unique=True).map(sorted),
    one_lead=st.booleans(),
    first=st.integers(0, 60),
    length=st.integers(100, 200),
)
def test_the_index_holds_exactly_the_samples_whose_hours_are_there(
    paths, leads, back, one_lead, first, length
):
    years = YearSet([open_year(path) for path in paths])
    start = years.times[0] + first * H
    split, history = Split("part", start, start + length * H), [0, *back]
    index = sample_index(years, split, leads, history, one_lead)
    good = set(years.times[years.valid.all(axis=1)].tolist())
    wanted = []
    for time in np.arange(split.start, split.end):
        if time - history[-1] * H < split.start or time + leads[-1] * H >= split.end:
            continue
        if not all((time - h * H).item() in good for h in history):
            continue
        there = [lead for lead in leads if (time + lead * H).item() in good]
        if one_lead:
            wanted += [(time, (lead,)) for lead in there]
        elif there == leads:
            wanted.append((time, tuple(leads)))
    found = list(zip(index.times, map(tuple, index.leads_h.tolist()), strict=True))
    assert found == wanted
    if len(wanted):
        times, hours = index.times[:, None], index.leads_h.astype("timedelta64[h]")
        np.testing.assert_array_equal(years.times[index.inputs], times - np.array(history) * H)
        np.testing.assert_array_equal(years.times[index.targets], times + hours)


def test_reading_draws_no_random_number(years):
    """Workers live on over epochs with the seed of the first."""
    samples = FieldSamples(years, all_of(years), LEADS, (0, 5))
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    samples.__getitems__([0, 3])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_new_year_is_no_border_and_a_gap_is(years):
    samples = FieldSamples(years, all_of(years), (24,))
    around = np.arange("2013-12-31T00", "2013-12-31T16", dtype="datetime64[h]")
    missing = years.times[[30, 70]]
    wanted = around[~np.isin(around, missing) & ~np.isin(around + 24 * H, missing)]
    assert np.isin(wanted, samples.index.times).all() and len(wanted) > 10
    assert not np.isin(years.times[4 * 24 * 2 - 24 : 4 * 24 * 2], samples.index.times).any()


def test_an_hour_without_one_variable_is_no_input_and_without_a_pollutant_no_target(years):
    row = 40
    for name, as_target in (("temp", True), ("so2", False)):
        store = years.stores[1]
        store.valid[:] = True
        years.valid[:] = np.concatenate([s.valid for s in years.stores])
        years.valid[96 + row, DYNAMIC.index(name)] = False
        index = sample_index(years, all_of(years), (6,))
        assert years.times[96 + row] not in index.times
        assert (years.times[96 + row] - 6 * H in index.times) == as_target


@pytest.mark.parametrize("leads", [(), (0,), (24, 12), (12, 12), (-3,), (12.5,), (121,), (True,)])
def test_bad_lead_times_are_refused(years, leads):
    with pytest.raises(LeadTimeError, match="whole hours from 1 to 120"):
        FieldSamples(years, all_of(years), leads)


@pytest.mark.parametrize("history", [(), (6,), (0, -6), (0, 12, 6), (0, 1.5)])
def test_bad_history_is_refused(years, history):
    with pytest.raises(SampleError, match="bad history"):
        FieldSamples(years, all_of(years), LEADS, history)


def test_what_the_period_cannot_serve_is_refused(years):
    split = Split("short", years.times[0], years.times[0] + 48 * H)
    with pytest.raises(LeadTimeError, match="cannot serve a lead time of 48 h"):
        FieldSamples(years, split, (12, 48))
    with pytest.raises(SampleError, match="longer than the split short"):
        FieldSamples(years, split, (12,), (0, 48))
    elsewhere = Split("far", years.times[0] - 9000 * H, years.times[0] - 8000 * H)
    with pytest.raises(SampleError, match="far has no sample"):
        FieldSamples(years, elsewhere, (12,))


# ---- what a batch holds


def test_a_batch_holds_the_hours_it_names(years):
    samples = FieldSamples(years, all_of(years), LEADS, (0, 5))
    numbers = [0, 33, len(samples) - 1, 33]
    batch = samples.__getitems__(numbers)
    cells = np.flatnonzero(years.mask)
    for b, number in enumerate(numbers):
        time = batch["hours"][b].numpy().astype("datetime64[h]")
        assert time == samples.index.times[number]
        for k, back in enumerate((0, 5)):
            hour = at_time(years, time - back * H).reshape(len(DYNAMIC), -1)
            assert batch["inputs"][b, k].numpy().tobytes() == hour[:, cells].tobytes()
        assert batch["leads_h"][b].tolist() == list(LEADS)
        for k, lead in enumerate(LEADS):
            hour = at_time(years, time + lead * H).reshape(len(DYNAMIC), -1)
            wanted = hour[target_channels()][:, cells]
            assert batch["targets"][b, k].numpy().tobytes() == wanted.tobytes()


def test_one_lead_samples_are_the_rows_of_all_leads(years):
    whole = FieldSamples(years, all_of(years), LEADS)
    single = FieldSamples(years, all_of(years), LEADS, one_lead=True)
    assert len(single) > 3 * len(whole)  # a bad hour takes out one lead only
    at = int(np.flatnonzero(single.index.times == whole.index.times[7])[0])
    batch, wanted = single.__getitems__([at, at + 1, at + 2]), whole[7]
    assert batch["leads_h"].ravel().tolist() == list(LEADS)
    assert torch.equal(batch["targets"][:, 0], wanted["targets"])
    assert torch.equal(batch["inputs"][2], wanted["inputs"])


def test_unknown_values_stay_unknown(paths, tmp_path, monkeypatch):
    years = YearSet([open_year(paths[1])])
    real = YearStore.read

    def with_hole(self, rows):
        hour = real(self, rows).copy()
        hour[:, DYNAMIC.index("o3"), 16] = np.nan
        return hour

    monkeypatch.setattr(YearStore, "read", with_hole)
    samples = FieldSamples(years, all_of(years), (3,))
    batch = samples.__getitems__([1, 2])
    grid = unpack(batch["targets"], years.mask)
    inside = torch.from_numpy(years.mask[16])
    assert torch.isnan(grid[..., TARGETS.index("o3"), 16, :]).all()
    assert torch.isfinite(grid[..., TARGETS.index("pm25"), 16, :][..., inside]).all()
    ready = DeviceNormaliser(reference_constants(), years.static, years.mask)(batch)
    assert torch.isfinite(ready["inputs"]).all() and torch.isfinite(ready["targets"]).all()
    assert (ready["targets"][..., TARGETS.index("o3"), 16, :] == 0).all()
    assert (ready["weights"][..., TARGETS.index("o3"), 16, :] == 0).all()
    assert (ready["inputs"][:, DYNAMIC.index("o3"), 16] == 0).all()
    assert (ready["inputs"][:, -1, 16] == 0).all()
    assert (ready["inputs"][:, DYNAMIC.index("temp"), 16][:, inside] != 0).all()


def test_each_hour_is_read_once_a_batch(years, monkeypatch):
    samples = FieldSamples(years, all_of(years), LEADS, (0, 3), future_weather=years)
    read, real = [], YearStore.read
    monkeypatch.setattr(
        YearStore,
        "read",
        lambda self, rows: read.append((self.year, rows.start)) or real(self, rows),
    )
    samples.__getitems__([10, 13, 16, 10])
    wanted = samples.index.inputs[[10, 13, 16]], samples.index.targets[[10, 13, 16]]
    assert (
        len(read) == len(set(read)) == len(np.unique(np.concatenate([w.ravel() for w in wanted])))
    )


# ---- weather of the future


def test_weather_at_the_valid_time_and_its_stamp(years, paths, tmp_path):
    other = YearSet([open_year(make_year(tmp_path, 2014, 4, seed=9, title="another model"))])
    forecast = YearSet([open_year(make_year(
        tmp_path / "f", 2014, 4, seed=9, title="a forecast",
        recipe={"command": "test", "settings": {"weather_kind": "forecast"}}))])  # fmt: skip
    here = YearSet([open_year(paths[1])])
    for weather, stamp in ((here, "perfect weather: made-up fields"),
                           (other, "perfect weather: another model"),
                           (forecast, "forecast weather: a forecast")):  # fmt: skip
        samples = FieldSamples(here, all_of(here), LEADS, future_weather=weather)
        batch = samples.__getitems__([4, 8])
        assert batch["provenance"] == samples.provenance == samples[4]["provenance"] == stamp
        time = samples.index.times[8] + LEADS[1] * H
        wanted = at_time(weather, time)[: len(WEATHER), years.mask]
        np.testing.assert_array_equal(batch["weather"][1, 1].numpy(), wanted)
        np.testing.assert_array_equal(
            batch["targets"][1, 1].numpy(), at_time(here, time)[target_channels()][:, years.mask]
        )
    without = FieldSamples(here, all_of(here), LEADS)
    assert without.provenance == "none" and "weather" not in without[0]
    assert without.digest != samples.digest != FieldSamples(here, all_of(here), (3,)).digest


def test_weather_of_another_grid_is_refused(years, tmp_path):
    other = YearSet([open_year(make_year(tmp_path, 2014, 4, grid="china_64x128"))])
    with pytest.raises(SampleError, match="the weather does not fit"):
        FieldSamples(years, all_of(years), LEADS, future_weather=other)


def test_hours_without_weather_are_no_samples(years, paths):
    weather = YearSet([open_year(paths[1])])
    samples = FieldSamples(years, all_of(years), (6,), future_weather=weather)
    valid = samples.index.times + 6 * H
    assert np.isin(valid, weather.times).all() and len(samples) > 80


# ---- workers


def same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right) > 1
    for a, b in zip(left, right, strict=True):
        assert list(a) == list(b)
        for name, value in a.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == b[name].dtype and value.shape == b[name].shape
                assert value.numpy().tobytes() == b[name].numpy().tobytes(), name
            else:
                assert value == b[name]


def taken(loader) -> list[dict]:
    """All batches, copied as they come."""
    return [
        {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
        for batch in loader
    ]


@pytest.mark.parametrize(
    "method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)]
)
def test_batches_do_not_depend_on_the_workers(years, method):
    samples = FieldSamples(years, all_of(years), LEADS, (0, 2), future_weather=years)
    assert samples[0]["inputs"].isfinite().all()  # opened here before any fork
    sampler = GlobalOrderSampler(40, 1, batch_size=7, drop_last=False)
    wanted = taken(field_loader(samples, sampler, 7))
    for workers in (1, 2):
        loader = field_loader(samples, sampler, 7, workers, method)
        same(taken(loader), wanted)
        if workers == 2:
            sampler.set_epoch(1)  # workers stay
            epoch = taken(loader)
            assert not torch.equal(epoch[0]["hours"], wanted[0]["hours"])
            same(epoch, taken(field_loader(samples, sampler, 7)))


def test_batches_in_use_are_not_overwritten(years):
    samples = FieldSamples(years, all_of(years), LEADS)
    sampler = EvaluationSampler(40)
    wanted = taken(field_loader(samples, sampler, 4))
    loader = field_loader(samples, sampler, 4, 1, "fork")
    kept = list(loader)  # more than there are slots
    same(kept, wanted)
    one = kept[1]["targets"][2, 0, :3]  # a view keeps its slot
    kept = None
    for _ in range(3):
        assert len(taken(loader)) == len(wanted)
    assert torch.equal(one, wanted[1]["targets"][2, 0, :3])


def test_an_epoch_that_was_left_early_leaves_nothing_behind(years):
    samples = FieldSamples(years, all_of(years), LEADS)
    sampler = EvaluationSampler(40)
    wanted, loader = taken(field_loader(samples, sampler, 4)), field_loader(
        samples, sampler, 4, 2, "fork")  # fmt: skip
    for _ in range(3):
        for number, _batch in enumerate(loader):
            if number == 2:
                break
        same(taken(loader), wanted)
    pool = loader.dataset.pool
    _batch = None
    assert int(pool.state.sum()) == 0


def test_what_a_stopped_loader_left_in_its_slots_is_freed(years):
    samples = FieldSamples(years, all_of(years), LEADS)
    order = list(range(40))
    loader = field_loader(samples, order, 4, 1, "fork")
    kept = next(iter(loader))
    pool = loader.dataset.pool
    before = kept["inputs"].clone()
    while int((pool.state != FREE).sum()) < 3:  # batches fetched ahead
        sleep(0.01)
    loader._iterator = None  # as after an error: workers end, what they sent is never received
    order.reverse()
    again = list(loader)
    assert torch.equal(kept["inputs"], before)
    assert torch.equal(again[-1]["inputs"].flip(0), before)
    kept = again = None
    assert pool.state.tolist() == [FREE] * pool.slots


def test_slots_are_free_again_when_the_last_tensor_is_gone():
    pool = SlotPool(workers=2, slots=2, numbers=6)
    assert [pool.claim(1), pool.claim(1), pool.claim(1)] == [2, 3, None]
    assert pool.claim(0) == 0
    whole = pool.received(3)
    part = whole[2:4].view(2, 1)
    whole = None
    assert pool.claim(1) is None
    part = part.numpy()  # numpy keeps it too
    assert pool.claim(1) is None
    del part
    assert pool.claim(1) == 3


def test_a_batch_that_fails_gives_its_slot_back(monkeypatch):
    class Samples:
        def batch(self, numbers, new):
            new("x", 2)
            raise KeyError(numbers[0])

    monkeypatch.setattr(transfer, "get_worker_info", lambda: SimpleNamespace(id=0))
    pooled = PooledSamples(Samples(), workers=1, slots=1, numbers=2)
    for number in (3, 4):
        with pytest.raises(KeyError, match=str(number)):
            pooled.__getitems__([number])
    assert pooled.pool.state.tolist() == [FREE]


def test_a_plain_loader_works_too(years):
    samples = FieldSamples(years, all_of(years), LEADS)
    sampler = list(range(20))
    loader = DataLoader(samples, 5, sampler=sampler, num_workers=1, collate_fn=whole_batch)
    same(taken(loader), taken(field_loader(samples, sampler, 5)))


def test_a_damaged_chunk_is_named_through_a_worker(tmp_path):
    path = make_year(tmp_path, 2014, 4)
    shard = path / "inputs" / "c.1.0.0.0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0x40
    shard.write_bytes(content)
    years = YearSet([open_year(path)])
    samples = FieldSamples(years, all_of(years), (3,))
    good = [i for i, row in enumerate(samples.index.targets[:, 0]) if row < SHARD_HOURS]
    assert len(taken(field_loader(samples, good, 5, 1, "fork"))) == -(-len(good) // 5)
    for workers in (0, 1):
        with pytest.raises(
            StoreError, match=r"(?s)data_2014.*hour 2014-01-0.*c\.1\.0\.0\.0.*remedy"
        ):
            taken(field_loader(samples, range(len(samples)), 5, workers, "fork"))


# ---- the device


def test_normalised_fields_are_the_formula_on_the_grid(years):
    samples = FieldSamples(years, all_of(years), LEADS, (0, 4), future_weather=years)
    scale = reference_constants()
    module = DeviceNormaliser(scale, years.static, years.mask, samples.history_h)
    batch = samples.__getitems__([0, 20])
    ready, mask = module(batch), torch.from_numpy(years.mask)
    assert module.channels[:11] == DYNAMIC and module.channels[11] == "u_4h_ago"
    assert module.channels[22:] == (*STATIC, "known")
    assert ready["inputs"].shape == (2, len(module.channels), *years.grid.shape)
    for name in ("inputs", "targets", "weights", "weather"):
        assert (ready[name][..., ~mask] == 0).all() and ready[name].dtype == torch.float32
    time = samples.index.times[20]
    for channel, values in (
        ("psfc", at_time(years, time)[4]),
        ("co_4h_ago", at_time(years, time - 4 * H)[DYNAMIC.index("co")]),
    ):
        place = DYNAMIC.index(channel.split("_")[0])
        wanted = (values - scale.mean[place]) / scale.spread[place]
        found = ready["inputs"][1, module.channels.index(channel)].numpy()
        np.testing.assert_allclose(found[years.mask], wanted[years.mask], rtol=1e-4, atol=1e-5)
    wanted = (years.static[2] - scale.static_mean[2]) / scale.static_spread[2]
    np.testing.assert_allclose(ready["inputs"][0, 24].numpy()[years.mask], wanted[years.mask],
                               rtol=1e-5, atol=1e-6)  # fmt: skip
    wanted = (at_time(years, time + LEADS[2] * H)[0] - scale.mean[0]) / scale.spread[0]
    np.testing.assert_allclose(ready["weather"][1, 2, 0].numpy()[years.mask], wanted[years.mask],
                               rtol=1e-5, atol=1e-6)  # fmt: skip
    assert (ready["inputs"][:, -1][:, mask] == 1).all() and (ready["weights"][..., mask] == 1).all()
    assert torch.equal(ready["hours"], batch["hours"]) and ready["provenance"].startswith("perfect")


def test_targets_come_back_in_their_units(years):
    samples = FieldSamples(years, all_of(years), LEADS)
    module = DeviceNormaliser(reference_constants(), years.static, years.mask)
    batch = samples.__getitems__(range(6))
    back = module.physical(module(batch)["targets"])
    wanted = unpack(batch["targets"], years.mask)
    torch.testing.assert_close(back, wanted, rtol=2e-6, atol=1e-4, equal_nan=True)
    assert torch.isnan(back[..., ~torch.from_numpy(years.mask)]).all()


def test_the_module_keeps_its_statistics_and_has_nothing_to_learn(years):
    module = DeviceNormaliser(reference_constants(), years.static, years.mask)
    assert not list(module.parameters())
    other = Normaliser(**{**reference_constants().__dict__, "spread": np.full(11, 7.0)})
    second = DeviceNormaliser(other, years.static, years.mask)
    second.load_state_dict(module.state_dict())
    batch = FieldSamples(years, all_of(years), LEADS).__getitems__([3, 4])
    assert torch.equal(second(batch)["inputs"], module(batch)["inputs"])


def test_a_reference_that_is_not_constant_is_refused(years):
    constants = reference_constants()
    varying = np.broadcast_to(constants.coefficients, (1, 11, *years.grid.shape))
    normaliser = Normaliser(**{**constants.__dict__, "coefficients": varying})
    with pytest.raises(DataError, match="not a constant"):
        DeviceNormaliser(normaliser, years.static, years.mask)
