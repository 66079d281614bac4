"""Names and units, wind components, humidity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet import variables as va
from aqnet.errors import FieldError, UnitError

# Written out by hand: where the air goes when it comes from each sector (signs of u and v).
SIGNS = {
    "N": (0, -1), "NNE": (-1, -1), "NE": (-1, -1), "ENE": (-1, -1),
    "E": (-1, 0), "ESE": (-1, 1), "SE": (-1, 1), "SSE": (-1, 1),
    "S": (0, 1), "SSW": (1, 1), "SW": (1, 1), "WSW": (1, 1),
    "W": (1, 0), "WNW": (1, -1), "NW": (1, -1), "NNW": (1, -1),
}  # fmt: skip
# Ratio |u| / |v|: tan of 22.5, 45 and 67.5 degrees.
RATIO = {"NNE": 0.41421, "NE": 1.0, "ENE": 2.41421, "SSW": 0.41421, "SW": 1.0, "WNW": 2.41421}


def test_order_of_the_design_document():
    assert va.DYNAMIC == (
        "u", "v", "temp", "rh", "psfc", "pm10", "so2", "no2", "co", "o3", "pm25",
    )  # fmt: skip
    assert va.STATIC == ("lat2d", "lon2d", "elevation", "population")
    assert va.INPUTS == (
        "u", "v", "temp", "rh", "psfc", "pm10", "so2", "no2", "co", "o3",
        "lat2d", "lon2d", "pm25", "elevation", "population",
    )  # fmt: skip
    assert va.TARGETS == ("pm25", "pm10", "so2", "no2", "co", "o3")
    assert va.LEAD_TIMES_H == (12, 24, 48, 96)


def test_every_variable_is_described():
    units = {"m/s", "K", "%", "Pa", "ug/m3", "degree_north", "degree_east", "m", "persons/km2"}
    assert {variable.unit for variable in va.VARIABLES.values()} == units
    for name, variable in va.VARIABLES.items():
        assert variable.name == name and variable.long_name and variable.definition
        assert variable.valid_min < variable.valid_max
        assert variable.dynamic == (name in va.DYNAMIC)
        assert variable.is_input == (name in va.INPUTS)
        assert variable.is_target == (name in va.TARGETS)


@pytest.mark.parametrize("sector", va.SECTORS)
def test_wind_comes_from_the_sector(sector):
    u, v = (float(w) for w in va.wind_components(2.0, va.sector_degrees(sector)))
    assert (np.sign(round(u, 9)), np.sign(round(v, 9))) == SIGNS[sector]
    assert np.hypot(u, v) == pytest.approx(2.0)
    if sector in RATIO:
        assert abs(u) / abs(v) == pytest.approx(RATIO[sector], rel=1e-4)


def test_blank_sector_is_missing_and_unknown_sector_is_an_error():
    degrees = va.sector_degrees([["N", ""], ["NNW", "S"]])
    np.testing.assert_array_equal(degrees, [[0.0, np.nan], [337.5, 180.0]])
    assert np.isnan(va.wind_components([3.0], va.sector_degrees([""]))).all()
    with pytest.raises(ValueError, match="CALM"):
        va.sector_degrees(["N", "CALM"])


# Smithsonian Meteorological Tables (List, 1951), table 94: saturation over water, hPa.
@pytest.mark.parametrize(
    ("celsius", "hpa"),
    [(-20, 1.2540), (-10, 2.8627), (0, 6.1078), (10, 12.272), (20, 23.373), (30, 42.430),
     (40, 73.777)],
)  # fmt: skip
def test_saturation_pressure_against_the_tables(celsius, hpa):
    # 0.4 % is what Alduchov and Eskridge (1996) state for their coefficients.
    assert va.saturation_vapour_pressure_hpa(celsius) == pytest.approx(hpa, rel=4e-3)


def test_relative_humidity_against_tabulated_pressures():
    assert va.relative_humidity(20.0, 10.0) == pytest.approx(100 * 12.272 / 23.373, abs=0.3)
    assert va.relative_humidity(0.0, -20.0) == pytest.approx(100 * 1.2540 / 6.1078, abs=0.2)
    assert np.isnan(va.relative_humidity(np.nan, 10.0))


@settings(deadline=None)  # the machine may be busy
@given(st.floats(-40, 45), st.floats(0, 40))
def test_relative_humidity_falls_with_the_dew_point_depression(celsius, depression):
    rh = va.relative_humidity(celsius, celsius - depression)
    assert 0 < rh <= 100 + 1e-9
    assert va.relative_humidity(celsius, celsius) == pytest.approx(100)
    assert va.relative_humidity(celsius, celsius - depression - 1) < rh


def test_celsius_to_kelvin():
    assert va.celsius_to_kelvin(-273.15) == 0
    assert va.celsius_to_kelvin(25) == pytest.approx(298.15)


# ---- units of a source


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
    np.testing.assert_allclose(va.to_lexicon_unit(name, given, unit), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("o3", "ppb"), ("co", "ppm"), ("pm25", "K"), ("psfc", "Mpa"), ("psfc", "hpa"), ("temp", "F"),
     ("co", ""), ("lat2d", "degrees_east"), ("rh", "m")],
)  # fmt: skip
def test_an_unknown_or_unfit_unit_is_an_error(name, unit):
    with pytest.raises(UnitError, match=name) as caught:
        va.to_lexicon_unit(name, [1.0], unit)
    assert va.VARIABLES[name].unit in str(caught.value)


def test_every_spelling_is_one_unit_and_every_lexicon_unit_has_spellings():
    for variable in va.VARIABLES.values():
        assert va.to_lexicon_unit(variable.name, [1.0], variable.unit)[0] == 1
    spellings = [s for many in va.UNIT_ALIASES.values() for s in many]
    double = {s for s in spellings if spellings.count(s) > 1}
    assert double == {"degree", "degrees"}  # of latitude or of longitude


def test_conversion_keeps_precision_and_gaps():
    single = va.to_lexicon_unit("co", np.array([0.25, np.nan], "f4"), "mg/m3")
    assert single.dtype == np.float32 and single[0] == 250 and np.isnan(single[1])
    assert va.to_lexicon_unit("co", np.array([1, 2], "i2"), "mg/m3").dtype == np.float64
    masked = np.ma.masked_equal(np.array([-999.0, 20.0], "f4"), -999.0)
    np.testing.assert_array_equal(va.to_lexicon_unit("temp", masked, "K"), [np.nan, 20.0])
    given = np.array([280.0])
    va.to_lexicon_unit("temp", given, "degC")
    assert given[0] == 280  # the caller's array is not written to


# ---- reference state of gases


def test_the_amendment_begins_at_midnight_local_time():
    times = np.array(
        ["2018-08-31T23:00", "2018-08-31T23:59", "2018-09-01T00:00", "2018-09-01T01:00"],
        dtype="datetime64[m]",
    )
    later = 298.15 / 273.15
    factor = va.gas_reference_factor(times, "china_2018_amendment")
    assert factor.tolist() == [1.0, 1.0, later, later]
    assert 1 / later == pytest.approx(0.916, abs=2e-4)  # GB 3095-2012 amendment: lower numbers
    hours = times.astype("datetime64[h]")
    assert va.gas_reference_factor(hours, "china_2018_amendment").tolist() == [1, 1, later, later]


@pytest.mark.parametrize(
    ("state", "factor"), [("273K", 1.0), ("298K", 298.15 / 273.15), ("undocumented", 1.0)]
)
def test_other_reference_states_do_not_change_in_time(state, factor):
    times = np.datetime64("2018-08-01T00", "h") + np.arange(0, 24 * 60, 24)
    np.testing.assert_array_equal(va.gas_reference_factor(times, state), np.full(60, factor))


def test_an_unknown_reference_state_is_an_error():
    with pytest.raises(UnitError, match="298K or china_2018_amendment"):
        va.gas_reference_factor([np.datetime64("2018-01-01T00")], "20C")


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
    va.check_field(name, DAY[name], "a day")
    for region in REGIONS:
        if name in region:
            va.check_field(name, np.full((2, 3), region[name]), "a region")


WRONG_UNITS = {"co": ("mg/m3", 1e-3, 0), "psfc": ("hPa", 1e-2, 0), "temp": ("degC", 1, -273.15)}


@pytest.mark.parametrize("name", WRONG_UNITS)
def test_a_wrong_unit_is_found_and_named_in_both_directions(name):
    unit, factor, offset = WRONG_UNITS[name]
    places = [DAY[name], *(np.full(4, r[name]) for r in REGIONS if name in r)]
    for true in map(np.asarray, places):
        with pytest.raises(UnitError, match=f"look like {unit}, not"):
            va.check_field(name, true * factor + offset, "hour")
        with pytest.raises(UnitError, match=f"had been taken for {unit}"):
            va.check_field(name, va.to_lexicon_unit(name, true, unit), "hour")


def test_other_units_over_china():
    for name in ("pm25", "pm10", "so2", "no2"):
        with pytest.raises(UnitError, match="look like mg/m3"):
            va.check_field(name, np.array(DAY[name]) / 1000, "hour")
        with pytest.raises(UnitError, match="taken for mg/m3"):
            va.check_field(name, np.array(DAY[name]) * 1000, "hour")
    with pytest.raises(UnitError, match="look like kPa"):
        va.check_field("psfc", np.array(DAY["psfc"]) / 1000, "hour")
    with pytest.raises(UnitError, match="look like 1, not %"):
        va.check_field("rh", np.array(DAY["rh"]) / 100, "hour")
    with pytest.raises(UnitError, match="no unit of the lexicon explains it"):
        va.check_field("u", np.full(3, 250.0), "hour")
    with pytest.raises(UnitError, match="no unit of the lexicon explains it"):
        va.check_field("pm25", np.zeros(3), "hour")


def test_range_is_inclusive_and_nothing_is_clipped():
    v = va.VARIABLES["pm25"]
    edge = np.array([v.valid_min, 5.0, 5.0, 5.0, v.valid_max])
    kept = edge.copy()
    va.check_field("pm25", edge, "edge")
    np.testing.assert_array_equal(edge, kept)
    for beyond in (v.valid_min - 1e-6, v.valid_max + 1.0):
        with pytest.raises(FieldError, match="1 such cells of 4"):
            va.check_field("pm25", [beyond, 5.0, 5.0, 5.0], "beyond")
    va.check_field("rh", [104.0, 60.0, 60.0], "a little above saturation")
    with pytest.raises(FieldError, match="relative humidity"):
        va.check_field("rh", [106.0, 60.0, 60.0], "too wet")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_an_error(value):
    with pytest.raises(FieldError, match=r"a\.nc 2013-01-01T05: temp .*is infinite"):
        va.check_field("temp", [[280.0, value]], "a.nc 2013-01-01T05")
    va.check_field("temp", [[280.0, np.nan]], "a missing cell is no error")
    with pytest.raises(FieldError, match="no value in any cell"):
        va.check_field("temp", [[np.nan, np.nan]], "empty")


def test_only_active_cells_are_looked_at():
    field = np.array([[[280.0, 1e20]], [[281.0, np.inf]]])
    va.check_field("temp", field, "outside", active=np.array([[True, False]]))
    with pytest.raises(FieldError):
        va.check_field("temp", field, "all")
    with pytest.raises(FieldError, match="no value"):
        va.check_field("temp", field, "none", active=np.zeros((1, 2), bool))


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(va.DYNAMIC), st.data())
def test_a_field_inside_its_median_range_passes(name, data):
    v = va.VARIABLES[name]
    assert v.valid_min <= v.median_min < v.median_max <= v.valid_max
    middle = data.draw(st.floats(v.median_min, v.median_max))
    va.check_field(name, np.full(5, middle), "flat")


def test_precision_and_names_in_files():
    assert va.GASES == ("so2", "no2", "co", "o3")
    bits = {name: va.VARIABLES[name].keep_bits for name in va.DYNAMIC}
    assert {n for n, b in bits.items() if b == 14} == {"temp", "psfc"}
    assert {b for n, b in bits.items() if n not in ("temp", "psfc")} == {10}
    names = [n for v in va.VARIABLES.values() for n in v.source_names]
    assert len(names) == len(set(names))
    # CAQRA's own names are those of the lexicon (statics but terrain and people: lat2d, lon2d).
    assert all(v.source_names[0] == v.name for v in va.VARIABLES.values())
