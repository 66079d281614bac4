"""Gains of arms over references: exact sums, and questions and runs that are refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from contrast_case import (
    CELLS,
    FEW,
    GROUPS,
    LEADS,
    LEVELS,
    ORIGINAL,
    PLUME,
    POLLUTANTS,
    SPREAD,
    WORLDS,
    squares_of,
    three_arms,
    times_of,
    write_evaluation,
)

from aqnet.metrics import VerificationError
from aqnet.verification.contrasts.estimates import Contrast, gain
from aqnet.verification.contrasts.runs import Cells, Label, read_evaluations
from aqnet.verification.contrasts.tables import breakdown_table, seasons_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return three_arms(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(folders):
    return read_evaluations(folders)


# ---- sums


def slow_loss(label: Label, cells: Cells) -> float:
    """Mean over lead times and pollutants of MSE / constant^2, value by value."""
    times = times_of()
    squares = squares_of(label, LEVELS[label.arm] * WORLDS[label.world], times)
    constants = SPREAD if cells.constants == "spread" else ORIGINAL
    seasons = {12: "DJF", 1: "DJF", 2: "DJF", 3: "MAM", 4: "MAM", 5: "MAM", 6: "JJA", 7: "JJA",
               8: "JJA"}  # fmt: skip
    g, means = GROUPS.index(cells.group), []
    for k, lead in enumerate(LEADS):
        for p, name in enumerate(POLLUTANTS):
            if lead not in (cells.leads_h or LEADS) or name not in (cells.pollutants or POLLUTANTS):
                continue
            total, pairs = 0.0, 0.0
            for n, time in enumerate(times):
                local = pd.Timestamp(time) + pd.Timedelta(hours=lead + 8)
                if cells.season in ("", seasons.get(local.month, "SON")):
                    total += squares[n, k, p, g]
                    pairs += CELLS[g]
            means.append(total / pairs / constants[name] ** 2)
    return float(np.mean(means))


@pytest.mark.parametrize(
    "cells",
    [
        Cells(),
        Cells(group="mountains", season="DJF"),
        Cells(leads_h=(24,), pollutants=("o3",), constants="original"),
        Cells(season="SON", leads_h=(12,)),
    ],
)
def test_losses_are_those_of_slow_loops(runs, cells):
    label = Label("plume", "b", 1)
    assert runs.loss(label, cells) == pytest.approx(slow_loss(label, cells), rel=1e-12)
    loss, share = runs.series([label], cells)
    assert share.mean() == pytest.approx(1.0, rel=1e-12)
    assert loss.shape == (1, times_of().size)
    assert ((share == 0) == (loss[0] == 0)).all()


def test_gain_is_that_of_mean_losses(runs):
    found = gain(runs, PLUME, ["a", "c"], **FEW)
    mean = {arm: np.mean([np.mean([slow_loss(Label(arm, w, s), Cells()) for s in range(3)])
                          for w in "ac"]) for arm in ("plume", "row-major")}  # fmt: skip
    assert found.loss == pytest.approx(mean["plume"], rel=1e-12)
    assert found.gain == pytest.approx(1 - mean["plume"] / mean["row-major"], rel=1e-12)
    assert (found.worlds, found.pairs) == (2, 6)


def test_a_published_loss_is_a_reference_without_error(runs):
    found = gain(runs, Contrast("plume", 0.1), ["a"], **FEW)
    assert found.loss_of_reference == pytest.approx(0.1, rel=1e-12)
    assert found.gain == pytest.approx(1 - found.loss / 0.1, rel=1e-12)
    assert found.low < found.gain < found.high


# ---- bad input


def test_runs_without_a_partner_are_named(runs, folders):
    some = {k: v for k, v in folders.items() if k != Label("row-major", "b", 1)}
    found = read_evaluations(some)
    with pytest.raises(VerificationError, match=r"not paired in b(.|\n)*plume alone: \[1\]"):
        gain(found, PLUME, ["a", "b"], **FEW)
    # more seeds of the reference are not used
    assert gain(found, Contrast("row-major", "plume"), ["b"], **FEW).pairs == 2
    with pytest.raises(VerificationError, match="no run of scan"):
        gain(runs, Contrast("scan", "row-major"), ["a"], **FEW)
    with pytest.raises(VerificationError, match="not paired in nowhere"):
        gain(runs, PLUME, ["nowhere"], **FEW)


LABEL = Label("row-major", "a", 3)


def other_run(folder: Path, times: np.ndarray | None = None, **metrics: object) -> dict:
    """One more run of world a, evaluated in another way."""
    times = times_of() if times is None else times
    squares = squares_of(LABEL, 0.076, times)
    return {LABEL: write_evaluation(folder / "more", LABEL, squares, times, **metrics)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": times_of(364)}, "other init times, pairs"),
        ({"times": times_of() + np.timedelta64(1, "h")}, "other init times"),
        ({"digest": "f" * 64}, "other data"),
        ({"manifest": "elsewhere"}, "other manifest"),
        ({"loss": 0.5}, "board and metrics are not of one evaluation"),
        ({"loss_original_constants": 0.5}, "board and metrics are not of one evaluation"),
        ({"loss": math.nan}, "not finite"),
        ({"spread_ug_m3": {"pm25": 30.0}}, "lacks constants of the loss"),
        ({"original_ug_m3": {"pm25": 30.0, "o3": -1.0}}, "lacks constants of the loss"),
    ],
)
def test_runs_of_a_world_must_be_evaluated_alike(folders, tmp_path, change, message):
    with pytest.raises(VerificationError, match=message):
        read_evaluations(folders | other_run(tmp_path, **change))


def test_a_folder_that_is_no_evaluation_is_named(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VerificationError, match=r"board\.npz is not a scoreboard"):
        read_evaluations({LABEL: tmp_path / "empty"})
    (folder,) = other_run(tmp_path).values()
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({k: v for k, v in metrics.items()
                                                     if k != "train_wall_s"}))  # fmt: skip
    with pytest.raises(VerificationError, match=r"missing \['train_wall_s'\]"):
        read_evaluations({LABEL: folder})
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(VerificationError, match="is not of an evaluation"):
        read_evaluations({LABEL: folder})
    with pytest.raises(VerificationError, match="no such forecast"):
        read_evaluations({LABEL: next(iter(folders.values()))}, forecast="other")
    with pytest.raises(VerificationError, match="no evaluations"):
        read_evaluations({})


def test_diverged_runs_and_unknown_cells_are_refused(folders, runs, tmp_path):
    squares = squares_of(LABEL, 0.076, times_of())
    squares[3, 0, 0, 0] = np.inf
    folder = write_evaluation(tmp_path / "x", LABEL, squares, times_of(), loss=1.0,
                              loss_original_constants=1.0)  # fmt: skip
    with pytest.raises(VerificationError, match="row-major, a, seed 3 has errors that are not"):
        read_evaluations({LABEL: folder})
    for cells in (Cells(group="moon"), Cells(leads_h=(7,)), Cells(season="summer")):
        with pytest.raises(VerificationError, match="no such"):
            gain(runs, PLUME, ["a"], cells, **FEW)
    with pytest.raises(VerificationError, match="not broken down"):
        breakdown_table(runs, [PLUME], ["a"], ["hour"], **FEW)


def test_a_season_without_init_times_has_no_loss(folders, tmp_path):
    shutil.copytree(next(iter(folders.values())), tmp_path / "copy")
    times = times_of(60)
    found = read_evaluations(other_run(tmp_path, times))
    with pytest.raises(VerificationError, match="a loss has no pairs"):
        found.loss(LABEL, Cells(season="JJA"))
    assert seasons_of(found, ["a"], 168) == ("DJF",)
