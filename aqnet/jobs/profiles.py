"""Profiles of clusters: settings of a job, each with its value and the reason for it.

A profile is a YAML file in `slurm/`. A setting is a *fact* of the cluster (with its source), a
*choice*, or a *workaround* (with a way to find out whether it is still needed). What nobody but the
user can know is not guessed: `required: true` in place of a value, to be given with `--set`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from aqnet.config import Config, load_yaml
from aqnet.errors import ParameterError, did_you_mean, explain
from aqnet.io import repository_root
from aqnet.jobs.machine import Machine
from aqnet.jobs.settings import Asked, Count, Positive, Required, Setting, Text, Word

__all__ = [
    "GIVEN",
    "Partition",
    "Profile",
    "Required",
    "Setting",
    "list_profiles",
    "load_profile",
    "parse_settings",
    "seconds_of",
]

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Option = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
Duration = Annotated[str, StringConstraints(pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$")]
_BY_HAND = "given by hand"


class Partition(Config):
    """Limits of a partition, as documented on a date.

    Attributes
    ----------
    name : str
    max_nodes, max_hours, max_jobs : int or None
        Of one job; running and waiting jobs of a user, which is shown and not checked: how many
        there are is for SLURM to say. None: not documented.
    whole_nodes : bool
        Nodes are never shared, so a job gets and pays for all of each.
    use : str
        What it is for here.
    source : str
    dated : datetime.date
        Latest day on which the source is known to have said this.
    """

    name: Word
    max_nodes: Count | None
    max_hours: Count | None
    max_jobs: Count | None
    whole_nodes: bool
    use: Text
    source: Text
    dated: date


class Container(Config):
    """How a command is run inside the image: `command`, binds, image, then the command itself."""

    image: Asked[Text]  # path of the image
    command: Setting[tuple[Word, ...]]  # that runs it, before its binds


class Profile(Config):
    """All that a job script of a cluster says; see `slurm/README.md` for the meaning of each key.

    `gpu` is what this cluster calls one GPU; a job has one process for each.
    """

    name: Word  # as `--profile` finds it
    title: Text  # the cluster, in one line
    gpu: Text  # what this cluster calls one GPU
    accelerator: Setting[Literal["cpu", "cuda"]]  # device of torch, given to the notebook
    account: Asked[Word | None]  # project to bill
    partitions: tuple[Partition, ...] = ()  # documented limits; all but max_jobs are checked
    partition: Asked[Word | None]  # where jobs go
    small_partition: Setting[Word | None]  # for jobs of less than a node
    rehearsal_partition: Setting[Word | None]  # of rehearsals; null: that of other jobs
    time: Asked[Duration]  # limit of a job, hours:minutes:seconds
    stop_seconds: Setting[Count]  # SIGUSR1 so long before the limit, for a checkpoint [s]
    # how a run goes on after the limit
    continue_by: Setting[Literal["requeue", "resubmit", "nothing"]]
    continuations: Setting[Annotated[int, Field(ge=0)]]  # how often, for preflight
    allocation_gpu_hours: Setting[Positive | None]  # billed, that are left; for preflight
    array_limit: Asked[Count]  # jobs of a sweep that may be queued at once
    per_node: Asked[Count]  # processes of a node
    cpus_per_task: Asked[Count]  # cores of a process
    memory_gb: Setting[Positive | None]  # of a process [GB]
    gpu_request: Setting[Literal["gpus-per-node", "gres", "none"]]  # how GPUs are asked for
    billed: Setting[Positive]  # billed GPU-hours for each GPU and hour
    cpu_masks: Setting[tuple[str, ...]]  # cores of each process of a whole node
    gpu_numa: Setting[tuple[int, ...]]  # NUMA node of each GPU, for the check of binding
    fabric: Setting[Text | None]  # what the collective library prints about a fast network
    directives: dict[Option, Setting[str | int | bool]]  # more options of sbatch
    srun: dict[Option, Setting[str | int | bool]]  # more options of srun
    unset: dict[Variable, Setting[None]]  # variables to remove
    commands: Setting[tuple[tuple[Word, ...], ...]]  # before the run
    environment: dict[Variable, Setting[str]]  # variables to set
    folders: Setting[tuple[str, ...]]  # to make; {job} is the number of the job
    container: Container | None = None  # image and command; null: none
    python: Setting[Word | None]  # interpreter; null: the one that submits
    machine: Machine | None = None  # stated figures, for predictions; null: not known

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        masks, nodes = len(self.cpu_masks.value), len(self.gpu_numa.value)
        per_node = getattr(self.per_node, "value", None)
        if (masks and masks != per_node) or nodes not in (0, masks):
            raise ValueError(f"cpu_masks and gpu_numa need one entry per process: {per_node}")
        names = [partition.name for partition in self.partitions]
        chosen = (self.partition, self.small_partition, self.rehearsal_partition)
        own = {s.value for s in chosen if isinstance(s, Setting) and s.reason != _BY_HAND}
        unknown = own - {None, *names}
        if names and unknown:
            raise ValueError(f"no limits are given of the partitions {sorted(unknown)}")
        return self

    def limits(self, name: str | None) -> Partition | None:
        """Limits of a partition; None if the profile does not know it."""
        return next((p for p in self.partitions if p.name == name), None)

    def given(self, values: Mapping[str, str]) -> Profile:
        """The profile with values of the user in place of its own, by the names in `GIVEN`.

        Raises
        ------
        ParameterError
            Unknown name, or not a value of that kind.
        """
        change: dict[str, object] = {}
        for name, text in values.items():
            if name not in GIVEN:
                raise _unknown_setting(name)
            setting = {"value": _convert(name, text), "kind": "choice", "reason": _BY_HAND}
            change[name] = setting
        plain = self.model_dump()
        for name, setting in change.items():
            part = _PARTS.get(name)
            if part is not None and plain[part] is None:
                raise ParameterError(explain(
                    f"the profile {self.name} has no section {part}", expected=f"no {name}",
                    found=f"{name}={values[name]}", remedy="add it, in a profile of your own",
                ))  # fmt: skip
            (plain[part] if part else plain)[name] = setting
        try:
            return Profile.model_validate(plain)
        except ValidationError as error:
            text = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ParameterError(explain(
                f"the profile {self.name} does not take these settings", expected=text,
                found=", ".join(f"{n}={v}" for n, v in values.items()),
                remedy="change them in a profile of your own",
            )) from error  # fmt: skip

    def missing(self) -> dict[str, str]:
        """Settings that the user still has to give, with the reason."""
        found = {name: getattr(self, name) for name in GIVEN if name not in _PARTS}
        if self.container is not None:
            found["image"] = self.container.image
        needed = {n: s.reason for n, s in found.items() if isinstance(s, Required)}
        needed.pop("array_limit", None)  # only a sweep asks for it
        return needed


_FIGURES = [name for name in Machine.model_fields if name not in ("peak_tflops", "reached")]
# Settings that stand in a section of their own.
_PARTS = {"image": "container"} | dict.fromkeys(_FIGURES, "machine")
# Settings that `--set` changes, and what their text must be.
GIVEN = {
    "account": str, "partition": str, "small_partition": str, "rehearsal_partition": str,
    "time": "duration", "per_node": int, "cpus_per_task": int, "memory_gb": float,
    "array_limit": int, "image": str, "python": str, "allocation_gpu_hours": float,
    **dict.fromkeys(_FIGURES, float),
}  # fmt: skip


def parse_settings(items: Sequence[str], account: str | None = None) -> dict[str, str]:
    """Split `name=value` texts, as given with `--set`; `account` is one more of them.

    Raises
    ------
    ParameterError
        A text without `=` or name, or a name given twice.
    """
    found: dict[str, str] = {}
    for item in [*items, *([] if account is None else [f"account={account}"])]:
        name, separator, value = item.partition("=")
        if not separator or not name or name in found:
            again = f", after {name}={found[name]}" if name in found else ""
            raise ParameterError(
                explain(
                    "a setting must be given once, as name=value",
                    expected="--set name=value",
                    found=f"{item}{again}",
                    remedy="give each setting once",
                )
            )
        found[name] = value
    return found


def seconds_of(duration: str) -> int:
    """Seconds of `HH:MM:SS` or `D-HH:MM:SS`."""
    days, _, clock = duration.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _convert(name: str, text: str) -> object:
    kind = GIVEN[name]
    forms = {
        str: (r"\S(.*\S)?", "text of one line", str),
        int: (r"[1-9]\d*", "a whole number from 1", int),
        float: (r"\d+(\.\d+)?", "a number", float),
        "duration": (r"(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d", "HH:MM:SS or D-HH:MM:SS", str),
    }
    pattern, expected, converter = forms[kind]
    value = converter(text) if re.fullmatch(pattern, text) else None
    if value is None or (kind == "duration" and not seconds_of(text)):
        remedy = f"--set {name}=..."
        raise ParameterError(explain(
            f"setting {name} has the wrong form", expected=expected, found=repr(text), remedy=remedy
        ))  # fmt: skip
    return value


def _unknown_setting(name: str) -> ParameterError:
    return ParameterError(explain(
        f"unknown setting {name}", expected=f"one of {', '.join(GIVEN)}", found=name,
        remedy=did_you_mean(name, GIVEN, "change it in a profile of your own"),
    ))  # fmt: skip


def list_profiles() -> list[str]:
    """Names of the profiles of the repository; sweeps for clusters lie in the same folder."""
    files = sorted((repository_root() / "slurm").glob("*.yaml"))
    return [file.stem for file in files if "\naccelerator:" in file.read_text(encoding="utf-8")]


def load_profile(name: str) -> Profile:
    """Read a profile by its name in `slurm/`, or by its path if `name` ends in .yaml.

    Raises
    ------
    ParameterError
        There is none, or it is not valid.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return load_yaml(name, Profile, ParameterError)
    if name not in list_profiles():
        raise ParameterError(explain(
            f"there is no profile {name}", expected=f"one of {', '.join(list_profiles())}",
            found=name, remedy="or the path of a profile of your own, ending in .yaml",
        ))  # fmt: skip
    return load_yaml(repository_root() / "slurm" / f"{name}.yaml", Profile, ParameterError)
