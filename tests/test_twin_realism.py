"""Numbers that compare the twin with Beijing, on series whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from aqnet.data.twin.realism import (
    Behaviour,
    behaviour,
    beijing_behaviour,
    largest_difference,
    station_cells,
    table_text,
)
from aqnet.grid import GRIDS
from aqnet.variables import DYNAMIC, TARGETS

HOURS = np.datetime64("2013-01-01T01", "h") + np.arange(4 * 8760)


@pytest.fixture(scope="module")
def beijing() -> dict[str, Behaviour]:
    return beijing_behaviour()


def test_autocorrelation_and_persistence_of_a_known_process():
    rng = np.random.default_rng(0)
    phi = np.exp(-1 / 24)
    noise = rng.standard_normal(HOURS.size) * np.sqrt(1 - phi**2)
    series = np.empty(HOURS.size)
    series[0] = 0
    for k in range(1, series.size):
        series[k] = phi * series[k - 1] + noise[k]
    found = behaviour(HOURS, 5 + 2 * series)
    expected = np.exp(-np.array([12, 24, 48, 96]) / 24)
    np.testing.assert_allclose(found.autocorrelation, expected, atol=0.06)
    np.testing.assert_allclose(found.persistence, np.sqrt(2 * (1 - expected)), atol=0.06)
    assert found.mean == pytest.approx(5, abs=0.3)
    assert found.std == pytest.approx(2, abs=0.1)


def test_cycles_are_in_beijing_time():
    local = (HOURS.astype(np.int64) + 8) % 24
    found = behaviour(HOURS, (local == 15).astype(float))
    assert found.by_hour.argmax() == 15
    assert found.by_hour[15] == 1


def test_gaps_are_left_out():
    series = np.sin(2 * np.pi * np.arange(HOURS.size) / 24)
    holes = np.where(np.arange(HOURS.size) % 7 == 0, np.nan, series)
    np.testing.assert_allclose(behaviour(HOURS, holes).autocorrelation, [-1, 1, 1, 1], atol=1e-6)


def test_beijing_is_as_it_is_known(beijing):
    assert set(beijing) == set(DYNAMIC)
    assert beijing["pm25"].mean == pytest.approx(80, abs=5)
    assert beijing["o3"].by_hour.argmax() in (15, 16)
    np.testing.assert_allclose(beijing["u"].autocorrelation, [0.21, 0.24, 0.12, 0.06], atol=0.03)
    np.testing.assert_allclose(beijing["pm25"].persistence, [0.84, 1.06, 1.30, 1.39], atol=0.03)


def test_stations_lie_in_the_cells_around_beijing():
    for name, cells in (("china", 4), ("china_32x64", 1)):
        grid = GRIDS[name]
        rows, cols = station_cells(grid)
        assert rows.shape == cols.shape == (12,)
        assert np.abs(grid.lat[rows] - 40.1).max() < abs(np.diff(grid.lat[:2])[0])
        assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) >= cells


def test_the_table_marks_what_is_outside_the_tolerance(beijing):
    text = table_text(beijing, beijing)
    assert "outside" not in text
    assert largest_difference(beijing, beijing) == 0
    name = TARGETS[0]
    real = beijing[name]
    other = Behaviour(real.mean, real.std, real.autocorrelation, real.persistence + 0.2,
                      real.by_hour, real.by_month)  # fmt: skip
    changed = beijing | {name: other}
    assert largest_difference(beijing, changed) == pytest.approx(0.2)
    assert table_text(beijing, changed).count("outside") == 1
    assert "SYNTHETIC" in text
