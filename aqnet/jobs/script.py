"""What a compiled notebook does besides its cells: command line, checks, run folder, its end.

Parameters: defaults of the notebook < `--params` files < flags, by the same parser as `aqnet run`.
A spawned worker process imports the script as `__mp_main__` with the same command line, and gets
the same values.

With several processes (torchrun, srun) all are given one `--run-dir`; the process of rank 0 makes
and writes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import yaml

from aqnet.errors import AqnetError, InterruptedRunError, ParameterError, explain
from aqnet.jobs.parameter_cell import parse_source
from aqnet.jobs.parameter_types import Value
from aqnet.jobs.parameters import Parameter, resolve
from aqnet.jobs.runs import RUN_DIR, Failure, RunFolder
from aqnet.launch import this_launch
from aqnet.training.shutdown import StopRequest, end_when_terminated

__all__ = ["Script", "command_line", "require_same_run"]

# Parameters of one start of a run: it is the same run when it goes on from its checkpoint.
_OF_A_START = (RUN_DIR, "resume")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def command_line(parameters: Sequence[Parameter], notebook: str) -> argparse.ArgumentParser:
    """Parser of a script's command line; each parameter gives a list of texts.

    Raises
    ------
    argparse.ArgumentError
        A parameter has the name of another option (`help`, `params`, `print_params`, `no_FLAG`).
    """
    parser = argparse.ArgumentParser(
        description=f"Compiled from {notebook}.", allow_abbrev=False, add_help=True
    )
    parser.add_argument(
        "--params",
        action="append",
        default=[],
        metavar="FILE.yaml",
        dest="params files",
        help="file of parameters; repeatable, later files override earlier ones",
    )
    parser.add_argument(
        "--print-params",
        action="store_true",
        dest="print params",
        help="print the values as YAML and stop",
    )
    for parameter in parameters:
        text = ". ".join(filter(None, [parameter.describe(), parameter.help])).replace("%", "%%")
        group = parser.add_mutually_exclusive_group()
        common = {"dest": parameter.name, "action": "append", "default": []}
        if parameter.type == "bool":
            group.add_argument(_flag(f"no_{parameter.name}"), **_constant(common, "false"))
            group.add_argument(_flag(parameter.name), help=text, **_constant(common, "true"))
            continue
        group.add_argument(_flag(parameter.name), metavar=parameter.type, help=text, **common)
    return parser


def _constant(common: dict, value: str) -> dict:
    return common | {"action": "append_const", "const": value}


def require_same_run(run: RunFolder, values: Mapping[str, Value], sha256: str) -> None:
    """Check that a run folder is that of these parameters and this notebook.

    One run folder holds one experiment, however often it is started.

    Parameters
    ----------
    run : RunFolder
    values : mapping
        Typed parameters of this start.
    sha256 : str
        `code_digest` of the notebook.

    Raises
    ------
    ParameterError
        Anything but `run_dir` and `resume` differs.
    """
    before = {**run.parameters, "notebook": run.record.notebook_sha256}
    now = {**values, "notebook": sha256}
    names = (before.keys() | now.keys()) - set(_OF_A_START)
    differ = sorted(n for n in names if before.get(n) != now.get(n))
    if differ:
        raise ParameterError(
            explain(
                f"{run.path} is the folder of another run",
                expected=", ".join(f"{n} = {before.get(n)}" for n in differ),
                found=", ".join(f"{n} = {now.get(n)}" for n in differ),
                remedy="choose another --run-dir, or the parameters and notebook of that run",
            )
        )


class Script:
    """The running script: one object, which its generated lines call in order.

    Parameters
    ----------
    notebook : str
        Path of the notebook in its repository.
    sha256 : str
        `code_digest` of the notebook it was compiled from.
    parameters : str
        Source of the parameters cell.
    """

    def __init__(self, notebook: str, sha256: str, parameters: str) -> None:
        self.notebook, self.sha256 = notebook, sha256
        self.declared = parse_source(parameters, notebook)
        self.values: dict[str, Value] = {}
        with self.refusing():
            launch = this_launch()
        self.rank, self.world = launch.rank, launch.processes
        self.run: RunFolder | None = None
        self.stop = StopRequest()

    def parameters(self, name: str) -> dict[str, object]:
        """Names for the script's module: typed values, and `__annotations__` that declares them.

        Parameters
        ----------
        name : str
            `__name__` of the module; where it is merely imported, the defaults hold.

        Raises
        ------
        SystemExit
            Code 2 for parameters that are not right, code 0 after `--help` or `--print-params`.
        """
        runs = name in ("__main__", "__mp_main__")
        with self.refusing():
            self.values = self._given(None if runs else [])
        if name == "__main__":
            self._listen()
        kinds = {p.name: p.type for p in self.declared}
        return self.values | {"__annotations__": kinds}

    def _listen(self) -> None:
        """Note stop signals from here to the end: a training leaves in order when it begins.

        The default action would kill a process that still imports, opens data, or has trained. What
        cannot be resumed ends at once.
        """
        if "resume" in self.values:
            self.stop.__enter__()
        else:
            end_when_terminated()

    def _given(self, arguments: Sequence[str] | None) -> dict[str, Value]:
        given = vars(command_line(self.declared, self.notebook).parse_args(arguments))
        files, stop = given.pop("params files"), given.pop("print params")
        items = [f"{name}={value}" for name, values in given.items() for value in values]
        values = resolve(self.declared, files, items)
        if stop:
            print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        return values

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn an AqnetError into its message and exit code 2: for what judges the parameters."""
        try:
            yield
        except AqnetError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(ParameterError.exit_code) from error

    def open_run(self) -> str:
        """Make or open the run folder, and say where it is.

        Returns
        -------
        str
            Absolute path for the parameter `run_dir`. Worker processes started later see it too.

        Raises
        ------
        SystemExit
            Code 2: several processes and no `--run-dir`, or the folder is that of another run.
        """
        given = str(self.values[RUN_DIR])
        with self.refusing():
            self._require_common_folder(given)
        RunFolder.writer = self.rank == 0
        path = Path(given).absolute() if given else None
        if path is None or (self.rank == 0 and not (path / "run.json").exists()):
            self.run = RunFolder.create(
                self.notebook,
                self.values,
                notebook_sha256=self.sha256,
                started_by="script",
                path=path,
            )
            sys.argv += [] if given else [_flag(RUN_DIR), str(self.run.path)]
        else:
            self.run = RunFolder.open(path)
            with self.refusing():
                if self.run.writer:
                    require_same_run(self.run, self.values, self.sha256)
        file = getattr(sys.modules["__main__"], "__file__", None)  # none for `python -c`
        self.run.begin_script(Path(file) if file else None)
        sys.excepthook = self._failed
        if self.rank == 0:
            print(f"run folder: {self.run.path}", flush=True)
        return str(self.run.path)

    def _require_common_folder(self, given: str) -> None:
        if given or self.world == 1:
            return
        raise ParameterError(
            explain(
                f"{self.world} processes have no common run folder",
                expected="one folder for all, new or made by rank 0 before",
                found="no --run-dir",
                remedy="give each process the same --run-dir, such as runs/my-run",
            )
        )

    def _failed(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Print the traceback first: the folder may be what fails."""
        sys.__excepthook__(kind, error, trace)
        stopped = issubclass(kind, (KeyboardInterrupt, InterruptedRunError))
        failure = Failure(type=kind.__name__, message=str(error))
        # Python ends with 1 after any error, but by the signal itself after Ctrl-C
        code = InterruptedRunError.exit_code if issubclass(kind, KeyboardInterrupt) else 1
        self.run.set_status("interrupted" if stopped else "failed", failure, code)
        if issubclass(kind, InterruptedRunError) and self.rank != 0:
            # All ranks stop together. A bad exit of this one would have srun kill the first, which
            # may still be writing its checkpoint.
            raise SystemExit(0)

    def end(self) -> None:
        """Mark the run as complete."""
        self.run.set_status("complete", exit_code=0)
        if self.rank == 0:
            print(f"complete: {self.run.path}", flush=True)
