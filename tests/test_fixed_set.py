"""The loss on a fixed set: that of the training, in its units and in the original constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
import torch
from synthetic import LEADS, QUICK, config, splits, tiny
from test_forecast_plan import checkpoint
from test_problem import TINY_STORE, fields_problem, recorded, tiny_manifest  # noqa: F401

from aqnet.data.manifest import load_manifest
from aqnet.data.normalisation import target_channels
from aqnet.data.stations.samples import ForecastSamples
from aqnet.data.years.year_set import open_years
from aqnet.errors import CoverageError, ParameterError, StoreError
from aqnet.training.checkpoint import load_checkpoint
from aqnet.training.station_problem import station_problem
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification import forecast_stations
from aqnet.verification.contrasts import fixed_set
from aqnet.verification.contrasts.fixed_set import (
    ORIGINAL_UG_M3,
    PERSISTENCE,
    judge_fixed_set,
    normalised_loss,
    spread_of,
)
from aqnet.verification.contrasts.runs import MODEL
from aqnet.verification.forecast_fields import plan_fields
from aqnet.verification.forecast_plan import Period
from aqnet.verification.groups import ALL, ASSIMILATED, WITHHELD

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def judged(recorded, tmp_path_factory):  # noqa: F811
    path, folder = recorded
    problem = fields_problem(recorded, persistence=True)
    loaded = load_checkpoint(checkpoint(problem, tmp_path_factory.mktemp("c") / "m.ckpt"))
    manifest = load_manifest(path)
    board = judge_fixed_set(loaded, manifest, folder, every_h=6, split="test", echo=str)
    plan = plan_fields(loaded, manifest, Period(split="test", every_h=6), name="m", folder=folder)
    return problem, loaded, board, plan


def test_its_loss_is_that_of_all_its_pairs(judged):
    problem, loaded, board, plan = judged
    years = problem.data.years
    leads = np.array(board.design.lead_times_h).astype("timedelta64[h]")
    truth = years.read(np.searchsorted(years.times, (board.times[:, None] + leads).ravel()))
    truth = truth[:, [DYNAMIC.index(name) for name in TARGETS]][..., years.mask].astype(float)
    truth = truth.reshape(len(board.times), len(leads), len(TARGETS), -1)
    batches = [board.times[i : i + 8] for i in range(0, len(board.times), 8)]
    forecast = np.concatenate([plan.forecast(times)[..., plan.mask] for times in batches])
    spread = loaded.model.prepare.target_spread[:, 0].double().numpy()
    square = np.square((forecast - truth) / spread[:, None])
    expected = np.nanmean(square, axis=(0, 3)).mean()
    units = spread_of(loaded)
    assert list(units) == list(TARGETS) and list(units.values()) == spread.tolist()
    assert normalised_loss(board, MODEL, units) == pytest.approx(expected, rel=1e-6)
    still = normalised_loss(board, PERSISTENCE, units)
    assert still != pytest.approx(expected, rel=1e-3)


def test_every_cell_has_the_same_weight(judged):
    _, loaded, board, _ = judged
    cells = int(loaded.model.domain.mask.sum())
    assert board.weight[..., 0].max() == cells and board.design.weight == "1 a cell"
    assert board.design.forecasts == (MODEL, PERSISTENCE)


def test_other_units_weigh_pollutants_differently(judged):
    _, _, board, _ = judged
    ones = dict.fromkeys(TARGETS, 1.0)
    whole = normalised_loss(board, MODEL, ones)
    assert normalised_loss(board, MODEL, dict.fromkeys(TARGETS, 2.0)) == pytest.approx(whole / 4)
    assert normalised_loss(board, MODEL, ORIGINAL_UG_M3) != pytest.approx(whole, rel=1e-3)
    assert set(ORIGINAL_UG_M3) == set(TARGETS)


def test_an_interval_that_does_not_divide_a_day_is_refused(judged, recorded):  # noqa: F811
    with pytest.raises(ParameterError, match="divides 24 h"):
        judge_fixed_set(judged[1], load_manifest(recorded[0]), recorded[1], every_h=7)


def test_stores_that_were_written_anew_are_refused(judged, recorded):  # noqa: F811
    years = open_years(load_manifest(recorded[0]), recorded[1])
    fixed_set._require_stores(judged[1], years)
    years.stores[0].attributes["content_sha256"] = "0" * 64
    with pytest.raises(StoreError, match=rf"not the stores(.|\n)*{years.stores[0].path.name}"):
        fixed_set._require_stores(judged[1], years)
    checkpoint = judged[1].checkpoint
    identity = checkpoint.identity.model_copy(update={"stores": ()})
    others = replace(checkpoint, identity=identity)
    with pytest.raises(StoreError, match="not the stores of the training"):
        judge_fixed_set(replace(judged[1], checkpoint=others), load_manifest(recorded[0]),
                        recorded[1], every_h=6, split="test", echo=str)  # fmt: skip


def test_absent_hours_of_the_truth_are_counted(recorded):  # noqa: F811
    years = open_years(load_manifest(recorded[0]), recorded[1])
    last, hour = years.times[-1], np.timedelta64(1, "h")
    times = last - np.array([30, 6, 1]) * hour
    found = fixed_set._truth(years, times[:2], (6,))
    at = [DYNAMIC.index(name) for name in TARGETS]
    rows = [len(years.times) - 25, len(years.times) - 1]
    np.testing.assert_array_equal(found[:, 0], years.read(rows)[:, at][..., years.mask])
    absent = rf"lack hours of the truth(.|\n)*3 absent, the first {last + 5 * hour} UTC"
    with pytest.raises(CoverageError, match=absent):
        fixed_set._truth(years, times, (6, 24))
    before = years.times[:1] - 12 * hour
    with pytest.raises(CoverageError, match=f"1 absent, the first {before[0] + 6 * hour} UTC"):
        fixed_set._truth(years, before, (6, 12))


# ---- stations

EVERY_H = 8


@pytest.fixture
def at_stations(tiny_manifest, tmp_path, monkeypatch):  # noqa: F811
    for module in (forecast_stations, fixed_set):
        monkeypatch.setattr(module, "open_store", lambda path, manifest: TINY_STORE)
        monkeypatch.setattr(module, "splits_of", lambda manifest: splits())
    problem = station_problem(tiny_manifest, config(), QUICK, store="memory")
    loaded = load_checkpoint(checkpoint(problem, tmp_path / "m.ckpt"))
    return loaded, tiny_manifest


def carried(series: np.ndarray, row: int) -> float:
    """The last value of a station's series, at most 3 h old."""
    known = series[row - 3 : row + 1][np.isfinite(series[row - 3 : row + 1])]
    return float(known[-1]) if known.size else np.nan


