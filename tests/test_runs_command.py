"""`aqnet runs` on real runs: by papermill, as a script, as a submitted job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
import torch
from checkpoints import made_up
from made_up_years import make_year
from notebook_tools import ROOT, make_notebook

import aqnet as package
from aqnet.cli import main
from aqnet.io import sha256_file
from aqnet.jobs.compile import write_script
from aqnet.jobs.runs import Environment, RunFolder, list_runs
from aqnet.jobs.submission import prepare
from aqnet.jobs.submit import submit
from aqnet.training.checkpoint_file import read_checkpoint, write_checkpoint

PARAMETERS = "rate: float = 0.1  # [1] {0..1}\nplace: str = ''\nfail: bool = False\n"
CELLS = (
    "import sys\nfrom pathlib import Path\n"
    "from aqnet.data.years.reader import open_year\nfrom aqnet.io import sha256_file\n"
    "from aqnet.jobs.runs import RunFolder\n"
    "from aqnet.training.checkpoint_file import write_checkpoint",
    "run = RunFolder.for_notebook(run_dir, 'toy', {'rate': rate, 'place': place, 'fail': fail})\n"
    "print('measuring', rate, flush=True)\n"
    "assert not fail, 'as asked'",
    "sys.path.insert(0, place)\n"  # with the helper of the tests
    "from checkpoints import made_up, training_state\n"
    "(store,), notes = Path(place).glob('*.zarr'), Path(place) / 'notes.txt'\n"
    "run.record_data('store', open_year(store).digest, store)\n"
    "run.record_data('notes', sha256_file(notes), notes)\n"
    "write_checkpoint(run.checkpoints / 'best.ckpt', made_up(training=training_state()))\n"
    "run.write_metrics({'score': {'rmse': [3.0, 2 * rate]}, 'count': 7})\n"
    "run.finish()",
)


COMMAND = "from aqnet.cli import main; main(prog_name='aqnet')"
COMMIT = ("-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "-q", "-m", "all")


class Site:
    """A repository with its package, a notebook, its data and its runs.

    A copy: somebody may edit the package while the tests run, and the runs would tell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.data = folder, folder / "runs", folder / "data"
        self.notebook, self.package = folder / "toy.ipynb", folder / "code" / "aqnet"
        for name in ("aqnet", "data_manifests", "slurm"):
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "code" / name, ignore=skip)
        shutil.copy(ROOT / "settings.ini", folder / "code")
        for arguments in (("init", "-q"), ("add", "."), COMMIT):
            subprocess.run(["git", *arguments], cwd=folder / "code", check=True)
        self.data.mkdir()
        shutil.copy(ROOT / "tests" / "checkpoints.py", self.data)
        (self.data / "notes.txt").write_text("as measured")
        make_year(self.data, days=4)
        make_notebook(self.notebook, PARAMETERS, *CELLS)

    def call(self, *command: object) -> subprocess.CompletedProcess:
        places = {"PYTHONPATH": str(self.package.parent), "AQNET_RUNS": str(self.runs)}
        return subprocess.run(
            [sys.executable, *map(str, command)], cwd=self.folder, capture_output=True, text=True,
            env=os.environ | places | {"PYTHONDONTWRITEBYTECODE": "1"}, timeout=120,
        )  # fmt: skip

    def new(self, *command: object, code: int = 0) -> RunFolder:
        """The run that a command makes."""
        before = {run.path for run in list_runs(self.runs)}
        done = self.call(*command)
        assert done.returncode == code, done.stderr
        (run,) = (run for run in list_runs(self.runs) if run.path not in before)
        return run

    def script(self, *arguments: str) -> list[object]:
        write_script(self.notebook, self.folder / "toy.py")
        return [self.folder / "toy.py", "--place", self.data, *arguments]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    """Runs: by papermill; as a script with another `rate`; as a script that failed."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.first = made.new("-c", COMMAND, "run", made.notebook, "-p", f"place={made.data}")
    made.second = made.new(*made.script("--rate", "0.25"))
    made.failed = made.new(*made.script("--fail"), code=1)
    with pytest.MonkeyPatch.context() as patch:  # the commands in this process, too
        patch.setattr(package, "__file__", str(made.package / "__init__.py"))
        yield made


def command(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["runs", *map(str, arguments)])


def verify(run: Path, *options: str) -> tuple[int, dict[str, str], str]:
    """Exit code, outcome by name, and all that was said."""
    done = command("verify", run, *options)
    lines = [line.split(None, 1) for line in done.stdout.splitlines() if line[:1].strip()]
    said = {text.split(": ")[0]: status for status, text in lines}
    return done.exit_code, said, done.stdout + done.stderr


@pytest.fixture
def copied(site, tmp_path):
    """A run folder to be damaged."""
    return Path(shutil.copytree(site.first.path, tmp_path / "runs" / site.first.path.name))


# ---- list


def test_list_shows_and_filters_what_is_there(site):
    done = command("list", "--root", site.runs, "--metric", "score.rmse.-1")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["name", "status", "notebook", "created", "duration", "score.rmse.-1"]
    assert [line.split()[0] for line in lines] == [r.path.name for r in list_runs(site.runs)]
    assert [line.split()[-1] for line in lines] == ["0.2", "0.5", "-"]
    failed = command("list", "--root", site.runs, "--status", "failed").stdout
    assert site.failed.path.name in failed and site.first.path.name not in failed
    assert len(command("list", "--root", site.runs, "--notebook", "other").stdout.split("\n")) == 2


def test_list_as_json_sorted(site):
    options = ("--root", site.runs, "--json", "--metric", "score.rmse.1", "--sort", "-metric")
    rows = json.loads(command("list", *options).stdout)
    assert [row["metric"] for row in rows] == [0.5, 0.2, None]
    assert rows[1]["name"] == site.first.path.name and rows[1]["notebook"] == "toy"
    (start,) = site.first.attempts
    assert rows[1]["duration"] == (start.ended - start.started).total_seconds() > 0
    assert command("list", "--root", site.runs, "--sort", "colour").exit_code == 2


def test_the_folder_of_sweeps_is_no_run(site, tmp_path):
    (tmp_path / "sweeps" / "one").mkdir(parents=True)
    assert command("list", "--root", tmp_path).stdout.split() == [
        "name", "status", "notebook", "created", "duration",
    ]  # fmt: skip


# ---- show


def test_show_tells_what_a_run_is_made_from(site):
    text = " ".join(command("show", site.second.path).stdout.split())
    provenance, (start,) = site.second.provenance, site.second.attempts
    for part in (
        "rate 0.25", provenance.git.commit, provenance.git.sources_sha256, start.host,
        provenance.data["store"], start.environment.sha256, "logs/attempt-1.log", "count 7",
        f"torch {torch.__version__}", "score.rmse list of 2",
    ):  # fmt: skip
        assert part in text, part
    failed = command("show", site.failed.path).stdout
    assert "AssertionError: as asked" in failed


@pytest.mark.parametrize("form", ["name", "prefix", "path", "latest"])
def test_a_run_is_found_by(site, form):
    run = site.failed if form == "latest" else site.first
    stem, number = run.path.name.rsplit("-", 1)
    given = {"name": run.path.name, "prefix": f"{stem}-{number[:4]}", "path": run.path,
             "latest": "latest"}[form]  # fmt: skip
    done = command("show", given, "--root", site.runs)
    assert done.stdout.splitlines()[0] == str(run.path), done.stderr


def test_a_name_of_several_runs_or_of_none_is_refused(site):
    several = command("show", "2", "--root", site.runs)
    assert several.exit_code == 1 and "3 runs in" in several.stderr
    none = command("show", "nothing", "--root", site.runs)
    assert none.exit_code == 1 and "there is no run nothing" in none.stderr
    assert site.failed.path.name in none.stderr


# ---- compare


def compare(a: Path, b: Path) -> tuple[int, dict[str, list[str]]]:
    """Exit code, and the entries of each group that differs."""
    done, found, group = command("compare", a, b), {}, ""
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            found[group].append(" ".join(line.split()))
        else:
            group, word = line.split()
            if word == "differs":
                found[group] = []
    return done.exit_code, found


def test_compare_names_exactly_the_parameter_that_was_changed(site):
    assert compare(site.first.path, site.second.path) == (1, {"parameters": ["rate 0.1 -> 0.25"]})
    assert compare(site.first.path, site.first.path) == (0, {})


def test_compare_names_exactly_the_cell_the_source_and_the_data_that_were_changed(site):
    notes, source = site.data / "notes.txt", site.package / "errors.py"
    notes.write_text("corrected")
    text = source.read_text()
    source.write_text(text + "# later\n")
    make_notebook(site.notebook, PARAMETERS, *CELLS[:2], CELLS[2].replace("'count': 7", "'n': 8"))
    try:
        changed = site.new("-c", COMMAND, "run", site.notebook, "-p", f"place={site.data}")
    finally:
        notes.write_text("as measured")
        source.write_text(text)
        make_notebook(site.notebook, PARAMETERS, *CELLS)
    code, found = compare(site.first.path, changed.path)
    old, new = (run.provenance.data["notes"][:12] for run in (site.first, changed))
    assert code == 1 and found.keys() == {"code", "data"}
    assert found["data"] == [f"notes {old} -> {new}"]
    assert [line.split("  ")[0].split()[0] for line in found["code"]] == [
        "code", "aqnet", "changes", "aqnet/errors.py",
    ]  # fmt: skip
    assert found["code"][0].startswith("code cell 4 run.write_metrics(")
    assert found["code"][-1] == "aqnet/errors.py - -> changed (M)"
    _, said, text = verify(changed.path)  # with source and data as they were before
    assert said["package"] == said["work tree"] == "changed" and "data notes" in text
    assert {n for n, s in said.items() if s == "mismatch"} == {"data notes"}
    shutil.rmtree(changed.path)


def test_compare_names_exactly_the_package_that_was_changed(site, copied):
    edit_environment(copied, "numpy", "1.0")
    version = site.first.environment.distributions["numpy"]
    code, found = compare(site.first.path, copied)
    assert (code, found) == (1, {"environment": [f"numpy {version} -> 1.0"]})


def test_compare_of_what_is_no_run_ends_with_2(site):
    assert compare(site.first.path, Path("nothing"))[0] == 2


# ---- verify


def edit_environment(run: Path, package: str, version: str) -> None:
    """As if the run had been started with another package: the record is whole."""
    file = run / "attempts" / "1.json"
    content = json.loads(file.read_text())
    content["environment"]["distributions"][package] = version
    environment = Environment.model_validate(content["environment"])
    content["environment"]["sha256"] = environment.digest()
    file.write_text(json.dumps(content))


def test_a_run_that_nobody_touched_is_what_it_recorded(copied):
    code, said, text = verify(copied)
    assert code == 0, text
    wanted = {"parameters", "notebook code", "environment of attempt 1", "environment here",
              "results", "checkpoint best.ckpt", "data store", "data notes", "package",
              "work tree"}  # fmt: skip
    assert {name for name, status in said.items() if status == "ok"} >= wanted, text


def test_verify_by_a_process_of_its_own_reads_every_hour(site):
    done = site.call("-c", COMMAND, "runs", "verify", site.first.path, "--deep")
    assert done.returncode == 0 and "ok         data store" in done.stdout, done.stderr


def damage_parameter(run: Path, site: Site) -> None:
    file = run / "parameters.yaml"
    file.write_text(file.read_text().replace("rate: 0.1", "rate: 0.2"))


def damage_notebook(run: Path, site: Site) -> None:
    file = run / "notebook.ipynb"
    file.write_text(file.read_text().replace("2 * rate", "3 * rate"))


def damage_metrics(run: Path, site: Site) -> None:
    file = run / "metrics.json"
    file.write_text(file.read_text().replace("3.0", "2.9"))


def damage_checkpoint(run: Path, site: Site) -> None:
    file = run / "checkpoints" / "best.ckpt"
    content = bytearray(file.read_bytes())
    at = content.index(torch.full((32,), 2.0).numpy().tobytes())  # of the optimiser
    content[at] ^= 1
    file.write_bytes(content)


def exchange_checkpoint(run: Path, site: Site) -> None:
    """A whole one, of another training."""
    file = run / "checkpoints" / "best.ckpt"
    state = {name: 2 * value for name, value in read_checkpoint(file).state.items()}
    write_checkpoint(file, made_up(state=state))


def damage_environment(run: Path, site: Site) -> None:
    file = run / "attempts" / "1.json"
    version = RunFolder.open(run).environment.distributions["numpy"]
    file.write_text(file.read_text().replace(f'"numpy": "{version}"', '"numpy": "1.0"'))


def damage_record(run: Path, site: Site) -> None:
    (run / "provenance.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (damage_parameter, {"parameters"}),
        (damage_notebook, {"notebook code", "results notebook.ipynb"}),
        (damage_metrics, {"results metrics.json"}),
        (damage_checkpoint, {"results checkpoints/best.ckpt", "checkpoint best.ckpt"}),
        (exchange_checkpoint, {"results checkpoints/best.ckpt"}),
        (damage_environment, {"environment of attempt 1"}),
    ],
)
def test_what_was_tampered_with_is_found_and_nothing_else(site, copied, damage, names):
    damage(copied, site)
    code, said, text = verify(copied)
    assert code == 1 and {n for n, s in said.items() if s == "mismatch"} == names, text


def test_a_record_that_cannot_be_read_is_a_mismatch(site, copied):
    damage_record(copied, site)
    code, _, text = verify(copied)
    assert code == 1 and "provenance.json of schema version 2" in text


@pytest.mark.parametrize(
    ("file", "name"), [("notes.txt", "data notes"), ("*.zarr/inputs/c.0*", "data store")]
)
def test_data_that_were_tampered_with_are_found(site, copied, tmp_path, file, name):
    shutil.copytree(site.data, tmp_path / "data")
    record = copied / "provenance.json"
    record.write_text(record.read_text().replace(str(site.data), str(tmp_path / "data")))
    assert verify(copied)[0] == 0
    (path,) = (tmp_path / "data").glob(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, said, text = verify(copied, "--deep")
    assert code == 1 and {n for n, s in said.items() if s == "mismatch"} == {name}, text
    path.unlink()
    if file == "notes.txt":
        code, said, text = verify(copied)
        assert code == 0 and said[name] == "unchecked" and "not there any more" in text


def test_another_environment_here_is_a_change_that_only_an_archived_run_may_have(copied, site):
    edit_environment(copied, "numpy", "1.0")
    code, said, text = verify(copied)
    assert code == 1 and said["environment here"] == "changed" and "numpy: 1.0 -> " in text
    assert "--archived" in text and "1 others: environment here" in text
    assert verify(copied, "--archived")[0] == 0
    damage_metrics(copied, site)
    code, _, text = verify(copied, "--archived")
    assert code == 1 and "1 others: results metrics.json" in text


def test_a_failed_run_says_what_it_did_not_note(site):
    code, said, text = verify(site.failed.path)
    assert code == 0, text
    assert said["results"] == said["data"] == "unchecked" and "the run is failed" in text


# ---- starts of a script


@pytest.fixture(scope="module")
def scripted(site) -> Path:
    """A script that failed for want of its data, and then ran."""
    folder = site.folder / "scripted"
    (site.data / "notes.txt").rename(site.data / "gone")
    begin = site.script("--run-dir", str(folder))
    assert site.call(*begin).returncode == 1
    (site.data / "gone").rename(site.data / "notes.txt")
    assert site.call(*begin).returncode == 0
    return folder


def test_each_start_of_a_script_has_its_record_and_its_log(scripted, site):
    run = RunFolder.open(scripted)
    starts = [(a.number, a.status, a.exit_code, a.log) for a in run.attempts]
    assert starts == [
        (1, "failed", 1, "logs/attempt-1.log"), (2, "complete", 0, "logs/attempt-2.log"),
    ]  # fmt: skip
    assert run.attempts[0].error.type == "FileNotFoundError"
    logs = [(scripted / a.log).read_text() for a in run.attempts]
    assert "measuring 0.1" in logs[0] and "Traceback" in logs[0] and "notes.txt" in logs[0]
    assert logs[1] == f"run folder: {scripted}\nmeasuring 0.1\ncomplete: {scripted}\n"
    assert Path(run.attempts[1].command[0]).name == "toy.py"


def test_a_script_and_a_kernel_are_the_same_experiment(scripted, site):
    assert compare(site.first.path, scripted) == (0, {})


def test_a_script_is_kept_and_verified(scripted, tmp_path):
    code, said, text = verify(scripted)
    assert code == 0 and said["script"] == "ok", text
    assert said["notebook code"] == "unchecked"
    damaged = Path(shutil.copytree(scripted, tmp_path / "run"))
    (damaged / "script.py").write_text((damaged / "script.py").read_text() + "# later\n")
    code, said, text = verify(damaged)
    wrong = {n for n, s in said.items() if s == "mismatch"}
    assert code == 1 and wrong == {"script", "results script.py"}, text


# ---- a submitted job

COMMANDS = {
    "sbatch": 'case "$1" in --test-only) cat >/dev/null;; *) echo 4242;; esac',
    "scontrol": "echo node1",
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; '
    'SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NNODES=1 exec "$@"',
}


@pytest.fixture(scope="module")
def submitted(site, tmp_path_factory):
    """The run folder of a job that SLURM, here three shell scripts, has run."""
    commands = tmp_path_factory.mktemp("bin")
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        patch.setenv("AQNET_RUNS", str(site.folder / "jobs"))
        patch.setenv("AQNET_ROOT", str(site.package.parent))
        settings = {"time": "00:10:00", "per_node": "1", "cpus_per_task": "1"}
        ready = prepare(site.notebook, "cpu", 1, {"place": str(site.data)}, settings=settings)
        submit(ready)
        job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NODELIST": "node1", "SLURM_CPUS_PER_TASK": "1"}
        done = subprocess.run(
            ["bash", ready.job.run / "job.sbatch"], env=os.environ | job, timeout=120
        )
    log = (ready.job.run / "logs" / "job-4242-0.log").read_text()
    assert done.returncode == 0, log
    return ready.job.run


def test_a_submitted_run_is_verified_to_its_last_file(submitted):
    code, said, text = verify(submitted)
    assert code == 0, text
    wanted = {"staged", "staged.sha256", "job.sbatch", "script", "notebook code", "package",
              "work tree", "parameters", "results", "checkpoint best.ckpt"}  # fmt: skip
    assert {name for name, status in said.items() if status == "ok"} >= wanted, text
    (start,) = RunFolder.open(submitted).attempts
    assert (start.job, start.hosts, start.launcher) == ("4242", "node1", "srun")
    assert start.log == "logs/job-4242-0.log" and start.exit_code == 0


def test_a_submitted_run_is_the_same_experiment_as_one_by_papermill(site, submitted):
    assert compare(site.first.path, submitted) == (0, {})


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("staged/aqnet/errors.py", {"staged staged/aqnet/errors.py", "package"}),
        ("staged/script.py", {"staged staged/script.py", "script"}),
        ("staged/parameters.yaml", {"staged staged/parameters.yaml"}),
        ("staged/aqnet/later.py", {"staged staged/aqnet/later.py", "package"}),
        ("job.sbatch", {"job.sbatch"}),
    ],
)
def test_what_was_tampered_with_after_submission_is_found(submitted, tmp_path, file, names):
    damaged = Path(shutil.copytree(submitted, tmp_path / "run", symlinks=True))
    path = damaged / file
    if path.exists():
        path.chmod(0o644)
    with path.open("a") as stream:
        stream.write("\n# later\n")
    code, said, text = verify(damaged)
    assert code == 1 and {n for n, s in said.items() if s == "mismatch"} == names, text


def test_a_staged_file_with_its_digest_is_found_by_the_digest_of_the_list(submitted, tmp_path):
    damaged = Path(shutil.copytree(submitted, tmp_path / "run", symlinks=True))
    path, listed = damaged / "staged/settings.ini", damaged / "staged.sha256"
    for each in (path, listed):
        each.chmod(0o644)
    old = sha256_file(path)
    path.write_text("# later\n")
    listed.write_text(listed.read_text().replace(old, sha256_file(path)))
    code, said, text = verify(damaged)
    assert code == 1 and {n for n, s in said.items() if s == "mismatch"} == {"staged.sha256"}, text
