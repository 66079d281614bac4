"""Run a function as the ranks of a gloo group, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PRELOAD = ["aqnet.training.loop", "toy_training"]  # import torch once, not in each rank


@dataclass(frozen=True)
class Rank:
    """How a rank ended, and when it last wrote to its standard error."""

    code: int
    stderr: str
    told_at: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _main(rank: int, world: int, port: int, folder: Path, target: Callable, arguments: tuple):
    stream = os.open(folder / f"stderr_{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    other = {"GROUP_RANK": 0, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    values = place | other | {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ.update({name: str(value) for name, value in values.items()})
    target(rank, folder, *arguments)


def run_ranks(world: int, folder: Path, target: Callable, *arguments, timeout: float = 300):
    """Call ``target(rank, folder, *arguments)`` on each rank; list of `Rank`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ranks = [
        context.Process(target=_main, args=(rank, world, port, folder, target, arguments))
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
    hanging = [process for process in ranks if process.is_alive()]
    for process in hanging:
        process.kill()
    files = [folder / f"stderr_{rank}" for rank in range(world)]
    assert not hanging, "ranks hang: " + "\n".join(path.read_text() for path in files)
    return [
        Rank(process.exitcode, path.read_text(), path.stat().st_mtime_ns * 1e-9)
        for process, path in zip(ranks, files, strict=True)
    ]
