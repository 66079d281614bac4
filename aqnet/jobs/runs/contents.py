"""What a run folder holds, to be read: records, parameters, metrics, and where the files are."""

from __future__ import annotations

import json
from pathlib import Path

from aqnet.config import read_yaml
from aqnet.errors import RunError, explain
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.runs.attempts import read_attempts
from aqnet.jobs.runs.environment import Environment
from aqnet.jobs.runs.record import Attempt, Provenance, RunRecord, load

__all__ = ["RunContents"]


class RunContents:
    """Reads a run folder; every property reads anew.

    Attributes
    ----------
    path : pathlib.Path
        Absolute path of the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.name}, {self.record.status})"

    @property
    def record(self) -> RunRecord:
        """Content of run.json."""
        return load(self.path / "run.json", RunRecord)

    @property
    def provenance(self) -> Provenance:
        """Content of provenance.json."""
        return load(self.path / "provenance.json", Provenance)

    @property
    def parameters(self) -> dict[str, Value]:
        """Content of parameters.yaml."""
        return read_yaml(self.path / "parameters.yaml", RunError)

    @property
    def attempts(self) -> list[Attempt]:
        """The starts of this run, in order."""
        return read_attempts(self.path)

    @property
    def environment(self) -> Environment | None:
        """Interpreter and packages of the last start; None before the first."""
        return next((each.environment for each in reversed(self.attempts)), None)

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
        """What the last start printed, or the first will."""
        last = next((each.log for each in reversed(self.attempts) if each.log), None)
        return self.path / (last or "logs/attempt-1.log")

    @property
    def notebook_path(self) -> Path:
        """Executed notebook."""
        return self.path / "notebook.ipynb"

    @property
    def metrics_path(self) -> Path:
        """What `write_metrics` writes."""
        return self.path / "metrics.json"

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
