"""Every digest of a run folder, computed anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import aqnet
from aqnet.code_state import GIT_STATE, git_state, sources_digest
from aqnet.errors import AqnetError, RunError
from aqnet.io import sha256_file, sha256_json
from aqnet.jobs.runs.checks import Check, compared, unchecked
from aqnet.jobs.runs.compare import environment_entries, run_cells, stored_notebook
from aqnet.jobs.runs.environment import present_environment
from aqnet.jobs.runs.folder import RunFolder
from aqnet.jobs.runs.naming import parameters_hash
from aqnet.jobs.runs.results import RESULTS, read_digests
from aqnet.jobs.runs.verify_data import check_data

__all__ = ["Check", "verify_run"]

_STAGED, _LIST = "staged", "staged.sha256"


def _submitted(run: RunFolder) -> dict:
    """Content of submission.json; empty if the run was not submitted."""
    file = run.path / "submission.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _place(run: RunFolder, name: str) -> Path:
    """Path of a file that is named relative to the run folder: of an element in its sweep's."""
    return Path(os.path.normpath(run.path / name))


def _code(run: RunFolder) -> Path:
    """Folder of `staged/` and its digests."""
    return _place(run, _submitted(run).get("staged", _LIST)).parent


def _parameters(run: RunFolder) -> Iterator[Check]:
    recorded = run.provenance.parameters_sha256
    yield compared("parameters", recorded, parameters_hash(run.parameters), "parameters.yaml")


# ---- code


def _older(run: RunFolder) -> bool:
    """Whether an older aqnet wrote the records, and perhaps its checkpoints in another form."""
    return run.provenance.git.sources_sha256 is None


def _notebook(run: RunFolder) -> Iterator[Check]:
    recorded, path = run.record.notebook_sha256, stored_notebook(run)
    if recorded is None:
        yield unchecked("notebook code", "no digest was recorded: the notebook was not at hand")
    elif path is None:
        yield unchecked("notebook code", "the run folder holds no copy of the notebook")
    else:
        found = sha256_json([list(cell) for cell in run_cells(path)])
        if found != recorded and _older(run):
            yield unchecked("notebook code", "an older aqnet computed its digest in another way")
            return
        yield compared("notebook code", recorded, found, _within(run, path))


def _script(run: RunFolder) -> Iterator[Check]:
    recorded = run.provenance.script_sha256
    if recorded is None:
        return
    path = run.path / _STAGED / "script.py"
    path = path if path.is_file() else run.path / "script.py"
    if not path.is_file():
        yield unchecked("script", "the run folder holds no copy: it was staged elsewhere")
        return
    yield compared("script", recorded, sha256_file(path), _within(run, path))


def _package(run: RunFolder) -> Iterator[Check]:
    recorded, staged = run.provenance.git.sources_sha256, _code(run) / _STAGED / "aqnet"
    if recorded is None:
        yield unchecked("package", "no digest of its sources was recorded")
        return
    if staged.is_dir():
        yield compared("package", recorded, sources_digest(staged), _within(run, staged))
    else:
        here = Path(aqnet.__file__).parent
        yield compared("package", recorded, sources_digest(here), "aqnet as it is now",
                       other="changed")  # fmt: skip
    for attempt in run.attempts:
        if attempt.sources_sha256 != recorded:
            detail = f"ran sources {attempt.sources_sha256}, not {recorded}"
            yield Check(f"package of attempt {attempt.number}", "mismatch", detail)


def _work_tree(run: RunFolder) -> Iterator[Check]:
    recorded, staged = run.provenance.git, _code(run) / _STAGED / "aqnet"
    if (staged / GIT_STATE).is_file():
        found, where, other = git_state(staged), _within(run, staged / GIT_STATE), "mismatch"
    else:
        found, where, other = git_state(Path(aqnet.__file__).parent), "the work tree now", "changed"
    if recorded.commit is None or recorded.diff_sha256 is None:
        yield unchecked("work tree", f"commit or changes were not recorded: {recorded.state}")
        return
    texts = [f"commit {g.commit}, changes {g.diff_sha256}" for g in (recorded, found)]
    yield compared("work tree", *texts, where, other=other)


# ---- files


def _within(run: RunFolder, path: Path) -> str:
    return os.path.relpath(path, run.path)


