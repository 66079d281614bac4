"""The training notebook is one experiment in a kernel, by papermill, as a script, on two ranks."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from notebook_tools import ROOT

from aqnet.jobs.compile import write_script
from aqnet.jobs.execute import run_notebook
from aqnet.jobs.kernel import kernel_class
from aqnet.jobs.runs import RunFolder, list_runs
from aqnet.jobs.runs.compare import compare_runs
from aqnet.jobs.runs.verify import verify_run

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "nbs" / "train" / "forecast.ipynb"
# Three steps, with dropout and noise as in the preset; judged before the first and after each two.
SMALL = {"max_epochs": 1, "max_train_samples": 48, "batch_size": 16, "width": 16, "depth": 1}
SMALL |= {"validate_every": 2, "correction_share": 0.5}
QUIET = {"dropout": 0.0, "input_noise": 0.0}  # ranks draw noise of their own
TIMEOUT_S = 600


def environment(runs):
    own = {"AQNET_ROOT": str(ROOT), "AQNET_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    return {k: v for k, v in os.environ.items() if not k.startswith("AQNET_")} | own


def measured(run: RunFolder) -> dict:
    """What the run measured, once it is complete."""
    assert run.record.status == "complete"
    return run.read_metrics()


def in_a_kernel(runs) -> RunFolder:
    """As in JupyterLab: values typed into the parameters cell, cells run one after another."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = notebook.cells[1]
    for name, value in SMALL.items():
        cell.source, count = re.subn(
            rf"^({name}: [^=]+ = )[^#]+#", rf"\g<1>{value!r}  #", cell.source, flags=re.MULTILINE
        )
        assert count == 1, name
    places = {k: v for k, v in environment(runs).items() if k.startswith(("AQNET_", "PYTHON"))}
    NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_manager_class=kernel_class(places),
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    (run,) = list_runs(runs)
    assert run.record.started_by == "notebook"
    return run


def by_papermill(runs) -> RunFolder:
    return run_notebook(NOTEBOOK, SMALL, root=runs, echo=lambda _: None)


def as_script(folder, values, launcher=()) -> RunFolder:
    script, run_dir = folder / "forecast.py", folder / "run"
    write_script(NOTEBOOK, script)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), *flags, "--run-dir", str(run_dir)],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return RunFolder.open(run_dir)


def test_kernel_papermill_and_script_measure_the_same_bit_for_bit(tmp_path):
    folders = [tmp_path / name for name in ("kernel", "papermill", "script")]
    for folder in folders:
        folder.mkdir()
    kernel, papermill = in_a_kernel(folders[0]), by_papermill(folders[1])
    script = as_script(folders[2], SMALL)
    results = [measured(run) for run in (kernel, papermill, script)]
    curve = results[0]["curve"]
    assert curve["step"] == [0, 2, 3] and len(set(curve["validation"])) == 3
    assert results[1] == results[0] and results[2] == results[0]
    assert kernel.provenance.data == papermill.provenance.data == script.provenance.data
    for run in (kernel, papermill, script):
        found = compare_runs(run, papermill)
        assert not (found.data or found.parameters or found.environment)
        # but for the package, which somebody may edit meanwhile
        assert not [n for n in found.code if n.startswith(("code cell", "notebook", "script"))]
        (start,) = run.attempts
        assert start.status == "complete" and start.processes == 1
        assert "training samples" in (run.path / start.log).read_text()
        checks = {check.name: check for check in verify_run(run)}
        wrong = [c for c in checks.values() if c.status in ("mismatch", "unchecked")]
        wanted = {"script"} if run is script else set()
        assert {c.name for c in wrong} == ({"notebook code"} if run is script else set()), wrong
        assert checks.keys() >= wanted | {f"data {name}" for name in run.provenance.data}


def test_two_ranks_measure_the_same_at_the_same_batch(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = as_script(tmp_path / "one", SMALL | QUIET)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = as_script(tmp_path / "two", SMALL | QUIET | {"batch_size": 8}, launcher)
    alone, together = measured(one)["curve"], measured(two)["curve"]
    found = compare_runs(one, two)
    assert found.parameters == {"batch_size": ("16", "8")}
    assert not (found.data or found.environment)
    (start,) = two.attempts
    assert (start.launcher, start.processes, start.exit_code) == ("torchrun", 2, 0)
    assert alone["step"] == together["step"] == [0, 2, 3]
    for name in ("validation", "losses", "rmse"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-6, err_msg=name)
