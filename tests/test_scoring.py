"""Scoring stores: the same board for any number of processes, and named refusals."""

from __future__ import annotations

import numpy as np
import pytest
from forecast_case import PROVENANCE, small_store
from made_up_years import made_up_mask, make_year

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, LeadTimeError, ParameterError, StoreError
from aqnet.grid import GRIDS
from aqnet.metrics import ErrorSums
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification import scoring
from aqnet.verification.score_tables import error_table, event_table
from aqnet.verification.scoring import score
from aqnet.verification.store.reader import open_forecast_store

GRID = GRIDS["china_32x64"]
CHANNELS = [DYNAMIC.index(name) for name in TARGETS]
LEADS = (12, 30)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    path = make_year(tmp_path_factory.mktemp("years"), days=4, missing={50: "lost"})
    return YearSet([open_year(path)])


def forecast_of(truth, bias):
    """Persistence with a bias in PM2.5."""

    def forecast(times):
        rows = np.searchsorted(truth.times, times)
        now = truth.read(rows)[:, CHANNELS]
        now[:, 0] += bias
        return np.repeat(now[:, None], len(LEADS), axis=1)

    return forecast


def store_of(folder, truth, name, bias=5.0, start=0, count=40, **changes):
    parts = {
        "times": truth.times[start : start + count],
        "lead_times_h": LEADS,
        "grid": GRID,
        "mask": made_up_mask(GRID),
        "provenance": PROVENANCE | {"name": name},
        "forecast": forecast_of(truth, bias),
    }
    path = small_store(folder / f"{name}.zarr", count, 7, **parts | changes)
    return open_forecast_store(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, truth):
    folder = tmp_path_factory.mktemp("forecasts")
    return store_of(folder, truth, "biased"), store_of(folder, truth, "late", start=3)


def climatology():
    coefficients = np.zeros((49, len(DYNAMIC), *GRID.shape))
    coefficients[0] = 40.0
    return HarmonicClimatology(coefficients, 8.0)


def test_scores_are_those_of_the_fields(truth, stores):
    board = score(stores[0], truth, baselines=("persistence", "climatology"),
                  climatology=climatology())  # fmt: skip
    rows = error_table(board).set_index(["forecast", "pollutant", "lead_h", "group"])
    now = truth.read(slice(0, 40))[:, CHANNELS][..., truth.mask]
    rounded = np.stack([stores[0].read(slice(0, 40), 12, p, cells=True) for p in TARGETS], 1)
    later = truth.read(slice(12, 52))[:, CHANNELS][..., truth.mask]
    for name, forecast in (("biased", rounded), ("persistence", now)):
        known = np.where(np.isfinite(now), later, np.nan)
        plain = ErrorSums((6,)).update(forecast, known, GRID.cell_area_km2[truth.mask])
        for p, pollutant in enumerate(TARGETS):
            row = rows.loc[(name, pollutant, 12, "all")]
            assert row["rmse_over_space_time"] == pytest.approx(plain.rmse()[p], rel=1e-9)
            assert row["n"] == plain.n[p]
    bias = rows["bias_over_space_time"]
    difference = bias["biased", "pm25", 30, "all"] - bias["persistence", "pm25", 30, "all"]
    assert difference == pytest.approx(5, abs=0.2)
    acc = rows["anomaly_correlation_over_space_time"]
    assert np.isnan(acc["climatology", "o3", 12, "all"]) and acc["biased", "o3", 12, "all"] < 1


def test_any_number_of_processes_gives_the_same_board(truth, stores, monkeypatch):
    monkeypatch.setattr(scoring, "_TASK", 9)  # not a multiple of the blocks
    alone, two = (score(stores[0], truth, workers=n) for n in (0, 2))
    whole = error_table(alone)
    assert error_table(two).equals(whole) and event_table(two).equals(event_table(alone))
    monkeypatch.setattr(scoring, "_TASK", 1000)
    again = error_table(score(stores[0], truth))
    numbers = whole.select_dtypes("number").columns
    np.testing.assert_allclose(again[numbers], whole[numbers], rtol=1e-9, atol=1e-10)


def test_common_init_times_and_cells_are_scored(truth, stores):
    board = score(stores, truth, {"row": np.arange(32)[:, None] == 15 + 0 * np.arange(64)})
    assert board.design.forecasts == ("biased", "late", "persistence")
    assert (board.times == truth.times[3:40]).all() and board.design.groups == ("all", "row")
    table = error_table(board).set_index(["forecast", "pollutant", "lead_h", "group"])
    counted = table["n"].unstack("forecast")
    assert (counted["late"] == counted["biased"]).all()  # the same pairs
    # the hour without truth: one init time of each lead, and its persistence
    cells = int(truth.mask.sum())
    assert counted.loc[("o3", 12, "all"), "late"] == 36 * cells


def test_bad_input_has_named_errors(truth, stores, tmp_path):
    with pytest.raises(StoreError, match="another grid"):
        score(open_forecast_store(small_store(tmp_path / "small.zarr")), truth)
    with pytest.raises(StoreError, match="names of their own"):
        score((stores[0], stores[0]), truth)
    with pytest.raises(StoreError, match="at least one store"):
        score((), truth)
    with pytest.raises(LeadTimeError, match="lead times"):
        score(stores[0], truth, lead_times_h=(12, 48))
    with pytest.raises(ParameterError, match="baseline"):
        score(stores[0], truth, baselines=("climatology",))
    with pytest.raises(ParameterError, match="not one of this grid"):
        score(stores[0], truth, climatology=HarmonicClimatology(np.zeros((49, 11, 2, 2)), 8.0))
    with pytest.raises(CoverageError, match="too little in common"):
        score(stores[0], truth, pollutants=("nox",))
    later = np.datetime64("2015-01-01T00", "h") + np.arange(5)
    far = store_of(tmp_path, truth, "far", count=5, times=later,
                   forecast=lambda t: np.ones((len(t), 2, 6, *GRID.shape), np.float32))  # fmt: skip
    with pytest.raises(CoverageError, match="nothing to score"):
        score(far, truth, baselines=())