def test_the_loss_at_stations_is_that_of_slow_loops(at_stations):
    """Stations of the made-up store lie in the centres of cells."""
    loaded, manifest = at_stations
    board = judge_fixed_set(loaded, manifest, "memory", EVERY_H, "test", echo=str)
    content, samples = synthetic.arrays(), ForecastSamples(tiny()[0], "test", LEADS)
    observed = content["station_values"]
    kept = np.flatnonzero(samples.times.astype(int) % EVERY_H == 0)
    np.testing.assert_array_equal(board.times, samples.times[kept])
    with torch.no_grad():
        fields = loaded.model(samples.__getitems__(kept)).double().numpy()
    lat, lon = (content[f"station_{x}"] for x in ("lat", "lon"))
    cells = [np.searchsorted(content[x], y - 1e-9) for x, y in (("lat", lat), ("lon", lon))]
    model = fields[..., cells[0], cells[1]]
    spread, losses = spread_of(loaded), {MODEL: [], PERSISTENCE: []}
    for k, lead in enumerate(LEADS):
        for p, name in enumerate(TARGETS):
            squares = {MODEL: [], PERSISTENCE: []}
            for n, row in enumerate(samples.rows[kept]):
                for station in range(6):
                    truth = observed[row + lead, station, p]
                    last = carried(observed[:, station, p], row)
                    if np.isfinite(truth) and np.isfinite(last):
                        squares[MODEL].append((model[n, k, p, station] - truth) ** 2)
                        squares[PERSISTENCE].append((last - truth) ** 2)
            for forecast, values in squares.items():
                losses[forecast].append(np.mean(values) / spread[name] ** 2)
            assert len(squares[MODEL]) < 6 * len(kept)  # some are not known
            assert board.weight[:, k, p, 0].sum() == len(squares[MODEL])
    for forecast, values in losses.items():
        assert normalised_loss(board, forecast, spread) == pytest.approx(np.mean(values), rel=1e-5)


def test_withheld_stations_are_a_group_and_the_spread_is_about_the_climatology(at_stations):
    loaded, manifest = at_stations
    board = judge_fixed_set(loaded, manifest, "memory", EVERY_H, "test", echo=str)
    assert board.design.groups == (ALL, ASSIMILATED, WITHHELD)
    assert board.design.forecasts == (MODEL, PERSISTENCE)
    assert board.design.weight == "1 a station"
    assert (board.weight.max((0, 1, 2)) == [6, 5, 1]).all()
    normaliser = loaded.normaliser
    expected = normaliser.spread[target_channels()]
    assert list(spread_of(loaded).values()) == pytest.approx(expected.tolist(), rel=1e-6)
    fields, train = tiny()[0], splits()["train"]
    inside = train.contains(fields.history.times)
    anomalies = fields.history.anomalies[inside][:, target_channels()].astype(float)
    assert anomalies.std((0, 2, 3)) == pytest.approx(expected, rel=1e-4)


def test_stations_are_judged_on_the_cpu(at_stations):
    with pytest.raises(ParameterError, match="runs on the CPU"):
        judge_fixed_set(*at_stations, "memory", device="cuda")
