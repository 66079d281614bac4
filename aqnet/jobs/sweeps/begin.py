"""The beginning of a sweep: its definition is stored once, and its name stands for it from then."""

from __future__ import annotations

from contextlib import suppress

from aqnet.errors import TargetExistsError
from aqnet.io import atomic_directory, atomic_write_json, runs_root
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import Plan
from aqnet.jobs.sweeps.records import Stored, refuse_change

__all__ = ["define_sweep", "find_sweep"]


def _stored(plan: Plan) -> Stored:
    return Stored(
        created=plan.created,
        notebook_sha256=plan.notebook.sha256,
        evaluation_sha256=plan.evaluation.sha256 if plan.evaluation else None,
        definition=plan.definition,
        points=plan.points,
        summary_sha256=plan.summary_notebook.sha256 if plan.summary_notebook else None,
        summary=plan.summary,
    )


def find_sweep(plan: Plan) -> Sweep | None:
    """The stored sweep of this definition; None if its name is free.

    Raises
    ------
    ParameterError
        The name was used for another definition; the message tells the difference.
    """
    name = plan.definition.name
    if not (runs_root() / "sweeps" / name).exists():
        return None
    sweep = Sweep.open(name)
    parts = {"definition", "notebook_sha256", "evaluation_sha256", "summary_sha256"}
    before, now = (s.model_dump(mode="json", include=parts) for s in (sweep.stored, _stored(plan)))
    refuse_change(name, before, now)
    return sweep


def define_sweep(plan: Plan, text: str) -> Sweep:
    """Store a checked sweep, or open the one that was stored before.

    Parameters
    ----------
    plan : Plan
        Of the definition as it is now.
    text : str
        The sweep file.

    Raises
    ------
    ParameterError
        See `find_sweep`.
    """
    found = find_sweep(plan)
    if found is not None:
        return found
    path = runs_root() / "sweeps" / plan.definition.name
    with suppress(TargetExistsError), atomic_directory(path) as folder:
        (folder / "sweep.yaml").write_text(text, encoding="utf-8")
        atomic_write_json(folder / "points.json", _stored(plan).model_dump(mode="json"))
        for name in ("sweep.yaml", "points.json"):
            (folder / name).chmod(0o444)
        (folder / "logs").mkdir()
    # it may be that of another command, which was faster
    return find_sweep(plan)
