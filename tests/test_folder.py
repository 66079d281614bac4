"""Checkpoint files: whatever is killed, cut or damaged, a run can be resumed."""

from __future__ import annotations

import os

import pytest
import torch
from test_resume import CutError, content, countdown, cut, quiet
from toy_training import config, problem

from aqnet.errors import RunError
from aqnet.model.attention import ModelError
from aqnet.training import loop, saving
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.folder import CheckpointFolder, to_resume
from aqnet.training.loop import train

EVERY_STEP = {"checkpoint_minutes": 1e-9}


class FullError(Exception):
    """Raised in place of a write."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Content of an uninterrupted run that keeps one best checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    train(problem(), config(keep_best=1), folder, echo=quiet)
    return content(folder)


def cut_run(folder, batches: int, **changes) -> None:
    """A run that ends in the middle of a batch."""
    ready = problem()
    countdown(ready, batches, cut)
    with pytest.raises(CutError):
        train(ready, config(**changes), folder, echo=quiet)


def damage(path) -> None:
    """Other bytes in the middle."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = os.urandom(4096)
    path.unlink()  # a hard link must not be damaged as well
    path.write_bytes(content)


# ---- killed between two files


@pytest.mark.parametrize("judgement", [1, 2, 3, 4])
def test_killed_before_the_last_checkpoint_of_a_judgement(whole, tmp_path, monkeypatch, judgement):
    left, real = [judgement], saving.write_checkpoint

    def write(path, checkpoint):
        if path.name == "last.ckpt":
            left[0] -= 1
            if left[0] == 0:
                raise FullError
        return real(path, checkpoint)

    monkeypatch.setattr(saving, "write_checkpoint", write)
    with pytest.raises(FullError):
        train(problem(), config(keep_best=1), tmp_path, echo=quiet)
    # the best one may be new already; the older one, which last.ckpt names, is still there
    train(problem(), config(keep_best=1), tmp_path, "auto", quiet)
    assert content(tmp_path) == whole


def test_best_checkpoints_go_when_no_checkpoint_to_resume_from_names_them(tmp_path):
    files, best = CheckpointFolder(tmp_path, 1), []
    files.begin([], None)
    for step, loss in enumerate((0.5, 0.4, 0.3)):
        best = files.add_best(best, loss, 0, step, lambda path: path.write_text(path.name))
        assert len(list(tmp_path.glob("best-*"))) == step + 1
        files.save_last(best, lambda path, text=str(best): path.write_text(text))
        names = {path.name for path in tmp_path.glob("best-*")}
        for name in ("last.ckpt", "last-previous.ckpt")[: step + 1]:
            assert any(each in (tmp_path / name).read_text() for each in names), name
    files.finish(best)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt", best[0][1]}


# ---- damaged


def test_a_last_checkpoint_that_is_gone_has_one_before_it(tmp_path):
    cut_run(tmp_path, 20, **EVERY_STEP)
    (tmp_path / "last.ckpt").unlink()
    checkpoint, path, note = to_resume(tmp_path, "auto")
    assert path.name == "last-previous.ckpt" and note == "last.ckpt is not used: it is gone"
    train(problem(), config(**EVERY_STEP), tmp_path, "auto", echo=quiet)
    assert checkpoint.progress.step < read_checkpoint(tmp_path / "last.ckpt").progress.step == 15


def test_a_damaged_last_checkpoint_has_one_before_it(whole, tmp_path):
    cut_run(tmp_path, 20, keep_best=1, **EVERY_STEP)
    steps = [read_checkpoint(tmp_path / name).progress.step
             for name in ("last-previous.ckpt", "last.ckpt")]  # fmt: skip
    assert steps[1] - 1 <= steps[0] <= steps[1] and steps[1] > 4
    damage(tmp_path / "last.ckpt")
    with pytest.raises(RunError, match=r"(?s)last\.ckpt.*last-previous\.ckpt.*resume=auto"):
        train(problem(), config(keep_best=1), tmp_path, tmp_path / "last.ckpt", quiet)
    lines = []
    train(problem(), config(keep_best=1), tmp_path, "auto", lines.append)
    assert f"continues at step {steps[0]} from {tmp_path / 'last-previous.ckpt'}" in lines
    assert any(line.startswith("last.ckpt is not used: checkpoint: ") for line in lines)
    assert content(tmp_path) == whole


