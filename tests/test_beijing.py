"""The pipeline from station file to store, on the real measurements: what may influence what."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_structure import ROOT

import aqnet.data.stations.beijing as pipeline
from aqnet.data.climatology import fit_climatology
from aqnet.data.history import History
from aqnet.data.splits import splits_of
from aqnet.data.stations.analysis import MAX_CARRY_H, MIN_FIT_HOURS, MIN_STATIONS
from aqnet.data.stations.beijing import analyse_network, fit_network, networks_of
from aqnet.data.stations.measurements import read_stations
from aqnet.data.store import open_store, verify_store
from aqnet.variables import DYNAMIC, TARGETS

TRAIN_H = 17520
HOURS = TRAIN_H + 2200  # of the data used here: all of training and three months more
CUTS = (TRAIN_H, TRAIN_H + 911, TRAIN_H + 2000)  # last hours of unaltered data
CALLED = ("so2", "pm25", "temp", "u")  # a subset where all eleven would take too long


def alter(stations, last: int, nonsense: str):
    """A copy of the stations in which everything after row `last` is something else."""
    rng = np.random.default_rng(last)
    changed = stations.copy(deep=True)
    for name in DYNAMIC:
        values = changed[name].values
        later = values[last + 1 :]
        if nonsense == "numbers":
            later[:] = rng.uniform(0, 900, later.shape)
        if nonsense != "numbers":
            later[rng.random(later.shape) < (1.0 if nonsense == "nothing" else 0.4)] = np.nan
    return changed


def inputs_of(stations, static, manifest, names=DYNAMIC):
    """Fit, then analyse as inputs: {name: (oi, field, ratio, age)}."""
    found = {}
    networks = networks_of(stations, static)
    for name in names:
        oi = fit_network(networks[name], manifest)
        found[name] = oi, *analyse_network(oi, networks[name], static, carry=True)
    return found


def fitted_numbers(oi):
    c = oi.covariance
    return np.concatenate(
        [oi.background.coefficients, oi.offset, [c.common, c.local, c.length_km, c.nugget]]
    )


def assert_same_up_to(last, before, after):
    """Fitted numbers, fields, errors and ages at and before row `last` are the same bits."""
    for name, (oi, *arrays) in after.items():
        np.testing.assert_array_equal(fitted_numbers(oi), fitted_numbers(before[name][0]), name)
        for array, reference in zip(arrays, before[name][1:], strict=True):
            np.testing.assert_array_equal(array[: last + 1], reference[: last + 1], name)


@pytest.fixture(scope="module")
def window(stations):
    return stations.isel(time=slice(0, HOURS))


@pytest.fixture(scope="module")
def inputs(window, static, manifest):
    return inputs_of(window, static, manifest)


# ---- no look-ahead


def test_inputs_up_to_t_do_not_change_with_any_data_after_t(window, static, manifest, inputs):
    altered = inputs_of(alter(window, CUTS[1], "numbers"), static, manifest)
    assert_same_up_to(CUTS[1], inputs, altered)
    for name in DYNAMIC:  # and the nonsense did arrive after t
        assert not np.array_equal(altered[name][1][CUTS[1] + 1 :], inputs[name][1][CUTS[1] + 1 :])


@pytest.mark.parametrize("nonsense", ["numbers", "gaps", "nothing"])
@pytest.mark.parametrize("last", [CUTS[0], CUTS[2]])
def test_inputs_at_other_hours_and_with_gaps(window, static, manifest, inputs, last, nonsense):
    altered = inputs_of(alter(window, last, nonsense), static, manifest, CALLED)
    assert_same_up_to(last, inputs, altered)


def test_trailing_means_up_to_t_do_not_change(window, static, manifest, inputs):
    last = CUTS[1]
    altered = inputs_of(alter(window, last, "numbers"), static, manifest, CALLED)

    def history(found):
        values = np.stack([found[name][1][:, ::5, ::5] for name in CALLED], axis=1)
        times = window.time.values.astype("datetime64[h]")
        train = splits_of(manifest)["train"]
        rows = train.contains(times)
        return History.build(times, values, fit_climatology(times[rows], values[rows], train, 8))

    before, after = history(inputs), history(altered)
    np.testing.assert_array_equal(before.climatology.coefficients, after.climatology.coefficients)
    np.testing.assert_array_equal(before.anomalies[: last + 1], after.anomalies[: last + 1])
    for hours in (1, 24, 720, 1440):
        rows = np.arange(last - 50, last + 1)
        np.testing.assert_array_equal(
            before.mean_anomaly(rows, hours), after.mean_anomaly(rows, hours)
        )
        assert (
            before.mean_anomaly([last + 1], hours) != after.mean_anomaly([last + 1], hours)
        ).any()


def test_the_check_would_see_a_look_ahead(window, static, manifest, inputs, monkeypatch):
    """With a carry_forward that fills from the next hour, the comparison above fails."""

    def from_the_future(values, longest):
        filled, age = values.copy(), np.where(np.isfinite(values), 0, -1).astype(np.int8)
        empty = ~np.isfinite(filled[:-1])
        filled[:-1][empty] = values[1:][empty]
        return filled, age

    monkeypatch.setattr(pipeline, "carry_forward", from_the_future)
    last = next(
        t
        for t in range(CUTS[1], HOURS)  # an hour with a gap to be filled from t + 1
        if np.isnan(window.so2.values[t]).any()
    )
    honest = inputs_of(window, static, manifest, ["so2"])
    with pytest.raises(AssertionError):
        altered = inputs_of(alter(window, last, "numbers"), static, manifest, ["so2"])
        assert_same_up_to(last, honest, altered)


def test_statistics_do_not_change_with_validation_and_test_years(stations, static, manifest):
    """On all four years: everything after the training split is replaced."""
    changed = alter(stations, TRAIN_H - 1, "numbers")
    before, after = networks_of(stations, static), networks_of(changed, static)
    for name in DYNAMIC:
        np.testing.assert_array_equal(
            fitted_numbers(fit_network(before[name], manifest)),
            fitted_numbers(fit_network(after[name], manifest)),
            name,
        )


# ---- carried values, targets, invalid hours


def test_a_silent_station_is_carried_three_hours_then_left_out(window, static, manifest):
    network = networks_of(window, static)["no2"]
    oi = fit_network(network, manifest)
    hour, station = 18000, 4
    full = np.isfinite(network.values[hour - 1 : hour + 6]).all()
    assert full, "choose an hour at which all stations report"
    silent = network.values.copy()
    silent[hour : hour + 5, station] = np.nan

    def analysed(values, carry):
        part = slice(hour - 1, hour + 6)
        cut = replace(
            network, times=network.times[part], values=values[part], counted=network.counted[part]
        )
        return analyse_network(oi, cut, static, carry=carry)

    field, ratio, age = analysed(silent, carry=True)
    np.testing.assert_array_equal(age[:, station], [0, 1, 2, 3, -1, -1, 0])
    held = network.values.copy()
    held[hour : hour + MAX_CARRY_H, station] = network.values[hour - 1, station]
    expected, full_ratio, _ = analysed(held, carry=False)
    np.testing.assert_array_equal(field[:4], expected[:4])
    np.testing.assert_array_equal(ratio[:4], full_ratio[:4])
    assert (ratio[4:6] > full_ratio[4:6]).any() and (ratio[4:6] >= full_ratio[4:6] - 1e-6).all()
    np.testing.assert_array_equal(field[6], expected[6])


def test_targets_come_from_observed_hours_only(window, static, manifest):
    network = networks_of(window, static)["co"]
    oi = fit_network(network, manifest)
    part = slice(TRAIN_H, None)
    cut = replace(
        network,
        times=network.times[part],
        values=network.values[part].copy(),
        counted=network.counted[part],
    )
    cut.values[100:102] = np.nan  # a network-wide outage of two hours
    target, ratio, age = analyse_network(oi, cut, static, carry=False)
    inputs, _, carried = analyse_network(oi, cut, static, carry=True)
    assert np.isnan(target[100:102]).all() and (ratio[100:102] == 1).all()
    assert np.isfinite(inputs[100:102]).all() and (carried[101] == 2).any()
    assert set(np.unique(age)) <= {-1, 0}
    np.testing.assert_array_equal(age == 0, np.isfinite(cut.values))
    counts = np.isfinite(cut.values).sum(axis=1)
    np.testing.assert_array_equal(np.isfinite(target).all(axis=(1, 2)), counts >= 3)


def test_withheld_stations_influence_nothing(stations, static, manifest):
    """Their data are replaced: every series that enters an analysis is the same, bit for bit.

    What remains of them is weather that they share with a station in use, which is the same series.
    """
    changed = stations.copy(deep=True)
    rng = np.random.default_rng(0)
    withheld = np.flatnonzero(stations.withheld.values)
    assert stations.station.values[withheld].tolist() == ["Dingling", "Guanyuan"]
    for name, station in itertools.product(DYNAMIC, withheld):
        changed[name].values[:, station] = rng.uniform(0, 900, stations.sizes["time"])
    before, after = networks_of(stations, static), networks_of(changed, static)
    for name in DYNAMIC:
        for field in ("values", "lat", "lon", "elevation_m"):
            np.testing.assert_array_equal(
                getattr(before[name], field), getattr(after[name], field), name
            )
        if name in TARGETS:
            assert before[name].values.shape[1] == 10


def test_shared_weather_counts_once(stations, static):
    """In no hour are there two columns of a network with the same weather."""
    networks = networks_of(stations, static)
    temp, psfc = networks["temp"].values, networks["psfc"].values
    wind = np.hypot(networks["u"].values, networks["v"].values)
    assert temp.shape[1] < 12
    for a, b in itertools.combinations(range(temp.shape[1]), 2):
        same = (np.abs(temp[:, a] - temp[:, b]) < 1e-3) & (np.abs(psfc[:, a] - psfc[:, b]) < 0.1)
        same &= np.abs(wind[:, a] - wind[:, b]) < 1e-3
        assert np.mean(same) < 0.001, (a, b)


def test_shared_weather_is_not_counted_again_by_carrying(stations, static, manifest):
    """A value left out because another site reports it must not come back as a carried one."""
    network = networks_of(stations, static)["temp"]
    oi = fit_network(network, manifest)
    ends = np.flatnonzero(network.counted[0] & ~network.counted[-1])
    ended = int(np.flatnonzero(network.counted[:, ends[0]])[-1])
    part = slice(ended - 50, ended + 50)
    cut = replace(
        network,
        times=network.times[part],
        values=network.values[part],
        counted=network.counted[part],
    )
    _, _, age = analyse_network(oi, cut, static, carry=True)
    assert np.isfinite(cut.values[:50, ends[0]]).any()
    assert (age[~cut.counted] == -1).all() and (age[51:, ends[0]] == -1).all()
    assert network.counted.sum(axis=1).min() >= 4  # four sites share with nobody


def test_sites_with_one_night_of_training_are_not_fitted_on_it(stations, static, manifest):
    """Two weather sites begin two hours before the training split ends."""
    networks = networks_of(stations, static)
    train = splits_of(manifest)["train"].contains(networks["temp"].times)
    hours = np.isfinite(networks["temp"].values[train]).sum(axis=0)
    late = hours < MIN_FIT_HOURS
    assert 0 < late.sum() < len(late) - MIN_STATIONS and hours[late].max() <= 2
    for name in ("temp", "psfc"):
        oi = fit_network(networks[name], manifest)
        np.testing.assert_array_equal(np.isnan(oi.offset), late)
    without = {
        name: replace(networks[name], values=np.where(late, np.nan, networks[name].values))
        for name in ("u", "rh")
    }
    for name, network in without.items():
        a, b = fit_network(networks[name], manifest), fit_network(network, manifest)
        assert a.covariance.length_km == pytest.approx(b.covariance.length_km, rel=0.05)


def test_an_added_copy_of_a_weather_series_changes_nothing(stations, static):
    """A station that reports a neighbour's weather adds no weight to it."""
    kept = stations.copy(deep=True)
    names = kept.station.values.tolist()
    members = [names.index(n) for n in ("Dongsi", "Nongzhanguan")]  # share in both epochs
    for name in ("u", "v", "temp", "rh", "psfc"):
        kept[name].values[:, members[1]] = np.nan  # one of the copies falls silent
    before, after = networks_of(stations, static)["temp"], networks_of(kept, static)["temp"]
    assert before.values.shape == after.values.shape
    both = np.isfinite(before.values) & np.isfinite(after.values)
    assert both.sum() > 0.99 * np.isfinite(before.values).sum()
    # the publisher's interpolation differs in the seventh digit between copies
    assert np.mean(np.abs(before.values - after.values)[both] < 2e-3) > 0.995


