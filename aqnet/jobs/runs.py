"""Run folders: one format for everything that a run of a notebook leaves behind.

::

    runs/<UTC yyyymmddThhmmss>-<notebook>-<first 8 digits of the parameters' hash>/
        run.json         status and times (RunRecord)
        parameters.yaml  every parameter with its typed value
        provenance.json  hashes of parameters and data, versions, git state, machine (Provenance)
        metrics.json     what the notebook measured
        checkpoints/     model states
        notebook.ipynb   executed notebook
        log.txt          output of the cells as it came, and full tracebacks
        report.html      report
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import yaml
from pydantic import Field, ValidationError

import aqnet
from aqnet.code_state import GitState, git_state
from aqnet.config import Config, read_yaml
from aqnet.errors import ParameterError, RunError, TargetExistsError, explain
from aqnet.io import (
    atomic_directory,
    atomic_write_json,
    repository_root,
    runs_root,
    sha256_json,
)
from aqnet.jobs.notebook import code_digest, read_notebook
from aqnet.jobs.parameters import Parameter, Value

__all__ = [
    "Failure",
    "Provenance",
    "RunFolder",
    "RunRecord",
    "latest_run",
    "list_runs",
    "notebook_label",
    "parameters_hash",
    "relative_path",
    "require_run_dir",
]

# Packages whose version can change a result: the run-time and notebook requirements.
PACKAGES = (
    *("torch", "lightning", "numpy", "scipy", "xarray", "zarr", "netCDF4", "pandas", "pydantic"),
    *("click", "PyYAML", "matplotlib", "Jinja2", "papermill", "nbformat", "nbclient", "ipykernel"),
)
RUN_DIR = "run_dir"  # parameter through which a notebook receives its folder

Status = Literal["created", "running", "complete", "failed", "interrupted"]
_ENDED = ("complete", "failed", "interrupted")


class Failure(Config):
    """Why a run did not complete."""

    type: str
    message: str
    cell: int | None = None  # index in the notebook, from 0


class RunRecord(Config):
    """Content of run.json."""

    schema_version: Literal[1] = 1
    status: Status
    started_by: Literal["aqnet run", "notebook", "script"]
    notebook: str
    notebook_path: str | None
    notebook_sha256: str | None
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    error: Failure | None = None


class Provenance(Config):
    """Content of provenance.json."""

    schema_version: Literal[1] = 1
    parameters_sha256: str
    data: dict[str, str] = Field(default_factory=dict)  # name -> sha256
    aqnet: str
    packages: dict[str, str]
    git: GitState
    python: str
    platform: str
    cpu_count: int
    cpu_usable: int


# ---- what is recorded


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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _provenance(parameters: Mapping[str, Value]) -> Provenance:
    return Provenance(
        parameters_sha256=parameters_hash(parameters),
        aqnet=aqnet.__version__,
        packages={name: _version(name) for name in PACKAGES},
        git=git_state(Path(aqnet.__file__).parent),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 0,
        cpu_usable=len(os.sched_getaffinity(0)),
    )


def _plain(value: object, where: str) -> object:
    """Metrics as JSON values; NaN has no place there and would hide a missing measurement."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (value is None or isinstance(value, (bool, int, float, str))):
        return value
    message = explain(
        f"cannot store {where}",
        expected="finite numbers, text, true/false, None, lists and mappings",
        found=f"{value!r:.80} ({type(value).__name__})",
        remedy="store None where nothing was measured",
    )
    raise RunError(message)


_Model = TypeVar("_Model", RunRecord, Provenance)


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        found, cause = "no such file", None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "whole file"
        found, cause = f"{key}: {first['msg']}", error
    message = explain(
        f"{path.parent} is not a usable run folder",
        expected=f"{path.name} of schema version 1",
        found=found,
        remedy="move the folder away, and repeat the run with `aqnet run`",
    )
    raise RunError(message) from cause


def _dump(path: Path, model: Config) -> None:
    atomic_write_json(path, model.model_dump(mode="json"))


def _now() -> datetime:
    return datetime.now(UTC)


# ---- the folder


