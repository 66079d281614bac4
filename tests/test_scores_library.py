"""Every score in a table of a scoreboard equals that of the `scores` library, on the same pairs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import xarray as xr
from scores import categorical, continuous, spatial
from scores.stats.statistical_tests import diebold_mariano as library_test

from aqnet.verification.accumulate import Accumulator, design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import Groups
from aqnet.verification.score_tables import error_table, event_table
from aqnet.verification.significance import diebold_mariano

LEADS, POLLUTANTS = (12, 24), ("pm25", "o3")
LIMITS = {"pm25": (40.0, 90.0), "o3": (60.0, 110.0)}
SHAPE, WINDOWS = (19, 23), (3, 5)
N = 12
EAST = np.zeros(SHAPE, bool)
EAST[:, 12:] = True


@cache
def fields():
    """Forecast, truth and climatology (N, L, P, H, W); no event in the four outer rows."""
    rng = np.random.default_rng(0)
    truth = 45 * rng.gamma(1.5, size=(N, 2, 2, *SHAPE))
    forecast = 0.6 * truth + 25 * rng.gamma(1.5, size=truth.shape)
    inner = np.zeros(SHAPE, bool)
    inner[4:-4, 4:-4] = True
    truth, forecast = (np.where(inner, x, 0.2 * np.minimum(x, 100)) for x in (truth, forecast))
    return forecast, truth, 40 + 5 * rng.standard_normal(truth.shape)


def lost():
    """Pairs without truth, away from what the windows see."""
    gone = np.zeros((N, 2, 2, *SHAPE), bool)
    gone[::3, 0, 1] = True
    return gone


@cache
def tables(kind, windows):
    """Tables of errors and events of a board with the weight one a cell, by group."""
    forecast, truth, usual = fields()
    truth = np.where(lost(), np.nan, truth)
    lat, lon = np.meshgrid(np.linspace(30, 35, 19), np.linspace(100, 106, 23), indexing="ij")
    places = Groups(lat.ravel(), lon.ravel(), np.ones(lat.size), {"east": EAST.ravel()})
    design = design_of(places, ("model",), LEADS, POLLUTANTS, LIMITS, windows, anomalies=True)
    mask = np.ones(SHAPE, bool)
    adder = kind(design, places, mask) if windows else kind(design, places)
    times = np.datetime64("2016-11-30T00", "h") + np.arange(N)
    forecast, truth, usual = (x.reshape(*x.shape[:3], -1) for x in (forecast, truth, usual))
    adder.add(times, {"model": forecast}, truth, usual)
    keys = ["pollutant", "lead_h", "group"]
    events = event_table(adder.board).set_index([*keys, "threshold_ug_m3"])
    return error_table(adder.board).set_index(keys).sort_index(), events.sort_index()


def pairs(lead, pollutant, group):
    """Known pairs and climatology of a cell of the table, flat."""
    known = ~lost()[:, lead, pollutant] & (EAST if group == "east" else True)
    return [xr.DataArray(x[:, lead, pollutant][known], dims="pair") for x in fields()]


@pytest.mark.parametrize("kind", [Accumulator, BlockAccumulator])
def test_errors(kind):
    errors, _ = tables(kind, ())
    for (pollutant, lead, group), row in errors.iterrows():
        f, o, usual = pairs(LEADS.index(lead), POLLUTANTS.index(pollutant), group)
        bias = continuous.additive_bias(f, o)
        a, b = f - usual, o - usual
        both = [xr.concat([x, -x], "pair") for x in (a, b)]  # no mean: the uncentred correlation
        expected = {
            "rmse": continuous.rmse(f, o),
            "mae": continuous.mae(f, o),
            "bias": bias,
            "correlation": continuous.correlation.pearsonr(f, o),
            "centred_rmse": continuous.rmse(f - bias, o),
            "anomaly_correlation": continuous.correlation.pearsonr(*both),
            "centred_anomaly_correlation": continuous.correlation.pearsonr(a, b),
        }
        assert row["n"] == f.size
        for name, value in expected.items():
            assert row[f"{name}_over_space_time"] == pytest.approx(float(value), rel=1e-9), name


@pytest.mark.parametrize("kind", [Accumulator, BlockAccumulator])
def test_events(kind):
    _, events = tables(kind, ())
    for (pollutant, lead, group, limit), row in events.iterrows():
        f, o, _ = pairs(LEADS.index(lead), POLLUTANTS.index(pollutant), group)
        table = categorical.ThresholdEventOperator(default_op_fn=np.greater)
        table = table.make_contingency_manager(f, o, event_threshold=limit)
        expected = {
            "probability_of_detection": table.probability_of_detection(),
            "false_alarm_ratio": table.false_alarm_ratio(),
            "critical_success_index": table.critical_success_index(),
        }
        for name, value in expected.items():
            assert row[f"{name}_over_space_time"] == pytest.approx(float(value), rel=1e-9), name


def test_fractions_skill_score():
    # Windows over the edge hold no event: the library leaves them out, here they add nothing.
    _, events = tables(Accumulator, WINDOWS)
    forecast, truth, _ = fields()
    for (pollutant, lead, group, limit), row in events.iterrows():
        if group != "all":  # the library has no group of cells
            continue
        k, p = LEADS.index(lead), POLLUTANTS.index(pollutant)
        known = ~lost()[:, k, p, 0, 0]
        f, o = (xr.DataArray(x[known, k, p], dims=("time", "y", "x")) for x in (forecast, truth))
        for size in WINDOWS:
            expected = spatial.fss_2d(
                f, o, event_threshold=limit, window_size=(size, size), spatial_dims=("y", "x"),
                threshold_operator=np.greater,
            )  # fmt: skip
            found = row[f"fractions_skill_score_over_space_time_{size}_cells"]
            assert 0.05 < found < 0.999 and found == pytest.approx(float(expected), rel=1e-9)


def test_diebold_mariano_without_memory():
    # One step ahead the test of Harvey, Leybourne and Newbold has no autocovariances, as a window
    # of one hour; its factor is (n - 1) / n under the root.
    rng = np.random.default_rng(1)
    for n in (50, 400):
        a, b = rng.gamma(2, 10, n), rng.gamma(2, 11, n)
        series = xr.DataArray((a - b)[None], dims=("lead", "time"), coords={"h": ("lead", [1])})
        expected = library_test(series, "lead", "h", method="HLN", statistic_distribution="t")
        found = diebold_mariano(a, b, 1)
        scaled = found.statistic * np.sqrt((n - 1) / n)
        assert scaled == pytest.approx(float(expected["dm_test_stat"][0]), rel=1e-9)
        assert found.mean_difference == pytest.approx(float(expected["mean"][0]), rel=1e-12)
