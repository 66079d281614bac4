"""What an array of jobs notes of its elements, with an sbatch that takes every job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sweep_case import begin
from test_profiles import SITE

from aqnet.code_state import git_state
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.runs.verify import verify_run
from aqnet.jobs.sweeps.cluster import cluster_of
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.slurm import submit_arrays

SBATCH = 'case "$1" in --test-only) cat >/dev/null;; *) echo 4242;; esac'


def submit(sweep: Sweep) -> None:
    settings = SITE | {"per_node": "4", "array_limit": "4"}
    submit_arrays(sweep, cluster_of("cpu", settings, 1, None), True, lambda line: None)


@pytest.fixture
def element(toy, monkeypatch) -> RunFolder:
    """The one element of an array, which has not started."""
    commands = toy / "bin"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": ""}.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    sweep = begin(toy, grid={"width": [2]})
    submit(sweep)
    return RunFolder.open(sweep.runs / sweep.points[0].run)


def said(run: RunFolder) -> dict[str, str]:
    return {check.name: check.status for check in verify_run(run)}


def shared(run: RunFolder, key: str) -> Path:
    """A file of the sweep, as submission.json of an element names it."""
    return (run.path / json.loads((run.path / "submission.json").read_text())[key]).resolve()


def test_files_that_elements_share_are_verified_where_the_sweep_keeps_them(element):
    found = said(element)
    assert {found[n] for n in ("job.sbatch", "staged.sha256", "staged", "package")} == {"ok"}
    script, staged = shared(element, "script"), shared(element, "staged").parent / "staged"
    assert script.parent.name == "001" and staged.parent.name == "code-1"
    for path in (script, staged / "aqnet/errors.py"):
        path.chmod(0o644)
        path.open("a").write("# later\n")
    wrong = {name for name, status in said(element).items() if status == "mismatch"}
    assert wrong == {"job.sbatch", "staged staged/aqnet/errors.py", "package"}


def test_without_the_folder_of_the_sweep_its_files_are_not_checked(element):
    shared(element, "staged").parents[1].rename(element.path.parent / "elsewhere")
    found = said(element)
    assert found["job.sbatch"] == found["staged.sha256"] == "unchecked"
    assert "staged" not in found


def test_what_an_older_aqnet_did_not_note_is_not_checked(element):
    file = element.path / "submission.json"
    noted = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in noted.items() if k not in ("script", "staged")}))
    found = said(element)
    assert found["job.sbatch"] == found["staged.sha256"] == "unchecked"
    assert "mismatch" not in found.values()


def test_the_provenance_of_an_element_is_that_of_the_code_it_runs(toy, element):
    """Not that of the work tree from which a later array is submitted."""
    staged = shared(element, "staged").parent / "staged/aqnet"
    state = staged / "git_state.json"
    state.chmod(0o644)
    state.write_text(json.dumps(json.loads(state.read_text()) | {"commit": "0" * 40}))
    element.set_status("running")
    element.set_status("failed")
    submit(Sweep.open("widths"))
    later = RunFolder.open(f"{element.path}-try2")
    assert later.provenance.git == git_state(staged) and later.provenance.git.commit == "0" * 40
