"""What benchmarks share: the machine's own speed, shortest times, and memory of a process."""

from __future__ import annotations

import multiprocessing
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from aqnet.data.parallel import environment
from aqnet.errors import AqnetError, explain

__all__ = [
    "best_seconds",
    "describe_machine",
    "forget_peak",
    "in_own_process",
    "matmul_gflops",
    "memory_is_told",
    "peak_bytes",
    "resident_bytes",
]


def matmul_gflops(device: str = "cpu", dtype: torch.dtype = torch.float32, n: int = 2048) -> float:
    """Speed of a product of two matrices of n x n, GFLOP/s, best of five."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / best_seconds(lambda: a @ b, device, repeats=5) / 1e9


def describe_machine(device: str = "cpu") -> str:
    """Processor or GPU, threads and version of torch."""
    if device == "cpu":
        info = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
        name = f"{found[1] if found else platform.machine()}, {torch.get_num_threads()} threads"
    else:
        name = torch.cuda.get_device_name(device)
    return f"{name}, torch {torch.__version__}"


def best_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Shortest of `repeats` calls."""
    took = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        took.append(time.perf_counter() - start)
    return min(took)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


# ---- memory of this process, on Linux


def memory_is_told() -> bool:
    """Whether the system tells the peak of a process and lets it forget one."""
    return Path("/proc/self/clear_refs").exists()


def forget_peak() -> None:
    """Let `peak_bytes` start from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Largest resident memory so far."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Resident memory."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def in_own_process(
    what: str,
    remedy: str,
    target: Callable,
    *arguments: object,
    variables: Mapping[str, str] | None = None,
) -> object:
    """What `target(pipe, *arguments)` sends through its pipe, from a new process.

    `variables` of the environment that the process has besides those of this one.

    Raises
    ------
    AqnetError
        The process ended without an answer, as when it ran out of memory; names `what` it measured
        and the `remedy`.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=target, args=(there, *arguments))
    with environment(variables or {}):
        process.start()
    there.close()
    try:
        return here.recv()
    except EOFError as error:
        process.join()
        raise AqnetError(
            explain(
                f"{what} could not be measured",
                expected="a process that reports what it measured",
                found=f"it ended with exit code {process.exitcode} (-9: out of memory)",
                remedy=remedy,
            )
        ) from error
    finally:
        process.join()
