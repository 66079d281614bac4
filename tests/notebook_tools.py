"""Small notebooks for tests, and a way to run the command line in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
RUN_DIR_LINE = 'run_dir: str = ""  # run folder, set by aqnet run\n'
# The path by hand, not PYTHONPATH: a kernel must find the package of its command without it.
AQNET = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from aqnet.cli import main; main(prog_name="aqnet")
"""


def make_notebook(path: Path, parameters: str | None, *cells: str) -> Path:
    """Write a notebook with a parameters cell (none for None) and code cells."""
    notebook = nbformat.v4.new_notebook()
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(RUN_DIR_LINE + parameters)
        cell.metadata["tags"] = ["parameters"]
        notebook.cells.append(cell)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(notebook, path)
    return path


def _take_signals() -> None:
    # A runner in the background of a shell ignores SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_aqnet(*arguments: object, cwd: Path, **environment: str) -> subprocess.Popen:
    """Start `aqnet` with pipes; AQNET_RUNS is `runs` in `cwd`."""
    given = {"AQNET_RUNS": str(cwd / "runs"), "OMP_NUM_THREADS": "1"}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AQNET_", "PYTHONPATH"))}
    return subprocess.Popen(
        [sys.executable, "-c", AQNET, *map(str, arguments)],
        cwd=cwd,
        env=clean | given | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_take_signals,
    )


def aqnet(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `aqnet` to its end."""
    process = start_aqnet(*arguments, cwd=cwd, **environment)
    output, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, error)
