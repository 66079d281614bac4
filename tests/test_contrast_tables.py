"""Tables of gains, what they cost, and their pictures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from contrast_case import FEW, GROUPS, PLUME, WORLDS, three_arms

from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.cost import best_until, cost_table, curve_table
from aqnet.verification.contrasts.estimates import (
    Contrast,
    contrast_table,
    gain,
    null_verdict,
    paired,
)
from aqnet.verification.contrasts.figures import (
    draw_breakdown,
    draw_curves,
    draw_gains,
    draw_heat,
    draw_nulls,
    draw_trend,
)
from aqnet.verification.contrasts.intervals import within_worlds
from aqnet.verification.contrasts.runs import Cells, Label, read_evaluations
from aqnet.verification.contrasts.tables import (
    block_table,
    breakdown_table,
    loss_table,
    null_table,
    seasons_of,
    trend,
    world_table,
)
from aqnet.verification.significance import holm


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return three_arms(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(folders):
    return read_evaluations(folders)


# ---- tables


def test_holm_is_over_the_contrasts_that_are_not_main(runs):
    contrasts = [Contrast("plume", "distance decay", 0.05, True), PLUME,
                 Contrast("distance decay", "row-major")]  # fmt: skip
    table = contrast_table(runs, contrasts, list(WORLDS), **FEW)
    assert table["family"].tolist() == [1, 2, 2]
    assert table["p_holm"][0] == table["p"][0]
    assert table["p_holm"][1:].tolist() == holm(table["p"][1:].to_numpy()).tolist()
    first = table.iloc[0]
    assert first["reached"] == (first["gain"] >= 0.05)
    assert first["reached_surely"] == (first["p_at_least"] < 0.05)
    assert (table["clear_of_zero"] == ((table["low"] > 0) & (table["p_holm"] < 0.05))).all()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.015, "null"), (-0.01, 0.03, "undecided"), (-0.3, 0.001, "undecided"),
     (0.001, 0.01, "gain"), (-0.02, -0.01, "loss"), (0.0, 0.02, "null")],
)  # fmt: skip
def test_a_wide_interval_is_no_null(runs, low, high, verdict):
    found = gain(runs, PLUME, ["a"], **FEW)._replace(low=low, high=high)
    assert null_verdict(found, 0.02) == verdict


def test_breakdown_has_each_cell_once_and_agrees_with_gain(runs):
    table = breakdown_table(runs, [PLUME], ["a", "b"], ["lead_h", "pollutant"], **FEW)
    assert len(table) == 4
    row = table[(table["lead_h"] == 24) & (table["pollutant"] == "o3")].iloc[0]
    alone = gain(runs, PLUME, ["a", "b"], Cells(leads_h=(24,), pollutants=("o3",)), **FEW)
    assert (row["gain"], row["low"], row["p"]) == (alone.gain, alone.low, alone.p)
    assert table["p_holm"].tolist() == holm(table["p"].to_numpy()).tolist()
    # made up so: more at the longer lead time, more for particles
    by_gain = table.sort_values("gain")[["lead_h", "pollutant"]].to_numpy().tolist()
    assert by_gain[0] == [12, "o3"] and by_gain[-1] == [24, "pm25"]
    assert set(breakdown_table(runs, [PLUME], ["a"], ["group"], **FEW)["group"]) == set(GROUPS)


def test_seasons_without_enough_init_times_are_not_judged(runs):
    assert seasons_of(runs, ["a"], 168) == ("DJF", "MAM", "JJA", "SON")
    assert seasons_of(runs, ["a"], 24 * 30) == ()
    with pytest.raises(VerificationError, match="too few init times for blocks"):
        gain(runs, PLUME, ["a"], Cells(season="JJA"), block_h=24 * 30, **FEW)


def test_tables_by_world_by_block_and_of_losses(runs):
    each = world_table(runs, [PLUME], ["a", "b"], **FEW)
    assert each["gain"].tolist() == [gain(runs, PLUME, [w], **FEW).gain for w in "ab"]
    blocks = block_table(runs, [PLUME], ["a"], (168, 336), **FEW)
    assert blocks["block_h"].tolist() == [168, 336] and blocks["gain"].nunique() == 1
    losses = loss_table(runs, ["a"])
    assert len(losses) == 9 and losses["loss"].gt(0).all()
    nulls = null_table(runs, {"a": [PLUME]}, 0.02, **FEW)
    assert nulls["width"][0] == nulls["high"][0] - nulls["low"][0]
    assert nulls["verdict"][0] == "gain"


def test_trend_is_the_least_squares_slope(runs):
    strengths = {"a": 0.5, "b": 1.0, "c": 2.0}
    found = trend(runs, PLUME, strengths, **FEW)
    gains = [gain(runs, PLUME, [w], **FEW).gain for w in strengths]
    assert found.slope == pytest.approx(np.polyfit(list(strengths.values()), gains, 1)[0])
    assert found.low < found.slope < found.high
    assert found.rises == (gains[0] < gains[1] < gains[2])
    parts = [within_worlds(paired(runs, "plume", "row-major", [w]), 168).error for w in strengths]
    x = np.array(list(strengths.values()))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    error = np.sqrt(((weights * (1 - np.array(gains)) * parts) ** 2).sum())
    assert found.high - found.slope > 1.96 * error
    with pytest.raises(VerificationError, match="no trend"):
        trend(runs, PLUME, {"a": 1.0, "b": 1.0}, **FEW)


# ---- cost


def curves_of(runs, **losses):
    """Losses at steps 0, 200, 400 by arm."""
    return {x: {"step": [0, 200, 400], "validation": losses[x.arm]} for x in runs.squares
            if x.arm in losses}  # fmt: skip


def test_equal_wall_time_reads_the_slower_run_where_the_faster_one_ended(folders):
    some = {k: v for k, v in folders.items() if k.arm in ("plume", "row-major")}
    found = read_evaluations(some)  # plume: 130 s, row-major: 100 s
    curves = curve_table(found, curves_of(found, plume=[1.0, 0.4, 0.5],
                                          **{"row-major": [1.0, 0.6, 0.5]}))  # fmt: skip
    own = curves[(curves["arm"] == "plume") & (curves["world"] == "a") & (curves["seed"] == 0)]
    assert own["wall_s"].tolist() == [0, 65, 130] and own["best"].tolist() == [1.0, 0.4, 0.4]
    assert best_until(own, 32.5) == pytest.approx(0.7)  # linear up to the first validation
    row = cost_table(found, [PLUME], ["a", "b"], curves, **FEW).iloc[0]
    assert row["cost_ratio"] == pytest.approx(1.3)
    assert row["gain_at_equal_steps"] == pytest.approx(0.2)
    assert row["gain_at_equal_time"] == pytest.approx(0.2)  # the best was reached at 65 s
    assert row["gain_per_1000_s"] == pytest.approx(0.2 / 0.13)
    slow = curve_table(found, curves_of(found, plume=[1.0, 0.8, 0.4],
                                        **{"row-major": [1.0, 0.6, 0.5]}))  # fmt: skip
    row = cost_table(found, [PLUME], ["a"], slow, **FEW).iloc[0]
    assert row["gain_at_equal_time"] == pytest.approx(1 - 0.8 * 0.5 ** np.log2(100 / 65) / 0.5)


def test_between_validations_a_loss_falls_as_a_power_of_time():
    seconds = np.array([0.0, 50.0, 200.0, 800.0])
    curve = pd.DataFrame({"wall_s": seconds, "best": np.maximum(seconds, 10) ** -0.5})
    for wall_s in (50.0, 99.0, 400.0, 800.0):
        assert best_until(curve, wall_s) == pytest.approx(wall_s**-0.5)
    assert np.isnan(best_until(curve.assign(wall_s=np.nan), 50.0))
    perfect = curve.assign(best=[4.0, 2.0, 1.0, 0.0])  # has no logarithm: linear
    assert best_until(perfect, 500.0) == pytest.approx(0.5)


def test_a_run_that_does_not_say_its_seconds_has_no_cost(folders, tmp_path):
    some = {k: v for k, v in folders.items() if k.arm in ("plume", "row-major")}
    label = next(k for k in some if k.arm == "plume")
    killed = shutil.copytree(some[label], tmp_path / "killed")
    metrics = json.loads((killed / "metrics.json").read_text())
    (killed / "metrics.json").write_text(json.dumps(metrics | {"train_wall_s": None}))
    found = read_evaluations(some | {label: killed})
    curves = curve_table(found, curves_of(found, plume=[1.0, 0.4, 0.5],
                                          **{"row-major": [1.0, 0.6, 0.5]}))  # fmt: skip
    row = cost_table(found, [PLUME], ["a", "b"], curves, **FEW).iloc[0]
    unknown = ["train_wall_s", "cost_ratio", "gain_at_equal_time", "gain_per_1000_s"]
    assert row[unknown].isna().all() and np.isfinite(row["train_wall_s_of_reference"])
    assert row["gain_at_equal_steps"] == pytest.approx(0.2)


@pytest.mark.parametrize("curve", [None, {"step": [0, 200], "validation": [1.0]},
                                   {"step": [0, 200], "validation": [1.0, None]},
                                   {"step": [200, 0], "validation": [1.0, 1.0]}])  # fmt: skip
def test_a_run_without_a_learning_curve_is_named(runs, curve):
    curves = {label: {"step": [0, 1], "validation": [1.0, 0.5]} for label in runs.squares}
    curves[Label("plume", "b", 2)] = curve
    with pytest.raises(VerificationError, match="plume, b, seed 2 has no usable learning curve"):
        curve_table(runs, curves)


# ---- pictures


def test_pictures_have_a_mark_for_each_number(runs):
    contrasts = [PLUME._replace(at_least=0.1, main=True), Contrast("distance decay", "row-major")]
    table = contrast_table(runs, contrasts, list(WORLDS), **FEW)
    (axes,) = draw_gains(table, world_table(runs, contrasts, list(WORLDS), **FEW)).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["plume against row-major (main)", "distance decay against row-major"]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == pytest.approx((100 * table["gain"]).tolist())
    heat = breakdown_table(runs, contrasts, ["a"], ["lead_h", "pollutant"], **FEW)
    first, *_ = draw_heat(heat).axes
    (image,) = first.images
    assert image.get_array().shape == (2, 2)
    red, _, blue, _ = image.cmap(image.norm(10.0))
    assert blue > red  # better is blue
    groups = breakdown_table(runs, contrasts, ["a"], ["group"], **FEW)
    assert len(draw_breakdown(groups, "group").axes) == 2
    nulls = null_table(runs, {"a": contrasts}, 0.02, **FEW)
    assert [t.get_text() for t in draw_nulls(nulls).axes[0].texts] == nulls["verdict"].tolist()
    strengths = {"a": 0.5, "b": 1.0}
    shown = world_table(runs, [PLUME], list(strengths), **FEW)
    assert draw_trend(shown, strengths, trend(runs, PLUME, strengths, **FEW)).axes
    losses = {"plume": [1.0, 0.6, 0.4], "row-major": [1.0, 0.6, 0.5],
              "distance decay": [1, 0.6, 0.5]}  # fmt: skip
    curves = curve_table(runs, curves_of(runs, **losses))
    steps, seconds = draw_curves(curves, ["plume", "row-major"]).axes
    assert len(steps.lines) == len(seconds.lines) == 2
    assert seconds.lines[0].get_xdata().max() == pytest.approx(130)
