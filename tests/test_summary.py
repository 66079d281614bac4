"""What the report of an evaluation is put together from."""

from __future__ import annotations

import numpy as np
import pytest

from aqnet.verification.summary import share_note, training_curve

TRIALS = [
    {"share": 0.5, "won": 7, "lost": 0, "rmse_ratio": 0.98},
    {"share": 1.0, "won": 4, "lost": 0, "rmse_ratio": 0.97},
]


def test_share_note_says_what_was_chosen_and_what_it_costs():
    note = share_note(0.5, TRIALS)
    assert "applies 50%" in note
    assert "2.0 % below" in note and "won 7 cells" in note
    assert "share 100% had 3.0 % and won 4" in note


def test_share_note_of_a_share_that_was_told():
    assert share_note(0.25, TRIALS).endswith("as its training run was told.")


def test_training_curve_keeps_the_unmeasured_loss_as_nan():
    curve = training_curve(
        {"epoch": [0, 1], "train": [None, 0.9], "validation": [1.2, 1.1], "best_epoch": 1}
    )
    assert np.isnan(curve.train_loss[0]) and curve.train_loss[1] == pytest.approx(0.9)
    assert curve.best_epoch == 1 and list(curve.epochs) == [0, 1]


def test_share_note_says_where_the_rule_comes_from():
    note = share_note(0.5, TRIALS)
    assert "adopted after a first evaluation" in note and "full correction" in note
