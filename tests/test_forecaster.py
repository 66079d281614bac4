"""The forecaster: equal to its formulas, starts at the start, and each switch does one thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic import LEADS, QUICK, arrays, batch_of, config, load, prepared, shake, tiny
from torch import nn

from aqnet.data.normalisation import target_channels
from aqnet.data.samples import ForecastSamples
from aqnet.model.attention import ModelError
from aqnet.model.forecaster import MAX_DEPARTURE, Forecaster, channel_names
from aqnet.model.layers import (
    ByteDropout,
    VariableTokens,
    patchify,
    sincos_position,
    unpatchify,
)
from aqnet.model.regression import apply_hourly_regression
from aqnet.model.statistical import Situation, StatisticalForecasts
from aqnet.training.setup import prepare
from aqnet.variables import DYNAMIC, TARGETS


def build(seed=0, size=0.3, start_weights=None, **changes) -> Forecaster:
    """A fresh model around the statistics of the tiny store, all weights random."""
    ready = prepared(**changes)
    if start_weights is None:
        start_weights = ready.model.start_weights.numpy()
    torch.manual_seed(seed)
    fields = tiny()[0]
    model = Forecaster(config(**changes), fields.normaliser, fields.static, start_weights)
    model.set_linear_part(ready.model.linear.numpy())
    return shake(model, size).eval()


# ---- variable tokens


def random_layer(variables=7, patch=2, width=12, heads=3) -> VariableTokens:
    torch.manual_seed(0)
    return shake(VariableTokens(variables, patch, width, heads), 0.5)


def test_aggregation_equals_the_textbook_order():
    layer, fields = random_layer(), torch.randn(3, 7, 6, 4)
    torch.testing.assert_close(layer(fields), layer.explicit(fields), atol=1e-5, rtol=1e-5)
    grads = []
    for path in (layer.forward, layer.explicit):
        layer.zero_grad()
        path(fields).square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_aggregation_equals_torch_attention_with_that_query():
    width, heads = 12, 3
    layer, size = random_layer(width=width, heads=heads), width // heads
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    torch.manual_seed(1)
    q = torch.randn(heads, size)
    # K_h' q_h / sqrt(d) is the query of head h: take K_h = sqrt(d) q_h query_h' / |q_h|^2
    key = torch.einsum("he,hd->hed", q / q.square().sum(1, keepdim=True), layer.query)
    value = layer.value.transpose(1, 2)
    with torch.no_grad():
        theirs.in_proj_weight[:width] = torch.eye(width)
        theirs.in_proj_weight[width : 2 * width] = (key * math.sqrt(size)).reshape(width, width)
        theirs.in_proj_weight[2 * width :] = value.reshape(width, width)
        theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(layer.project.state_dict())
    fields = torch.randn(2, 7, 6, 4)
    cells = fields.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(12, 7, 4)
    tokens = torch.einsum("nvp,vpd->nvd", cells, layer.weight) + layer.bias
    expected = theirs(q.reshape(1, 1, -1).expand(12, -1, -1), tokens, tokens)[0].view(2, 6, width)
    torch.testing.assert_close(layer(fields), expected, atol=1e-5, rtol=1e-5)


def test_aggregation_gradients():
    torch.manual_seed(0)
    layer = shake(VariableTokens(3, 2, 4, 2), 0.5).double()
    fields = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, *_: layer(f), (fields, *layer.parameters()))


def test_the_order_of_variables_is_only_a_name():
    layer, fields, order = random_layer(), torch.randn(2, 7, 4, 4), torch.randperm(7)
    expected = layer(fields)
    layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]
    torch.testing.assert_close(layer(fields[:, order]), expected, atol=1e-5, rtol=1e-5)


# ---- patches and positions


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
@pytest.mark.parametrize("patch", [1, 2])
def test_each_cell_returns_to_its_place(shape, patch):
    fields = torch.arange(2 * 3 * 24.0).view(2, 3, *shape)
    rows, columns = shape[0] // patch, shape[1] // patch
    cells = patchify(fields, patch)
    assert cells.shape == (2, rows * columns, patch * patch, 3)
    back = unpatchify(cells.transpose(2, 3).unsqueeze(1), rows, columns)
    assert torch.equal(back[:, 0], fields)


def test_patches_run_row_by_row_of_neighbours():
    fields = torch.arange(16.0).view(1, 1, 4, 4)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert patchify(fields, 2)[0, :, :, 0].tolist() == expected


def test_a_local_change_of_input_stays_in_its_patch_without_attention(monkeypatch):
    """Position by position: the output patch of a token is where its input patch is."""
    model = build()
    monkeypatch.setattr(model, "blocks", nn.ModuleList())
    batch = batch_of()
    before = model.correction(batch) - model.linear_part(model.channels(batch), batch["calendar"])
    batch["anomaly"][:, :, 3, 6] += 20
    linear = model.linear_part(model.channels(batch), batch["calendar"])
    moved = (model.correction(batch) - linear - before).abs().amax((0, 1, 2)) > 1e-4
    assert moved.nonzero().tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]


@pytest.mark.parametrize("width", [8, 16, 18])
def test_positions_differ(width):
    place = sincos_position(5, 7, width)
    assert place.shape == (35, width)
    distance = torch.cdist(place, place) + torch.eye(35)
    assert distance.min() > 0.1
    swapped = sincos_position(7, 5, width).view(7, 5, width).transpose(0, 1).reshape(35, width)
    half = 2 * (width // 4)
    torch.testing.assert_close(place[:, :half], swapped[:, half : 2 * half])


# ---- dropout


def test_byte_dropout_keeps_the_mean_and_the_share():
    torch.manual_seed(0)
    layer, x = ByteDropout(0.2).train(), torch.ones(1000, 1003)
    out = layer(x)
    share = 51 / 256
    assert (out == 0).float().mean() == pytest.approx(share, abs=2e-3)
    assert out.max() == pytest.approx(1 / (1 - share))
    assert out.mean() == pytest.approx(1, abs=3e-3)
    for shift in (1, 8, 1003):  # bytes of one word and of neighbours are independent
        a, b = (out == 0).float().flatten()[:-shift], (out == 0).float().flatten()[shift:]
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 5e-3
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(ByteDropout(0.0).train()(x), x)


def test_byte_dropout_follows_the_seed():
    layer, x = ByteDropout(0.5).train(), torch.ones(37)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_byte_dropout_passes_the_gradient_of_what_it_keeps():
    x = torch.ones(100, requires_grad=True)
    out = ByteDropout(0.5).train()(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


# ---- start, scale and channels


def test_untrained_network_and_zero_regression_are_the_start():
    model = build(size=0.0)
    model.linear.zero_()
    batch = batch_of("test")
    assert torch.equal(model(batch), model.start(batch))


def test_the_start_is_the_statistical_forecast():
    ready, at, batch = prepared(), target_channels(), batch_of("test")
    weights = ready.model.start_weights.numpy()
    situation = Situation(*(batch[n].numpy() for n in ("now", "future")),
                          *(batch[n].numpy()[:, at] for n in ("anomaly", "level")))
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
    assert z.shape[1] == len(names) == len(set(names)) == 38
    for pollutant in ("so2", "pm25"):
        i = DYNAMIC.index(pollutant)
        unit = model.spread[i] * batch["ratio"][:, i, None, None]
        level = batch["level"][:, i]
        expected = {
            pollutant: batch["anomaly"][:, i] - level, f"{pollutant}_mean_24h":
            batch["mean_24h"][:, i] - level, f"{pollutant}_mean_30d":
            batch["mean_30d"][:, i] - level, f"{pollutant}_mean_60d": level}
        for name, value in expected.items():
            found = z[:, names.index(name)]
            torch.testing.assert_close(found, value / unit, atol=1e-5, rtol=1e-5)
    weather = [i for i in range(11) if i not in at]
    unit = (model.spread * batch["ratio"])[:, weather, None, None]
    torch.testing.assert_close(z[:, weather], batch["anomaly"][:, weather] / unit)
    static = z[:, [names.index(n) for n in ("lat2d", "lon2d", "elevation", "population")]]
    torch.testing.assert_close(static.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(static[0].std((1, 2), correction=0), torch.ones(4), rtol=1e-4,
                               atol=0)


def test_a_nonsense_value_is_cut_off_before_the_network():
    model, batch = build(), batch_of("test")
    forecast = []
    for spike in (1e5, 1e7):
        batch["anomaly"][0, DYNAMIC.index("so2"), 2, 2] = spike
        z = model.channels(batch)
        assert z.abs().max() == pytest.approx(5.0)
        forecast.append(model.correction(batch))
    assert torch.equal(*forecast)


def test_context_is_in_physical_units():
    model, batch = build(), batch_of("test")
    context, static = model.context(batch), tiny()[0].static
    assert context.lat.min() >= 39.7 and context.lat.max() <= 40.05
    np.testing.assert_allclose(context.elevation[0], static[2, :2, :2].mean(), rtol=1e-5)
    np.testing.assert_allclose(context.lon[-1], static[1, -2:, -2:].mean(), rtol=1e-6)
    wind = batch["wind"][:, :, 2:4, 4:6].mean((2, 3))
    torch.testing.assert_close(context.wind[:, 1 * 4 + 2], wind)


def test_the_linear_part_is_the_regression():
    model, batch = build(), batch_of("test")
    fields = model.channels(batch)
    expected = apply_hourly_regression(model.linear.numpy(), fields.mean((2, 3)).numpy(),
                                       batch["calendar"].numpy())
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
    models = [prepared().model, prepare(fields, stations, config(), QUICK).model]
    batches = [ForecastSamples(f, "test", LEADS).__getitems__([0, 9, 31])
               for f in (tiny()[0], fields)]
    with torch.no_grad():
        here, there = (shake(build_like(m))(b) for m, b in zip(models, batches, strict=True))
    factor = torch.ones(6)
    factor[target] = 1000
    torch.testing.assert_close(there / factor[:, None, None], here, rtol=2e-4, atol=5e-2)
    assert here[:, :, target].std() > 1


def build_like(model: Forecaster) -> Forecaster:
    """A copy of a shared model."""
    fields = tiny()[0]
    copy = Forecaster(model.config, fields.normaliser, fields.static, np.zeros((3, 6, 3)))
    copy.load_state_dict(model.state_dict())
    return copy.eval()


# ---- lead time and switches


def test_lead_time_and_calendar_matter():
    model, batch = build(), batch_of("test")
    fields, context = model.channels(batch), model.context(batch)
    tokens = model.tokens(fields) + model.position
    for block in model.blocks:
        tokens = block(tokens, context)
    same = torch.zeros_like(batch["calendar"])
    out = model.decode(tokens, same)
    assert (out[:, 0] - out[:, 1]).abs().max() > 0.01
    assert (model.decode(tokens, batch["calendar"]) - out).abs().max() > 0.01


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
    assert channel_names(model.config) == channel_names(config())[:15]
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
    torch.testing.assert_close(on.correction(batch) - off.correction(batch),
                               linear.expand_as(batch["future"]), atol=1e-4, rtol=1e-4)


def test_input_noise_is_common_to_the_domain_and_only_in_training(monkeypatch):
    seen = []
    model, batch = build(input_noise=1.0), batch_of("test")
    real = model.tokens.forward
    monkeypatch.setattr(model.tokens, "forward", lambda f: (seen.append(f), real(f))[1])
    model(batch)
    model.train()(batch)
    noise = seen[1] - seen[0]
    assert torch.equal(seen[0], model.channels(batch))
    assert noise.std((2, 3)).max() < 1e-5
    assert noise.mean((2, 3)).std() == pytest.approx(1, abs=0.2)


# ---- bad configurations


def make(**changes):
    fields = tiny()[0]
    weights = np.zeros((3, 6, 3))
    return Forecaster(config(**changes), fields.normaliser, fields.static, weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "plum"}, r"unknown attention 'plum'\n  expected: one of"),
        ({"heads": 3}, "a width that 3 divides\n  found:    16"),
        ({"patch": 3}, "sides that 3 divides\n  found:    8 x 8 cells"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ModelError, match=message):
        make(**changes)


def test_other_sizes_work():
    for changes in ({"patch": 1}, {"patch": 4, "depth": 3}, {"width": 18, "heads": 3}):
        model = shake(make(**changes))
        assert model(batch_of()).shape == (5, 3, 6, 8, 8)
