"""Compiled notebooks: what a script holds, what is refused, and that it runs like the notebook."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click.testing
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_tools import ROOT, make_notebook

from aqnet.cli.compile import compile_command
from aqnet.errors import CompileError, ParameterError
from aqnet.jobs.compile import _indented, _literal, compile_notebook, write_script
from aqnet.jobs.execute import run_notebook
from aqnet.jobs.notebook import code_digest, read_notebook
from aqnet.jobs.runs import RunFolder, list_runs

TYPED = """\
rate: float = 0.1  # learning rate, 100 % [1] {1e-6..1}
hours: list[int] = [12, 24]  # lead times [h] {1..96}
flag: bool = True
text: str = "it's"
width: int | None = None  # {8..}
"""
STORE = (
    "from aqnet.jobs.parameters import declared_values\n"
    "from aqnet.jobs.runs import RunFolder\n"
    "run = RunFolder.for_notebook(run_dir, 'typed', declared_values(globals()))\n"
    "run.write_metrics(declared_values(globals()) | {'run_dir': ''})\n"
    "run.finish()"
)
CHECK = (
    "from aqnet.errors import SampleError\n"
    "if width is not None and rate > 0.5:\n"
    "    raise SampleError('width and rate do not go together')"
)


@pytest.fixture
def notebook(tmp_path):
    path = make_notebook(tmp_path / "typed.ipynb", TYPED, CHECK, STORE)
    return tag(path, 1, "check")


def tag(path, index, *tags):
    content = nbformat.read(path, as_version=4)
    content.cells[index].metadata["tags"] = list(tags)
    nbformat.write(content, path)
    return path


def compiled(tmp_path, *cells):
    return compile_notebook(make_notebook(tmp_path / "n.ipynb", "x: int = 1\n", *cells))


def python(script, *arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AQNET_", "SLURM", "RANK"))}
    given = {"AQNET_RUNS": str(Path(script).parent / "runs"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=clean | given | environment,
        cwd=Path(script).parent,
        timeout=60,
    )


def script_of(notebook):
    target = notebook.with_suffix(".py")
    write_script(notebook, target)
    return target


# ---- the text


def test_the_same_cells_give_the_same_bytes_whatever_their_outputs(notebook):
    before = compile_notebook(notebook)
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].outputs = [nbformat.v4.new_output("stream", text="metrics")]
    content.cells.insert(0, nbformat.v4.new_markdown_cell("# Title"))
    nbformat.write(content, notebook)
    assert code_digest(read_notebook(notebook)) in before
    after = compile_notebook(notebook)
    # the number of a cell is that in the notebook
    assert [s for s in after.splitlines() if "# cell" not in s] == [
        s for s in before.splitlines() if "# cell" not in s
    ]
    assert after == compile_notebook(notebook)


def test_definitions_stay_at_the_top_level_and_the_rest_runs_under_main(tmp_path):
    text = compiled(
        tmp_path,
        "import os\nfrom pathlib import Path\n\ndef f():\n    return x\n\nclass A:\n    pass",
        "y = f()",
        "# nothing but a comment",
        "def g():\n    return 2",
        "'text'",
    )
    body = ast.parse(text).body
    assert {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))} == set("fAg")
    names = {n.id for n in body if isinstance(n, ast.Assign) for n in n.targets}
    assert names == {"_script"}
    assert text.index("def f()") < text.index("open_run") < text.index("y = f()") < text.index("g(")


def test_what_is_for_the_notebook_only_is_left_out(tmp_path):
    path = make_notebook(
        tmp_path / "n.ipynb",
        "x: int = 1\n",
        "%matplotlib inline\n%load_ext autoreload\n%autoreload 2\na = 1\nif a:\n    text = '%time'",
        "!rm -rf elsewhere",
        "#| eval: false\n%time b = 2",
    )
    text = compile_notebook(tag(path, 2, "notebook_only"))
    assert "a = 1" in text and "text = '%time'" in text
    for word in ("matplotlib inline", "autoreload", "rm -rf", "b = 2", "get_ipython"):
        assert word not in text
    assert 'setdefault("MPLBACKEND", "Agg")' in text


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("%time y = 1", "a magic"),
        ("%%bash\nls", "a magic"),
        ("!ls", "a magic"),
        ("y = !ls", "a magic"),
        ("y = %timeit -o 1", "a magic"),
        ("if x:\n    %matplotlib inline", "a magic"),
        ("%load_ext tensorboard", "a magic"),
        ("x?", "a magic"),
        ("get_ipython().system('ls')", "a magic"),
        ("import asyncio\nawait asyncio.sleep(1)", "await outside a function"),
        ("async with x:\n    pass", "await outside a function"),
        ("from __future__ import annotations", "__future__"),
        ("y = (1", "was never closed"),
        ("return 1", "outside function"),
        ("display(x)", "display"),
    ],
)
def test_what_only_a_kernel_understands_is_an_error_that_names_the_cell(tmp_path, cell, part):
    with pytest.raises(CompileError) as caught:
        compiled(tmp_path, "y = 1", cell)
    message = str(caught.value)
    assert "n.ipynb cannot be compiled: cell 3, `" + cell.splitlines()[0] in message
    assert part in message and "remedy:" in message


def test_functions_may_be_coroutines_and_display_may_be_imported(tmp_path):
    compiled(
        tmp_path,
        "async def f():\n    await g()",
        "from IPython.display import display",
        "display(x)",
    )


def test_a_notebook_needs_its_parameters_and_checks_at_their_place(notebook, tmp_path):
    with pytest.raises(ParameterError, match="0 cells tagged"):
        compile_notebook(make_notebook(tmp_path / "none.ipynb", None, "print(1)"))
    with pytest.raises(ParameterError, match="`check` is out of place"):
        compile_notebook(tag(tag(notebook, 1), 2, "check"))


@pytest.mark.parametrize("line", ["params: int = 1", "help: str = ''", "no_flag: int = 1"])
def test_a_parameter_may_not_have_the_name_of_an_option(tmp_path, line):
    path = make_notebook(tmp_path / "n.ipynb", f"flag: bool = True\n{line}\n", "x = 1")
    with pytest.raises(CompileError, match="the name of another option"):
        compile_notebook(path)


TEXTS = st.text(st.sampled_from("ab'\"\\\n {}"), max_size=12)


@given(st.lists(TEXTS, max_size=4))
def test_indenting_changes_no_text_of_a_cell(texts):
    lines = [f"a{i} = {text!r}" for i, text in enumerate(texts)]
    lines += [
        'b = """first',
        "  second",
        '"""',
        "if b:",
        "    c = f'''{b",
        "}",
        "x'''",
        "",
        "d = 1",
    ]
    source = "\n".join(lines)
    moved = ast.parse("if True:\n" + _indented(source, 4)).body[0].body
    assert ast.dump(ast.Module(moved, [])) == ast.dump(ast.Module(ast.parse(source).body, []))


