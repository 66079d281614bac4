"""Forecasts of fields: physical batches in, ug/m3 out, and nothing unknown touches a gradient."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_years import made_up_fields, made_up_mask, made_up_static

from aqnet.data.batches import unpack
from aqnet.data.climatology import calendar_features
from aqnet.data.normalisation import reference_constants, target_channels
from aqnet.grid import GRIDS
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.domain import Domain
from aqnet.model.forecast_model import ForecastModel
from aqnet.model.grid_forecaster import GridForecaster, device_calendar
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import model_preset
from aqnet.model.ridge import RidgeFactors
from aqnet.model.scan_orders import build_orders, scan_spec
from aqnet.variables import DYNAMIC, STATIC, TARGETS

torch.set_num_threads(1)
GRID = GRIDS["china_32x64"]
MASK, STATIC_FIELDS = made_up_mask(GRID), made_up_static(GRID)
INSIDE = torch.from_numpy(MASK)
LEADS = (12, 48)
SMALL = {"lead_times_h": LEADS, "width": 16, "depth": 1, "heads": 2, "patch": 4}
START = np.datetime64("2013-06-01T05", "h")
NAN = float("nan")


@lru_cache(maxsize=1)
def normaliser():
    """Mean and spread of the made-up fields."""
    values = made_up_fields(START + np.arange(24), GRID)[:, :, MASK].astype(float)
    mean, spread = values.mean((0, 2)), values.std((0, 2))
    coefficients = mean[None, :, None, None]
    return replace(reference_constants(), coefficients=coefficients, mean=mean, spread=spread)


def domain(patch: int | None = None) -> Domain:
    """The made-up domain; with `patch` also made-up ridges and the orders of its tokens."""
    if patch is None:
        return Domain(GRID, MASK, STATIC_FIELDS)
    rng, count = np.random.default_rng(0), GRID.lat.size * GRID.lon.size // patch**2
    left, right = rng.uniform(0, 20, (2, count, 3)).astype(np.float32)
    active = GRID.active_patches(MASK, patch)
    orders = build_orders(scan_spec(GRID, patch, (4, 4), 8, 2, active))
    ridge = RidgeFactors(left, right, {}, {"grid_sha256": GRID.digest})
    return Domain(GRID, MASK, STATIC_FIELDS, ridge, orders)


def moments() -> list[torch.Tensor]:
    """Mean and spread of the targets, (6, 1, 1)."""
    both, at = (normaliser().mean, normaliser().spread), target_channels()
    return [torch.tensor(x[at, None, None], dtype=torch.float32) for x in both]


def build(seed: int = 0, size: float = 0.3, **changes) -> GridForecaster:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = GridForecaster(ModelConfig(**{**SMALL, **changes}), domain(), normaliser())
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape)
    return model.eval()


def batch_of(leads_h=(LEADS, LEADS), history_h=(0,)) -> dict:
    """Two samples as `FieldSamples` gives them."""
    init = START + 10 * np.arange(len(leads_h))
    leads = np.array(leads_h)

    def cells(times):
        fields = made_up_fields(times.ravel(), GRID)[:, :, MASK]
        return fields.reshape(*times.shape, len(DYNAMIC), -1)

    inputs = cells(init[:, None] - np.array(history_h))
    targets = cells(init[:, None] + leads)[:, :, target_channels()]
    return {
        "hours": torch.from_numpy(init.astype(np.int64)), "leads_h": torch.from_numpy(leads),
        "inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets.copy()),
        "provenance": "none",
    }  # fmt: skip


def changed(batch: dict, name: str, place: tuple, value: float) -> dict:
    values = batch[name].clone()
    values[place] = value
    return batch | {name: values}


def grads(model: GridForecaster, batch: dict):
    model.zero_grad()
    terms = model.terms(batch)
    terms.error.square().sum().backward()
    return terms, [p.grad.clone() for p in model.parameters() if p.grad is not None]


# ---- what goes in


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 120), st.floats(-180, 180))
def test_the_calendar_is_that_of_the_data(hour, lead, lon):
    time = np.datetime64(0, "h") + hour
    found = device_calendar(torch.tensor([hour]), torch.tensor([[lead]]), lon)
    expected = calendar_features(np.array([[time + lead]]), lon)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_inputs_are_normalised_fields_and_wind_in_m_s():
    model, batch = build(history_h=(0, 6)), batch_of(history_h=(0, 6))
    inputs, ready = model.inputs(batch)
    assert inputs["fields"].shape == (2, 2 * 11 + len(STATIC) + 1, 32, 64)
    names, n = model.channels, normaliser()
    for name, back in (("o3", 0), ("temp", 1)):
        i = DYNAMIC.index(name)
        z = inputs["fields"][:, names.index(name if back == 0 else f"{name}_6h_ago")]
        expected = (batch["inputs"][:, back, i] - n.mean[i]) / n.spread[i]
        torch.testing.assert_close(z[:, INSIDE], expected.float(), rtol=1e-4, atol=1e-4)
    wind = unpack(batch["inputs"][:, 0, [DYNAMIC.index("u"), DYNAMIC.index("v")]], MASK)
    torch.testing.assert_close(inputs["wind"], wind, equal_nan=True)
    valid = (START + 10 * np.arange(2))[:, None] + np.array(LEADS)
    expected = calendar_features(valid, float(GRID.lon.mean()))
    np.testing.assert_allclose(inputs["calendar"], expected, atol=2e-6)
    assert inputs["lead_time_h"] is None and inputs["present"] is None
    assert torch.equal(ready["hours"], batch["hours"])


def test_everything_that_goes_in_matters():
    model, batch = build(physics=PhysicsConfig()), batch_of()
    before = model(batch).nan_to_num()
    for i in range(len(DYNAMIC)):
        # a local change: one of the mean would be a shift that the norms take out
        other = changed(batch, "inputs", (0, 0, i, slice(0, 200)), float(normaliser().mean[i]))
        assert (model(other).nan_to_num() - before).abs().max() > 1e-4, DYNAMIC[i]
        assert torch.equal(model(other)[1].nan_to_num(), before[1])
    later = model(batch | {"hours": batch["hours"] + 6})
    assert (later.nan_to_num() - before).abs().max() > 1e-3


# ---- what attention is given

METRES = STATIC_FIELDS[STATIC.index("elevation")]


def seen_by_attention(name: str, batch: dict, **changes):
    """The first core of a small preset, and its (q, k, v, context, output) in one forecast."""
    torch.manual_seed(0)
    small = {"width": 16, "heads": 2, "depth": 2, "patch": 4, "lead_times_h": LEADS}
    config = model_preset(name, **small, **changes)
    model, seen = GridForecaster(config, domain(patch=4), normaliser()).eval(), []
    core = model.network.blocks[0].attention.core
    core.register_forward_hook(lambda _, given, out: seen.append((*given, out)))
    with torch.no_grad():
        model(batch)
    (found,) = seen
    return core, *found


def of_patches(fields: np.ndarray, active: np.ndarray) -> torch.Tensor:
    """Mean of the known cells of 4 x 4 patches, (..., H, W) -> (..., N); 0 where none is known."""
    whole = fields.reshape(*fields.shape[:-2], GRID.shape[0] // 4, 4, GRID.shape[1] // 4, 4)
    known = np.isfinite(whole)
    mean = np.where(known, whole, 0.0).sum((-3, -1)) / known.sum((-3, -1)).clip(1)
    return torch.from_numpy(mean[..., active]).float()


@pytest.mark.parametrize("name", ["china", "china_reference"])
def test_attention_is_given_metres_m_s_and_hours(name):
    one = name == "china_reference"
    leads = [[12], [48]] if one else (LEADS, LEADS)
    batch = batch_of(leads_h=leads, history_h=(0, 6))
    *_, context, _ = seen_by_attention(name, batch, history_h=(0, 6))
    active = GRID.active_patches(MASK, 4)
    active = np.ones_like(active) if one else active
    torch.testing.assert_close(context.elevation, of_patches(METRES, active))
    assert context.elevation.max() > 2000
    wind = np.full((2, 2, *GRID.shape), np.nan)
    wind[..., MASK] = batch["inputs"][:, 0, [DYNAMIC.index("u"), DYNAMIC.index("v")]]
    torch.testing.assert_close(context.wind, of_patches(wind, active).transpose(1, 2))
    assert context.wind.abs().max() > 3, "as in the batch, where normalised winds stay below 3"
    assert context.lead_time_h is None if not one else context.lead_time_h.tolist() == [12, 48]


@pytest.mark.parametrize(("name", "uphill"), [("china", "receiver"), ("china_reference", "source")])
def test_the_elevation_barrier_is_nats_of_those_metres(name, uphill):
    leads = [[12], [48]] if name == "china_reference" else (LEADS, LEADS)
    core, q, k, v, context, out = seen_by_attention(name, batch_of(leads_h=leads))
    active = GRID.active_patches(MASK, 4)
    z = of_patches(METRES, active if name == "china" else np.ones_like(active))
    climb = z[None, :] - z[:, None]  # from the receiver i to the source j
    bias = -((climb if uphill == "source" else -climb).relu() / 1000)[None, None]
    found = core.elevation.rows(context)
    torch.testing.assert_close(found, bias.expand_as(found))  # alpha starts at 1 nat per 1000 m
    assert found.min() < -2
    if name == "china_reference":  # whose cores have no other bias: what it attends to
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        torch.testing.assert_close(out, (scores + bias).softmax(-1) @ v, atol=1e-5, rtol=1e-4)
        assert (out - scores.softmax(-1) @ v).abs().max() > 1e-2


# ---- what comes out


def test_an_untrained_network_forecasts_the_mean():
    model = GridForecaster(ModelConfig(**SMALL), domain(), normaliser()).eval()
    forecast = model(batch_of())
    mean = torch.tensor(normaliser().mean[target_channels()], dtype=torch.float32)
    for p in range(len(TARGETS)):
        torch.testing.assert_close(forecast[:, :, p, INSIDE], mean[p].expand(2, 2, MASK.sum()))


def test_forecasts_are_ug_m3_not_negative_and_nan_outside():
    model, batch = build(size=1.0), batch_of()
    forecast = model(batch)
    inputs, _ = model.inputs(batch)
    mean, spread = moments()
    raw = mean + spread * model.network(**inputs)
    assert (raw[..., INSIDE] < 0).any(), "the test needs a case that is cut off"
    torch.testing.assert_close(forecast[..., INSIDE], raw.clamp_min(0)[..., INSIDE])
    assert torch.isnan(forecast[..., ~INSIDE]).all()
    untold = {k: v for k, v in batch.items() if k != "targets"}
    assert torch.equal(model(untold).nan_to_num(), forecast.nan_to_num())


# ---- terms of the loss


def test_terms_are_the_formula():
    model, batch = build(), batch_of()
    terms = model.terms(batch)
    inputs, _ = model.inputs(batch)
    mean, spread = moments()
    error = mean + spread * model.network(**inputs) - unpack(batch["targets"], MASK)
    found = (terms.scale * terms.error)[..., INSIDE]
    torch.testing.assert_close(found, error[..., INSIDE], rtol=1e-4, atol=1e-2)
    assert not terms.error[..., ~INSIDE].any()
    assert torch.equal(terms.weight, torch.from_numpy(MASK).float().expand_as(terms.weight))
    assert terms.lead.tolist() == [[0, 1], [0, 1]] and isinstance(model, ForecastModel)


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_targets_that_are_not_finite_never_touch_a_gradient(value):
    model, batch, at = build(), batch_of(), (0, 1, 2, slice(0, 300))
    spoilt, gradients = grads(model, changed(batch, "targets", at, value))
    # the same as leaving these cells out of the sum
    whole = model.terms(batch)
    keep = torch.ones_like(whole.weight)
    keep[0, 1, 2].view(-1)[np.flatnonzero(MASK)[:300]] = 0
    model.zero_grad()
    (whole.error * keep).square().sum().backward()
    assert torch.equal(spoilt.weight, whole.weight * keep)
    assert torch.equal(spoilt.error, whole.error * keep)
    expected = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(gradients, expected, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b)


def test_no_target_at_all_gives_zero_and_finite_gradients():
    model, batch = build(), batch_of()
    terms, gradients = grads(model, changed(batch, "targets", (...,), NAN))
    assert not terms.error.any() and not terms.weight.any()
    assert all(not g.any() for g in gradients)


def test_a_forecast_that_is_not_finite_stays_so():
    model = build()
    with torch.no_grad():
        model.network.decode.out.bias[0] = NAN
    terms = model.terms(batch_of())
    assert torch.isnan(terms.error[terms.weight > 0]).any()
    assert torch.isfinite(terms.error[terms.weight == 0]).all()


def test_unknown_cells_of_an_input_give_finite_gradients():
    model, batch = build(physics=PhysicsConfig()), batch_of()
    batch = changed(batch, "inputs", (0, 0, slice(None), slice(0, 200)), NAN)
    terms, gradients = grads(model, batch)
    assert torch.isfinite(terms.error).all()
    assert all(torch.isfinite(g).all() for g in gradients)


# ---- inputs that may be missing


def test_a_missing_input_is_an_error_unless_it_is_optional():
    batch = changed(batch_of(history_h=(0, 6)), "inputs", (1, 1, DYNAMIC.index("so2")), NAN)
    with pytest.raises(ModelError, match=r"no value of so2 at 2013-06-01T15 UTC less 6 h"):
        build(history_h=(0, 6))(batch)
    with pytest.raises(ModelError, match=r"not optional(.|\n)*but co(.|\n)*no value of so2"):
        build(history_h=(0, 6), optional_inputs=("co",))(batch)
    model = build(history_h=(0, 6), optional_inputs=("so2",))
    inputs, _ = model.inputs(batch)
    absent = [(b, model.channels[c]) for b, c in (~inputs["present"]).nonzero().tolist()]
    assert absent == [(1, "so2_6h_ago")]
    assert inputs["fields"][:, model.channels.index("known")].sum() == 2 * MASK.sum()
    assert torch.isfinite(model(batch)[..., INSIDE]).all()


def test_an_absent_input_has_no_weight_and_no_other_sample_notices():
    model, batch = build(optional_inputs=("so2", "u")), batch_of()
    lacking = changed(batch, "inputs", (0, 0, DYNAMIC.index("so2")), NAN)
    with torch.no_grad():
        here = model(lacking)
        model.network.tokens.weight[model.channels.index("so2")] += 1.0
        assert torch.equal(model(lacking)[0].nan_to_num(), here[0].nan_to_num())
        assert not torch.equal(model(lacking)[1].nan_to_num(), here[1].nan_to_num())
    assert torch.isnan(
        model.inputs(changed(batch, "inputs", (0, 0, 0), NAN))[0]["wind"][0, 0]
    ).all()


# ---- lead times


def test_a_day_hour_by_hour_from_one_initialisation():
    model = build(lead_mode="one", lead_times_h=(12, 96))
    batch = batch_of(leads_h=[[12], [12]])
    found = model.at_leads(batch, range(1, 25))
    assert found.shape == (2, 24, 6, 32, 64)
    for hour in (1, 7, 24):
        alone = model(batch_of(leads_h=[[hour], [hour]]))[:, 0]
        assert torch.equal(found[:, hour - 1].nan_to_num(-1), alone.nan_to_num(-1))
    with pytest.raises(ModelError, match="1 to 120 h"):
        model.at_leads(batch, [1, 121])
    with pytest.raises(ModelError, match="other lead times than the model"):
        build().at_leads(batch, range(1, 25))


def test_one_lead_a_pass():
    model = build(lead_mode="one", physics=PhysicsConfig(plume="lead"))
    early, late = (batch_of(leads_h=[[h], [48]]) for h in (12, 48))
    assert model.terms(early).lead.tolist() == [[0], [1]]
    assert model(early).shape == (2, 1, 6, 32, 64)
    same = late | {"hours": early["hours"] + 0}
    assert not torch.equal(model(early)[0].nan_to_num(), model(same)[0].nan_to_num())
    assert torch.equal(model(early)[1].nan_to_num(), model(same)[1].nan_to_num())
    hourly = batch_of(leads_h=[[7], [119]])
    assert torch.isfinite(model(hourly)[..., INSIDE]).all()
    with pytest.raises(ModelError, match=r"without a place(.|\n)*\[12, 48\]"):
        model.terms(hourly)


@pytest.mark.parametrize(
    ("mode", "leads"), [("one", [[121]]), ("one", [[0]]), ("one", [[12, 48]]), ("all", [[48, 96]]),
                        ("all", [[12]])]
)  # fmt: skip
def test_other_lead_times_are_refused(mode, leads):
    with pytest.raises(ModelError, match="other lead times than the model"):
        build(lead_mode=mode)(batch_of(leads_h=leads))


# ---- configurations, and building again


def test_settings_of_the_other_forecaster_are_refused():
    changes = {"trailing_means": True, "correction": True, "linear_part": True, "input_noise": 1.0}
    for name, value in changes.items():
        with pytest.raises(ModelError, match=f"does not have these settings(.|\n)*found: +{name}"):
            build(**{name: value})


def test_it_is_built_again_from_its_arrays():
    scan = ScanConfig(mode="lanes", regions=(4, 4), sectors=8, lane_patches=2, window=8)
    config = ModelConfig(**SMALL, physics=PhysicsConfig(ridge=True), scan=scan)
    channels = (*DYNAMIC[::-1], *STATIC)  # of imported weights, in their own order
    model = GridForecaster(config, domain(patch=4), normaliser(), channels).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    stored = {name: torch.as_tensor(values) for name, values in model.arrays().items()}
    again = GridForecaster.from_arrays(config, {n: t.numpy() for n, t in stored.items()}).eval()
    again.load_state_dict(model.state_dict())
    assert again.channels == channels and again.domain.digests() == model.domain.digests()
    assert None not in again.domain.digests().values()
    assert again.normaliser.digest == model.normaliser.digest
    batch = batch_of()
    assert torch.equal(again(batch).nan_to_num(), model(batch).nan_to_num())


@pytest.mark.parametrize(
    "name", ["channels", "domain.lat", "domain.scan.region", "normaliser.spread"]
)
def test_a_missing_array_is_named(name):
    arrays = GridForecaster(ModelConfig(**SMALL), domain(patch=4), normaliser()).arrays()
    del arrays[name]
    with pytest.raises(ModelError, match=r"not complete(.|\n)*found:"):
        GridForecaster.from_arrays(ModelConfig(**SMALL), arrays)


def test_unknown_channels_are_refused():
    with pytest.raises(ModelError, match=r"unknown channels(.|\n)*found: +t2m"):
        GridForecaster(ModelConfig(**SMALL), domain(), normaliser(), ("u", "t2m"))


# ---- learning


def test_it_learns_and_only_in_training_leaves_inputs_out():
    model = build(size=0.0, optional_inputs=("so2",), optional_dropout=0.5)
    batch = batch_of()
    assert torch.equal(model(batch).nan_to_num(), model(batch).nan_to_num())
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        terms = model.terms(batch)
        loss = terms.error.square().sum() / terms.weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
    assert not torch.equal(model.terms(batch).error, model.terms(batch).error)
