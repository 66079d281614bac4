"""Forecasts of a split on the real store: who sees what, and that all are judged alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aqnet.data.history import History
from aqnet.data.stations.analysis import carry_forward
from aqnet.data.stations.samples import ForecastSamples
from aqnet.metrics import VerificationError
from aqnet.model.presets import model_preset
from aqnet.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from aqnet.training.config import TrainingConfig
from aqnet.training.station_problem import station_problem
from aqnet.variables import TARGETS
from aqnet.verification.forecasts import FORECASTS, fields_at, forecast_split
from aqnet.verification.scores import ASSIMILATED, GRID, WITHHELD, place_scores, primary_test
from aqnet.verification.selection import ShareTrial, choose_share, try_shares
from aqnet.verification.stations.ridge import fit_station_ridge

LEADS = (12, 24, 48, 96)
STRIDE = 97  # a prime to 24: all hours of the day occur


@pytest.fixture(scope="module")
def case(store, manifest, tmp_path_factory):
    """Fields, stations, an untrained network with its fitted start, and all its forecasts."""
    torch.set_num_threads(1)
    config = model_preset("beijing", width=16, depth=1)
    problem = station_problem(manifest, config, TrainingConfig(), store=store.path)
    fields, stations = problem.data.fields, problem.data.stations
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    model, identity = problem.model, problem.identity
    parts = (model.kind, model.config, model.state_dict(), model.arrays(), identity)
    write_checkpoint(path, Checkpoint(*parts, extra=problem.extra))
    loaded = load_checkpoint(path)
    start = loaded.model.start_weights.double().numpy()
    ridge = fit_station_ridge(fields, stations, loaded.statistical, start, 8000.0)
    common = {
        "loaded": loaded,
        "fields": fields,
        "stations": stations,
        "ridge": ridge,
        "grid": manifest.grid_object(),
        "stride": STRIDE,
        "echo": lambda line: None,
    }
    return common, forecast_split(split="test", on_grid=True, **common)


def test_all_forecasts_on_common_pairs(case):
    _, result = case
    table = place_scores(result.stations, result.grid)
    assert set(table["forecast"]) == set(FORECASTS)
    assert set(table["place"]) == {ASSIMILATED, WITHHELD, GRID}
    counts = table.groupby(["place", "pollutant", "lead_h"])["n"].nunique()
    assert (counts == 1).all() and (table["n"] > 0).all()


def test_persistence_is_the_last_value_up_to_three_hours_old(case):
    common, result = case
    stations = common["stations"]
    rows = np.searchsorted(stations.times, result.times)
    for n, row in enumerate(rows):
        recent = stations.observed[row - 3 : row + 1]  # (4, 6, S)
        last = np.full(recent.shape[1:], np.nan)
        for hour in recent:
            last = np.where(np.isfinite(hour), hour, last)
        found = result.at_stations["persistence"][n]
        np.testing.assert_allclose(found, np.broadcast_to(last, found.shape), rtol=1e-4, atol=1e-2)


def test_an_untrained_network_adds_nothing(case):
    _, result = case
    np.testing.assert_allclose(
        result.at_stations["model"], result.at_stations["regression alone"], atol=1e-2
    )


def test_the_model_at_stations_is_its_field_there(case):
    common, result = case
    grid, stations = common["grid"], common["stations"]
    field, truth, scored = fields_at(common["loaded"], common["fields"], result.times[:2])
    assert np.isfinite(truth[scored]).all()
    s = stations.names.index("Guanyuan")
    y = np.interp(stations.lat[s], grid.lat, np.arange(len(grid.lat)))
    x = np.interp(stations.lon[s], grid.lon, np.arange(len(grid.lon)))
    (i, fy), (j, fx) = (divmod(v, 1) for v in (y, x))
    i, j = int(i), int(j)
    by_hand = (1 - fy) * ((1 - fx) * field[..., i, j] + fx * field[..., i, j + 1])
    by_hand = by_hand + fy * ((1 - fx) * field[..., i + 1, j] + fx * field[..., i + 1, j + 1])
    np.testing.assert_allclose(result.at_stations["model"][:2, ..., s], by_hand, rtol=1e-4)


def altered(stations, columns, rows):
    """Stations whose observations are nonsense at some rows (mask over time) and columns."""
    observed = stations.observed.copy()
    observed[np.ix_(rows, np.arange(len(TARGETS)), columns)] = 777.0
    carried = carry_forward(observed)[0]
    history = History.build(stations.times, carried, stations.history.climatology)
    return replace(stations, observed=observed, history=history)


def test_withheld_stations_reach_no_forecast_of_another_place(case):
    common, result = case
    everywhere = np.ones(len(common["stations"].times), dtype=bool)
    withheld = np.flatnonzero(common["stations"].withheld)
    changed = altered(common["stations"], withheld, everywhere)
    loaded, fields = common["loaded"], common["fields"]
    start = loaded.model.start_weights.double().numpy()
    ridge = fit_station_ridge(fields, changed, loaded.statistical, start, 8000.0)
    other = forecast_split(
        split="test", on_grid=False, **common | {"stations": changed, "ridge": ridge}
    )
    kept = ~changed.withheld
    assert (other.observed != result.observed).any()
    np.testing.assert_array_equal(other.at_stations["model"], result.at_stations["model"])
    mine, theirs = (r.at_stations["ridge"][..., kept] for r in (result, other))
    np.testing.assert_array_equal(mine, theirs)


def test_the_ridge_is_fitted_on_training_hours(case):
    common, _ = case
    stations, fields, loaded = common["stations"], common["fields"], common["loaded"]
    later = stations.times >= fields.splits["validation"].start
    changed = altered(stations, np.arange(len(stations.names)), later)
    start = loaded.model.start_weights.double().numpy()
    fits = [
        fit_station_ridge(fields, s, loaded.statistical, start, 8000.0).weights
        for s in (stations, changed)
    ]
    np.testing.assert_array_equal(*fits)


def test_a_checkpoint_of_another_store_is_refused(case):
    common, _ = case
    other = replace(common["fields"], digest="0" * 64)
    with pytest.raises(VerificationError, match="another store"):
        forecast_split(split="test", on_grid=False, **common | {"fields": other})


def test_maps_need_a_sample_at_their_init_time(case):
    common, _ = case
    samples = ForecastSamples(common["fields"], "train", LEADS)
    with pytest.raises(VerificationError, match="no sample"):
        fields_at(common["loaded"], common["fields"], samples.times[:1])


def test_shares_are_judged_as_the_evaluation_judges(case):
    common, _ = case
    loaded, fields, stations = common["loaded"], common["fields"], common["stations"]
    grid = common["grid"]
    half, full = try_shares(loaded.model, loaded.statistical, fields, stations, grid, (0.5, 1.0))
    board = forecast_split(split="validation", on_grid=False, **common | {"stride": 1}).stations
    test = primary_test(board, board, yardsticks=())
    ratios = [cell.rmse_model / cell.rmse_opponent for cell in test.cells]
    # The ridge forecast narrows the common pairs of the evaluation by a few hours.
    assert full.rmse_ratio == pytest.approx(np.mean(ratios), abs=2e-3)
    assert abs(full.won - test.won) <= 1 and full.lost == test.lost
    assert half.rmse_ratio != full.rmse_ratio


@pytest.mark.parametrize(
    ("trials", "share"),
    [
        ([ShareTrial(0.5, 9, 0, 0.97), ShareTrial(1.0, 2, 0, 0.95)], 1.0),  # keeps too little
        ([ShareTrial(0.5, 1, 0, 0.96), ShareTrial(1.0, 3, 0, 0.95)], 0.5),  # keeps four fifths
        ([ShareTrial(0.5, 3, 0, 0.99), ShareTrial(1.0, 5, 1, 0.95)], 0.5),  # none lost first
        ([ShareTrial(0.5, 0, 0, 1.01), ShareTrial(1.0, 0, 0, 1.05)], 0.5),  # nothing gained
    ],
)
def test_choice_of_the_share(trials, share):
    assert choose_share(trials).share == share


def test_share_scales_the_correction(case):
    common, _ = case
    model = common["loaded"].model
    batch = ForecastSamples(common["fields"], "test", LEADS).__getitems__([0, 50])
    with torch.no_grad():
        try:
            model.share.fill_(0.25)
            expected = model.start(batch) + 0.25 * model.scale(batch) * model.correction(batch)
            torch.testing.assert_close(model(batch), expected.clamp_min(0))
        finally:
            model.share.fill_(1.0)