def test_source_clock_shifts_the_stamps_and_the_climatology(window, static, manifest):
    moved = manifest.model_copy(update={"source_utc_offset_h": 7.0})
    other = read_stations(moved).isel(time=slice(0, HOURS))
    later = (other.time.values - window.time.values).astype("timedelta64[h]").astype(int)
    assert (later == 1).all()
    here = fit_network(networks_of(window, static)["o3"], manifest)
    there = fit_network(networks_of(other, static)["o3"], moved)
    july = np.arange("2014-07-10T00", "2014-07-11T00", dtype="datetime64[h]")
    assert there.background(july).argmax() == here.background(july).argmax() + 1
    # by the local clock nothing moved
    hour = np.timedelta64(1, "h")
    np.testing.assert_allclose(there.background(july + hour), here.background(july), atol=0.05)


# ---- the built store


def test_store_holds_what_the_pipeline_gives(store, window, inputs, static, manifest):
    rows = slice(TRAIN_H, TRAIN_H + 200)
    fields, ratio = store.read("inputs", rows), store.read("inputs_error_ratio", rows)
    for v, name in enumerate(DYNAMIC):
        # The fits round differently with another number of threads: not bit for bit.
        np.testing.assert_allclose(fields[:, v], inputs[name][1][rows], 1e-4, 1e-3, err_msg=name)
        np.testing.assert_allclose(ratio[:, v], inputs[name][2][rows], 1e-3, 1e-4, err_msg=name)
    np.testing.assert_array_equal(store.times[rows], window.time.values[rows])
    network = networks_of(window, static)["pm10"]
    target, _, _ = analyse_network(fit_network(network, manifest), network, static, carry=False)
    np.testing.assert_allclose(
        store.read("targets", rows)[:, TARGETS.index("pm10")], target[rows], 1e-4, 1e-3
    )
    np.testing.assert_array_equal(
        store.read("station_values", rows)[..., TARGETS.index("co")], window.co.values[rows]
    )


