"""Checkpoints: bitwise the same forecasts, no code in them, and damage is named."""

from __future__ import annotations

import resource
import signal

import numpy as np
import pytest
import torch
from synthetic import batch_of, config, prepared, shake, tiny

from aqnet.errors import StorageFullError
from aqnet.model.attention import ModelError
from aqnet.model.forecaster import Forecaster
from aqnet.training.checkpoint import (
    CHECKPOINT_VERSION,
    load_checkpoint,
    save_checkpoint,
    set_share,
)


@pytest.fixture
def model() -> Forecaster:
    """A model with random weights."""
    fields, ready = tiny()[0], prepared()
    made = Forecaster(config(), fields.normaliser, fields.static, ready.model.start_weights.numpy())
    made.set_linear_part(ready.model.linear.numpy())
    return shake(made).eval()


def save(path, model, **changes):
    fields, ready = tiny()[0], prepared()
    parts = {
        "normaliser": fields.normaliser, "statistical": ready.statistical, "chosen": ready.chosen,
        "static": fields.static, "store_sha256": fields.digest,
        "residual_variance": ready.residual_variance, **changes}
    save_checkpoint(path, model, **parts)


@pytest.fixture
def path(tmp_path, model):
    """A written checkpoint."""
    save(tmp_path / "best.ckpt", model)
    return tmp_path / "best.ckpt"


def test_forecasts_are_bitwise_the_same(path, model):
    loaded, batch = load_checkpoint(path), batch_of("test")
    assert not loaded.model.training
    with torch.no_grad():
        assert torch.equal(loaded.model(batch), model(batch))


def test_what_gives_the_weights_their_meaning_comes_back(path, model):
    loaded, fields, ready = load_checkpoint(path), tiny()[0], prepared()
    assert loaded.model.config == model.config
    assert loaded.normaliser.digest == fields.normaliser.digest
    assert loaded.model.normaliser_digest == fields.normaliser.digest
    np.testing.assert_array_equal(loaded.chosen, ready.chosen)
    assert loaded.statistical.lead_times_h == ready.statistical.lead_times_h
    np.testing.assert_array_equal(loaded.statistical.weights, ready.statistical.weights)
    assert loaded.store_sha256 == fields.digest


def test_it_holds_tensors_and_plain_values_only(path):
    content = torch.load(path, weights_only=True)
    assert content["version"] == CHECKPOINT_VERSION


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none.ckpt does not exist(.|\n)*remedy:.*train"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_file_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"best\.ckpt cannot be read"):
        load_checkpoint(path)


def test_a_flipped_bit_is_named(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"best\.ckpt cannot be read(.|\n)*a wrong checksum"):
        load_checkpoint(path)


def test_text_is_no_checkpoint(path):
    path.write_text("hello\n" * 100)
    with pytest.raises(ModelError, match=r"best\.ckpt cannot be read"):
        load_checkpoint(path)


class Payload:
    """Code that a pickle would run."""

    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


def test_code_in_a_checkpoint_is_not_run(path, capsys):
    torch.save({"version": Payload()}, path)
    with pytest.raises(ModelError, match=r"cannot be read(.|\n)*UnpicklingError"):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


def change(path, **values):
    content = torch.load(path, weights_only=True)
    content.update(values)
    torch.save(content, path)
    return content


def test_another_version_is_named(path):
    change(path, version=CHECKPOINT_VERSION + 1)
    with pytest.raises(ModelError, match=rf"another version\n  expected: {CHECKPOINT_VERSION}"):
        load_checkpoint(path)


def test_another_layout_is_named(path):
    change(path, more=1)
    with pytest.raises(ModelError, match="another layout"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match=r"another layout(.|\n)*found:    list"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("spread", 1.001), ("coefficients", 1.001), ("mean", 1.001), ("static_mean", 1.001),
     ("utc_offset_h", 1.001), ("annual", 2), ("spread", -1)],
)
def test_a_changed_normaliser_is_named(path, name, factor):
    arrays = torch.load(path, weights_only=True)["normaliser"]
    arrays[name] = arrays[name] * factor
    change(path, normaliser=arrays)
    with pytest.raises(ModelError, match="the normaliser is damaged"):
        load_checkpoint(path)


def test_weights_of_another_architecture_are_named(path):
    state = torch.load(path, weights_only=True)["state"]
    del state["decode.out.bias"]
    change(path, state=state)
    with pytest.raises(ModelError, match=r"weights do not fit(.|\n)*decode.out.bias"):
        load_checkpoint(path)


def test_a_configuration_that_is_not_one_is_named(path):
    change(path, config='{"width": 16, "wings": 2}')
    with pytest.raises(ModelError, match=r"configuration(.|\n)*wings"):
        load_checkpoint(path)


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_full_disk_leaves_the_old_file(path, model, limit):
    before = path.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead of a signal
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageFullError):
            save(path, shake(model))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_the_correction_is_stored(path, model, share):
    set_share(path, share)
    loaded, batch = load_checkpoint(path), batch_of("test")
    with torch.no_grad():
        change = share * model.scale(batch) * model.correction(batch)
        expected = (model.start(batch) + change).clamp_min(0)
        assert torch.equal(loaded.model(batch), expected)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(path, share):
    before = path.read_bytes()
    with pytest.raises(ModelError, match="from 0 to 1"):
        set_share(path, share)
    assert path.read_bytes() == before
