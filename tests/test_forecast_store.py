"""Forecast stores: written by any number of processes, whatever ends them; refused when wrong."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from forecast_case import (
    GRID,
    LEADS,
    init_times,
    made_up_forecast,
    small_mask,
    small_plan,
    small_store,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.years.format import round_bits
from aqnet.data.years.partial_store import partial_folder
from aqnet.errors import (
    CoverageError,
    FieldError,
    LeadTimeError,
    ParameterError,
    StoreBusyError,
    StoreError,
    TargetExistsError,
)
from aqnet.grid import GRIDS
from aqnet.variables import TARGETS, VARIABLES
from aqnet.verification.forecast_plan import Period, write_forecasts
from aqnet.verification.store.checks import verify_forecast_store
from aqnet.verification.store.format import ForecastSpec
from aqnet.verification.store.netcdf import export_netcdf
from aqnet.verification.store.reader import UnfinishedStoreError, open_forecast_store
from aqnet.verification.store.writer import ForecastWriter

TESTS = Path(__file__).parent


def quiet(line):
    """Progress that nobody reads."""


@pytest.fixture
def store(tmp_path):
    return small_store(tmp_path / "f.zarr")


def files_of(path):
    """Bytes of all files but the one with the time of writing."""
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and f != path / "zarr.json"]
    return {str(f.relative_to(path)): f.read_bytes() for f in files}


# ---- values


def test_values_come_back_rounded_and_masked(store):
    opened, times = open_forecast_store(store), init_times()
    assert (opened.init_times == times).all() and opened.lead_times_h == LEADS
    assert opened.grid.digest == GRID.digest and (opened.mask == small_mask()).all()
    whole = made_up_forecast(times)
    for place, name in enumerate(TARGETS):
        expected = round_bits(whole[:, :, place], 10)
        found = opened.read(slice(None), None, name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[..., opened.mask], expected[..., opened.mask])
        assert np.isnan(found[..., ~opened.mask]).all()
        relative = np.abs(found / whole[:, :, place] - 1)[..., opened.mask]
        assert relative.max() <= 2**-11


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_part_is_a_part_of_the_whole(shared, data):
    opened = shared
    whole = opened.read(slice(None), None, "o3")
    first = data.draw(st.integers(0, 19))
    last = data.draw(st.integers(first + 1, 20))
    leads = data.draw(st.sampled_from([None, 12, 24, (24,), (24, 12), (12, 24)]))
    cells = data.draw(st.booleans())
    at = [0, 1] if leads is None else [LEADS.index(h) for h in np.atleast_1d(leads)]
    expected = whole[first:last][:, at]
    expected = expected[:, 0] if isinstance(leads, int) else expected
    expected = expected[..., opened.mask] if cells else expected
    np.testing.assert_array_equal(opened.read(slice(first, last), leads, "o3", cells=cells),
                                  expected)  # fmt: skip
    np.testing.assert_array_equal(opened.read(first, leads, "o3", cells=cells), expected[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return open_forecast_store(small_store(tmp_path_factory.mktemp("shared") / "f.zarr"))


def test_blocks_cover_the_init_times(shared):
    blocks = shared.blocks()
    rows = np.concatenate([np.arange(20)[block] for block in blocks])
    assert rows.tolist() == list(range(20)) and len(blocks) == 4


def test_a_store_may_be_sent_to_another_process(shared):
    shared.read(0, 12, "co")
    again = copy.deepcopy(shared)  # as pickling does it
    np.testing.assert_array_equal(again.read(3, 12, "co"), shared.read(3, 12, "co"))


def test_large_stores_have_chunks_of_some_megabytes():
    grid = GRIDS["china"]
    mask = np.ones(grid.shape, bool)
    times = np.arange("2013-01-01T00", "2014-01-01T00", dtype="datetime64[h]")
    plan = small_plan()
    few = ForecastSpec(times, (12, 24, 48, 96), grid, mask, plan.provenance)
    many = ForecastSpec(times[::24], tuple(range(1, 121)), grid, mask, plan.provenance)
    assert (few.block, few.chunks) == (32, (32, 1)) and few.blocks == 274
    assert (many.block, many.chunks) == (1, (1, 32))


# ---- conventions


def test_other_tools_read_it_as_cf(store):
    with xr.open_zarr(store, consolidated=False, decode_timedelta=True) as data:
        assert data.attrs["Conventions"].startswith("CF-1.")
        assert all(isinstance(v, str) for v in data.attrs.values())
        pm25 = data["pm25"]
        assert pm25.dims == ("init_time", "lead_time", "lat", "lon")
        assert pm25.attrs["units"] == "ug m-3" and pm25.attrs["grid_mapping"] == "crs"
        assert pm25.attrs["long_name"].endswith(VARIABLES["pm25"].definition)
        comment = "Gases at 273.15 K and 1013.25 hPa. Times are UTC and end their hours."
        assert data.attrs["comment"].startswith(comment)
        assert "valid_time" in pm25.coords and pm25.coords["valid_time"].dims == pm25.dims[:2]
        assert (data["init_time"].values == init_times()).all()
        assert (data["lead_time"].values == np.array(LEADS, "timedelta64[h]")).all()
        expected = init_times()[:, None] + np.array(LEADS, "timedelta64[h]")
        assert (data["valid_time"].values == expected).all()
        names = {n: data[n].attrs["standard_name"] for n in ("init_time", "lead_time")}
        assert names == {"init_time": "forecast_reference_time", "lead_time": "forecast_period"}


def test_netcdf_has_the_same_values_and_names(store, tmp_path):
    file = tmp_path / "f.nc"
    first, last = init_times()[5], init_times()[14]
    export_netcdf(store, file, first, last)
    opened = open_forecast_store(store)
    with xr.open_dataset(file, decode_timedelta=True) as data:
        assert data.sizes == {"init_time": 10, "lead_time": 2, "lat": 8, "lon": 12}
        for name in TARGETS:
            np.testing.assert_array_equal(data[name].values, opened.read(slice(5, 15), None, name))
        assert json.loads(data.attrs["aqnet"])["content_sha256"] == opened.digest
        assert data["o3"].attrs["standard_name"] == "mass_concentration_of_ozone_in_air"
    with pytest.raises(TargetExistsError):
        export_netcdf(store, file)
    with pytest.raises(CoverageError, match="no init time"):
        export_netcdf(store, tmp_path / "g.nc", np.datetime64("2020-01-01T00"))
    assert sorted(p.name for p in tmp_path.glob("*.nc")) == ["f.nc"]


# ---- interruptions and processes


def test_a_writer_that_ends_early_goes_on(tmp_path, store):
    path, calls = tmp_path / "g.zarr", []

    def forecast(times):
        calls.append(times[0])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return made_up_forecast(times)

    with pytest.raises(KeyboardInterrupt):
        small_store(path, forecast=forecast)
    with pytest.raises(UnfinishedStoreError, match="2 finished blocks"):
        open_forecast_store(path)
    with pytest.raises(UnfinishedStoreError):
        open_forecast_store(partial_folder(path) / "store")
    before = len(calls)
    small_store(path, forecast=forecast)
    assert len(calls) - before == 3  # of blocks 2 and 3: 6 and 2 init times in batches of 3
    assert files_of(path) == files_of(store)
    assert open_forecast_store(path).digest == open_forecast_store(store).digest
    assert not partial_folder(path).exists()
    small_store(path, forecast=None)  # finished: nothing is computed


def test_a_block_cut_short_is_written_again(tmp_path, store):
    path = tmp_path / "g.zarr"
    plan = small_plan()
    with ForecastWriter(path, plan.spec(6)) as writer:
        for number in (0, 1):
            rows = writer.spec.rows(number)
            values = made_up_forecast(plan.times[rows])
            writer.write(number, {n: values[:, :, i] for i, n in enumerate(TARGETS)})
    file = partial_folder(path) / "store" / "co" / "c.1.0.0.0"
    file.write_bytes(file.read_bytes()[:-1])
    with ForecastWriter(path, plan.spec(6)) as writer:
        assert writer.pending() == [1, 2, 3]
    small_store(path)
    assert files_of(path) == files_of(store)


def test_processes_share_the_blocks(tmp_path, store):
    """Ranks one after the other in this process: the order does not matter."""
    path, spec = tmp_path / "g.zarr", small_plan().spec(6)
    writers = [ForecastWriter(path, spec, rank, 3) for rank in range(3)]
    for writer in writers:
        writer.__enter__()
    assert [w.pending() for w in writers] == [[0, 3], [1], [2]]
    for writer in reversed(writers):
        for number in writer.pending():
            values = made_up_forecast(spec.init_times[spec.rows(number)])
            writer.write(number, {n: values[:, :, i] for i, n in enumerate(TARGETS)})
    assert [w.finish() for w in reversed(writers)][:2] == [None, None]
    for writer in writers:
        writer.__exit__(None, None, None)
    assert files_of(path) == files_of(store)


def test_rank_0_does_not_wait_for_ever(tmp_path):
    path, plan = tmp_path / "g.zarr", small_plan()
    with pytest.raises(StoreError, match="stopped before their blocks"):
        write_forecasts(plan, path, block=6, rank=0, world=2, patience_s=0.1, echo=quiet)
    with pytest.raises(StoreError, match="rank 0 has not begun"):
        write_forecasts(plan, tmp_path / "h.zarr", rank=1, world=2, patience_s=0.1, echo=quiet)


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from forecast_case import *
def slow(times):
    time.sleep({pause})
    return made_up_forecast(times)
write_forecasts(small_plan(forecast=slow), {path!r}, block=1, rank=int(sys.argv[1]), world=2,
                patience_s=60)
"""


