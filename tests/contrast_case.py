"""Made-up evaluations of the runs of an experiment: worlds, arms and seeds of known effects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from notebook_tools import make_notebook

from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.begin import define_sweep
from aqnet.jobs.sweeps.definition import load_definition
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Point, plan_sweep
from aqnet.verification.board_design import Design
from aqnet.verification.contrasts.estimates import Contrast
from aqnet.verification.contrasts.runs import Label
from aqnet.verification.scoreboard import Scoreboard, save_scoreboard

POLLUTANTS, LEADS = ("pm25", "o3"), (12, 24)
GROUPS = ("all", "sichuan_basin", "north_china_plain", "plain", "mountains")
CELLS = np.array([40, 10, 12, 25, 15])  # of each group
SPREAD = {"pm25": 30.0, "o3": 40.0}
ORIGINAL = {"pm25": 15.0, "o3": 20.0}
STEP_H = 12
COST = {"plume": 1.3, "full": 2.0}  # seconds a step over those of the others


def red_noise(rng: np.random.Generator, size: int, memory_h: float = 30.0) -> np.ndarray:
    """Unit variance, e-folding time in hours, a value each `STEP_H`."""
    phi, x = np.exp(-STEP_H / memory_h), rng.standard_normal(size)
    for t in range(1, size):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x


def times_of(days: int = 365) -> np.ndarray:
    """Init times of a year, two a day."""
    start = np.datetime64("2015-01-01T00", "h")
    return start + STEP_H * np.arange(days * 24 // STEP_H)


def squares_of(label: Label, level: float, times: np.ndarray, noise: float = 0.02) -> np.ndarray:
    """(N, L, P, G) sums of squares whose mean over all cells is about `level` x spread^2.

    Weather is shared by all runs of a world; a seed has an effect of its own in each world.
    """
    weather = np.random.default_rng([1, *label.world.encode()])
    own = np.random.default_rng([2, label.seed, *label.arm.encode(), *label.world.encode()])
    common = np.exp(0.3 * red_noise(weather, times.size))
    series = common / common.mean() * (1 + noise * red_noise(own, times.size))
    season = 1 + 0.2 * np.cos(2 * np.pi * np.arange(times.size) * STEP_H / 8766)
    grow = np.array([0.8, 1.2])[:, None] * np.array([1.1, 0.9])
    if label.arm in COST:  # physics that helps most at long lead times and for particles
        grow = grow * np.array([[1.02, 1.06], [0.94, 0.98]])
    place = np.array([1.0, 1.3, 0.9, 1.1, 0.8])
    spread = np.array(list(SPREAD.values())) ** 2
    seed = 1 + noise * own.standard_normal()
    shape = level * seed * grow[..., None] * (spread[:, None] * place * CELLS)
    return (series * season / season.mean())[:, None, None, None] * shape


def made_up_board(squares: np.ndarray, times: np.ndarray) -> Scoreboard:
    """With the model and persistence, weight 1 a cell."""
    design = Design(
        ("model", "persistence"), LEADS, POLLUTANTS, GROUPS,
        tuple((i,) for i in range(len(GROUPS))), len(GROUPS), ((),) * 2, weight="one a cell",
    )  # fmt: skip
    board = Scoreboard(design)
    weight = np.broadcast_to(CELLS.astype(float), squares.shape)
    board.extend(times, weight, {"model": squares, "persistence": 3 * squares})
    return board


def write_evaluation(
    folder: Path, label: Label, squares: np.ndarray, times: np.ndarray, **changes: object
) -> Path:
    """board.npz and metrics.json of a run; `changes` of the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    save_scoreboard(made_up_board(squares, times), folder / "board.npz")
    mse = squares[..., 0].mean(0) / CELLS[0]
    losses = [float((mse / np.square(list(c.values()))).mean()) for c in (SPREAD, ORIGINAL)]
    metrics = {
        "loss": losses[0], "loss_original_constants": losses[1], "spread_ug_m3": SPREAD,
        "original_ug_m3": ORIGINAL, "train_wall_s": 100.0 * COST.get(label.arm, 1.0),
        "optimiser_steps": 400, "parameters": 400_000, "manifest": label.world,
        "digest": label.world.encode().hex().ljust(64, "0"),
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return folder


def made_up_runs(
    root: Path, levels: Mapping[tuple[str, str], float], seeds: int = 3, days: int = 365
) -> dict[Label, Path]:
    """Evaluations of each (arm, world) with its loss, for `read_evaluations`."""
    found, times = {}, times_of(days)
    for (arm, world), level in levels.items():
        for seed in range(seeds):
            label = Label(arm, world, seed)
            folder = root / "-".join(map(str, label))
            found[label] = write_evaluation(folder, label, squares_of(label, level, times), times)
    return found


# ---- three arms in three worlds, three seeds each

LEVELS = {"row-major": 0.076, "distance decay": 0.0725, "plume": 0.067}
WORLDS = {"a": 1.0, "b": 1.1, "c": 0.95}
FEW = {"replicates": 300}
PLUME = Contrast("plume", "row-major")


def three_arms(root: Path) -> dict[Label, Path]:
    """Evaluations of the three arms in the three worlds."""
    levels = {(arm, w): x * f for arm, x in LEVELS.items() for w, f in WORLDS.items()}
    return made_up_runs(root, levels)


# ---- sweeps of made-up runs

ARM = 'seed: int = 0  # [1] {0..}\narm: str = "a"\nmanifest: str = ""\n'
JUDGE = 'train_run: str = ""  # folder\n'
BODY = (
    "from aqnet.jobs.runs import RunFolder\nRunFolder.for_notebook(run_dir, 'toy', {}).finish()\n"
)


def begin_sweep(folder: Path, name: str, manifest: str, arms: Sequence[str], seeds: int) -> Sweep:
    """A sweep of arms and seeds in a world, nothing of it run; notebooks go to `folder`."""
    for notebook, parameters in (("toy.ipynb", ARM), ("judge.ipynb", JUDGE)):
        make_notebook(folder / notebook, parameters, BODY)
    definition = {
        "name": name, "notebook": str(folder / "toy.ipynb"), "seeds": seeds,
        "parameters": {"manifest": manifest},
        "list": [{"label": arm, "parameters": {"arm": arm}} for arm in arms],
        "evaluate": {"notebook": str(folder / "judge.ipynb")},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(definition))
    return define_sweep(plan_sweep(load_definition(path)), path.read_text())


def complete_run(root: Path, name: str) -> Path:
    """A folder of a complete run; all are copies of one, as making one asks git."""
    template = root / "template"
    if not template.exists():
        run = RunFolder.create(root / "toy.ipynb", {}, path=template)
        run.set_status("running")
        run.set_status("complete")
    return shutil.copytree(template, root / "runs" / name)


def complete_point(
    sweep: Sweep, point: Point, world: str, level: float, manifest: str, days: int = 365
) -> None:
    """Run folders of a point and its evaluation, as after `aqnet sweep run`."""
    label, times, root = Label(point.arm, world, point.seed), times_of(days), sweep.path.parents[2]
    step = np.arange(0, 401, 50)
    curve = {"step": step.tolist(), "validation": (level + 0.8 * np.exp(-step / 60)).tolist()}
    metrics = complete_run(root, point.run) / "metrics.json"
    metrics.write_text(json.dumps({"curve": curve}))
    squares = squares_of(label, level, times)
    folder = complete_run(root, point.evaluation)
    write_evaluation(folder, label, squares, times, manifest=manifest)


def made_up_sweep(
    folder: Path,
    name: str,
    world: str,
    levels: Mapping[str, float],
    seeds: int = 3,
    days: int = 365,
) -> Sweep:
    """A sweep whose arms have these losses, all of its points complete."""
    sweep = begin_sweep(folder, name, world, tuple(levels), seeds)
    for point in sweep.points:
        complete_point(sweep, point, world, levels[point.arm], world, days)
    return sweep
