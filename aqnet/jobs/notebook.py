"""Notebook files as plain JSON: cells, tags, the digest of what runs, checks before a run.

No Jupyter package is needed here. Tags that mean something:

- `parameters`: the one cell of typed parameters (aqnet.jobs.parameter_cell);
- `check`: cells straight after it that judge the parameters together. They see the parameters only,
  and also run before a kernel, an array of jobs or a script starts;
- `notebook_only`: left out of a compiled script (aqnet.jobs.compile).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from aqnet.errors import AqnetError, ParameterError, explain
from aqnet.io import sha256_json

__all__ = [
    "check_cells",
    "code_cells",
    "code_digest",
    "parameters_source",
    "read_notebook",
    "run_checks",
]


def read_notebook(path: str | Path) -> dict:
    """Read a notebook file.

    Raises
    ------
    ParameterError
        No such file, or not a notebook of format 4.
    """
    path = Path(path)
    problem = f"cannot read the notebook {path}"
    if not path.is_file():
        message = explain(
            problem, expected="a .ipynb file", found="no file there", remedy="check the path"
        )
        raise ParameterError(message)
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        message = explain(
            problem, expected="a .ipynb file (JSON)", found=error, remedy="give a notebook"
        )
        raise ParameterError(message) from error
    version = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if version != 4 or not isinstance(notebook.get("cells"), list):
        remedy = "open and save it in JupyterLab"
        message = explain(
            problem, expected="notebook format 4", found=f"format {version}", remedy=remedy
        )
        raise ParameterError(message)
    return notebook


def code_cells(notebook: Mapping) -> Iterator[tuple[int, str, frozenset[str]]]:
    """Number in the notebook (from 1), source and tags of each code cell."""
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell.get("cell_type") == "code":
            source = cell.get("source", "")
            text = source if isinstance(source, str) else "".join(source)
            yield number, text, frozenset(cell.get("metadata", {}).get("tags", []))


def code_digest(notebook: Mapping) -> str:
    """SHA-256 of what runs: sources and tags of the code cells, without text and outputs."""
    return sha256_json([[source, sorted(tags)] for _, source, tags in code_cells(notebook)])


def parameters_source(notebook: Mapping, label: str) -> str:
    """Source of the one cell tagged `parameters`.

    Raises
    ------
    ParameterError
        No such cell, or several.
    """
    cells = [source for _, source, tags in code_cells(notebook) if "parameters" in tags]
    if len(cells) == 1:
        return cells[0]
    message = explain(
        f"{label} has {len(cells)} cells tagged `parameters`",
        expected="exactly one code cell tagged `parameters`",
        found=f"{len(cells)}",
        remedy="set the tag in JupyterLab (property inspector, cell tags); nbdev_clean keeps it "
        "only with `allowed_cell_metadata_keys = tags` in settings.ini",
    )
    raise ParameterError(message)


def check_cells(notebook: Mapping, label: str) -> list[tuple[int, str]]:
    """Number and source of the cells tagged `check`.

    Raises
    ------
    ParameterError
        One of them does not stand straight after the parameters cell.
    """
    cells = [(number, source, tags) for number, source, tags in code_cells(notebook) if source]
    first = next(i for i, cell in enumerate(cells) if "parameters" in cell[2]) + 1
    places = [i for i, cell in enumerate(cells) if "check" in cell[2]]
    if places != list(range(first, first + len(places))):
        message = explain(
            f"{label}: a cell tagged `check` is out of place",
            expected="checks straight after the parameters cell, which is all they see",
            found=f"cells {', '.join(str(cells[i][0]) for i in places)}",
            remedy="move it there, or take the tag away",
        )
        raise ParameterError(message)
    return [cells[i][:2] for i in places]


def run_checks(notebook: Mapping, values: Mapping[str, object], label: str) -> None:
    """Run the cells tagged `check` in this process, on the parameters alone.

    Parameters
    ----------
    notebook : mapping
    values : mapping
        Typed values, as `aqnet.jobs.parameters.resolve` gives them.
    label : str
        Name of the notebook in messages.

    Raises
    ------
    ParameterError
        With the message of the AqnetError that a check raised.
    """
    namespace: dict[str, object] = {"__name__": "__check__"}
    checks = check_cells(notebook, label)
    if not checks:
        return
    exec(compile(parameters_source(notebook, label), f"{label}, parameters", "exec"), namespace)
    namespace.update(values)
    for number, source in checks:
        try:
            exec(compile(source, f"{label}, cell {number}", "exec"), namespace)
        except AqnetError as error:
            raise ParameterError(str(error)) from error
