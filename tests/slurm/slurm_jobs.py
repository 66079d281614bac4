"""Real jobs: submitted as a user would, watched through scontrol and the run folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from notebook_tools import ROOT

from aqnet.cli import main
from aqnet.jobs.batch import JOB_FILE
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.submission import prepare
from aqnet.jobs.submit import submit

CLUSTER = ROOT / "slurm" / "local_cluster.sh"
NOTEBOOK = ROOT / "nbs" / "train" / "forecast.ipynb"
SITE = {"time": "00:10:00", "cpus_per_task": "1"}
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
PATIENCE_S = 240  # four ranks import torch on two cores: 15 s alone, a minute with company


def run_tool(*command: str) -> str:
    """Output of one of SLURM's commands."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(until: Callable[[], object], what: str, seconds: float) -> None:
    """Poll."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(0.2)


@dataclass(frozen=True)
class Cluster:
    """The running cluster; its folder."""

    folder: Path

    @property
    def small(self) -> Path:
        """A file system of 32 MB, the same on all nodes."""
        return self.folder / "small"

    def link(self, action: str, node: str) -> None:
        """`cut` or `join` a node."""
        run_tool(str(CLUSTER), action, node)


@dataclass(frozen=True)
class Training:
    """A submitted training, or its evaluation.

    Attributes
    ----------
    number : str
        Of the job.
    run : RunFolder
    """

    number: str
    run: RunFolder

    @property
    def facts(self) -> dict[str, str]:
        """What scontrol says of the job."""
        text = run_tool("scontrol", "show", "job", "-o", self.number)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    @property
    def state(self) -> str:
        """Of the job, such as RUNNING."""
        return self.facts["JobState"]

    def log(self, restart: int | None = None) -> str:
        """What a start of the job has written, or all of them."""
        name = f"job-{self.number}-{'*' if restart is None else restart}.log"
        files = sorted((self.run.path / "logs").glob(name))
        return "".join(path.read_text(errors="replace") for path in files)

    def wait(self, until: Callable[[], object], what: str) -> None:
        """Poll; the job must not end before."""
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < deadline, f"no {what} in {PATIENCE_S} s:\n{self.log()}"
            assert self.state not in ENDED or until(), f"{self.state}, no {what}:\n{self.log()}"
            time.sleep(0.2)

    def wait_for_step(self, step: int, restart: int = 0) -> None:
        """Until the log of a start tells of an optimiser step."""
        line = re.compile(rf"^step={step} ", re.MULTILINE)
        self.wait(lambda: line.search(self.log(restart)), f"step {step}")

    def ended(self, state: str) -> str:
        """The log, once the job has ended in this state."""
        self.wait(lambda: self.state in ENDED, "end")
        assert self.state == state, f"{self.state}:\n{self.log()}"
        return self.log()

    def again(self) -> Training:
        """Submit the job script once more, as a user would after a failure."""
        return Training(_number(run_tool("sbatch", "--parsable", str(self.run.path / JOB_FILE))),
                        self.run)  # fmt: skip

    def processes(self) -> dict[int, int]:
        """Process id by rank; of the Python of each, not of its shell."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            names = dict(v.split(b"=", 1) for v in variables if b"=" in v)
            python = b"script.py" in command and not command.startswith((b"bash", b"srun"))
            own = str(self.run.path).encode() in command and b"SLURM_STEP_ID" in names
            if own and python:
                found[int(names[b"SLURM_PROCID"])] = int(folder.name)
        return found

    def kill(self, rank: int) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.processes()[rank], signal.SIGKILL)


def _number(text: str) -> str:
    return text.strip().split(";")[0]


def train_on(
    gpus: int, values: dict, profile: str | Path = "cpu", then_evaluate: bool = False, **settings
) -> list[Training]:
    """Submit the training notebook on both nodes; the jobs, the evaluation last."""
    settings = SITE | {"per_node": str(gpus // 2)} | settings
    ready = prepare(NOTEBOOK, str(profile), gpus, assignments=values, settings=settings,
                    then_evaluate=then_evaluate)  # fmt: skip
    runs = [each.job.run for each in (ready, ready.then) if each is not None]
    numbers = submit(ready)
    return [Training(n, RunFolder.open(r)) for n, r in zip(numbers, runs, strict=True)]


def train(gpus: int, values: dict, **options) -> Training:
    """Submit the training notebook alone."""
    return train_on(gpus, values, **options)[0]


def watch(job: Training) -> str:
    """What `aqnet watch` shows of a job."""
    shown = CliRunner().invoke(main, ["watch", job.number, "--once"])
    assert shown.exit_code == 0, shown.output
    return shown.output
