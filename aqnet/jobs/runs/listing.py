"""Finding runs: all of them, by name, and the newest of a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aqnet.errors import RunError, explain
from aqnet.io import runs_root
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.runs.folder import RunFolder
from aqnet.jobs.runs.naming import notebook_label
from aqnet.jobs.runs.record import Status

__all__ = ["find_run", "latest_run", "list_runs"]


def list_runs(root: str | Path | None = None) -> list[RunFolder]:
    """All runs under a folder, oldest first (folders without run.json are not runs).

    Raises
    ------
    RunError
        A run.json cannot be read.
    """
    root = runs_root(root)
    found = [RunFolder.open(record.parent) for record in root.glob("[!.]*/run.json")]
    return sorted(found, key=lambda run: (run.record.created, run.path.name))


def find_run(name: str, root: str | Path | None = None) -> RunFolder:
    """The run that a person means.

    Parameters
    ----------
    name : str
        Name of a run folder, the beginning of one name only, a path, or `latest`: the newest.
    root : path, optional
        Folder of all runs; `aqnet.io.runs_root()` by default.

    Raises
    ------
    RunError
        No such run, or several.
    """
    if (Path(name) / "run.json").is_file():
        return RunFolder.open(name)
    root = runs_root(root)
    runs = list_runs(root)
    found = [run for run in runs if run.path.name == name]
    found = found or [run for run in runs if run.path.name.startswith(name)]
    if name == "latest":
        found = runs[-1:]
    if len(found) == 1:
        return found[0]
    names = ", ".join(run.path.name for run in (found or runs)[-4:])
    message = explain(
        f"{len(found)} runs in {root} begin with {name}" if found else f"there is no run {name}",
        expected="name of a run, beginning of one name, path of its folder, or latest",
        found=f"{names}{', ...' if len(found or runs) > 4 else ''}" if runs else f"none in {root}",
        remedy="aqnet runs list",
    )
    raise RunError(message)


def _named(runs: list[RunFolder], wanted: str) -> list[RunFolder]:
    """Runs of the notebook `wanted`, or of the only one whose last part is `wanted`."""
    exact = [run for run in runs if run.record.notebook == wanted]
    if exact:
        return exact
    similar = [run for run in runs if run.record.notebook.endswith(f"-{wanted}")]
    labels = sorted({run.record.notebook for run in similar})
    if len(labels) <= 1:
        return similar
    message = explain(
        f"several notebooks are called {wanted}",
        expected="the name of one notebook",
        found=", ".join(labels),
        remedy=f"ask for one of them, such as {labels[0]}",
    )
    raise RunError(message)


def latest_run(
    root: str | Path | None,
    notebook_stem: str,
    status: Status = "complete",
    parameters: Mapping[str, Value] | None = None,
) -> RunFolder:
    """Newest run of a notebook.

    Parameters
    ----------
    root : path or None
        Folder of all runs; `aqnet.io.runs_root()` for None.
    notebook_stem : str
        `train/forecast`, `train-forecast`, or `forecast` if only one notebook of that name has run.
    status : str
        Status that the run must have.
    parameters : mapping, optional
        Values that the run must have.

    Raises
    ------
    RunError
        No such run (the message names the command to make one), or the name is ambiguous.
    """
    root = runs_root(root)
    wanted = notebook_label(notebook_stem)
    named = _named(list_runs(root), wanted)
    values = dict(parameters or {})
    for run in reversed(named):
        if run.record.status == status and run.parameters | values == run.parameters:
            return run
    statuses = ", ".join(f"{run.path.name}: {run.record.status}" for run in named[-3:])
    message = explain(
        f"no run of {notebook_stem} with status {status} in {root}",
        expected=f"at least one folder *-{wanted}-*"
        + "".join(f", with {name} = {value}" for name, value in values.items()),
        found=statuses or "none",
        remedy=f"aqnet run {_notebook_of(named, notebook_stem)}",
    )
    raise RunError(message)


def _notebook_of(runs: list[RunFolder], name: str) -> str:
    """Path for the command in a message: as recorded, else as the name suggests."""
    known = [run.record.notebook_path for run in runs if run.record.notebook_path]
    if known:
        return known[-1]
    name = name.removesuffix(".ipynb")
    return f"nbs/{name if '/' in name else name.replace('-', '/', 1)}.ipynb"
