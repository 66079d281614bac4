"""The slow node is named: pairs and medians by hand, then real ranks, one of them held up."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from ranks import run_ranks

from aqnet.jobs.check_network import Findings, bus_gb_s, main, pairings, slow_nodes


@given(st.integers(1, 40), st.integers(1, 6))
def test_everybody_meets_others_and_nobody_is_in_two_places(count, rounds):
    nodes = [f"n{i}" for i in range(count)]
    found = pairings(nodes, rounds)
    met = [frozenset(pair) for pairs in found for pair in pairs]
    assert len(set(met)) == len(met) and all(len(pair) == 2 for pair in met)
    for pairs in found:
        places = [node for pair in pairs for node in pair]
        assert len(set(places)) == len(places) >= count - 1
    if rounds >= count:
        assert len(met) == count * (count - 1) // 2


def findings(bandwidth: dict[str, float], own: dict[str, float] | None = None) -> Findings:
    """All pairs of nodes; a pair is as fast as the slower one."""
    pairs = {p: min(bandwidth[n] for n in p) for p in itertools.combinations(bandwidth, 2)}
    return Findings(own or dict.fromkeys(bandwidth, 100.0), 8, 1e6, 0.01, pairs)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_of_three_nodes_or_more_one_is_named(count):
    sound = {f"n{i}": 80.0 for i in range(count)}
    assert slow_nodes(findings(sound), 0.5) == {}
    named = slow_nodes(findings(sound | {"n1": 30.0}), 0.5)
    assert list(named) == ["n1"] and named["n1"].startswith("30 GB/s with its best partner")
    assert slow_nodes(findings(sound | {"n1": 41.0}), 0.5) == {}


def test_two_nodes_are_one_pair():
    found = findings({"a": 80.0, "b": 30.0})
    assert slow_nodes(found, 0.5) == {}
    assert list(slow_nodes(found, 0.5, 100.0, 0.5)) == ["a", "b"]
    assert slow_nodes(found, 0.5, 100.0, 0.25) == {}


def test_slow_work_names_a_node_of_any_number():
    for own in ({"a": 100.0, "b": 40.0}, {"a": 100.0, "b": 40.0, "c": 90.0}):
        named = slow_nodes(findings(dict.fromkeys(own, 80.0), own), 0.5)
        assert list(named) == ["b"] and "own work" in named["b"]


def test_all_of_them_slow_is_told_by_the_stated_bandwidth():
    found = findings(dict.fromkeys("abc", 2.0))
    assert slow_nodes(found, 0.5) == {} and len(slow_nodes(found, 0.5, 100.0)) == 3


def test_bus_bandwidth():
    assert bus_gb_s(1e9, 1.0, 2) == 1.0 and bus_gb_s(1e9, 0.5, 4) == 3.0


# ---- real ranks, each a node of its own

# A busy machine with fewer cores than ranks: low shares, so that only the held rank is below them.
SMALL = ["--accelerator", "cpu", "--megabytes", "2", "--repeats", "3", "--share", "0.2"]


@contextlib.contextmanager
def held(owner: object, name: str, seconds: float):
    """A function of this rank that sleeps before it begins."""
    function = getattr(owner, name)

    def late(*values, **named):
        time.sleep(seconds)
        return function(*values, **named)

    setattr(owner, name, late)
    yield
    setattr(owner, name, function)


def call(folder: Path, rank: int, name: str, *arguments: str) -> None:
    """One check; its output, errors and exit code go to a file."""
    os.environ["SLURMD_NODENAME"] = f"n{rank}"
    with (folder / f"{name}_{rank}").open("w", buffering=1) as out:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main([*SMALL, *arguments])
        out.write(f"code {code}\n")


def two(rank: int, folder: Path) -> None:
    """Sound; a rank that sends late, without and with a stated bandwidth; one that works slowly."""
    call(folder, rank, "sound")
    second = rank == 1
    with held(dist, "all_reduce", 0.3) if second else contextlib.nullcontext():
        call(folder, rank, "late")
        call(folder, rank, "stated", "--stated-gb-s", "1")
    with held(torch.Tensor, "__matmul__", 1.0) if second else contextlib.nullcontext():
        call(folder, rank, "work")


def several(rank: int, folder: Path) -> None:
    """The third sends late."""
    with held(dist, "all_reduce", 0.4) if rank == 2 else contextlib.nullcontext():
        call(folder, rank, "late")


def told(folder: Path, name: str, world: int) -> tuple[str, str]:
    """What the first rank says, and the code that all end with."""
    texts = [(folder / f"{name}_{rank}").read_text() for rank in range(world)]
    assert len({text.splitlines()[-1] for text in texts}) == 1, texts
    return texts[0], texts[0].splitlines()[-1]


def test_two_nodes(tmp_path):
    ranks = run_ranks(2, tmp_path, two)
    assert [rank.code for rank in ranks] == [0, 0], ranks
    text, code = told(tmp_path, "sound", 2)
    assert code == "code 0" and "2 ranks on 2 nodes, 2 MB" in text and "n0 - n1" in text
    assert told(tmp_path, "late", 2)[1] == "code 0"  # nothing to compare one pair with
    text, code = told(tmp_path, "stated", 2)
    assert code == "code 1" and "slow: n0, n1\n" in text and "stated 1" in text
    text, code = told(tmp_path, "work", 2)
    assert code == "code 1" and "slow: n1\n" in text and "own work" in text


@pytest.mark.parametrize("world", [3, 4])  # of three one rests in each round
def test_the_late_one_of_several_nodes_is_named(tmp_path, world):
    assert [rank.code for rank in run_ranks(world, tmp_path, several, timeout=120)] == [0] * world
    text, code = told(tmp_path, "late", world)
    assert code == "code 1" and "slow: n2\n" in text and "best partner" in text
    assert text.count(" - n") == world * (world - 1) // 2  # each with each
