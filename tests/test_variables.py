"""Names, wind components, humidity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet import variables as va

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


def test_precision_and_names_in_files():
    assert va.GASES == ("so2", "no2", "co", "o3")
    bits = {name: va.VARIABLES[name].keep_bits for name in va.DYNAMIC}
    assert {n for n, b in bits.items() if b == 14} == {"temp", "psfc"}
    assert {b for n, b in bits.items() if n not in ("temp", "psfc")} == {10}
    names = [n for v in va.VARIABLES.values() for n in v.source_names]
    assert len(names) == len(set(names))
    # CAQRA's own names are those of the lexicon (statics but terrain and people: lat2d, lon2d).
    assert all(v.source_names[0] == v.name for v in va.VARIABLES.values())
