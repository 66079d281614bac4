"""The folder of a run: making it, its status, what the run notes in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from aqnet.io import (
    atomic_write_bytes,
    atomic_write_json,
    repository_root,
    runs_root,
    sha256_file,
)
from aqnet.jobs.notebook import code_digest, read_notebook
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import check_values
from aqnet.jobs.runs.attempts import begin_attempt, end_attempt, log_of_job
from aqnet.jobs.runs.contents import RunContents
from aqnet.jobs.runs.creation import make_folder, make_new_folder
from aqnet.jobs.runs.metrics import plain
from aqnet.jobs.runs.naming import notebook_label, recorded_path
from aqnet.jobs.runs.output import copy_output, end_copy
from aqnet.jobs.runs.record import ENDED, Failure, RunRecord, Status, dump, load
from aqnet.jobs.runs.results import RESULTS, write_results

__all__ = ["RunFolder"]


def _in_a_kernel() -> bool:
    """Whether IPython runs the cells of this process."""
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


class RunFolder(RunContents):
    """One run on disk. Make one with `create`, `for_notebook` or `open`.

    Attributes
    ----------
    writer : bool
        Of the class: False in the processes of a script whose rank is not 0, which find the
        folder as rank 0 keeps it; there, methods that write do nothing.
    """

    writer: bool = True

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
        package: Path | None = None,
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
        package : path, optional
            Of aqnet that will run, for the provenance: a staged one; this one by default.

        Raises
        ------
        TargetExistsError
            `path` exists.
        StorageFullError
            No room; nothing is left behind.
        """
        file = Path(notebook)
        if notebook_sha256 is None and file.is_file():
            notebook_sha256 = code_digest(read_notebook(file))
        record = RunRecord(
            status="created",
            started_by=started_by,
            notebook=notebook_label(notebook),
            notebook_path=recorded_path(file),
            notebook_sha256=notebook_sha256,
            created=datetime.now(UTC),
        )
        if path is not None:
            return cls(make_folder(Path(path).absolute(), record, parameters, package))
        return cls(make_new_folder(runs_root(root), record, parameters, package))

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

        Raises
        ------
        ParameterError
            Values typed into the parameters cell in JupyterLab are of a wrong type or out of range,
            or the notebook was not saved since parameters were added or taken away.
        """
        if run_dir:
            return cls.open(run_dir)
        file = repository_root() / "nbs" / f"{notebook_name.removesuffix('.ipynb')}.ipynb"
        saved = file.is_file()
        if saved:
            check_values(parse_parameters(file), parameters, str(file))
        folder = cls.create(file if saved else notebook_name, parameters, started_by="notebook")
        if saved:
            atomic_write_bytes(folder.notebook_path, file.read_bytes())
        folder.set_status("running")
        if _in_a_kernel():
            copy_output(folder.log_path)
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
            load(path / "run.json", RunRecord)
        return cls(path)

    def set_status(
        self, status: Status, error: Failure | None = None, exit_code: int | None = None
    ) -> None:
        """Change the status, atomically, and note the time; `running` begins an attempt.

        Parameters
        ----------
        status : str
            created, running, complete, failed or interrupted.
        error : Failure, optional
            Why the run failed or was interrupted.
        exit_code : int, optional
            Of the process, where it is known.
        """
        if not self.writer:
            return
        change: dict = {"status": status, "error": error}
        if status == "running":
            (self.path / RESULTS).unlink(missing_ok=True)
            change |= {"started": begin_attempt(self.path).started, "ended": None}
        if status == "complete":
            write_results(self.path)
        if status in ENDED:
            change["ended"] = datetime.now(UTC)
        dump(self.path / "run.json", RunRecord.model_validate(dict(self.record) | change))
        if status in ENDED:
            end_attempt(self.path, status, exit_code, error)

    def finish(self) -> None:
        """Mark a run of JupyterLab as complete; otherwise the command or script decides."""
        if self.writer and self.record.started_by == "notebook":
            end_copy()
            self.set_status("complete")

    def begin_script(self, script: Path | None) -> None:
        """Note the script that runs, begin an attempt, and keep what it prints.

        Parameters
        ----------
        script : Path or None
            A copy is kept, unless it was staged for this run. None: code without a file.
        """
        if not self.writer:
            return
        if script is not None:
            self._note_script(script)
        self.set_status("running")
        if log_of_job(self.path) is None:
            copy_output(self.log_path)

    def _note_script(self, script: Path) -> None:
        digest, provenance = sha256_file(script), self.provenance
        if not (self.path / "staged").exists():
            atomic_write_bytes(self.path / "script.py", script.read_bytes())
        if digest != provenance.script_sha256:
            change = {"script_sha256": digest}
            dump(self.path / "provenance.json", provenance.model_copy(update=change))

    def record_data(self, name: str, sha256: str, path: str | Path | None = None) -> None:
        """Note the digest of data that the run reads.

        Parameters
        ----------
        name : str
        sha256 : str
            Of the content of a store or cache, or of the bytes of any other file.
        path : path, optional
            Where it lies, so that `aqnet runs verify` can compute the digest anew.

        Raises
        ------
        RunError
            Not a SHA-256, or another digest of the same name is noted already.
        """
        if self.writer:
            place = None if path is None else str(Path(path).absolute())
            changed = self.provenance.with_data(name, sha256, place)
            dump(self.path / "provenance.json", changed)

    def write_metrics(self, metrics: Mapping) -> None:
        """Write metrics.json as a whole (numpy numbers and arrays become plain ones).

        Raises
        ------
        RunError
            A value is NaN, infinite or not plain; the message names it.
        """
        if self.writer:
            atomic_write_json(self.metrics_path, plain(metrics, "metrics"))
