"""Stations in SI units and UTC: derivations, flags, shared weather, time zone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aqnet.data.stations.measurements import distinct_weather_series, read_stations, weather_sites
from aqnet.data.stations.packing import published_values, read_packed
from aqnet.errors import DataError
from aqnet.grid import local_solar_hour
from aqnet.variables import DYNAMIC, SECTORS, VARIABLES


@pytest.fixture(scope="module")
def packed(manifest):
    return read_packed(manifest)


@pytest.fixture(scope="module")
def stations(manifest):
    return read_stations(manifest)


@pytest.fixture(scope="module")
def sites(stations):
    return weather_sites(stations)


def epochs(manifest, stations):
    """Periods of constant weather sharing, with the groups that the manifest lists."""
    starts = [manifest.to_utc(np.datetime64(e.start)) for e in manifest.weather_sharing]
    ends = [*starts[1:], np.datetime64("2100-01-01")]
    time = stations.time.values
    for start, end, epoch in zip(starts, ends, manifest.weather_sharing, strict=True):
        yield stations.isel(time=(time >= start) & (time < end)), epoch


def test_layout(stations):
    assert dict(stations.sizes) == {"time": 35064, "station": 12}
    for name in DYNAMIC:
        assert stations[name].dims == ("time", "station") and stations[name].dtype == np.float32
        assert stations[name].attrs["units"] == VARIABLES[name].unit
    for flag in ("calm", "capped_pm25", "capped_pm10", "pm25_exceeds_pm10", "weather_suspect"):
        assert stations[flag].dtype == bool
    assert stations.time.dtype == "datetime64[ns]"
    assert (np.diff(stations.time.values) == np.timedelta64(1, "h")).all()
    assert stations.station.values[stations.withheld.values].tolist() == ["Dingling", "Guanyuan"]


def test_first_hour_of_aotizhongxin(stations):
    # "4,4,4,7,300,77,-0.7,1023,-18.8,0,NNW,4.4" at 2013-03-01 00h local time
    first = stations.sel(station="Aotizhongxin", time="2013-02-28T16:00")
    assert [float(first[n]) for n in ("pm25", "pm10", "so2", "no2", "co", "o3")] == [
        4, 4, 4, 7, 300, 77,
    ]  # fmt: skip
    assert float(first.temp) == pytest.approx(272.45)
    assert float(first.psfc) == 102300
    assert float(first.u) == pytest.approx(4.4 * 0.38268, rel=1e-4)  # NNW: towards SSE
    assert float(first.v) == pytest.approx(-4.4 * 0.92388, rel=1e-4)
    # Tables: 1.39 hPa at -18.8 and 5.80 hPa at -0.7 degrees C.
    assert float(first.rh) == pytest.approx(24.0, abs=0.3)


def test_values_are_those_published(packed, stations):
    names = {"pm25": "PM2.5", "pm10": "PM10", "so2": "SO2", "no2": "NO2", "co": "CO", "o3": "O3"}
    for name, column in names.items():
        np.testing.assert_array_equal(
            stations[name].values, published_values(packed, column).astype(np.float32)
        )
    np.testing.assert_allclose(stations.psfc / 100, published_values(packed, "PRES"), rtol=1e-6)
    np.testing.assert_allclose(stations.temp - 273.15, published_values(packed, "TEMP"), atol=1e-4)


def test_wind_rotates_with_the_sector(packed, stations):
    sector, speed = published_values(packed, "wd"), published_values(packed, "WSPM")
    for i, name in enumerate(SECTORS):
        rows = (sector == name) & (speed > 1)
        u, v = stations.u.values[rows], stations.v.values[rows]
        angle = np.rad2deg(np.arctan2(-u, -v)) % 360
        away = np.abs((angle - 22.5 * i + 180) % 360 - 180)
        assert rows.sum() > 1000 and away.max() < 1e-3
        np.testing.assert_allclose(np.hypot(u, v), speed[rows], rtol=1e-5)


def test_calm_is_a_calm_and_not_a_gap(packed, stations):
    blank, speed = published_values(packed, "wd") == "", published_values(packed, "WSPM")
    u, v, calm = stations.u.values, stations.v.values, stations.calm.values
    light, windy = blank & (speed < 0.5), blank & (speed >= 0.5)
    assert (light.sum(), windy.sum(), (blank & np.isnan(speed)).sum()) == (1364, 140, 318)
    assert calm[light].all() and (u[light] == 0).all() and (v[light] == 0).all()
    assert np.isnan(u[windy]).all() and np.isnan(v[windy]).all() and not calm[windy].any()
    assert np.isnan(u[np.isnan(speed)]).all() and not calm[np.isnan(speed)].any()
    # light air with a direction keeps its direction
    moving = ~blank & (speed > 0) & (speed < 0.5)
    assert not calm[moving].any() and (np.hypot(u, v)[moving] > 0.05).all()
    assert calm.sum() == light.sum() + (~blank & (speed == 0)).sum()


def test_flags_mark_and_nothing_is_edited(packed, stations):
    pm25, pm10 = published_values(packed, "PM2.5"), published_values(packed, "PM10")
    assert (stations.capped_pm25.values == (pm25 == 999)).all()
    assert (stations.capped_pm10.values == (pm10 == 999)).all()
    assert stations.capped_pm10.sum() > 0 and stations.pm25.max() == 999
    crossed = stations.pm25_exceeds_pm10.values
    assert 100 * crossed.mean() == pytest.approx(5.1, abs=0.05)
    assert (pm25[crossed] > pm10[crossed]).all() and not (pm25 > pm10)[~crossed].any()


def test_a_changed_unit_is_found(manifest, monkeypatch):
    import aqnet.data.stations.measurements as module

    original = module.published_values
    in_mg = {"CO": 1000.0}  # ug/m3 read as mg/m3 and multiplied again
    monkeypatch.setattr(
        module,
        "published_values",
        lambda packed, c: original(packed, c) * in_mg[c] if c in in_mg else original(packed, c),
    )
    with pytest.raises(DataError, match=r"co of the stations.*plausible"):
        read_stations(manifest)


def ozone_maximum(stations: xr.Dataset) -> float:
    """Local solar hour (middle of the averaging hour) of the ozone maximum."""
    middle = stations.time.values - np.timedelta64(30, "m")
    hour = np.floor(local_solar_hour(middle, 116.4)).astype(int)
    ozone = stations.o3.mean("station").values
    means = [np.nanmean(ozone[hour == h]) for h in range(24)]
    return float(np.argmax(means)) + 0.5


def test_the_zone_of_the_source_moves_everything(manifest, stations):
    utc = read_stations(manifest.model_copy(update={"source_utc_offset_h": 0.0}))
    assert (utc.time.values - stations.time.values == np.timedelta64(8, "h")).all()
    np.testing.assert_array_equal(utc.o3, stations.o3)
    # Ozone peaks in the afternoon sun; with the wrong zone it would peak at night.
    assert 13 <= ozone_maximum(stations) <= 16.5
    assert ozone_maximum(utc) == pytest.approx((ozone_maximum(stations) + 8) % 24)


def test_the_averaging_label_moves_the_stamps(manifest, stations):
    starts = read_stations(manifest.model_copy(update={"averaging_label": "start"}))
    assert (starts.time.values - stations.time.values == np.timedelta64(1, "h")).all()


def test_sharing_in_the_manifest_is_what_the_data_show(manifest, stations):
    counts = []
    for part, epoch in epochs(manifest, stations):
        measured = distinct_weather_series(part)
        assert {frozenset(g) for g in measured} == {frozenset(g) for g in epoch.groups}
        # not a matter of the threshold
        assert measured == distinct_weather_series(part, 0.1) == distinct_weather_series(part, 0.98)
        for number in np.unique(part.weather_series):
            assert (part.weather_series == number).any("station").all()
        counts.append(len(measured))
    assert counts == [7, 6]


def test_distinct_series_ignore_small_noise_and_see_large(stations):
    part = stations.isel(time=slice(0, 500)).copy(deep=True)
    before = distinct_weather_series(part)
    part["temp"].loc[{"station": "Guanyuan"}] += 5e-4
    assert distinct_weather_series(part) == before
    part["temp"].loc[{"station": "Guanyuan"}] += 0.1
    assert ("Guanyuan",) in distinct_weather_series(part)


def test_sites_count_every_series_once(manifest, stations, sites):
    temp = sites.temp.values
    counts = np.isfinite(temp).sum(axis=1)
    change = stations.time.values >= manifest.to_utc(np.datetime64("2015-02-28T22:00"))
    assert counts[~change].max() == 7 and counts[change].max() == 6
    assert np.median(counts[~change]) == 7 and np.median(counts[change]) == 6
    series = np.stack([sites[n].values for n in ("temp", "psfc", "rh")])
    for i in range(sites.sizes["site"]):
        for j in range(i):
            both = np.isfinite(series[:, :, i]).all(0) & np.isfinite(series[:, :, j]).all(0)
            equal = (np.abs(series[:, both, i] - series[:, both, j]) < 1e-6).all(0)
            speed = [np.hypot(sites.u[:, k], sites.v[:, k]).values[both] for k in (i, j)]
            assert not (equal & (np.abs(speed[0] - speed[1]) < 1e-6)).any()


def test_sites_hold_the_values_and_centroids_of_their_stations(stations, sites):
    names = sites.stations.values.tolist()
    assert names.count("Changping") == 1 and not any("Dingling" in n for n in names)
    changping = sites.isel(site=names.index("Changping"))
    for name in ("u", "v", "temp", "rh", "psfc"):
        ours = changping[name].values
        published = stations[name].sel(station="Changping").values
        assert np.isfinite(ours).sum() >= np.isfinite(published).sum() - 5
        np.testing.assert_array_equal(ours[np.isfinite(ours)], published[np.isfinite(ours)])
    trio = sites.isel(site=names.index("Dongsi+Nongzhanguan+Tiantan"))
    assert float(trio.lat) == pytest.approx((39.929 + 39.937 + 39.886) / 3)
    assert float(trio.lon) == pytest.approx((116.417 + 116.461 + 116.407) / 3)
    assert int(trio.members) == 3 and (np.diff(sites.members) <= 0).all()


def test_withheld_stations_only_on_request(stations):
    everyone = weather_sites(stations, include_withheld=True)
    assert any("Guanyuan" in n and "Aotizhongxin" in n for n in everyone.stations.values)
    assert everyone.members.values.max() == 6


def test_sites_do_not_look_ahead(stations):
    cut = 17_000
    altered = stations.isel(time=slice(16_000, 18_000)).copy(deep=True)
    expected = weather_sites(altered)
    rng = np.random.default_rng(0)
    for name in ("u", "v", "temp", "rh", "psfc"):
        altered[name].values[cut - 16_000 :] = rng.normal(size=(18_000 - cut, 12))
    found = weather_sites(altered)
    before = slice(0, cut - 16_000)
    xr.testing.assert_identical(found.isel(time=before), expected.isel(time=before))
    assert not found.equals(expected)


def test_suspect_hours(manifest, stations):
    bad = stations.weather_suspect.values
    labels = stations.time.values + np.timedelta64(8, "h")
    assert labels[bad][0] == np.datetime64("2014-10-31T20") and bad.sum() == 2882
    assert labels[bad][-1] == np.datetime64("2015-02-28T21")
    step = np.abs(np.diff(stations.psfc.values, axis=0))
    assert np.nanmean(step[bad[1:]]) > 3 * np.nanmean(step[~bad[1:]])


def test_reading_does_not_depend_on_the_working_directory(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_stations(manifest).sizes["station"] == 12
