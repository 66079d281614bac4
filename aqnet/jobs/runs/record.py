"""The records of a run folder, and how they are read and written."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from aqnet.code_state import GitState
from aqnet.config import Config
from aqnet.errors import RunError, explain
from aqnet.io import atomic_write_json
from aqnet.jobs.runs.environment import Environment

__all__ = ["ENDED", "Attempt", "Failure", "Provenance", "RunRecord", "Status", "dump", "load"]

Status = Literal["created", "running", "complete", "failed", "interrupted"]
ENDED = ("complete", "failed", "interrupted")
# Part of the environment, which version 1 of provenance.json held; now in each attempt, whole.
_OF_VERSION_1 = ("packages", "python", "platform", "cpu_count", "cpu_usable")


class Failure(Config):
    """Why a run did not complete."""

    type: str  # class of the error
    message: str  # its text
    cell: int | None = None  # index in the notebook, from 0


class RunRecord(Config):
    """Content of run.json."""

    schema_version: Literal[1] = 1
    status: Status  # of the run
    started_by: Literal["aqnet run", "notebook", "script"]  # what began it
    notebook: str  # its label, such as train-forecast
    notebook_path: str | None  # relative to the repository, where it lies inside
    notebook_sha256: str | None  # over its code
    created: datetime  # of the folder, UTC
    started: datetime | None = None  # of the last start, UTC
    ended: datetime | None = None  # of that start, UTC
    error: Failure | None = None  # of a run that did not complete


class Provenance(Config):
    """Content of provenance.json: what a run is made from.

    Attributes
    ----------
    parameters_sha256 : str
        `parameters_hash`.
    script_sha256 : str or None
        Of the compiled script's bytes, if the run is that of a script.
    data : dict
        SHA-256 by name of all that was read: stores, statistics, caches, checkpoints, and what
        follows from them (grid, mask, normaliser).
    places : dict
        Path by name, for data that lie in one file or store.
    aqnet : str
        Version.
    git : GitState
    """

    schema_version: Literal[2] = 2
    parameters_sha256: str
    script_sha256: str | None = None
    data: dict[str, str] = Field(default_factory=dict)
    places: dict[str, str] = Field(default_factory=dict)
    aqnet: str
    git: GitState

    def with_data(self, name: str, sha256: str, place: str | None) -> Provenance:
        """The same with the digest of one more data set, and where it lies if that is known.

        Raises
        ------
        RunError
            Not a SHA-256, or another digest of the same name is noted already.
        """
        known = self.data.get(name, sha256)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or known != sha256:
            message = explain(
                f"cannot note the digest of {name}",
                expected="64 hexadecimal digits" if known == sha256 else f"{known}, as before",
                found=sha256,
                remedy="rebuild the data and start a new run: one run reads one version",
            )
            raise RunError(message)
        change: dict = {"data": self.data | {name: sha256}}
        if place is not None:
            change["places"] = self.places | {name: place}
        return self.model_copy(update=change)


class Attempt(Config):
    """Content of attempts/NUMBER.json: one start of a run.

    Attributes
    ----------
    number : int
        From 1.
    status : str
        `lost`: the next start found it without an end; it was killed, or its node failed.
    launcher : str
        What started the processes.
    command : tuple of str
        Arguments of the first process.
    job, restart : str, int or None
        Number of the SLURM job and how often it was requeued before.
    host, hosts : str
        Of the first process; all of the job as SLURM writes them (outside SLURM the same).
    processes : int
        World size.
    pid : int
        Of the first process.
    platform : str
    cpus : int
        That the first process may use.
    started, ended : datetime
        UTC.
    exit_code : int or None
        None while it runs, in JupyterLab, and where it is not known.
    error : Failure or None
    log : str or None
        Path in the run folder.
    sources_sha256 : str or None
        Of the package that ran; see `aqnet.code_state.sources_digest`.
    environment : Environment
        Of the first process.
    """

    schema_version: Literal[1] = 1
    number: int = Field(ge=1)
    status: Literal["running", "complete", "failed", "interrupted", "lost"] = "running"
    launcher: Literal["none", "torchrun", "srun"]
    command: tuple[str, ...]
    job: str | None
    restart: int | None
    host: str
    hosts: str
    processes: int = Field(ge=1)
    pid: int
    platform: str
    cpus: int
    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    error: Failure | None = None
    log: str | None
    sources_sha256: str | None
    environment: Environment


_Model = TypeVar("_Model", RunRecord, Provenance, Attempt)


def _as_version_2(text: str) -> str:
    """provenance.json of version 1 as version 2: its list of some packages goes."""
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("schema_version") != 1:
        return text
    kept = {k: v for k, v in values.items() if k not in _OF_VERSION_1}
    return json.dumps(kept | {"schema_version": 2})


def _checked(path: Path, model: type[_Model]) -> _Model:
    text = path.read_text(encoding="utf-8")
    if model is Provenance:
        text = _as_version_2(text)
    return model.model_validate_json(text, strict=True)


def load(path: Path, model: type[_Model]) -> _Model:
    """Read one of the records.

    Raises
    ------
    RunError
        Not there, or not of the schema; names the first field that is wrong.
    """
    try:
        return _checked(path, model)
    except FileNotFoundError:
        found, cause = "no such file", None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "whole file"
        found, cause = f"{key}: {first['msg']}", error
    except ValueError as error:  # of the JSON or UTF-8 reader
        found, cause = error, error
    known = model.model_fields["schema_version"].default
    message = explain(
        f"{path.parent} is not a usable run folder",
        expected=f"{path.name} of schema version {known}",
        found=found,
        remedy="move the folder away, and repeat the run with `aqnet run`",
    )
    raise RunError(message) from cause


def dump(path: Path, model: Config) -> None:
    """Write one of the records, whole or not at all."""
    atomic_write_json(path, model.model_dump(mode="json"))
