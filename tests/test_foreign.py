"""Forecasts made elsewhere: layouts as their makers write them, units, turned grids, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from forecast_case import GRID, small_store
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.cli.forecast import forecast_store
from aqnet.data.source.latlon_regridding import latlon_weights
from aqnet.errors import CoverageError, FieldError, LeadTimeError, ParameterError, UnitError
from aqnet.grid import Grid, GridError
from aqnet.verification.forecast_plan import write_forecasts
from aqnet.verification.foreign.files import RHO_273K, ForeignFileError, open_foreign
from aqnet.verification.foreign.layout import layout_names, load_layout
from aqnet.verification.foreign.plan import plan_import
from aqnet.verification.stations.network import TimeZoneError
from aqnet.verification.store.reader import open_forecast_store

MASK = np.ones(GRID.shape, bool)
LAT, LON = (
    np.arange(50.0, 29.9, -2.0),
    np.arange(0.0, 360.0, 3.0),
)  # global in longitude, descending
INIT = np.datetime64("2018-01-02T12", "ns")


def smooth(lat, lon):
    """A field that bilinear interpolation reproduces, 20 to 80."""
    return 20 + (lat[:, None] - 30) + np.minimum(lon, 200)[None] / 10


def cams_global(leads=(0, 12, 24), lat=LAT, lon=LON, scale=1e-9) -> xr.Dataset:
    """As of the Atmosphere Data Store since 2024: surface and pressure-level variables in one."""
    field = np.broadcast_to(smooth(lat, lon), (len(leads), 1, len(lat), len(lon)))
    field = field * (1 + np.array(leads)[:, None, None, None] / 24)
    surface = ("forecast_period", "forecast_reference_time", "latitude", "longitude")
    upper = (*surface[:2], "pressure_level", *surface[2:])
    data = xr.Dataset(coords={
        "forecast_period": np.array(leads, "timedelta64[h]").astype("timedelta64[ns]"),
        "forecast_reference_time": [INIT], "latitude": lat, "longitude": lon,
        "pressure_level": [1000.0, 850.0],
    })  # fmt: skip
    for name in ("pm2p5", "pm10"):
        data[name] = surface, field * scale, {"units": "kg m**-3"}
    ratio = np.stack([field, 0.1 * field], axis=2) * scale / RHO_273K
    for name in ("so2", "no2", "co", "go3"):
        data[name] = upper, ratio, {"units": "kg kg**-1"}
    data["t"] = upper, np.full(ratio.shape, 300.0), {"units": "K"}
    data["sp"] = surface, np.full(field.shape, 90_000.0), {"units": "Pa"}
    return data


@pytest.fixture
def cams(tmp_path):
    path = tmp_path / "cams.nc"
    cams_global().to_netcdf(path)
    return path


def imported(path, layout, out, **options):
    """Store of files on the small grid."""
    options = {"name": "theirs", "method": "bilinear"} | options
    foreign = open_foreign([path] if not isinstance(path, list) else path, layout)
    plan = plan_import(foreign, GRID, MASK, **options)
    write_forecasts(plan, out, echo=lambda line: None)
    return open_forecast_store(out)


# ---- layouts


def test_cams_global(cams, tmp_path):
    store = imported(cams, "cams_global", tmp_path / "f.zarr", density="273K")
    assert store.lead_times_h == (12, 24) and store.init_times[0] == INIT
    expected = smooth(GRID.lat, GRID.lon)
    for name in store.pollutants:
        for lead in (12, 24):
            found = store.read(0, lead, name)
            np.testing.assert_allclose(found, expected * (1 + lead / 24), rtol=2**-10)
    assert store.attributes["source"]["values"] == "instantaneous"
    with xr.open_zarr(store.path, consolidated=False) as data:
        assert data["o3"].attrs["cell_methods"] == "time: point"
        assert "mean" not in data["o3"].attrs["long_name"]
        assert data.attrs["comment"] == "Gases at 273.15 K and 1013.25 hPa. Times are UTC."


def test_ambient_density_uses_pressure_and_temperature(cams, tmp_path):
    store = imported(cams, "cams_global", tmp_path / "f.zarr", density="ambient", pressure="sp",
                     temperature="t", leads=[24])  # fmt: skip
    factor = 90_000 / (287.05 * 300.0) / RHO_273K
    expected = 2 * factor * smooth(GRID.lat, GRID.lon)
    np.testing.assert_allclose(store.read(0, 24, "o3"), expected, rtol=2**-10)
    np.testing.assert_allclose(store.read(0, 24, "pm25"), expected / factor, rtol=2**-10)
    with xr.open_zarr(store.path, consolidated=False) as data:
        assert "Gases at the temperature and pressure of the place." in data.attrs["comment"]


def test_cams_regional_counts_hours_from_a_date_in_a_name(tmp_path):
    lon = np.arange(335.0, 405.0, 1.0) % 360
    lat = np.arange(60.0, 39.5, -1.0)
    data = xr.Dataset(coords={"time": ("time", np.array([0.0, 6.0, 12.0]), {
        "long_name": "FORECAST time from 20210601", "units": "hours"}),
        "level": [0.0], "latitude": lat, "longitude": lon})  # fmt: skip
    for name in ("pm2p5", "pm10", "so2", "no2", "co", "o3"):
        values = np.full((3, 1, lat.size, lon.size), -1e-4)
        values += np.arange(3)[:, None, None, None]
        data[f"{name}_conc"] = (
            ("time", "level", "latitude", "longitude"),
            values,
            {"units": "µg/m3"},
        )
    path = tmp_path / "regional.nc"
    data.to_netcdf(path)
    target = Grid("europe", np.linspace(45, 55, 6), np.linspace(-10, 30, 9))
    foreign = open_foreign([path], "cams_regional", centre_lon=10.0)
    assert foreign.grid.lon[0] == -25 and foreign.init_times[0] == np.datetime64("2021-06-01T00")
    plan = plan_import(foreign, target, np.ones(target.shape, bool), name="ensemble")
    write_forecasts(plan, tmp_path / "f.zarr", echo=lambda line: None)
    store = open_forecast_store(tmp_path / "f.zarr")
    assert store.lead_times_h == (6, 12)
    np.testing.assert_allclose(store.read(0, 12, "co"), 2, rtol=1e-3)


def test_files_of_one_grid_may_run_either_way(tmp_path):
    files = []
    for day, lat in enumerate((LAT, LAT[::-1])):
        data = cams_global(lat=lat)
        data["forecast_reference_time"] = [INIT + np.timedelta64(24 * day, "h")]
        files.append(tmp_path / f"{day}.nc")
        data.to_netcdf(files[-1])
    for order in (files, files[::-1]):
        foreign = open_foreign(order, "cams_global")
        first, second = (foreign.field(t, 24, "pm25", {}) for t in foreign.init_times)
        np.testing.assert_array_equal(first, second)
        assert (np.diff(first[:, 0]) > 0).all()  # `smooth` rises to the north
        foreign.close()


def test_an_init_time_is_given_for_one_file_that_does_not_say_another(tmp_path):
    def written(name, text):
        data = xr.Dataset(coords={"time": ("time", np.array([0.0, 6.0]), {
            "long_name": text, "units": "hours"}), "level": [0.0],
            "latitude": np.arange(60.0, 39, -1), "longitude": np.arange(0.0, 30)})  # fmt: skip
        data.to_netcdf(tmp_path / name)
        return tmp_path / name

    said, silent = written("said.nc", "FORECAST time from 20210601"), written("not.nc", "time")
    day = np.datetime64("2021-06-01T00", "h")
    for file in (said, silent):
        assert open_foreign([file], "cams_regional", init=day).init_times.tolist() == [day.item()]
    with pytest.raises(ForeignFileError, match="another init time"):
        open_foreign([said], "cams_regional", init=day + 24)
    with pytest.raises(ParameterError, match="2 files"):
        open_foreign([silent, said], "cams_regional", init=day)
    with pytest.raises(ParameterError, match="time: init_and_lead"):
        open_foreign([silent], "cams_global", init=day)


def test_aurora_writes_a_file_a_step(tmp_path):
    files = []
    for step in (1, 2):
        coords = {"latitude": LAT, "longitude": LON, "level": [925, 1000], "rollout_step": step,
                  "time": [INIT + np.timedelta64(12 * step, "h")]}  # fmt: skip
        data, field = xr.Dataset(coords=coords), step * smooth(LAT, LON)
        for name in ("pm2p5", "pm10"):
            values = np.stack([0 * field, field])[None] * 1e-9  # the last of the history counts
            data[f"surf_{name}"] = ("batch", "history", "latitude", "longitude"), values
        for name in ("so2", "no2", "co", "go3"):
            lower = np.stack([0 * field, field])  # 925 and 1000 hPa
            values = np.stack([0 * lower, lower])[None] * 1e-9 / RHO_273K
            dims = ("batch", "history", "level", "latitude", "longitude")
            data[f"atmos_{name}"] = dims, values
        files.append(tmp_path / f"{step}.nc")
        data.to_netcdf(files[-1])
    store = imported(files, "aurora", tmp_path / "f.zarr", density="273K")
    assert store.lead_times_h == (12, 24) and store.init_times.tolist() == [
        INIT.astype("M8[h]").item()
    ]
    for name in store.pollutants:
        expected = 2 * smooth(GRID.lat, GRID.lon)
        np.testing.assert_allclose(store.read(0, 24, name), expected, rtol=2**-10)


def test_of_a_history_the_last_pressure_and_temperature_count(tmp_path):
    coords = {"latitude": LAT, "longitude": LON, "level": [1000], "rollout_step": 1,
              "time": [INIT + np.timedelta64(12, "h")]}  # fmt: skip
    data, shape = xr.Dataset(coords=coords), (1, 2, 1, len(LAT), len(LON))
    earlier = np.array([0.0, 1.0])[None, :, None, None, None] * np.ones(shape)
    upper = ("batch", "history", "level", "latitude", "longitude")
    data["atmos_go3"] = upper, 1e-8 * earlier
    data["sp"] = upper[:2] + upper[3:], 50_000 + 40_000 * earlier[:, :, 0], {"units": "Pa"}
    data["t"] = upper, 200 + 100 * earlier, {"units": "K"}
    data.to_netcdf(tmp_path / "1.nc")
    foreign = open_foreign([tmp_path / "1.nc"], "aurora")
    gases = {"density": "ambient", "pressure": "sp", "temperature": "t"}
    found = foreign.field(foreign.init_times[0], 12, "o3", gases)
    np.testing.assert_allclose(found, 1e-8 * 90_000 / (287.05 * 300) * 1e9)
    opened = foreign._opened[tmp_path / "1.nc"]
    foreign.close()
    assert foreign._opened == {} and opened._close is None  # of xarray: it is closed
    data["sp"] = data["sp"].isel(history=-1)  # need not have a history
    data.to_netcdf(tmp_path / "2.nc")
    one = open_foreign([tmp_path / "2.nc"], "aurora")
    np.testing.assert_array_equal(one.field(one.init_times[0], 12, "o3", gases), found)


def test_plain_layout_reads_our_own_netcdf(tmp_path):
    from aqnet.verification.store.netcdf import export_netcdf

    mask = np.ones(GRID.shape, bool)
    path = small_store(tmp_path / "ours.zarr", count=4, mask=mask)
    export_netcdf(path, tmp_path / "ours.nc")
    store = imported(tmp_path / "ours.nc", "plain", tmp_path / "again.zarr", method="area",
                     synthetic=True)  # fmt: skip
    ours = open_forecast_store(path)
    for name in ours.pollutants:
        np.testing.assert_allclose(store.read(slice(None), None, name),
                                   ours.read(slice(None), None, name), rtol=1e-6)  # fmt: skip
    with xr.open_zarr(store.path, consolidated=False) as data:
        said = "Gases at the temperature and pressure of their source. Times are UTC and end"
        assert data.attrs["comment"].startswith(said)


def test_shipped_layouts_can_be_read(tmp_path):
    assert layout_names() == ["aurora", "cams_global", "cams_regional", "plain"]
    for name in layout_names():
        assert len(load_layout(name).variables) == 6
    with pytest.raises(ParameterError, match="no layout wrf"):
        load_layout("wrf")


# ---- regridding


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_area_weights_keep_the_total(seed, flip_source, flip_target):
    rng = np.random.default_rng(seed)
    lat = np.linspace(-60, 75, rng.integers(10, 30))
    source = Grid(
        "s", lat[::-1] if flip_source else lat, np.linspace(60, 160, rng.integers(10, 40))
    )
    north = np.linspace(10, 50, rng.integers(3, 12))
    target = Grid("t", north[::-1] if flip_target else north, np.linspace(80, 130, 7))
    weights = latlon_weights("area", source, target)
    np.testing.assert_allclose(weights.coverage, 1, atol=1e-12)
    # by brute force on a fine grid: points of equal area
    lat_edge, lon_edge = target.edges()
    sines = np.linspace(*np.sin(np.deg2rad(lat_edge[:2])), 401)
    points = np.rad2deg(np.arcsin((sines[1:] + sines[:-1]) / 2))
    across = np.linspace(lon_edge[2], lon_edge[3], 401)
    across = (across[1:] + across[:-1]) / 2
    field = rng.gamma(2, 10, source.shape)
    rows = np.abs(source.lat[None] - points[:, None]).argmin(1)
    cols = np.abs(source.lon[None] - across[:, None]).argmin(1)
    expected = field[np.ix_(rows, cols)].mean()
    np.testing.assert_allclose(weights.apply(field)[0, 2], expected, rtol=0.02)


def test_bilinear_is_exact_for_a_plane_and_stops_at_the_border():
    source = Grid("s", np.linspace(60, 20, 21), np.linspace(90, 120, 16))
    weights = latlon_weights("bilinear", source, GRID)
    lat, lon = source.mesh()
    expected = np.add(*(f * a for f, a in zip((2, 3), GRID.mesh(), strict=True)))
    np.testing.assert_allclose(weights.apply(2 * lat + 3 * lon), expected, rtol=1e-12)
    narrow = Grid("n", source.lat, np.linspace(101, 111, 11))
    assert (latlon_weights("bilinear", narrow, GRID).coverage[:, 0] == 0).all()
    with pytest.raises(ParameterError):
        latlon_weights("nearest", source, GRID)


# ---- refusals


def changed(tmp_path, change, **options):
    data = cams_global()
    path = tmp_path / "changed.nc"
    change(data).to_netcdf(path)
    return imported(path, "cams_global", tmp_path / "f.zarr", **({"density": "273K"} | options))


def test_mixing_ratios_need_a_density(cams, tmp_path):
    for options in ({}, {"density": "ambient"}, {"density": "ambient", "pressure": "sp"}):
        with pytest.raises(UnitError, match="mass mixing ratio"):
            imported(cams, "cams_global", tmp_path / "f.zarr", **options)
    with pytest.raises(UnitError, match="not in Pa"):
        imported(cams, "cams_global", tmp_path / "f.zarr", density="ambient", pressure="t",
                 temperature="t")  # fmt: skip


def test_units_are_stated_and_known(tmp_path):
    def without(data):
        del data["pm10"].attrs["units"]
        return data

    def other(data):
        data["pm10"].attrs["units"] = "ppb"
        return data

    with pytest.raises(UnitError, match="does not say its unit"):
        changed(tmp_path, without)
    with pytest.raises(UnitError, match="'ppb'"):
        changed(tmp_path, other)


def test_missing_variables_levels_and_leads(cams, tmp_path):
    with pytest.raises(ForeignFileError, match="no variable go3"):
        changed(tmp_path, lambda data: data.drop_vars("go3"))
    with pytest.raises(ForeignFileError, match="no level 1000"):
        changed(tmp_path, lambda data: data.isel(pressure_level=[1]))
    with pytest.raises(LeadTimeError, match=r"without \[48\] h"):
        imported(cams, "cams_global", tmp_path / "g.zarr", leads=[12, 48], density="273K")
    with pytest.raises(CoverageError, match="nothing to forecast"):
        imported(cams, "cams_global", tmp_path / "g.zarr", leads=[48], incomplete="skip",
                 density="273K")  # fmt: skip


def test_nan_and_negative_forecasts(tmp_path):
    def hole(data):
        data["pm10"].values[1, 0, 4:8, 30:40] = np.nan
        return data

    def negative(data):
        data["pm10"].values[1] = -5e-9
        return data

    with pytest.raises(FieldError, match="NaN"):
        changed(tmp_path, hole)
    with pytest.raises(FieldError, match="negative"):
        changed(tmp_path, negative)


def test_times_are_whole_hours_of_utc(tmp_path):
    def shifted(data):
        times = data["forecast_reference_time"].values + np.timedelta64(30, "m")
        return data.assign_coords(forecast_reference_time=times)

    def zoned(data):
        data["forecast_reference_time"].encoding["units"] = "hours since 1970-01-01 00:00 +08:00"
        return data

    with pytest.raises(TimeZoneError, match="no whole hours"):
        changed(tmp_path, shifted)
    with pytest.raises(TimeZoneError, match="not UTC"):
        changed(tmp_path, zoned)


def test_grids_must_cover_and_agree(cams, tmp_path):
    with pytest.raises(CoverageError, match=r"do not cover .* cells"):
        changed(tmp_path, lambda data: data.isel(latitude=slice(0, 6)))
    other = tmp_path / "other.nc"
    later = cams_global(lat=LAT[:-1])
    later["forecast_reference_time"] = later["forecast_reference_time"] + np.timedelta64(12, "h")
    later.to_netcdf(other)
    with pytest.raises(GridError, match="one grid"):
        open_foreign([cams, other], "cams_global")
    with pytest.raises(ForeignFileError, match="twice"):
        open_foreign([cams, cams], "cams_global")
    with pytest.raises(GridError, match="regular axis"):
        changed(tmp_path, lambda data: data.isel(latitude=[0, 1, 3, 6, 8, 9, 10]))


def test_command_line(cams, tmp_path):
    like = small_store(tmp_path / "like.zarr", count=2)
    arguments = ["import", str(cams), "--layout", "cams_global", "--like", str(like)]
    arguments += ["--out", str(tmp_path / "f.zarr"), "--name", "CAMS", "--density", "273K"]
    arguments += ["--leads", "24"]
    result = CliRunner().invoke(forecast_store, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "complete" in result.output
    store = open_forecast_store(tmp_path / "f.zarr")
    assert (store.mask == open_forecast_store(like).mask).all() and store.name == "CAMS"
    for command in (["show", str(store.path)], ["verify", str(store.path)],
                    ["netcdf", str(store.path), str(tmp_path / "f.nc")]):  # fmt: skip
        assert CliRunner().invoke(forecast_store, command, catch_exceptions=False).exit_code == 0
