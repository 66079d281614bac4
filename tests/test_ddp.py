"""Several processes train as one, and fail as one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import same_tree
from ranks import run_ranks
from test_grid_forecaster import LEADS, batch_of, build
from test_resume import EVERY_STEP, countdown, cut, quiet
from torch.utils.data import Dataset
from toy_training import IDENTITY, config, problem

from aqnet.errors import InterruptedRunError, RunError
from aqnet.model.layers import PhysicsAttention
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.training.checkpoint import read_checkpoint
from aqnet.training.loop import train
from aqnet.training.problem import Problem
from aqnet.training.processes import FAILURES, as_one, open_fabric

# 20 steps of 8 samples; 41 and 11 samples are no multiples of anything
SETTINGS = {"max_epochs": 4, "batch_size": 1, "effective_batch": 8, "warmup_steps": 2,
            "max_bad_batches": 1}  # fmt: skip


SHORT = {"max_steps": 3, "warmup_steps": 0}


def fresh():
    """Without random numbers, which depend on the rank."""
    return problem(n=41, dropout=0.0)


def steps_of(lines: list[str]) -> list[list[float]]:
    """Loss and norm of the gradient, from the log; without the norm Adam would hide a factor."""
    steps = [dict(part.split("=") for part in line.split() if "=" in part) for line in lines]
    return [[float(step[n]) for n in ("loss", "gradient_norm")] for step in steps if "loss" in step]


def summary(curve) -> dict:
    """What ranks and numbers of processes must agree on."""
    return {name: curve.to_dict()[name] for name in ("validation", "losses", "rmse", "step")}


def outcome(ready: Problem, folder: Path, **changes) -> list:
    """Steps (of the first rank), curve, and sums of the weights at the end."""
    lines = []
    curve = train(ready, config(**SETTINGS | changes), folder, echo=lines.append)
    weights = [value.double().sum().item() for value in ready.model.state_dict().values()]
    return [steps_of(lines), summary(curve), weights]


def equal(rank: int, folder: Path) -> None:
    """20 steps."""
    (folder / f"equal_{rank}.json").write_text(json.dumps(outcome(fresh(), folder / "equal")))


def resumed(rank: int, folder: Path) -> None:
    """The same with dropout, stopped by a signal to the last rank, and resumed, twice."""
    settings, where = config(**SETTINGS), folder / "resumed"
    for calls in (13, 30, 10**9):
        ready, left = problem(n=41), [calls]

        def on_batch(numbers, left=left):
            left[0] -= 1
            if left[0] == 0 and rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)

        ready.train.on_batch = on_batch
        last = where / "last.ckpt"
        try:
            train(ready, settings, where, last if last.exists() else None, lambda line: None)
        except InterruptedRunError as error:
            assert "stopped by SIGUSR1" in str(error), error  # which came to rank 1 alone
            continue
        train(problem(n=41), settings, folder / "whole", echo=lambda line: None)


def poisoned(rank: int, folder: Path) -> None:
    """Not finite on one rank: a loss, then a gradient alone, which is once more than allowed."""
    ready, steps = fresh(), [0]

    def on_batch(numbers):
        steps[0] += 1  # two batches a step on each of two ranks

    def hook(module, inputs, output):
        if rank == 1 and module.training and steps[0] == 6:  # second pass of step 3
            return output * float("nan")
        if rank == 0 and module.training and steps[0] == 12:
            output.register_hook(lambda gradient: gradient * float("inf"))
        return output

    ready.model.network.register_forward_hook(hook)
    ready.train.on_batch = on_batch

    def echo(line):
        with (folder / "poisoned.txt").open("a") as file:  # a rank that fails exits at once
            file.write(line + "\n")

    train(ready, config(**SETTINGS | {"batch_size": 2}), folder / "poisoned", echo=echo)


class Fields(Dataset):
    """Samples of a grid whose known cells differ in number; one lead a sample if `one_lead`."""

    def __init__(self, n: int, one_lead: bool) -> None:
        leads = [LEADS[i % 2 :][:1] if one_lead else LEADS for i in range(n)]
        self.batch = batch_of(leads)
        for i in range(n):
            self.batch["targets"][i, :, i % 6, : 250 * (i % 4)] = float("nan")

    def __len__(self) -> int:
        return len(self.batch["hours"])

    def __getitems__(self, numbers: list[int]) -> dict:
        return {n: v[numbers] if torch.is_tensor(v) else v for n, v in self.batch.items()}


def network(lead_mode: str) -> Problem:
    """A forecaster of fields with physics attention in both blocks."""
    one_lead = lead_mode == "one"
    model = build(size=0.2, depth=2, lead_mode=lead_mode, physics=PhysicsConfig())
    assert sum(isinstance(each, PhysicsAttention) for each in model.modules()) == 2
    samples = Fields(18, one_lead), Fields(5, one_lead)
    return Problem(model, *samples, torch.ones(len(LEADS), 6), IDENTITY)


# 10 steps of 4 samples
OF_NETWORK = {"max_epochs": 2, "effective_batch": 4, "warmup_steps": 0, "learning_rate": 1e-2,
              "activation_checkpointing": True}  # fmt: skip


def equal_networks(rank: int, folder: Path) -> None:
    """With all lead times of a sample, and with one."""
    found = {mode: outcome(network(mode), folder / mode, **OF_NETWORK) for mode in ("all", "one")}
    (folder / f"networks_{rank}.json").write_text(json.dumps(found))


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hard(rank: int, folder: Path, failing: int | None = None, calls: int = 0, end=cut) -> None:
    """Begin or go on; one rank ends in the middle of a batch."""
    ready = problem(n=41)
    if rank == failing:
        countdown(ready, calls, end)
    train(ready, config(**SETTINGS | EVERY_STEP), folder / "hard", "auto", quiet)


def whole_and_hard(rank: int, folder: Path, *place) -> None:
    """Without and with such an end."""
    train(problem(n=41), config(**SETTINGS | EVERY_STEP), folder / "whole", echo=quiet)
    hard(rank, folder, *place)


def all_in_one(rank: int, folder: Path) -> None:
    """One start of the processes for several tests; the last one brings them down."""
    equal(rank, folder)
    resumed(rank, folder)
    poisoned(rank, folder)


def failing(rank: int, folder: Path) -> None:
    """One rank fails in the middle of an epoch."""
    ready = fresh()

    def on_batch(numbers):
        if rank == 1 and 3 in numbers:
            raise ValueError("sample 3 is broken")

    ready.train.on_batch = on_batch
    train(ready, config(**SETTINGS), folder / "failing", echo=lambda line: None)


def failing_to_open(rank: int, folder: Path) -> None:
    """One rank fails before the training; the first notes errors, as that of a script does."""
    fabric = open_fabric(config(**SETTINGS))

    def note(kind, error, trace):
        (folder / f"noted_{rank}").write_text(f"{kind.__name__}: {error}")

    sys.excepthook = note
    with as_one(fabric, folder / "opening"):
        if rank == 1:
            raise ValueError("no store here")
    train(fresh(), config(**SETTINGS), folder / "opening", echo=lambda line: None, fabric=fabric)


def compiled(rank: int, folder: Path) -> None:
    """A few steps with torch.compile, its code made by the C++ compiler."""
    settings = config(**SETTINGS | SHORT, compile=True)
    curve = train(fresh(), settings, folder / "compiled", echo=lambda line: None)
    (folder / f"compiled_{rank}.json").write_text(json.dumps(summary(curve)))


def alone(rank: int, folder: Path) -> None:
    """A single process under torchrun."""
    settings = config(**SETTINGS)
    fabric = open_fabric(settings)
    curve = train(fresh(), settings, folder / "alone", echo=lambda line: None, fabric=fabric)
    kept = len(fabric.strategy.local_finite)
    (folder / "alone.json").write_text(json.dumps([kept, summary(curve)]))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Steps and judgements of one process."""
    return outcome(fresh(), tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder and ends of two processes."""
    folder = tmp_path_factory.mktemp("two")
    return folder, run_ranks(2, folder, all_in_one)


def compare(one, folder: Path, world: int) -> None:
    """Ranks agree with each other, and with one process."""
    texts = [(folder / f"equal_{rank}.json").read_text() for rank in range(world)]
    steps, judged, weights = json.loads(texts[0])
    assert len(steps) == 20
    np.testing.assert_allclose(steps, one[0], rtol=1e-5)
    for name, values in judged.items():
        np.testing.assert_allclose(values, one[1][name], rtol=1e-5, err_msg=name)
    for other in texts[1:]:
        _, curve, others = json.loads(other)
        assert curve == judged and others == weights


def test_two_processes_are_one(one, two):
    compare(one, two[0], 2)


def test_four_processes_are_one(one, tmp_path):
    ranks = run_ranks(4, tmp_path, equal)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    compare(one, tmp_path, 4)


def test_two_processes_resume_exactly(two):
    parts = [read_checkpoint(two[0] / name / "last.ckpt", training=True)
             for name in ("resumed", "whole")]  # fmt: skip
    a, b = (part.training for part in parts)
    assert a["state"] == b["state"] | {"curve": a["state"]["curve"]}
    np.testing.assert_allclose(a["state"]["curve"]["validation"],
                               b["state"]["curve"]["validation"], rtol=1e-6)  # fmt: skip
    for name, value in parts[0].state.items():
        torch.testing.assert_close(value, parts[1].state[name], rtol=1e-6, atol=1e-7)


def test_two_processes_train_a_network_as_one(tmp_path):
    ranks = run_ranks(2, tmp_path, equal_networks)
    assert [rank.code for rank in ranks] == [0, 0], ranks
    first, second = (json.loads((tmp_path / f"networks_{r}.json").read_text()) for r in range(2))
    for mode, (steps, judged, weights) in first.items():
        assert second[mode][1:] == [judged, weights]
        assert len(steps) == 10 and judged["validation"][-1] < 0.9 * judged["validation"][0]
        # one process makes a step in one pass, each of the two made it in two
        settings = OF_NETWORK | {"batch_size": 4}
        expected = outcome(network(mode), tmp_path / f"one_{mode}", **settings)
        np.testing.assert_allclose(steps, expected[0], rtol=1e-5)
        for name, values in judged.items():
            np.testing.assert_allclose(values, expected[1][name], rtol=1e-6, err_msg=name)


def left_by(run: Path) -> list:
    """What a run leaves, without the record of the code, which may be edited meanwhile."""
    last = read_checkpoint(run / "last.ckpt", training=True)
    best = read_checkpoint(run / "best.ckpt")
    names = sorted(path.name for path in run.glob("best*"))
    return [last.training_sha256, last.progress, last.state, best.progress, best.state, names]


def test_two_processes_of_which_one_fails_or_is_killed_resume_exactly(tmp_path):
    last = tmp_path / "hard" / "last.ckpt"
    # Rank 1 judges 6 of the 11 samples after 0 and 4 steps; it fails in pass 3 of 4 of step 7.
    ranks = run_ranks(2, tmp_path, whole_and_hard, 1, 2 * 6 + 6 * 4 + 3, cut)
    assert all(rank.code > 0 for rank in ranks) and "CutError" in ranks[1].stderr, ranks
    step = read_checkpoint(last).progress.step
    assert step in (5, 6)  # rank 0 may have been writing the later one
    # Rank 0 is killed when it judges the third of its 5 samples after step 8.
    ranks = run_ranks(2, tmp_path, hard, 0, (8 - step) * 4 + 3, killed)
    assert ranks[0].code == -signal.SIGKILL and ranks[1].code > 0, ranks
    progress = read_checkpoint(last).progress
    assert progress.step == 8 and progress.val_loss is None
    ranks = run_ranks(2, tmp_path, hard)
    assert [rank.code for rank in ranks] == [0, 0], ranks
    assert same_tree(left_by(tmp_path / "hard"), left_by(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_two_compiled_processes_are_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    assert [rank.code for rank in run_ranks(2, tmp_path, compiled)] == [0, 0]
    settings = config(**SETTINGS | SHORT)
    plain = summary(train(fresh(), settings, tmp_path / "plain", echo=lambda line: None))
    for rank in range(2):
        curve = json.loads((tmp_path / f"compiled_{rank}.json").read_text())
        for name, values in curve.items():
            np.testing.assert_allclose(values, plain[name], rtol=1e-4, err_msg=name)


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(two):
    folder, ranks = two
    skipped = [line for line in (folder / "poisoned.txt").read_text().splitlines()
               if line.startswith("skipped")]  # fmt: skip
    assert len(skipped) == 2
    assert "rank 1: the loss of pass 1 is not finite, init times 20" in skipped[0]
    assert "rank 0: the gradient is not finite, init times 20" in skipped[1]
    assert "rank 0" not in skipped[0] and "rank 1" not in skipped[1]
    # both ranks counted them: both ended with the report of the second, by max_bad_batches = 1
    assert [rank.code for rank in ranks] == [RunError.exit_code] * 2
    told = "".join(rank.stderr for rank in ranks)
    assert "too many steps had to be skipped" in told
    assert "rank 1: the loss of pass 1" in told and "rank 0: the gradient" in told


def test_a_rank_that_fails_brings_all_down_its_traceback_first(tmp_path):
    ranks = run_ranks(2, tmp_path, failing)
    assert all(rank.code not in (0, None) and rank.code > 0 for rank in ranks)
    assert "ValueError: sample 3 is broken" in ranks[1].stderr
    assert "rank 1 failed" in ranks[1].stderr and "on_batch" in ranks[1].stderr
    assert "rank 0 stops, because another rank failed" in ranks[0].stderr
    assert "Traceback" not in ranks[0].stderr
    assert ranks[1].told_at <= ranks[0].told_at
    (failure,) = (tmp_path / "failing").glob(FAILURES)
    assert "ValueError: sample 3 is broken" in failure.read_text()


def test_a_rank_that_fails_before_the_training_brings_all_down(tmp_path):
    ranks = run_ranks(2, tmp_path, failing_to_open, timeout=60)
    assert [rank.code for rank in ranks] == [1, 1], ranks
    assert (tmp_path / "noted_1").read_text() == "ValueError: no store here"
    # the first rank alone writes the run folder: it must hear of it before a launcher ends it
    assert (tmp_path / "noted_0").read_text().startswith("RunError: rank 0 stops, because another")
    (failure,) = (tmp_path / "opening").glob(FAILURES)
    assert "ValueError: no store here" in failure.read_text()


def test_a_single_process_of_torchrun_is_one_and_keeps_nothing_of_old_steps(one, tmp_path):
    assert [rank.code for rank in run_ranks(1, tmp_path, alone)] == [0]
    kept, curve = json.loads((tmp_path / "alone.json").read_text())
    assert kept <= 8  # those of the last step, one in each pass
    for name, values in curve.items():
        np.testing.assert_allclose(values, one[1][name], rtol=1e-5, err_msg=name)


def test_a_job_script_that_srun_did_not_start_is_one_process(monkeypatch, recwarn):
    values = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "a", "SLURM_NTASKS": "4", "SLURM_NNODES": "2",
              "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    assert open_fabric(config()).world_size == 1
    assert [str(warning.message) for warning in recwarn] == []


def test_other_strategies_are_refused_for_several_ranks(monkeypatch):
    from aqnet.training import step

    fabric = open_fabric(config())
    assert fabric.world_size == 1
    step.require_summing(fabric)
    monkeypatch.setattr(type(fabric), "world_size", 2)
    with pytest.raises(TypeError, match="SummingDDP"):
        step.require_summing(fabric)
