"""Find the slow node before a training waits for it: `srun ... python -m aqnet.jobs.check_network`.

On all processes that srun or torchrun started, in this order:

own work
    Matrix products of each rank by itself: finds a throttled or shared GPU or core.
all-reduce
    A gradient's worth of numbers, added over all ranks.
node pairs
    The same over two nodes at a time: all nodes at once in disjoint pairs, in each round with
    another partner. A sound node is fast with one of its partners at least, a slow one with none.

A node is named, and the exit code is 1, if its slowest rank or its fastest pair is below a share
of the median node's, or its fastest pair below another share of the stated bandwidth. Two nodes are
one pair: only the stated bandwidth judges it, and which of the two is slow remains open.

Bus bandwidth of n ranks is 2 (n - 1) / n x bytes / time: what each link carries, so that it can be
compared between numbers of ranks (NCCL tests, doc/PERFORMANCE.md).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from aqnet.errors import explain
from aqnet.model.bench_machine import matmul_gflops
from aqnet.training.config import TrainingConfig
from aqnet.training.processes import open_fabric

__all__ = ["Findings", "bus_gb_s", "main", "pairings", "slow_nodes"]

# Gradients of the preset `china`: 46.2 M numbers in float32.
_GRADIENT_MB = 185.0
_MATRIX = {"cpu": 512, "cuda": 8192}  # rows of the products: some 10 or 30 ms
_WORKS = 4  # times five products: other processes of a node disturb some of them
_SHOWN = 10  # slowest pairs

Pair = tuple[str, str]


def bus_gb_s(size: float, seconds: float, ranks: int) -> float:
    """Bus bandwidth [GB/s] of an all-reduce of `size` bytes over `ranks`."""
    return 2 * (ranks - 1) / ranks * size / seconds / 1e9


def pairings(nodes: Sequence[str], rounds: int) -> list[list[Pair]]:
    """Disjoint pairs of nodes for each round, everybody with another partner each time.

    The circle method: one stays, the others move on by a place. Of an odd number one rests.
    """
    ring: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    found = []
    for _ in range(min(rounds, len(ring) - 1)):
        half = len(ring) // 2
        both = zip(ring[:half], reversed(ring[half:]), strict=True)
        found.append([(a, b) for a, b in both if a is not None and b is not None])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return found


@dataclass
class Findings:
    """What all ranks have measured, the same on each of them.

    Attributes
    ----------
    own : dict
        By node: matrix products of its slowest rank [GFLOP/s].
    pairs : dict
        By pair of nodes: bus bandwidth [GB/s].
    ranks : int
    together_s : float
        Of an all-reduce over all ranks [s].
    size : float
        Of what was sent [bytes].
    """

    own: dict[str, float]
    ranks: int
    size: float
    together_s: float = 0.0
    pairs: dict[Pair, float] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float]:
        """By node: its fastest pair [GB/s]."""
        nodes = dict.fromkeys(node for pair in self.pairs for node in pair)
        return {n: max(v for pair, v in self.pairs.items() if n in pair) for n in nodes}

    def lines(self) -> list[str]:
        """The report."""
        middle, worst = statistics.median_high(self.own.values()), min(self.own, key=self.own.get)
        found = [
            f"{self.ranks} ranks on {len(self.own)} nodes, {self.size / 1e6:.0f} MB in float32",
            f"own work    {middle / 1e3:.3f} TFLOP/s a rank on the median node, "
            f"{self.own[worst] / 1e3:.3f} on the slowest ({worst})",
        ]
        if self.ranks > 1:
            speed = bus_gb_s(self.size, self.together_s, self.ranks)
            took = f"{1e3 * self.together_s:.1f} ms over all"
            found.append(f"all-reduce  {took}: bus bandwidth {speed:.2f} GB/s")
        if self.pairs:
            reference = statistics.median_high(self.best.values())
            found.append(
                f"node pairs  {reference:.2f} GB/s, median of the nodes' best; the slowest:"
            )
            for (a, b), speed in sorted(self.pairs.items(), key=lambda p: p[1])[:_SHOWN]:
                found.append(f"    {a} - {b}  {speed:.2f} GB/s, {speed / reference:.2f} of it")
        return found


def slow_nodes(
    found: Findings, share: float, stated_gb_s: float | None = None, stated_share: float = 0.25
) -> dict[str, str]:
    """Slow nodes, with the reason.

    Parameters
    ----------
    found : Findings
    share : float
        Of the median node's work and bandwidth, below which a node is slow [1].
    stated_gb_s : float, optional
        Bandwidth of a node's network, as the profile states it.
    stated_share : float
        Of that; sockets instead of the fast network stay far below a quarter.
    """
    fastest = statistics.median_high(found.own.values())  # of two the faster
    slow = _below(found.own, share, fastest, "GFLOP/s of own work, the median node {:.4g}")
    if len(found.best) > 2:
        middle = statistics.median_high(found.best.values())
        slow |= _below(found.best, share, middle, "GB/s with its best partner, the median {:.4g}")
    if stated_gb_s is not None:
        what = "GB/s with its best partner, stated {:.4g}"
        slow = _below(found.best, stated_share, stated_gb_s, what) | slow
    return slow


def _below(speeds: Mapping[str, float], share: float, full: float, what: str) -> dict[str, str]:
    slow = {node: speed for node, speed in speeds.items() if speed < share * full}
    return {node: f"{speed:.4g} {what.format(full)}" for node, speed in slow.items()}


# ---- measuring


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _reduce_seconds(values: torch.Tensor, group: dist.ProcessGroup | None, repeats: int) -> float:
    """Shortest time of an all-reduce, after one that is not counted [s]."""
    took = []
    for _ in range(repeats + 1):
        values.zero_()
        dist.barrier(group)
        _wait(values)
        begin = time.perf_counter()
        dist.all_reduce(values, group=group)
        _wait(values)
        took.append(time.perf_counter() - begin)
    return min(took[1:])


def _wait(values: torch.Tensor) -> None:
    if values.is_cuda:
        torch.cuda.synchronize()


def _gathered(own: object) -> list:
    """An object of each rank, by rank."""
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def _pair_seconds(values: torch.Tensor, nodes: list[str], rounds: int, repeats: int) -> dict:
    """Of the pairs that this rank belongs to [s]."""
    own, found = nodes[dist.get_rank()], {}
    for pairs in pairings(list(dict.fromkeys(nodes)), rounds):
        dist.barrier()  # all pairs of a round at once, as in a training
        pair = next((pair for pair in pairs if own in pair), (own,))  # of an odd number one rests
        ranks = [rank for rank, node in enumerate(nodes) if node in pair]
        # torch names a group by its ranks and by how many there are: so that all ranks agree, each
        # makes one in every round, and none is given up
        group = dist.new_group(ranks, use_local_synchronization=True)
        if len(pair) == 2:
            found[pair] = _reduce_seconds(values, group, repeats)
    return found


def measure(megabytes: float, rounds: int, repeats: int, device: torch.device) -> Findings:
    """Measure on all ranks; returns the same on each."""
    node, size = _node(), _MATRIX[device.type]
    speed = max(matmul_gflops(str(device), n=size) for _ in range(_WORKS))
    if not dist.is_initialized():
        return Findings({node: speed}, 1, 1e6 * megabytes)
    values = torch.zeros(int(1e6 * megabytes / 4), device=device)
    size = values.numel() * values.element_size()
    told = _gathered((node, speed))
    nodes, own = [each for each, _ in told], {}
    for each, value in told:
        own[each] = min(value, own.get(each, value))
    found = Findings(own, len(nodes), size)
    found.together_s = max(_gathered(_reduce_seconds(values, None, repeats)))
    seconds: dict[Pair, float] = {}
    for each in _gathered(_pair_seconds(values, nodes, rounds, repeats)):
        for pair, value in each.items():
            seconds[pair] = max(value, seconds.get(pair, 0.0))
    found.pairs = {
        pair: bus_gb_s(size, value, sum(node in pair for node in nodes))
        for pair, value in seconds.items()
    }
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aqnet.jobs.check_network", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--megabytes", type=float, default=_GRADIENT_MB, help="of the gradients")
    parser.add_argument("--share", type=float, default=0.5, help="of the median; below it: slow")
    parser.add_argument("--stated-gb-s", type=float, help="bandwidth between two nodes [GB/s]")
    parser.add_argument("--stated-share", type=float, default=0.25, help="of it; below it: slow")
    parser.add_argument("--rounds", type=int, default=3, help="partners of each node")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--timeout-minutes", type=float, default=5.0, help="of a collective")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, report on the first rank; exit code 1 on all of them if a node is slow."""
    given = _parser().parse_args(arguments)
    fabric = open_fabric(
        TrainingConfig(
            accelerator=given.accelerator, collective_timeout_minutes=given.timeout_minutes
        )
    )
    found = measure(given.megabytes, given.rounds, given.repeats, fabric.device)
    slow = slow_nodes(found, given.share, given.stated_gb_s, given.stated_share)
    if fabric.is_global_zero:
        print("\n".join(found.lines()), flush=True)
        if slow:
            print(f"error: {_told(slow, given.share)}", file=sys.stderr, flush=True)
    fabric.barrier()  # a launcher ends all when one has left with an error
    return 1 if slow else 0


def _told(slow: Mapping[str, str], share: float) -> str:
    return explain(
        f"slow: {', '.join(slow)}", expected=f"every node at {share:g} of the median",
        found="; ".join(f"{node}: {reason}" for node, reason in slow.items()),
        remedy="leave them out (sbatch --exclude) and tell the site; --share sets the limit",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