@pytest.mark.slow
def test_two_processes_killed_and_started_again(tmp_path):
    whole = small_store(tmp_path / "whole.zarr", block=1)
    path = tmp_path / "g.zarr"

    def start(pause):
        text = SCRIPT.format(tests=str(TESTS), pause=pause, path=str(path))
        return [subprocess.Popen([sys.executable, "-c", textwrap.dedent(text), str(rank)],
                                 stdout=subprocess.DEVNULL) for rank in (0, 1)]  # fmt: skip

    ranks = start(0.5)
    journal = partial_folder(path) / "journal"
    for _ in range(600):
        if len(list(journal.glob("[0-9]*.json"))) >= 4:
            break
        time.sleep(0.1)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGKILL)
        rank.wait()
    with pytest.raises(UnfinishedStoreError):
        open_forecast_store(path)
    assert [rank.wait(timeout=120) for rank in start(0.0)] == [0, 0]
    assert files_of(path) == files_of(whole)


def test_two_launches_at_once_are_refused(tmp_path):
    path, spec = tmp_path / "g.zarr", small_plan().spec(6)
    with ForecastWriter(path, spec), pytest.raises(StoreBusyError, match="being written"):
        ForecastWriter(path, spec).__enter__()


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"lead_times_h": (12, 36)}, "lead_time"), ({"times": init_times()[1:]}, "init_time"),
     ({"mask": np.ones(GRID.shape, bool)}, "mask")],
)  # fmt: skip
def test_another_forecast_is_not_mixed_in(store, tmp_path, changes, what):
    with pytest.raises(StoreError, match=f"holds something else.*{what}"):
        small_store(store, **changes)
    path, spec = tmp_path / "g.zarr", small_plan().spec(6)
    with ForecastWriter(path, spec) as writer:
        values = made_up_forecast(spec.init_times[:6])
        writer.write(0, {n: values[:, :, i] for i, n in enumerate(TARGETS)})
    with pytest.raises(StoreError, match=f"holds something else.*{what}"):
        small_store(path, **changes)