class RunFolder:
    """One run on disk. Make one with `create`, `for_notebook` or `open`.

    Attributes
    ----------
    path : pathlib.Path
        Absolute path of the folder.
    writer : bool
        Of the class: False in the processes of a script whose rank is not 0, which find the
        folder as rank 0 keeps it; there, methods that write do nothing.
    """

    writer: bool = True

    def __init__(self, path: Path):
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({self.path.name}, {self.record.status})"

    @classmethod
    def create(
        cls,
        notebook: str | Path,
        parameters: Mapping[str, Value],
        root: str | Path | None = None,
        *,
        notebook_sha256: str | None = None,
        started_by: Literal["aqnet run", "notebook", "script"] = "aqnet run",
        path: str | Path | None = None,
    ) -> RunFolder:
        """Create a run folder with status `created`.

        Parameters
        ----------
        notebook : path or str
            Notebook file, or a name such as `train/forecast`.
        parameters : mapping
            Typed parameters, as `aqnet.jobs.parameters.resolve` gives them.
        root : path, optional
            Folder of all runs; `aqnet.io.runs_root()` by default.
        notebook_sha256 : str, optional
            `code_digest` of what is executed; computed from the file if it exists.
        started_by : str
            `aqnet run`, `notebook` for a notebook open in JupyterLab, or `script`.
        path : path, optional
            The folder itself, instead of a new name below `root`.

        Raises
        ------
        TargetExistsError
            `path` exists.
        StorageFullError
            No room; nothing is left behind.
        """
        root = (Path(root) if root is not None else runs_root()).absolute()
        file = Path(notebook)
        if notebook_sha256 is None and file.is_file():
            notebook_sha256 = code_digest(read_notebook(file))
        record = RunRecord(
            status="created",
            started_by=started_by,
            notebook=notebook_label(notebook),
            notebook_path=_notebook_path(file),
            notebook_sha256=notebook_sha256,
            created=_now(),
        )
        if path is not None:
            with atomic_directory(path) as folder:
                _fill(folder, record, parameters)
            return cls.open(path)
        digest = parameters_hash(parameters)[:8]
        base = f"{record.created:%Y%m%dT%H%M%S}-{record.notebook}-{digest}"
        for count in itertools.count(1):
            path = root / (base if count == 1 else f"{base}-{count}")
            try:
                with atomic_directory(path) as folder:
                    _fill(folder, record, parameters)
            except TargetExistsError:
                continue
            return cls(path)
        raise AssertionError("itertools.count does not end")

    @classmethod
    def for_notebook(
        cls, run_dir: str, notebook_name: str, parameters: Mapping[str, Value]
    ) -> RunFolder:
        """Give a notebook its run folder, under `aqnet run` and in JupyterLab alike.

        Parameters
        ----------
        run_dir : str
            Parameter that `aqnet run` sets; empty in JupyterLab, where a folder is created.
        notebook_name : str
            Path below `nbs` without ending, such as `train/forecast`.
        parameters : mapping
            The notebook's parameters by name.

        Returns
        -------
        RunFolder
            With status `running`. The notebook's last cell calls `finish`.
        """
        if run_dir:
            return cls.open(run_dir)
        file = repository_root() / "nbs" / f"{notebook_name.removesuffix('.ipynb')}.ipynb"
        notebook = file if file.is_file() else notebook_name
        folder = cls.create(notebook, parameters, started_by="notebook")
        folder.set_status("running")
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run folder.

        Raises
        ------
        RunError
            run.json is missing or not of this schema.
        """
        path = Path(path).absolute()
        if cls.writer:
            _load(path / "run.json", RunRecord)
        return cls(path)

    @property
    def record(self) -> RunRecord:
        """Content of run.json, read anew."""
        return _load(self.path / "run.json", RunRecord)

    @property
    def provenance(self) -> Provenance:
        """Content of provenance.json, read anew."""
        return _load(self.path / "provenance.json", Provenance)

    @property
    def parameters(self) -> dict[str, Value]:
        """Content of parameters.yaml."""
        return read_yaml(self.path / "parameters.yaml", RunError)

    @property
    def checkpoints(self) -> Path:
        """Folder of model states."""
        return self.path / "checkpoints"

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        return self.path / "report.html"

    @property
    def log_path(self) -> Path:
        """Output of the cells."""
        return self.path / "log.txt"

    @property
    def notebook_path(self) -> Path:
        """Executed notebook."""
        return self.path / "notebook.ipynb"

    @property
    def metrics_path(self) -> Path:
        """What `write_metrics` writes."""
        return self.path / "metrics.json"

    def set_status(self, status: Status, error: Failure | None = None) -> None:
        """Change the status, atomically, and note the time.

        Parameters
        ----------
        status : str
            created, running, complete, failed or interrupted.
        error : Failure, optional
            Why the run failed or was interrupted.
        """
        if not self.writer:
            return
        change: dict = {"status": status, "error": error}
        if status == "running":
            change |= {"started": _now(), "ended": None}
        if status in _ENDED:
            change["ended"] = _now()
        record = RunRecord.model_validate(dict(self.record) | change)
        _dump(self.path / "run.json", record)

    def finish(self) -> None:
        """Mark a run of JupyterLab as complete; otherwise the command or script decides."""
        if self.writer and self.record.started_by == "notebook":
            self.set_status("complete")

    def record_data(self, name: str, sha256: str) -> None:
        """Note the digest of data that the run reads.

        Raises
        ------
        RunError
            Not a SHA-256, or another digest of the same name is noted already.
        """
        if not self.writer:
            return
        provenance = self.provenance
        known = provenance.data.get(name, sha256)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or known != sha256:
            message = explain(
                f"cannot note the digest of {name} in {self.path.name}",
                expected="64 hexadecimal digits" if known == sha256 else f"{known}, as before",
                found=sha256,
                remedy="rebuild the data and start a new run: one run reads one version",
            )
            raise RunError(message)
        data = provenance.data | {name: sha256}
        _dump(self.path / "provenance.json", provenance.model_copy(update={"data": data}))

    def write_metrics(self, metrics: Mapping) -> None:
        """Write metrics.json as a whole (numpy numbers and arrays become plain ones).

        Raises
        ------
        RunError
            A value is NaN, infinite or not plain; the message names it.
        """
        if self.writer:
            atomic_write_json(self.metrics_path, _plain(metrics, "metrics"))

    def read_metrics(self) -> dict:
        """Content of metrics.json.

        Raises
        ------
        RunError
            The run wrote no metrics.
        """
        if not self.metrics_path.is_file():
            message = explain(
                f"run {self.path.name} has no metrics",
                expected="metrics.json",
                found=f"no such file; the run is {self.record.status}",
                remedy="choose a complete run (`latest_run` does)",
            )
            raise RunError(message)
        return json.loads(self.metrics_path.read_text(encoding="utf-8"))


def relative_path(file: Path) -> str:
    """Path of a notebook within its repository; the mere name for one elsewhere."""
    for folder in file.absolute().parents:
        if (folder / "settings.ini").exists() and (folder / "data_manifests").exists():
            return file.absolute().relative_to(folder).as_posix()
    return file.name


def _notebook_path(file: Path) -> str | None:
    """Path of a notebook; a script gives it in this form, and may run where there is none."""
    if file.is_file():
        return relative_path(file)
    return file.as_posix() if file.suffix == ".ipynb" and not file.is_absolute() else None


def _fill(folder: Path, record: RunRecord, parameters: Mapping[str, Value]) -> None:
    values = {k: v for k, v in parameters.items() if k != RUN_DIR}
    (folder / "checkpoints").mkdir()
    (folder / "parameters.yaml").write_text(
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    _dump(folder / "provenance.json", _provenance(parameters))
    _dump(folder / "run.json", record)


# ---- finding runs


def list_runs(root: str | Path | None = None) -> list[RunFolder]:
    """All runs under a folder, oldest first (folders without run.json are not runs).

    Raises
    ------
    RunError
        A run.json cannot be read.
    """
    root = Path(root) if root is not None else runs_root()
    found = [RunFolder.open(record.parent) for record in root.glob("[!.]*/run.json")]
    return sorted(found, key=lambda run: (run.record.created, run.path.name))


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
    root = Path(root) if root is not None else runs_root()
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
