"""Content of a checkpoint: what comes back, its digest, and what cannot be stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import identity, made_up, same_tree, training_state, weights, written

from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import (
    CHECKPOINT_VERSION,
    Checkpoint,
    Progress,
    read_checkpoint,
    write_checkpoint,
)


@pytest.fixture
def path(tmp_path):
    """A written checkpoint with a training state."""
    return written(tmp_path / "last.ckpt")


# ---- what comes back


def test_everything_comes_back(path):
    facts = {"parent": "9" * 64, "notes": ("imported", "twice"), "trained_with": {"loss": "mse"}}
    wanted = made_up(training=training_state(), **facts)
    digest = write_checkpoint(path, wanted)
    found = read_checkpoint(path, training=True)
    for name in ("kind", "config", "identity", "progress", "code", *facts):
        assert getattr(found, name) == getattr(wanted, name)
    for name in ("state", "arrays", "extra", "training"):
        assert same_tree(getattr(found, name), getattr(wanted, name)), name
    assert found.sha256 == digest and len(found.training_sha256) == 64


def test_code_of_this_process_is_recorded():
    made = made_up()
    found = Checkpoint(made.kind, made.config, {}, {}, None).code
    assert found.torch == torch.__version__ and found.git.state


def test_the_training_state_is_read_only_when_asked_for(path):
    assert read_checkpoint(path).training is None
    assert read_checkpoint(path).sha256 == read_checkpoint(path, training=True).sha256
    write_checkpoint(path, made_up())
    assert read_checkpoint(path, training=True).training is None
    assert read_checkpoint(path).training_sha256 is None


def test_what_was_read_does_not_hang_on_the_file(path):
    found = read_checkpoint(path, training=True)
    with path.open("r+b") as stream:  # as a copy over it would do; a mapping would change
        stream.write(bytes(path.stat().st_size))
    assert same_tree(found.state, weights()) and same_tree(found.training, training_state())


def test_any_machine_can_read_it_with_torch_alone(path):
    content = torch.load(path, weights_only=True)
    assert content["version"] == CHECKPOINT_VERSION
    assert same_tree(content["forecaster"]["state"], weights())


# ---- digest


def test_the_digest_is_of_the_content_not_of_the_file(tmp_path):
    state = weights()
    order = dict(reversed(state.items()))
    digests = {
        write_checkpoint(tmp_path / name, made_up(state=each, training=training))
        for name, each, training in (
            ("a.ckpt", state, None), ("b.ckpt", order, None), ("c.ckpt", state, training_state()),
        )
    }  # fmt: skip
    assert len(digests) == 1
    # a file rewritten by another program, other bytes
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(dict(reversed(content.items())), tmp_path / "d.ckpt")
    assert (tmp_path / "d.ckpt").read_bytes() != (tmp_path / "a.ckpt").read_bytes()
    assert read_checkpoint(tmp_path / "d.ckpt").sha256 in digests


def changed(**state) -> Checkpoint:
    return made_up(state=weights() | state)


@pytest.mark.parametrize(
    "other",
    [
        changed(count=torch.tensor(4)),
        changed(count=torch.tensor(3, dtype=torch.int32)),
        changed(count=torch.tensor([3])),
        changed(more=torch.zeros(1)),
        made_up(arrays={}),
        made_up(identity=identity(grid="other")),
        made_up(progress=Progress(step=87)),
        made_up(parent="0" * 64),
        made_up(extra={"chosen": [["climatology"]]}),
        made_up(notes=("a",)),
    ],
)
def test_any_change_of_content_changes_the_digest(tmp_path, other):
    path = tmp_path / "a.ckpt"
    assert write_checkpoint(path, made_up()) != write_checkpoint(path, other)


def test_a_training_state_of_other_weights_is_named(path, tmp_path):
    write_checkpoint(tmp_path / "other.ckpt", made_up(state=weights(1), training=training_state()))
    ours, other = (torch.load(p, weights_only=True) for p in (path, tmp_path / "other.ckpt"))
    assert ours["digests"]["training"] != other["digests"]["training"]
    ours["training"]["step"] = 6
    torch.save(ours, path)
    assert read_checkpoint(path).training is None
    with pytest.raises(ModelError, match=r"last\.ckpt is damaged \(training\)"):
        read_checkpoint(path, training=True)


# ---- what cannot be stored


@pytest.mark.parametrize(
    ("training", "where"),
    [
        ({"curve": [1.0, np.float64(2)]}, r"training\.curve\[1\]"),
        ({"best": {"at": np.int64(2)}}, r"training\.best\.at"),
        ({"when": (1, object())}, r"training\.when\[1\]"),
        ({1.5: 2}, r"a key of training"),
        ({"names": np.array(["a"])}, r"training\.names"),
        ({"sparse": torch.eye(3).to_sparse()}, r"training\.sparse"),
        ({"function": print}, r"training\.function"),
    ],
)
def test_a_value_that_only_code_could_read_is_refused_when_written(path, training, where):
    before = path.read_bytes()
    with pytest.raises(ModelError, match=rf"{where} cannot be stored(.|\n)*remedy"):
        write_checkpoint(path, made_up(training=training))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["module.blocks.0.w", "_orig_mod.w", "network._orig_mod.w"])
def test_weights_of_a_wrapper_are_refused(tmp_path, name):
    with pytest.raises(ModelError, match=rf"wrapper(.|\n)*{name}(.|\n)*unwrapped"):
        write_checkpoint(tmp_path / "a.ckpt", changed(**{name: torch.ones(1)}))


def test_a_validation_loss_that_is_no_number_cannot_become_a_checkpoint():
    with pytest.raises(ValueError, match="val_loss"):
        Progress(val_loss=float("nan"))


def test_a_view_does_not_take_its_whole_storage_along(tmp_path):
    whole = torch.randn(1000, 1000)
    views = {"row": whole[3], "column": whole[:, 3], "half": whole.T[:, :2]}
    write_checkpoint(tmp_path / "a.ckpt", made_up(state=views))
    assert (tmp_path / "a.ckpt").stat().st_size < 60_000
    assert same_tree(read_checkpoint(tmp_path / "a.ckpt").state, views)


def test_weights_that_share_memory_are_apart_after_reading(tmp_path):
    shared = torch.ones(5)
    write_checkpoint(tmp_path / "a.ckpt", made_up(state={"a": shared, "b": shared}))
    state = read_checkpoint(tmp_path / "a.ckpt").state
    state["a"].zero_()
    assert state["b"].eq(1).all()