def test_a_beginning_without_a_block_gives_way(tmp_path, store):
    path = tmp_path / "g.zarr"
    with ForecastWriter(path, small_plan(lead_times_h=(12, 36)).spec(6)):
        pass
    small_store(path)
    assert files_of(path) == files_of(store)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "1 NaN"), (np.inf, "1 inf"), (-2, "1 neg")])
def test_a_forecast_that_is_no_concentration(tmp_path, value, word):
    def forecast(times):
        found = made_up_forecast(times)
        if times[0] == init_times()[0]:
            found[0, 1, 5, 4, 4] = value
        return found

    with pytest.raises(FieldError, match=f"o3 from 2014-01-01T00Z for 24 h(.|\n)*{word}"):
        small_store(tmp_path / "g.zarr", forecast=forecast)


def test_values_outside_the_mask_do_not_matter(tmp_path, store):
    def forecast(times):
        found = made_up_forecast(times)
        found[..., ~small_mask()] = np.nan
        return found

    again = small_store(tmp_path / "g.zarr", forecast=forecast)
    assert open_forecast_store(again).digest == open_forecast_store(store).digest


def test_missing_leads_and_pollutants_have_names(shared, tmp_path):
    with pytest.raises(LeadTimeError, match=r"\[48\] h"):
        shared.read(slice(0, 2), 48, "o3")
    with pytest.raises(CoverageError, match="no forecast of nh3"):
        shared.read(slice(0, 2), 12, "nh3")
    with pytest.raises(CoverageError, match="nothing to forecast"):
        small_store(tmp_path / "g.zarr", times=init_times()[:0])
    for leads in ((), (0, 12), (24, 12), (12.5,)):
        with pytest.raises(LeadTimeError, match="bad lead times"):
            small_store(tmp_path / "g.zarr", lead_times_h=leads)


