"""How the run of a notebook ended: its status, and the error that tells why it did not complete."""

from __future__ import annotations

import re
import signal
import traceback

from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from aqnet import errors
from aqnet.errors import AqnetError, InterruptedRunError, RunError
from aqnet.jobs.runs import Failure, RunFolder

__all__ = ["close_run", "traceback_of"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STOPPED_BY = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "a hang-up"}


def traceback_of(error: BaseException) -> str:
    """Traceback of an execution, without colours: that of the cell if one failed."""
    inner = isinstance(error, PapermillExecutionError)
    lines = error.traceback if inner else traceback.format_exception(error)
    return _ANSI.sub("", "\n".join(lines))


def _cell_of(notebook: dict, error: PapermillExecutionError) -> int:
    """Index in the notebook as written: papermill inserts one cell after the parameters."""
    tags = [cell.get("metadata", {}).get("tags", []) for cell in notebook["cells"]]
    injected = next(i for i, t in enumerate(tags) if "parameters" in t) + 1
    return error.cell_index - (error.cell_index >= injected)


def _failure(notebook: dict, error: BaseException) -> Failure:
    if isinstance(error, PapermillExecutionError):
        message = _ANSI.sub("", error.evalue)
        return Failure(type=error.ename, message=message, cell=_cell_of(notebook, error))
    return Failure(type=type(error).__name__, message=str(error))


def _own_error(name: str) -> type[AqnetError] | None:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, AqnetError) else None


def _where(notebook: dict, cell: int | None) -> str:
    if cell is None:
        return ""
    source = "".join(notebook["cells"][cell]["source"]).strip().splitlines()
    return f" in cell {cell + 1} of {len(notebook['cells'])}, `{(source or [''])[0]:.60}`"


def _failed(run: RunFolder, label: str, notebook: dict, error: BaseException) -> RunError:
    failure = _failure(notebook, error)
    stopped = failure.type == InterruptedRunError.__name__  # the cell itself took a signal
    own = _own_error(failure.type)
    code = (error if isinstance(error, AqnetError) else own or AqnetError).exit_code
    run.set_status("interrupted" if stopped else "failed", failure, code)
    text = failure.message if own else f"{failure.type}: {failure.message}"
    if isinstance(error, DeadKernelError):
        text = "the kernel died (out of memory, or killed from outside)"
    result = RunError(
        f"{label} failed{_where(notebook, failure.cell)}\n{text}\n"
        f"traceback: {run.log_path}\nexecuted notebook: {run.notebook_path}"
    )
    result.exit_code = code
    return result


def _interrupted(run: RunFolder, label: str, number: int) -> InterruptedRunError:
    cause = _STOPPED_BY[signal.Signals(number)]
    failure = Failure(type="Interrupted", message=f"stopped by {cause}")
    run.set_status("interrupted", failure, InterruptedRunError.exit_code)
    last = run.checkpoints / "last.ckpt"  # of a training
    again = f"to go on, add -p resume={last}" if last.is_file() else "to repeat it"
    return InterruptedRunError(
        f"{label} was stopped by {cause}\nrun folder: {run.path}\nrun the command again {again}"
    )


def close_run(
    run: RunFolder, label: str, notebook: dict, error: BaseException | None, received: list[int]
) -> RunError | None:
    """Set the final status of a run.

    Parameters
    ----------
    run : RunFolder
    label : str
        Name of the notebook in messages.
    notebook : dict
        As it was read.
    error : exception or None
        Of its execution.
    received : list of int
        Stop signals, in order.

    Returns
    -------
    RunError or None
        What to raise.
    """
    # without an error it came after the last cell: the run is whole
    if received and error is not None:
        return _interrupted(run, label, received[0])
    if error is not None:
        return _failed(run, label, notebook, error)
    run.set_status("complete", exit_code=0)
    return None
