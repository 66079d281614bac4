"""Bench of the training step: operations, memory, ratios and errors."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from aqnet.cli import bench_step as command
from aqnet.cli.bench_step import step
from aqnet.errors import AqnetError
from aqnet.model import tiles
from aqnet.model.bench_machine import in_own_process
from aqnet.training import bench_step
from aqnet.training.bench_step import CASES, Size, StepCost, step_costs
from aqnet.training.cost import count_operations

SMALL = Size("china_32x64", width=32, depth=2, heads=4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_a_step_trains(case):
    torch.manual_seed(0)
    network, inputs = bench_step._make(case, SMALL)
    before = [p.detach().clone() for p in network.parameters()]
    take = bench_step._step(network, inputs, CASES[case])
    take()
    moved = [not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)]
    assert sum(moved) > len(moved) / 2
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_operations_of_the_published_form_by_hand():
    network, inputs = bench_step._make("published", SMALL)
    flop, tokens = count_operations(network, inputs)
    n, d, v, layers = 16 * 32, 32, 15, 2
    blocks = layers * (2 * 12 * n * d * d)
    aggregation = 2 * n * d * d * (1 + 2 * v + 1)  # query, keys and values, output
    embedding = 2 * 4 * n * v * d
    head = 2 * n * (2 * d * d + 4 * v * d) + 2 * d
    attention = 12 * d * (layers * n * n + n * v)
    assert tokens == n
    assert flop == pytest.approx(
        3 * (blocks + aggregation + embedding + head) + attention, rel=1e-3
    )


def test_operations_of_ours_are_fewer_and_fall_with_the_tokens():
    count = {}
    for case in ("published", "full", "active"):
        count[case], tokens = count_operations(*bench_step._make(case, SMALL))
        assert tokens == (239 if case == "active" else 512)
    assert count["active"] < 0.6 * count["full"] < 0.6 * count["published"]


def test_our_network_is_the_preset_with_physics_everywhere():
    network, _ = bench_step._make("full", SMALL)
    assert all(core.block_has_all for core in map(_Parts, network.blocks))
    assert sum(p.numel() for p in network.parameters()) > 0


class _Parts:
    def __init__(self, block):
        core = block.attention.core
        self.block_has_all = all((core.elevation, core.plume, core.ridge)) and (
            core.config.position == "rotary"
        )


def test_memory_and_time_are_those_of_a_process_alone():
    (cost,) = step_costs(SMALL, ("active",), repeats=1)
    assert cost.case == "active" and cost.seconds > 0 and cost.tokens == 239
    # weights, gradients and two moments are the least a step holds
    assert 16 * cost.parameters < cost.memory < 500e6
    assert 0 < cost.share_of_peak < 1
    assert cost.left_out == 0 and cost.share_done == cost.share_of_peak  # 239 tokens are one block


def test_what_is_left_out_is_what_gradients_skip(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 32)
    monkeypatch.setattr(tiles, "BLOCK", 16)
    monkeypatch.setattr(tiles, "TILE_SCORES", 1)  # a tile for each head
    monkeypatch.setattr(bench_step, "set_heap_limits", lambda: None)
    sent = []
    for size in (SMALL, replace(SMALL, checkpointing=True)):
        bench_step._measure(SimpleNamespace(send=sent.append), "active", size, 1, 1)
    plain, again = sent
    assert plain.left_out == again.left_out, "what is computed again does not count"
    assert 0.02 < plain.left_out / (2 * 10 * 239**2 * 32) < 0.9  # of two attentions
    assert plain.share_done < plain.share_of_peak


def test_a_measuring_process_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(bench_step, "_measure", exit)
    with pytest.raises(AqnetError, match="a step of 'full' could not be measured"):
        step_costs(SMALL, ("full",))


def test_the_fastest_of_the_rounds_counts(monkeypatch):
    seconds = iter((3.0, 2.0, 2.5))

    def measured(_what, _remedy, _target, case, *_, variables):
        assert variables == {}  # ours keeps the settings of aqnet
        return StepCost(case, 1, 1, 4, next(seconds), None, 1.0, 1.0)

    monkeypatch.setattr(bench_step, "in_own_process", measured)
    assert [cost.seconds for cost in step_costs(SMALL, ("full",), rounds=3)] == [2.0]


def test_the_table(monkeypatch):
    costs = [
        StepCost("published", 8192, 52_000_000, 1, 80.0, 13_000_000_000, 8e12, 200.0),
        StepCost("full", 8192, 46_000_000, 4, 40.0, 5_200_000_000, 6e12, 200.0, 2e12),
    ]
    asked = []
    monkeypatch.setattr(
        bench_step, "step_costs", lambda *how: asked.append(how) or costs[: len(how[1])]
    )
    result = CliRunner().invoke(step, ["published", "full", "--rounds", "2", "--checkpointing"])
    assert result.exit_code == 0, result.output
    assert asked == [(Size(checkpointing=True), ("published", "full"), 2, 2)]
    row = next(line for line in result.output.splitlines() if line.startswith("full")).split()
    # tokens, parameters, TFLOP, GFLOP/s, of peak, done, s, ratio, s of 4 leads, ratio, GB, ratio
    numbers = "8192 | 46.0 M | 6.000 | 150 | 75% | 50% | 40.00 | 0.50 | 40.00 | 0.12 | 5.20 | 0.40"
    assert " ".join(row[1:]) == numbers.replace("| ", "")
    assert "matrix products" in result.output


def test_without_the_published_form_there_are_no_ratios(monkeypatch):
    cost = StepCost("active", 3500, 46_000_000, 4, 10.0, None, 1e12, 200.0)
    monkeypatch.setattr(bench_step, "step_costs", lambda *_: [cost])
    result = CliRunner().invoke(step, ["active"])
    row = next(line for line in result.output.splitlines() if line.startswith("active")).split()
    assert row[8:] == ["10.00", "-", "10.00", "-", "-", "-"]


def test_names_of_the_command_are_those_of_the_cases():
    assert tuple(CASES) == command._CASES
    for wrong in (["quick"], ["--grid", "europe"], ["--repeats", "0"], ["--threads", "0"]):
        assert CliRunner().invoke(step, wrong).exit_code == 2


@pytest.mark.slow
def test_all_cases_at_a_small_size():
    small = ["--grid", "china_32x64", "--width", "64", "--depth", "2", "--heads", "4"]
    result = CliRunner().invoke(step, [*small, "--repeats", "1", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert all(f"\n{case} " in result.output for case in CASES)


def _pages(pipe) -> None:
    pipe.send(os.environ["THP_MEM_ALLOC_ENABLE"])


@pytest.mark.parametrize(("case", "pages"), [("published", "0"), ("published-memory", "1")])
def test_the_published_form_runs_as_torch_alone_would(case, pages, monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    settings = bench_step._PAGES[CASES[case].memory]
    assert in_own_process("pages", "", _pages, variables=settings) == pages
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ
