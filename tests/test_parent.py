"""Training that begins with the weights of another checkpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_resume import CutError, cut
from toy_training import config, problem

from aqnet.errors import RunError
from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import read_checkpoint, write_checkpoint
from aqnet.training.loop import train
from aqnet.training.parent import begin_from
from aqnet.training.processes import open_fabric


def silent(line):
    """No log."""


@pytest.fixture
def parent(tmp_path):
    train(problem(), config(max_steps=3, warmup_steps=0), tmp_path / "first", echo=silent)
    return tmp_path / "first" / "last.ckpt"


def test_weights_are_the_parents_and_the_record_names_it(parent, tmp_path):
    fabric, child = open_fabric(config()), problem(seed=7)
    child.model.scale.mul_(2)  # fitted on its own data: not the parent's business
    fitted = child.model.scale.clone()
    sha256, others = begin_from(child, parent, fabric)
    saved = read_checkpoint(parent)
    assert sha256 == saved.sha256 and others == []
    for name, value in child.model.named_parameters():
        assert torch.equal(value, saved.state[name]), name
    assert torch.equal(child.model.scale, fitted)

    options = config(max_steps=2, warmup_steps=0)
    train(child, options, tmp_path / "second", None, silent, fabric, parent=sha256)
    assert read_checkpoint(tmp_path / "second" / "best.ckpt").parent == sha256
    with pytest.raises(RunError, match="began with other weights"):
        last = tmp_path / "second" / "last.ckpt"
        train(problem(), options, tmp_path / "third", last, silent, parent="f" * 64)


def test_a_run_that_goes_on_still_names_its_parent(tmp_path):
    options, stopped = config(max_steps=3, warmup_steps=0, checkpoint_minutes=1e-9), problem()
    saved = tmp_path / "run" / "last.ckpt"
    stopped.train.on_batch = lambda numbers: saved.exists() and cut()
    with pytest.raises(CutError):
        train(stopped, options, tmp_path / "run", None, silent, parent="f" * 64)
    train(problem(), options, tmp_path / "run", "auto", silent)
    assert read_checkpoint(saved).parent == "f" * 64 and read_checkpoint(saved).progress.step == 3


def test_differences_are_told(parent):
    child = problem(dropout=0.1)
    other = child.identity.model_copy(update={"normaliser_sha256": "9" * 64})
    told = begin_from(replace(child, identity=other), parent, open_fabric(config()))[1]
    assert "dropout: 0.2 in the parent, 0.1 here" in told
    assert any(line.startswith("normalisation values") for line in told)


def test_imported_weights_say_that_their_data_are_not_recorded(parent, tmp_path):
    write_checkpoint(tmp_path / "imported.ckpt", replace(read_checkpoint(parent), identity=None))
    told = begin_from(problem(), tmp_path / "imported.ckpt", open_fabric(config()))[1]
    assert told == ["data: not recorded in the parent, toy here"]


def test_refused(parent):
    fabric = open_fabric(config())
    wider = problem(width=16)
    before = {name: p.clone() for name, p in wider.model.named_parameters()}
    with pytest.raises(ModelError, match="names differ"):
        begin_from(wider, parent, fabric)
    assert all(torch.equal(p, before[name]) for name, p in wider.model.named_parameters())
    saved = read_checkpoint(parent)
    more = replace(saved, state=saved.state | {"another.weight": torch.zeros(2)})
    write_checkpoint(parent.with_name("more.ckpt"), more)
    with pytest.raises(ModelError, match=r"1 names differ(.|\n)*another\.weight"):
        begin_from(problem(), parent.with_name("more.ckpt"), fabric)
    other = problem()
    identity = other.identity.model_copy(update={"variables": ("v",)})
    with pytest.raises(ModelError, match="variables"):
        begin_from(replace(other, identity=identity), parent, fabric)
