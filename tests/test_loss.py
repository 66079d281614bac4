"""The loss is one sum over all known cells, divided by their number; NaN targets do no harm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_training import LEADS, config, problem

from aqnet.training.loss import CellLoss, Objective, by_lead
from aqnet.training.optimisation import clip_sums, gradients, norm_of
from aqnet.training.processes import open_fabric
from aqnet.training.validation import judge
from aqnet.variables import TARGETS


def dense(ready, numbers, settings) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss of samples in float64 numpy, and sums and counts per lead and pollutant."""
    batch = ready.train.__getitems__(list(numbers))
    with torch.no_grad():
        forecast = ready.model.network(batch["inputs"]).double().numpy()
    own = np.array([settings.pollutant_weights.get(name, 1) for name in TARGETS])
    weights = ready.loss_weights.double().numpy() * own
    sums, counts = np.zeros((len(LEADS), 6)), np.zeros((len(LEADS), 6))
    for b, place in np.ndindex(batch["lead"].shape):
        lead = int(batch["lead"][b, place])
        target = batch["target"][b, place].double().numpy()
        known = (batch["weight"][b, place].numpy() > 0) & np.isfinite(target)
        error = np.where(known, forecast[b, lead] - target, 0)
        size = np.abs(error)
        huber = np.where(size < settings.huber_delta, error**2,
                         settings.huber_delta * (2 * size - settings.huber_delta))  # fmt: skip
        each = error**2 if settings.loss == "mse" else huber
        sums[lead] += (each * known).sum((1, 2)) * weights[lead]
        counts[lead] += known.sum((1, 2))
    return sums.sum() / counts.sum(), sums, counts


@pytest.mark.parametrize("one_lead", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "huber", "huber_delta": 0.7}, {"pollutant_weights": {"pm25": 3.0, "co": 0.0}}],
)
def test_the_loss_is_the_formula(one_lead, changes):
    ready, settings = problem(one_lead=one_lead, dropout=0.0), config(**changes)
    objective = Objective(ready.model, CellLoss(settings, ready.loss_weights))
    out = objective(ready.train.__getitems__(range(20)))
    loss, sums, counts = dense(ready, range(20), settings)
    assert (out["total"] / out["counts"].sum()).item() == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(out["sums"], sums, rtol=1e-5)
    np.testing.assert_array_equal(out["counts"], counts)


@pytest.mark.parametrize("cuts", [[20], [10, 10], [1, 19], [3, 4, 5, 8]])
def test_uneven_passes_add_up_to_the_gradient_of_one(cuts):
    ready, settings = problem(dropout=0.0), config()
    objective = Objective(ready.model, CellLoss(settings, ready.loss_weights))
    batch = ready.train.__getitems__(range(20))
    terms = ready.model.terms(batch)
    mean = (terms.error.square() * ready.loss_weights[terms.lead][..., None, None]).sum()
    expected = torch.autograd.grad(mean / terms.weight.sum(), list(ready.model.parameters()))

    cells, start = 0.0, 0
    for size in cuts:
        out = objective(ready.train.__getitems__(range(start, start + size)))
        out["total"].backward()
        cells, start = cells + float(out["counts"].sum()), start + size
    sums = gradients(ready.model)
    norm = clip_sums(sums, float(norm_of(sums)), cells, 1e9)
    for found, wanted in zip(sums, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert norm == pytest.approx(float(norm_of(list(expected))), rel=1e-5)


def test_clipping_limits_the_norm_of_the_mean():
    sums = [torch.tensor([30.0, 0.0]), torch.tensor([[40.0]])]
    assert clip_sums(sums, 50.0, 10.0, 2.0) == pytest.approx(5.0)
    assert float(norm_of(sums)) == pytest.approx(2.0)
    assert clip_sums(sums, 2.0, 1.0, 3.0) == pytest.approx(2.0)
    assert float(norm_of(sums)) == pytest.approx(2.0)
    assert not norm_of([torch.tensor([1.0]), torch.tensor([float("inf")])]).isfinite()


def test_unknown_targets_change_neither_loss_nor_gradient():
    outcomes = []
    for filler in (float("nan"), float("inf"), 1e30, 0.0):
        ready = problem(dropout=0.0)
        batch = ready.train.__getitems__(range(8))
        batch["weight"] = batch["weight"] * torch.isfinite(batch["target"])
        batch["target"] = torch.where(batch["weight"] > 0, batch["target"], filler)
        out = Objective(ready.model, CellLoss(config(), ready.loss_weights))(batch)
        out["total"].backward()
        outcomes.append([out["total"].detach(), *gradients(ready.model)])
    assert all(value.isfinite().all() for value in outcomes[0])
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_huber_is_mse_for_small_errors_and_continuous():
    loss = CellLoss(config(loss="huber", huber_delta=0.5), torch.ones(2, 6))
    error = torch.linspace(-3, 3, 6001, dtype=torch.float64, requires_grad=True)
    values = loss(error)
    (slope,) = torch.autograd.grad(values.sum(), error)
    inside = error.abs() <= 0.5
    torch.testing.assert_close(values[inside], error[inside].square())
    assert values.diff().abs().max().item() < 1.1e-3 and slope.diff().abs().max().item() < 2.1e-3
    assert float(slope.abs().max()) == pytest.approx(1.0)


def test_sums_by_lead_put_each_sample_where_its_lead_is():
    values = torch.arange(12.0).view(2, 1, 6)
    sums = by_lead(values, torch.tensor([[2], [0]]), 3)
    assert torch.equal(sums, torch.stack([values[1, 0], torch.zeros(6), values[0, 0]]))


@pytest.mark.parametrize("one_lead", [False, True])
def test_judging_is_the_formula_whatever_the_batches(one_lead):
    ready, fabric = problem(one_lead=one_lead), open_fabric(config())
    loss = CellLoss(config(), ready.loss_weights)
    ready.model.eval()  # `dense` as it is judged: without dropout
    expected, sums, counts = dense(ready, range(40), config())
    found = []
    for size in (40, 7, 1):
        numbers = range(0, 40, size)
        batches = [ready.train.__getitems__(range(n, min(n + size, 40))) for n in numbers]
        ready.model.train()
        found.append(judge(ready.model, loss, batches, fabric))
        assert ready.model.training  # as it was, and dropout did nothing
    for judged in found:
        assert judged.loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(judged.losses, sums / counts, rtol=1e-6)
        plain = sums / ready.loss_weights.double().numpy() / counts
        scale = ready.model.scale.flatten().numpy()
        np.testing.assert_allclose(judged.rmse, np.sqrt(plain) * scale, rtol=1e-6)
        assert (judged.errors.n == counts).all()
        assert (abs(judged.errors.bias()) <= judged.errors.mae() * (1 + 1e-9)).all()
        assert (judged.errors.mae() <= judged.rmse * (1 + 1e-9)).all()
        assert judged.loss == pytest.approx(found[0].loss, rel=1e-7)
