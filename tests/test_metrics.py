"""ErrorSums: right scores, from any split of the data."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scores import continuous as reference

from aqnet.metrics import (
    ErrorSums,
    VerificationError,
    anomaly_correlation_over_space_time,
    centred_rmse_over_space_time,
)

SCORES = ("rmse", "mae", "bias", "correlation")


def sample(seed=0, n=300, shape=(2, 3), places=4, offset=0.0, spread=20.0):
    """Correlated forecast and truth (N, *shape, S), a tenth of the truth missing."""
    rng = np.random.default_rng(seed)
    truth = offset + spread * rng.standard_normal((n, *shape, places))
    forecast = offset + 0.7 * (truth - offset) + spread * rng.standard_normal(truth.shape) / 2 + 1
    truth[rng.random(truth.shape) < 0.1] = np.nan
    return forecast, truth


def sums_of(forecast, truth, weight=None, shape=(2, 3)):
    return ErrorSums(shape).update(forecast, truth, weight)


def direct(forecast, truth, weight=None):
    """Scores of one cell from their definitions."""
    w = np.broadcast_to(1.0 if weight is None else weight, truth.shape)
    keep = np.isfinite(truth) & (w > 0)
    f, o, w = forecast[keep], truth[keep], w[keep]
    mean_f, mean_o = np.average(f, weights=w), np.average(o, weights=w)
    cov = np.average((f - mean_f) * (o - mean_o), weights=w)
    sd = [np.sqrt(np.average((x - m) ** 2, weights=w)) for x, m in ((f, mean_f), (o, mean_o))]
    return {
        "rmse": np.sqrt(np.average((f - o) ** 2, weights=w)),
        "mae": np.average(np.abs(f - o), weights=w),
        "bias": np.average(f - o, weights=w),
        "correlation": cov / sd[0] / sd[1],
    }


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_scores_equal_their_definitions(offset):
    forecast, truth = sample(offset=offset)
    weight = np.random.default_rng(1).random(4)
    sums = sums_of(forecast, truth, weight)
    for i, j in np.ndindex(2, 3):
        expected = direct(forecast[:, i, j], truth[:, i, j], weight)
        for name in SCORES:
            assert getattr(sums, name)()[i, j] == pytest.approx(expected[name], rel=1e-9), name


def test_scores_equal_the_scores_library():
    forecast, truth = sample(seed=3)
    dims = ("time", "lead", "pollutant", "station")
    f, o = xr.DataArray(forecast, dims=dims), xr.DataArray(truth, dims=dims)
    sums, keep = sums_of(forecast, truth), {"preserve_dims": ["lead", "pollutant"]}
    np.testing.assert_allclose(sums.rmse(), reference.rmse(f, o, **keep), rtol=1e-10)
    np.testing.assert_allclose(sums.mae(), reference.mae(f, o, **keep), rtol=1e-10)
    np.testing.assert_allclose(sums.bias(), reference.additive_bias(f, o, **keep), rtol=1e-9)
    r = reference.correlation.pearsonr(f, o, **keep)
    np.testing.assert_allclose(sums.correlation(), r, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 300), max_size=8),
    offset=st.sampled_from([0.0, 50.0, 1e4, -1e5]),
    spread=st.sampled_from([0.1, 20.0, 1e3]),
    seed=st.integers(0, 10_000),
    order=st.randoms(use_true_random=False),
)
def test_any_split_gives_the_same_scores(cuts, offset, spread, seed, order):
    forecast, truth = sample(seed=seed, offset=offset, spread=spread)
    weight = np.random.default_rng(seed).random(truth.shape)
    whole = sums_of(forecast, truth, weight)
    edges = [0, *sorted(cuts), 300]
    parts = [sums_of(forecast[a:b], truth[a:b], weight[a:b]) for a, b in pairwise(edges)]
    order.shuffle(parts)
    merged = sum(parts, ErrorSums((2, 3)))
    assert (merged.n == whole.n).all()
    for name in SCORES:
        np.testing.assert_allclose(getattr(merged, name)(), getattr(whole, name)(), rtol=1e-9)


def test_updates_and_merges_agree_to_1e9_for_co_one_hour_at_a_time():
    forecast, truth = sample(offset=1e4, spread=1.0)
    step = ErrorSums((2, 3))
    for hour in range(300):
        step.update(forecast[hour : hour + 1], truth[hour : hour + 1])
    whole = sums_of(forecast, truth)
    for name in SCORES:
        np.testing.assert_allclose(getattr(step, name)(), getattr(whole, name)(), rtol=1e-9)


def test_tiny_errors_on_a_large_level_keep_their_digits():
    truth = 1e4 + np.random.default_rng(0).standard_normal((1000, 1))
    forecast = truth + np.where(np.arange(1000) % 2, 1e-5, -1e-5)[:, None]
    assert sums_of(forecast, truth, shape=()).rmse() == pytest.approx(1e-5, rel=1e-6)


@given(
    hnp.arrays(np.float64, (40, 2), elements=st.integers(-(10**7), 10**7).map(lambda i: i / 1e3)),
    st.floats(0.01, 100.0),
)
def test_scores_are_consistent_with_each_other(values, weight):
    sums = sums_of(values[:, :1], values[:, 1:], weight, shape=())
    assert sums.rmse() >= sums.mae() * (1 - 1e-12)
    assert sums.mae() >= abs(sums.bias()) * (1 - 1e-12)
    assert np.isnan(sums.correlation()) or abs(sums.correlation()) <= 1
    plain = sums_of(values[:, :1], values[:, 1:], shape=())
    assert sums.rmse() == pytest.approx(plain.rmse(), rel=1e-9, abs=1e-12)  # equal weights


def test_cells_without_pairs_are_nan_and_others_are_not():
    forecast, truth = sample()
    truth[:, 0, 1] = np.nan
    sums = sums_of(forecast, truth)
    for name in SCORES:
        score = getattr(sums, name)()
        assert np.isnan(score[0, 1]) and np.isfinite(np.delete(score.ravel(), 1)).all()
    assert sums.n[0, 1] == 0
    assert np.isnan(ErrorSums((2,)).rmse()).all()


def test_constant_series_have_no_correlation():
    truth = np.random.default_rng(0).standard_normal((50, 1))
    assert np.isnan(sums_of(np.full((50, 1), 0.1), truth, shape=()).correlation())
    assert np.isnan(sums_of(truth, np.full((50, 1), 1e4 + 0.1), shape=()).correlation())
    assert sums_of(truth, truth, shape=()).correlation() == pytest.approx(1.0)
    assert sums_of(-truth, truth, shape=()).correlation() == pytest.approx(-1.0)


def test_zero_weight_leaves_out_and_hides_nan():
    forecast, truth = sample(places=3)
    kept = sums_of(forecast[..., :2], truth[..., :2])
    forecast[..., 2] = np.nan
    masked = sums_of(forecast, truth, np.array([1.0, 1.0, 0.0]))
    assert (masked.n == kept.n).all()
    np.testing.assert_allclose(masked.rmse(), kept.rmse(), rtol=1e-12)


def test_whole_weights_are_repetitions():
    forecast, truth = sample(places=2)
    doubled = sums_of(*(np.concatenate([x, x[..., :1]], axis=-1) for x in (forecast, truth)))
    weighted = sums_of(forecast, truth, np.array([2.0, 1.0]))
    for name in SCORES:
        np.testing.assert_allclose(getattr(weighted, name)(), getattr(doubled, name)(), rtol=1e-9)


def test_single_precision_input_is_summed_in_double():
    forecast, truth = (x.astype(np.float32) for x in sample(offset=1e4))
    expected = sums_of(forecast.astype(np.float64), truth.astype(np.float64))
    np.testing.assert_array_equal(sums_of(forecast, truth).rmse(), expected.rmse())


def test_stations_can_be_cells():
    forecast, truth = sample()
    by_station = sums_of(forecast, truth, shape=(2, 3, 4))
    pooled = sums_of(forecast, truth)
    assert by_station.rmse().shape == (2, 3, 4)
    assert (by_station.n.sum(-1) == pooled.n).all()


def test_json_round_trip_is_exact():
    sums = sums_of(*sample())
    back = ErrorSums.from_dict(json.loads(json.dumps(sums.to_dict())))
    for name in SCORES:
        np.testing.assert_array_equal(getattr(back, name)(), getattr(sums, name)())


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("m_dd"),
        lambda d: d.pop("shape"),
        lambda d: d.update(extra=[0]),
        lambda d: d.update(n=[1.0]),
        lambda d: d.update(weight=[[float("nan")] * 3] * 2),
    ],
)
def test_damaged_records_are_refused(damage):
    record = sums_of(*sample()).to_dict()
    damage(record)
    with pytest.raises(VerificationError, match="not a record of error sums"):
        ErrorSums.from_dict(record)


def test_merging_leaves_the_parts_alone():
    a, b = sums_of(*sample(1)), sums_of(*sample(2))
    before = json.dumps([a.to_dict(), b.to_dict()])
    assert ((a + b).n == a.n + b.n).all()
    assert json.dumps([a.to_dict(), b.to_dict()]) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unknown_forecasts_are_refused_and_change_nothing(bad):
    forecast, truth = sample()
    sums = sums_of(forecast, truth)
    before = sums.to_dict()
    truth[3, 0, 0, 0], forecast[3, 0, 0, 0] = 1.0, bad
    with pytest.raises(VerificationError, match=r"forecast is NaN or infinite.*\n.*\n.* 1 of"):
        sums.update(forecast, truth)
    assert sums.to_dict() == before


def test_infinite_truth_is_refused():
    forecast, truth = sample()
    truth[0, 0, 0, 0] = np.inf
    with pytest.raises(VerificationError, match="truth is NaN or infinite"):
        sums_of(forecast, truth)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_bad_weights_are_refused(weight):
    with pytest.raises(VerificationError, match="bad weights"):
        sums_of(*sample(), weight)


def test_wrong_shapes_are_refused():
    forecast, truth = sample()
    with pytest.raises(VerificationError, match="differ in shape"):
        sums_of(forecast[:-1], truth)
    with pytest.raises(VerificationError, match=r"wrong shape[^$]*\(N, 3, 2, \.\.\.\)"):
        sums_of(forecast, truth, shape=(3, 2))
    with pytest.raises(VerificationError, match="cannot be merged"):
        ErrorSums((2, 3)).merge(ErrorSums((3, 2)))


# ---- pooling, exchange between processes, anomalies


def test_pooled_cells_are_one_cell():
    forecast, truth = sample(offset=1e4)
    weight = np.random.default_rng(1).random(truth.shape)
    apart, pooled = sums_of(forecast, truth, weight, (2, 3, 4)), sums_of(forecast, truth, weight)
    for name in (*SCORES, "centred_rmse"):
        ours = getattr(apart.pool((-1,)), name)()
        np.testing.assert_allclose(ours, getattr(pooled, name)(), rtol=1e-9)
    every = sums_of(np.moveaxis(forecast, 0, -1)[None], np.moveaxis(truth, 0, -1)[None], shape=())
    one = sums_of(forecast, truth).pool((0, 1))
    assert one.shape == () and one.rmse() == pytest.approx(every.rmse(), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 300), max_size=5),
    offset=st.sampled_from([0.0, 1e4, -1e5]),
    seed=st.integers(0, 1000),
)
def test_gathered_vectors_of_processes_give_the_whole(cuts, offset, seed):
    forecast, truth = sample(seed=seed, offset=offset)
    whole = sums_of(forecast, truth)
    edges = [0, *sorted(cuts), 300]
    flat = np.stack([sums_of(forecast[a:b], truth[a:b]).flat() for a, b in pairwise(edges)])
    merged = ErrorSums.merge_flat((2, 3), flat)
    for name in SCORES:
        np.testing.assert_allclose(getattr(merged, name)(), getattr(whole, name)(), rtol=1e-9)


def test_moments_can_be_added_to_some_cells():
    forecast, truth = sample()
    part = sums_of(forecast[:, 1, :2], truth[:, 1, :2], shape=(2,))
    sums = ErrorSums((2, 3)).add_moments(part.state, (1, slice(0, 2)))
    np.testing.assert_array_equal(sums.rmse()[1, :2], part.rmse())
    assert sums.n.sum() == part.n.sum()


def test_centred_rmse_forgives_the_bias():
    forecast, truth = sample(seed=3)
    sums = sums_of(forecast, truth)
    squared = sums.rmse() ** 2 - sums.bias() ** 2
    np.testing.assert_allclose(centred_rmse_over_space_time(sums) ** 2, squared, rtol=1e-9)
    shifted = sums_of(forecast + 100, truth)
    np.testing.assert_allclose(shifted.centred_rmse(), sums.centred_rmse(), rtol=1e-9)


def test_anomaly_correlation_equals_its_definition_and_the_library():
    forecast, truth = sample(seed=5, offset=200.0)
    usual = 200 + 10 * np.random.default_rng(2).standard_normal((1, 2, 3, 4))
    weight = np.random.default_rng(1).random(4)
    f, o = forecast - usual, truth - usual
    sums, keep = sums_of(f, o, weight), np.isfinite(o)
    for i, j in np.ndindex(2, 3):
        k = keep[:, i, j]
        w = np.broadcast_to(weight, k.shape)[k]
        a, b = f[:, i, j][k], o[:, i, j][k]
        expected = (w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum())
        found = anomaly_correlation_over_space_time(sums)[i, j]
        assert found == pytest.approx(expected, rel=1e-10)
    dims = ("time", "lead", "pollutant", "station")
    r = reference.correlation.pearsonr(
        xr.DataArray(f, dims=dims), xr.DataArray(o, dims=dims), preserve_dims=["lead", "pollutant"]
    )
    np.testing.assert_allclose(sums_of(f, o).correlation(), r, rtol=1e-9)  # the centred form
    assert np.isnan(anomaly_correlation_over_space_time(ErrorSums((2,)))).all()