def test_store_is_complete_and_plausible(store, stations):
    assert store["inputs"].shape == (35064, 11, 16, 16) and store["inputs"].chunks[0] == 1
    assert store["inputs"].shards[0] > 1 and store["inputs"].metadata.zarr_format == 3
    valid = store.read("inputs_valid")
    assert valid.mean() > 0.99
    age = store.read("station_input_age_h")
    assert set(np.unique(age)) == {-1, 0, 1, 2, 3}
    np.testing.assert_array_equal(
        age[..., DYNAMIC.index("o3")] == 0, np.isfinite(stations.o3.values)
    )
    targets = store.read("targets")
    assert np.nanmin(targets) >= 0 and np.isnan(targets).mean() < 0.02
    np.testing.assert_array_equal(store.withheld, stations.withheld.values)


# ---- a build that does not finish leaves nothing

BUILD = """
import sys
from pathlib import Path
import aqnet.data.stations.beijing as pipeline
from aqnet.data.manifest import load_manifest

whole = pipeline.read_stations
pipeline.read_stations = lambda manifest: whole(manifest).isel(time=slice(0, 2500))
def say(step, share):
    print(step, flush=True)
    if step == "writing inputs" and "wait" in sys.argv:
        sys.stdin.readline()
pipeline.build_store(load_manifest(sys.argv[1]), Path(sys.argv[2]), progress=say)
"""


