"""The verdict on a pair of arms: what is better, by how much, and against a published loss."""

from __future__ import annotations

import numpy as np
import pytest
from contrast_case import made_up_runs

from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.runs import Label, read_evaluations
from aqnet.verification.contrasts.verdict import draw_verdict, verdict

ARMS = ("wind-and-terrain", "row-major")


def judged(root, levels: tuple[float, float], seeds: int = 3, **options):
    """Verdict on made-up runs whose losses are about these."""
    pairs = {(arm, "caqra"): level for arm, level in zip(ARMS, levels, strict=True)}
    found = read_evaluations(made_up_runs(root, pairs, seeds))
    return found, verdict(found, *ARMS, **{"target": 0.26, "replicates": 500} | options)


@pytest.mark.parametrize(
    ("level", "outcome", "said"),
    [
        (0.08, "gain", "wind-and-terrain beats row-major: its loss is lower by"),
        (0.12, "loss", "row-major beats wind-and-terrain, whose loss is higher by"),
        (0.1, "undecided", "no difference between wind-and-terrain and row-major is shown"),
    ],
)
def test_the_sentence_says_who_is_better(tmp_path, level, outcome, said):
    _, found = judged(tmp_path, (level, 0.1))
    assert set(found.gains["outcome"]) == {outcome} and found.sentence.startswith(said)
    assert found.sentence.count("\n") == 0 and "3 paired seeds" in found.sentence


def test_no_difference_may_be_the_verdict(tmp_path):
    _, found = judged(tmp_path, (0.1, 0.1), margin=0.5)
    assert found.sentence.startswith("no difference between wind-and-terrain and row-major beyond")


def test_losses_are_those_of_the_runs_in_both_units(tmp_path):
    evaluations, found = judged(tmp_path, (0.08, 0.1))
    assert list(found.losses["arm"]) == ["row-major", "wind-and-terrain"]
    for row in found.losses.itertuples():
        own = [evaluations.metrics[Label(row.arm, "caqra", seed)] for seed in range(3)]
        assert row.loss == pytest.approx(np.mean([m["loss"] for m in own]))
        original = np.mean([m["loss_original_constants"] for m in own])
        assert row.loss_original_constants == pytest.approx(original)
        assert row.low < original < row.high
    gains = found.gains.set_index("constants")
    first, second = found.losses["loss_original_constants"]
    assert gains.loc["original", "difference"] == pytest.approx(first - second)
    assert gains.loc["original", "gain"] == pytest.approx(1 - second / first)


@pytest.mark.parametrize(("target", "place"), [(9.0, "below 9.000"), (0.01, "above 0.010")])
def test_the_target_is_compared_with_the_interval(tmp_path, target, place):
    _, found = judged(tmp_path, (0.08, 0.1), target=target)
    assert place in found.sentence and found.sentence.endswith("another normaliser gave.")


def test_a_target_within_the_interval_is_neither_passed_nor_missed(tmp_path):
    evaluations, found = judged(tmp_path, (0.08, 0.1))
    loss = float(found.losses["loss_original_constants"].iloc[1])
    again = verdict(evaluations, *ARMS, target=loss, replicates=500)
    assert f"not clear of {loss:.3f}" in again.sentence


def test_an_unfair_pair_is_told(tmp_path):
    evaluations, found = judged(tmp_path, (0.1, 0.1), seeds=1)
    assert found.notes == ("one seed: the interval allows for other weather, not for other seeds",)
    metrics = evaluations.metrics[Label("row-major", "caqra", 0)]
    metrics |= {"parameters": 420_000, "optimiser_steps": 300}
    size, steps, _ = verdict(evaluations, *ARMS, target=0.26, replicates=500).notes
    assert "5.0 %" in size and "300, 400" in steps


def test_two_worlds_are_no_pair(tmp_path):
    runs = made_up_runs(tmp_path, {(arm, world): 0.1 for arm in ARMS for world in "ab"}, 1)
    with pytest.raises(VerificationError, match="one world"):
        verdict(read_evaluations(runs), *ARMS, target=0.26)


def test_the_figure_shows_each_run_and_the_target(tmp_path):
    evaluations, found = judged(tmp_path, (0.08, 0.1))
    runs, gains = draw_verdict(found).axes
    drawn = sorted(y for line in runs.lines[:3] for y in line.get_ydata())
    assert drawn == sorted(m["loss_original_constants"] for m in evaluations.metrics.values())
    assert 0.26 in [line.get_ydata()[0] for line in runs.lines]
    assert "row-major" in gains.get_xlabel() and len(gains.get_yticks()) == 2
