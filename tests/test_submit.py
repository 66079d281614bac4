"""Jobs: rendered scripts as agreed, everything quoted; what is staged is what runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from click.testing import CliRunner, Result
from notebook_tools import make_notebook
from test_profiles import LUMI, SITE
from test_structure import ROOT

from aqnet.cli.console import Group
from aqnet.cli.submit import submit as submit_command
from aqnet.code_state import git_state
from aqnet.errors import CompileError, ParameterError, RunError, TargetExistsError
from aqnet.jobs import submit as jobs
from aqnet.jobs.batch import render
from aqnet.jobs.job import JOB_FILE, Array, Element, Job, Summary
from aqnet.jobs.profiles import load_profile
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.scale import size_of
from aqnet.jobs.stage import stage
from aqnet.jobs.submission import prepare

GOLDEN = Path(__file__).parent / "golden"
RUN = "20260301T120000-train-forecast-0123abcd"
NASTY = 'it\'s 5% of $HOME; "q" `id` & é'


def job(profile: str, settings: dict, gpus: int, rehearsal: bool = False, **fields) -> Job:
    """A job whose places do not depend on this machine."""
    chosen = load_profile(profile).given(settings)
    root = Path("/scratch/project_1/aqnet")
    common = {
        "name": "train-forecast-0123abcd", "run": root / "runs" / RUN, "python": "/opt/python",
        "data": root / "data", "runs": root / "runs", "root": root, "resumable": True,
    }  # fmt: skip
    common |= {"python": chosen.python.value or "/opt/python"}
    return Job(profile=chosen, size=size_of(chosen, gpus, rehearsal), **common | fields)


def array(sweep: Path, script: str = "script.py") -> Array:
    """Two elements of a sweep in this folder."""
    elements = (Element(RUN, "a" * 64), Element(f"{RUN}-try2", "b" * 64))
    return Array(elements, 2, sweep / "code-1", script)


NASTY_PLACES = {"run": Path("/scratch") / NASTY / RUN, "data": Path("/data") / NASTY,
                "python": f"/opt/{NASTY}/python"}  # fmt: skip
CASES = {
    "lumi-400": lambda: job("lumi", LUMI, 400),
    "lumi-400-rehearsal": lambda: job("lumi", LUMI, 400, rehearsal=True),
    "lumi-evaluation": lambda: job("lumi", LUMI, 1, resumable=False),
    "generic-cuda-8": lambda: job("generic-cuda", SITE, 8, follow_up=Path("/r/e/job.sbatch")),
    "cpu-quoting": lambda: job(
        "cpu", SITE | {"account": NASTY, "partition": NASTY}, 4, **NASTY_PLACES
    ),
    "lumi-evaluate-last": lambda: job(
        "lumi", LUMI, 1, resumable=False, array=array(Path("/scratch/sweeps"), "evaluate.py"),
        summary=Summary(Path("/sweeps") / NASTY, RUN, Path("/sweeps") / NASTY / JOB_FILE),
    ),
    "lumi-array": lambda: job("lumi", LUMI, 8, array=array(Path("/scratch/project_1/aqnet"))),
    "cpu-array-quoting": lambda: job(
        "cpu", SITE, 1, **NASTY_PLACES | {"runs": Path("/runs") / NASTY}, resumable=False,
        array=array(Path("/sweeps") / NASTY), follow_up=Path("/sweeps") / NASTY / "job.sbatch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_job_scripts_are_as_agreed(case):
    """To agree on a change: AQNET_GOLDEN=write pytest tests/test_submit.py, and read the diff."""
    path, text = GOLDEN / f"{case}.sbatch", render(CASES[case]())
    if os.environ.get("AQNET_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
    check = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert check.returncode == 0, check.stderr


def directives(text: str) -> list[str]:
    """Options of the script, as a shell would read them."""
    lines = [line[8:] for line in text.splitlines() if line.startswith("#SBATCH ")]
    read = subprocess.run(
        ["bash", "-c", "\n".join(f"printf '%s\\0' {line}" for line in lines)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return read.stdout.split("\0")[:-1]


def test_nothing_is_interpreted():
    text = render(CASES["cpu-quoting"]())
    options = directives(text)
    assert f"--account={NASTY}" in options and f"--partition={NASTY}" in options
    place = str(NASTY_PLACES["run"]).replace("%", "%%")  # SLURM has patterns of its own
    assert f"--output={place}/logs/slurm-%j.out" in options
    begin = text[text.index("run=") : text.index("log=")]
    shown = subprocess.run(
        ["bash", "-c", begin + 'printf %s "$staged"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"{NASTY_PLACES['run']}/staged"


def test_an_element_of_an_array_finds_its_own_folder():
    text = render(CASES["cpu-array-quoting"]())
    assert "--array=0-1%2" in directives(text)
    begin = text[text.index("case ") : text.index("mkdir")]
    shown = subprocess.run(
        ["bash", "-c", begin + 'printf "%s\n%s\n%s" "$run" "$digest" "$staged"'],
        capture_output=True, text=True, check=True, env=os.environ | {"SLURM_ARRAY_TASK_ID": "1"},
    )  # fmt: skip
    assert shown.stdout.split("\n") == [
        f"/runs/{NASTY}/{RUN}-try2", "b" * 64, f"/sweeps/{NASTY}/code-1/staged"
    ]  # fmt: skip
    other = subprocess.run(["bash", "-c", begin], env={"SLURM_ARRAY_TASK_ID": "2"})
    assert other.returncode == 2


def test_a_reason_cannot_become_a_command(tmp_path):
    content = yaml.safe_load((ROOT / "slurm/cpu.yaml").read_text())
    content["srun"]["kill-on-bad-exit"]["reason"] = "first line\nrm -rf /\n#SBATCH --time=1"
    content["title"] = "a title\nrm -rf /"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    text = render(job(str(path), SITE, 4))
    assert not [line for line in text.splitlines() if line.startswith(("rm", "#SBATCH --time=1"))]


def test_paths_that_a_container_cannot_bind():
    with pytest.raises(ParameterError, match="cannot be bound"):
        render(job("lumi", LUMI, 8, data=Path("/data/a:b")))


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_options_that_slurm_would_read_otherwise(name):
    with pytest.raises(ParameterError, match="SLURM cannot read"):
        render(job("cpu", SITE, 4, run=Path("/runs") / name))


def test_only_whole_nodes_are_bound_by_masks():
    assert "mask_cpu" in render(CASES["lumi-400"]())
    assert "mask_cpu" not in render(CASES["lumi-evaluation"]())


def test_a_job_goes_on_by_itself_unless_it_rehearses():
    again = 'grep -q "stopped by SIGUSR1" "$log"'
    for case, way in [("lumi-400", "scontrol requeue"), ("generic-cuda-8", 'sbatch "$run/job')]:
        text = render(CASES[case]())
        assert again in text and way in text
    assert "--no-requeue" in render(CASES["generic-cuda-8"]())
    rehearsal = render(CASES["lumi-400-rehearsal"]())
    assert again not in rehearsal and "--no-requeue" in rehearsal
    assert "aqnet.jobs.binding 3 3 1 1 0 0 2 2" in rehearsal and "NET/OFI" in rehearsal


# ---- a repository of its own, with a cluster that consists of three shell scripts

COMMANDS = {
    "sbatch": 'echo "$@" >>"$CALLS"; case "$1" in --test-only) cat >/dev/null; '
    'echo "Job 1 to start" >&2; exit "${REFUSE:-0}";; *) echo 4242;; esac',
    "scontrol": 'echo "$@" >>"$CALLS"; echo node1; echo node2',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
}
CELL = """
import aqnet, os
from aqnet.variables import MARK
from pathlib import Path
print("code", Path(aqnet.__file__).parent, MARK)
print("text", text, "rate", rate, os.environ["MASTER_ADDR"], os.environ["AQNET_DATA"])
print("data", (Path(os.environ["AQNET_ROOT"]) / "data" / "x").read_text())
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A repository with its package, in a folder whose name a shell would trip over."""
    root = tmp_path / "it's $HOME & so"
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("aqnet", "data_manifests", "slurm"):
        shutil.copytree(ROOT / name, root / name, ignore=skip)
    shutil.copyfile(ROOT / "settings.ini", root / "settings.ini")
    (root / "aqnet/variables.py").open("a").write("\nMARK = 'as it was'\n")
    (root / "data").mkdir()
    (root / "data/x").write_text("a store")
    for kind in ("train", "evaluate"):
        (root / "nbs" / kind).mkdir(parents=True)
    parameters = 'text: str = "none"\nrate: float = 0.1  # {0..1}\n'
    make_notebook(root / "nbs/train/toy.ipynb", parameters, CELL)
    make_notebook(root / "nbs/evaluate/toy.ipynb", 'train_run: str = ""', "print(train_run)")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    for name in ("AQNET_ROOT", "AQNET_RUNS", "AQNET_DATA", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return root


def calls(site: Path) -> list[str]:
    path = site.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def call(site: Path, *arguments: str) -> str:
    """`aqnet submit` with the package of the site, in a process of its own."""
    source = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from aqnet.cli.submit import submit\nsubmit(sys.argv[2:])"
    )
    command = [sys.executable, "-c", source, "submit", "nbs/train/toy.ipynb", "--profile", "cpu"]
    sized = ["--gpus", "2", *(f"--set={n}={v}" for n, v in SITE.items())]
    done = subprocess.run(
        [*command, *sized, *arguments], cwd=site, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def invoke(site: Path, monkeypatch, *arguments: str) -> Result:
    """The same with the package of this process."""
    monkeypatch.chdir(site)
    group = Group("aqnet")
    group.add_command(submit_command)
    base = ["submit", "nbs/train/toy.ipynb", "--profile", "cpu", "--gpus", "2"]
    sized = [f"--set={name}={value}" for name, value in SITE.items()]
    return CliRunner().invoke(group, [*base, *sized, *arguments])


def start(run: Path, job_id: str = "4242") -> subprocess.CompletedProcess:
    """What SLURM would do with the job script, on one node."""
    environment = os.environ | {
        "SLURM_JOB_ID": job_id, "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    return subprocess.run(["bash", run / "job.sbatch"], env=environment, cwd="/", timeout=120)


def log_of(run: Path, job_id: str = "4242") -> str:
    return (run / "logs" / f"job-{job_id}-0.log").read_text()


def test_what_is_staged_is_what_runs(site):
    """Code, notebook, parameters, manifests and settings change after the submission."""
    text = call(site, "-p", f"text={NASTY}", "-p", "rate=0.25", "--then-evaluate")
    train, evaluate = sorted((site / "runs").iterdir(), key=lambda p: "evaluate" in p.name)
    assert "submitted: job 4242, then 4242" in text and str(train) in text
    assert RunFolder.open(train).record.status == "created"
    asked = [line.split(" --")[0] for line in calls(site)]
    assert asked[:2] == ["--test-only", "--test-only"] and asked[2].startswith("--parsable")
    assert "--dependency=afterok:4242 --kill-on-invalid-dep=yes" in calls(site)[-1]
    assert json.loads((evaluate / "submission.json").read_text())["job"] == "4242"

    (site / "aqnet/variables.py").write_text("raise RuntimeError('edited')")
    (site / "settings.ini").write_text("edited")
    make_notebook(site / "nbs/train/toy.ipynb", "other: int = 1\n", "raise SystemExit(3)")
    shutil.rmtree(site / "data_manifests")
    assert start(train).returncode == 0, log_of(train)
    log = log_of(train)
    assert f"code {train}/staged/aqnet as it was" in log
    assert f"text {NASTY} rate 0.25 node1 {site}/data" in log and "data a store" in log
    assert RunFolder.open(train).record.status == "complete"
    assert start(evaluate).returncode == 0 and f"\n{train}\n" in log_of(evaluate)


def test_a_changed_copy_does_not_run(site, monkeypatch):
    assert invoke(site, monkeypatch).exit_code == 0
    (run,) = (site / "runs").iterdir()
    staged = run / "staged/aqnet/variables.py"
    assert not any(p.stat().st_mode & 0o222 for p in (staged, run / "job.sbatch"))
    staged.chmod(0o644)
    staged.open("a").write("# edited\n")
    assert start(run).returncode != 0
    assert "staged/aqnet/variables.py: FAILED" in log_of(run)
    record = RunFolder.open(run).record
    assert record.status == "failed" and "staged/aqnet/variables.py: FAILED" in record.error.message


def test_a_job_that_ends_before_its_run_says_why_in_the_run_folder(site, monkeypatch):
    """Once: what the run itself has noted stays."""
    assert invoke(site, monkeypatch).exit_code == 0
    (run,) = (site / "runs").iterdir()
    (site.parent / "bin/scontrol").write_text("#!/bin/sh\necho 'no such node' >&2; exit 3\n")
    assert start(run).returncode == 3
    record, (attempt,) = RunFolder.open(run).record, RunFolder.open(run).attempts
    assert record.status == "failed" and "no such node" in record.error.message
    assert attempt.job == "4242" and attempt.exit_code == 3
    assert log_of(run).count("the run ended badly") == 1


def test_a_run_that_fails_is_noted_once(site, monkeypatch):
    """The job script does, not what notes the end of a job before its run."""
    make_notebook(site / "nbs/train/toy.ipynb", "rate: float = 0.1\n", "raise OSError('bad disk')")
    assert invoke(site, monkeypatch).exit_code == 0
    (run,) = (site / "runs").iterdir()
    assert start(run).returncode == 1
    assert log_of(run).count("the run ended badly") == 1
    assert "bad disk" in RunFolder.open(run).record.error.message


def test_staged_code_remembers_its_work_tree(tmp_path):
    (tmp_path / "run").mkdir()
    stage(tmp_path / "run", ROOT, {"script.py": "pass"})
    staged = tmp_path / "run/staged"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_state(staged / "aqnet").commit == git_state(ROOT / "aqnet").commit
    assert git_state(staged / "aqnet").state != "no commit yet"  # that of the folder around it
    assert (staged / "nbs").resolve() == ROOT / "nbs"
    with pytest.raises(TargetExistsError):
        stage(tmp_path / "run", ROOT, {})


@pytest.mark.parametrize(
    "arguments",
    [
        ["-p", "rate=2"],
        ["-p", "speed=1"],
        ["-p", "rate=fast"],
        ["-p", "run_dir=x"],
        ["-f", "missing.yaml"],
        ["--set", "per_nodes=2"],
        ["--gpus", "6"],
        ["--gpus", "0"],
        ["--profile", "none"],
        ["--account", ""],
        ["--set", "image=/x.sif"],
    ],
)
def test_bad_input_ends_with_code_2_and_leaves_nothing(site, monkeypatch, arguments):
    result = invoke(site, monkeypatch, *arguments)
    assert result.exit_code == 2, result.output
    assert not (site / "runs").exists() and not calls(site)


def test_a_refused_job_leaves_nothing(site, monkeypatch):
    monkeypatch.setenv("REFUSE", "1")
    result = invoke(site, monkeypatch)
    assert result.exit_code == 1 and "SLURM refuses the job" in result.output
    assert not (site / "runs").exists()


@pytest.mark.parametrize(
    "answer, why", [("exit 1", "SLURM refuses the job"), ("exit 0", "gave no job number")]
)
def test_if_the_evaluation_is_refused_the_job_that_is_queued_is_named(
    site, monkeypatch, answer, why
):
    text = f'case "$*" in *--dep*) {answer};; *--parsable*) echo 4242;; *) cat >/dev/null;; esac'
    (site.parent / "bin/sbatch").write_text(f"#!/bin/sh\n{text}\n")
    result = invoke(site, monkeypatch, "--then-evaluate")
    assert result.exit_code == 1 and "job 4242, which stays queued" in result.output
    assert "scancel 4242" in result.output and why in result.output


def test_a_dry_run_leaves_nothing(site, monkeypatch):
    text = invoke(site, monkeypatch, "--dry-run").output
    assert "#SBATCH --nodes=1" in text and "Job 1 to start" in text and "nothing was" in text
    assert not (site / "runs").exists() and len(calls(site)) == 1


def test_without_sbatch_nothing_is_written(site, monkeypatch):
    monkeypatch.chdir(site)
    ready = prepare("nbs/train/toy.ipynb", "cpu", 2, settings=SITE)
    monkeypatch.setattr(jobs.shutil, "which", lambda name: None)
    assert jobs.dry_submit(ready) is None
    with pytest.raises(RunError, match="--dry-run"):
        jobs.submit(ready)
    assert not (site / "runs").exists()


def test_variables_of_the_caller_do_not_override_the_script(monkeypatch):
    for name in ("SBATCH_ACCOUNT", "SLURM_CPU_BIND", "SRUN_CPUS_PER_TASK", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    kept = jobs._clean_environment()
    assert "SLURM_CONF" in kept and "PATH" in kept
    assert not {"SBATCH_ACCOUNT", "SLURM_CPU_BIND", "SRUN_CPUS_PER_TASK"} & kept.keys()


def test_an_evaluation_that_does_not_exist(site, monkeypatch):
    monkeypatch.chdir(site)
    (site / "nbs/evaluate/toy.ipynb").unlink()
    with pytest.raises(ParameterError, match="no evaluation"):
        prepare("nbs/train/toy.ipynb", "cpu", 2, settings=SITE, then_evaluate=True)


def test_the_training_notebook_is_evaluated_by_that_of_its_preset(monkeypatch):
    monkeypatch.chdir(ROOT)
    ready = prepare("nbs/train/forecast.ipynb", "cpu", 4, settings=SITE, then_evaluate=True)
    assert ready.then.notebook.name == "beijing.ipynb"
    assert ready.then.values["train_run"] == str(ready.job.run)
    assert ready.values["accelerator"] == "cpu" and ready.job.resumable


def test_a_chain_of_jobs_starts_its_evaluation_itself(site, monkeypatch):
    monkeypatch.chdir(site)
    ready = prepare("nbs/train/toy.ipynb", "generic-cuda", 4, settings=SITE, then_evaluate=True)
    assert ready.job.follow_up == ready.then.job.run / "job.sbatch"
    assert "then sbatch" in ready.text


def test_a_notebook_that_is_no_script_is_refused(site, monkeypatch):
    monkeypatch.chdir(site)
    path = site / "nbs/train/toy.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_code_cell("!ls"))
    nbformat.write(notebook, path)
    with pytest.raises(CompileError):
        prepare(path, "cpu", 2, settings=SITE)


def test_ranks_that_leave_together_do_not_bring_the_first_down(tmp_path):
    """With srun --kill-on-bad-exit=1 the code of any rank ends all; the first one's is enough."""
    lines = (
        "from aqnet.errors import InterruptedRunError, RunError\n"
        "from aqnet.jobs.script import Script\n"
        "script = Script('nbs/train/toy.ipynb', '0' * 64, 'run_dir: str = \"\"\\n')\n"
        "script.parameters('__main__')\n"
        "script.open_run()\n"
        "raise {error}('stopped by SIGUSR1')\n"
    )
    started = {}
    for error in ("InterruptedRunError", "RunError"):
        RunFolder.create("nbs/train/toy.ipynb", {}, notebook_sha256="0" * 64, started_by="script",
                         path=tmp_path / error)  # fmt: skip
        for rank in (0, 1):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
            place |= {"TORCHELASTIC_RUN_ID": "test"}
            environment = os.environ | {name: str(value) for name, value in place.items()}
            command = [sys.executable, "-c", lines.format(error=error)]
            started[error, rank] = subprocess.Popen(
                [*command, "--run-dir", tmp_path / error], env=environment, cwd=ROOT,
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    codes = {}
    for key, process in started.items():
        assert "stopped by SIGUSR1" in process.communicate(timeout=60)[1]
        codes[key] = process.returncode
    assert codes.pop(("InterruptedRunError", 1)) == 0 and set(codes.values()) == {1}
