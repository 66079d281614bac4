"""Packing of UCI CSV files: nothing is lost, and files that are not right are refused."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.manifest import load_manifest
from aqnet.data.stations.packing import (
    COLUMNS,
    _pack_column,
    pack_uci_csv,
    published_text,
    published_values,
    read_packed,
)
from aqnet.errors import DataError, StationFileError
from aqnet.variables import SECTORS

STATIONS = ("Alpha", "Beta", "Gamma")
START, END = "2013-03-01T00", "2013-03-03T23"
# Texts of every kind that the published files hold.
KINDS = {
    "PM2.5": ("4", "999", "38.5", "NA"),
    "PM10": ("2", "999", "7.2", "NA"),
    "SO2": ("4", "0.2856", "22.848", "500", "NA"),
    "NO2": ("7", "1.0265", "112.0938", "NA"),
    "CO": ("300", "10000", "NA"),
    "O3": ("77", "0.2142", "1071", "321.3", "NA"),
    "TEMP": ("-0.7", "0", "-0.0333333333333333", "41.6", "-1.11022302462516e-16", "5.45", "NA"),
    "PRES": ("1023", "1023.2", "1008.33333333333", "991.25", "NA"),
    "DEWP": ("-18.8", "0", "29.1", "NA"),
    "RAIN": ("0", "72.5", "NA"),
    "WSPM": ("4.4", "0", "13.2", "NA"),
    "wd": (*SECTORS, "NA"),
}


def table(station: str, seed: int) -> pd.DataFrame:
    """Texts as in a file of UCI 501."""
    rng = np.random.default_rng(seed)
    hours = pd.date_range(START, END, freq="h")
    columns = {"No": np.arange(1, len(hours) + 1).astype(str)}
    columns |= {part: getattr(hours, part).astype(str) for part in ("year", "month", "day", "hour")}
    columns |= {name: rng.choice(texts, len(hours)) for name, texts in KINDS.items()}
    return pd.DataFrame(columns | {"station": station})


def write(folder: Path, tables: dict[str, pd.DataFrame]) -> Path:
    """CSV files with CRLF line ends, one of them compressed, and the coordinates."""
    folder.mkdir(exist_ok=True)
    for i, (station, content) in enumerate(tables.items()):
        text = content.to_csv(index=False, lineterminator="\r\n").encode()
        name = f"PRSA_Data_{station}_20130301-20170228.csv"
        if i == 0:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text))
        else:
            (folder / name).write_bytes(text)
    places = "station,lat,lon\n" + "".join(
        f"{s},{40 + i},{116 + i}\n" for i, s in enumerate(tables)
    )
    (folder / "places.csv").write_text(places)
    return folder


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return {station: table(station, seed) for seed, station in enumerate(STATIONS)}


def pack(folder: Path) -> xr.Dataset:
    pack_uci_csv(folder, folder / "places.csv", folder / "out.nc", start=START, end=END)
    with xr.open_dataset(folder / "out.nc", mask_and_scale=False, decode_times=False) as packed:
        return packed.load()


def test_every_text_comes_back(tmp_path, tables):
    packed = pack(write(tmp_path / "csv", tables))
    assert packed["station"].values.tolist() == list(STATIONS)
    for name in KINDS:
        expected = np.stack([tables[s][name].to_numpy(object) for s in STATIONS], 1)
        np.testing.assert_array_equal(published_text(packed, name), expected)
    # only temperature and pressure have values that the compact form cannot hold
    lists = {name.removesuffix("_long_at") for name in packed if name.endswith("_long_at")}
    assert lists == {"TEMP", "PRES"}


def test_other_programs_read_the_usual_way(tmp_path, tables):
    folder = write(tmp_path / "csv", tables)
    pack(folder)
    with xr.open_dataset(folder / "out.nc") as usual:
        assert usual.time.values[0] == np.datetime64("2013-03-01T00")
        assert usual["PM2.5"].attrs["units"] == "ug/m3"
        assert usual["wd"].attrs["flag_meanings"].split() == list(SECTORS)
        missing = tables["Beta"]["PM2.5"] == "NA"
        np.testing.assert_array_equal(np.isnan(usual["PM2.5"].sel(station="Beta")), missing)
        np.testing.assert_allclose(usual["TEMP"].max(), 41.6, rtol=1e-6)
        # the packed temperature alone is within half a tenth of the published one
        exact = pd.to_numeric(tables["Beta"]["TEMP"], errors="coerce")
        assert np.nanmax(np.abs(usual["TEMP"].sel(station="Beta") - exact)) <= 0.051


def test_packing_is_reproducible(tmp_path, tables):
    folder = write(tmp_path / "csv", tables)
    pack(folder)
    first = (folder / "out.nc").read_bytes()
    time.sleep(1.1)  # a time stamp in the file would have a resolution of a second
    pack(folder)
    assert (folder / "out.nc").read_bytes() == first


@given(
    st.lists(st.floats(-3000, 3000, width=64), min_size=1, max_size=20),
    st.sampled_from(["TEMP", "O3"]),
)
@settings(max_examples=200, deadline=None)
def test_any_number_of_15_digits_comes_back(values, column):
    texts = np.array([[f"{value:.15g}"] for value in values], dtype=object)
    texts[texts == "-0"] = "0"
    packed = xr.Dataset(_pack_column(column, texts))
    np.testing.assert_array_equal(published_text(packed, column), texts)


def refused(folder: Path) -> str:
    with pytest.raises(StationFileError) as caught:
        pack(folder)
    assert not (folder / "out.nc").exists()
    assert not list(folder.glob(".out*")), "a temporary file is left"
    text = str(caught.value)
    assert all(part in text for part in ("expected:", "found:", "remedy:"))
    return text


@pytest.mark.parametrize("column", [*KINDS, "hour", "station"])
def test_missing_column(tmp_path, tables, column):
    tables["Beta"] = tables["Beta"].drop(columns=column)
    text = refused(write(tmp_path / "csv", tables))
    assert "PRSA_Data_Beta" in text and f"column {column} is missing" in text
    assert "WSPM, No" in text  # what was expected


def test_missing_and_doubled_file(tmp_path, tables):
    folder = write(tmp_path / "csv", tables)
    beta = next(folder.glob("PRSA_Data_Beta*"))
    (folder / "PRSA_Data_Beta_copy.csv").write_bytes(beta.read_bytes())
    assert "PRSA_Data_Beta_copy.csv" in refused(folder)
    for path in folder.glob("PRSA_Data_Beta*"):
        path.unlink()
    assert "station Beta" in refused(folder)


def test_wrong_number_of_rows(tmp_path, tables):
    tables["Gamma"] = tables["Gamma"].iloc[:-1]
    text = refused(write(tmp_path / "csv", tables))
    assert "PRSA_Data_Gamma" in text and "71 rows" in text and "72 hours" in text


def test_rows_out_of_order(tmp_path, tables):
    content = tables["Gamma"].to_numpy()
    content[[10, 11]] = content[[11, 10]]
    tables["Gamma"] = pd.DataFrame(content, columns=tables["Gamma"].columns)
    assert "row 11 is not the next hour" in refused(write(tmp_path / "csv", tables))


def test_wrong_station_inside_the_file(tmp_path, tables):
    tables["Beta"] = tables["Beta"].assign(station="Gamma")
    assert "wrong station name" in refused(write(tmp_path / "csv", tables))


@pytest.mark.parametrize(("column", "text"), [("SO2", " "), ("PM10", "12.50"), ("wd", "NX")])
def test_edited_values(tmp_path, tables, column, text):
    tables["Beta"].loc[5, column] = text
    assert repr(text) in refused(write(tmp_path / "csv", tables))


def test_coordinates_file(tmp_path, tables):
    folder = write(tmp_path / "csv", tables)
    (folder / "places.csv").write_text("station,latitude,lon\nAlpha,40,116\n")
    assert "column lat is missing" in refused(folder)
    (folder / "places.csv").unlink()
    assert "no such file" in refused(folder)


# Missing shares published with the data set, in %, rounded to two decimals.
SHARES = {
    ("Aotizhongxin", "PM2.5"): 2.64,
    ("Dongsi", "CO"): 9.12,
    ("Wanliu", "O3"): 6.01,
    ("Shunyi", "wd"): 1.38,
    ("Wanshouxigong", "RAIN"): 0.05,
    ("Gucheng", "WSPM"): 0.12,
    ("Huairou", "NO2"): 4.67,
    ("Dingling", "PRES"): 0.14,
}


@pytest.mark.parametrize(("where", "percent"), SHARES.items())
def test_shipped_file_misses_what_the_source_misses(manifest, where, percent):
    packed = read_packed(manifest)
    text = published_text(packed, where[1])[:, manifest.stations.index(where[0])]
    assert round(100 * np.mean(text == "NA"), 2) == percent


def test_shipped_file_holds_published_lines(manifest):
    packed = read_packed(manifest)
    last = [published_text(packed, c)[-1, manifest.stations.index("Huairou")] for c in COLUMNS]
    assert last == ["11", "20", "2", "27", "400", "77", "6.7", "1009.3", "-13.6", "0", "1.9"]
    assert published_text(packed, "wd")[-1, manifest.stations.index("Huairou")] == "NE"
    assert np.nanmax(published_values(packed, "PM2.5")) == 999
    assert np.nanmax(published_values(packed, "O3")) == 1071


def test_manifest_with_another_period_or_stations(manifest):
    period = manifest.period.model_copy(update={"start": manifest.period.end})
    with pytest.raises(DataError, match="1 hours at"):
        read_packed(manifest.model_copy(update={"period": period}))
    with pytest.raises(DataError, match="Atlantis"):
        read_packed(manifest.model_copy(update={"stations": ("Atlantis",)}))


def test_manifest_loaded_elsewhere_finds_its_files(manifest, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_packed(load_manifest(manifest.path("stations").parents[1] / "beijing.yaml")).sizes
