"""The loss on a fixed set: that of the training, in its units and in the original constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_forecast_plan import checkpoint
from test_problem import fields_problem, recorded, splits, tiny_manifest  # noqa: F401

from aqnet.data.manifest import load_manifest
from aqnet.errors import ParameterError
from aqnet.training.checkpoint import load_checkpoint
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.contrasts.fixed_set import (
    MODEL,
    ORIGINAL_UG_M3,
    PERSISTENCE,
    judge_fixed_set,
    normalised_loss,
)
from aqnet.verification.forecast_fields import plan_fields
from aqnet.verification.forecast_plan import Period

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def judged(recorded, tmp_path_factory):  # noqa: F811
    path, folder = recorded
    problem = fields_problem(recorded, persistence=True)
    loaded = load_checkpoint(checkpoint(problem, tmp_path_factory.mktemp("c") / "m.ckpt"))
    manifest, options = load_manifest(path), {"folder": folder}
    board = judge_fixed_set(loaded, manifest, every_h=6, split="test", echo=str, **options)
    plan = plan_fields(loaded, manifest, Period(split="test", every_h=6), name="m", **options)
    return problem, loaded, board, plan


def test_its_loss_is_that_of_all_its_pairs(judged):
    problem, loaded, board, plan = judged
    years = problem.data.years
    leads = np.array(board.design.lead_times_h).astype("timedelta64[h]")
    truth = years.read(np.searchsorted(years.times, (board.times[:, None] + leads).ravel()))
    truth = truth[:, [DYNAMIC.index(name) for name in TARGETS]][..., years.mask].astype(float)
    truth = truth.reshape(len(board.times), len(leads), len(TARGETS), -1)
    batches = [board.times[i : i + 8] for i in range(0, len(board.times), 8)]
    forecast = np.concatenate([plan.forecast(times)[..., plan.mask] for times in batches])
    spread = loaded.model.prepare.target_spread[:, 0].double().numpy()
    square = np.square((forecast - truth) / spread[:, None])
    expected = np.nanmean(square, axis=(0, 3)).mean()
    units = dict(zip(TARGETS, spread, strict=True))
    assert normalised_loss(board, MODEL, units) == pytest.approx(expected, rel=1e-6)
    still = normalised_loss(board, PERSISTENCE, units)
    assert still != pytest.approx(expected, rel=1e-3)


def test_every_cell_has_the_same_weight(judged):
    _, loaded, board, _ = judged
    cells = int(loaded.model.domain.mask.sum())
    assert board.weight[..., 0].max() == cells and board.design.weight == "1 a cell"
    assert board.design.forecasts == (MODEL, PERSISTENCE)


def test_other_units_weigh_pollutants_differently(judged):
    _, _, board, _ = judged
    ones = dict.fromkeys(TARGETS, 1.0)
    whole = normalised_loss(board, MODEL, ones)
    assert normalised_loss(board, MODEL, dict.fromkeys(TARGETS, 2.0)) == pytest.approx(whole / 4)
    assert normalised_loss(board, MODEL, ORIGINAL_UG_M3) != pytest.approx(whole, rel=1e-3)
    assert set(ORIGINAL_UG_M3) == set(TARGETS)


def test_an_interval_that_does_not_divide_a_day_is_refused(judged, recorded):  # noqa: F811
    with pytest.raises(ParameterError, match="divides 24 h"):
        judge_fixed_set(judged[1], load_manifest(recorded[0]), recorded[1], every_h=7)
