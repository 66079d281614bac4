"""Violations are counted exactly; the mass budget closes where everything about it is known."""

from __future__ import annotations

import numpy as np
import pytest
from forecast_case import GRID, LEADS, made_up_forecast, small_mask, small_store
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_years import make_year

from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, StoreError
from aqnet.grid import EARTH_RADIUS_KM, GRIDS, Grid
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.forecast_plan import ForecastPlan, write_forecasts
from aqnet.verification.physics.checks import check_store, check_truth
from aqnet.verification.physics.mass_budget import borders_of, budget_terms, face_wind, mass_budget
from aqnet.verification.store.reader import open_forecast_store

SPHERE = Grid("sphere", np.arange(49.75, 20, -0.5), np.arange(90.25, 130, 0.5))  # to the south
LAT, LON = SPHERE.mesh()
EVERYWHERE = np.ones(SPHERE.shape, bool)


# ---- values


def spoilt(times, leads=LEADS, shape=GRID.shape):
    """PM10 is PM2.5 + 10, but for places that are known; ozone is 0 once at each init time."""
    found = made_up_forecast(times, leads, shape)
    found[:, :, 1] = found[:, :, 0] + 10
    found[:, 1, 0, 5, 7] = found[:, 1, 1, 5, 7] + 4  # second lead: PM2.5 above PM10 by 4
    found[:, 0, 0, 6, 6] = found[:, 0, 1, 6, 6] + 0.25
    found[:, 1, 5, 4, 9] = 0.0
    return found


