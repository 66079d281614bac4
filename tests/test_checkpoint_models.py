"""Checkpoints of forecasters: bitwise the same forecasts, and weights that do not fit."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_models import (
    CASES,
    LEADS,
    bitwise,
    grid_model,
    identity_of,
    of_model,
    station_batch,
    station_model,
)
from checkpoints import OTHER, identity, made_up, same_tree, training_state, written

from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import (
    build_model,
    load_checkpoint,
    read_checkpoint,
    set_share,
    write_checkpoint,
)
from aqnet.variables import DYNAMIC, STATIC


@pytest.fixture
def path(tmp_path):
    """A written checkpoint with a training state."""
    return written(tmp_path / "last.ckpt")


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A model, a batch and its forecast [ug/m3]."""
    make_model, make_batch = CASES[request.param]
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        forecast = model(batch)
    assert forecast.isfinite().any() and forecast.nan_to_num().std() > 1
    return model, batch, forecast


def test_forecasts_are_bitwise_the_same(case, tmp_path):
    model, batch, forecast = case
    write_checkpoint(tmp_path / "best.ckpt", of_model(model))
    loaded = load_checkpoint(tmp_path / "best.ckpt")
    assert not loaded.model.training and type(loaded.model) is type(model)
    with torch.no_grad():
        assert bitwise(loaded.model(batch), forecast)
    assert loaded.normaliser.digest == model.normaliser.digest
    assert loaded.model.config == model.config


def test_what_gives_a_station_forecaster_its_meaning_comes_back(tmp_path):
    wanted = of_model(station_model())
    write_checkpoint(tmp_path / "best.ckpt", wanted)
    loaded = load_checkpoint(tmp_path / "best.ckpt")
    assert loaded.statistical.lead_times_h == LEADS
    np.testing.assert_array_equal(loaded.statistical.weights, wanted.extra["statistical"])
    assert loaded.statistical.weights.dtype == np.float64
    assert loaded.chosen.shape == (len(LEADS), 6) and loaded.chosen[0, 0] == "climatology"
    one = replace(wanted, identity=identity(**identity_of(loaded.model), stores=(("b", OTHER),)))
    write_checkpoint(tmp_path / "best.ckpt", one)
    assert load_checkpoint(tmp_path / "best.ckpt").store_sha256 == OTHER


def test_a_station_checkpoint_without_its_statistical_forecasts_is_named(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", of_model(station_model(), extra={"chosen": []}))
    with pytest.raises(ModelError, match=r"statistical(.|\n)*remedy"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("network.decode.out.bias"), r"1 names differ(.|\n)*decode\.out\.bias"),
        (lambda s: s.update({"more.weight": torch.ones(1)}), r"more\.weight(.|\n)*nothing"),
        (lambda s: s.update({"network.tokens.query": torch.ones(17)}), r"query.*17"),
        (lambda s: s.update({"network.tokens.query": torch.ones(16).double()}), "float64"),
        (lambda s: [s.update({f"model.{k}": s.pop(k)}) for k in list(s)], "model.network"),
    ],
)
def test_weights_that_do_not_fit_exactly_are_refused(change, words):
    model = grid_model()
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(ModelError, match=f"do not fit the configuration(.|\n)*{words}"):
        build_model(of_model(model, state=state))


def test_another_configuration_than_that_of_the_weights_is_refused():
    model = grid_model()
    deeper = model.config.model_copy(update={"depth": 3})
    with pytest.raises(ModelError, match=r"do not fit(.|\n)*blocks\.2"):
        build_model(of_model(model, config=deeper))


def test_missing_arrays_are_named():
    model = grid_model()
    arrays = model.arrays()
    del arrays["domain.ridge.left"]
    with pytest.raises(ModelError, match="ridge"):
        build_model(of_model(model, arrays=arrays))


def test_an_unknown_kind_is_named():
    with pytest.raises(ModelError, match=r"unknown kind(.|\n)*stations or grid"):
        build_model(made_up(kind="ocean"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("domain.lat", "ridges of all patches of the grid"),
        ("domain.ridge.left", r"does not hold what(.|\n)*terrain"),
        ("normaliser.spread", r"does not hold what(.|\n)*normalisation values"),
    ],
)
def test_arrays_other_than_those_of_the_training_are_refused(tmp_path, name, words):
    """The statistics of a run were the undocumented cause of the reference's failed restarts."""
    model = grid_model()
    arrays = model.arrays()
    arrays[name] = arrays[name] * np.array(1.000001, arrays[name].dtype)
    write_checkpoint(tmp_path / "a.ckpt", of_model(model, arrays=arrays))
    with pytest.raises(ModelError, match=words):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("make_model", [grid_model, station_model])
@pytest.mark.parametrize(
    ("field", "names", "words"),
    [
        ("variables", (*DYNAMIC[:2], DYNAMIC[3], DYNAMIC[2], *DYNAMIC[4:]), "another order"),
        ("variables", DYNAMIC[:-1], f"with {DYNAMIC[-1]}"),
        ("static_variables", STATIC[::-1], "static variables"),
    ],
)
def test_other_variables_than_those_of_the_training_are_refused(
    tmp_path, make_model, field, names, words
):
    model = make_model()
    facts = identity(**identity_of(model) | {field: names})
    write_checkpoint(tmp_path / "a.ckpt", of_model(model, identity=facts))
    with pytest.raises(ModelError, match=rf"does not hold what(.|\n)*{words}"):
        load_checkpoint(tmp_path / "a.ckpt")


# ---- share of the correction


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_the_correction_is_stored(tmp_path, share):
    model, batch, path = station_model(), station_batch(), tmp_path / "best.ckpt"
    write_checkpoint(path, of_model(model, training=training_state()))
    set_share(path, share)
    loaded = load_checkpoint(path)
    assert same_tree(read_checkpoint(path, training=True).training, training_state())
    with torch.no_grad():
        change = share * model.scale(batch) * model.correction(batch)
        assert torch.equal(loaded.model(batch), (model.start(batch) + change).clamp_min(0))


def test_the_linked_checkpoint_stays_as_it_was_judged(tmp_path):
    judged, best = tmp_path / "best-val_loss_0.5.ckpt", tmp_path / "best.ckpt"
    write_checkpoint(judged, of_model(station_model()))
    os.link(judged, best)
    before = judged.read_bytes()
    set_share(best, 0.25)
    assert judged.read_bytes() == before != best.read_bytes() and not best.samefile(judged)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(path, share):
    before = path.read_bytes()
    with pytest.raises(ModelError, match="from 0 to 1"):
        set_share(path, share)
    assert path.read_bytes() == before


def test_a_forecaster_of_fields_has_no_share(path):
    with pytest.raises(ModelError, match=r"no share(.|\n)*grid"):
        set_share(path, 0.5)
