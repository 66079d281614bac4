"""Evaluations of the points of a sweep, by arm, world and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aqnet.errors import ParameterError, explain
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.records import PointState
from aqnet.verification.contrasts.runs import Label

__all__ = ["evaluations_of"]

_SHOWN = 5  # points in a message


def evaluations_of(sweep: Sweep, states: Sequence[PointState]) -> dict[Label, Path]:
    """Evaluation folders of all points, for `aqnet.verification.contrasts.runs.read_evaluations`.

    Parameters
    ----------
    sweep : Sweep
    states : sequence of PointState
        As `Sweep.states` gives them.

    Returns
    -------
    dict
        The arm is the label of a point; the world the `manifest` that its evaluation measured; the
        seed 0 where the sweep has none.

    Raises
    ------
    ParameterError
        The sweep evaluates nothing, an evaluation names no manifest, or a point is not complete: an
        arm whose worst runs failed would look better than it is.
    """
    left = [s for s in states if s.status != "complete"]
    if left or sweep.stored.definition.evaluate is None:
        shown = "; ".join(f"{s.point.title}: {s.status}" for s in left[:_SHOWN])
        raise ParameterError(explain(
            f"the points of the sweep {sweep.name} cannot be compared",
            expected=f"{len(states)} complete points with an evaluation",
            found=f"{len(left)} that are not: {shown}" if left else "no section `evaluate`",
            remedy=f"aqnet sweep status {sweep.name}; run it again for what is missing",
        ))  # fmt: skip
    found = {}
    for state in states:
        world = RunFolder.open(state.evaluation).read_metrics().get("manifest")
        if not isinstance(world, str):
            raise ParameterError(explain(
                f"{state.evaluation.name} says not what data it was made on",
                expected="`manifest` in metrics.json", found=world,
                remedy="evaluate with nbs/evaluate/physics.ipynb",
            ))  # fmt: skip
        found[Label(state.point.label, world, state.point.seed or 0)] = state.evaluation
    return found
