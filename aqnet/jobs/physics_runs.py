"""What has been run of the experiment on the physics, and what of it can be judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aqnet.errors import ParameterError, explain
from aqnet.io import runs_root
from aqnet.jobs.physics_experiment import PhysicsExperiment, Role
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.definition import SEED
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Point
from aqnet.jobs.sweeps.queue import read_queue
from aqnet.jobs.sweeps.records import PointState
from aqnet.training.experiment import EXPERIMENT_PRESETS
from aqnet.verification.contrasts.estimates import Contrast
from aqnet.verification.contrasts.runs import Evaluations, Label, read_evaluations

__all__ = ["ExperimentRuns", "Questions", "questions", "questions_apart", "runs_of"]


@dataclass(frozen=True)
class ExperimentRuns:
    """What has been run of an experiment.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for each point: arm, world, role, grid, seed, status, reason, run.
    folders : dict of Label to Path
        Evaluations of the complete points.
    curves : dict of Label to dict
        `curve` of the training run of each of them.
    absent : tuple of str
        Sweeps that have not begun.
    """

    table: pd.DataFrame
    folders: dict[Label, Path]
    curves: dict[Label, dict]
    absent: tuple[str, ...]

    def complete(self, contrast: Contrast, worlds: Sequence[str]) -> bool:
        """Whether all runs of both arms are there, in each of the worlds.

        An arm whose worst runs failed would look better than it is.
        """
        own = self.table[self.table["world"].isin(worlds)]
        for arm in (contrast.arm, contrast.reference):
            points = own[own["arm"] == arm]
            missing = set(worlds) - set(points["world"])
            if missing or not (points["status"] == "complete").all():
                return False
        return bool(len(worlds))

    def read(self, experiment: PhysicsExperiment, worlds: Collection[str]) -> Evaluations:
        """The evaluations of some worlds, each of the data that its world names.

        Raises
        ------
        ParameterError
            A run was evaluated on another manifest.
        VerificationError
            As `read_evaluations`.
        """
        found = read_evaluations({k: v for k, v in self.folders.items() if k.world in worlds})
        for name, world in found.worlds.items():
            expected = experiment.worlds[name].manifest or name
            if world.manifest != expected:
                raise ParameterError(explain(
                    f"runs of the world {name} were evaluated on another",
                    expected=f"manifest {expected}", found=world.manifest,
                    remedy="correct the sweep or `manifest` in the file of the experiment",
                ))  # fmt: skip
        return found


def runs_of(
    experiment: PhysicsExperiment, sweeps: Sequence[str] = (), root: str | Path | None = None
) -> ExperimentRuns:
    """Look for the runs of an experiment.

    Parameters
    ----------
    experiment : PhysicsExperiment
    sweeps : sequence of str
        Only these, which must have begun; empty: all that have.
    root : path, optional
        Folder of all runs; `aqnet.io.runs_root()` by default.

    Raises
    ------
    ParameterError
        A sweep that the experiment does not have, or that has not begun; points without arm, seed
        or evaluation; two points of a world with the same arm and seed.
    """
    if unknown := sorted(set(sweeps) - set(experiment.sweeps)):
        raise ParameterError(explain(
            "sweeps that the experiment does not have", expected=", ".join(experiment.sweeps),
            found=", ".join(unknown), remedy="add them to its file",
        ))  # fmt: skip
    root = (Path(root) if root is not None else runs_root()).absolute()
    begun = [s for s in experiment.sweeps if (root / "sweeps" / s / "points.json").is_file()]
    states = {}
    for name in sweeps or begun:
        opened = Sweep.open(name, root)
        states[name] = opened.states(read_queue(opened))
    found: dict[Label, PointState] = {}
    for name, world in experiment.worlds.items():
        own = [s for sweep in world.sweeps for s in states.get(sweep, ())
               if _manifest(s.point) == (world.manifest or name)]  # fmt: skip
        for state in own:
            label = _label(state.point, name)
            if label in found:
                raise ParameterError(explain(
                    f"{label} was run twice", expected="each arm and seed of a world once",
                    found=f"{found[label].point.run} and {state.point.run}",
                    remedy="name fewer `sweeps` of the world, or other labels of arms",
                ))  # fmt: skip
            found[label] = state
    return _collected(experiment, found, () if sweeps else tuple(
        s for s in experiment.sweeps if s not in begun))  # fmt: skip


def _collected(
    experiment: PhysicsExperiment, found: dict[Label, PointState], absent: tuple[str, ...]
) -> ExperimentRuns:
    rows, folders, curves = [], {}, {}
    for label, state in found.items():
        world = experiment.worlds[label.world]
        rows.append(label._asdict() | {
            "role": world.role, "grid": world.grid, "status": state.status,
            "reason": state.reason, "run": state.run.name if state.run else ""})  # fmt: skip
        if state.status == "complete":
            folders[label] = state.evaluation
            curves[label] = RunFolder.open(state.run).read_metrics().get("curve", {})
    columns = ["arm", "world", "seed", "role", "grid", "status", "reason", "run"]
    return ExperimentRuns(pd.DataFrame(rows, columns=columns), folders, curves, absent)


def _manifest(point: Point) -> str:
    """Name of the data of a point: a manifest by name or file, or that of its preset."""
    preset = EXPERIMENT_PRESETS.get(str(point.parameters.get("preset")))
    given = point.parameters.get("manifest") or (preset.manifest if preset else "")
    return Path(str(given)).stem


def _label(point: Point, world: str) -> Label:
    seed = point.parameters.get(SEED) if point.seed is None else point.seed
    if not point.arm or seed is None or not point.evaluation:
        raise ParameterError(explain(
            f"a sweep of {world} is not one of arms and seeds",
            expected="an arm of `list` and a seed for each point, and `evaluate`",
            found=f"arm {point.arm!r}, seed {seed}, evaluation {point.evaluation!r}",
            remedy="put what differs into `list`, and seeds and `evaluate` into the sweep file",
        ))  # fmt: skip
    return Label(point.arm, world, seed)


# ---- what can be judged


@dataclass(frozen=True)
class Questions:
    """What the runs so far can answer.

    Attributes
    ----------
    worlds : tuple of str
        That give the answer: those of a role and grid of which something has been run.
    contrasts : tuple of Contrast
        Complete in all of them.
    asked : int
        Contrasts of all arms that have begun there, complete or not.
    nulls : dict of world to tuple of Contrast
        Complete contrasts that should be null there.
    strengths : dict of world to float
        Where the contrast of the trend is complete; empty for fewer than two strengths.
    waiting : tuple of str
        What is not complete, one line each.
    """

    worlds: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    asked: int
    nulls: dict[str, tuple[Contrast, ...]]
    strengths: dict[str, float]
    waiting: tuple[str, ...]

    @property
    def all_worlds(self) -> set[str]:
        """Worlds whose evaluations are needed."""
        return {*self.worlds, *self.nulls, *self.strengths}


def questions(
    experiment: PhysicsExperiment, runs: ExperimentRuns, role: Role, grid: str
) -> Questions:
    """What can be asked of the runs: contrasts whose points are all complete.

    Raises
    ------
    ParameterError
        No contrast is complete in the worlds of this role and grid; says what is missing.
    """
    found = _questions(experiment, runs, role, grid)
    if not found.contrasts:
        raise ParameterError(explain(
            f"nothing to judge in worlds of role {role} and grid {grid}",
            expected="all points of an arm and of its reference complete, in each world",
            found=f"worlds {', '.join(found.worlds) or 'none'}; not complete: "
            + ("; ".join(found.waiting) or "no world of this role and grid"),
            remedy="see `aqnet sweep status`",
        ))  # fmt: skip
    return found


def questions_apart(
    experiment: PhysicsExperiment, runs: ExperimentRuns, role: Role, grid: str
) -> dict[tuple[Role, str], Questions]:
    """What is reported beside the answer of the sealed worlds and never pooled with it.

    Returns
    -------
    dict of (role, grid) to Questions
        Of sealed worlds of other grids, and of observed ones; perhaps without any contrast, then
        `waiting` says why. Empty for an answer of other worlds than the sealed ones.
    """
    if role != "sealed":
        return {}
    kinds = {(w.role, w.grid): None for w in experiment.worlds.values()
             if w.role in ("sealed", "observed")}  # fmt: skip
    return {kind: _questions(experiment, runs, *kind) for kind in kinds if kind != (role, grid)}


def _questions(
    experiment: PhysicsExperiment, runs: ExperimentRuns, role: Role, grid: str
) -> Questions:
    named, begun = experiment.names(role, grid), set(runs.table["world"])
    worlds = tuple(name for name in named if name in begun)
    arms = dict.fromkeys(runs.table.loc[runs.table["world"].isin(worlds), "arm"])
    asked = experiment.contrasts(tuple(arms))
    found = tuple(c for c in asked if runs.complete(c, worlds))
    waiting = [f"{role} worlds: {c.arm} against {c.reference}" for c in asked if c not in found]
    waiting += [f"world {name}: no runs" for name in named if name not in begun]
    roles = {role, "null", "control", "strength"}
    here = {s for world in experiment.worlds.values()
            if world.grid == grid and world.role in roles for s in world.sweeps}  # fmt: skip
    waiting += [f"sweep {name}: not begun" for name in runs.absent if name in here]
    nulls, strengths = {}, {}
    for name, world in experiment.worlds.items():
        pairs = [pair.contrast for pair in world.null_for]
        if world.role == "strength" and world.grid == grid:
            pairs = [experiment.trend.contrast]
        complete = tuple(c for c in pairs if world.grid == grid and runs.complete(c, [name]))
        waiting += [f"world {name}: {c.arm} against {c.reference}" for c in pairs
                    if world.grid == grid and c not in complete]  # fmt: skip
        if complete and world.role == "strength":
            strengths[name] = world.transport
        elif complete:
            nulls[name] = complete
    enough = len(set(strengths.values())) > 1
    return Questions(worlds, found, len(asked), nulls, strengths if enough else {}, tuple(waiting))
