"""Terrain, people, borders and winds of China: conservation, orientation, plausible numbers."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.geography import (
    area_overlap,
    china_polygon,
    china_static,
    geography_folder,
    monthly_winds,
    outlines,
    polygon_share,
)
from aqnet.data.pack_geography import pack_geography
from aqnet.errors import ChecksumError, CoverageError, DataError
from aqnet.grid import GRIDS, Grid

CHINA = GRIDS["china_64x128"]


@pytest.fixture(scope="module")
def china() -> xr.Dataset:
    """Static fields on the default grid."""
    return china_static(GRIDS["china"])


# ---- numbers that are known


def test_area_and_people_of_china(china):
    area = GRIDS["china"].cell_area_km2
    # Natural Earth's China with Taiwan, Hong Kong and Macao: 9.42e6 km2.
    assert (area * china.china_share.values).sum() == pytest.approx(9.42e6, rel=5e-3)
    assert area[china.mask.values].sum() == pytest.approx(9.42e6, rel=1e-2)
    # GPWv4.11, year 2020, inside the border: 1.45e9 persons.
    persons = (area * china.population.values)[china.mask.values].sum()
    assert persons == pytest.approx(1.45e9, rel=2e-2)


def test_shapes_units_and_types(china):
    assert china.attrs["missing"] == "" and china.attrs["grid_digest"] == GRIDS["china"].digest
    assert {n: str(china[n].dtype) for n in china} == {
        "elevation": "float32", "population": "float32", "china_share": "float64", "mask": "bool",
    }  # fmt: skip
    assert china.elevation.units == "m" and china.population.units == "persons/km2"
    assert "MIT" in china.elevation.licence and "CC BY" in china.population.licence
    assert china.elevation.dims == ("lat", "lon") and china.elevation.shape == (128, 256)
    share = china.china_share.values
    assert share.min() == 0 and share.max() == 1
    np.testing.assert_array_equal(china.mask.values, share >= 0.5)


def at(field: xr.DataArray, lat: float, lon: float) -> float:
    return float(field.sel(lat=lat, lon=lon, method="nearest"))


def test_places(china):
    # northern Tibet, the Sichuan basin, the Turpan depression, the plain, the Pacific
    tibet = china.elevation.sel(lat=slice(30, 35), lon=slice(82, 95))
    assert 4700 < float(tibet.mean()) < 5200
    assert 250 < at(china.elevation, 30.6, 104.5) < 600
    assert at(china.elevation, 42.8, 89.2) < 400
    assert at(china.elevation, 36.0, 115.5) < 80
    assert at(china.elevation, 25.0, 130.0) == 0 and at(china.population, 25.0, 130.0) == 0
    assert at(china.population, 31.23, 121.4) > 5000 and at(china.population, 39.9, 116.4) > 5000
    assert at(china.population, 38.5, 83.0) < 1  # Taklamakan
    inside = ((39.9, 116.4), (43.8, 87.6), (23.7, 121.0), (19.2, 109.7), (29.7, 91.1))
    outside = ((47.9, 106.9), (37.5, 127.0), (21.0, 105.8), (27.7, 85.3), (35.0, 125.0))
    assert all(at(china.china_share, *p) == 1 for p in inside)
    assert all(at(china.china_share, *p) == 0 for p in outside)


def test_no_town_in_the_sea(china):
    # The source counts by land: an islet off Yantai has 14,785 persons per km2 of its land.
    sea = china.population.sel(lat=slice(37.4, 37.8), lon=slice(121.5, 121.8))
    assert float(sea.max()) < 1000


def test_the_reference_grid_misses_the_south_and_says_so():
    grid = GRIDS["reference"]
    static = china_static(grid)
    gone = np.isnan(static.elevation.values)
    # The terrain begins at 14.875 N, the population at 15 N: only cells fully inside have values.
    south = grid.mesh()[0] - 43 / 256 < 14.875
    np.testing.assert_array_equal(gone, south)
    assert gone[-1].all() and not gone[0].any()
    text = static.attrs["missing"]
    assert f"elevation: {gone.sum()} cells" in text and "population" in text and "10.17" in text
    assert not static.mask.values[gone].any()
    assert np.isfinite(static.china_share).all()


def test_a_grid_elsewhere_is_an_error():
    africa = Grid("africa", 0.5 + np.arange(5), 20.5 + np.arange(5))
    with pytest.raises(CoverageError, match="no static field reaches the grid africa"):
        china_static(africa)


# ---- properties


@settings(deadline=None, max_examples=4)
@given(st.booleans(), st.booleans())
def test_a_flipped_grid_gives_flipped_fields(rows, cols):
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in (rows, cols))
    grid = GRIDS["china_32x64"]
    one = china_static(grid)
    two = china_static(Grid("flipped", grid.lat[turn[0]], grid.lon[turn[1]]))
    for name in one.data_vars:
        wide = one[name].values.astype(float)
        np.testing.assert_allclose(two[name].values.astype(float), wide[turn], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(two.lat, one.lat[turn[0]])


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=8),
    st.lists(st.floats(0.01, 3), min_size=1, max_size=8),
    st.floats(-2, 2),
    st.booleans(),
    st.booleans(),
)
def test_overlap_of_intervals(a, b, shift, flip_a, flip_b):
    one, two = np.cumsum([0.0, *a]), np.cumsum([shift, *b])
    one, two = one[:: -1 if flip_a else 1], two[:: -1 if flip_b else 1]
    shared = area_overlap(one, two)
    assert shared.shape == (len(a), len(b)) and (shared >= 0).all()
    common = max(0.0, min(one.max(), two.max()) - max(one.min(), two.min()))
    assert shared.sum() == pytest.approx(common, abs=1e-9)
    assert (shared.sum(1) <= np.abs(np.diff(one)) + 1e-9).all()
    np.testing.assert_allclose(area_overlap(two, one), shared.T)


def test_people_and_volume_are_conserved(china):
    """Blocks of the fine grid give the coarse one: sums over the same area are the same."""
    fine, coarse = GRIDS["china"].cell_area_km2, CHINA.cell_area_km2
    rough = china_static(CHINA)
    for name in ("elevation", "population", "china_share"):
        total = (fine * china[name].values).reshape(64, 2, 128, 2).sum((1, 3))
        np.testing.assert_allclose(coarse * rough[name].values, total, rtol=2e-5, atol=1e-3)


def test_persons_of_the_source_are_those_of_the_grid(china):
    with xr.open_dataset(geography_folder() / "geography.nc") as source:
        source = source.load()
    cells = Grid("source", source.lat_population.values, source.lon_population.values)
    whole = np.nan_to_num(source.population.values) * source.land_share.values
    lat, lon = GRIDS["china"].edges()
    south, north, west, east = lat.min(), lat.max(), lon.min(), lon.max()
    sine = np.sin(np.deg2rad(cells.edges()[0]))
    limits = np.sin(np.deg2rad([south, north]))
    part = area_overlap(limits, sine)[0] / np.diff(sine)
    part = np.outer(part, area_overlap([west, east], cells.edges()[1])[0] / 0.25)
    expected = (whole * cells.cell_area_km2 * part).sum()
    found = (china.population.values * GRIDS["china"].cell_area_km2).sum()
    assert found == pytest.approx(expected, rel=1e-6)
    # A grid whose cells are those of the source gets its values.
    same = china_static(cells)
    np.testing.assert_allclose(same.population, whole, rtol=1e-6, atol=1e-6)


def test_share_of_a_polygon_with_a_known_area():
    grid = Grid("small", 30.5 + np.arange(4), 100.5 + np.arange(4))
    share = polygon_share(shapely.box(100.25, 30.0, 102.0, 32.5), grid)
    half = (np.sin(np.deg2rad(32.5)) - np.sin(np.deg2rad(32))) / (
        np.sin(np.deg2rad(33)) - np.sin(np.deg2rad(32))
    )
    np.testing.assert_allclose(share[0], [0.75, 1, 0, 0])
    np.testing.assert_allclose(share[2], [0.75 * half, half, 0, 0])
    assert half > 0.5 and not share[3].any()
    hole = shapely.box(100, 30, 104, 34) - shapely.box(101.2, 31.0, 101.7, 32.0)
    assert polygon_share(hole, grid)[1, 1] == pytest.approx(0.5)
    assert polygon_share(shapely.box(10, 10, 11, 11), grid).sum() == 0


def test_the_default_grid_takes_less_than_three_seconds():
    began = time.process_time()  # of this process: other work on the machine does not count
    china_static(GRIDS["china"])
    assert time.process_time() - began < 3


# ---- lines and winds


def test_polygon_is_the_union_of_four_features():
    shape = china_polygon()
    assert shape.is_valid
    for lon, lat in ((116.4, 39.9), (121.0, 23.7), (114.15, 22.4), (79.5, 35.3)):
        assert shape.contains(shapely.Point(lon, lat))
    # de-facto lines: Arunachal Pradesh is outside
    assert not shape.contains(shapely.Point(94.5, 28.2))


def test_outlines_are_lines_around_china():
    lines = outlines()
    assert all(line.ndim == 2 and line.shape[1] == 2 and len(line) >= 2 for line in lines)
    points = np.concatenate(lines)
    assert points[:, 0].min() >= 68 and points[:, 0].max() <= 142
    assert points[:, 1].min() >= 8 and points[:, 1].max() <= 57
    # a coast near Shanghai and a land boundary at Khorgas
    for lon, lat in ((121.9, 30.9), (80.4, 44.2)):
        assert np.hypot(*(points - (lon, lat)).T).min() < 0.3


def test_winds_are_those_of_the_monsoon():
    winds = monthly_winds()
    assert winds.u.dims == winds.v_std.dims == ("month", "lat", "lon")
    assert winds.u_850.dims == ("month_aloft", "lat_aloft", "lon_aloft")
    assert winds.month.values.tolist() == list(range(1, 13))
    assert winds.month_aloft.values.tolist() == [1, 7]
    assert (np.diff(winds.lat) > 0).all() and (np.diff(winds.lat_aloft) > 0).all()
    assert all(winds[name].attrs["units"] == "m/s" for name in winds.data_vars)
    assert all(np.isfinite(winds[name]).all() for name in winds.data_vars)
    sea = winds.v.sel(lat=20, lon=117.5)  # South China Sea: north-easterlies, then southerlies
    assert sea.sel(month=1) < -2 and sea.sel(month=7) > 1
    aloft = winds.u_850.sel(lat_aloft=39.75, lon_aloft=120)
    assert aloft.sel(month_aloft=1) > 3  # westerlies over northern China in winter
    assert float(winds.u_std.min()) >= 0 and 0.3 < float(winds.u_std.mean()) < 3


# ---- files


def test_shipped_files_are_small_and_credited():
    folder = geography_folder()
    names = {path.name for path in folder.iterdir()}
    data = {"geography.nc", "winds.nc", "china.geojson", "outlines.geojson"}
    assert names == data | {"files.json", "LICENCE-DATA.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    text = (folder / "LICENCE-DATA.md").read_text()
    for word in (*data, "de facto", "KnowAir", "pvlib", "10.7927/H49C6VHW", "CC BY 4.0",
                 "Natural Earth", "FNOC", "ERA-Interim", "Mapzen"):  # fmt: skip
        assert word in text


def test_a_changed_or_missing_file_is_an_error(tmp_path):
    folder = tmp_path / "china"
    shutil.copytree(geography_folder(), folder)
    assert china_static(GRIDS["beijing"], folder).mask.values.all()
    content = bytearray((folder / "china.geojson").read_bytes())
    content[1000] ^= 1
    (folder / "china.geojson").write_bytes(content)
    with pytest.raises(ChecksumError, match=r"china\.geojson is not the file that was packed"):
        china_static(GRIDS["beijing"], folder)
    (folder / "winds.nc").unlink()
    with pytest.raises(DataError, match=r"missing: .*winds\.nc"):
        monthly_winds(folder)


# ---- packing


def sources(folder) -> list:
    """Small made-up sources in the layout of the real ones."""
    lat, lon = 54.875 - 0.25 * np.arange(160), 70.125 + 0.25 * np.arange(280)  # north first
    people = np.full((160, 280), 100.0)
    people[:, lon > 120] = np.nan
    density = xr.Dataset({"popdens": (("lat", "lon"), people)}, {"lat": lat, "lon": lon})
    density.to_netcdf(folder / "people.nc")
    lat, lon = 15 + 0.25 * np.arange(161), 70 + 0.25 * np.arange(281)
    z = 1000 + 200 * (lat[:, None] - 15) + 0 * lon
    xr.Dataset({"z": (("lat", "lon"), z)}, {"lat": lat, "lon": lon}).to_netcdf(folder / "z.nc")
    names = ("China", "Taiwan", "Hong Kong", "Macao", "another")
    boxes = [shapely.box(80 + 5 * k, 30, 84 + 5 * k, 34) for k in range(5)]
    features = [
        {"properties": {"name": n}, "geometry": json.loads(shapely.to_geojson(b))}
        for n, b in zip(names, boxes, strict=True)
    ]
    (folder / "polygons.geojson").write_text(json.dumps({"features": features}))
    lines = {"coastline": [[[120.0, 0.0], [120.0, 60.0]]], "land boundary": [[[80, 30], [90, 30]]]}
    features = [
        {"properties": {"kind": k}, "geometry": {"type": "MultiLineString", "coordinates": c}}
        for k, c in lines.items()
    ]
    (folder / "lines.geojson").write_text(json.dumps({"features": features}))
    times = np.arange("1982-01", "1985-01", dtype="datetime64[M]").astype("datetime64[ns]")
    shape, place = (36, 3, 4), {"lat": [40.0, 30.0, 20.0], "lon": [90.0, 100.0, 110.0, 120.0]}
    month = np.arange(36) % 12 + 1.0
    year = np.arange(36) // 12 - 1.0  # -1, 0, 1: a standard deviation of 1
    u = np.broadcast_to((month + year)[:, None, None], shape)
    north = np.broadcast_to(np.array([40.0, 30.0, 20.0])[None, :, None], shape)
    data = {"u": (("time", "lat", "lon"), u), "v": (("time", "lat", "lon"), north)}
    xr.Dataset(data, {"time": times, **place}).to_netcdf(folder / "surface.nc")
    there = ("month", "level", "lat", "lon")
    level = np.broadcast_to(np.array([500.0, 850.0])[None, :, None, None], (2, 2, 3, 4)) / 100
    data = {"u": (there, level), "v": (there, -level)}
    xr.Dataset(data, {"month": [1, 7], "level": [500, 850], **place}).to_netcdf(folder / "up.nc")
    order = ("z.nc", "people.nc", "polygons.geojson", "lines.geojson", "surface.nc", "up.nc")
    return [folder / name for name in order]


def test_packing_round_trip(tmp_path):
    paths = sources(tmp_path)
    pack_geography(*paths, tmp_path / "one")
    pack_geography(*paths, tmp_path / "two")
    digests = [(tmp_path / name / "files.json").read_text() for name in ("one", "two")]
    assert digests[0] == digests[1] and len(json.loads(digests[0])) == 4
    static = china_static(CHINA, tmp_path / "one")
    lat2d = CHINA.mesh()[0]
    inside = (lat2d > 17.5) & (lat2d < 54)
    # The source is a staircase of 0.25 degrees: within 0.05 degrees of the slope on these cells.
    slope = (1000 + 200 * (lat2d - 15))[inside]
    np.testing.assert_allclose(static.elevation.values[inside], slope, atol=10.0)
    # 100 persons per km2 of land west of 120 E; the cell across the coast has its share of them
    edges = CHINA.edges()[1]
    coast = int(np.searchsorted(edges, 120.0)) - 1
    np.testing.assert_allclose(static.population[:, :coast], 100.0, rtol=1e-3)
    assert not static.population.values[:, coast + 1 :].any()
    expected = 100 * (120 - edges[coast]) / (edges[coast + 1] - edges[coast])
    np.testing.assert_allclose(static.population[:, coast], expected, rtol=1e-3)
    share = static.china_share.values * CHINA.cell_area_km2
    box = 6371.0**2 * np.deg2rad(4) * (np.sin(np.deg2rad(34)) - np.sin(np.deg2rad(30)))
    assert share.sum() == pytest.approx(4 * box, rel=1e-9)  # the fifth feature is not China


def test_packed_winds(tmp_path):
    pack_geography(*sources(tmp_path), tmp_path / "out")
    winds = monthly_winds(tmp_path / "out")
    np.testing.assert_allclose(winds.u[:, 0, 0], np.arange(1, 13), atol=0.006)
    np.testing.assert_allclose(winds.u_std, 1.0, atol=0.006)
    np.testing.assert_allclose(winds.v_std, 0.0, atol=0.006)
    assert winds.lat.values.tolist() == [20, 30, 40]  # rows from south to north
    np.testing.assert_allclose(winds.v[0, :, 0], [20, 30, 40], atol=0.006)
    np.testing.assert_allclose(winds.u_850, 8.5, atol=0.006)


def test_a_wrong_source_is_an_error(tmp_path):
    paths = sources(tmp_path)
    wrong = [paths[1], *paths[1:]]
    with pytest.raises(DataError, match="no z"):
        pack_geography(*wrong, tmp_path / "out")
    text = paths[2].read_text().replace("Taiwan", "Formosa")
    paths[2].write_text(text)
    with pytest.raises(DataError, match="missing or invalid: Taiwan"):
        pack_geography(*paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
