"""Weather of the twin: a pure function of the hour, balanced, plausible for its place."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from aqnet.data.twin.config import SynopticConfig, TwinConfig
from aqnet.data.twin.synoptic import SynopticModes
from aqnet.data.twin.weather import Weather
from aqnet.data.twin.world import build_world, rearranged

GRID = "china_32x64"
FIELDS = ("u", "v", "temp", "rh", "psfc", "depth", "rain", "sunlight", "stable")


def hours(date: str) -> float:
    return float(np.datetime64(date, "h").astype(np.int64)) + 0.5


@pytest.fixture(scope="module")
def weather() -> Weather:
    config = TwinConfig(grid=GRID)
    return Weather(config, build_world(config))


@pytest.fixture(scope="module")
def year(weather):
    """Every 31 hours of 2014: all seasons and hours of the day."""
    return [weather.at(hours("2014-01-01") + 31 * k) for k in range(282)]


def stack(year, name: str) -> np.ndarray:
    return np.stack([getattr(w, name) for w in year])


def test_an_hour_does_not_depend_on_what_was_asked_before(weather):
    hour = hours("2015-04-03T05")
    first = weather.at(hour)
    weather.at(hour + 2000)
    again = weather.at(hour)
    config = TwinConfig(grid=GRID)
    fresh = Weather(config, build_world(config)).at(hour)
    for name in (*FIELDS, "flux_x", "flux_y"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(first, name), getattr(fresh, name))


def test_bits_do_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib; from aqnet.data.twin.config import TwinConfig\n"
        "from aqnet.data.twin.simulate import Simulation\n"
        f"s = Simulation(TwinConfig(grid='{GRID}', spin_up_days=0))\n"
        "h = hashlib.sha256()\n"
        "for _ in range(3): h.update(s.step().tobytes())\n"
        "print(h.hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True,
                              capture_output=True, text=True)  # fmt: skip
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_seeds_make_other_weather_and_transport_does_not(weather):
    hour = hours("2013-03-01")
    base = weather.at(hour)

    def at(**switches):
        config = TwinConfig(grid=GRID, **switches)
        return Weather(config, build_world(config)).at(hour)

    assert np.abs(at(weather_seed=1).u - base.u).mean() > 0.5
    np.testing.assert_array_equal(at(transport=0.0).u, base.u)
    np.testing.assert_array_equal(at(transport=0.0).flux_x, base.flux_x)
    assert np.abs(at(blocking=0.0).u - base.u).mean() > 0.1


def test_waves_travel_eastward_and_keep_their_variance():
    modes = SynopticModes(SynopticConfig(), 0)
    lat, lon = np.linspace(30, 40, 5), np.linspace(75, 135, 121)
    early = np.stack([modes.fields(500_000.0 + 40 * k, lat, lon)[0] for k in range(60)])
    late = np.stack([modes.fields(500_006.0 + 40 * k, lat, lon)[0] for k in range(60)])
    assert early.std() == pytest.approx(1.0, abs=0.2)
    shifts = range(-12, 13)  # steps of 0.5 degree
    correlation = [
        np.corrcoef(early[..., 12:-12].ravel(), np.roll(late, -s, -1)[..., 12:-12].ravel())[0, 1]
        for s in shifts
    ]
    best = shifts[int(np.argmax(correlation))] * 0.5 * 91e3 / (6 * 3600)  # m/s at 35 N
    assert 2.0 < best < 14.0


def test_grids_see_the_same_weather():
    modes = SynopticModes(SynopticConfig(), 0)
    fine = modes.fields(400_000.0, np.linspace(20, 50, 61), np.linspace(80, 130, 101))
    coarse = SynopticModes(SynopticConfig(), 0).fields(
        400_000.0, np.linspace(20, 50, 31), np.linspace(80, 130, 51)
    )
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-9)


def test_low_pressure_lies_to_the_left_of_the_free_wind():
    """Geostrophy: where the written pressure rises eastward, the wind blows to the north."""
    config = TwinConfig(grid=GRID, blocking=0.0)
    world = build_world(config)
    weather = Weather(config, world)
    lat, lon = world.geometry.lat, world.geometry.lon
    # low ground: no terrain in the pressure; anomalies: no climate, no tide (steps of 96 h)
    low = (world.elevation < 300) & (lat > 25)[:, None] & (lon > 105)[None]
    states = [weather.at(hours("2014-01-01") + 96 * k) for k in range(16)]
    pressure = stack(states, "psfc").astype(np.float64)
    east = np.gradient(pressure - pressure.mean(0), axis=2) / world.geometry.dx
    north = np.gradient(pressure - pressure.mean(0), axis=1) / world.geometry.dy
    u, v = (np.stack([weather.centre_wind(w.flux_x, w.flux_y)[k] for w in states]) for k in (0, 1))
    assert np.corrcoef(east[:, low].ravel(), (v - v.mean(0))[:, low].ravel())[0, 1] > 0.7
    assert np.corrcoef(north[:, low].ravel(), (u - u.mean(0))[:, low].ravel())[0, 1] < -0.7


def test_carrying_flow_has_no_divergence(weather, year):
    for w in year[::40]:
        divergence = np.diff(w.flux_x, axis=1) + np.diff(w.flux_y, axis=0)
        assert np.abs(divergence).max() < 1e-9 * np.abs(w.flux_x).max()


def test_blocking_calms_the_basins():
    winds = {}
    for blocking in (0.0, 1.0):
        config = TwinConfig(grid="china_64x128", blocking=blocking)
        world = build_world(config)
        weather = Weather(config, world)
        row, col = abs(world.geometry.lat - 30.3).argmin(), abs(world.geometry.lon - 104.8).argmin()
        winds[blocking] = np.mean(
            [weather.at(hours("2014-01-01") + 50 * k).wind[row, col] for k in range(40)]
        )
    assert winds[1.0] < 0.6 * winds[0.0]  # the Sichuan basin


def test_values_are_plausible(year):
    limits = {"u": (-45, 45), "v": (-45, 45), "temp": (215, 325), "rh": (5, 100),
              "psfc": (45e3, 107e3), "depth": (150, 8000), "rain": (0, 20),
              "sunlight": (0, 1), "stable": (0, 1)}  # fmt: skip
    for name, (low, high) in limits.items():
        values = stack(year, name)
        assert np.isfinite(values).all()
        assert low <= values.min() and values.max() <= high, name


def test_temperature_and_pressure_follow_terrain_and_season(weather, year):
    elevation = weather.world.elevation
    row = abs(weather.world.geometry.lat - 33).argmin()
    temp, pressure = stack(year, "temp"), stack(year, "psfc")
    high = elevation[row] > 4000
    low = (elevation[row] < 500) & weather.world.land[row]
    assert temp[:, row, high].mean() < temp[:, row, low].mean() - 15
    # hypsometric: about 63 kPa at 4000 m, 101 kPa at the sea
    assert pressure[:, elevation < 1].mean() == pytest.approx(101.3e3, abs=700)
    near = np.abs(elevation - 4000) < 300
    assert pressure[:, near].mean() == pytest.approx(61.5e3, abs=1500)
    north = abs(weather.world.geometry.lat - 45).argmin()
    column = abs(weather.world.geometry.lon - 126).argmin()
    assert temp[190:220, north, column].mean() - temp[:25, north, column].mean() > 25


def test_afternoons_are_warm_dry_and_deep_by_local_solar_time(weather):
    """Every column has its own noon: three hours apart between 80 and 125 E."""
    lon = weather.world.geometry.lon
    for target in (80.0, 125.0):
        col = abs(lon - target).argmin()
        row = abs(weather.world.geometry.lat - 40).argmin()
        series = [
            [weather.at(hours("2014-07-01") + h + 24 * d) for h in range(24)] for d in range(8)
        ]
        mean = {
            name: np.mean([[getattr(w, name)[row, col] for w in day] for day in series], axis=0)
            for name in ("temp", "rh", "depth", "sunlight")
        }
        solar = np.mod(np.arange(24) + 0.5 + lon[col] / 15, 24)
        assert abs(solar[mean["temp"].argmax()] - 15) <= 2
        assert abs(solar[mean["depth"].argmax()] - 14) <= 2
        assert abs(solar[mean["sunlight"].argmax()] - 12) <= 1.5
        assert mean["rh"].argmax() != mean["temp"].argmax()
        assert mean["depth"].max() > 2.5 * mean["depth"].min()


def test_rearranged_terrain_keeps_its_statistics():
    world = build_world(TwinConfig(grid="china_64x128"))
    real = world.elevation
    other = rearranged(real, world.geometry, 5)
    third = rearranged(real, world.geometry, 6)
    np.testing.assert_array_equal(other == 0, real == 0)
    land = real > 0
    assert np.corrcoef(other[land], real[land])[0, 1] > 0.8  # the plateaus stay
    inner = [np.abs(np.diff(f, axis=1))[land[:, 1:]].mean() for f in (real, other)]
    assert inner[1] == pytest.approx(inner[0], rel=0.35)
    assert np.abs(other - real)[land].mean() > 100
    assert np.abs(other - third)[land].mean() > 100
    np.testing.assert_array_equal(rearranged(real, world.geometry, 0), real)
    np.testing.assert_array_equal(rearranged(real, world.geometry, 5), other)
