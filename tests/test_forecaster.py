"""The forecaster: equal to its formulas, starts at the start, and each switch does one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import LEADS, QUICK, arrays, batch_of, config, grid, load, prepared, shake, tiny

from aqnet.data.normalisation import target_channels
from aqnet.data.stations.samples import ForecastSamples
from aqnet.grid import GridError
from aqnet.model.attention import ModelError
from aqnet.model.forecast_model import ForecastModel
from aqnet.model.forecaster import MAX_DEPARTURE, Forecaster, channel_names
from aqnet.model.regression import apply_hourly_regression
from aqnet.model.statistical import Situation, StatisticalForecasts
from aqnet.training.setup import prepare
from aqnet.variables import DYNAMIC, STATIC, TARGETS


def build(seed=0, size=0.3, start_weights=None, **changes) -> Forecaster:
    """A fresh model around the statistics of the tiny store, all weights random."""
    ready = prepared(**changes)
    if start_weights is None:
        start_weights = ready.model.start_weights.numpy()
    torch.manual_seed(seed)
    model = Forecaster(config(**changes), ready.model.domain, tiny()[0].normaliser, start_weights)
    model.set_linear_part(ready.model.linear.numpy())
    return shake(model, size).eval()


# ---- start, scale and channels


def test_untrained_network_and_zero_regression_are_the_start():
    model = build(size=0.0)
    model.linear.zero_()
    batch = batch_of("test")
    assert torch.equal(model(batch), model.start(batch))


def test_the_start_is_the_statistical_forecast():
    ready, at, batch = prepared(), target_channels(), batch_of("test")
    weights = ready.model.start_weights.numpy()
    situation = Situation(
        *(batch[n].numpy() for n in ("now", "future")),
        *(batch[n].numpy()[:, at] for n in ("anomaly", "level")),
    )
    expected = StatisticalForecasts.combine(weights, situation)
    np.testing.assert_allclose(ready.model.start(batch), expected, rtol=1e-4, atol=1e-3)
    rules = ready.statistical
    for lead, p in np.ndindex(len(LEADS), 6):
        name = ready.chosen[lead, p]
        one = rules(name, situation)[:, lead, p]
        np.testing.assert_allclose(ready.model.start(batch)[:, lead, p], one, rtol=1e-4, atol=1e-2)


def test_forecast_is_start_plus_scale_times_correction_and_not_negative():
    model, batch = build(size=1.0), batch_of("test")
    forecast = model(batch)
    raw = model.start(batch) + model.scale(batch) * model.correction(batch)
    assert (raw < 0).any(), "the test needs a case that is cut off"
    assert torch.equal(forecast, raw.clamp_min(0))


def test_scale_is_spread_times_ratio():
    model, batch = build(), batch_of("test")
    spread = tiny()[0].normaliser.spread[target_channels()]
    expected = spread * batch["ratio"].numpy()[:, target_channels()]
    np.testing.assert_allclose(model.scale(batch)[:, 0, :, 0, 0], expected, rtol=1e-6)


def test_channels_by_name():
    model, batch, at = build(), batch_of("test"), target_channels()
    names, z = channel_names(model.config), model.channels(batch)
    assert z.shape[1] == len(names) == len(set(names)) == len((*DYNAMIC, *STATIC)) + 23
    for pollutant in ("so2", "pm25"):
        i = DYNAMIC.index(pollutant)
        unit = model.spread[i] * batch["ratio"][:, i, None, None]
        level = batch["level"][:, i]
        expected = {
            pollutant: batch["anomaly"][:, i] - level,
            f"{pollutant}_mean_24h": batch["mean_24h"][:, i] - level,
            f"{pollutant}_mean_30d": batch["mean_30d"][:, i] - level,
            f"{pollutant}_mean_60d": level,
        }
        for name, value in expected.items():
            found = z[:, names.index(name)]
            torch.testing.assert_close(found, value / unit, atol=1e-5, rtol=1e-5)
    weather = [i for i in range(11) if i not in at]
    unit = (model.spread * batch["ratio"])[:, weather, None, None]
    torch.testing.assert_close(z[:, weather], batch["anomaly"][:, weather] / unit)
    static = z[:, [names.index(n) for n in STATIC]]
    torch.testing.assert_close(static.mean((0, 2, 3)), torch.zeros(len(STATIC)), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        static[0].std((1, 2), correction=0), torch.ones(len(STATIC)), rtol=1e-4, atol=0
    )


def test_a_nonsense_value_is_cut_off_before_the_network():
    model, batch = build(), batch_of("test")
    forecast = []
    for spike in (1e5, 1e7):
        batch["anomaly"][0, DYNAMIC.index("so2"), 2, 2] = spike
        z = model.channels(batch)
        assert z.abs().max() == pytest.approx(5.0)
        forecast.append(model.correction(batch))
    assert torch.equal(*forecast)


def test_the_network_gets_wind_in_physical_units(monkeypatch):
    model, batch, seen = build(), batch_of("test"), []
    real = model.network.forward
    monkeypatch.setattr(
        model.network, "forward", lambda *given: (seen.append(given), real(*given))[1]
    )
    model(batch)
    fields, wind, calendar = seen[0]
    assert wind is batch["wind"] and calendar is batch["calendar"]
    assert torch.equal(fields, model.channels(batch))
    np.testing.assert_array_equal(model.domain.static, tiny()[0].static)


def test_the_linear_part_is_the_regression():
    model, batch = build(), batch_of("test")
    fields = model.channels(batch)
    expected = apply_hourly_regression(
        model.linear.numpy(), fields.mean((2, 3)).numpy(), batch["calendar"].numpy()
    )
    assert np.abs(expected).max() > 0.01
    found = model.linear_part(fields, batch["calendar"])[..., 0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_forecasts_follow_the_unit_of_a_pollutant():
    """ug/m3 or ng/m3: everything fitted again on data times 1000 forecasts 1000 times as much."""
    content, i = arrays(), DYNAMIC.index("so2")
    target = TARGETS.index("so2")
    content["inputs"][:, i] *= 1000
    content["targets"][:, target] *= 1000
    content["station_values"][:, :, target] *= 1000
    fields, stations = load(content)
    models = [prepared().model, prepare(fields, stations, grid(), config(), QUICK).model]
    batches = [
        ForecastSamples(f, "test", LEADS).__getitems__([0, 9, 31]) for f in (tiny()[0], fields)
    ]
    with torch.no_grad():
        here, there = (shake(build_like(m))(b) for m, b in zip(models, batches, strict=True))
    factor = torch.ones(6)
    factor[target] = 1000
    torch.testing.assert_close(there / factor[:, None, None], here, rtol=2e-4, atol=5e-2)
    assert here[:, :, target].std() > 1


def build_like(model: Forecaster) -> Forecaster:
    """A copy of a shared model."""
    copy = Forecaster(model.config, model.domain, model.normaliser, np.zeros((3, 6, 3)))
    copy.load_state_dict(model.state_dict())
    return copy.eval()


# ---- terms of the loss


def test_terms_are_the_formula():
    model, batch = build(), batch_of()
    terms = model.terms(batch)
    raw = model.start(batch) + model.scale(batch) * model.correction(batch)
    expected = (raw - batch["target"]) * batch["weight"]
    torch.testing.assert_close(terms.scale * terms.error, expected, rtol=1e-4, atol=1e-3)
    assert 0 < terms.weight.mean() < 1 and torch.equal(terms.weight, batch["weight"])
    assert torch.equal(terms.error == 0, (terms.weight == 0) | (expected == 0))
    assert terms.lead.tolist() == [[0, 1, 2]] * len(batch["hours"])


def test_the_share_is_no_part_of_the_loss():
    model, batch = build(), batch_of()
    whole = model.terms(batch).error
    model.share.fill_(0.3)
    assert torch.equal(model.terms(batch).error, whole)


@pytest.mark.parametrize("filler", [1e6, float("nan"), float("inf"), -float("inf")])
def test_cells_that_do_not_count_have_no_influence(filler):
    model, batch, results = build(), batch_of(), []
    masked = torch.where(batch["weight"] > 0, batch["target"], filler)
    # a target that is not finite never counts, whatever its weight says
    weight = batch["weight"] if np.isfinite(filler) else torch.ones_like(batch["weight"])
    for changed in ({}, {"target": masked, "weight": weight}):
        model.zero_grad()
        terms = model.terms(batch | changed)
        terms.error.square().sum().backward()
        results.append((terms, [p.grad.clone() for p in model.parameters()]))
    (here, grads), (there, others) = results
    assert torch.equal(here.error, there.error) and torch.equal(here.weight, there.weight)
    assert all(torch.isfinite(g).all() for g in grads)
    assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))


def test_a_forecast_that_is_not_finite_stays_so():
    model, batch = build(), batch_of()
    with torch.no_grad():
        model.network.decode.out.bias[0] = float("nan")
    terms = model.terms(batch)
    assert torch.isnan(terms.error[terms.weight > 0]).any()
    assert not terms.error[terms.weight == 0].any()


def test_a_batch_without_a_scored_cell_of_a_pollutant_has_finite_gradients():
    model, batch = build(), batch_of()
    batch["weight"][:, :, 2] = 0
    terms = model.terms(batch)
    terms.error.square().sum().backward()
    assert terms.weight[:, :, 2].sum() == 0 and not terms.error[:, :, 2].any()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# ---- built from its arrays alone


def test_it_is_built_again_from_its_arrays():
    model, batch = build(), batch_of("test")
    arrays = {name: values.copy() for name, values in model.arrays().items()}
    assert all(torch.as_tensor(values) is not None for values in arrays.values())
    again = Forecaster.from_arrays(model.config, arrays)
    again.load_state_dict(model.state_dict())
    assert isinstance(again, ForecastModel) and again.kind == "stations"
    assert torch.equal(again.eval()(batch), model(batch))
    assert again.domain.digests() == model.domain.digests()
    assert again.normaliser.digest == model.normaliser.digest


@pytest.mark.parametrize("name", ["start_weights", "domain.mask", "domain.grid", "normaliser.mean"])
def test_a_missing_array_is_named(name):
    model = build()
    arrays = model.arrays()
    del arrays[name]
    with pytest.raises(ModelError, match="not complete"):
        Forecaster.from_arrays(model.config, arrays)


# ---- lead time and switches


def test_lead_time_and_calendar_matter():
    model, batch = build(), batch_of("test")
    fields, wind = model.channels(batch), batch["wind"]
    same = torch.zeros_like(batch["calendar"])
    out = model.network(fields, wind, same)
    assert (out[:, 0] - out[:, 1]).abs().max() > 0.01
    assert (model.network(fields, wind, batch["calendar"]) - out).abs().max() > 0.01


def gradients(model, batch, names) -> dict[str, float]:
    """Largest gradient of the forecast for each input."""
    inputs = {n: batch[n].clone().requires_grad_() for n in names}
    model({**batch, **inputs}).sum().backward()
    return {n: 0.0 if v.grad is None else float(v.grad.abs().max()) for n, v in inputs.items()}


PAST = ("anomaly", "mean_24h", "mean_30d", "level", "calendar", "now", "future")


def test_everything_is_used_by_default():
    assert all(v > 0 for v in gradients(build(), batch_of("test"), PAST).values())


def test_calendar_switch():
    off = gradients(build(calendar=False), batch_of("test"), PAST)
    assert off.pop("calendar") == 0
    assert all(v > 0 for v in off.values())
    count = [sum(p.numel() for p in build(calendar=c).parameters()) for c in (True, False)]
    assert count[0] == count[1]


def test_trailing_means_switch():
    model = build(trailing_means=False)
    assert channel_names(model.config) == channel_names(config())[: len((*DYNAMIC, *STATIC))]
    weights = np.zeros((3, 6, 3))  # a start that sees no level either
    off = gradients(build(trailing_means=False, start_weights=weights), batch_of("test"), PAST)
    assert off["mean_24h"] == off["mean_30d"] == off["level"] == 0
    assert off["anomaly"] > 0 and off["calendar"] > 0
    batch, z = batch_of("test"), model.channels(batch_of("test"))
    # The level ratio comes from a 60-day mean: it does not scale anything here.
    limited = (batch["anomaly"] / model.spread[:, None, None]).clamp(-MAX_DEPARTURE, MAX_DEPARTURE)
    torch.testing.assert_close(z[:, :11], limited)
    assert (model.ratio(batch) == 1).all() and (build().ratio(batch) != 1).any()
    fewer = 23 * (4 + 1) * 16  # 23 variables, 4 cells and a constant, width 16
    counts = [sum(p.numel() for p in build(trailing_means=t).parameters()) for t in (True, False)]
    assert counts[0] - counts[1] == fewer


def test_correction_switch():
    model, batch = build(correction=False), batch_of("test")
    mean = torch.as_tensor(tiny()[0].normaliser.mean[target_channels()], dtype=torch.float32)
    expected = mean[None, None, :, None, None].expand_as(batch["future"])
    assert torch.equal(model.start(batch), expected)
    off = gradients(model, batch, PAST)
    assert off["now"] == off["future"] == 0
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in build().named_parameters()]


def test_linear_part_switch():
    on, off, batch = build(), build(linear_part=False), batch_of("test")
    assert not off.linear.any() and on.linear.any()
    off.load_state_dict(on.state_dict())
    linear = on.linear_part(on.channels(batch), batch["calendar"])
    assert linear.abs().max() > 0.01
    torch.testing.assert_close(
        on.correction(batch) - off.correction(batch),
        linear.expand_as(batch["future"]),
        atol=1e-4,
        rtol=1e-4,
    )


def test_input_noise_is_common_to_the_domain_and_only_in_training(monkeypatch):
    seen = []
    model, batch = build(input_noise=1.0), batch_of("test")
    real = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda f, *o: (seen.append(f), real(f, *o))[1])
    model(batch)
    model.train()(batch)
    noise = seen[1] - seen[0]
    assert torch.equal(seen[0], model.channels(batch))
    assert noise.std((2, 3)).max() < 1e-5
    assert noise.mean((2, 3)).std() == pytest.approx(1, abs=0.2)


# ---- bad configurations


def make(**changes):
    weights = np.zeros((3, 6, 3))
    return Forecaster(config(**changes), prepared().model.domain, tiny()[0].normaliser, weights)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"patch": 3}, GridError, "8"),
        ({"optional_inputs": ("so2",)}, ModelError, r"optional_inputs': \('so2',\)"),
        ({"lead_mode": "one"}, ModelError, "lead_mode': 'one'"),
        ({"history_h": (0, 6)}, ModelError, r"history_h': \(0, 6\)"),
        ({"persistence": True, "correction": False}, ModelError, "persistence': True"),
    ],
)
def test_bad_configurations_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_other_sizes_work():
    for changes in ({"patch": 1}, {"patch": 4, "depth": 3}, {"width": 18, "heads": 3}):
        model = shake(make(**changes))
        assert model(batch_of()).shape == (5, 3, 6, 8, 8)
