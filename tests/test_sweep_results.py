"""What came out of a sweep: metrics, differences of pairs, figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sweep_case import begin

from aqnet.errors import ParameterError
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.definition import parse_metric
from aqnet.jobs.sweeps.figures import draw_curves, draw_differences, draw_metric
from aqnet.jobs.sweeps.results import collect, learning_curves, paired_differences


def made_up(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["arm", "setting", "seed", "loss"])
    labels = table["arm"] + ", " + table["setting"]
    return table.assign(label=labels, status="complete").convert_dtypes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6, unique=True))
def test_differences_are_those_of_pairs(differences):
    rows = [("base", "w=1", seed, float(seed)) for seed in range(9)]  # two seeds have no partner
    rows += [("arm", "w=1", seed, seed + d) for seed, d in enumerate(differences)]
    found = paired_differences(made_up(rows), "loss", "base").iloc[0]
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found["pairs"], found["unpaired"]) == (len(differences), 0)
    np.testing.assert_allclose(
        [found["mean_difference"], found["low"], found["high"]],
        [np.mean(differences), *wanted], rtol=1e-6, atol=1e-9,
    )  # fmt: skip


def test_pairs_share_seed_and_setting():
    rows = [("base", "w=1", 0, 1.0), ("base", "w=2", 0, 5.0), ("arm", "w=1", 0, 1.5),
            ("arm", "w=2", 0, 5.5), ("arm", "w=2", 7, 9.0)]  # fmt: skip
    table = made_up(rows)
    by_arm = paired_differences(table, "loss", "base").set_index("label")
    assert by_arm["mean_difference"].to_dict() == {"arm, w=1": 0.5, "arm, w=2": 0.5}
    assert by_arm["unpaired"].to_dict() == {"arm, w=1": 0, "arm, w=2": 1}
    assert by_arm["low"].isna().all()  # one pair has no interval
    by_label = paired_differences(table, "loss", "base, w=1").set_index("label")
    assert by_label.loc["arm, w=2", "mean_difference"] == 4.5
    table.loc[table["label"] == "arm, w=1", "status"] = "failed"
    assert "arm, w=1" not in set(paired_differences(table, "loss", "base")["label"])
    for metric, baseline in (("loss", "bass"), ("lost", "base")):
        with pytest.raises(ParameterError, match=r"there is no"):
            paired_differences(table, metric, baseline)


def test_a_value_may_be_called_as_a_function_is():
    assert parse_metric("min") == ("run", "", ("min",))


@pytest.mark.parametrize("text", ["", "a b", "mean x", "x.", "evaluation: x"])
def test_not_a_metric(text):
    with pytest.raises(ParameterError, match="not a metric"):
        parse_metric(text)


def test_figures_show_every_point_once(toy):
    sweep = begin(toy, grid={"width": [2, 4, 32]}, list=[
        {"label": "plain", "parameters": {"mode": "a"}},
        {"label": "other", "parameters": {"mode": "b"}}], seeds=2)  # fmt: skip
    for point in sweep.points:
        run = RunFolder.create(toy / "toy.ipynb", point.values, path=sweep.runs / point.run)
        loss = point.values["width"] + point.seed
        run.write_metrics({"curve": {"step": [0, 2], "train": [None, 1], "validation": [9, loss]}})
        run.set_status("complete")
    states = sweep.states({})
    table = collect(sweep, states).table
    figure = draw_metric(table, "loss", sweep.stored.definition.varied)
    assert [axes.get_xlabel() for axes in figure.axes] == ["arm", "width"]
    for axes in figure.axes:
        drawn = [v for line in axes.lines[:2] for v in line.get_ydata()]
        assert sorted(drawn) == sorted(table["loss"])
    curves = learning_curves(states)
    assert len(draw_curves(curves).axes[0].lines) == 12 and curves["step"].max() == 2
    differences = paired_differences(table, "loss", "plain")
    assert (differences["pairs"] == 2).all()
    assert "same seed" in draw_differences(differences, "loss", "plain").axes[0].get_xlabel()
