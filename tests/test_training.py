"""Training: the loss counts what it should, runs repeat, and the best weights are kept."""

from __future__ import annotations

import logging
import signal
from dataclasses import replace

import numpy as np
import pytest
import synthetic
import torch
from synthetic import LEADS, QUICK, batch_of, config, load, prepared, shake, splits, tiny

from aqnet.data.samples import ForecastSamples
from aqnet.errors import RunError
from aqnet.model.statistical import STATISTICAL, situation_at
from aqnet.training import loop
from aqnet.training.checkpoint import load_checkpoint
from aqnet.training.loop import train
from aqnet.training.setup import batches, choose_start, prepare
from aqnet.training.task import ForecastTask, cell_losses


def fresh(**changes):
    """A preparation that a test may train."""
    seed = changes.pop("seed", 0)
    return prepare(*tiny(), config(**changes), QUICK.model_copy(update={"seed": seed}))


def run(path, seed=0, **changes):
    """Train a fresh small model: curve, lines, preparation."""
    linear_part = changes.pop("linear_part", True)
    ready = fresh(seed=seed, dropout=0.2, input_noise=0.5, linear_part=linear_part)
    lines = []
    training = QUICK.model_copy(update={"seed": seed, **changes})
    return train(tiny()[0], ready, training, path, lines.append), lines, ready


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One training run: path of the checkpoint, curve, lines, preparation."""
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return path, *run(path, max_epochs=3, max_train_samples=2000, linear_part=False)


# ---- loss


def test_unscored_cells_have_no_influence():
    model, batch = shake(fresh().model), batch_of()
    results = []
    for filler in (0.0, 1e6, -3.0):
        masked = torch.where(batch["weight"] > 0, batch["target"], torch.tensor(filler))
        model.zero_grad()
        squares, weights = cell_losses(model, {**batch, "target": masked})
        squares.sum().backward()
        results.append((squares.detach(), weights, [p.grad.clone() for p in model.parameters()]))
    assert 0 < batch["weight"].mean() < 1
    for squares, weights, grads in results[1:]:
        assert torch.equal(squares, results[0][0]) and torch.equal(weights, results[0][1])
        assert all(torch.equal(a, b) for a, b in zip(grads, results[0][2], strict=True))
    assert all(torch.isfinite(g).all() for g in results[0][2])


def test_cell_losses_are_the_formula():
    model, batch = shake(fresh().model).eval(), batch_of()
    squares, weights = cell_losses(model, batch)
    raw = model.start(batch) + model.scale(batch) * model.correction(batch)
    error = ((raw - batch["target"]) / model.scale(batch)) ** 2
    for lead, p in np.ndindex(3, 6):
        scored = batch["weight"][:, lead, p] > 0
        assert weights[lead, p] == scored.sum()
        expected = float(error[:, lead, p][scored].detach().sum())
        assert squares[lead, p].item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_the_start_is_one_on_the_training_split():
    ready = fresh(linear_part=False)
    samples = ForecastSamples(tiny()[0], "train", LEADS)
    with torch.no_grad():
        sums = [cell_losses(ready.model.eval(), batch) for batch in batches(samples)]
    squares, weights = (sum(part.double() for part in parts) for parts in zip(*sums, strict=True))
    loss = squares.numpy() / weights.numpy() / ready.residual_variance
    np.testing.assert_allclose(loss, 1, rtol=1e-5)


def validation_loss(model, variance, size) -> float:
    samples = ForecastSamples(tiny()[0], "validation", LEADS)
    with torch.no_grad():
        sums = [cell_losses(model.eval(), batch) for batch in batches(samples, size)]
    squares, weights = (sum(part.double() for part in parts) for parts in zip(*sums, strict=True))
    return float((squares / weights / torch.as_tensor(variance)).mean())


def test_validation_loss_does_not_depend_on_the_batch_size():
    ready = prepared()
    model = shake(fresh().model)
    losses = [validation_loss(model, ready.residual_variance, size) for size in (1000, 100, 7)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_a_batch_without_a_scored_cell_of_a_pollutant_adds_nothing():
    task = ForecastTask(fresh().model, QUICK, torch.ones(3, 6))
    task.log = lambda *_, **__: None
    batch = batch_of()
    batch["weight"][:, :, 2] = 0
    loss = task.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())


# ---- preparation


def test_the_start_is_the_best_rule_of_the_validation_split():
    (fields, stations), ready = tiny(), prepared()
    rows = ForecastSamples(fields, "validation", LEADS).rows
    at = situation_at(stations.history, rows, LEADS)
    truth = np.stack([stations.observed[rows + h] for h in LEADS], axis=1)[..., :5]
    rmse = []
    for name in STATISTICAL:
        error = ready.statistical(name, at)[..., :5] - truth
        rmse.append(np.sqrt(np.nanmean(error**2, axis=(0, 3))))
    np.testing.assert_array_equal(ready.chosen, np.array(STATISTICAL)[np.argmin(rmse, axis=0)])
    for lead, p in np.ndindex(3, 6):
        rule = STATISTICAL.index(ready.chosen[lead, p])
        np.testing.assert_allclose(ready.model.start_weights[lead, p],
                                   ready.statistical.weights[rule, lead, p], rtol=1e-6)


def test_preparation_fits_nothing_on_later_splits_and_nothing_at_withheld_stations():
    content = synthetic.arrays()
    after = int((splits()["validation"].start - synthetic.START).astype(int))
    before = prepared()
    content["inputs"][after:] *= 1.5
    content["targets"][after:] += 20
    content["station_values"][after:] *= 2
    content["station_values"][:, 5] *= 3  # the withheld one
    other = prepare(*load(content), config(), QUICK)
    np.testing.assert_array_equal(other.statistical.weights, before.statistical.weights)
    if np.array_equal(other.chosen, before.chosen):  # the choice may see the validation split
        assert torch.equal(other.model.linear, before.model.linear)
        np.testing.assert_array_equal(other.residual_variance, before.residual_variance)
    fixed = ("spread", "mean", "static")
    assert all(torch.equal(getattr(other.model, n), getattr(before.model, n)) for n in fixed)


def test_the_choice_ignores_withheld_stations_and_missing_values():
    fields, stations = tiny()
    validation = ForecastSamples(fields, "validation", LEADS)
    observed = stations.observed.copy()
    observed[..., 5] = 1e4
    other = choose_start(prepared().statistical, replace(stations, observed=observed), validation)
    np.testing.assert_array_equal(np.array(STATISTICAL)[other], prepared().chosen)


def test_the_regression_lowers_the_training_loss():
    samples = ForecastSamples(tiny()[0], "train", LEADS)
    losses = []
    for on in (True, False):
        ready = prepared(linear_part=on)
        with torch.no_grad():
            sums = [cell_losses(ready.model.eval(), b) for b in batches(samples)]
        squares, weights = (sum(p.double() for p in parts) for parts in zip(*sums, strict=True))
        losses.append((squares.numpy() / weights.numpy() / ready.residual_variance).mean())
    assert losses[0] < losses[1] - 0.01


# ---- order and repetition


def test_epochs_have_different_orders(monkeypatch, tmp_path):
    seen = []
    real = loop.seeded_order
    monkeypatch.setattr(loop, "seeded_order",
                        lambda i, s, e: seen.append((s, e)) or real(i, s, e))
    run(tmp_path / "best.ckpt", max_epochs=3, seed=4)
    assert seen == [(4, 0), (4, 1), (4, 2)]


def test_training_twice_is_bitwise_the_same_and_another_seed_is_not(tmp_path):
    curves, states = [], []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name))  # what ran before must not matter
        np.random.seed(len(states))
        curve, _, ready = run(tmp_path / name, seed=seed, learning_rate=3e-3)
        curves.append((curve.validation, curve.train[1:]))
        states.append(ready.model.state_dict())
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_sample_limit_is_spread_over_the_split():
    samples = ForecastSamples(tiny()[0], "train", LEADS)
    some = loop._chosen_samples(samples, 100)
    assert len(some) == len(set(some)) == 100
    assert some[0] == 0 and some[-1] == len(samples) - 1
    assert np.ptp(np.diff(some)) <= 1
    np.testing.assert_array_equal(loop._chosen_samples(samples, 0), np.arange(len(samples)))
    np.testing.assert_array_equal(loop._chosen_samples(samples, 10**9), np.arange(len(samples)))


@pytest.mark.parametrize("warmup_share", [0.15, 0.5])
@pytest.mark.parametrize("maximum", [1, 10, 128])
def test_a_few_samples_are_enough_for_a_step(tmp_path, maximum, warmup_share):
    changes = {"max_epochs": 1, "max_train_samples": maximum, "warmup_share": warmup_share}
    curve, _, _ = run(tmp_path / "best.ckpt", **changes)
    assert np.isfinite(curve.train[1])
    assert len(curve.validation) == 2


# ---- averaged weights, curve, checkpoint


def test_best_checkpoint_holds_the_weights_that_were_judged(trained):
    path, curve, _, ready = trained
    loaded = load_checkpoint(path)
    found = validation_loss(loaded.model, ready.residual_variance, 512)
    assert curve.best_epoch > 0, "the test needs a run in which an epoch beats the start"
    assert found == pytest.approx(min(curve.validation), rel=1e-6)
    assert curve.epoch[int(np.argmin(curve.validation))] == curve.best_epoch
    for name, value in ready.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_judged_weights_are_moving_averages(monkeypatch, tmp_path):
    raw = []
    real = ForecastTask.on_train_batch_end

    def watch(self, *args):
        raw.append(self.model.decode.out.weight.detach().clone())
        real(self, *args)
        watch.task = self

    monkeypatch.setattr(ForecastTask, "on_train_batch_end", watch)
    run(tmp_path / "best.ckpt", max_epochs=2)
    average = raw[0]
    for weight in raw[1:]:
        average = 0.9 * average + 0.1 * weight
    assert len(raw) == 2 * 320 // 64
    torch.testing.assert_close(watch.task.averaged.decode.out.weight, average)
    assert not torch.allclose(raw[-1], average, atol=1e-5)


def test_epoch_zero_is_the_model_before_gradient_descent(trained):
    _, curve, _, _ = trained
    start = fresh(dropout=0.2, input_noise=0.5, linear_part=False)
    found = validation_loss(start.model, start.residual_variance, 512)
    assert curve.validation[0] == pytest.approx(found, rel=1e-6)
    assert curve.epoch == [0, 1, 2, 3]
    assert np.isnan(curve.train[0]) and np.isfinite(curve.train[1:]).all()
    assert curve.to_dict()["train"][0] is None


def test_progress_is_reported(trained, monkeypatch, tmp_path):
    _, curve, lines, _ = trained
    assert [line.split(":")[0] for line in lines if "validation loss" in line] == [
        f"epoch {i}" for i in range(4)]
    assert sum("(best)" in line for line in lines) >= 1
    assert f"epoch {curve.best_epoch}: validation loss {min(curve.validation):.4f} (best)" in lines
    monkeypatch.setattr(loop, "_LINE_EVERY_S", 0.0)
    _, many, _ = run(tmp_path / "best.ckpt", max_epochs=1)
    assert any("100% done" in line and "s left" in line for line in many)
    assert any("validation batch" in line for line in many)


def test_lightning_is_quiet_and_only_meanwhile(tmp_path, capfd, recwarn, caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    run(tmp_path / "best.ckpt", max_epochs=1)
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert [str(w.message) for w in recwarn] == []
    assert logger.level == level


# ---- failure


def test_a_training_loss_that_is_not_finite_stops_the_run(monkeypatch, tmp_path):
    real, calls = ForecastTask.training_step, []

    def step(self, batch, index):
        calls.append(index)
        loss = real(self, batch, index)
        return loss * float("nan") if len(calls) == 3 else loss

    monkeypatch.setattr(ForecastTask, "training_step", step)
    with pytest.raises(RunError, match="the loss of a training batch is not finite"):
        run(tmp_path / "best.ckpt")
    assert len(calls) == 3
    assert load_checkpoint(tmp_path / "best.ckpt").model is not None  # epoch 0


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path):
    ready = fresh()
    with torch.no_grad():
        ready.model.decode.out.bias[0] = float("inf")
    with pytest.raises(RunError, match="the validation loss is not finite"):
        train(tiny()[0], ready, QUICK, tmp_path / "best.ckpt", lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_stays_an_interrupt(monkeypatch, tmp_path):
    def step(self, batch, index):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(ForecastTask, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "best.ckpt")
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / "best.ckpt").model is not None
