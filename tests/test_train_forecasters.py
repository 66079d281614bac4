"""The training engine with the real forecasters of both kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import QUICK, config
from test_problem import SMALL, fields_problem, recorded, tiny_manifest  # noqa: F401

from aqnet.training.checkpoint import load_checkpoint, read_checkpoint
from aqnet.training.learner import Learner
from aqnet.training.loop import train
from aqnet.training.processes import open_fabric
from aqnet.training.station_problem import station_problem


def settings(**changes):
    """Four steps of four samples."""
    values = {"batch_size": 2, "effective_batch": 4, "max_epochs": 1, "max_train_samples": 16,
              "warmup_steps": 0, "validate_every": 2, "log_every": 1, "workers": 0}  # fmt: skip
    return QUICK.model_copy(update=values | changes)


class StopError(Exception):
    """Ends a run in the middle."""


def train_in_two_parts(make, options, folder):
    """Train whole, and ended after the second step and resumed; digests of both, and the model."""
    train(make(), options, folder / "whole", echo=lambda line: None)

    def until_third(line):
        if line.startswith("step=3 "):
            raise StopError

    last = folder / "parts" / "last.ckpt"
    with pytest.raises(StopError):
        train(make(), options, last.parent, echo=until_third)
    assert read_checkpoint(last).progress.step == 2
    ready = make()
    train(ready, options, last.parent, last, lambda line: None)
    digests = [read_checkpoint(folder / name / "last.ckpt", training=True).training_sha256
               for name in ("whole", "parts")]  # fmt: skip
    return digests, ready.model


def test_stations(tiny_manifest, tmp_path):  # noqa: F811
    def make():
        model = config(dropout=0.2, input_noise=0.5)
        return station_problem(tiny_manifest, model, QUICK, store="memory")

    options = settings(batch_size=64, effective_batch=128, max_train_samples=512)
    digests, model = train_in_two_parts(make, options, tmp_path)
    assert digests[0] == digests[1]
    loaded = load_checkpoint(tmp_path / "parts" / "best.ckpt")
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("workers", [0, 1])
def test_fields(recorded, tmp_path, workers):  # noqa: F811
    changes = {"depth": 2, "dropout": 0.1, "drop_path": 0.1}
    changes["lead_mode"] = "one" if workers else "all"
    options = settings(workers=workers)
    digests, _ = train_in_two_parts(lambda: fields_problem(recorded, **changes), options, tmp_path)
    assert digests[0] == digests[1]
    curve = read_checkpoint(tmp_path / "whole" / "last.ckpt", True).training["state"]["curve"]
    assert np.isfinite(curve["rmse"]).all() and curve["step"] == [0, 2, 4]


def test_every_parameter_of_a_forecaster_has_a_gradient(recorded, tiny_manifest):  # noqa: F811
    """DDP waits for all of them."""
    problems = [
        fields_problem(recorded, lead_mode=mode, physics={}, decoder_depth=1, position="learned")
        for mode in ("all", "one")
    ]
    problems.append(station_problem(tiny_manifest, config(), QUICK, store="memory"))
    for ready in problems:
        fabric = open_fabric(settings())
        learner = Learner(ready, settings(), fabric)
        learner.objective(ready.train.__getitems__([0, 1]))["total"].backward()
        without = [n for n, p in ready.model.named_parameters() if p.grad is None]
        assert without == []
