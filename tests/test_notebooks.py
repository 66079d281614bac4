"""Every notebook runs from its first cell to its last.

Library notebooks run as in JupyterLab: in their own folder, each in a fresh kernel. Training and
evaluation notebooks run through `aqnet run`, small, and the evaluation judges the model that the
training notebook has just written. The last test checks that no notebook is left out.
"""

from __future__ import annotations

import os

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_tools import make_notebook
from sweep_case import BODY, TOY, begin
from test_problem import recorded, splits, tiny_manifest  # noqa: F401
from test_structure import ROOT, repository_files

from aqnet.data.manifest import load_manifest
from aqnet.errors import ParameterError
from aqnet.jobs.execute import run_notebook
from aqnet.jobs.kernel import kernel_class
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.local import run_local
from aqnet.verification.scoreboard import load_scoreboard

CELL_TIMEOUT_S = 180
NOTEBOOKS = {
    str(path.relative_to(ROOT)): path for path in repository_files() if path.suffix == ".ipynb"
}
RUN_FOLDERS = ("nbs/train/", "nbs/evaluate/")
LIBRARY = [name for name in NOTEBOOKS if not name.startswith(RUN_FOLDERS)]
TRAINING = [name for name in NOTEBOOKS if name.startswith("nbs/train/")]
EVALUATION = [name for name in NOTEBOOKS if name.startswith("nbs/evaluate/")]
# Small enough for a minute on one core, large enough to pass through every cell.
SMALL_TRAINING = {"max_epochs": 1, "max_train_samples": 64}
# Training notebook to the evaluation of its models; kinds of data are in tests/test_experiment.py.
JUDGES = {"nbs/train/forecast.ipynb": "nbs/evaluate/beijing.ipynb"}
SWEEP = "nbs/evaluate/sweep.ipynb"
VERDICT = "nbs/evaluate/verdict.ipynb"  # tests/test_sweep_verdict.py
PHYSICS = "nbs/evaluate/physics.ipynb"
CONTRASTS = "nbs/evaluate/contrasts.ipynb"  # tests/test_physics_experiment.py
SMALL_EVALUATION = {"stride": 12}
TRAINING_RUN = "train_run"  # parameter of an evaluation notebook: folder of the run to judge


def environment() -> dict[str, str]:
    """As in JupyterLab started from the repository, but with the package of this checkout."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"AQNET_ROOT": str(ROOT), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.mark.parametrize("name", LIBRARY)
def test_library_notebook(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_manager_class=kernel_class(environment()),
        resources={"metadata": {"path": str(NOTEBOOKS[name].parent)}},
    ).execute()
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))


def as_assignments(values: dict[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


@pytest.mark.parametrize("name", TRAINING)
def test_training_notebook_and_the_evaluation_of_its_model(name, tmp_path):
    run = run_notebook(NOTEBOOKS[name], as_assignments(SMALL_TRAINING), root=tmp_path)
    assert run.record.status == "complete"
    assert list(run.checkpoints.iterdir())
    judge = NOTEBOOKS[JUDGES[name]]
    assignments = as_assignments({TRAINING_RUN: run.path, **SMALL_EVALUATION})
    judged = run_notebook(judge, assignments, root=tmp_path)
    assert judged.record.status == "complete"
    assert judged.report_path.stat().st_size > 0


def run_here(name: str, values: dict[str, object]) -> RunFolder:
    """Execute a notebook in this process, whose years are shorter than real ones."""
    cells = [c for c in nbformat.read(NOTEBOOKS[name], 4).cells if c.cell_type == "code"]
    space: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell.source, name, "exec"), space)
        if "parameters" in cell.metadata.get("tags", ()):
            space |= values
    return space["run"]


def test_a_run_on_a_fixed_set(recorded, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    manifest, folder = map(str, recorded)
    fields = {"preset": "china_small", "manifest": manifest, "folder": folder, "width": 16,
              "depth": 2, "heads": 2, "max_steps": 2, "lead_times_h": [6, 24]}  # fmt: skip
    trained = run_here("nbs/train/forecast.ipynb", fields)
    judged = run_here(PHYSICS, {TRAINING_RUN: str(trained.path), "every_h": 6})
    measured = judged.read_metrics()
    assert 0 < measured["loss"] < 20 and measured["optimiser_steps"] == 2
    board = load_scoreboard(judged.path / "board.npz")
    assert board.design.weight == "1 a cell" and len(board.times) > 0
    assert board.record["truth"]["manifest"] == load_manifest(manifest).name


def test_results_of_a_sweep(tmp_path, monkeypatch):
    """A tiny sweep, of which one setting fails."""
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    make_notebook(tmp_path / "toy.ipynb", TOY, BODY)
    (tmp_path / "bad-8").touch()
    sweep = begin(tmp_path, grid={"width": [2, 4, 8]}, seeds=2)
    run_local(sweep, 2, "script", False, {}, str)
    run = run_notebook(NOTEBOOKS[SWEEP], ["sweep=widths"])
    assert run.record.status == "complete"
    measured = run.read_metrics()
    assert (measured["complete"], measured["points"]) == (4, 6)
    (difference,) = measured["differences"]
    assert difference["label"] == "width=4" and difference["pairs"] == 2
    assert difference["mean_difference"] == pytest.approx(-0.25)
    assert (run.path / "metric.png").stat().st_size > 5000


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["lead_times_h=[24,12]"], "lead_times_h must increase"),
        (["heads=7"], "heads = 7 does not divide width = 64"),
        (["preset=china", "store=x.zarr"], "store does not belong to the manifest caqra"),
        (["manifest=tianjin"], "there is no manifest tianjin"),
    ],
)
def test_options_that_do_not_go_together_start_nothing(name, given, part, tmp_path):
    with pytest.raises(ParameterError, match=part):
        run_notebook(NOTEBOOKS[name], given, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_every_notebook_is_executed():
    """The tests above run every notebook that exists: none is left out, none is lost."""
    folder = ROOT / "nbs"
    there = {p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert set(NOTEBOOKS.values()) == there
    assert sorted([*LIBRARY, *TRAINING, *EVALUATION]) == sorted(NOTEBOOKS)
    # an evaluation is run by the test of its training notebook, or of its sweep
    judges = {*JUDGES.values(), SWEEP, VERDICT, CONTRASTS, PHYSICS}
    assert JUDGES.keys() == set(TRAINING) and judges == set(EVALUATION)
    modules = [path.read_text() for path in (ROOT / "aqnet").rglob("*.py")]
    exported = sum("AUTOGENERATED! DO NOT EDIT! File to edit" in text for text in modules)
    assert len(LIBRARY) >= exported > 0 and TRAINING
