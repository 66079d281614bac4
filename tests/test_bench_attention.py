"""Bench of attention and commands on terrain: tables, checks and errors."""

from __future__ import annotations

import click
import pytest
import torch
from click.testing import CliRunner

from aqnet.cli.bench_attention import attention
from aqnet.cli.console import Group
from aqnet.cli.terrain import terrain
from aqnet.errors import AqnetError
from aqnet.model import bench_attention
from aqnet.model.bench_attention import (
    CASES,
    Cost,
    aggregation_costs,
    attention_costs,
    extra_memory,
    growth,
)
from aqnet.model.bench_machine import matmul_gflops
from aqnet.model.check_attention import Sizes


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(command: click.Command, *arguments: str):
    """As under `aqnet`: errors are messages."""
    group = Group("aqnet", params=[click.Option(["--debug"], is_flag=True)])
    group.add_command(command)
    return CliRunner().invoke(group, [command.name, *map(str, arguments)])


def test_costs_of_all_cases():
    costs = attention_costs(Sizes(1, 2, 128, 16), repeats=1, memory=False)
    assert [c.case for c in costs] == list(CASES)
    assert all(c.seconds > 0 and c.tokens == 128 and c.memory is None for c in costs)


def test_the_context_is_where_the_queries_are(monkeypatch):
    seen = []

    class Core(torch.nn.Module):
        def __init__(self, *_):
            super().__init__()

        def forward(self, q, k, v, context):
            seen.extend([context.geometry.up.device, context.wind.device, context.ridge[0].device])
            return q + k + v

    monkeypatch.setattr(bench_attention, "PhysicsAttention", Core)
    make = bench_attention._attention
    make("all", Sizes(1, 2, 8, 8), "meta", "cpu", torch.float32)()
    assert seen == [torch.device("meta")] * 3


def test_memory_is_the_peak_of_the_pass():
    sizes = Sizes(1, 8, 1024, 96, 14)
    plain, everything = (
        extra_memory("attention", case, sizes, "cpu", "cpu", torch.float32)
        for case in ("plain", "all")
    )
    # plain: output and three gradients of 3.1 MB; a dense term would take 8 x 1024^2 floats, 34 MB
    assert 8e6 < plain < everything < 130e6


def test_a_measuring_process_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(bench_attention, "_measure_memory", exit)
    with pytest.raises(AqnetError, match="could not be measured(.|\n)*fewer tokens"):  # noqa: RUF043
        extra_memory("attention", "plain", Sizes(tokens=8), "cpu", "cpu", torch.float32)


def test_growth_is_the_exponent():
    costs = [Cost("all", n, 3.0 * n**2, None) for n in (10, 20, 80)]
    assert growth(costs) == pytest.approx([2.0, 2.0])


def test_collapsed_aggregation_is_cheaper():
    explicit, collapsed = aggregation_costs(Sizes(1, 8, 256, 96), repeats=2)
    assert collapsed.seconds < explicit.seconds and collapsed.memory < explicit.memory
    assert matmul_gflops() > 1


SMALL = {"tokens": 128, "growth": "32,64", "places": 16, "heads": 2, "head-dim": 16, "repeats": 1}


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_table(measured, monkeypatch):
    if not measured:  # a process for each number takes a while
        monkeypatch.setattr(bench_attention, "extra_memory", lambda *_: 123_000_000)
    small = [x for name, value in SMALL.items() for x in (f"--{name}", value)]
    result = run(attention, *small, "--threads", 1)
    assert result.exit_code == 0, result.output
    lines = result.output
    assert "GFLOP/s" in lines and "torch" in lines and "nn.MultiheadAttention" in lines
    assert all(f"\n{case} " in lines for case in CASES)
    assert "\n    32" in lines and "\n    64" in lines
    assert measured or lines.count("0.123") == len(CASES) + 2 * 2 + 2


@pytest.mark.parametrize("dtype", ["float32"])
def test_the_check_against_the_oracle(dtype):
    result = run(attention, "--check", "--dtype", dtype, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert result.output.count(" ok ") == 28 and "all within the tolerances" in result.output


def test_a_wrong_kernel_is_found_out(monkeypatch):
    from aqnet.model import sorted_attention

    right = sorted_attention._runs

    def wrong(height):
        return right(height)[:1]  # loses the sources above the receiver

    monkeypatch.setattr(sorted_attention, "_runs", wrong)
    result = run(attention, "--check", "--kernel", "cpu")
    assert result.exit_code == 1 and "WRONG" in result.output and "elevation" in result.output


def test_a_device_or_kernel_that_is_not_there():
    for device in ("cuda:7", "cuda:x", "cpu:0", "mps"):
        result = run(attention, "--device", device)
        assert result.exit_code == 1 and f"no device '{device}'" in result.output
    result = run(attention, "--kernel", "efficient", "--tokens", 16)
    assert result.exit_code == 1 and "no fused attention with kernel 'efficient'" in result.output


@pytest.mark.parametrize(
    "wrong", [("--tokens", 0), ("--heads", -1), ("--growth", "64,0"), ("--growth", "64,x")]
)
def test_sizes_that_are_none_are_refused(wrong):
    result = run(attention, *wrong)
    assert result.exit_code == 2 and wrong[0] in result.output and "Traceback" not in result.output


def test_terrain_commands(tmp_path):
    path = tmp_path / "x.safetensors"
    how = ("--grid", "china_32x64", "--rank", 4, "--file", path)
    built = run(terrain, "build", *how)
    assert built.exit_code == 0, built.output
    assert "within 4 patches" in built.output and "512 patches" in built.output
    inspected = run(terrain, "inspect", path)
    assert "elevation_sha256" in inspected.output and "all pairs" in inspected.output
    assert "are those of the terrain" in run(terrain, "verify", path).output
    path.unlink()
    missing = run(terrain, "inspect", path)
    assert missing.exit_code == 1 and "aqnet terrain build" in missing.output
