"""Daily products and index: days of Beijing, rules of validity, editions that refuse to guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqnet.metrics import VerificationError
from aqnet.variables import TARGETS
from aqnet.verification.days import composite_days, forecast_days, observed_days
from aqnet.verification.standards import Edition, StandardError, edition_names

# 00:00 Beijing time on 2 January 2016: the first hour of that day ends at 1:00
MIDNIGHT = np.datetime64("2016-01-01T16", "h")
LEVEL = {"pm25": 75.0, "pm10": 100.0, "so2": 20.0, "no2": 50.0, "co": 900.0, "o3": 60.0}


def hours(count=24, start=1):
    return MIDNIGHT + np.arange(start, start + count)


def values(count=24, **changes):
    levels = LEVEL | changes
    return np.broadcast_to([levels[name] for name in TARGETS], (count, len(TARGETS))).copy()


def test_an_hour_belongs_to_the_beijing_day_in_which_it_ends():
    data = values(25)
    data[24] = 1000.0  # ends at 1:00 of the next day
    days = observed_days(hours(25), data, TARGETS, "2012")
    assert days.days.astype(str).tolist() == ["2016-01-02", "2016-01-03"]
    assert days.product("mean_24h", "pm25")[0] == 75.0
    assert np.isnan(days.product("mean_24h", "pm25")[1])  # one hour is not a day


def test_a_day_needs_twenty_hours():
    for count, valid in ((20, True), (19, False)):
        data = values()
        data[count:, 0] = np.nan
        days = observed_days(hours(), data, TARGETS, "2012")
        assert np.isfinite(days.product("mean_24h", TARGETS[0])[0]) == valid
    unordered = np.random.default_rng(0).permutation(24)
    days = observed_days(hours()[unordered], values()[unordered], TARGETS, "2012")
    assert days.product("mean_24h", "co")[0] == pytest.approx(900)


def test_ozone_is_the_largest_mean_of_eight_hours_of_the_same_day():
    data = values()
    o3 = TARGETS.index("o3")
    data[:, o3] = np.arange(1, 25)
    days = observed_days(hours(), data, TARGETS, "2012")
    assert days.mda8[0] == pytest.approx(np.arange(17, 25).mean()) and days.max_1h[0] == 24
    data[3:8, o3] = np.nan  # windows with fewer than 6 hours: those that end from 8:00 to 13:00
    assert np.isnan(observed_days(hours(), data, TARGETS, "2012").mda8[0])  # 11 means are left
    data[20:, o3] = 500.0  # above the limit: counts all the same
    found = observed_days(hours(), data, TARGETS, "2012").mda8[0]
    assert found == pytest.approx(np.r_[17:21, [500] * 4].mean())


@given(st.integers(0, 2**32 - 1), st.integers(0, 24))
def test_mda8_from_its_definition(seed, gaps):
    rng = np.random.default_rng(seed)
    ozone = rng.uniform(0, 100, 24)
    ozone[rng.permutation(24)[:gaps]] = np.nan
    data = values()
    data[:, TARGETS.index("o3")] = ozone
    found = observed_days(hours(), data, TARGETS, "2012").mda8[0]
    means = [ozone[i : i + 8] for i in range(17)]
    means = [m[np.isfinite(m)].mean() for m in means if np.isfinite(m).sum() >= 6]
    expected = max(means) if len(means) >= 14 else np.nan
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("product", "pollutant", "value", "index"),
    [
        ("mean_24h", "pm25", 0, 0), ("mean_24h", "pm25", 35, 50), ("mean_24h", "pm25", 75, 100),
        ("mean_24h", "pm25", 75.2, 101), ("mean_24h", "pm25", 500, 500),
        ("mean_24h", "pm25", 900, 500), ("mean_24h", "co", 2000, 50), ("mean_24h", "co", 3000, 75),
        ("mda8", "o3", 160, 100), ("mda8", "o3", 800, 300), ("max_1h", "o3", 1000, 400),
        ("mean_24h", "no2", 60, 75), ("mean_24h", "so2", 475, 150), ("mean_24h", "pm10", 385, 250),
    ],
)  # fmt: skip
def test_individual_index(product, pollutant, value, index):
    assert Edition("2012").iaqi(product, pollutant, value) == index


def test_ozone_above_the_table_follows_the_hourly_maximum():
    assert np.isnan(Edition("2012").iaqi("mda8", "o3", 801))
    data = values(o3=1100.0)
    aqi, primary = observed_days(hours(), data, TARGETS, "2012").index()
    assert aqi[0] == 450 and primary[0].tolist() == [name == "o3" for name in TARGETS]


def test_index_and_primary_pollutant():
    days = observed_days(hours(), values(pm10=150.0), TARGETS, "2012")
    aqi, primary = days.index()
    assert aqi[0] == 100  # PM2.5 75 and PM10 150, both at their limit
    assert {n for n, p in zip(TARGETS, primary[0], strict=True) if p} == {"pm25", "pm10"}
    clean = values(pm25=10.0, pm10=20.0, no2=20.0, o3=30.0)
    aqi, primary = observed_days(hours(), clean, TARGETS, "2012").index()
    assert aqi[0] <= 50 and not primary.any()
    gap = values()
    gap[:10, 1] = np.nan
    assert np.isnan(observed_days(hours(), gap, TARGETS, "2012").index()[0][0])
    some = observed_days(hours(), values()[:, :2], TARGETS[:2], "2012")
    assert np.isnan(some.index()[0][0])  # four pollutants are not there at all


def test_the_limit_itself_is_no_exceedance():
    for value, above in ((75.0, 0.0), (75.1, 1.0)):
        days = observed_days(hours(), values(pm25=value), TARGETS, "2012")
        assert days.exceeds("mean_24h", "pm25")[0] == above


def test_a_forecast_of_a_day_needs_hourly_leads_of_one_initialisation():
    leads = range(1, 49)
    days = forecast_days(MIDNIGHT, leads, values(48), TARGETS, "2012")
    assert len(days.days) == 2 and days.index()[0].shape == (2,)
    assert "2016-01-01T16" in days.table()["of"][0] and days.table()["edition"][0] == "2012"
    with pytest.raises(VerificationError, match="hourly lead times"):
        forecast_days(MIDNIGHT, (12, 24, 48, 96), values(4), TARGETS, "2012")


def test_a_composite_is_labelled_and_has_no_index():
    days = composite_days(hours() - np.timedelta64(24, "h"), 24, values(), TARGETS, "2012")
    assert days.product("mean_24h", "pm25")[0] == 75.0
    assert set(days.table()["of"]) == {"composite of 24 h forecasts of many initialisations"}
    with pytest.raises(StandardError, match="composite of fixed lead times has no"):
        days.index()


def test_editions_refuse_what_could_not_be_sourced():
    assert set(edition_names()) == {"2012", "2012-amended", "2026-transition", "2031"}
    new = Edition("2026-transition")
    assert new.limit("mean_24h", "pm25") == 60 and new.limit("mean_24h", "pm10") == 120
    for ask in (
        lambda: new.limit("mean_24h", "so2"),
        lambda: new.iaqi("mean_24h", "pm25", 10.0),
        lambda: new.indicators(),
        lambda: new.from_store_state(values(), TARGETS),
        lambda: observed_days(hours(), values(), TARGETS, new),
    ):
        with pytest.raises(StandardError, match=r"edition 2026-transition[^$]*missing"):
            ask()
    with pytest.raises(StandardError, match="no such edition"):
        Edition("1996")
    for name in edition_names():
        assert Edition(name).sources


def test_gases_change_with_the_reference_state_and_particles_do_not():
    stored = values(1)
    assert (Edition("2012").from_store_state(stored, TARGETS) == stored).all()
    later = Edition("2012-amended").from_store_state(stored, TARGETS)[0]
    for name, before, after in zip(TARGETS, stored[0], later, strict=True):
        factor = 1.0 if name.startswith("pm") else 273.15 / 298.15
        assert after == pytest.approx(before * factor)


def test_an_hour_given_twice_is_refused():
    with pytest.raises(VerificationError, match="given twice"):
        observed_days(hours()[[0, 0]], values(2), TARGETS, "2012")
