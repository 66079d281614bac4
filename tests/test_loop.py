"""The training loop on one process: what it trains, judges, keeps, writes and refuses."""

from __future__ import annotations

import csv
import resource
import signal
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import ToySamples, config, problem

from aqnet.errors import RunError, StorageFullError
from aqnet.training import loop, saving
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.folder import CheckpointFolder
from aqnet.training.loaders import chosen_samples, training_loader, validation_loader
from aqnet.training.logs import RunLog
from aqnet.training.loop import train
from aqnet.training.loss import CellLoss, Objective
from aqnet.training.optimisation import clip_sums, gradients, make_optimiser, norm_of, set_rate
from aqnet.training.processes import open_fabric
from aqnet.training.schedule import describe_plan
from aqnet.training.seeds import derive
from aqnet.training.step import Stepper
from aqnet.training.validation import judge


def run(folder, ready=None, **changes):
    """Train: curve, lines, problem."""
    ready, lines = ready or problem(), []
    return train(ready, config(**changes), folder, echo=lines.append), lines, ready


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run: folder, curve, lines, problem."""
    folder = tmp_path_factory.mktemp("run")
    return folder, *run(folder)


# ---- what is computed


class Fetched(TorchDispatchMode):
    """Counts operations that wait for a device: numbers for Python, sizes that depend on values."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.masked_select.default,
        )
        if function is torch.ops.aten.index.Tensor:
            self.count += any(x is not None and x.dtype == torch.bool for x in args[1])
        return function(*args, **kwargs or {})


def test_a_step_fetches_one_vector(tmp_path, monkeypatch):
    copies, fetched = [], Fetched()
    whole, copy = Stepper.__call__, torch.Tensor.cpu

    def step(self, *args):
        monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copies.append(x.shape) or copy(x))
        with fetched:
            done = whole(self, *args)
        monkeypatch.setattr(torch.Tensor, "cpu", copy)
        return done

    monkeypatch.setattr(Stepper, "__call__", step)
    # counts of steps, of the optimiser and of averages, lie with the processor on any device
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    run(tmp_path, max_epochs=1, warmup_steps=0, ema_decay=0.0)
    assert len(copies) == 5 and fetched.count == 0
    some = torch.arange(3.0)
    with fetched:
        some[0].item(), some[some > 1], some.nonzero()
    assert fetched.count == 3


def test_steps_are_those_of_a_plain_loop(tmp_path):
    """A loop written out: order, noise, sums over passes, clipping, schedule, averages."""
    settings = config(max_epochs=2, warmup_steps=1, gradient_clip=1.0)
    reference = problem()
    plan = describe_plan(settings, 40, 1)
    objective = Objective(reference.model, CellLoss(settings, reference.loss_weights))
    optimiser, average, losses, step = make_optimiser(reference.model, settings), None, [], 0
    for epoch in range(2):
        order = np.random.default_rng([derive(5, "order"), epoch]).permutation(40).reshape(5, 2, 4)
        for window in order:
            set_rate(optimiser, plan.rate(step))
            optimiser.zero_grad()
            total = cells = 0.0
            for number, chosen in enumerate(window):
                torch.manual_seed(derive(5, "noise", step, number, 0))
                out = objective(reference.train.__getitems__(chosen.tolist()))
                out["total"].backward()
                total += out["total"].item()
                cells += out["counts"].sum().item()
            sums = gradients(reference.model)
            clip_sums(sums, float(norm_of(sums)), cells, 1.0)
            optimiser.step()
            raw = [p.detach().clone() for p in reference.model.parameters()]
            average = (
                raw
                if average is None
                else [torch.lerp(a, b, 0.1) for a, b in zip(average, raw, strict=True)]
            )
            losses.append(total / cells)
            step += 1
    _, lines, _ = run(tmp_path, max_epochs=2, gradient_clip=1.0)
    found = [float(line.split("loss=")[1].split()[0]) for line in lines if " loss=" in line]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    last = read_checkpoint(tmp_path / "last.ckpt", training=True)
    names = [name for name, _ in reference.model.named_parameters()]
    for name, value, mean in zip(names, raw, average, strict=True):
        torch.testing.assert_close(last.training["weights"][name], value)
        torch.testing.assert_close(last.state[name], mean)  # averages are what is saved


def test_what_ran_before_does_not_matter_and_the_seed_does(tmp_path):
    curves = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        torch.manual_seed(len(curves))
        np.random.seed(len(curves))
        curves.append(run(tmp_path / name, seed=seed)[0].validation)
    assert curves[0] == curves[1] != curves[2]


