"""The notebook of the sweeps in tests."""

from __future__ import annotations

TOY = """\
seed: int = 0  # [1] {0..}
width: int = 8  # [1] {1..64}
mode: str = "a"  # {a|b}
folder: str = ""  # for notes
seconds: float = 0.0  # to wait [s]
"""
# Notes each start, waits while `hold` is there, fails while `bad-WIDTH` is there.
BODY = """\
import time
from pathlib import Path
from aqnet.jobs.runs import RunFolder
run = RunFolder.for_notebook(run_dir, "toy", {})
place = Path(folder)
with (place / "starts").open("a") as notes:
    notes.write(f"{width} {seed}\\n")
end = time.monotonic() + 30
while (place / "hold").exists() and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(seconds)
assert not (place / f"bad-{width}").exists(), f"width {width} is bad"
loss = 1 / width + 0.01 * seed + (0.1 if mode == "b" else 0.0)
run.write_metrics({"curve": {"step": [0, 5], "train": [None, 1.0], "validation": [1.0, loss]}})
run.finish()
"""