def test_a_damaged_checkpoint_never_replaces_the_whole_one_before_it(tmp_path):
    cut_run(tmp_path, 20, **EVERY_STEP)
    damage(tmp_path / "last.ckpt")
    files = CheckpointFolder(tmp_path, 3)
    checkpoint, path, _ = to_resume(tmp_path, "auto")
    best = checkpoint.training["state"]["best"]

    def full(path):
        raise FullError

    for source in (path, tmp_path / "last-previous.ckpt"):
        files.begin(best, source)
        with pytest.raises(FullError):
            files.save_last(best, full)
        assert read_checkpoint(tmp_path / "last-previous.ckpt").progress == checkpoint.progress
    damage(tmp_path / "last-previous.ckpt")
    with pytest.raises(ModelError, match=r"last\.ckpt"):
        to_resume(tmp_path, "auto")


def test_auto_begins_where_there_is_nothing_and_goes_on_where_there_is(whole, tmp_path):
    cut_run(tmp_path, 2)  # in the first judgement
    lines = []
    train(problem(), config(keep_best=1), tmp_path, "auto", lines.append)
    assert not any(line.startswith("continues") for line in lines)
    train(problem(), config(keep_best=1), tmp_path, "auto", lines.append)
    assert any(line.startswith("continues at step 15") for line in lines)
    assert content(tmp_path) == whole


def test_resuming_elsewhere_spares_the_training_that_is_there(whole, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    cut_run(first, 20)
    cut_run(second, 25, seed=7)
    before = content(second)
    with pytest.raises(RunError, match="holds a training already"):
        train(problem(), config(), second, first / "last.ckpt", quiet)
    assert content(second) == before


def test_file_systems_without_hard_links(whole, tmp_path, monkeypatch):
    def link(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    train(problem(), config(keep_best=1), tmp_path, echo=quiet)
    assert content(tmp_path) == whole


# ---- what is never saved


def test_weights_that_are_not_finite_end_the_run_and_are_not_saved(tmp_path):
    ready = problem()

    def spoil():
        with torch.no_grad():
            ready.model.network.decoder.weight[0, 0] = float("nan")

    countdown(ready, 3 + 8 + 3 + 2, spoil)  # in step 5
    with pytest.raises(RunError, match=r"not finite after step (4|5)(.|\n)*decoder\.weight"):
        train(ready, config(**EVERY_STEP), tmp_path, echo=quiet)
    saved = read_checkpoint(tmp_path / "last.ckpt", training=True)
    assert all(value.isfinite().all() for value in saved.training["weights"].values())


def test_a_resume_at_a_judgement_keeps_the_older_checkpoint(tmp_path):
    cut_run(tmp_path, 24, **EVERY_STEP)  # in the judgement after step 8
    ready = problem()
    countdown(ready, 2, cut)  # and in the same one again
    with pytest.raises(CutError):
        train(ready, config(**EVERY_STEP), tmp_path, "auto", quiet)
    names = ("last.ckpt", "last-previous.ckpt")
    assert [read_checkpoint(tmp_path / name).progress.step for name in names] == [8, 7]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_long_judgement_does_not_cost_the_steps_before_it(tmp_path, monkeypatch, resumed):
    if resumed:  # this process has not judged yet, and does not know how long it takes
        cut_run(tmp_path, 17)
        assert read_checkpoint(tmp_path / "last.ckpt").progress.step == 4
    clock, ready = [0.0], problem()
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    ready.train.on_batch = lambda numbers: clock.__setitem__(0, clock[0] + 60)  # 2 minutes a step
    left = [2 if resumed else 8]  # 3 batches of each judgement; the second one of the third is cut

    def on_batch(numbers):
        clock[0] += 200  # 10 minutes each
        left[0] -= 1
        if left[0] == 0:
            raise FullError

    ready.validation.on_batch = on_batch
    with pytest.raises(FullError):
        train(ready, config(), tmp_path, "auto" if resumed else None, quiet)
    assert read_checkpoint(tmp_path / "last.ckpt").progress.step == 8