@given(TEXTS)
def test_the_parameters_cell_is_stored_exactly(text):
    assert ast.literal_eval(_literal(text)).strip("\n") == text.strip("\n")


# ---- the script


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = make_notebook(tmp_path_factory.mktemp("s") / "typed.ipynb", TYPED, CHECK, STORE)
    return script_of(tag(path, 1, "check"))


def test_defaults_then_files_then_flags(script):
    (script.parent / "a.yaml").write_text("rate: 1e-4\nhours: [48]\nwidth: 16\n")
    (script.parent / "b.yaml").write_text("hours: [96]\n")
    done = python(
        *(script, "--params", "a.yaml", "--params=b.yaml", "--no-flag", "--width", "null"),
        *("--text", "x=y 'z'"),
    )
    assert done.returncode == 0, done.stderr
    run = list_runs(script.parent / "runs")[-1]
    assert f"complete: {run.path}" in done.stdout
    assert run.record.status == "complete" and run.record.started_by == "script"
    assert run.record.notebook == "typed" and run.record.notebook_path == "typed.ipynb"
    assert run.record.notebook_sha256 in script.read_text()
    wanted = {"rate": 1e-4, "hours": [96], "flag": False, "text": "x=y 'z'", "width": None}
    assert run.parameters == wanted
    assert run.read_metrics() == {"run_dir": ""} | wanted


def test_print_params_and_help_start_nothing(script):
    runs = len(list_runs(script.parent / "runs"))
    done = python(script, "--print-params", "--hours", "[1,2]")
    assert done.returncode == 0 and "hours:\n- 1\n- 2\n" in done.stdout
    done = python(script, "--help")
    assert done.returncode == 0 and "--no-flag" in done.stdout and "100 %" in done.stdout
    assert "range 1e-06..1.0" in " ".join(done.stdout.split())
    assert len(list_runs(script.parent / "runs")) == runs


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--raet", "1"], "unrecognized arguments: --raet"),
        (["--rat", "1"], "unrecognized arguments: --rat"),
        (["--rate", "2"], "at most 1.0 needed"),
        (["--rate", "fast"], "a finite number needed"),
        (["--rate", "0.1", "--rate", "0.2"], "rate is given twice"),
        (["--flag", "--no-flag"], "not allowed with"),
        (["--params", "none.yaml"], "cannot read none.yaml"),
        (["--width", "8", "--rate", "0.9"], "width and rate do not go together"),
    ],
)
def test_wrong_parameters_end_with_2_and_leave_no_run(script, arguments, part):
    done = python(script, *arguments, AQNET_RUNS=str(script.parent / "refused"))
    assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr
    assert not (script.parent / "refused").exists()