def test_damage_is_found(store, tmp_path):
    def damaged(name, change):
        copy = tmp_path / f"{name}.zarr"
        shutil.copytree(store, copy)
        change(copy)
        return copy

    def flip(copy):
        file = copy / "so2" / "c.1.0.0.0"
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(bytes(data))

    def edit(copy):
        text = (copy / "zarr.json").read_text()
        (copy / "zarr.json").write_text(text.replace("made-up forecasts", "better forecasts"))

    for name, change in (("flip", flip), ("lost", lambda c: (c / "so2" / "c.1.0.0.0").unlink())):
        copy = damaged(name, change)
        with pytest.raises(StoreError, match="so2 at init times"):
            open_forecast_store(copy).read(slice(6, 12), 12, "so2")
        with pytest.raises(StoreError):
            verify_forecast_store(copy)
    with pytest.raises(StoreError, match="attributes are damaged"):
        open_forecast_store(damaged("edit", edit))
    with pytest.raises(StoreError, match="array lat"):
        open_forecast_store(damaged("lat", lambda c: shutil.rmtree(c / "lat")))
    assert verify_forecast_store(store) == open_forecast_store(store).digest


def test_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="there is no forecast store"):
        open_forecast_store(tmp_path / "nothing.zarr")
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StoreError, match="no forecast store of aqnet"):
        open_forecast_store(tmp_path / "other.zarr")


def test_periods():
    for wrong in ({}, {"split": "test", "first": np.datetime64("2018-01-01T00"),
                       "last": np.datetime64("2018-01-02T00")}, {"split": "test", "every_h": 7},
                  {"first": np.datetime64("2018-01-02T00")}):  # fmt: skip
        with pytest.raises(ParameterError, match="no period"):
            Period(**wrong)
    period = Period(first=np.datetime64("2018-01-01T01"), last=np.datetime64("2018-01-02T00"),
                    every_h=6)  # fmt: skip
    found = period.times({}, 24, 0).astype(str).tolist()
    assert found == [f"2018-01-{d}" for d in ("01T06", "01T12", "01T18", "02T00")]
