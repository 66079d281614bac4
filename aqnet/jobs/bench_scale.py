"""Steps and starts of 1, 2 and 4 processes on this machine, beside what is predicted for them.

The training engine itself, on a small network and batches in memory, over gloo. What the prediction
is made from comes from one process (how fast it computes, how much its steps differ, how long it
imports) and from sums of plain vectors over two; nothing is fitted to what is then compared.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist

from aqnet.data.normalisation import reference_constants
from aqnet.errors import AqnetError, explain
from aqnet.grid import GRIDS
from aqnet.jobs.bench_scale_record import Measured, Record
from aqnet.jobs.machine import Machine
from aqnet.jobs.prediction import Prediction, predict
from aqnet.model.bench_machine import describe_machine, matmul_gflops
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.presets import model_preset
from aqnet.training.config import TrainingConfig
from aqnet.training.cost import domain_like, work_of
from aqnet.training.identity import Identity
from aqnet.training.learner import Learner
from aqnet.training.problem import Problem
from aqnet.training.processes import open_fabric
from aqnet.training.schedule import Plan, describe_plan
from aqnet.training.step import Stepper
from aqnet.variables import DYNAMIC, TARGETS

__all__ = ["machine_here", "measure", "predictions"]

GRID, SIDES, BATCH, STEPS = "china_32x64", {"width": 128, "depth": 4, "heads": 4}, 4, 12
VECTOR = 2**24  # numbers of the plain sums
RANKS = (1, 2, 4)


# ---- the problem


def _problem() -> Problem:
    """The preset "china", small, without data."""
    config = model_preset("china", **SIDES)
    torch.manual_seed(0)
    model = GridForecaster(config, domain_like(config, GRIDS[GRID]), reference_constants())
    weights = torch.ones(len(config.lead_times_h), len(TARGETS))
    return Problem(model, [], [], weights, identity=_identity())


def _identity() -> Identity:
    return Identity(
        kind="grid", manifest="bench", manifest_sha256="0" * 64, stores=(), grid=GRID,
        grid_sha256="0" * 64, mask_sha256="0" * 64, variables=DYNAMIC, static_variables=(),
        normaliser_sha256="0" * 64, synthetic=True,
    )  # fmt: skip


def _batch(problem: Problem) -> dict:
    config, cells = problem.model.config, int(problem.model.domain.mask.sum())
    leads = torch.tensor(config.lead_times_h)
    spread = torch.from_numpy(reference_constants().mean).float()[:, None]
    return {
        "hours": torch.arange(BATCH) + 400_000,
        "leads_h": leads.expand(BATCH, -1),
        "inputs": spread * torch.rand(BATCH, 1, len(DYNAMIC), cells),
        "targets": 50 * torch.rand(BATCH, len(leads), len(TARGETS), cells),
        "provenance": "none",
    }


def _training(ranks: int) -> TrainingConfig:
    return TrainingConfig(
        max_epochs=1, batch_size=BATCH, effective_batch=BATCH * ranks, ema_decay=0.0
    )


def _plan(ranks: int) -> Plan:
    return describe_plan(_training(ranks), 1000 * BATCH * ranks, ranks)


# ---- one process of a group


def run_rank(began: float, out: str, opened: set[str]) -> None:
    """In a process of its own, started at `began`; writes what it measured to `out`."""
    ranks = int(os.environ["WORLD_SIZE"])
    problem, config = _problem(), _training(ranks)
    ready = time.time()
    fabric = open_fabric(config)
    joined = time.time()
    step = Stepper(fabric, Learner(problem, config, fabric), config, _plan(ranks))
    step(0, iter([_batch(problem)]), False, False)
    first = time.time()
    files, own = len(opened), len([name for name in opened if not _in_environment(name)])
    took = []
    for number in range(1, STEPS + 1):
        begin = time.perf_counter()
        step(number, iter([_batch(problem)]), False, False)
        took.append(time.perf_counter() - begin)
    sums = [_sum_s(size) for size in (VECTOR, 1)]
    times = (ready - began, joined - ready, first - joined, first - began)
    Path(out).write_text(json.dumps([*times, took, files, own, *sums]))


def _sum_s(size: int) -> float:
    vector, took = torch.ones(size), []
    for _ in range(5):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(vector)
        took.append(time.perf_counter() - begin)
    return min(took)


def _in_environment(name: str) -> bool:
    places = (sys.prefix, sys.base_prefix, "/usr", "/lib", "/etc", "/proc", "/sys", "/dev")
    return str(Path(name).absolute()).startswith(places)


_START = """
import sys
opened = set()
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.add(arguments[0])
sys.addaudithook(note)
from aqnet.jobs.bench_scale import run_rank
run_rank(float(sys.argv[1]), sys.argv[2], opened)
"""


# ---- groups


def measure(ranks: Iterable[int] = RANKS, rounds: int = 2) -> Record:
    """Measure groups of processes in turn, `rounds` times; of each the round with faster steps.

    10 to 30 s a group on an idle machine.

    Raises
    ------
    AqnetError
        A process failed; gives its last lines.
    """
    torch.set_num_threads(1)
    speed = matmul_gflops()
    found = [[_group(number, speed) for number in ranks] for _ in range(rounds)]
    groups = tuple(min(each, key=lambda g: g.step_s) for each in zip(*found, strict=True))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(describe_machine(), os.cpu_count() or 1, when, groups)


def _group(ranks: int, gflops: float) -> Measured:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        outs = [Path(folder) / f"rank_{rank}.json" for rank in range(ranks)]
        began = time.time()
        running = [_start(rank, ranks, port, began, out) for rank, out in enumerate(outs)]
        told = [process.communicate()[1] for process in running]
        if any(process.returncode for process in running):
            raise AqnetError(explain(
                f"a process of a group of {ranks} failed", expected="exit code 0",
                found=next(text[-600:] for p, text in zip(running, told, strict=True)
                           if p.returncode),
                remedy="see its message",
            ))  # fmt: skip
        found = [json.loads(out.read_text()) for out in outs]
    slowest = [max(each[place] for each in found) for place in range(4)]
    return Measured(ranks, gflops, *slowest, tuple(found[0][4]), *found[0][5:])


def _start(rank: int, ranks: int, port: int, began: float, out: Path) -> subprocess.Popen:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    other = {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    other |= {"TORCHELASTIC_RUN_ID": "bench", "TORCHELASTIC_RESTART_COUNT": 0}
    values = {name: str(value) for name, value in (place | other | {"OMP_NUM_THREADS": 1}).items()}
    command = [sys.executable, "-c", _START, repr(began), str(out)]
    return subprocess.Popen(
        command, env=os.environ | values, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


# ---- prediction


def machine_here(record: Record) -> Machine:
    """Figures of this machine from one process, and from plain sums over two."""
    one, two = (next(g for g in record.groups if g.ranks == n) for n in (1, 2))
    work = work_of(_problem())
    peak = one.gflops / 1e3
    figures = {
        "peak_tflops": {"32-true": peak},
        "reached": {"32-true": BATCH * work.flop_per_sample / one.step_s / (peak * 1e12)},
        "gpu_bandwidth_gb_s": 4 * VECTOR / two.sum_s / 1e9,  # 2 (n - 1) / n is 1 of two
        "latency_us": two.small_sum_s / 2 * 1e6,
        "step_spread": statistics.stdev(one.steps_s) / one.step_s,
        "import_s": one.import_s,
        "group_s": one.group_s,
        "first_step_s": max(0.0, one.first_step_s - one.step_s),
    }
    free = {"overlap": 0, "launch_s": 0, "launch_ms_per_process": 0, "image_gb": 0,
            "group_ms_per_process": 0, "bandwidth_reached": 1}  # fmt: skip
    unused = ("gpu_memory_gb", "host_memory_gb", "node_bandwidth_gb_s", "opens_per_s", "read_gb_s",
              "node_read_gb_s", "write_gb_s")  # fmt: skip
    plain = figures | free | dict.fromkeys(unused, 1e6)  # nothing is read, written or sent abroad
    return Machine.model_validate({name: _stated(value) for name, value in plain.items()})


def _stated(value: object) -> dict:
    if isinstance(value, dict):
        return {name: _stated(each) for name, each in value.items()}
    reason = "measured with one process, and plain sums over two"
    return {"value": value, "kind": "choice", "reason": reason}


def predictions(record: Record) -> dict[int, Prediction]:
    """Prediction for each measured group."""
    machine, work = machine_here(record), work_of(_problem())
    return {
        group.ranks: predict(
            work, machine, _plan(group.ranks), _training(group.ranks), per_node=group.ranks,
            files=0, at_once=record.cores,
        )
        for group in record.groups
    }  # fmt: skip