class Below:
    """A store that its writer would have refused: -2 where it has 0."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def read(self, *asked, **options):
        values = self.store.read(*asked, **options)
        return np.where(values == 0, np.float32(-2), values)


def rows_of(rows, **labels):
    return [r for r in rows if all(r[k] == v for k, v in labels.items())]


def test_violations_are_counted_exactly(tmp_path):
    store = open_forecast_store(small_store(tmp_path / "f.zarr", forecast=spoilt))
    rows = check_store(store)
    assert len(rows) == 7 * len(LEADS)
    values = 20 * int(small_mask().sum())
    assert {row["values"] for row in rows} == {values}
    (zero,) = rows_of(rows, check="negative", pollutant="o3", lead_h=24)
    assert (zero["violations"], zero["at_limit"], zero["worst_at"]) == (0, 20, None)
    (below,) = rows_of(check_store(Below(store)), check="negative", pollutant="o3", lead_h=24)
    assert (below["violations"], below["above_1_ug_m3"], below["share"]) == (20, 20, 20 / values)
    assert below["worst_ug_m3"] == below["mean_size_ug_m3"] == 2.0
    assert below["worst_at"]["lat"] == GRID.lat[4] and below["worst_at"]["lon"] == GRID.lon[9]
    large, small = (rows_of(rows, check="pm25_above_pm10", lead_h=h)[0] for h in (24, 12))
    assert (large["violations"], large["above_1_ug_m3"]) == (20, 20)
    assert large["worst_ug_m3"] == pytest.approx(4, abs=0.3)  # the store rounds
    assert small["violations"] <= 20 and small["above_1_ug_m3"] == 0
    clean = [r for r in rows if r["check"] == "negative" and r["pollutant"] != "o3"]
    assert all(r["violations"] == 0 and r["worst_at"] is None for r in clean)


def test_rounding_in_a_store_makes_no_violation(tmp_path):
    def equal(times):
        found = made_up_forecast(times)
        found[:, :, 1] = found[:, :, 0]
        return found

    store = open_forecast_store(small_store(tmp_path / "f.zarr", forecast=equal))
    rows = check_store(store)
    assert all(row["violations"] == 0 for row in rows)
    equal_ones = rows_of(rows, check="pm25_above_pm10")
    assert [row["at_limit"] for row in equal_ones] == [row["values"] for row in equal_ones]


def test_a_store_without_pm10_has_no_row_of_that_check(tmp_path):
    path = small_store(tmp_path / "f.zarr", pollutants=("pm25",),
                       forecast=lambda times: made_up_forecast(times)[:, :, :1])  # fmt: skip
    assert {row["check"] for row in check_store(open_forecast_store(path))} == {"negative"}


# ---- the budget on a sphere


def terms_of(borders, u, v, fields, leads):
    """Budget of fields (K, H, W) of one pollutant under winds (K, H, W)."""
    flat = fields.reshape(len(fields), 1, -1)
    face = flat[..., borders.cells].mean(-1)
    mean = np.add.reduceat(flat[..., borders.inside] * borders.weight, borders.inside_starts, -1)
    return budget_terms(borders, face_wind(borders, u, v), face, mean, leads)[:, :, 0]


def cloud(shift_deg):
    return 100 * np.exp(-(((LON - 104 - shift_deg) / 2.5) ** 2) - ((LAT - 35) / 2) ** 2)


def test_a_cloud_carried_by_a_uniform_rotation_has_a_closed_budget():
    """Solid-body rotation moves it unchanged; the residual is within 1 % of the largest change."""
    hours = np.arange(73)
    shift = np.rad2deg(10.0 * 3600 * hours / (EARTH_RADIUS_KM * 1e3))
    u = np.tile(10 * np.cos(np.deg2rad(LAT)), (73, 1, 1))
    box = (abs(LAT - 35) < 4) & (abs(LON - 112) < 5)
    borders = borders_of(SPHERE, EVERYWHERE, {"box": box})
    change, carried, lifted, residual = terms_of(
        borders, u, 0 * u, np.stack([cloud(s) for s in shift]), hours[1:]
    )
    assert change.max() > 15 and abs(lifted).max() < 1e-9
    assert abs(residual).max() < 0.01 * change.max()
    np.testing.assert_allclose(carried + residual, change)


def test_the_same_along_a_meridian():
    """A wind v / cos(lat) over a step of mass: what passes both faces is known in closed form."""
    v = np.tile(3.0 / np.cos(np.deg2rad(LAT)), (25, 1, 1))
    box = (abs(LAT - 35) < 4) & (abs(LON - 112) < 5)
    borders = borders_of(SPHERE, EVERYWHERE, {"box": box})
    found = terms_of(borders, 0 * v, v, np.where(LAT < 31, 80.0, 20.0) * np.ones_like(v), [24])
    # the face at 31 N lies between 80 and 20; that at 39 N between 20 and 20
    width = EARTH_RADIUS_KM * 1e3 * np.deg2rad(0.5) * box.any(0).sum()
    wind = [3 * np.mean(1 / np.cos(np.deg2rad([e - 0.25, e + 0.25]))) for e in (31.0, 39.0)]
    enters = 50 * wind[0] * np.cos(np.deg2rad(31)) - 20 * wind[1] * np.cos(np.deg2rad(39))
    expected = 86400 * width * enters / (SPHERE.cell_area_km2 * 1e6)[box].sum()
    assert found[1, 0, 0] == pytest.approx(expected, rel=1e-9)


def test_a_source_is_the_residual_and_convergence_is_lifted():
    box = (abs(LAT - 35) < 4) & (abs(LON - 112) < 5)
    borders = borders_of(SPHERE, EVERYWHERE, {"box": box})
    hours = np.arange(25)[:, None, None]
    source = terms_of(borders, 0 * LAT + 0 * hours, 0 * LAT + 0 * hours, 2.0 * hours * box, [6, 24])
    np.testing.assert_allclose(source[3, :, 0], [12, 48])
    inwards = -0.5 * (LON - 112) + 0 * hours
    still = terms_of(borders, inwards, 0 * inwards, 50.0 + 0 * inwards, [24])
    assert still[1, 0, 0] > 10
    assert abs(still[3]).max() < 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_what_leaves_one_region_enters_its_neighbour(seed, middle):
    """Carried mass of two boxes that touch is that of both together: faces between them cancel."""
    rng = np.random.default_rng(seed)
    u, v, c = rng.normal(size=(3, 7, *SPHERE.shape))
    rows, columns = np.indices(SPHERE.shape)
    whole = (rows > 2) & (rows < 30) & (columns > 2) & (columns < 20)
    parts = {"whole": whole, "a": whole & (columns <= middle), "b": whole & (columns > middle)}
    borders = borders_of(SPHERE, EVERYWHERE, parts)
    found = terms_of(borders, u, v, c, [3, 6])
    mass = found[1] * borders.area_m2
    np.testing.assert_allclose(mass[:, 0], mass[:, 1] + mass[:, 2], rtol=1e-9, atol=1e-3)


def test_cells_at_the_edge_of_the_domain_are_left_out_and_said():
    mask = EVERYWHERE.copy()
    mask[:, 40:] = False
    rows, columns = np.indices(SPHERE.shape)
    borders = borders_of(SPHERE, mask, {"edge": (columns >= 35) & (rows > 5) & (rows < 20),
                                        "outside": columns > 50})  # fmt: skip
    assert borders.names == ("edge",)
    assert borders.covered[0] == pytest.approx(4 / 5)
    assert not np.isin(borders.cells, np.flatnonzero(~mask)).any()
    with pytest.raises(CoverageError, match="no region has a cell"):
        borders_of(SPHERE, mask, {"outside": columns > 50})


# ---- from stores

CHINA = GRIDS["china_32x64"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    return YearSet([open_year(make_year(folder, days=6, missing={100: "lost"}))])


def perfect(truth, leads):
    """Forecasts that are the truth at the valid time (of the hours that are not lost)."""
    at = [DYNAMIC.index(name) for name in TARGETS]

    def forecast(times):
        rows = np.searchsorted(truth.times, times)[:, None] + np.asarray(leads)
        fields = truth.read(rows.ravel())[:, at]
        fields = np.where(np.isnan(fields), 1.0, fields)
        return fields.reshape(len(times), len(leads), 6, *truth.mask.shape)

    return forecast


def budget_store(truth, path, leads=(3, 6), times=None, forecast=None, **changes):
    told = {"title": "t", "kind": "baseline", "name": "n", "source": "s", "data": {}, "run": "none",
            "code": {}, "synthetic": True, "weather": "none"}  # fmt: skip
    parts = {"times": truth.times[:120:6] if times is None else times, "skipped": (),
             "lead_times_h": leads, "grid": truth.grid, "mask": truth.mask, "provenance": told,
             "forecast": forecast or perfect(truth, leads), "batch": 4}  # fmt: skip
    write_forecasts(ForecastPlan(**parts | changes), path, echo=lambda line: None)
    return open_forecast_store(path)


def members(truth):
    lat, lon = truth.grid.mesh()
    return {"box": (abs(lat - 36) < 5) & (abs(lon - 105) < 8)}


def test_a_perfect_forecast_has_the_budget_of_the_truth(truth, tmp_path):
    store = budget_store(truth, tmp_path / "f.zarr")
    budget = mass_budget(store, truth, members(truth))
    forecast, same, hourly = budget.terms
    assert not np.isin(truth.times[[96]], budget.init_times)  # hour 100 is lost
    assert len(budget.init_times) == 19
    np.testing.assert_allclose(forecast, same, rtol=1e-2, atol=0.3)  # rounded
    np.testing.assert_allclose(hourly[0], same[0])
    assert not np.allclose(hourly[1], same[1])  # what the leads leave out
    rows = budget.table()
    assert len(rows) == 6 * 2 * 3
    (row,) = rows_of(rows, of="forecast", pollutant="pm25", lead_h=6)
    assert row["inits"] == 19 and row["rms_residual_minus_truth_ug_m3_h"] < 0.1
    area = budget.borders.area_m2[0]
    assert row["start_kg_per_m"] == pytest.approx(budget.start[:, 0, 0].mean() * area * 1e-9)


def test_few_init_times_are_chosen_evenly(truth, tmp_path):
    store = budget_store(truth, tmp_path / "f.zarr")
    few = mass_budget(store, truth, members(truth), inits=3, pollutants=["o3"])
    assert few.init_times[[0, -1]].tolist() == store.init_times[[0, -1]].tolist()
    assert few.terms.shape == (3, 4, 3, 2, 1, 1)


def test_the_yardstick_counts_each_hour_of_the_truth_once(truth, tmp_path):
    store = budget_store(truth, tmp_path / "f.zarr")
    rows = check_truth(truth, store)
    hours = np.setdiff1d(np.unique(store.valid_times), truth.times[100])  # that one is lost
    (pm25,) = rows_of(rows, check="negative", pollutant="pm25")
    assert pm25["values"] == hours.size * truth.mask.sum()
    assert pm25["violations"] == 0
    (both,) = rows_of(rows, check="pm25_above_pm10")
    at = [DYNAMIC.index("pm25"), DYNAMIC.index("pm10")]
    held = np.isin(truth.times, store.valid_times)
    values = truth.read(np.flatnonzero(held))[:, at][..., truth.mask]
    assert both["violations"] == int((values[:, 0] > values[:, 1]).sum())


def test_what_does_not_fit_is_named(truth, tmp_path):
    other = open_forecast_store(small_store(tmp_path / "other.zarr"))
    with pytest.raises(StoreError, match="not on one grid"):
        check_truth(truth, other)
    with pytest.raises(StoreError, match="not on one grid"):
        mass_budget(other, truth, {})
    late = budget_store(truth, tmp_path / "late.zarr", times=truth.times[-2:] + 240,
                        forecast=lambda t: np.ones((len(t), 2, 6, *truth.mask.shape)))  # fmt: skip
    with pytest.raises(CoverageError, match="none of the valid times"):
        check_truth(truth, late)
    with pytest.raises(CoverageError, match="no init time has all its hours"):
        mass_budget(late, truth, members(truth))
