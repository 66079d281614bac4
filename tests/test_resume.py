"""An interrupted training, resumed, is the uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training import IDENTITY, config, problem

from aqnet.errors import InterruptedRunError, RunError
from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.learner import Learner
from aqnet.training.loop import train
from aqnet.training.processes import open_fabric

EVERY_STEP = {"checkpoint_minutes": 1e-9}


class CutError(Exception):
    """Raised in the middle of something."""


def quiet(line: str) -> None:
    """Takes lines."""


def content(folder: Path) -> tuple:
    """Digests of everything that a run leaves: weights, optimiser, order, curve, best files."""
    last = read_checkpoint(folder / "last.ckpt", training=True)
    best = sorted(path.name for path in folder.glob("best*"))
    return last.sha256, last.training_sha256, best, read_checkpoint(folder / "best.ckpt").sha256


@pytest.fixture(scope="module", params=[0.9, 0.0], ids=["averaged", "raw"])
def whole(request, tmp_path_factory):
    """Settings, content, curve and model of an uninterrupted run."""
    folder, ready = tmp_path_factory.mktemp("whole"), problem()
    settings = config(ema_decay=request.param)
    curve = train(ready, settings, folder, echo=quiet)
    return settings, content(folder), curve, ready.model.state_dict(), folder


def countdown(ready, calls: int, action):
    """Do something in the middle of the n-th batch, training or validation."""
    left = [calls]

    def on_batch(numbers):
        left[0] -= 1
        if left[0] == 0:
            action()

    ready.train.on_batch = ready.validation.on_batch = on_batch


def cut():
    """An error in the middle of a batch."""
    raise CutError


def finish_with_cuts(folder, settings, gaps, where="loader", make=problem) -> tuple[int, object]:
    """Train, cut after each number of batches, resume; how often, and the model."""
    cuts = 0
    for gap in [*gaps, 10**9]:
        ready = make()
        if where == "loader":
            countdown(ready, gap, cut)
        else:
            left = [gap]

            def hook(*_, left=left):
                left[0] -= 1
                if left[0] == 0:
                    raise CutError

            ready.model.network.register_forward_hook(hook)
        last = folder / "last.ckpt"
        torch.manual_seed(cuts)  # whatever the new process draws
        try:
            train(ready, settings, folder, last if last.exists() else None, quiet)
            return cuts, ready.model.state_dict()
        except CutError:
            cuts += 1
            if not last.exists():  # cut before the first judgement was over: begin anew
                for path in folder.glob("*.ckpt"):
                    path.unlink()
    raise AssertionError("never finished")


@pytest.mark.parametrize(("where", "seed"), [("loader", 0), ("loader", 1), ("model", 2)])
def test_cut_at_random_batches_and_resumed_is_the_whole_run(whole, tmp_path, where, seed):
    settings, expected, curve, weights, _ = whole
    # 30 training batches, 5 judgements of 3 batches; a resumed run also loads batches ahead
    gaps = np.random.default_rng(seed).integers(1, 14, size=6)
    changed = settings.model_copy(update=EVERY_STEP if seed else {})
    cuts, model = finish_with_cuts(tmp_path, changed, gaps, where)
    assert cuts >= 2
    saved = content(tmp_path)
    assert saved[0] == expected[0] and saved[2:] == expected[2:]
    last = read_checkpoint(tmp_path / "last.ckpt", training=True).training
    assert last["state"]["curve"]["validation"] == curve.validation
    assert last["state"]["curve"]["train"][1:] == curve.train[1:]
    assert all(torch.equal(model[name], weights[name]) for name in weights)


def test_cut_in_the_first_judgement_of_a_step_repeats_it(whole, tmp_path):
    settings, expected, *_ = whole
    # 3 batches of step 0, 8 training batches, then within the judgement of step 4
    cuts, _ = finish_with_cuts(tmp_path, settings.model_copy(update=EVERY_STEP), [12])
    assert cuts == 1
    assert content(tmp_path)[2:] == expected[2:]


def test_the_training_state_is_the_same_to_the_last_bit(whole, tmp_path):
    settings, expected, *_ = whole
    cuts, _ = finish_with_cuts(tmp_path, settings, [20])
    assert cuts == 1
    assert content(tmp_path) == expected  # with optimiser, raw weights, order and curve


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_at_the_next_step_with_a_checkpoint(whole, tmp_path, number):
    settings, expected, *_ = whole
    before, ready = signal.getsignal(number), problem()
    countdown(ready, 14, lambda: os.kill(os.getpid(), number))  # in step 6, first of two passes
    with pytest.raises(InterruptedRunError, match=signal.Signals(number).name) as stopped:
        train(ready, settings, tmp_path, echo=quiet)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(number) is before
    step = read_checkpoint(tmp_path / "last.ckpt").progress.step
    assert step in (4, 5) and f"{step} done" in str(stopped.value)
    train(problem(), settings, tmp_path, tmp_path / "last.ckpt", quiet)
    assert content(tmp_path) == expected


def test_a_signal_in_a_long_validation_ends_there_and_it_is_repeated(tmp_path):
    settings = config(batch_size=1, max_epochs=1, warmup_steps=0, validate_every=0)
    folders = [tmp_path / "whole", tmp_path / "cut"]
    train(problem(n_validation=30), settings, folders[0], echo=quiet)
    ready = problem(n_validation=30)
    countdown(ready, 30 + 40 + 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedRunError):
        train(ready, settings, folders[1], echo=quiet)
    saved = read_checkpoint(folders[1] / "last.ckpt", training=True)
    assert saved.progress.step == 5 and saved.training["state"]["curve"]["step"] == [0]
    train(problem(n_validation=30), settings, folders[1], folders[1] / "last.ckpt", quiet)
    assert content(folders[1]) == content(folders[0])


def test_resuming_a_finished_run_changes_nothing(whole):
    settings, expected, curve, _, folder = whole
    again = train(problem(), settings, folder, folder / "last.ckpt", quiet)
    assert content(folder) == expected
    assert again.to_dict() == curve.to_dict()


def soon_worse():
    """A problem whose validation loss rises after some epochs."""
    ready = problem()
    ready.validation.target *= 0.3
    return ready


@pytest.mark.parametrize(
    ("epoch", "batch"), [(1, 5), (2, 6), (3, 12)], ids=["soon", "later", "in the last judgement"]
)
def test_early_stopping_is_the_same_after_a_resume(tmp_path, epoch, batch):
    settings = config(max_epochs=12, patience_epochs=3, validate_every=0, **EVERY_STEP)
    curve = train(soon_worse(), settings, tmp_path / "whole", echo=quiet)
    assert 0 < curve.best_epoch == curve.epoch[-1] - 3 < 9  # it stops by itself, after 3 epochs
    # 3 batches to judge, 10 of training an epoch; cut in the epochs after the best
    calls = 3 + 13 * (curve.best_epoch + epoch - 1) + batch
    parts = tmp_path / "parts"
    cuts, _ = finish_with_cuts(parts, settings, [calls], make=soon_worse)
    assert cuts == 1 and content(parts) == content(tmp_path / "whole")
    again = train(soon_worse(), settings, parts, parts / "last.ckpt", quiet)
    assert (again.step, again.best_step) == (curve.step, curve.best_step)


def test_resuming_in_another_folder_brings_the_best_files(whole, tmp_path):
    settings, expected, *_ = whole
    first, second = tmp_path / "first", tmp_path / "second"
    ready = problem()
    countdown(ready, 25, cut)
    with pytest.raises(CutError):
        train(ready, settings, first, echo=quiet)
    train(problem(), settings, second, first / "last.ckpt", quiet)
    assert content(second) == expected


def test_another_number_of_passes_continues_the_same_order(tmp_path):
    seen = {}
    for name, size in (("same", 4), ("other", 8)):
        folder, ready = tmp_path / name, problem(dropout=0.0)
        countdown(ready, 18, cut)
        with pytest.raises(CutError):
            train(ready, config(**EVERY_STEP), folder, echo=quiet)
        start = read_checkpoint(folder / "last.ckpt").progress.step
        curve = train(problem(dropout=0.0), config(batch_size=size), folder, folder / "last.ckpt",
                      quiet)  # fmt: skip
        seen[name] = (start, curve.validation)
    assert seen["same"][0] == seen["other"][0] > 4
    np.testing.assert_allclose(seen["same"][1], seen["other"][1], rtol=1e-6)


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 2e-2}, "learning_rate"),
        ({"seed": 6}, "seed"),
        ({"max_epochs": 4, "warmup_steps": 1}, "max_epochs, steps"),
        ({"effective_batch": 4, "warmup_steps": 0}, "effective"),
        ({"rates": {"blocks": 0.1}}, "rates"),
    ],
)
def test_other_settings_are_refused_by_name(whole, changes, named):
    settings, *_, folder = whole
    with pytest.raises(RunError, match=f"(?s)other settings.*{named}"):
        train(problem(), settings.model_copy(update=changes), folder, folder / "last.ckpt", quiet)


def test_other_data_are_refused(whole):
    settings, *_, folder = whole
    other = replace(problem(), identity=IDENTITY.model_copy(update={"mask_sha256": "f" * 64}))
    with pytest.raises(ModelError, match="mask"):
        train(other, settings, folder, folder / "last.ckpt", quiet)


def test_a_best_checkpoint_is_not_resumed_and_a_used_folder_is_not_overwritten(whole):
    settings, expected, *_, folder = whole
    with pytest.raises(RunError, match=r"give last\.ckpt"):
        train(problem(), settings, folder, folder / "best.ckpt", quiet)
    with pytest.raises(RunError, match="holds a training already"):
        train(problem(), settings, folder, echo=quiet)
    assert content(folder) == expected


# ---- processes that are killed

SCRIPT = """
import sys, time
from pathlib import Path
from toy_training import config, problem
from aqnet.errors import AqnetError
from aqnet.training.learner import Learner
from aqnet.training.loop import train
from aqnet.training.processes import open_fabric

