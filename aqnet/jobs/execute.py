"""Run a notebook with papermill inside a run folder.

The kernel is this interpreter, whatever kernels are installed. It starts in the notebook's own
folder (as in JupyterLab and nbdev_test), with the repository root of the caller in AQNET_ROOT
and the caller's `aqnet` first on its path, so that command and cells use the same code.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

import nbformat
import papermill

from aqnet.errors import AqnetError, ParameterError, explain
from aqnet.io import data_root, explain_full_disk, repository_root
from aqnet.jobs.kernel import Kernel, kernel_class
from aqnet.jobs.notebook import code_digest, read_notebook, run_checks
from aqnet.jobs.notebook_end import close_run, traceback_of
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import resolve
from aqnet.jobs.runs import RUN_DIR, RunFolder, require_run_dir
from aqnet.jobs.script import require_same_run
from aqnet.jobs.subprocesses import noting_stop_signals, python_path
from aqnet.training.heartbeat import HEARTBEAT, read_beats

__all__ = ["run_notebook"]

# Time for a cell to leave its `with` and `finally` blocks after Ctrl-C (a checkpoint of the
# small models takes under 1 s), and twice that of a training's step, which ends before it stops;
# then the kernel is killed. SLURM's own grace time is 30 s.
GRACE_S = 15.0


# ---- output


class _Tee:
    """Stream that papermill writes cell output to: terminal and log, as it comes."""

    def __init__(self, echo: Callable[[str], None], log: TextIO):
        self._echo, self._log = echo, log

    def write(self, text: str) -> None:
        self._echo(text)
        self._log.write(text)

    def flush(self) -> None:
        self._log.flush()

    def log_traceback(self, error: BaseException) -> None:
        """Write the whole traceback to the log only."""
        self._log.write(f"\n{traceback_of(error)}\n")


def _echo_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# ---- execution in a thread, so that this thread stays free for signals


def _not_about_names(record: logging.LogRecord) -> bool:
    """papermill does not read `int | None`; our own parser has judged all names."""
    return not record.getMessage().startswith("Passed unknown parameter")


logging.getLogger("papermill").addFilter(_not_about_names)


def _environment(run: RunFolder) -> dict[str, str]:
    """What the kernel sees besides the caller's environment: places as absolute paths."""
    environment = {"PYTHONPATH": python_path(), "AQNET_RUNS": str(run.path.parent)}
    if os.environ.get("AQNET_DATA"):
        environment["AQNET_DATA"] = str(data_root())
    try:
        environment["AQNET_ROOT"] = str(repository_root())
    except AqnetError:
        # Outside a repository only a cell that needs one fails, with the same message.
        return environment
    return environment


def _papermill(run: RunFolder, notebook: dict, folder: Path, values: dict, **options) -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())  # a new thread has none
    with explain_full_disk(run.path):
        papermill.execute_notebook(
            nbformat.from_dict(notebook),
            # papermill formats the path with the parameters
            str(run.notebook_path).replace("{", "{{").replace("}", "}}"),
            parameters=values,
            kernel_name="python3",
            language="python",
            cwd=str(folder),
            progress_bar=False,
            **options,
        )


def _signal_kernels(kernels: type[Kernel], number: int) -> None:
    for kernel in kernels.started:
        kernel.signal_group(number)


def _grace_s(run: RunFolder) -> float:
    steps = (beat.own_seconds_per_step for beat in read_beats(run.path / HEARTBEAT))
    return GRACE_S + 2 * max(steps, default=0.0)


def _wait(run: RunFolder, execution: Future, kernels: type[Kernel], received: list[int]) -> None:
    """Wait for the end; on the first signal interrupt the kernel, on the second kill it."""
    deadline = None
    while not execution.done():
        wait([execution], timeout=0.1)
        if received and deadline is None and kernels.started:
            deadline = time.monotonic() + _grace_s(run)
            _signal_kernels(kernels, signal.SIGINT)
        late = deadline is not None and time.monotonic() > deadline
        if late or len(received) > 1:
            _signal_kernels(kernels, signal.SIGKILL)


def _execute(
    run: RunFolder,
    label: str,
    notebook: dict,
    folder: Path,
    values: dict,
    echo: Callable[[str], None],
) -> None:
    kernels = kernel_class(_environment(run))
    with (
        noting_stop_signals() as received,
        ThreadPoolExecutor(1, "papermill") as pool,
        explain_full_disk(run.path),
    ):
        run.set_status("running")
        with run.log_path.open("w", encoding="utf-8") as log:
            tee = _Tee(echo, log)
            options = {"kernel_manager_class": kernels, "stdout_file": tee, "stderr_file": tee}
            execution = pool.submit(_papermill, run, notebook, folder, values, **options)
            _wait(run, execution, kernels, received)
            error = execution.exception()
            # The status first: on a full disk the log may not take the traceback.
            stopped = close_run(run, label, notebook, error, received)
            if error is not None:
                tee.log_traceback(error)
            if stopped is not None:
                raise stopped from error


# ---- the command


def _refuse_run_dir(values: Mapping[str, Value]) -> None:
    if values[RUN_DIR]:
        problem, found = f"{RUN_DIR} is set by `aqnet run`", f"{RUN_DIR}={values[RUN_DIR]}"
        remedy = f"leave {RUN_DIR} out"
        raise ParameterError(explain(problem, expected="no value", found=found, remedy=remedy))


def _folder_of(
    path: Path, values: dict, digest: str, root: str | Path | None, folder: str | Path | None
) -> RunFolder:
    """A new run folder, or that of this very run."""
    if folder is not None and (Path(folder) / "run.json").exists():
        run = RunFolder.open(folder)
        require_same_run(run, values, digest)
        return run
    return RunFolder.create(path, values, root, notebook_sha256=digest, path=folder)


def run_notebook(
    path: str | Path,
    assignments: Sequence[str] | Mapping[str, Value] = (),
    files: Sequence[str | Path] = (),
    root: str | Path | None = None,
    echo: Callable[[str], None] = _echo_stdout,
    folder: str | Path | None = None,
) -> RunFolder:
    """Execute a notebook with checked parameters in its run folder.

    Parameters
    ----------
    path : path
        Notebook with one cell tagged `parameters`, which declares `run_dir: str = ""`.
    assignments, files
        See `aqnet.jobs.parameters.resolve`.
    root : path, optional
        Folder of all runs; `aqnet.io.runs_root()` by default.
    echo : callable
        Receives the output of the cells as it comes.
    folder : path, optional
        The run folder itself: a free place, or the folder of this very run, to start it again.

    Returns
    -------
    RunFolder
        Complete run: executed notebook, log, and what the notebook stored.

    Raises
    ------
    ParameterError
        Before anything is created; also where a cell tagged `check` refuses the parameters.
    RunError
        A cell failed; `exit_code` is that of the cell's error if it was an AqnetError. The
        folder has status `failed` and the notebook as far as it went.
    InterruptedRunError
        SIGINT, SIGTERM or SIGHUP; the kernel is gone and the status is `interrupted`.
    """
    path = Path(path)
    notebook = read_notebook(path)
    parameters = parse_parameters(notebook, str(path))
    require_run_dir(parameters, str(path))
    values = resolve(parameters, files, assignments)
    _refuse_run_dir(values)
    run_checks(notebook, values, str(path))
    run = _folder_of(path, values, code_digest(notebook), root, folder)
    echo(f"run folder: {run.path}\n")
    values[RUN_DIR] = str(run.path)
    _execute(run, str(path), notebook, path.absolute().parent, values, echo)
    return run
