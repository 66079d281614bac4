"""The points of a sweep: every one of them checked, before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aqnet.config import Config
from aqnet.errors import ParameterError, explain
from aqnet.io import repository_root
from aqnet.jobs.notebook import code_digest, read_notebook, run_checks
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import Parameter, resolve
from aqnet.jobs.runs import RUN_DIR, notebook_label, parameters_hash, require_run_dir
from aqnet.jobs.sweeps.definition import (
    SEED,
    SWEEP,
    TRAIN_RUN,
    Arm,
    Given,
    SweepDefinition,
    text_of,
)

__all__ = ["Notebook", "Plan", "Point", "combinations", "plan_sweep"]

_SHOWN = 10  # wrong points in a message


class Point(Config):
    """One point with one seed; the summary of a sweep is kept as another one, after the last.

    Attributes
    ----------
    index : int
        From 0, in the order of the definition.
    label : str
        Arm and settings, without the seed.
    arm, setting : str
        Label of the entry of `list`, and the values from `grid` and `zip`; either may be empty.
    seed : int or None
    parameters : dict
        All typed parameters of the notebook but `run_dir`.
    sha256 : str
        Their `parameters_hash`.
    run, evaluation : str
        Names of the run folders; the second is empty if nothing is evaluated.
    """

    index: int
    label: str
    arm: str
    setting: str
    seed: int | None
    parameters: dict[str, Given]
    sha256: str
    run: str
    evaluation: str

    @property
    def title(self) -> str:
        """Label and seed."""
        return self.label if self.seed is None else f"{self.label}, {SEED}={self.seed}"

    @property
    def values(self) -> dict[str, Value]:
        """`parameters` with lists, as a notebook declares them."""
        return {k: _plain(v) for k, v in self.parameters.items()}


def _plain(value: Given) -> Value:
    return list(value) if isinstance(value, tuple) else value


def _seeds(definition: SweepDefinition) -> Sequence[int | None]:
    if definition.seeds is None:
        return (None,)
    return range(definition.seeds) if isinstance(definition.seeds, int) else definition.seeds


def combinations(definition: SweepDefinition) -> Iterator[tuple[Arm | None, dict, int | None]]:
    """Entry of `list`, values of `zip` and `grid`, and seed of each point, in order."""
    grid = [dict(zip(definition.grid, values, strict=True))
            for values in itertools.product(*definition.grid.values())]  # fmt: skip
    rows = [dict(zip(definition.zip, values, strict=True))
            for values in zip(*definition.zip.values(), strict=True)]  # fmt: skip
    parts = (definition.list or (None,), rows or [{}], grid, _seeds(definition))
    for arm, row, cell, seed in itertools.product(*parts):
        yield arm, row | cell, seed


@dataclass(frozen=True)
class Notebook:
    """A notebook of a sweep as it is now.

    Attributes
    ----------
    path : Path
    content : dict
    sha256 : str
        `code_digest`.
    declared : list of Parameter
    """

    path: Path
    content: dict
    sha256: str
    declared: list[Parameter]

    @classmethod
    def read(cls, name: str, *needed: str) -> Notebook:
        """Read a notebook; relative paths are of the repository.

        Raises
        ------
        ParameterError
            It has no parameters cell, cannot receive its run folder, or lacks one of `needed`.
        """
        path = Path(name) if Path(name).is_absolute() else repository_root() / name
        content = read_notebook(path)
        declared = parse_parameters(content, name)
        require_run_dir(declared, name)
        missing = sorted(set(needed) - {p.name for p in declared})
        if missing:
            raise ParameterError(explain(
                f"{name} does not go into this sweep", expected=f"parameters {', '.join(needed)}",
                found=f"no {', '.join(missing)}", remedy="declare them in its parameters cell",
            ))  # fmt: skip
        return cls(path, content, code_digest(content), declared)

    @property
    def resumable(self) -> bool:
        """Whether a run of it can go on from its checkpoint."""
        return any(p.name == "resume" for p in self.declared)

    def typed(self, given: Mapping[str, object]) -> dict[str, Value]:
        """Typed values of all parameters but `run_dir`, checked as `aqnet run` would.

        Raises
        ------
        ParameterError
        """
        if RUN_DIR in given:
            raise ParameterError(explain(
                f"{RUN_DIR} is set by the sweep", expected="no value", found=given[RUN_DIR],
                remedy=f"leave {RUN_DIR} out",
            ))  # fmt: skip
        values = resolve(self.declared, (), {k: _plain(v) for k, v in given.items()})
        run_checks(self.content, values, str(self.path))
        return {name: value for name, value in values.items() if name != RUN_DIR}


@dataclass(frozen=True)
class Plan:
    """A checked sweep; nothing is written yet.

    Attributes
    ----------
    definition : SweepDefinition
    created : datetime
    notebook : Notebook
    evaluation : Notebook or None
    points : tuple of Point
    summary : Point or None
    summary_notebook : Notebook or None
    """

    definition: SweepDefinition
    created: datetime
    notebook: Notebook
    evaluation: Notebook | None
    points: tuple[Point, ...]
    summary: Point | None
    summary_notebook: Notebook | None


def _checked(definition: SweepDefinition, notebook: Notebook) -> list[tuple]:
    """Arm, setting, seed and typed values of all points, or one error for all that are wrong."""
    found, wrong = [], {}
    for index, (arm, setting, seed) in enumerate(combinations(definition)):
        own = {} if seed is None else {SEED: seed}
        given = definition.parameters | (arm.parameters if arm else {}) | setting | own
        try:
            found.append((arm, setting, seed, notebook.typed(given)))
        except ParameterError as error:
            wrong.setdefault(str(error), []).append(index)
    if wrong:
        count = sum(map(len, wrong.values()))
        head = f"{count} of {count + len(found)} points are wrong; nothing was started"
        parts = [f"points {_few(indices)}: {text}" for text, indices in wrong.items()]
        raise ParameterError("\n".join([head, *parts[:_SHOWN]]))
    return found


def _few(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return shown if len(indices) <= _SHOWN else f"{shown}, ... ({len(indices)})"


def _refuse_duplicates(points: Sequence[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for title, digest in points:
        if digest in first:
            raise ParameterError(explain(
                "two points of the sweep are the same run", expected="different parameters",
                found=f"({first[digest]}) and ({title})", remedy="take one of them out",
            ))  # fmt: skip
        first[digest] = title


def plan_sweep(definition: SweepDefinition) -> Plan:
    """Check all points of a definition, and give them run folders.

    Parameters
    ----------
    definition : SweepDefinition

    Raises
    ------
    ParameterError
        A notebook or a point is wrong (all of them are named), or two points are the same.
    """
    created = datetime.now(UTC)
    needed = () if definition.seeds is None else (SEED,)
    notebook, evaluation = Notebook.read(definition.notebook, *needed), None
    if definition.evaluate is not None:
        evaluation = Notebook.read(definition.evaluate.notebook, TRAIN_RUN)
        evaluation.typed({TRAIN_RUN: "of the point"} | definition.evaluate.parameters)
    found = _checked(definition, notebook)
    hashes = [parameters_hash(values) for *_, values in found]
    digits = next(n for n in (8, 16, 64) if n == 64 or len({h[:n] for h in hashes}) == len(found))
    stamp, points = f"{created:%Y%m%dT%H%M%S}", []
    for index, ((arm, setting, seed, values), digest) in enumerate(zip(found, hashes, strict=True)):
        parts = [arm.name if arm else "", text_of(setting)]
        names = [f"{stamp}-{notebook_label(n.path)}-{digest[:digits]}" if n else ""
                 for n in (notebook, evaluation)]  # fmt: skip
        points.append(Point(
            index=index, label=", ".join(filter(None, parts)) or "as given", arm=parts[0],
            setting=parts[1], seed=seed, parameters=values, sha256=digest,
            run=names[0], evaluation=names[1],
        ))  # fmt: skip
    _refuse_duplicates([(point.title, point.sha256) for point in points])
    closing = _summary(definition, stamp, len(points))
    return Plan(definition, created, notebook, evaluation, tuple(points), *closing)


def _summary(
    definition: SweepDefinition, stamp: str, index: int
) -> tuple[Point, Notebook] | tuple[None, None]:
    if definition.summary is None:
        return None, None
    notebook = Notebook.read(definition.summary.notebook, SWEEP)
    values = notebook.typed(definition.summary.parameters | {SWEEP: definition.name})
    digest = parameters_hash(values)
    run = f"{stamp}-{notebook_label(notebook.path)}-{digest[:8]}"
    return Point(index=index, label="summary", arm="", setting="", seed=None, parameters=values,
                 sha256=digest, run=run, evaluation=""), notebook  # fmt: skip
