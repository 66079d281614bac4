"""The twin's simulation: budgets that close, worlds that differ only in their switch, chemistry."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.twin.chemistry import react, remove
from aqnet.data.twin.config import ChemistryConfig, EmissionConfig, MixingConfig, TwinConfig
from aqnet.data.twin.emissions import activity
from aqnet.data.twin.mixing import surface_concentrations
from aqnet.data.twin.simulate import LEDGER, Simulation
from aqnet.data.twin.tracers import TRACERS, background_amount
from aqnet.variables import DYNAMIC, VARIABLES

GRID = "china_32x64"
PM25, COARSE, SO2, NO2, CO, O3 = range(6)


def simulation(**switches) -> Simulation:
    return Simulation(TwinConfig(**({"grid": GRID, "spin_up_days": 0} | switches)))


@pytest.fixture(scope="module")
def three_days():
    """A simulation with its hours, and the totals at its start."""
    run = simulation()
    before = run.totals()
    hours = np.stack([run.step() for _ in range(72)])
    return run, hours, before


def test_the_ledger_accounts_for_every_change(three_days):
    run, _, before = three_days
    change = run.totals() - before
    explained = sum(run.ledger[name] for name in LEDGER)
    np.testing.assert_allclose(change, explained, rtol=0, atol=1e-6 * run.totals().min())
    np.testing.assert_allclose(change / run.totals(), explained / run.totals(), atol=1e-6)


def test_each_process_has_its_sign(three_days):
    ledger = three_days[0].ledger
    assert (ledger["emission"][:5] > 0).all()
    assert ledger["emission"][O3] == 0
    assert (ledger["deposition"] <= 0).all()
    assert ledger["deposition"][CO] == 0
    assert (ledger["washout"] <= 0).all()
    assert ledger["reactions"][PM25] > 0
    assert ledger["reactions"][SO2] < 0
    assert ledger["reactions"][NO2] < 0
    assert ledger["reactions"][COARSE] == 0


@pytest.mark.parametrize("border", ["open", "closed"])
def test_mass_is_closed_to_one_part_in_ten_thousand_a_day_without_sources(border):
    run = simulation(sources=False, sinks=False, reactions=False, border=border)
    rng = np.random.default_rng(0)
    row, col = 18, 40
    run.amount[:, row - 2 : row + 3, col - 2 : col + 3] += 1e5 * rng.random((6, 5, 5))
    before = run.totals()
    for _ in range(24):
        run.step()
    change = run.totals() - before
    np.testing.assert_allclose(change, run.ledger["transport"], rtol=0, atol=1e-5 * before.min())
    assert not run.ledger["emission"].any()
    if border == "closed":
        np.testing.assert_allclose(run.totals(), before, rtol=1e-5)
        assert np.abs(run.ledger["transport"] / before).max() < 1e-6


def test_the_same_configuration_gives_the_same_bits(three_days):
    other = simulation()
    for hour in three_days[1][:4]:
        np.testing.assert_array_equal(other.step(), hour)


def test_a_stored_state_continues_the_same_bits(three_days):
    run = simulation()
    for _ in range(3):
        run.step()
    state = run.state()
    following = simulation()
    following.hour, following.amount[...] = int(state["hour"]), state["amount"]
    for _ in range(3):
        np.testing.assert_array_equal(run.step(), following.step())


def test_hours_are_valid_values_of_every_variable(three_days):
    _, hours, _ = three_days
    assert hours.dtype == np.float32
    assert hours.shape[1:] == (11, 32, 64)
    for index, name in enumerate(DYNAMIC):
        variable = VARIABLES[name]
        assert variable.valid_min <= hours[:, index].min(), name
        assert hours[:, index].max() <= variable.valid_max, name
    pm10, pm25 = (hours[:, DYNAMIC.index(name)] for name in ("pm10", "pm25"))
    assert (pm10 >= pm25).all()


def test_without_transport_cells_exchange_nothing():
    """The null world: what is put into one cell is never seen in another."""
    with_it, without = simulation(transport=0.0), simulation(transport=0.0)
    with_it.amount[:, 16, 40] *= 5
    for _ in range(12):
        a, b = with_it.step(), without.step()
    differs = np.abs(with_it.amount - without.amount).max(0) > 0
    assert differs[16, 40]
    assert differs.sum() == 1
    assert not without.ledger["transport"].any()
    weather = [DYNAMIC.index(name) for name in ("u", "v", "temp", "rh", "psfc")]
    np.testing.assert_array_equal(a[weather], b[weather])
    np.testing.assert_array_equal(simulation(transport=1.0).step()[weather],
                                  simulation(transport=0.0).step()[weather])  # fmt: skip


def test_stronger_transport_carries_further():
    spread = []
    for strength in (0.0, 0.5, 1.0, 2.0):
        run = simulation(sources=False, sinks=False, reactions=False, transport=strength)
        run.amount[:] = 0
        run.amount[PM25, 18, 42] = 1e6
        for _ in range(12):
            run.step()
        share = run.amount[PM25] / run.amount[PM25].max()
        spread.append(int((share > 0.02).sum()))
    assert spread == sorted(spread)
    assert spread[0] == 1 < spread[2] < spread[3]


def test_seeds_change_their_part_of_the_world_alone(three_days):
    base = three_days[0]
    other = simulation(emission_seed=1)
    assert np.abs(other.emissions.base - base.emissions.base).max() > 0.05
    ratio = other.emissions.base.sum() / base.emissions.base.sum()
    assert 0.7 < ratio < 1.4
    hour = base.hour + 0.5
    np.testing.assert_array_equal(other.weather.at(hour).u, base.weather.at(hour).u)
    np.testing.assert_array_equal(other.world.elevation, base.world.elevation)
    moved = simulation(terrain_seed=1)
    assert np.abs(moved.world.elevation - base.world.elevation).max() > 300
    np.testing.assert_array_equal(moved.emissions.base, base.emissions.base)
    np.testing.assert_array_equal(moved.world.static()[2], moved.world.elevation.astype("f4"))


# ---- emissions


def weather_like(shape=(32, 64), **fields) -> SimpleNamespace:
    values = {"temp": 273.0, "rh": 50.0, "depth": 800.0, "day_depth": 1000.0, "sunlight": 0.0,
              "stable": 0.0, "rain": 0.0, "wind": 4.0, "u": 0.0, "v": 0.0} | fields  # fmt: skip
    return SimpleNamespace(**{k: np.full(shape, v, np.float32) for k, v in values.items()})


def test_activity_has_two_rush_hours_and_mean_one():
    hour = np.arange(0, 24, 0.25)
    assert activity(hour).mean() == pytest.approx(1.0)
    assert activity(np.array(8.0)) > 1.2 < activity(np.array(18.5))
    assert activity(np.array(3.0)) < 0.7


def test_emissions_follow_people_weekday_heating_and_wind(three_days):
    run = three_days[0]
    emissions, solar = run.emissions, np.full(64, 12.0)
    friday, sunday = np.datetime64("2014-01-10T04"), np.datetime64("2014-01-12T04")
    july = np.datetime64("2014-07-11T04")
    at = emissions.at(friday, solar, weather_like())
    assert at.min() >= 0
    np.testing.assert_allclose(
        emissions.at(sunday, solar, weather_like())[NO2], EmissionConfig().weekend * at[NO2],
        rtol=1e-3, atol=1e-6)  # fmt: skip
    people = emissions.base > np.quantile(emissions.base, 0.9)
    north = people & (run.world.geometry.lat > 38)[:, None]
    south = people & (run.world.geometry.lat < 28)[:, None]
    warm = emissions.at(july, solar, weather_like(temp=300.0))
    assert (at[SO2] / np.maximum(warm[SO2], 1e-9))[north].min() > 1.3
    np.testing.assert_allclose(at[SO2][south], warm[SO2][south], rtol=0.02)
    windy = emissions.at(july, solar, weather_like(temp=300.0, u=8.0))
    gained = windy[COARSE] - warm[COARSE]
    assert gained.min() >= 0
    lat, lon = run.world.geometry.lat, run.world.geometry.lon
    desert, plain = (gained[abs(lat - y).argmin(), abs(lon - x).argmin()]
                     for y, x in ((39.0, 83.0), (34.0, 115.0)))  # fmt: skip
    assert desert > 100 * max(plain, 1e-3)


def test_emissions_follow_the_local_clock(three_days):
    run = three_days[0]
    solar = np.linspace(0, 23, 64)
    at = run.emissions.at(np.datetime64("2014-07-11T04"), solar, weather_like(temp=300.0))
    relative = at[NO2] / np.maximum(run.emissions.base, 1e-6)
    people = run.emissions.base > 0.05
    for col in (8, 22, 50):
        cells = people[:, col]
        if cells.any():
            np.testing.assert_allclose(
                relative[cells, col], EmissionConfig().no2 * activity(solar[col]), rtol=1e-3
            )


# ---- chemistry and removal

CONFIG = TwinConfig(grid=GRID)


def amounts(shape=(1, 1), **given) -> np.ndarray:
    base = background_amount()
    for name, value in given.items():
        base[TRACERS.index(name)] = value
    return np.broadcast_to(base[:, None, None], (6, *shape)).copy()


def no_emission(shape=(1, 1)) -> np.ndarray:
    return np.zeros((6, *shape), np.float32)


def test_sulphur_and_nitrogen_end_in_particles_by_molar_mass():
    amount = amounts(so2=50_000.0, no2=0.0)
    change = react(amount, no_emission(), weather_like((1, 1), rh=95.0), CONFIG)
    assert change[SO2] < 0
    assert float(change[PM25, 0, 0]) == pytest.approx(
        -float(change[SO2, 0, 0]) * 132.1 / 64.1, rel=1e-3
    )
    gains = []
    for temp in (265.0, 305.0):
        amount = amounts(so2=0.0, no2=50_000.0)
        change = react(amount, no_emission(), weather_like((1, 1), temp=temp), CONFIG)
        gains.append(float(change[PM25, 0, 0]))
        assert gains[-1] <= -float(change[NO2, 0, 0]) * 80.0 / 46.0
    assert gains[0] > 5 * gains[1], "nitrate is particulate in the cold"


def test_ozone_needs_light_and_nitrogen_and_is_titrated_by_fresh_emissions():
    def ozone(light, no2, emitted=0.0, temp=300.0):
        amount, emission = amounts(no2=no2), no_emission()
        emission[NO2] = emitted
        weather = weather_like((1, 1), sunlight=light, temp=temp)
        return float(react(amount, emission, weather, CONFIG)[O3, 0, 0])

    assert ozone(0.8, 15_000.0) > ozone(0.3, 15_000.0) > 0
    assert ozone(0.8, 15_000.0, temp=300.0) > ozone(0.8, 15_000.0, temp=275.0)
    assert ozone(0.0, 15_000.0) == 0
    assert ozone(0.8, 0.0) == 0
    assert ozone(0.8, 15_000.0) > ozone(0.8, 300_000.0), "too much NO2 takes the radicals"
    assert ozone(0.0, 15_000.0, emitted=2.0) < 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), factor=st.floats(0, 50))
def test_nothing_becomes_negative_and_removal_is_accounted_for(seed, factor):
    rng = np.random.default_rng(seed)
    shape = (3, 4)
    amount = (amounts(shape) * factor * rng.random((6, *shape))).astype(np.float32)
    emission = (5 * rng.random((6, *shape))).astype(np.float32)
    weather = weather_like(shape, sunlight=rng.random(), rain=5 * rng.random(),
                           temp=rng.uniform(250, 310), rh=rng.uniform(5, 100),
                           stable=rng.random(), depth=rng.uniform(200, 3000))  # fmt: skip
    before = amount.copy()
    change = react(amount, emission, weather, CONFIG)
    assert amount.min() >= 0
    np.testing.assert_allclose(amount, before + change, rtol=1e-4, atol=1e-2)
    before = amount.copy()
    parts = remove(amount, weather, CONFIG, day=100.0)
    assert amount.min() >= 0
    assert (parts[0] <= 1e-3).all()
    assert (parts[1] <= 0).all()
    np.testing.assert_allclose(amount, before + sum(parts), rtol=1e-4, atol=1e-1)


def test_rain_washes_particles_more_than_gases():
    dry, wet = (amounts(pm25=1e5, no2=1e5, co=1e6) for _ in range(2))
    remove(dry, weather_like((1, 1)), CONFIG, 100.0)
    remove(wet, weather_like((1, 1), rain=3.0), CONFIG, 100.0)
    kept = (wet / dry)[:, 0, 0]
    assert kept[PM25] < kept[NO2] < kept[CO]
    assert kept[CO] == pytest.approx(1.0)


def test_shallow_mixing_and_calm_nights_concentrate():
    amount, emission = amounts(pm25=60_000.0, no2=40_000.0), no_emission()
    emission[[PM25, NO2]] = 1.0
    shallow, deep = (
        surface_concentrations(amount, emission, weather_like((1, 1), depth=d, day_depth=d),
                               MixingConfig())[:, 0, 0] for d in (400.0, 1600.0))  # fmt: skip
    assert shallow[PM25] > 2.5 * deep[PM25]
    assert shallow[O3] == pytest.approx(deep[O3]), "ozone fills the layer"
    night = surface_concentrations(amount, emission, weather_like((1, 1), stable=1.0),
                                   MixingConfig())[:, 0, 0]  # fmt: skip
    day = surface_concentrations(amount, emission, weather_like((1, 1)), MixingConfig())[:, 0, 0]
    resistance = MixingConfig().surface_resistance_s_m
    assert night[NO2] - day[NO2] == pytest.approx(resistance, rel=1e-3)
    assert night[O3] < 0.5 * day[O3]
    background = surface_concentrations(
        amounts(), no_emission(), weather_like((1, 1)), MixingConfig()
    )
    np.testing.assert_allclose(background[:5, 0, 0], background_amount()[:5] / 1000, rtol=1e-4)


def test_rates_are_settings():
    still = ChemistryConfig(so2_oxidation=0, so2_oxidation_humid=0, no2_day=0, no2_night=0,
                            ozone_production=0, titration=0, co_loss=0)  # fmt: skip
    config = TwinConfig(grid=GRID, chemistry=still)
    change = react(amounts(), no_emission(), weather_like((1, 1), sunlight=0.9), config)
    assert not change.any()


def test_a_puff_goes_to_the_right_of_the_written_wind():
    """Written is the wind of the ground, turned towards low pressure: left of what carries."""
    run, turned = simulation(sources=False, sinks=False, reactions=False), []
    run.transport.inflow[:] = 0
    lat, lon, area = run.world.geometry.lat, run.world.geometry.lon, run.world.geometry.area
    row, col = abs(lat - 34).argmin(), abs(lon - 115).argmin()
    u, v = DYNAMIC.index("u"), DYNAMIC.index("v")
    for _ in range(10):
        run.amount[:] = 0
        run.amount[0, row, col] = 1e6
        run.hour += 200
        wind = 0.0
        for _ in range(6):
            hour = run.step()
            wind += np.average(hour[u] + 1j * hour[v], weights=run.amount[0])
        share = run.amount[0] * area / (run.amount[0] * area).sum()
        east = (share * (lon - lon[col])).sum() * np.cos(np.deg2rad(lat[row]))
        turned.append(np.angle((east + 1j * (share * (lat - lat[row])[:, None]).sum()) / wind))
    assert -25 < np.rad2deg(np.median(turned)) < -3


# ---- negative controls


def test_another_wind_is_written_and_nothing_else_changes():
    own, other = simulation(), simulation(written_wind_seed=7)
    alone = simulation(weather_seed=7)
    for _ in range(3):
        hours = [run.step() for run in (own, other, alone)]
        wind = [DYNAMIC.index(name) for name in ("u", "v")]
        rest = [i for i in range(len(DYNAMIC)) if i not in wind]
        assert np.array_equal(hours[0][rest], hours[1][rest])
        assert np.array_equal(hours[1][wind], hours[2][wind])
        assert not np.array_equal(hours[0][wind], hours[1][wind])


def test_a_flat_terrain_is_written_and_the_real_one_acts():
    own, flat = simulation(), simulation(written_terrain="flat")
    assert np.array_equal(own.step(), flat.step())
    assert not flat.world.static()[2].any() and own.world.static()[2].max() > 4000
    same = [0, 1, 3]
    assert np.array_equal(flat.world.static()[same], own.world.static()[same])