def _listed(file: Path, name: str) -> Iterator[Check]:
    """One check for each file that differs from a list of digests, or one for all."""
    listed, wrong = read_digests(file), 0
    for path, digest in listed.items():
        target = file.parent / path
        found = sha256_file(target) if target.is_file() else "no such file"
        if found != digest:
            wrong += 1
            yield compared(f"{name} {path}", digest, found, file.name)
    if not wrong:
        yield Check(name, "ok", f"{len(listed)} files as in {file.name}")


def _staged(run: RunFolder) -> Iterator[Check]:
    folder = _code(run)
    file = folder / _LIST
    if not (folder / _STAGED).is_dir() and not file.exists():
        return
    if not file.is_file():
        yield Check("staged", "mismatch", f"{_LIST} is gone")
        return
    yield from _listed(file, "staged")
    listed = read_digests(file)
    code = (folder / _STAGED / "aqnet").rglob("*.py")
    for path in sorted(each.relative_to(folder).as_posix() for each in code):
        if path not in listed:
            yield Check(f"staged {path}", "mismatch", f"not in {_LIST}: added later")


def _submission(run: RunFolder) -> Iterator[Check]:
    recorded = _submitted(run)
    for name, key in (("job.sbatch", "script"), (_LIST, "staged")):
        if f"{key}_sha256" not in recorded:
            continue
        path = _place(run, recorded.get(key, name))
        if "sweep" in recorded and key not in recorded:
            yield unchecked(name, "an older aqnet did not note where the sweep keeps it")
        elif not path.parent.is_dir():
            yield unchecked(name, f"the folder of the sweep is not here: {_within(run, path)}")
        else:
            found = sha256_file(path) if path.is_file() else "no such file"
            yield compared(name, recorded[f"{key}_sha256"], found, "submission.json")


def _results(run: RunFolder) -> Iterator[Check]:
    file, status = run.path / RESULTS, run.record.status
    if file.is_file():
        yield from _listed(file, "results")
    elif status == "complete" and run.attempts:
        yield Check("results", "mismatch", f"{RESULTS} is gone")
    else:
        reason = f"the run is {status}" if status != "complete" else "a run of an older aqnet"
        yield unchecked("results", f"only a complete run notes their digests; {reason}")


def _checkpoints(run: RunFolder) -> Iterator[Check]:
    """Each checkpoint against the digests in it, and what it says it was trained on."""
    from aqnet.training.checkpoint_file import read_checkpoint

    seen: set[tuple[int, int]] = set()
    data = run.provenance.data
    for path in sorted(run.checkpoints.glob("*.ckpt")):
        status = path.stat()
        if (status.st_dev, status.st_ino) in seen:  # best.ckpt is a second name
            continue
        seen.add((status.st_dev, status.st_ino))
        name = f"checkpoint {path.name}"
        try:
            identity = read_checkpoint(path, training=True).identity
        except AqnetError as error:
            yield Check(name, "unchecked" if _older(run) else "mismatch", str(error))
            continue
        of = identity.digests() if identity else {}
        other = sorted(n for n in of.keys() & data.keys() if of[n] != data[n])
        detail = f"trained on other data: {', '.join(other)}" if other else "whole"
        yield Check(name, "mismatch" if other else "ok", detail)


# ---- environment


def _environment(run: RunFolder) -> Iterator[Check]:
    attempts = run.attempts
    if not attempts:
        yield unchecked("environment", "no start of the run is recorded")
        return
    for attempt in attempts:
        recorded = attempt.environment
        name = f"environment of attempt {attempt.number}"
        yield compared(name, recorded.sha256, recorded.digest(), f"attempts/{attempt.number}.json")
    differ = environment_entries(attempts[-1].environment, present_environment())
    detail = "; ".join(f"{name}: {a} -> {b}" for name, (a, b) in differ.items())
    yield Check("environment here", "changed" if differ else "ok", detail or "as recorded")


_GROUPS: tuple[Callable[[RunFolder], Iterator[Check]], ...] = (
    *(_parameters, _notebook, _script, _package, _work_tree, _staged, _submission),
    *(_environment, _results, _checkpoints),
)


def verify_run(run: RunFolder, deep: bool = False) -> list[Check]:
    """Compute every recorded digest anew.

    Parameters
    ----------
    run : RunFolder
    deep : bool
        Of yearly stores read every hour, not only some of each file.

    Returns
    -------
    list of Check
        `mismatch` where something is not what the run recorded.
    """
    found: list[Check] = []
    for group in _GROUPS:
        try:
            found += group(run)
        except RunError as error:
            found.append(Check(group.__name__.strip("_"), "mismatch", str(error)))
    return found + check_data(run, deep)