def start_build(manifest_path: Path, out: Path, *options, limit=None):
    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "AQNET_ROOT": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(manifest_path), str(out), *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, preexec_fn=prepare,
    )  # fmt: skip


def test_killed_interrupted_and_full_disk_leave_no_store_and_rerunning_works(tmp_path):
    described = ROOT / "data_manifests" / "beijing.yaml"
    out = tmp_path / "beijing.zarr"
    for how in (signal.SIGKILL, signal.SIGINT):
        build = start_build(described, out, "wait")
        while "writing inputs" not in (line := build.stdout.readline()):
            assert line, build.stderr.read()
        assert len(list(tmp_path.iterdir())) == 1 and not out.exists()
        build.send_signal(how)
        _, problem = build.communicate(timeout=30)
        assert build.returncode != 0 and not out.exists()
        if how == signal.SIGINT:  # a kill cannot clean up; the next build does
            assert "KeyboardInterrupt" in problem
            assert list(tmp_path.iterdir()) == []
    full = start_build(described, out, limit=2_000_000)  # a shard of inputs is 8 MB
    _, problem = full.communicate(timeout=60)
    assert full.returncode != 0 and "StorageFullError" in problem and "file size limit" in problem
    assert list(tmp_path.iterdir()) == []
    again = start_build(described, out)
    assert again.communicate(timeout=60) and again.returncode == 0
    assert verify_store(out) == open_store(out).digest
    assert [p.name for p in tmp_path.iterdir()] == ["beijing.zarr"]
    refused = start_build(described, out)
    _, problem = refused.communicate(timeout=60)
    assert refused.returncode != 0 and "TargetExistsError" in problem
    assert verify_store(out)
