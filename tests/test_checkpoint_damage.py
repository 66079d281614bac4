"""Checkpoints that are damaged, of another version or something else; and a disk that is full."""

from __future__ import annotations

import os
import random
import resource
import signal

import pytest
import torch
from checkpoints import identity, made_up, same_tree, training_state, weights, written
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.errors import StorageFullError
from aqnet.model.attention import ModelError
from aqnet.training import checkpoint_archive
from aqnet.training.checkpoint import (
    CHECKPOINT_VERSION,
    load_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


@pytest.fixture
def path(tmp_path):
    """A written checkpoint with a training state."""
    return written(tmp_path / "last.ckpt")


# ---- damage


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none.ckpt does not exist(.|\n)*remedy:.*train"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"last\.ckpt cannot be read"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damage_is_named_or_touches_nothing(tmp_path_factory, seed):
    rng, path = random.Random(seed), tmp_path_factory.getbasetemp() / "damaged.ckpt"
    if not path.exists():
        path.with_suffix(".good").parent.mkdir(exist_ok=True)
        write_checkpoint(path.with_suffix(".good"), made_up(training=training_state()))
    content = bytearray(path.with_suffix(".good").read_bytes())
    start, length = rng.randrange(len(content)), rng.choice([1, 1, 1, 8, 300])
    content[start : start + length] = rng.randbytes(length)
    path.write_bytes(content)
    try:
        found = read_checkpoint(path, training=True)
    except ModelError as error:
        assert "damaged.ckpt" in str(error) and "remedy" in str(error)
    else:  # padding between tensors, attributes of the archive
        assert same_tree(found.state, weights())
        assert same_tree(found.training, training_state())
        assert found.identity == identity()


def test_a_flipped_bit_of_a_weight_is_named(path):
    content = path.read_bytes()
    at = content.index(weights()["network.tokens.weight"].numpy().tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ModelError, match=r"last\.ckpt is damaged \(forecaster\)"):
        read_checkpoint(path)


class Payload:
    """Code that a pickle would run."""

    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


def test_code_in_a_checkpoint_is_not_run(path, capsys):
    torch.save({"version": Payload()}, path)
    with pytest.raises(ModelError, match=r"cannot be read(.|\n)*UnpicklingError"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""


# ---- other files


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_says_what_to_do(path, version):
    torch.save({"version": version, "config": "{}", "state": {}, "normaliser": {}}, path)
    with pytest.raises(ModelError, match=rf"is of version {version}(.|\n)*train again.*commit"):
        load_checkpoint(path)


def test_a_later_version_is_named(path):
    torch.save({"version": CHECKPOINT_VERSION + 1}, path)
    with pytest.raises(ModelError, match=r"later aqnet(.|\n)*remedy:.*later one"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"state_dict": {}, "epoch": 3}, {"version": torch.ones(2)}, torch.ones(2)],
)
def test_a_file_of_something_else_is_named(path, content):
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"no checkpoint of aqnet(.|\n)*checkpoint import"):
        read_checkpoint(path)


def test_a_state_dict_of_another_model_is_not_listed_in_full(path):
    torch.save({f"blocks.{i}": torch.ones(1) for i in range(92)}, path)
    with pytest.raises(ModelError, match=r"found:    92 entries: (\S+ ){10}\.\.\.\n"):
        read_checkpoint(path)


def test_text_is_no_checkpoint(path):
    path.write_text("hello\n" * 100)
    with pytest.raises(ModelError, match=r"last\.ckpt cannot be read"):
        read_checkpoint(path)


def test_a_configuration_of_a_later_aqnet_is_named(path):
    content = torch.load(path, weights_only=True)
    part = content["forecaster"]
    part["header"] = part["header"].replace('"width":16', '"width":16,"wings":2')
    torch.save(content | {"digests": checkpoint_archive._digests(part, content["training"])}, path)
    with pytest.raises(ModelError, match=r"description(.|\n)*config\.wings"):
        read_checkpoint(path)


# ---- atomic


@pytest.mark.parametrize("limit", [0, 4096, 2_000_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, limit):
    path, state = tmp_path / "last.ckpt", {f"w{i}": torch.ones(250_000) for i in range(3)}
    write_checkpoint(path, made_up(state=state))
    before = path.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead of a signal
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageFullError):
            write_checkpoint(path, made_up(state=state))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_too_little_room_is_refused_before_writing(path, monkeypatch):
    usage = type("usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("written all the same"))
    with pytest.raises(StorageFullError, match="not enough room"):
        write_checkpoint(path, made_up())


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    events, fsync, replace_ = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (events.append("fsync"), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("rename"), replace_(*a))[1])
    monkeypatch.setattr(os, "rename", lambda *a: pytest.fail("not atomic over an old file"))
    write_checkpoint(tmp_path / "a.ckpt", made_up())
    assert events == ["fsync", "rename", "fsync"]