def test_training_learns(trained):
    _, curve, _, _ = trained
    assert curve.validation[-1] < 0.9 * curve.validation[0]
    assert curve.step == [0, 4, 8, 12, 15] and curve.epoch == [0, 0, 1, 2, 3]
    assert np.isnan(curve.train[0]) and curve.to_dict()["train"][0] is None
    assert np.shape(curve.rmse) == (5, 2, 6)


def test_two_batch_sizes_judge_alike(tmp_path):
    values = [
        run(tmp_path / str(size), problem(dropout=0.0), batch_size=size)[0] for size in (8, 4, 1)
    ]
    for other in values[1:]:
        np.testing.assert_allclose(other.validation, values[0].validation, rtol=1e-5)
        np.testing.assert_allclose(other.rmse, values[0].rmse, rtol=1e-5)


def test_an_epoch_is_rounded_to_full_steps(tmp_path):
    seen = []
    ready = problem(n=21)  # 2.6 steps of 8: three, the last filled up from the epoch's beginning
    ready.train.on_batch = lambda numbers: seen.append(tuple(numbers))
    curve, lines, _ = run(tmp_path, ready, validate_every=0, warmup_steps=0)
    assert curve.step == [0, 3, 6, 9] and curve.epoch == [0, 1, 2, 3]
    epochs = [sum(seen[start : start + 6], ()) for start in (0, 6, 12)]
    for samples in epochs:
        assert set(samples) == set(range(21)) and samples[21:] == samples[:3]
    assert len(set(epochs)) == 3
    assert "3 optimiser steps per epoch, 9 in all" in lines[0]


def test_a_sample_limit_is_spread_over_the_split(tmp_path):
    chosen = chosen_samples(1000, 100)
    assert len(set(chosen)) == 100 and chosen[0] == 0 and chosen[-1] == 999
    assert np.ptp(np.diff(chosen)) <= 1
    np.testing.assert_array_equal(chosen_samples(7, 0), np.arange(7))
    settings, seen = config(max_train_samples=16, warmup_steps=0), set()
    fabric, samples = open_fabric(settings), ToySamples(40)
    samples.on_batch = seen.update
    plan = describe_plan(settings, 40, 1)
    _, loader = training_loader(samples, settings, plan, fabric)
    assert len(list(loader)) == 4 and seen == set(chosen_samples(40, 16).tolist())


def test_a_limit_on_validation_samples_is_spread_over_the_split(tmp_path):
    settings, judged = config(max_validation_samples=9), []
    fabric, samples = open_fabric(settings), ToySamples(40)
    samples.on_batch = judged.extend
    list(validation_loader(samples, settings, fabric))
    assert judged == chosen_samples(40, 9).tolist()
    ready = problem()
    ready.validation.on_batch = judged.extend
    judged.clear()
    run(tmp_path, ready, max_validation_samples=5, validate_every=0, max_epochs=1, warmup_steps=0)
    assert sorted(set(judged)) == chosen_samples(len(ready.validation), 5).tolist()
    assert len(judged) == 2 * 5


# ---- safety


def spoiled(step: int, what: str):
    """A problem with one pass that is not finite: the second of a step, counted from 1."""
    ready, passes = problem(), [0]

    def hook(module, inputs, output):
        passes[0] += module.training
        if module.training and passes[0] == 2 * step:
            if what == "loss":
                return output * float("nan")
            output.register_hook(lambda gradient: gradient * float("inf"))
        return output

    ready.model.network.register_forward_hook(hook)
    return ready


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path, what):
    ready, seen = spoiled(7, what), []
    ready.train.on_batch = lambda numbers: seen.append(sorted(numbers))
    curve, lines, _ = run(tmp_path, ready)
    skipped = [line for line in lines if line.startswith("skipped")]
    assert len(skipped) == 1 and f"step=7 the {what}" in skipped[0]
    hours = {f"{np.datetime64(400_000 + n, 'h')}" for n in seen[13]}
    assert all(hour in skipped[0] for hour in hours)
    assert np.isfinite(curve.validation).all() and np.isfinite(curve.train[1:]).all()
    saved = read_checkpoint(tmp_path / "last.ckpt", training=True)
    assert all(value.isfinite().all() for value in saved.state.values())
    steps = {float(each["step"]) for each in saved.training["optimiser"]["state"].values()}
    assert steps == {14.0}  # 15 steps, one skipped
    assert saved.training["state"]["skipped"] == [skipped[0].replace("skipped step=7", "step 7:")]


