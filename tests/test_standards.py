"""Daily products and index: days of Beijing, rules of validity, editions that refuse to guess."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqnet.metrics import VerificationError
from aqnet.variables import TARGETS
from aqnet.verification import standards
from aqnet.verification.days.products import beijing_hours, by_day, pollutant_days
from aqnet.verification.days.series import composite_days, forecast_days, observed_days
from aqnet.verification.standards import Edition, StandardError, edition_names, level

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
    later = Edition("2031")
    assert later.limit("mean_24h", "pm25") == 50 and later.limit("mean_24h", "pm10") == 100
    for ask in (
        lambda: later.iaqi("mean_24h", "pm25", 10.0),
        lambda: later.indicators(),
        lambda: observed_days(hours(), values(), TARGETS, later).index(),
    ):
        with pytest.raises(StandardError, match=r"(?s)edition 2031.*missing.*from 2031"):
            ask()
    with pytest.raises(StandardError, match="no such edition"):
        Edition("1996")
    for name in edition_names():
        assert Edition(name).sources


def test_figures_without_a_source_are_not_loaded(tmp_path):
    text = standards._FILE.read_text(encoding="utf-8")
    for wrong in (
        text.replace("      iaqi: [hj633_2026]\n", ""),
        text.replace("      iaqi: [hj633_2026]", "      iaqi: []"),
        text.replace("      iaqi: [hj633_2026]", "      iaqi: [hearsay]"),
    ):
        assert wrong != text
        (tmp_path / "s.yaml").write_text(wrong, encoding="utf-8")
        with pytest.raises(StandardError, match="2026-transition without source"):
            standards._load(tmp_path / "s.yaml")


# Calculated by hand from table 3 of HJ 633-2026: 100 + 50 (75 - 60) / (115 - 60) = 113.6, ...
@pytest.mark.parametrize(
    ("product", "pollutant", "value", "index"),
    [
        ("mean_24h", "pm25", 60, 100), ("mean_24h", "pm25", 75, 114),
        ("mean_24h", "pm10", 120, 100), ("mean_24h", "pm10", 150, 112),
        ("mean_24h", "pm25", 60.5, 100), ("mean_24h", "pm25", 60.51, 101),  # half to even
        ("mean_24h", "pm25", 35.5, 52), ("mean_24h", "co", 2049, 50), ("mean_24h", "co", 2051, 53),
        ("mda8", "o3", 160, 100), ("mda8", "o3", 800, 300), ("mda8", "o3", 1200, 300),
        ("mean_24h", "so2", 475, 150), ("mean_24h", "no2", 180, 150),
    ],
)  # fmt: skip
def test_individual_index_of_2026(product, pollutant, value, index):
    assert Edition("2026-transition").iaqi(product, pollutant, value) == index


def test_editions_differ_where_the_standards_do():
    data = values(o3=210.0)  # an hour of 210 exceeds its limit of 200: index 105 of the hour
    old, new = (observed_days(hours(), data, TARGETS, name) for name in ("2012", "2026-transition"))
    assert old.index()[0][0] == 146 and new.index()[0][0] == 146  # the 8 h mean decides
    data[:, TARGETS.index("o3")] = 60.0
    data[12, TARGETS.index("o3")] = 500.0  # one hour: 225 of its own, the 8 h mean 115
    old, new = (observed_days(hours(), data, TARGETS, name) for name in ("2012", "2026-transition"))
    assert old.index()[0][0] == 225 and new.index()[0][0] == 114  # PM2.5 of 75
    for name, state in (("2012", 1.0), ("2026-transition", 273.15 / 298.15)):
        stored = Edition(name).from_store_state(np.array([[100.0]]), ("o3",))
        assert stored[0, 0] == pytest.approx(100 * state)


INDICATORS = [
    (name, *pair)
    for name in ("2012", "2012-amended", "2026-transition")
    for pair in Edition(name).indicators()
]


@given(st.sampled_from(INDICATORS), st.lists(st.floats(0, 70_000), min_size=2, max_size=30))
def test_an_individual_index_never_falls_and_is_a_whole_number(which, concentrations):
    name, product, pollutant = which
    index = Edition(name).iaqi(product, pollutant, np.sort(concentrations))
    known = index[~np.isnan(index)]  # NaN: above the 8 h table, where the hour decides
    assert np.isnan(index[len(known) :]).all()
    assert (np.diff(known) >= 0).all() and (known == np.round(known)).all()
    assert ((known >= 0) & (known <= 500)).all()


@given(st.sampled_from(INDICATORS), st.integers(0, 12_000))
def test_an_individual_index_is_the_formula_of_the_standard_in_exact_numbers(which, tenths):
    name, product, pollutant = which
    standard, levels = Edition(name), [0, 50, 100, 150, 200, 300, 400, 500]
    step = 100 if pollutant == "co" else 1
    value = Fraction(tenths * step, 10)
    rounded = round(value / step) * step if name == "2026-transition" else value  # half to even
    points = [Fraction(p) for p in standard.breakpoints(product, pollutant)]
    found = standard.iaqi(product, pollutant, float(value))
    if rounded > points[-1]:
        assert (
            np.isnan(found)
            if len(points) < 8 and name != "2026-transition"
            else (found == levels[len(points) - 1])
        )
        return
    k = next(k for k in range(1, len(points)) if rounded <= points[k])
    slope = Fraction(levels[k] - levels[k - 1]) / (points[k] - points[k - 1])
    assert found == math.ceil(slope * (rounded - points[k - 1]) + levels[k - 1])


@given(
    st.sampled_from(["2012", "2026-transition"]),
    st.tuples(*[st.floats(0, high) for high in (700, 800, 3000, 1200, 70_000, 1500)]),
)
def test_the_index_is_the_largest_and_the_primary_pollutants_have_it(name, levels):
    data = np.broadcast_to(levels, (24, 6)).copy()
    days = observed_days(hours(), data, TARGETS, name)
    aqi, primary = days.index()
    each = {}
    for product, pollutant in days.edition.indicators():
        one = days.edition.iaqi(product, pollutant, days.product(product, pollutant))[0]
        each[pollutant] = np.nanmax([each.get(pollutant, 0), one])
    assert aqi[0] == max(each.values())
    made = {n for n, p in zip(TARGETS, primary[0], strict=True) if p}
    assert made == ({n for n, v in each.items() if v == aqi[0]} if aqi[0] > 50 else set())
    step = level(aqi[0])
    assert (step == 0) == (aqi[0] <= 50) and (step == 5) == (aqi[0] > 300)


@given(st.integers(0, 24 * 366 * 30), st.integers(1, 100))
def test_every_hour_has_one_place_in_the_calendar_of_beijing(start, count):
    first = np.datetime64("1990-01-01T00", "h") + start  # with the summer times of 1986 to 1991
    times = first + np.arange(count)
    grid, days = by_day(times, np.arange(count, dtype=float))
    assert np.nansum(np.isfinite(grid)) == count
    for day, row in zip(days, grid, strict=True):
        ends = beijing_hours(day)
        assert ends[0] == day.astype("datetime64[h]") - 7 and ends[-1] - ends[0] == 23
        inside = np.isin(ends, times)
        assert (np.isfinite(row) == inside).all()
        assert (row[inside] == (ends[inside] - first).astype(int)).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 24), st.booleans())
def test_a_daily_mean_is_valid_from_twenty_hours_on_a_forecast_from_all(seed, gaps, whole):
    rng = np.random.default_rng(seed)
    one = rng.uniform(0, 300, 24)
    one[rng.permutation(24)[:gaps]] = np.nan
    found = pollutant_days(one[None], "pm25", Edition("2012"), whole=whole)["mean_24h"][0]
    if gaps <= (0 if whole else 4):
        assert found == pytest.approx(np.nanmean(one))
    else:
        assert np.isnan(found)


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
