"""Freed memory goes back to the system: limits are set in processes of their own, or not at all."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from aqnet.model.bench_machine import memory_is_told
from aqnet.training import memory
from aqnet.training.config import TrainingConfig
from aqnet.training.memory import KEPT_BYTES, LARGE_BYTES
from aqnet.training.processes import open_fabric

# Blocks of 20 MB of which every second one is freed; the first, of 30 MB, raises glibc's own limit.
HELD = """
import torch
from aqnet.model.bench_machine import resident_bytes
from aqnet.training.memory import return_freed_memory
{call}
first = torch.ones(30 * 2**18); del first
blocks = [torch.ones(20 * 2**18) for _ in range(20)]
full = resident_bytes()
del blocks[::2]
print((full - resident_bytes()) / 2**20)
"""


def freed_mb(call: str) -> float:
    """Memory that the system has back, of 200 MB freed."""
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(call=call)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not memory_is_told(), reason="needs glibc and /proc"
)
def test_large_blocks_go_back_when_they_are_freed():
    assert freed_mb("return_freed_memory()") > 190
    assert freed_mb("") < 100  # else the call is of no use


def test_a_training_on_a_processor_returns_memory_and_keeps_the_end_of_the_heap(monkeypatch):
    """Else, with one limit set, glibc would give back every small block at the end of the heap."""
    said = []
    library = SimpleNamespace(mallopt=lambda *pair: said.append(pair))
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    glibc = SimpleNamespace(libc_ver=lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory, "platform", glibc)
    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    open_fabric(TrainingConfig(accelerator="cpu"))
    assert said == [(-3, LARGE_BYTES), (-1, KEPT_BYTES)]  # of malloc.h
