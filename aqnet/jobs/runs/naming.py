"""What runs are called after: their notebook, their typed parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from aqnet.errors import ParameterError, explain
from aqnet.io import sha256_json
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import Parameter

__all__ = ["RUN_DIR", "notebook_label", "parameters_hash", "relative_path", "require_run_dir"]

RUN_DIR = "run_dir"  # parameter through which a notebook receives its folder


def parameters_hash(parameters: Mapping[str, Value]) -> str:
    """SHA-256 of the typed parameters in any order, without the run folder itself."""
    return sha256_json({k: v for k, v in parameters.items() if k != RUN_DIR})


def require_run_dir(parameters: Sequence[Parameter], label: str) -> None:
    """Check that a notebook can receive its run folder.

    Raises
    ------
    ParameterError
        No parameter `run_dir` of type str with an empty default.
    """
    declared = {p.name: p for p in parameters}.get(RUN_DIR)
    if declared is not None and (declared.type, declared.default) == ("str", ""):
        return
    message = explain(
        f"{label} cannot receive its run folder",
        expected=f'`{RUN_DIR}: str = ""  # run folder, set by aqnet run` in the parameters cell',
        found="no such parameter" if declared is None else declared.describe(),
        remedy="add that line",
    )
    raise ParameterError(message)


def notebook_label(notebook: str | Path) -> str:
    """Name of a notebook in run folders.

    `nbs/train/forecast.ipynb` is `train-forecast` (as is the text `train/forecast`), so that it
    differs from a `nbs/evaluate/forecast.ipynb`; outside `nbs` it is the file name without ending.
    """
    path = Path(notebook)
    parts = path.with_suffix("").parts if path.suffix == ".ipynb" else path.parts
    if "nbs" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("nbs")
        parts = parts[last + 1 :]
    elif path.suffix == ".ipynb":
        parts = parts[-1:]
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(parts)).strip("-")


def relative_path(file: Path) -> str:
    """Path of a notebook within its repository; the mere name for one elsewhere."""
    for folder in file.absolute().parents:
        if (folder / "settings.ini").exists() and (folder / "data_manifests").exists():
            return file.absolute().relative_to(folder).as_posix()
    return file.name


def recorded_path(file: Path) -> str | None:
    """Path of a notebook; a script gives it in this form, and may run where there is none."""
    if file.is_file():
        return relative_path(file)
    return file.as_posix() if file.suffix == ".ipynb" and not file.is_absolute() else None
