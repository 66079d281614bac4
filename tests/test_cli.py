"""The command `aqnet`, run as a user runs it: in its own process, with real kernels."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import click.testing
import pytest
import xarray as xr
from notebook_tools import ROOT, aqnet, make_notebook, start_aqnet

import aqnet as package
from aqnet.cli import main
from aqnet.errors import ParameterError
from aqnet.io import sha256_file
from aqnet.jobs import execute, notebook_end
from aqnet.jobs.runs import RunFolder, list_runs
from aqnet.training.heartbeat import HEARTBEAT, Beat, write_beat

TYPED = """\
rate: float = 0.1  # learning rate [1] {1e-6..1}
hours: list[int] = [12, 24]  # lead times [h] {1..96}
flag: bool = True
text: str = "plain"
weights: list[float] = [1.0]
"""
ODD_TEXT = 'a "quoted" \\n {x} \' # µ'


def only_run(folder: Path) -> RunFolder:
    (run,) = list_runs(folder / "runs")
    return run


def read_until(process, word: str) -> str:
    """First line with the word; a run that ends before it fails the test with its errors."""
    for line in process.stdout:
        if word in line:
            return line
    pytest.fail(f"no {word!r} in the output; stderr: {process.stderr.read()}")


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} survived"
        time.sleep(0.05)


# ---- a run that works


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """One run with values of every type, beside an installed kernel of another Python."""
    folder = tmp_path_factory.mktemp("complete")
    spec = folder / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    wrong = {"argv": ["/bin/false"], "display_name": "wrong", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(wrong))
    (folder / "sub").mkdir()
    (folder / "repository" / "data_manifests").mkdir(parents=True)
    (folder / "repository" / "settings.ini").touch()
    (folder / "repository" / "more.yaml").write_text("rate: 1e-4\nweights: [1e-3, 2]\nflag: true\n")
    notebook = make_notebook(
        folder / "sub" / "typed.ipynb",
        TYPED,
        "import json, os, sys, time\nfrom pathlib import Path\nimport aqnet\n"
        "from aqnet.jobs.runs import RunFolder\nprint('first line', flush=True)",
        "end = time.monotonic() + 20\n"
        "while not Path('../go').exists():\n"
        "    assert time.monotonic() < end, 'nobody read the first line while the cell ran'\n"
        "    time.sleep(0.05)",
        "run = RunFolder.for_notebook(run_dir, 'typed', {})\n"
        "values = [rate, hours, flag, text, weights]\n"
        "kinds = [type(v).__name__ for v in values + weights]\n"
        "run.write_metrics({'values': values, 'kinds': kinds, 'python': sys.executable,\n"
        "    'package': aqnet.__file__, 'cwd': os.getcwd(), 'data': os.environ['AQNET_DATA'],\n"
        "    'root': os.environ['AQNET_ROOT'], 'runs': os.environ['AQNET_RUNS']})\n"
        "run.finish()\n"
        "print('to stderr', file=sys.stderr)",
    )
    process = start_aqnet(
        *(
            "run",
            "../sub/typed.ipynb",
            "-f",
            "more.yaml",
            "-p",
            "flag=false",
            "-p",
            "hours=[12,48]",
        ),
        *("-p", f"text={ODD_TEXT}"),
        cwd=folder / "repository",
        JUPYTER_PATH=str(folder / "jupyter"),
        AQNET_DATA="stores",
    )
    read_until(process, "first line")
    (folder / "go").touch()
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return folder, notebook, output, only_run(folder / "repository")


def test_output_comes_while_the_cell_runs_and_ends_with_the_folder(complete):
    """The notebook itself fails unless its first line was read before it went on."""
    _, _, output, run = complete
    assert f"complete: {run.path}" in output
    assert "to stderr" in output
    assert run.log_path.read_text() == "first line\nto stderr\n"


def test_values_arrive_in_the_cells_with_their_types(complete):
    metrics = complete[3].read_metrics()
    assert metrics["values"] == [1e-4, [12, 48], False, ODD_TEXT, [1e-3, 2.0]]
    assert metrics["kinds"] == ["float", "list", "bool", "str", "list", "float", "float"]
    assert complete[3].parameters["hours"] == [12, 48]


def test_kernel_is_this_interpreter_with_this_package_in_the_notebooks_folder(complete):
    folder, _, _, run = complete
    metrics = run.read_metrics()
    assert metrics["python"] == sys.executable
    assert metrics["package"] == package.__file__
    assert metrics["cwd"] == str(folder / "sub")
    root = folder / "repository"
    assert [metrics[name] for name in ("root", "data", "runs")] == [
        str(root),
        str(root / "stores"),
        str(root / "runs"),
    ]


def test_complete_run_has_status_digest_and_executed_notebook(complete):
    _, notebook, _, run = complete
    assert run.record.status == "complete" and run.record.error is None
    assert run.record.notebook == "typed" and len(run.record.notebook_sha256) == 64
    assert run.path.name.split("-")[-1] == run.provenance.parameters_sha256[:8]
    executed = json.loads(run.notebook_path.read_text())
    assert "first line\n" in str(executed["cells"][2]["outputs"][0]["text"][0])
    assert not any(cell["outputs"] for cell in json.loads(notebook.read_text())["cells"])


# ---- runs that fail


def test_failing_cell_gives_a_short_message_and_keeps_the_traceback_in_the_log(tmp_path):
    make_notebook(
        tmp_path / "bad.ipynb",
        "",
        "print('before')",
        "def f():\n    raise ValueError('boom')\nf()",
        "print('never')",
    )
    done = aqnet("run", "bad.ipynb", cwd=tmp_path)
    run = only_run(tmp_path)
    assert done.returncode == 1
    assert "bad.ipynb failed in cell 3 of 4, `def f():`\nValueError: boom\n" in done.stderr
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
    log = run.log_path.read_text()
    assert log.startswith("before\n") and "Traceback" in log and "in f()" in log
    assert "\x1b" not in log and "never" not in log
    assert run.record.status == "failed"
    assert run.record.error.model_dump() == {"type": "ValueError", "message": "boom", "cell": 2}
    assert "boom" in run.notebook_path.read_text()


def test_error_of_aqnet_in_a_cell_decides_message_and_exit_code(tmp_path):
    make_notebook(
        tmp_path / "lead.ipynb",
        "",
        "from aqnet.errors import ParameterError, explain\n"
        "raise ParameterError(explain('lead time 500 h', expected='at most 96 h', "
        "found='500 h', remedy='choose less'))",
    )
    done = aqnet("run", "lead.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert "lead time 500 h\n  expected: at most 96 h\n  found:    500 h" in done.stderr
    assert "ParameterError:" not in done.stderr and "Traceback" not in done.stderr
    assert only_run(tmp_path).record.error.type == "ParameterError"


def test_a_stopped_training_has_the_time_of_a_step_and_is_told_how_to_go_on(tmp_path):
    """At full size on two cores a step takes a minute: killed before its end, it is lost."""
    run = RunFolder.create("nbs/train/forecast.ipynb", {}, tmp_path)
    assert execute._grace_s(run) == execute.GRACE_S
    beat = Beat(rank=0, world=1, host="a", pid=1, attempt="b", own_seconds_per_step=80.0)
    (run.path / HEARTBEAT).mkdir(exist_ok=True)
    write_beat(run.path / HEARTBEAT, beat)
    assert execute._grace_s(run) == execute.GRACE_S + 160
    assert "to repeat it" in str(notebook_end._interrupted(run, "forecast", signal.SIGINT))
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / "last.ckpt").touch()
    said = str(notebook_end._interrupted(run, "forecast", signal.SIGINT))
    assert f"to go on, add -p resume={run.checkpoints / 'last.ckpt'}" in said


def test_a_cell_that_was_stopped_by_a_signal_of_its_own_is_interrupted_not_failed(tmp_path):
    raising = "from aqnet.errors import InterruptedRunError\nraise InterruptedRunError('SIGUSR1')"
    make_notebook(tmp_path / "stopped.ipynb", "", raising)
    assert aqnet("run", "stopped.ipynb", cwd=tmp_path).returncode == 130
    assert only_run(tmp_path).record.status == "interrupted"


def test_dead_kernel_is_named(tmp_path):
    make_notebook(tmp_path / "dead.ipynb", "", "import os\nos._exit(3)")
    done = aqnet("run", "dead.ipynb", cwd=tmp_path)
    assert done.returncode == 1
    assert "the kernel died (out of memory, or killed from outside)" in done.stderr
    assert "Traceback" not in done.stderr
    assert only_run(tmp_path).record.status == "failed"


def test_output_that_does_not_fit_on_the_disk_is_explained(tmp_path):
    """With a file size limit of 60 kB, an output of 200 kB fits neither log nor notebook."""
    make_notebook(tmp_path / "big.ipynb", "", "print('x' * 200_000)")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    (tmp_path / "sitecustomize.py").write_text(code)
    done = aqnet("run", "big.ipynb", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "the file size limit (ulimit -f) is reached" in done.stderr
    assert "remedy:   delete old folders" in done.stderr and "Traceback" not in done.stderr
    assert only_run(tmp_path).record.status == "failed"


# ---- runs that are stopped

SLEEP = (
    "import os, sys, time\nfrom aqnet.io import atomic_directory\n"
    "with atomic_directory('store') as folder:\n"
    "    (folder / 'half').touch()\n    print('kernel pid', os.getpid(), flush=True)\n"
    "    time.sleep(seconds)"
)
STUBBORN = (
    "import os, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "print('kernel pid', os.getpid(), flush=True)\ntime.sleep(seconds)"
)


def start_sleeping(folder: Path, cell: str = SLEEP):
    make_notebook(folder / "sleep.ipynb", "seconds: float = 60.0  # [s]\n", cell, "print('end')")
    process = start_aqnet("run", "sleep.ipynb", cwd=folder)
    return process, int(read_until(process, "kernel pid ").split()[2])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_ends_with_130_cleans_up_and_can_be_repeated(tmp_path, number):
    process, kernel = start_sleeping(tmp_path)
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130, error
    assert "sleep.ipynb was stopped by" in error and "Traceback" not in error
    wait_until_gone(kernel, 1)
    run = only_run(tmp_path)
    assert run.record.status == "interrupted" and run.record.ended is not None
    assert "KeyboardInterrupt" in run.notebook_path.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs", "sleep.ipynb"]
    if number == signal.SIGINT:
        again = aqnet("run", "sleep.ipynb", "-p", "seconds=0", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert (tmp_path / "store" / "half").exists()


def test_second_signal_kills_a_kernel_that_does_not_listen(tmp_path):
    process, kernel = start_sleeping(tmp_path, STUBBORN)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None and is_alive(kernel)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    wait_until_gone(kernel, 1)
    assert only_run(tmp_path).record.status == "interrupted"


def test_kernel_does_not_survive_a_killed_command(tmp_path):
    """ipykernel looks for its parent once a second."""
    process, kernel = start_sleeping(tmp_path)
    process.kill()
    process.communicate(timeout=10)
    wait_until_gone(kernel, 10)


# ---- refused before anything starts


@pytest.fixture
def typed(tmp_path, monkeypatch):
    make_notebook(tmp_path / "typed.ipynb", TYPED, "print('must not run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    return tmp_path


def command(*arguments: str) -> click.testing.Result:
    """The same command in this process, where nothing needs a kernel."""
    return click.testing.CliRunner().invoke(main, arguments)


def test_wrong_parameters_end_the_process_with_2(typed):
    done = aqnet("run", "typed.ipynb", "-p", "raet=0.1", cwd=typed)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: unknown parameter raet (-p)\n  expected: one of run_dir")
    assert "did you mean rate?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-p", "rate=fast"], "parameter rate (-p): a finite number needed"),
        (["-p", "rate=2"], "at most 1.0 needed"),
        (["-p", "flag=1"], "true or false needed"),
        (["-p", "rate=0.1", "-p", "rate=0.2"], "rate is given twice"),
        (["-p", "rate"], "given as name=value"),
        (["-p", "run_dir=here"], "run_dir is set by `aqnet run`"),
        (["-f", "none.yaml"], "cannot read none.yaml"),
    ],
)
def test_wrong_parameters_create_nothing(typed, arguments, part):
    done = command("run", "typed.ipynb", *arguments)
    assert done.exit_code == 2 and part in done.stderr
    assert [p.name for p in typed.iterdir()] == ["typed.ipynb"]


def test_a_notebook_that_is_missing_or_lacks_what_a_run_needs_is_named(typed):
    make_notebook(typed / "plain.ipynb", None, "print(1)")
    content = json.loads((typed / "typed.ipynb").read_text())
    content["cells"][0]["source"] = TYPED
    (typed / "deaf.ipynb").write_text(json.dumps(content))
    for name, part in [
        ("none.ipynb", "no file there"),
        ("plain.ipynb", "has 0 cells tagged"),
        ("deaf.ipynb", "cannot receive its run folder"),
    ]:
        done = command("run", name)
        assert done.exit_code == 2 and name in done.stderr and part in done.stderr
    assert not (typed / "runs").exists()


# ---- the other commands


def test_params_shows_type_unit_range_default_and_help(typed):
    done = command("params", "typed.ipynb")
    assert done.exit_code == 0
    expected = "rate = 0.1\n    float (no unit), range 1e-06..1.0\n    learning rate\n"
    assert expected in done.stdout
    assert "hours = [12, 24]\n    list[int] in h, range 1..96\n" in done.stdout


def test_version_and_debug(typed):
    assert package.__version__ in command("--version").stdout
    assert isinstance(command("--debug", "params", "none.ipynb").exception, ParameterError)
    assert isinstance(command("params", "none.ipynb").exception, SystemExit)


def test_unknown_command_and_option_end_with_2(typed):
    assert command("rnu").exit_code == 2
    assert command("run", "typed.ipynb", "--colour").exit_code == 2


# ---- data


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of what the repository ships, to be damaged."""
    (tmp_path / "settings.ini").touch()
    shutil.copytree(ROOT / "data_manifests", tmp_path / "data_manifests")
    monkeypatch.chdir(tmp_path)
    for name in ("AQNET_ROOT", "AQNET_DATA", "AQNET_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_data_check_accepts_the_shipped_files_and_names_a_missing_store(repository):
    done = command("data", "check", "beijing")
    assert done.exit_code == 0, done.stderr
    assert "files of beijing: as the manifest says" in done.stdout
    assert "aqnet data beijing builds it" in done.stdout
    missing = command("data", "check", "beijing", "--store", "none.zarr")
    assert missing.exit_code == 1 and "there is no store at none.zarr" in missing.stderr


@pytest.mark.parametrize("arguments", [["check", "beijing"], ["beijing"]])
def test_a_changed_checksum_is_named_and_nothing_is_written(repository, arguments):
    file = repository / "data_manifests" / "beijing" / "stations.nc"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = command("data", *arguments)
    assert done.exit_code == 1
    assert "stations.nc" in done.stderr and "expected: sha256" in done.stderr
    assert "remedy:" in done.stderr and "Traceback" not in done.stderr
    data = repository / "data"
    assert not data.exists() or not list(data.iterdir())


def test_a_station_file_without_a_column_is_named_and_nothing_is_written(repository):
    folder = repository / "data_manifests"
    file = folder / "beijing" / "stations.nc"
    before = sha256_file(file)
    with xr.open_dataset(file, decode_cf=False) as source:
        packed = source.load()
    packed.drop_vars("SO2").to_netcdf(file)
    manifest = folder / "beijing.yaml"
    manifest.write_text(manifest.read_text().replace(before, sha256_file(file)))
    done = command("data", "beijing")
    assert done.exit_code == 1
    assert "SO2" in done.stderr and "expected:" in done.stderr and "Traceback" not in done.stderr
    data = repository / "data"
    assert not data.exists() or not list(data.iterdir())


def test_unknown_manifest_is_named(repository):
    done = command("data", "check", "tianjin")
    assert done.exit_code == 1 and "there is no manifest tianjin" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_build_leaves_nothing(repository, number):
    process = start_aqnet("data", "beijing", "--out", "out/store.zarr", cwd=repository)
    read_until(process, "reading stations")
    time.sleep(0.5)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "run the command again" in error and "Traceback" not in error
    assert list((repository / "out").iterdir()) == []


def test_existing_store_is_not_replaced_without_force(repository):
    (repository / "data" / "beijing.zarr").mkdir(parents=True)
    done = command("data", "beijing")
    assert done.exit_code == 1 and "beijing.zarr exists already" in done.stderr
    assert "--force" in done.stderr
