"""Run folders: content, identity, status, and finding them again."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_tools import make_notebook

import aqnet
from aqnet.code_state import git_state, sources_digest
from aqnet.errors import ParameterError, RunError
from aqnet.jobs.notebook import code_digest, read_notebook
from aqnet.jobs.runs import (
    Failure,
    RunFolder,
    latest_run,
    list_runs,
    notebook_label,
    parameters_hash,
    present_environment,
)
from aqnet.jobs.runs.creation import make_new_folder

VALUES = {"learning_rate": 1e-4, "hours": [12, 24], "run_dir": "", "name": "a"}
DIGEST = "0" * 64


@pytest.fixture
def run(tmp_path):
    return RunFolder.create("train/beijing", VALUES, tmp_path)


def test_folder_has_the_agreed_name_and_content(run, tmp_path):
    stamp, *label, digest = run.path.name.split("-")
    assert run.path.parent == tmp_path
    assert len(stamp) == 15 and stamp[8] == "T"
    assert label == ["train", "beijing"] and digest == parameters_hash(VALUES)[:8]
    assert sorted(p.name for p in run.path.iterdir()) == [
        "checkpoints",
        "parameters.yaml",
        "provenance.json",
        "run.json",
    ]
    assert run.record.status == "created" and run.record.schema_version == 1
    assert run.parameters == {"learning_rate": 1e-4, "hours": [12, 24], "name": "a"}
    assert run.checkpoints.is_dir() and run.report_path.name == "report.html"


def test_parameters_hash_ignores_order_and_run_folder_but_not_types():
    assert parameters_hash(VALUES) == parameters_hash(dict(reversed(VALUES.items())))
    assert parameters_hash(VALUES) == parameters_hash(VALUES | {"run_dir": "elsewhere"})
    assert parameters_hash({"a": 1}) != parameters_hash({"a": 1.0})
    assert parameters_hash({"a": True}) != parameters_hash({"a": "true"})


def test_runs_of_the_same_second_get_different_folders(run):
    made = [make_new_folder(run.path.parent, run.record, VALUES).name for _ in range(2)]
    assert made == [f"{run.path.name}-2", f"{run.path.name}-3"]


@pytest.mark.parametrize(
    ("notebook", "label"),
    [
        ("nbs/train/beijing.ipynb", "train-beijing"),
        ("/home/me/aqnet/nbs/evaluate/beijing.ipynb", "evaluate-beijing"),
        ("nbs/03_stations.ipynb", "03_stations"),
        ("/elsewhere/my notebook.ipynb", "my-notebook"),
        ("train/beijing", "train-beijing"),
        ("train-beijing", "train-beijing"),
    ],
)
def test_notebooks_of_the_same_stem_have_different_labels(notebook, label):
    assert notebook_label(notebook) == label


def test_notebook_is_identified_by_path_and_digest(tmp_path):
    root = tmp_path / "aqnet"
    (root / "data_manifests").mkdir(parents=True)
    (root / "settings.ini").touch()
    notebook = root / "nbs" / "train" / "beijing.ipynb"
    notebook.parent.mkdir(parents=True)
    make_notebook(notebook, "x: int = 1\n", "print(x)")
    record = RunFolder.create(notebook, {}, tmp_path / "runs").record
    assert record.notebook_path == "nbs/train/beijing.ipynb"
    digest = code_digest(read_notebook(notebook))
    assert record.notebook_sha256 == digest
    content = json.loads(notebook.read_text())
    content["cells"][1] |= {"outputs": [{"output_type": "stream", "name": "a", "text": "b"}]}
    assert code_digest(content) == digest
    content["cells"][1]["source"] = "print(2 * x)"
    assert code_digest(content) != digest


def test_status_changes_note_the_time_and_the_reason(run):
    run.set_status("running")
    assert run.record.started is not None and run.record.ended is None
    run.set_status("failed", Failure(type="ValueError", message="boom", cell=3))
    record = RunFolder.open(run.path).record
    assert record.status == "failed" and record.error.cell == 3
    assert record.created <= record.started <= record.ended
    with pytest.raises(ValueError, match="status"):
        run.set_status("done")
    assert run.record.status == "failed"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"status": "done"}, "status:"),
        ({"schema_version": 2}, "schema_version:"),
        ({"surprise": 1}, "surprise:"),
    ],
)
def test_a_record_of_another_schema_is_refused(run, change, part):
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RunError, match=part):
        RunFolder.open(run.path)


def test_a_folder_without_record_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        RunFolder.open(tmp_path)


def test_provenance_names_parameters_and_code(run):
    provenance = run.provenance
    assert provenance.parameters_sha256 == parameters_hash(VALUES)
    assert provenance.aqnet == aqnet.__version__ and provenance.data == {}
    assert provenance.git.sources_sha256 == sources_digest(Path(aqnet.__file__).parent)


def test_a_folder_of_version_1_is_read_without_what_it_lacks(run):
    file = run.path / "provenance.json"
    new = json.loads(file.read_text())
    old = {k: v for k, v in new.items() if k not in ("script_sha256", "places")}
    old |= {"packages": {"torch": "2.9.0"}, "python": "3.11", "platform": "Linux", "cpu_count": 8}
    old |= {"cpu_usable": 2, "schema_version": 1, "git": {"state": "clean", "commit": "a" * 40}}
    file.write_text(json.dumps(old))
    provenance = run.provenance
    assert provenance.parameters_sha256 == new["parameters_sha256"]
    assert provenance.script_sha256 is provenance.git.diff_sha256 is run.environment is None
    file.write_text(json.dumps(old | {"schema_version": 3}))
    with pytest.raises(RunError, match=r"provenance.json of schema version 2\n.*schema_version"):
        run.provenance  # noqa: B018


# ---- starts


def test_each_start_is_recorded_with_its_place_environment_and_end(run):
    run.set_status("running")
    (first,) = run.attempts
    assert first.status == "running" and first.ended is None and first.command == tuple(sys.argv)
    assert (first.launcher, first.processes, first.job) == ("none", 1, None)
    assert first.host == first.hosts == socket.gethostname() and first.pid == os.getpid()
    run.set_status("failed", Failure(type="ValueError", message="boom"), 1)
    run.set_status("running")
    run.set_status("complete", exit_code=0)
    ends = [(a.number, a.status, a.exit_code, a.log) for a in run.attempts]
    assert ends == [
        (1, "failed", 1, "logs/attempt-1.log"),
        (2, "complete", 0, "logs/attempt-2.log"),
    ]
    assert run.attempts[0].error.message == "boom" and run.attempts[1].error is None
    assert run.log_path == run.path / "logs" / "attempt-2.log"


def test_a_start_that_never_told_its_end_is_lost(run):
    run.set_status("running")
    run.set_status("running")
    assert [a.status for a in run.attempts] == ["lost", "running"]


def test_a_refused_job_has_no_start(run):
    run.set_status("failed", Failure(type="RunError", message="SLURM refuses the job"))
    assert run.attempts == []


def test_a_start_under_slurm_is_known_by_its_job(run, monkeypatch):
    (run.path / "logs").mkdir()
    for restart in (0, 1):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
        monkeypatch.setenv("SLURM_STEP_ID", "0")
        monkeypatch.setenv("SLURM_PROCID", "0")
        monkeypatch.setenv("SLURM_LOCALID", "0")
        monkeypatch.setenv("SLURM_NNODES", "2")
        monkeypatch.setenv("SLURM_NTASKS", "4")
        (run.path / "logs" / f"job-7-{restart}.log").touch()
        if restart == 0:
            run.set_status("running")
        # the second start ends before Python begins: its end is not that of the first
        run.set_status("failed", Failure(type="JobError", message=f"at {restart}"), 137)
    starts = [(a.job, a.restart, a.hosts, a.processes, a.launcher, a.log) for a in run.attempts]
    same = ("n[1-2]", 4, "srun")
    assert starts == [("7", 0, *same, "logs/job-7-0.log"), ("7", 1, *same, "logs/job-7-1.log")]
    assert [a.error.message for a in run.attempts] == ["at 0", "at 1"]


def test_the_environment_names_every_distribution(run):
    run.set_status("running")
    found = run.environment
    installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    installed.pop("aqnet", None)
    normal = {name.replace(".", "-"): version for name, version in installed.items()}
    assert found.distributions == normal and found.distributions["numpy"] == np.__version__
    assert found.torch["version"] == found.main["torch"] == torch.__version__
    assert found.torch["commit"] == torch.version.git_version
    assert platform.python_version() in found.python
    assert found.sha256 == found.digest() == present_environment().sha256
    other = found.model_copy(update={"distributions": normal | {"numpy": "1.0"}})
    assert other.digest() != found.digest()


def test_data_are_noted_once_by_digest(run):
    run.record_data("beijing.zarr", DIGEST)
    run.record_data("stations.nc", "a" * 64)
    run.record_data("beijing.zarr", DIGEST)
    assert run.provenance.data == {"beijing.zarr": DIGEST, "stations.nc": "a" * 64}
    with pytest.raises(RunError, match=f"expected: {DIGEST}, as before"):
        run.record_data("beijing.zarr", "b" * 64)
    with pytest.raises(RunError, match="64 hexadecimal digits"):
        run.record_data("other", "abc")
    assert run.provenance.data == {"beijing.zarr": DIGEST, "stations.nc": "a" * 64}


def test_metrics_of_numpy_are_stored_as_plain_numbers(run):
    run.write_metrics({"rmse": np.float32(0.5), "cells": np.arange(3), "tiny": 1e-7, "none": None})
    assert run.read_metrics() == {"rmse": 0.5, "cells": [0, 1, 2], "tiny": 1e-7, "none": None}


@pytest.mark.parametrize("value", [float("nan"), np.array([1.0, np.inf]), object()])
def test_metrics_that_json_cannot_hold_are_refused_by_name(run, value):
    with pytest.raises(RunError, match=r"cannot store metrics\.test\.rmse"):
        run.write_metrics({"test": {"rmse": value}})
    assert not run.metrics_path.exists()
    with pytest.raises(RunError, match="the run is created"):
        run.read_metrics()


# ---- git


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_git_state_names_commit_and_changed_files(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    assert git_state(tmp_path).state == "no commit yet"
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = git_state(tmp_path)
    assert clean.state == "clean" and len(clean.commit) == 40 and clean.dirty == ()
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("2")
    dirty = git_state(tmp_path)
    assert dirty.state == "dirty" and dirty.dirty == (" M a", "?? b")
    assert dirty.commit == clean.commit and dirty.sources_sha256 != clean.sources_sha256
    assert dirty.diff_sha256 != clean.diff_sha256
    git(tmp_path, "config", "diff.noprefix", "true")
    assert git_state(tmp_path) == dirty
    (tmp_path / "a").write_text("3")
    other = git_state(tmp_path)
    assert other.dirty == dirty.dirty and other.diff_sha256 != dirty.diff_sha256


def test_a_git_that_is_killed_leaves_a_named_gap(tmp_path, monkeypatch):
    """As by SIGBUS, when it maps a file of a full disk."""
    folder, real = tmp_path / "tree", shutil.which("git")
    folder.mkdir()
    (folder / "a").write_text("1")
    for command in (("init", "-q"), ("add", "a"), ("commit", "-q", "-m", "first")):
        git(folder, *command)
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    for killed, state in {
        "diff": "clean; the changes are not known: git diff ended with signal 7",
        "status": "no git state: git status ended with signal 7",
    }.items():
        fake.write_text(f'#!/bin/sh\n[ "$3" != {killed} ] || kill -BUS $$\nexec {real} "$@"\n')
        fake.chmod(0o755)
        found = git_state(folder)
        assert found.state == state and found.diff_sha256 is None and found.sources_sha256
        assert (found.commit is None) == (killed == "status")


def test_missing_git_and_missing_repository_are_recorded_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "not a git repository" in git_state(tmp_path).state
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path).state == "git is not installed"


# ---- notebooks in JupyterLab


def test_a_notebook_in_jupyterlab_makes_and_finishes_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path))
    run = RunFolder.for_notebook("", "train/beijing", VALUES)
    assert run.record.started_by == "notebook" and run.record.status == "running"
    run.finish()
    assert run.record.status == "complete"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"rate": 2.0}, "at most 1.0 needed"),
        ({"rate": "fast"}, "a finite number needed"),
        ({"later": 1}, "save the notebook"),
    ],
)
def test_values_typed_in_jupyterlab_are_checked_like_those_of_the_command(
    tmp_path, monkeypatch, change, part
):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "settings.ini").touch()
    notebook = make_notebook(tmp_path / "nbs" / "toy.ipynb", "rate: float = 0.1  # {0..1}\n", "1")
    monkeypatch.setenv("AQNET_ROOT", str(tmp_path))
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    values = {"run_dir": "", "rate": 0.5}
    with pytest.raises(ParameterError, match=part):
        RunFolder.for_notebook("", "toy", values | change)
    assert not (tmp_path / "runs").exists()
    run = RunFolder.for_notebook("", "toy", values)
    assert run.notebook_path.read_bytes() == notebook.read_bytes()


def test_under_aqnet_run_the_notebook_opens_its_folder_and_does_not_decide(run):
    run.set_status("running")
    same = RunFolder.for_notebook(str(run.path), "train/beijing", VALUES)
    assert same.path == run.path
    same.finish()
    assert run.record.status == "running"


# ---- finding runs


def make(root, notebook, status):
    run = RunFolder.create(notebook, {}, root)
    run.set_status(status)
    return run


def test_runs_are_listed_oldest_first_without_other_folders(tmp_path):
    made = [make(tmp_path, name, "complete").path for name in ("b", "a", "a")]
    (tmp_path / "notes").mkdir()
    (tmp_path / ".b.new-1234").mkdir()
    (tmp_path / ".b.new-1234" / "run.json").write_text("{}")
    assert [run.path for run in list_runs(tmp_path)] == made
    assert list_runs(tmp_path / "none") == []


def test_latest_run_is_the_newest_of_that_notebook_and_status(tmp_path):
    make(tmp_path, "train/beijing", "complete")
    wanted = make(tmp_path, "train/beijing", "complete")
    failed = make(tmp_path, "train/beijing", "failed")
    make(tmp_path, "train/other", "complete")
    for name in ("train/beijing", "train-beijing", "beijing", "nbs/train/beijing.ipynb"):
        assert latest_run(tmp_path, name).path == wanted.path
    assert latest_run(tmp_path, "beijing", status="failed").path == failed.path


def test_latest_run_may_have_to_have_parameters(tmp_path):
    runs = [RunFolder.create("a", {"preset": p, "x": 1}, tmp_path) for p in ("b", "b", "c")]
    for run in runs:
        run.set_status("complete")
    assert latest_run(tmp_path, "a", parameters={"preset": "b"}).path == runs[1].path
    with pytest.raises(RunError, match="with preset = d"):
        latest_run(tmp_path, "a", parameters={"preset": "d"})
    with pytest.raises(RunError, match="with y = 1"):
        latest_run(tmp_path, "a", parameters={"y": 1})


def test_ambiguous_name_is_refused(tmp_path):
    train = make(tmp_path, "train/beijing", "complete")
    make(tmp_path, "evaluate/beijing", "complete")
    with pytest.raises(RunError, match="evaluate-beijing, train-beijing"):
        latest_run(tmp_path, "beijing")
    assert latest_run(tmp_path, "train/beijing").path == train.path


def test_no_run_names_the_command_to_make_one(tmp_path):
    with pytest.raises(RunError, match=r"aqnet run nbs/train/beijing\.ipynb"):
        latest_run(tmp_path, "train/beijing")
    make(tmp_path, "train/beijing", "interrupted")
    with pytest.raises(RunError, match="interrupted\n  remedy:   aqnet run nbs/train/beijing"):
        latest_run(tmp_path, "train-beijing")
