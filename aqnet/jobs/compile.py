"""Compile a notebook to a script that is the same experiment, with a command line of its own.

- Cells of only imports, functions and classes stay at the top level, where worker processes find
  them; all others run under `if __name__ == "__main__":`, in the notebook's order.
- The parameters cell becomes the command line (aqnet.jobs.script).
- Cells tagged `notebook_only` or with `#| eval: false` are left out, and so are `%matplotlib`,
  `%autoreload` and `%load_ext autoreload`. Any other magic, shell command or top-level await is an
  error: it has no meaning outside a kernel.
- The same notebook gives the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from aqnet.errors import CompileError, explain
from aqnet.io import atomic_write_text
from aqnet.jobs.notebook import (
    check_cells,
    code_cells,
    code_digest,
    parameters_source,
    read_notebook,
)
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameters import Parameter
from aqnet.jobs.runs import RUN_DIR, relative_path, require_run_dir
from aqnet.jobs.script import command_line

__all__ = ["check_script", "compile_notebook", "write_script"]

_HEADER = '''\
"""Compiled by `aqnet compile` from {notebook}; `--help` lists the parameters.

Edit the notebook, not this file. SHA-256 of its code cells:
{digest}
"""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

from aqnet.jobs.script import Script

_script = Script(
    {notebook!r},
    {digest!r},
    {parameters},
)
globals().update(_script.parameters(__name__))
'''
_MAIN = '\nif __name__ == "__main__":\n'
_OPEN_RUN = f"{_MAIN}    {RUN_DIR} = _script.open_run()\n"
_END = f"{_MAIN}    _script.end()\n"
_EVAL_FALSE = re.compile(r"^\s*#\|\s*eval:\s*false\s*$", re.MULTILINE)
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ASYNC = (ast.Await, ast.AsyncFor, ast.AsyncWith)


# ---- one cell


def _error(label: str, number: int, source: str, found: str, remedy: str) -> CompileError:
    first = next((line for line in source.splitlines() if line.strip()), "")
    return CompileError(
        explain(
            f"{label} cannot be compiled: cell {number}, `{first.strip():.60}`",
            expected="Python that means the same outside a kernel",
            found=found,
            remedy=remedy,
        )
    )


def _magic(node: ast.AST) -> list[str]:
    """Name and arguments of the line magic that a statement is; empty for anything else."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return []
    if call.func.attr != "run_line_magic":
        return []
    name, text = (ast.literal_eval(argument) for argument in call.args[:2])
    return [name, *text.split()]


def _without_display_magics(source: str) -> str:
    """Blank the lines of magics that only concern a notebook's screen and editing."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        magic = _magic(node)
        if magic[:1] in (["matplotlib"], ["autoreload"]) or magic == ["load_ext", "autoreload"]:
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(lines).strip("\n")


def _outside_functions(tree: ast.AST) -> list[ast.AST]:
    """Nodes that run with the cell itself."""
    found = [tree]
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found += _outside_functions(node)
    return found


def _foreign(tree: ast.Module) -> tuple[str, str] | None:
    """What a cell holds that only a kernel understands, and what to do about it."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if "get_ipython" in names:
        remedy = "use Python, or tag the cell `notebook_only`"
        return "a magic, a shell command, a help request or get_ipython()", remedy
    if any(isinstance(node, _ASYNC) for node in _outside_functions(tree)):
        return "await outside a function", "use asyncio.run"
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    if future:
        return "an import from __future__, which must open a file", "leave it out"
    return None


