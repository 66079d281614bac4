"""Which freed memory goes back to the system: seen in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from aqnet.model.bench_machine import memory_is_told
from aqnet.training import processes
from aqnet.training.config import TrainingConfig
from aqnet.training.processes import KEPT_BYTES, LARGE_BYTES, open_fabric

# Ten blocks that are freed one after the other; the first, of 30 MB, raises glibc's own limit.
HELD = """
import torch
from aqnet.model.bench_machine import resident_bytes
from aqnet.training.processes import set_heap_limits
{call}
first = torch.ones(30 * 2**18); del first
blocks = [torch.ones({megabytes} * 2**18) for _ in range(10)]
full = resident_bytes()
while blocks:
    del blocks[-1]
print((full - resident_bytes()) / 2**20)
"""


def freed_mb(megabytes: int, call: str = "set_heap_limits()") -> float:
    """Memory that the system has back, of ten times as much freed."""
    script = HELD.format(call=call, megabytes=megabytes)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not memory_is_told(), reason="needs glibc and /proc"
)
def test_large_blocks_go_back_when_they_are_freed_and_others_are_kept():
    assert freed_mb(40) > 390
    assert freed_mb(20) < 20
    assert freed_mb(20, call="") > 60  # else the call is of no use


def test_a_training_on_a_processor_sets_both_limits(monkeypatch):
    """With one set, glibc would give back every small block at the end of the heap."""
    said = []
    library = SimpleNamespace(mallopt=lambda *pair: said.append(pair))
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    glibc = SimpleNamespace(libc_ver=lambda: ("glibc", "2.36"))
    monkeypatch.setattr(processes, "platform", glibc)
    monkeypatch.setattr(processes, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    open_fabric(TrainingConfig(accelerator="cpu"))
    assert said == [(-3, LARGE_BYTES), (-1, KEPT_BYTES)]  # of malloc.h