def slowly(numbers):
    time.sleep(0.05)

if __name__ == "__main__":
    ready, folder = problem(), Path(sys.argv[1])
    ready.train.on_batch = slowly
    settings = config(checkpoint_minutes=1e-9, workers=int(sys.argv[2]))
    try:
        train(ready, settings, folder, echo=lambda line: print(line, flush=True))
    except AqnetError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
"""


def started(folder: Path, workers: int) -> subprocess.Popen:
    """A training process with its own process group, after its seventh step."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "run"), str(workers)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("step=7 "):
            return process
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_loses_one_step_and_a_signalled_one_none(tmp_path, workers):
    number = signal.SIGUSR1 if workers else signal.SIGKILL
    process = started(tmp_path, workers)
    time.sleep(0.03)
    os.killpg(process.pid, number)  # the workers too, as schedulers and terminals do
    _, errors = process.communicate(timeout=240)
    if workers:
        assert process.returncode == InterruptedRunError.exit_code, errors
        assert "SIGUSR1" in errors and "Traceback" not in errors
    else:
        assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "run"
    assert read_checkpoint(folder / "last.ckpt").progress.step >= 6
    train(problem(), config(), folder, folder / "last.ckpt", quiet)
    train(problem(), config(), tmp_path / "whole", echo=quiet)
    assert content(folder)[0] == content(tmp_path / "whole")[0]
    assert content(folder)[2:] == content(tmp_path / "whole")[2:]


def test_the_state_of_an_optimiser_with_another_order_of_parameters_is_refused(whole, monkeypatch):
    # The optimiser knows parameters by place alone: equal shapes would swap their moments.
    settings, *_, folder = whole
    saved = read_checkpoint(folder / "last.ckpt", training=True)
    names = saved.training["parameters"]
    monkeypatch.setattr(Learner, "_parameters", lambda self: [*names[1::-1], *names[2:]])
    with pytest.raises(RunError, match=f"number 0 on(?s:.*){names[0]}(?s:.*){names[1]}"):
        Learner(problem(), settings, open_fabric(settings)).restore(saved)