def _python(source: str, number: int, label: str) -> str:
    """The cell as plain Python.

    Raises
    ------
    CompileError
    """
    try:
        plain = _without_display_magics(TransformerManager().transform_cell(source))
        compile(plain, f"{label}, cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        found = f"{error.msg} (line {error.lineno})"
        raise _error(label, number, source, found, "correct the cell") from error
    foreign = _foreign(ast.parse(plain))
    if foreign:
        raise _error(label, number, source, *foreign)
    return plain


def _only_defines(source: str) -> bool:
    """Whether a cell holds nothing but imports, functions, classes and bare text."""
    return all(
        isinstance(node, _DEFINITIONS)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.parse(source).body
    )


def _indented(source: str, spaces: int) -> str:
    """Indent, except for lines that begin inside a text of several lines."""
    inside: set[int] = set()
    kinds = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            inside |= set(range(token.start[0] + 1, token.end[0] + 1))
    lines = source.splitlines()
    return "\n".join(
        line if number in inside or not line.strip() else " " * spaces + line
        for number, line in enumerate(lines, start=1)
    )


# ---- the whole


def _literal(text: str) -> str:
    """Text as Python source; over several lines where that is exact."""
    plain = '"""' not in text and "\\" not in text and not text.endswith('"')
    return f'"""\\\n{text}\n"""' if plain else repr(text)


def _require_display(pieces: list[tuple[int, str, str]], label: str) -> None:
    """`display` is there in a kernel only."""
    for number, source, _ in pieces:
        for node in ast.walk(ast.parse(source)):
            names = [a.asname or a.name for a in getattr(node, "names", []) if hasattr(a, "name")]
            if "display" in names:
                return
            if isinstance(node, ast.Name) and node.id == "display":
                remedy = "from IPython.display import display, or tag the cell `notebook_only`"
                raise _error(label, number, source, "display, which only a kernel has", remedy)


def _require_command_line(parameters: Sequence[Parameter], label: str) -> None:
    try:
        command_line(parameters, label)
    except argparse.ArgumentError as error:
        raise CompileError(
            explain(
                f"{label} cannot be compiled: a parameter has the name of another option",
                expected="no parameter called help, params, print_params, or no_X beside a bool X",
                found=error,
                remedy="rename the parameter",
            )
        ) from error


def _block(number: int, source: str, kind: str) -> str:
    title = f"\n# cell {number}"
    if kind == "definitions":
        return f"{title}\n{source}\n"
    if kind == "check":
        return f"{title}{_MAIN}    with _script.refusing():\n{_indented(source, 8)}\n"
    return f"{title}{_MAIN}{_indented(source, 4)}\n"


def _pieces(notebook: Mapping, label: str) -> list[tuple[int, str, str]]:
    """Number, plain source and kind (definitions, check, main) of each cell that is kept."""
    checks = {number for number, _ in check_cells(notebook, label)}
    pieces = []
    for number, source, tags in code_cells(notebook):
        if tags & {"parameters", "notebook_only"} or _EVAL_FALSE.search(source):
            continue
        plain = _python(source, number, label)
        if ast.parse(plain).body:
            kind = "definitions" if _only_defines(plain) else "main"
            pieces.append((number, plain, "check" if number in checks else kind))
    return pieces


def compile_notebook(path: str | Path) -> str:
    """Text of the script that a notebook compiles to.

    Parameters
    ----------
    path : path
        Notebook with one cell tagged `parameters`, which declares `run_dir: str = ""`.

    Raises
    ------
    ParameterError
        The parameters cell is not as `aqnet.jobs.parameter_cell` wants it.
    CompileError
        A cell cannot run outside a kernel; the message names it.
    """
    label = str(path)
    notebook = read_notebook(path)
    parameters = parse_parameters(notebook, label)
    require_run_dir(parameters, label)
    _require_command_line(parameters, label)
    pieces = _pieces(notebook, label)
    _require_display(pieces, label)
    source = parameters_source(notebook, label).strip("\n")
    blocks = [_block(*piece) for piece in pieces]
    first = next((i for i, piece in enumerate(pieces) if piece[2] == "main"), len(blocks))
    blocks.insert(first, _OPEN_RUN)
    header = _HEADER.format(
        notebook=relative_path(Path(path)),
        digest=code_digest(notebook),
        parameters=_literal(source),
    )
    return "".join([header, *blocks, _END])


def write_script(path: str | Path, target: str | Path) -> None:
    """Compile a notebook into a file, written in one piece."""
    atomic_write_text(target, compile_notebook(path))


def check_script(path: str | Path, target: str | Path) -> None:
    """Check that a script is what its notebook compiles to now.

    Raises
    ------
    CompileError
        There is no such file, or it differs.
    """
    target, wanted = Path(target), compile_notebook(path)
    found = target.read_text(encoding="utf-8") if target.is_file() else None
    if found == wanted:
        return
    raise CompileError(
        explain(
            f"{target} is not what {path} compiles to",
            expected="the script of the notebook as it is now",
            found="no file there" if found is None else "another text",
            remedy=f"aqnet compile {path} --output {target}",
        )
    )
