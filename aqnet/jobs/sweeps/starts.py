"""What to start next for a point of a sweep, for its evaluation, or for the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aqnet.jobs.parameter_types import Value
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.definition import TRAIN_RUN
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Notebook, Point
from aqnet.jobs.sweeps.records import PointState

__all__ = ["SCRIPTS", "Sized", "Start", "evaluation_of", "start_of"]

SCRIPTS = ("script.py", "evaluate.py", "summary.py")  # compiled notebooks, as `Sweep.notebooks`


@dataclass(frozen=True)
class Start:
    """What to start next for a point.

    Attributes
    ----------
    point : Point
    notebook : Notebook
    values : dict
        Typed parameters.
    run : Path
        New run folder, or one to go on in.
    resume : bool
        Go on from the checkpoint in it.
    script : str
        Name of the compiled notebook.
    """

    point: Point
    notebook: Notebook
    values: dict[str, Value]
    run: Path
    resume: bool
    script: str


Sized = Callable[[dict[str, Value], str], dict[str, Value]]


def _as_given(values: dict[str, Value], script: str) -> dict[str, Value]:
    return values


def start_of(
    sweep: Sweep,
    state: PointState,
    notebooks: Sequence[Notebook | None],
    sized: Sized = _as_given,
) -> Start:
    """What to start for a point (or the summary) that is not complete, whatever became of it.

    A run with a checkpoint goes on in its folder if the notebook can resume; others start anew.

    Parameters
    ----------
    sweep : Sweep
    state : PointState
    notebooks : tuple of Notebook
        See `Sweep.notebooks`.
    sized : callable, optional
        Adds the parameters that follow from where it runs; is told the script, one of SCRIPTS.
    """
    point = state.point
    if state.run is not None and RunFolder.open(state.run).record.status == "complete":
        return evaluation_of(sweep, point, state.run, notebooks[1], sized)
    number = 2 if point == sweep.summary else 0
    notebook, script = notebooks[number], SCRIPTS[number]
    values = sized(point.values, script)
    run, resume = _place(sweep, point.run, notebook, values)
    return Start(point, notebook, values, run, resume, script)


def evaluation_of(
    sweep: Sweep, point: Point, run: Path, evaluation: Notebook, sized: Sized = _as_given
) -> Start:
    """The evaluation of a point whose run is `run`."""
    given = sweep.stored.definition.evaluate.parameters | {TRAIN_RUN: str(run)}
    values = sized(evaluation.typed(given), SCRIPTS[1])
    place, resume = _place(sweep, point.evaluation, evaluation, values)
    return Start(point, evaluation, values, place, resume, SCRIPTS[1])


def _place(sweep: Sweep, base: str, notebook: Notebook, values: dict) -> tuple[Path, bool]:
    """Run folder, and whether to resume there; that of before only for the same parameters."""
    before = sweep.tries(base)
    last = RunFolder.open(before[-1]) if before else None
    if last is not None and last.parameters == values:
        if last.record.status == "created":
            return last.path, False
        if notebook.resumable and (last.checkpoints / "last.ckpt").exists():
            return last.path, True
    return sweep.next_try(base), False
