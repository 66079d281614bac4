"""Stations of any network: tables, converters, sampling with its representativeness, refusals."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from forecast_case import GRID, small_mask, small_store
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.errors import CoverageError, FieldError, StationFileError, UnitError
from aqnet.grid import GRIDS, GridError, distance_km
from aqnet.variables import TARGETS
from aqnet.verification.stations.network import Stations, TimeZoneError
from aqnet.verification.stations.sampling import sample_stations
from aqnet.verification.stations.sources import from_beijing, from_china_daily, from_openaq
from aqnet.verification.stations.tables import read_observations, utc_hours, write_observations
from aqnet.verification.store.reader import open_forecast_store

TABLE = """id,name,lat,lon,elevation_m,network,class,withheld
1001A,Wanshou,39.8784,116.352,44,CNEMC,urban,false
1002A,Dingling,40.2865,116.17,,CNEMC,background,TRUE
007,Leading zeros,38.5,105.2,900,other,rural,false
"""
LINES = """station,time,pollutant,value,unit
1001A,2018-01-01T08:00+08:00,pm25,35.5,ug/m3
1001A,2018-01-01T00:00Z,co,1.2,mg/m3
1002A,2018-01-01T02:00Z,pm25,0.00000002,kg m-3
007,2017-12-31T23:00-01:00,o3,80,µg/m³
"""


def folder(tmp_path, table=TABLE, lines=LINES):
    (tmp_path / "stations.csv").write_text(table)
    (tmp_path / "observations.csv").write_text(lines)
    return tmp_path


def places(lat, lon, **changes):
    """Stations at some places."""
    count = len(lat)
    columns = {
        "ids": [f"s{i}" for i in range(count)],
        "names": [""] * count,
        "lat": lat,
        "lon": lon,
        "elevation_m": [100.0] * count,
        "networks": ["made up"] * count,
        "classes": ["unknown"] * count,
        "withheld": [False] * count,
    }
    return Stations(**columns | changes)


# ---- tables


def test_zones_and_units_are_brought_together(tmp_path):
    found = read_observations(folder(tmp_path))
    assert found.times[0] == np.datetime64("2018-01-01T00") and len(found.times) == 3
    known = {(str(found.times[t]), TARGETS[p], str(found.stations.ids[s])): found.values[t, p, s]
             for t, p, s in np.argwhere(np.isfinite(found.values))}  # fmt: skip
    assert known == pytest.approx({
        ("2018-01-01T00", "pm25", "1001A"): 35.5, ("2018-01-01T00", "co", "1001A"): 1200,
        ("2018-01-01T02", "pm25", "1002A"): 20, ("2018-01-01T00", "o3", "007"): 80,
    })  # fmt: skip
    assert found.stations.withheld.tolist() == [False, True, False]
    assert np.isnan(found.stations.elevation_m).tolist() == [False, True, False]
    at = found.at(np.array([["2018-01-01T02", "2019-01-01T00"]], "datetime64[h]"))
    assert at.shape == (1, 2, 6, 3) and at[0, 0, 0, 1] == pytest.approx(20)
    assert np.isnan(at[0, 1]).all()


def test_what_is_written_is_read_again(tmp_path):
    first = read_observations(folder(tmp_path))
    write_observations(first, tmp_path / "again")
    write_observations(first, tmp_path / "twice")
    again = read_observations(tmp_path / "again")
    np.testing.assert_array_equal(first.values, again.values)
    for name, values in first.stations.__dict__.items():
        np.testing.assert_array_equal(values, getattr(again.stations, name))
    files = [(tmp_path / n / "observations.csv.gz").read_bytes() for n in ("again", "twice")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        (("T00:00Z,co", "T00:00,co"), TimeZoneError, "no zone"),
        (("T00:00Z,co", "T00:30Z,co"), TimeZoneError, "not a whole hour"),
        (("2018-01-01T00:00Z,co", "2018-13-01T00:00Z,co"), TimeZoneError, "no time"),
        (("1.2,mg/m3", "1.2,ppm"), UnitError, "ppm"),
        (("1.2,mg/m3", "1.2,"), UnitError, "nan"),
        (("007,2017", "7,2017"), StationFileError, "unknown stations"),
        ((",o3,80", ",nh3,80"), StationFileError, "unknown pollutants"),
        ((",o3,80", ",o3,many"), StationFileError, "no number"),
        ((",o3,80", ",o3,8000"), FieldError, "outside their valid range(.|\n)*8000 ug/m3 at 007"),
        (("value,unit", "value,units"), StationFileError, "columns are missing: unit"),
        (("007,2017-12-31T23:00-01:00,o3", "1001A,2018-01-01T00:00Z,pm25"), StationFileError,
         "given twice"),
    ],
)  # fmt: skip
def test_bad_observations_have_names(tmp_path, change, error, word):
    assert change[0] in LINES
    with pytest.raises(error, match=word):
        read_observations(folder(tmp_path, lines=LINES.replace(*change)))


@pytest.mark.parametrize(
    ("change", "word"),
    [(("007,", "1001A,"), "given twice"), (("39.8784", "139.8784"), "off the globe"),
     (("urban", "city"), "class is unknown"), (("TRUE", "maybe"), "no truth value"),
     (("39.8784", "north"), "no number"), ((",network", ",net"), "columns are missing: network")],
)  # fmt: skip
def test_bad_tables_have_names(tmp_path, change, word):
    assert change[0] in TABLE
    with pytest.raises(StationFileError, match=word):
        read_observations(folder(tmp_path, table=TABLE.replace(*change)))


def test_invalid_values_may_be_left_out_and_are_counted(tmp_path):
    found = read_observations(folder(tmp_path, lines=LINES.replace(",o3,80", ",o3,8000")),
                              invalid="missing")  # fmt: skip
    assert found.dropped == 1 and np.isfinite(found.values).sum() == 3


def test_missing_files(tmp_path):
    with pytest.raises(StationFileError, match="no table of stations"):
        read_observations(tmp_path)
    (tmp_path / "stations.csv").write_text(TABLE)
    with pytest.raises(StationFileError, match="no observations"):
        read_observations(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.integers(-12, 14), st.integers(0, 400_000))
def test_zones(offset, hour):
    local = np.datetime64(hour + offset, "h")
    text = f"{local}:00{'+' if offset >= 0 else '-'}{abs(offset):02d}:00"
    assert utc_hours([text], "here")[0] == np.datetime64(hour, "h")


def test_an_absent_time_is_refused():
    with pytest.raises(TimeZoneError, match="no zone"):
        utc_hours(["2018-01-01T00:00Z", float("nan"), "2018-01-01T05:00Z"], "here")


@pytest.mark.parametrize("column", ["lat", "classes", "withheld"])
def test_columns_of_other_lengths_are_refused(column):
    whole = vars(places([36.0, 37.0, 38.0], [103.0, 104.0, 105.0]))
    with pytest.raises(StationFileError, match="lengths differ"):
        Stations(**whole | {column: whole[column][:2]})


# ---- networks


def test_china_daily(tmp_path):
    (tmp_path / "stations.csv").write_text(TABLE)
    for day in ("20180831", "20180901"):
        rows = ["date,hour,type,1001A,1002A,9999A"]
        for hour in (0, 23):
            rows += [f"{day},{hour},AQI,50,60,70", f"{day},{hour},PM2.5,35,,1",
                     f"{day},{hour},PM2.5_24h,30,30,1", f"{day},{hour},CO,0.8,1.5,1",
                     f"{day},{hour},O3,100,50,1"]  # fmt: skip
        (tmp_path / f"china_sites_{day}.csv").write_text("\n".join(rows))
    files = sorted(tmp_path.glob("china_sites_*.csv"))
    found = from_china_daily(files, tmp_path / "stations.csv")
    assert found.times[0] == np.datetime64("2018-08-30T16")  # 0 h of 31 August, Beijing time
    value = dict(zip(TARGETS, found.values[0, :, 0], strict=True))
    assert value["pm25"] == 35 and value["co"] == pytest.approx(800) and value["o3"] == 100
    later = dict(zip(TARGETS, found.values[24, :, 0], strict=True))
    assert later["pm25"] == 35  # particles are not at a reference state
    assert later["o3"] == pytest.approx(100 * 298.15 / 273.15, rel=1e-6)
    assert np.isnan(found.values[0, 0, 1]) and np.isnan(found.values[:, :, 2]).all()
    (tmp_path / "bad.csv").write_text("day,hour,type,1001A\n")
    with pytest.raises(StationFileError, match="date"):
        from_china_daily([tmp_path / "bad.csv"], tmp_path / "stations.csv")
    (tmp_path / "alien.csv").write_text("date,hour,type,9999A\n20180101,0,O3,1\n")
    with pytest.raises(StationFileError, match="no station of the files"):
        from_china_daily([tmp_path / "alien.csv"], tmp_path / "stations.csv")


def test_openaq(tmp_path):
    head = "location_id,sensors_id,location,datetime,lat,lon,parameter,units,value\n"
    rows = [
        '7,1,"Park, north",2022-05-03T01:00:00+08:00,40.0,116.0,pm25,µg/m³,40',
        '7,2,"Park, north",2022-05-03T01:00:00+08:00,40.0,116.0,pm25,µg/m³,60',
        "7,3,Park,2022-05-03T01:00:00+08:00,40.0,116.0,o3,µg/m³,91.615",
        "7,4,Park,2022-05-03T01:00:00+08:00,40.0,116.0,relativehumidity,%,30",
        "7,5,Park,2022-05-03T01:00:00+08:00,40.0,116.0,no2,µg/m³,-999",
    ]
    file = tmp_path / "location-7-20220503.csv.gz"
    file.write_bytes(gzip.compress((head + "\n".join(rows)).encode()))
    found = from_openaq([file], "298K")
    assert found.times.tolist() == [np.datetime64("2022-05-02T17").item()]
    assert found.values[0, :, 0] == pytest.approx([50, np.nan, np.nan, np.nan, np.nan, 100],
                                                  nan_ok=True, rel=1e-5)  # fmt: skip
    ratio = tmp_path / "ratio.csv"
    ratio.write_text(head + "8,1,A,2022-05-03T01:00:00Z,40,116,o3,ppm,0.05\n")
    with pytest.raises(UnitError, match="mixing ratio"):
        from_openaq([ratio], "273K")
    value = from_openaq([ratio], "273K", gas_ratio="273K").values[0, 5, 0]
    assert value == pytest.approx(50 * 47.997 / 22.414, rel=1e-6)
    ratio.write_text(head + "8,1,A,2022-05-03T01:00:00,40,116,o3,ppm,0.05\n")
    with pytest.raises(TimeZoneError, match="no zone"):
        from_openaq([ratio], "273K", gas_ratio="273K")


def test_beijing(manifest, stations):
    found = from_beijing(manifest)
    assert len(found.stations) == 12 and found.values.shape == (35_064, 6, 12)
    assert found.times[0] == stations["time"].values[0].astype("datetime64[h]")
    np.testing.assert_array_equal(found.values[:, 5], stations["o3"].values.astype(np.float32))
    assert found.stations.withheld.sum() == len(manifest.withheld_stations) > 0


# ---- sampling


def test_bilinear_as_the_grid_and_nearest_as_the_cell():
    rng = np.random.default_rng(0)
    grid, mask = GRIDS["beijing"], np.ones((16, 16), bool)
    lat, lon = rng.uniform(39.73, 40.4, 30), rng.uniform(116.03, 116.7, 30)
    field = rng.gamma(2, 20, (3, 2, 256)).astype(np.float32)
    cells, weights = grid.bilinear(lat, lon)
    found = sample_stations(grid, mask, places(lat, lon))
    np.testing.assert_allclose(found(field), (field[..., cells] * weights).sum(-1), rtol=1e-5)
    near = sample_stations(grid, mask, places(lat, lon), "nearest")
    away = distance_km(*(a.ravel()[:, None] for a in grid.mesh()), lat, lon)
    centre = np.abs(grid.lat[:, None] - lat).argmin(0) * 16 + np.abs(
        grid.lon[:, None] - lon
    ).argmin(0)
    np.testing.assert_array_equal(near.cell, centre)
    np.testing.assert_array_equal(near(field), field[..., centre])
    np.testing.assert_allclose(near.distance_km, away[centre, np.arange(30)], rtol=1e-9)


def test_the_mask_counts_and_is_shown(tmp_path):
    # rows from north to south, 1 degree; the corner of rows 0-2 and columns 0-4 has no cells
    mask, elevation = small_mask(), np.full(GRID.shape, 250.0)
    at = places([39.6, 39.3], [104.6, 106.0])
    found = sample_stations(GRID, mask, at, elevation_m=elevation)
    assert found.share == pytest.approx([0.4 + 0.6 * 0.6, 1.0])
    assert found.height_difference_m.tolist() == [-150, -150]
    store = open_forecast_store(small_store(tmp_path / "f.zarr", count=2))
    values = store.read(slice(0, 2), None, "pm25", cells=True)
    sampled = found(values)
    assert sampled.shape == (2, 2, 2) and np.isfinite(sampled).all()
    whole = store.read(0, 12, "pm25")
    weights = np.array([[0, 0.6 * 0.6], [0.4 * 0.4, 0.4 * 0.6]])
    expected = np.nansum(whole[2:4, 4:6] * weights) / weights.sum()
    assert sampled[0, 0, 0] == pytest.approx(expected, rel=1e-5)
    line = found.table()[0]
    assert line["id"] == "s0" and line["share"] == 0.76 and line["distance_km"] > 0


def test_stations_outside_are_refused_or_dropped():
    lat, lon = [42.4, 41.0, 30.0, 38.0], [105.0, 101.0, 105.0, 105.0]
    for method, reasons in (
        ("nearest", {"s1": "outside the mask", "s2": "outside the grid"}),
        ("bilinear", {"s0": "outside the outermost cell centres", "s1": "outside the mask",
                      "s2": "outside the outermost cell centres"}),
    ):  # fmt: skip
        with pytest.raises(GridError, match=f"{len(reasons)} stations cannot be sampled"):
            sample_stations(GRID, small_mask(), places(lat, lon), method)
        found = sample_stations(GRID, small_mask(), places(lat, lon), method, outside="drop")
        assert found.dropped == reasons
        assert found.stations.ids.tolist() == [f"s{i}" for i in range(4) if f"s{i}" not in reasons]
    with pytest.raises(CoverageError, match="no station"):
        sample_stations(GRID, small_mask(), places([0.0], [0.0]), outside="drop")
    with pytest.raises(ValueError, match="method"):
        sample_stations(GRID, small_mask(), places(lat, lon), "cubic")


def test_table_of_pandas_types(tmp_path):
    """Numbers as ids stay text: 007 is not 7."""
    found = read_observations(folder(tmp_path))
    assert found.stations.ids.tolist() == ["1001A", "1002A", "007"]
    assert pd.Index(found.stations.ids).is_unique
