"""Units of sources, the reference state of gases, fields in the wrong unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet import units as un
from aqnet import variables as va
from aqnet.errors import FieldError, UnitError


@pytest.mark.parametrize(
    ("name", "unit", "given", "expected"),
    [
        ("co", "mg m-3", [0.23, 12.43], [230.0, 12430.0]),
        ("co", "mg/m3", [1.2], [1200.0]),
        ("co", "µg/m³", [1200.0], [1200.0]),
        ("pm25", "kg m-3", [5e-8], [50.0]),
        ("temp", "degC", [-40.0, 0.0], [233.15, 273.15]),
        ("temp", "K", [233.15], [233.15]),
        ("psfc", "hPa", [461.4, 1013.25], [46140.0, 101325.0]),
        ("psfc", "kPa", [46.14], [46140.0]),
        ("rh", "1", [0.5], [50.0]),
        ("rh", " percent ", [50.0], [50.0]),
        ("u", "m  s-1", [3.0], [3.0]),
        ("lat2d", "degrees_north", [30.0], [30.0]),
        ("lon2d", "degrees", [100.0], [100.0]),
    ],
)
def test_units_of_sources(name, unit, given, expected):
    np.testing.assert_allclose(un.to_lexicon_unit(name, given, unit), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("o3", "ppb"), ("co", "ppm"), ("pm25", "K"), ("psfc", "Mpa"), ("psfc", "hpa"), ("temp", "F"),
     ("co", ""), ("lat2d", "degrees_east"), ("rh", "m"), ("rh", "kg/kg"), ("rh", "kg kg-1")],
)  # fmt: skip
def test_an_unknown_or_unfit_unit_is_an_error(name, unit):
    with pytest.raises(UnitError, match=name) as caught:
        un.to_lexicon_unit(name, [1.0], unit)
    assert va.VARIABLES[name].unit in str(caught.value)


def test_every_spelling_is_one_unit_and_every_lexicon_unit_has_spellings():
    for variable in va.VARIABLES.values():
        assert un.to_lexicon_unit(variable.name, [1.0], variable.unit)[0] == 1
    spellings = [s for many in un.UNIT_ALIASES.values() for s in many]
    double = {s for s in spellings if spellings.count(s) > 1}
    assert double == {"degree", "degrees"}  # of latitude or of longitude


def test_conversion_keeps_precision_and_gaps():
    single = un.to_lexicon_unit("co", np.array([0.25, np.nan], "f4"), "mg/m3")
    assert single.dtype == np.float32 and single[0] == 250 and np.isnan(single[1])
    assert un.to_lexicon_unit("co", np.array([1, 2], "i2"), "mg/m3").dtype == np.float64
    masked = np.ma.masked_equal(np.array([-999.0, 20.0], "f4"), -999.0)
    np.testing.assert_array_equal(un.to_lexicon_unit("temp", masked, "K"), [np.nan, 20.0])
    given = np.array([280.0])
    un.to_lexicon_unit("temp", given, "degC")
    assert given[0] == 280  # the caller's array is not written to


# ---- reference state of gases


def test_the_amendment_begins_at_midnight_local_time():
    times = np.array(
        ["2018-08-31T23:00", "2018-08-31T23:59", "2018-09-01T00:00", "2018-09-01T01:00"],
        dtype="datetime64[m]",
    )
    later = 298.15 / 273.15
    factor = un.gas_reference_factor(times, "china_2018_amendment")
    assert factor.tolist() == [1.0, 1.0, later, later]
    assert 1 / later == pytest.approx(0.916, abs=2e-4)  # GB 3095-2012 amendment: lower numbers
    hours = times.astype("datetime64[h]")
    assert un.gas_reference_factor(hours, "china_2018_amendment").tolist() == [1, 1, later, later]


@pytest.mark.parametrize(
    ("state", "factor"), [("273K", 1.0), ("298K", 298.15 / 273.15), ("undocumented", 1.0)]
)
def test_other_reference_states_do_not_change_in_time(state, factor):
    times = np.datetime64("2018-08-01T00", "h") + np.arange(0, 24 * 60, 24)
    np.testing.assert_array_equal(un.gas_reference_factor(times, state), np.full(60, factor))


def test_an_unknown_reference_state_is_an_error():
    with pytest.raises(UnitError, match="298K or china_2018_amendment"):
        un.gas_reference_factor([np.datetime64("2018-01-01T00")], "20C")


# ---- fields

# Published statistics of one real day (2013-01-01) over 42,249 cells of China's land at 15 km:
# 1st percentile, median, 99th percentile, in the units of the lexicon.
DAY = {
    "pm25": (0.35, 6.75, 130.9), "pm10": (0.53, 7.82, 231.1), "so2": (0.05, 3.61, 87.4),
    "no2": (0.10, 2.37, 60.1), "co": (110.0, 230.0, 2830.0), "o3": (16.6, 54.8, 90.5),
    "u": (-6.3, 2.47, 15.9), "v": (-9.0, -1.01, 8.3), "temp": (238.1, 263.0, 285.8),
    "rh": (17.4, 46.9, 90.9), "psfc": (51922.0, 88684.0, 102371.0),
}  # fmt: skip
# Regions: the highest cells of Tibet in winter, a summer noon in Turpan, Beijing's worst hour of
# CO and its cleanest, a wet hour in the south.
REGIONS = [
    {"psfc": 46140.0, "temp": 232.0, "co": 70.0, "pm25": 0.12, "so2": 0.04, "no2": 0.07},
    {"psfc": 101000.0, "temp": 319.0, "rh": 5.0, "o3": 180.0},
    {"co": 9250.0, "pm25": 655.0, "pm10": 857.0, "no2": 209.0, "o3": 0.64},
    {"co": 100.0, "pm25": 3.0, "pm10": 3.0, "so2": 1.0, "no2": 3.0, "psfc": 104200.0},
    {"rh": 100.0, "co": 350.0, "u": 22.0, "v": -20.0},
]


@pytest.mark.parametrize("name", DAY)
def test_a_real_day_and_real_regions_pass(name):
    un.check_field(name, DAY[name], "a day")
    for region in REGIONS:
        if name in region:
            un.check_field(name, np.full((2, 3), region[name]), "a region")


WRONG_UNITS = {"co": ("mg/m3", 1e-3, 0), "psfc": ("hPa", 1e-2, 0), "temp": ("degC", 1, -273.15)}


@pytest.mark.parametrize("name", WRONG_UNITS)
def test_a_wrong_unit_is_found_and_named_in_both_directions(name):
    unit, factor, offset = WRONG_UNITS[name]
    places = [DAY[name], *(np.full(4, r[name]) for r in REGIONS if name in r)]
    for true in map(np.asarray, places):
        with pytest.raises(UnitError, match=f"look like {unit}, not"):
            un.check_field(name, true * factor + offset, "hour")
        with pytest.raises(UnitError, match=f"had been taken for {unit}"):
            un.check_field(name, un.to_lexicon_unit(name, true, unit), "hour")


def test_other_units_over_china():
    for name in ("pm25", "pm10", "so2", "no2"):
        with pytest.raises(UnitError, match="look like mg/m3"):
            un.check_field(name, np.array(DAY[name]) / 1000, "hour")
        with pytest.raises(UnitError, match="taken for mg/m3"):
            un.check_field(name, np.array(DAY[name]) * 1000, "hour")
    with pytest.raises(UnitError, match="look like kPa"):
        un.check_field("psfc", np.array(DAY["psfc"]) / 1000, "hour")
    with pytest.raises(UnitError, match="look like 1, not %"):
        un.check_field("rh", np.array(DAY["rh"]) / 100, "hour")
    with pytest.raises(UnitError, match="no unit of the lexicon explains it"):
        un.check_field("u", np.full(3, 250.0), "hour")
    with pytest.raises(UnitError, match="no unit of the lexicon explains it"):
        un.check_field("pm25", np.zeros(3), "hour")


def test_range_is_inclusive_and_nothing_is_clipped():
    v = va.VARIABLES["pm25"]
    edge = np.array([v.valid_min, 5.0, 5.0, 5.0, v.valid_max])
    kept = edge.copy()
    un.check_field("pm25", edge, "edge")
    np.testing.assert_array_equal(edge, kept)
    for beyond in (v.valid_min - 1e-6, v.valid_max + 1.0):
        with pytest.raises(FieldError, match="1 such cells of 4"):
            un.check_field("pm25", [beyond, 5.0, 5.0, 5.0], "beyond")
    un.check_field("rh", [104.0, 60.0, 60.0], "a little above saturation")
    with pytest.raises(FieldError, match="relative humidity"):
        un.check_field("rh", [106.0, 60.0, 60.0], "too wet")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_an_error(value):
    with pytest.raises(FieldError, match=r"a\.nc 2013-01-01T05: temp .*is infinite"):
        un.check_field("temp", [[280.0, value]], "a.nc 2013-01-01T05")
    un.check_field("temp", [[280.0, np.nan]], "a missing cell is no error")
    with pytest.raises(FieldError, match="no value in any cell"):
        un.check_field("temp", [[np.nan, np.nan]], "empty")


def test_only_active_cells_are_looked_at():
    field = np.array([[[280.0, 1e20]], [[281.0, np.inf]]])
    un.check_field("temp", field, "outside", active=np.array([[True, False]]))
    with pytest.raises(FieldError):
        un.check_field("temp", field, "all")
    with pytest.raises(FieldError, match="no value"):
        un.check_field("temp", field, "none", active=np.zeros((1, 2), bool))


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(va.DYNAMIC), st.data())
def test_a_field_inside_its_median_range_passes(name, data):
    v = va.VARIABLES[name]
    assert v.valid_min <= v.median_min < v.median_max <= v.valid_max
    middle = data.draw(st.floats(v.median_min, v.median_max))
    un.check_field(name, np.full(5, middle), "flat")