def test_too_many_skipped_steps_end_the_run_with_a_report(tmp_path):
    ready = problem()
    ready.train.target[:] = float("nan")
    report = r"(?s)max_bad_batches = 2.*step 1:.*step 2:.*step 3: no target is known"
    with pytest.raises(RunError, match=report):
        run(tmp_path, ready, max_bad_batches=2)
    assert read_checkpoint(tmp_path / "best.ckpt").progress.step == 0


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path):
    ready = problem()
    with torch.no_grad():
        ready.model.network.decoder.bias[0] = float("inf")
    with pytest.raises(RunError, match="the validation loss is not finite"):
        run(tmp_path, ready)
    assert not list(tmp_path.glob("*.ckpt"))  # never replaced by a number, never the best
    other = problem()
    other.validation.weight[:] = 0
    with pytest.raises(RunError, match="over 0 known cells"):
        run(tmp_path, other)


def test_an_error_of_the_data_is_raised_as_it_is_and_handlers_come_back(tmp_path):
    ready, before = problem(), signal.getsignal(signal.SIGTERM)

    def broken(numbers):
        raise OSError("lost disk")

    ready.train.on_batch = broken
    with pytest.raises(OSError, match="lost disk"):
        run(tmp_path, ready)
    assert signal.getsignal(signal.SIGTERM) is before


# ---- what is kept


def test_the_best_three_the_link_and_the_last_are_kept(trained):
    folder, curve, _, ready = trained
    expected = sorted(zip(curve.validation, curve.step, curve.epoch, strict=True))[:3]
    names = [f"best-val_loss_{v:.4f}-epoch_{e:02d}-step_{s}.ckpt" for v, s, e in expected]
    assert sorted(path.name for path in folder.glob("*.ckpt")) == sorted(
        [*names, "best.ckpt", "last.ckpt"]
    )
    best = read_checkpoint(folder / "best.ckpt", training=True)
    assert best.sha256 == read_checkpoint(folder / names[0]).sha256
    assert best.training is None and best.progress.step == curve.best_step
    assert best.progress.val_loss == min(curve.validation)
    own = config().model_dump(mode="json")
    assert best.trained_with["learning_rate"] == own["learning_rate"] > 0
    assert best.trained_with["seed"] == own["seed"] and best.trained_with["effective"] == 8
    for name, value in ready.model.state_dict().items():
        assert torch.equal(value, best.state[name]), name


def test_the_best_checkpoint_holds_the_weights_that_were_judged(trained):
    folder, curve, _, _ = trained
    ready = problem()
    ready.model.load_state_dict(read_checkpoint(folder / "best.ckpt").state)
    loss = CellLoss(config(), ready.loss_weights)
    judged = judge(ready.model, loss, [ready.validation.__getitems__(range(11))],
                   open_fabric(config()))  # fmt: skip
    assert judged.loss == pytest.approx(min(curve.validation), rel=1e-6)


def test_early_stopping_counts_epochs(tmp_path):
    still = {"learning_rate": 1e-12, "ema_decay": 0.0}
    ready = problem()
    curve, _, _ = run(tmp_path, ready, max_epochs=9, patience_epochs=2, validate_every=0, **still)
    best = curve.best_epoch
    assert curve.epoch == list(range(best + 3)) and best < 6
    curve, _, _ = run(tmp_path / "on", max_epochs=9, patience_epochs=0, validate_every=0, **still)
    assert curve.epoch[-1] == 9


def test_checkpoints_come_by_time(tmp_path, monkeypatch):
    clock, written, real = [0.0], [], saving.write_checkpoint
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def write(path, checkpoint):
        if path.name == "last.ckpt":
            written.append(checkpoint.progress.step)
        return real(path, checkpoint)

    monkeypatch.setattr(saving, "write_checkpoint", write)
    ready = problem()
    ready.train.on_batch = lambda numbers: clock.__setitem__(0, clock[0] + 170)  # 340 s a step
    run(tmp_path, ready, validate_every=15, checkpoint_minutes=15.0)
    assert written[0] == 0 and written[-1] == 15
    # 340 s a step: after a third one 1,020 s would be unsaved
    assert all(340 * (step - before) <= 900 for before, step in pairwise(written))
    assert len(written) < 10


def test_a_first_step_of_ten_minutes_is_saved_after_it(tmp_path, monkeypatch):
    clock, ready = [0.0], problem()
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def on_batch(numbers):
        clock[0] += 300  # two of them a step
        if clock[0] > 900:
            raise InterruptedError

    ready.train.on_batch = on_batch
    with pytest.raises(InterruptedError):
        run(tmp_path, ready, validate_every=15, checkpoint_minutes=15.0)
    assert read_checkpoint(tmp_path / "last.ckpt").progress.step == 1


