"""Which of code, data, parameters and environment differ between two runs, and in what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from aqnet.code_state import GitState
from aqnet.jobs.notebook import code_cells, read_notebook
from aqnet.jobs.parameter_types import render
from aqnet.jobs.runs.environment import Environment
from aqnet.jobs.runs.folder import RunFolder
from aqnet.jobs.runs.results import read_digests

__all__ = ["Differences", "compare_runs", "environment_entries", "stored_notebook"]

ABSENT = "-"
NOT_RECORDED = "not recorded"
Entries = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Differences:
    """What differs between two runs: by name, as the first and as the second has it.

    Attributes
    ----------
    code, data, parameters, environment : dict
        Empty where both are the same. What neither recorded is not known to be the same, and an
        entry says so.
    """

    code: Entries
    data: Entries
    parameters: Entries
    environment: Entries

    @property
    def equal(self) -> bool:
        """Whether all is the same."""
        return not (self.code or self.data or self.parameters or self.environment)


def _short(digest: str | None) -> str:
    return NOT_RECORDED if digest is None else digest[:12]


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> Entries:
    names = [*a, *(name for name in b if name not in a)]
    pairs = {name: (a.get(name, ABSENT), b.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


# ---- code


def stored_notebook(run: RunFolder) -> Path | None:
    """The notebook that the run folder keeps, as it was submitted or executed."""
    paths = (run.path / "staged" / "notebook.ipynb", run.notebook_path)
    return next((path for path in paths if path.is_file()), None)


def run_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Source and tags of the code cells, without the one in which papermill puts parameters."""
    cells = [(source, sorted(tags)) for _, source, tags in code_cells(read_notebook(path))]
    return [cell for cell in cells if "injected-parameters" not in cell[1]]


def _cell_entries(a: Path, b: Path) -> Entries:
    """First differing line of each code cell that differs."""
    found: Entries = {}
    for number, pair in enumerate(zip_longest(run_cells(a), run_cells(b)), start=1):
        if pair[0] == pair[1]:
            continue
        lines = [ABSENT if cell is None else cell[0] for cell in pair]
        if None not in pair and pair[0][0] != pair[1][0]:
            both = zip_longest(*(text.splitlines() for text in lines), fillvalue=ABSENT)
            lines = list(next((x, y) for x, y in both if x != y))
        elif None not in pair:
            lines = [f"tags {cell[1]}" for cell in pair]
        found[f"code cell {number}"] = tuple(f"{text.strip().splitlines()[0]:.60}"
                                             if text.strip() else "" for text in lines)  # fmt: skip
    return found


def _notebook(a: RunFolder, b: RunFolder) -> Entries:
    first, second = a.record, b.record
    if first.notebook != second.notebook:
        return {"notebook": (first.notebook, second.notebook)}
    digests = first.notebook_sha256, second.notebook_sha256
    if digests[0] == digests[1] is not None:
        return {}
    files = stored_notebook(a), stored_notebook(b)
    cells = _cell_entries(*files) if None not in files else {}
    return cells or {"notebook code": tuple(map(_short, digests))}


def _script(a: RunFolder, b: RunFolder) -> Entries:
    digests = [run.provenance.script_sha256 for run in (a, b)]
    if None in digests or digests[0] == digests[1]:
        return {}
    return {"script": tuple(map(_short, digests))}


def _state(git: GitState) -> dict[str, str]:
    files = {line[3:]: f"changed ({line[:2].strip()})" for line in git.dirty}
    return {"commit": _short(git.commit), "changes": _short(git.diff_sha256), **files}


def _package(a: RunFolder, b: RunFolder) -> Entries:
    states = [run.provenance.git for run in (a, b)]
    sources = [state.sources_sha256 for state in states]
    if sources[0] == sources[1] is not None:
        return {}  # the same code, whatever else has changed in the work tree
    versions = [run.provenance.aqnet for run in (a, b)]
    found = {"aqnet": tuple(f"{v}, sources {_short(s)}"
                            for v, s in zip(versions, sources, strict=True))}  # fmt: skip
    found |= _differing(*map(_state, states))
    lists = [run.path / "staged.sha256" for run in (a, b)]
    if all(path.is_file() for path in lists):
        code = [{p: _short(d) for p, d in read_digests(path).items() if p.endswith(".py")}
                for path in lists]  # fmt: skip
        found |= _differing(*code)
    return found


# ---- the others


def environment_entries(a: Environment, b: Environment) -> Entries:
    """Interpreter, build of torch and distributions that differ."""
    plain = [
        {"python": e.python}
        | {f"torch {name}": str(value) for name, value in e.torch.items()}
        | e.distributions
        for e in (a, b)
    ]
    return _differing(*plain)


def _environment(a: RunFolder, b: RunFolder) -> Entries:
    pair = a.environment, b.environment
    if None not in pair:
        return environment_entries(*pair)
    words = [NOT_RECORDED if each is None else f"sha256 {_short(each.sha256)}" for each in pair]
    return {"environment": tuple(words)}


def _data(a: RunFolder, b: RunFolder) -> Entries:
    named = [{n: _short(d) for n, d in r.provenance.data.items()} for r in (a, b)]
    return _differing(*named)


def compare_runs(a: RunFolder, b: RunFolder) -> Differences:
    """What differs between two runs.

    Raises
    ------
    RunError
        A record of one of them cannot be read.
    """
    values = [{n: render(v) for n, v in run.parameters.items()} for run in (a, b)]
    code = (_notebook(a, b) or _script(a, b)) | _package(a, b)
    return Differences(code, _data(a, b), _differing(*values), _environment(a, b))
