"""Evaluations of training runs that differ in arm, world and seed, read for paired comparisons.

A world is a set of stores (a twin with its seeds, Beijing, CAQRA); an arm is a model design.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.groups import ALL, SEASONS, time_cells
from aqnet.verification.scoreboard import Scoreboard, load_scoreboard, position

__all__ = [
    "BOARD",
    "EVERYTHING",
    "METRICS",
    "MODEL",
    "Cells",
    "Constants",
    "Evaluations",
    "Label",
    "read_evaluations",
]

BOARD, METRICS, MODEL = "board.npz", "metrics.json", "model"
Constants = Literal["spread", "original"]
_CONSTANTS = {"spread": "spread_ug_m3", "original": "original_ug_m3"}
_LOSSES = {"spread": "loss", "original": "loss_original_constants"}
_NUMBERS = ("loss", "loss_original_constants", "train_wall_s", "optimiser_steps", "parameters")
_NEEDED = (*_NUMBERS, "spread_ug_m3", "original_ug_m3", "manifest", "digest")
# The loss of metrics.json is summed in another order, perhaps in float32.
_SAME_LOSS = 1e-4


class Label(NamedTuple):
    """A run: its arm, the world it was trained and evaluated on, its seed."""

    arm: str
    world: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, {self.world}, seed {self.seed}"


@dataclass(frozen=True)
class Cells:
    """What a loss is averaged over.

    Attributes
    ----------
    group : str
        Of places, such as a region or a class of terrain.
    leads_h : tuple of int
        Empty, as for pollutants: all.
    pollutants : tuple of str
    season : str
        Of the valid time by the local clock: DJF, MAM, JJA, SON; empty: the whole year.
    constants : {"spread", "original"}
        What errors are divided by: the spread of the world's training split, or the constants
        of the original system.
    """

    group: str = ALL
    leads_h: tuple[int, ...] = ()
    pollutants: tuple[str, ...] = ()
    season: str = ""
    constants: Constants = "spread"


EVERYTHING = Cells()


@dataclass(frozen=True, eq=False)
class World:
    """What all evaluations of a world have in common."""

    times: np.ndarray
    weight: np.ndarray
    groups: tuple[str, ...]
    constants: Mapping[str, np.ndarray]  # "spread", "original": (P,) ug/m3
    digest: str
    manifest: str


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Squared errors of runs, and what their losses are made of.

    Attributes
    ----------
    leads_h, pollutants : tuple
        Of all runs.
    worlds : dict of name to World
    squares : dict of Label to (N, L, P, G) float64
        Sum of squared errors over the cells of a group, each init time, (ug/m3)^2.
    metrics : dict of Label to dict
        Content of metrics.json.
    """

    leads_h: tuple[int, ...]
    pollutants: tuple[str, ...]
    utc_offset_h: float  # of seasons
    worlds: dict[str, World] = field(default_factory=dict)
    squares: dict[Label, np.ndarray] = field(default_factory=dict)
    metrics: dict[Label, dict] = field(default_factory=dict)

    def groups(self, worlds: Iterable[str]) -> tuple[str, ...]:
        """Groups of places that all of these worlds have."""
        for world in (worlds := tuple(worlds)):
            position(tuple(self.worlds), world, "world")
        names = [self.worlds[world].groups for world in worlds]
        return tuple(g for g in names[0] if all(g in other for other in names))

    def seeds(self, arm: str, world: str) -> tuple[int, ...]:
        """Seeds of an arm in a world, ascending."""
        return tuple(sorted(x.seed for x in self.squares if (x.arm, x.world) == (arm, world)))

    def series(self, labels: Sequence[Label], cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """Normalised squared errors of runs of one world, init time by init time.

        Parameters
        ----------
        labels : sequence of Label
            Of one world.
        cells : Cells

        Returns
        -------
        loss : (runs, N)
            Mean over lead times and pollutants of the sum of squares at an init time over the mean
            weight of an init time and over the squared constant [1]: the mean over init times is
            the loss, the mean over lead times and pollutants of MSE / constant^2.
        share : (N,)
            Weight of an init time over the mean weight; its mean is 1.

        Raises
        ------
        VerificationError
            An unknown run, group, lead time, pollutant or season, or a cell without pairs.
        """
        for label in labels:
            position(tuple(self.squares), label, "run")
        world = self.worlds[labels[0].world]
        leads = [position(self.leads_h, x, "lead_h") for x in cells.leads_h or self.leads_h]
        names = cells.pollutants or self.pollutants
        at = np.ix_(leads, [position(self.pollutants, x, "pollutant") for x in names])
        group = position(world.groups, cells.group, "group")
        held = self.in_season(labels[0].world, cells.season)[:, leads, None]
        weight = np.where(held, world.weight[..., group][:, *at], 0.0)
        mean = weight.mean(0)
        if not (mean > 0).all():
            raise VerificationError(
                explain("a loss has no pairs", expected="pairs in every lead time and pollutant",
                        found=f"none in {int((mean <= 0).sum())} of {mean.size} for {cells} in "
                        f"{labels[0].world}", remedy="leave this group or season out")
            )  # fmt: skip
        scale = mean * world.constants[cells.constants][at[1][0]] ** 2 * mean.size
        squares = (self.squares[label][..., group][:, *at] for label in labels)
        loss = np.stack([(np.where(held, s, 0.0) / scale).sum((1, 2)) for s in squares])
        return loss, (weight / mean).mean((1, 2))

    def in_season(self, world: str, season: str) -> np.ndarray:
        """(N, L): whether valid times are in a season; "" is the whole year."""
        valid = self.worlds[world].times[:, None] + np.asarray(self.leads_h).astype(
            "timedelta64[h]"
        )
        if not season:
            return np.ones(valid.shape, dtype=bool)
        return time_cells(valid, self.utc_offset_h)[0] == position(SEASONS, season, "season")

    def loss(self, label: Label, cells: Cells = EVERYTHING) -> float:
        """Loss of a run [1]."""
        return float(self.series([label], cells)[0].mean())


# ---- reading


def read_evaluations(folders: Mapping[Label, str | Path], forecast: str = MODEL) -> Evaluations:
    """Read the evaluations of runs and check that those of a world belong together.

    Parameters
    ----------
    folders : mapping of Label to path
        Folders of evaluation runs, each with board.npz (weight 1 a cell) and metrics.json with
        loss, loss_original_constants [1], spread_ug_m3, original_ug_m3 (by pollutant),
        train_wall_s (null, read as NaN: a start was killed and did not say), optimiser_steps,
        parameters, manifest, digest.
    forecast : str
        Name of the trained model's forecast in the boards.

    Raises
    ------
    VerificationError
        No folders; a file or an entry is missing; errors that are not finite; a loss that is not
        the one of the board; lead times or pollutants that differ between runs; init times,
        pairs, groups, constants or data that differ between runs of a world.
    """
    if not folders:
        raise VerificationError(explain("no evaluations", expected="a folder", found="none",
                                        remedy="run the sweep and its evaluations"))  # fmt: skip
    found = None
    for label, folder in folders.items():
        label, folder = Label(*label), Path(folder)
        board, metrics = load_scoreboard(folder / BOARD), _metrics(folder)
        position(board.design.forecasts, forecast, f"forecast in {folder}")
        world = _world(board, metrics, folder)
        if found is None:
            found = Evaluations(*_cells(board))
        _same_cells(found, board, label)
        _same_world(found.worlds.setdefault(label.world, world), world, label)
        found.squares[label], found.metrics[label] = board.squares[forecast], metrics
        _finite_and_same_loss(found, label, metrics)
    return found


def _metrics(folder: Path) -> dict:
    path = folder / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(metrics, dict):
            raise TypeError(f"no mapping, but {type(metrics).__name__}")
        missing = [name for name in _NEEDED if name not in metrics]
        unknown_time = metrics.get("train_wall_s", 0) is None
        metrics |= {"train_wall_s": 0.0} if unknown_time else {}
        wrong = [n for n in _NUMBERS if n in metrics and not np.isfinite(float(metrics[n]))]
    except (OSError, ValueError, TypeError) as problem:
        missing, wrong, metrics = [repr(problem)], [], {}
    if missing or wrong:
        raise VerificationError(
            explain(f"{path} is not of an evaluation of the experiment",
                    expected=", ".join(_NEEDED), found=f"missing {missing}, not finite {wrong}",
                    remedy="evaluate with nbs/evaluate/physics.ipynb")
        )  # fmt: skip
    return metrics | ({"train_wall_s": float("nan")} if unknown_time else {})


def _world(board: Scoreboard, metrics: dict, folder: Path) -> World:
    names = board.design.pollutants
    constants = {}
    for kind, entry in _CONSTANTS.items():
        values = np.array([metrics[entry].get(name, np.nan) for name in names], float)
        if not (values > 0).all():
            raise VerificationError(explain(
                f"{folder / METRICS} lacks constants of the loss", found=metrics[entry],
                expected=f"{entry}: a positive number for each of {', '.join(names)}",
                remedy="evaluate again",
            ))  # fmt: skip
        constants[kind] = values
    return World(board.times, board.weight, board.design.groups, constants,
                 metrics["digest"], metrics["manifest"])  # fmt: skip


def _cells(board: Scoreboard) -> tuple:
    return board.design.leads, board.design.pollutants, board.design.utc_offset_h


def _same_cells(found: Evaluations, board: Scoreboard, label: Label) -> None:
    before, now = (found.leads_h, found.pollutants, found.utc_offset_h), _cells(board)
    if before != now:
        raise VerificationError(explain(
            f"{label} was scored on other cells", expected=before, found=now,
            remedy="evaluate all runs with the same lead times and pollutants",
        ))  # fmt: skip


def _same_world(world: World, other: World, label: Label) -> None:
    alike = [np.allclose(v, other.constants[k]) for k, v in world.constants.items()]
    differs = {
        "init times": not np.array_equal(world.times, other.times),
        "groups of places": world.groups != other.groups,
        "data (digest of the stores)": world.digest != other.digest,
        "manifest": world.manifest != other.manifest,
        "constants": not all(alike),
        "pairs": not np.array_equal(world.weight, other.weight),
    }
    if wrong := [name for name, is_so in differs.items() if is_so]:
        raise VerificationError(
            explain(f"{label} was not evaluated like the other runs of {label.world}",
                    expected=f"{world.times.size} init times, data {world.digest[:8]}",
                    found=f"other {', '.join(wrong)} ({other.times.size} init times, data "
                    f"{other.digest[:8]})",
                    remedy="evaluate all runs of a world on the same init times and stores")
        )  # fmt: skip


def _finite_and_same_loss(found: Evaluations, label: Label, metrics: dict) -> None:
    if bad := int((~np.isfinite(found.squares[label])).sum()):
        raise VerificationError(
            explain(f"{label} has errors that are not finite", expected="finite forecasts",
                    found=f"{bad} sums of squares", remedy="look at the training curve")
        )  # fmt: skip
    for constants, name in _LOSSES.items():
        loss = found.loss(label, Cells(constants=constants))
        if abs(loss - metrics[name]) > _SAME_LOSS * abs(loss):
            raise VerificationError(explain(
                f"{label}: board and metrics are not of one evaluation",
                expected=f"{name} {loss:.6g}, as from {BOARD}",
                found=f"{metrics[name]:.6g} in {METRICS}", remedy="evaluate again",
            ))  # fmt: skip