def test_a_full_disk_ends_the_run_and_keeps_the_older_checkpoint(tmp_path):
    ready, limits = problem(), resource.getrlimit(resource.RLIMIT_FSIZE)
    left = [14]

    def fill(numbers):
        left[0] -= 1
        if left[0] == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))

    ready.train.on_batch = fill
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StorageFullError):
            run(tmp_path, ready, log_every=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    saved = read_checkpoint(tmp_path / "last.ckpt", training=True)
    assert saved.progress.step == 4 and read_checkpoint(tmp_path / "best.ckpt").progress.step == 4
    curve = train(problem(), config(log_every=100), tmp_path, tmp_path / "last.ckpt", print)
    assert curve.step == [0, 4, 8, 12, 15]


def test_adding_the_same_best_again_changes_nothing(tmp_path):
    files, best = CheckpointFolder(tmp_path, 2), []
    for loss, step in ((0.5, 1), (0.3, 2), (0.4, 3), (0.3, 4)):
        for _ in range(2):  # the second time as after a crash before last.ckpt was written
            best = files.add_best(best, loss, 0, step, lambda path: path.write_text(path.name))
    files.finish(best)
    assert [step for _, step in best] == ["best-val_loss_0.3000-epoch_00-step_2.ckpt",
                                          "best-val_loss_0.3000-epoch_00-step_4.ckpt"]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", *(name for _, name in best)}
    assert (tmp_path / "best.ckpt").read_text() == best[0][1]


# ---- what is written


def test_lines_can_be_searched_and_metrics_are_complete(trained):
    folder, curve, lines, _ = trained
    steps = [line for line in lines if line.startswith("step=") and " loss=" in line]
    assert len(steps) == 15
    for key in ("step=", "epoch=", "loss=", "lr=", "samples_s="):
        assert all(key in line for line in steps)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    judged = [row for row in rows if row["val_loss"]]
    np.testing.assert_allclose([float(row["val_loss"]) for row in judged], curve.validation)
    rmse = [float(row["val_rmse_ug_m3/o3_24h"]) for row in judged]
    np.testing.assert_allclose(rmse, np.array(curve.rmse)[:, 1, 5])
    assert len([row for row in rows if row["loss/pm25_12h"]]) == 15
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    np.testing.assert_allclose([e.value for e in events.Scalars("val_loss")], curve.validation)


def test_a_resumed_run_continues_its_metrics(trained, tmp_path):
    folder, *_ = trained
    ready, left = problem(), [27]

    def on_batch(numbers):
        left[0] -= 1
        if left[0] == 0:
            raise KeyError

    ready.train.on_batch = on_batch
    with pytest.raises(KeyError):
        run(tmp_path, ready)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(problem(), config(), tmp_path, tmp_path / "last.ckpt", lambda line: None)
    tables = []
    for each in (folder, tmp_path):
        with (each / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if k != "samples_s"} for row in rows])
    assert tables[0] == tables[1]


def test_metrics_that_a_full_disk_cut_do_not_stop_a_resume(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("loss,step\n0.5,1\n0.4,2\n0.3,3\n0.2")  # the column of the step is missing
    log = RunLog(tmp_path, 2, print, True)
    log.close()
    assert table.read_text().split() == ["loss,step", "0.5,1", "0.4,2"]


def test_lightning_and_torch_are_quiet(tmp_path, capfd, recwarn):
    run(tmp_path)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") and [str(w.message) for w in recwarn] == []


# ---- options


def test_bf16_trains_and_checkpointing_and_compile_are_wired(tmp_path, monkeypatch):
    exact, mixed = (run(tmp_path / name, precision=name)[0] for name in ("32-true", "bf16-mixed"))
    assert exact.validation != mixed.validation
    np.testing.assert_allclose(exact.validation, mixed.validation, rtol=0.05)
    ready = problem()
    ready.model.network.checkpoint_blocks = False
    run(tmp_path / "blocks", ready, activation_checkpointing=True, max_epochs=1, warmup_steps=0)
    assert ready.model.network.checkpoint_blocks is True
    with pytest.raises(RunError, match="activation_checkpointing has no effect"):
        run(tmp_path / "none", activation_checkpointing=True)
    compiled, real = [], torch.compile

    def compile_eagerly(module, **options):
        compiled.append(module)
        return real(module, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    curve, _, _ = run(tmp_path / "compiled", compile=True)
    assert compiled and curve.validation == exact.validation
