"""A checkpoint in another process: memory, forecasts without data, death half-way through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_models import CASES, bitwise, of_model
from checkpoints import made_up, training_state

from aqnet.training.checkpoint import read_checkpoint, write_checkpoint

# One process for three tests, for it takes seconds to import torch: its memory, forecasts in an
# empty folder without data, and in the end its death half-way through a checkpoint.
ELSEWHERE = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from checkpoints import made_up
from aqnet.training.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint

def status(name):  # MB, mapped pages of files included
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3

def growth(work):
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    start = status("VmRSS")
    work()
    return status("VmHWM") - start

path = Path("memory.ckpt")
wanted = made_up(
    state={"w": torch.ones(2_000_000)},  # 8 MB
    training={"m": torch.ones(20_000_000)},  # 80 MB
)
growth(lambda: write_checkpoint(path, made_up()))  # first use of the writer
print(growth(lambda: write_checkpoint(path, wanted)), flush=True)
print(growth(lambda: read_checkpoint(path)), flush=True)
print(growth(lambda: read_checkpoint(path, training=True)), flush=True)

for kind in ("grid", "stations"):
    model = load_checkpoint(f"{kind}.ckpt").model
    with torch.no_grad():
        torch.save(model(torch.load(f"{kind}.pt", weights_only=True)), f"forecast-{kind}.pt")

save = torch.save
def killed_half_way(content, stream):
    save(content, stream)
    stream.truncate(stream.tell() // 2)
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed_half_way
write_checkpoint(Path("killed/last.ckpt"), made_up(parent="0" * 64))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Exit code, folder of the killed writer, growth of memory [MB], and its checkpoint."""
    place = tmp_path_factory.mktemp("elsewhere")
    for kind, (make_model, make_batch) in CASES.items():
        model, batch = make_model(), make_batch()
        write_checkpoint(place / f"{kind}.ckpt", of_model(model))
        torch.save(batch, place / f"{kind}.pt")
        with torch.no_grad():
            torch.save(model(batch), place / f"wanted-{kind}.pt")
    (place / "killed").mkdir()
    last = place / "killed/last.ckpt"
    write_checkpoint(last, made_up(training=training_state()))
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ELSEWHERE, Path(__file__).parent]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.returncode, last.parent, [float(line) for line in done.stdout.split()], last


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(elsewhere):
    code, folder, _, path = elsewhere
    assert code == -signal.SIGKILL
    assert read_checkpoint(path).parent is None
    assert len(list(folder.iterdir())) == 2
    write_checkpoint(path, made_up(parent="1" * 64))
    assert read_checkpoint(path).parent == "1" * 64
    assert [p.name for p in folder.iterdir()] == ["last.ckpt"]


def test_writing_copies_nothing_and_reading_weights_does_not_read_the_optimiser(elsewhere):
    writing, weights_alone, everything = elsewhere[2]
    assert writing < 16
    assert weights_alone < 2 * 8 + 16  # mapped and copied
    assert everything > 2 * 88 - 16


def test_checkpoints_forecast_in_an_empty_folder_without_data(elsewhere):
    for kind in CASES:
        paths = [elsewhere[1].parent / f"{name}-{kind}.pt" for name in ("forecast", "wanted")]
        assert bitwise(*(torch.load(path, weights_only=True) for path in paths)), kind