def test_a_failing_cell_is_noted_and_its_traceback_printed(tmp_path):
    script = script_of(make_notebook(tmp_path / "bad.ipynb", "", "raise ValueError('boom')"))
    done = python(script, "--run-dir", "here")
    assert done.returncode == 1 and "ValueError: boom" in done.stderr
    run = RunFolder.open(tmp_path / "here")
    assert run.record.status == "failed" and run.record.error.type == "ValueError"


SPAWN = (
    "import multiprocessing as mp\n\ndef seen(_):\n    return [rate, width, bool(run_dir)]",
    "with mp.get_context('spawn').Pool(1) as pool:\n    found = pool.map(seen, [0])[0]",
    "from aqnet.jobs.runs import RunFolder\n"
    "RunFolder.for_notebook(run_dir, 'n', {}).write_metrics({'seen': found})",
)


def test_spawned_workers_see_the_parameters_of_the_command_line(tmp_path):
    script = script_of(make_notebook(tmp_path / "n.ipynb", TYPED, *SPAWN))
    done = python(script, "--rate", "0.3", "--width", "64")
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "runs")
    assert run.read_metrics() == {"seen": [0.3, 64, True]}


def test_several_processes_share_one_run_folder_that_rank_0_writes(tmp_path):
    script = script_of(make_notebook(tmp_path / "n.ipynb", TYPED, STORE))
    ranks = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    done = python(script, RANK="1", LOCAL_RANK="1", **ranks)
    assert done.returncode == 2 and "no common run folder" in done.stderr
    for rank in ("1", "0"):  # the later rank first: it must not wait for the folder
        done = python(script, "--run-dir", "both", RANK=rank, LOCAL_RANK=rank, **ranks)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "both").exists() == (rank == "0")
    assert RunFolder.open(tmp_path / "both").record.status == "complete"
    done = python(script, "--run-dir", "both")
    assert done.returncode == 0, done.stderr
    done = python(script, "--run-dir", "both", "--rate", "0.2")
    assert done.returncode == 2 and "is the folder of another run" in done.stderr
    assert "expected: rate = 0.1\n  found:    rate = 0.2" in done.stderr


def test_kernel_and_script_store_the_same(notebook, tmp_path):
    given = ["rate=0.25", "width=16", "hours=[24]"]
    kernel = run_notebook(notebook, given, root=tmp_path / "runs", echo=lambda _: None)
    time.sleep(1)  # the name of a run folder holds whole seconds
    done = python(script_of(notebook), "--rate=0.25", "--width=16", "--hours=[24]")
    assert done.returncode == 0, done.stderr
    script = list_runs(tmp_path / "runs")[-1]
    assert script.path != kernel.path
    assert script.read_metrics() == kernel.read_metrics()
    assert script.record.notebook_sha256 == kernel.record.notebook_sha256
    assert script.provenance.parameters_sha256 == kernel.provenance.parameters_sha256


# ---- checks before a kernel


def test_a_check_refuses_before_anything_starts(notebook, tmp_path):
    with pytest.raises(ParameterError, match="width and rate do not go together"):
        run_notebook(notebook, ["width=8", "rate=0.9"], root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_check_sees_the_parameters_only(tmp_path):
    path = make_notebook(tmp_path / "n.ipynb", "x: int = 1\n", "y = elsewhere", "elsewhere = 1")
    with pytest.raises(NameError):
        run_notebook(tag(path, 1, "check"), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# ---- the command


def command(*arguments):
    return click.testing.CliRunner().invoke(compile_command, [str(a) for a in arguments])


def test_check_sees_a_stale_script(notebook):
    done = command(notebook, "--check")
    assert isinstance(done.exception, CompileError) and "no file there" in str(done.exception)
    assert command(notebook).exit_code == 0
    target = notebook.with_suffix(".py")
    assert target.read_text() == compile_notebook(notebook)
    assert command(notebook, "--check").exit_code == 0
    content = json.loads(notebook.read_text())
    content["cells"][2]["source"] += "\nprint(2)"
    notebook.write_text(json.dumps(content))
    stale = command(notebook, "--check")
    assert isinstance(stale.exception, CompileError) and "another text" in str(stale.exception)
    assert command(notebook, "--output", target).exit_code == 0
    assert command(notebook, "--check").exit_code == 0
