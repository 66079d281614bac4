"""Real jobs: submitted as a user would, watched through scontrol and the run folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from notebook_tools import ROOT

from aqnet.cli import main
from aqnet.jobs.job import JOB_FILE
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.submission import prepare
from aqnet.jobs.submit import submit

CLUSTER = ROOT / "slurm" / "local_cluster.sh"
NOTEBOOK = ROOT / "nbs" / "train" / "forecast.ipynb"
SITE = {"time": "00:20:00", "cpus_per_task": "1"}
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
# Limits of waiting [s], by what is waited for: ten times what it takes on two idle cores.
PATIENCE_S = {
    "queue": 90,  # SLURM schedules every 2 s
    "step": 400,  # four ranks import torch and read four years: 30 s
    "end": 600,  # a start, the training and its scores
    "silence": 150,  # 40 s without a sign of life
    "limit": 240,  # SLURM looks for time limits every 30 s, and sends the signal up to 60 s before
    "loss": 180,  # of a node: SlurmdTimeout is 20 s
    "leave": 60,  # KillWait is 15 s
}
_TAIL = 6000  # characters of a log in a message


def run_tool(*command: str) -> str:
    """Output of one of SLURM's commands."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(
    until: Callable[[], object], what: str, limit: str, story: Callable[[], str] = lambda: ""
) -> None:
    """Poll for at most `PATIENCE_S[limit]`; `story` is what the message of a failure adds."""
    deadline = time.monotonic() + PATIENCE_S[limit]
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} in {PATIENCE_S[limit]} s ({limit})\n{story()}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Cluster:
    """The running cluster; its folder."""

    folder: Path

    @property
    def small(self) -> Path:
        """A file system of 32 MB, the same on all nodes."""
        return self.folder / "small"

    @contextmanager
    def without(self, node: str) -> Iterator[None]:
        """With the node off the network; SLURM takes it back within a minute of the end."""
        run_tool(str(CLUSTER), "cut", node)
        try:
            yield
        finally:
            run_tool(str(CLUSTER), "join", node)

    @contextmanager
    def thin_cable(self, node: str) -> Iterator[None]:
        """With a link of 20 Mbit/s to the node: 0.4 s for a MB, elsewhere milliseconds."""
        cable = ("dev", f"{os.environ['AQNET_SLURM_NAME']}-{node}", "root")
        run_tool("tc", "qdisc", "add", *cable, "tbf", "rate", "20mbit", "burst", "128kb",
                 "latency", "400ms")  # fmt: skip
        try:
            yield
        finally:
            run_tool("tc", "qdisc", "delete", *cable)


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

    @property
    def hosts(self) -> list[str]:
        """Nodes of the job, in the order of its ranks."""
        return run_tool("scontrol", "show", "hostnames", self.facts["NodeList"]).split()

    def log(self, restart: int | None = None) -> str:
        """What a start of the job has written, or all of them."""
        name = f"job-{self.number}-{'*' if restart is None else restart}.log"
        files = sorted((self.run.path / "logs").glob(name))
        return "".join(path.read_text(errors="replace") for path in files)

    def story(self) -> str:
        """State of the job and of its run, and the ends of all logs."""
        names = ("JobState", "Reason", "ExitCode", "RunTime", "TimeLimit", "Restarts", "NodeList")
        facts = self.facts
        job = ", ".join(f"{name} {facts.get(name)}" for name in names)
        logs = [f"---- {path.name}\n{path.read_text(errors='replace')[-_TAIL:]}"
                for path in sorted((self.run.path / "logs").iterdir())]  # fmt: skip
        return "\n".join([f"job {self.number}: {job}", f"run: {self.run.record.status}", *logs])

    def wait(self, until: Callable[[], object], what: str, limit: str) -> None:
        """Poll; the job must not end before."""
        asked = time.monotonic()

        def reached() -> bool:
            nonlocal asked
            if until():
                return True
            if time.monotonic() > asked + 0.5:
                over = self.state in ENDED
                assert not over or until(), f"the job ended without {what}\n{self.story()}"
                asked = time.monotonic()
            return False

        wait_for(reached, what, limit, self.story)

    def wait_for_step(self, step: int, restart: int = 0) -> None:
        """Until the log of a start tells of an optimiser step."""
        line = re.compile(rf"^step={step} ", re.MULTILINE)
        self.wait(lambda: line.search(self.log(restart)), f"step {step}", "step")

    def ended(self, state: str) -> str:
        """The log, once the job has ended in this state."""
        wait_for(lambda: self.state in ENDED, "end of the job", "end", self.story)
        assert self.state == state, f"not {state}\n{self.story()}"
        return self.log()

    def again(self) -> Training:
        """Submit the job script once more, as a user would after a failure."""
        answer = run_tool("sbatch", "--parsable", str(self.run.path / JOB_FILE))
        return Training(answer.strip().split(";")[0], self.run)

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

    def send(self, number: signal.Signals, rank: int) -> None:
        """A signal to a rank, as the kernel or an administrator would."""
        found = self.processes()
        assert rank in found, f"rank {rank} has ended; there are {sorted(found)}\n{self.story()}"
        os.kill(found[rank], number)


def train_on(
    gpus: int, values: dict, profile: str | Path = "cpu", then_evaluate: bool = False, **settings
) -> list[Training]:
    """Submit the training notebook on two nodes; the jobs, the evaluation last."""
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
