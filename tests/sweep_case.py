"""A sweep for tests, of a notebook that trains nothing: its file, and running it here."""

from __future__ import annotations

import time
from pathlib import Path

import yaml
from notebook_tools import make_notebook

from aqnet.jobs.sweeps.begin import define_sweep
from aqnet.jobs.sweeps.definition import load_definition
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.local import run_local
from aqnet.jobs.sweeps.points import plan_sweep
from aqnet.jobs.sweeps.records import PointState

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


def definition(toy: Path, **fields) -> dict:
    """Content of a sweep file."""
    common = {
        "name": "widths",
        "notebook": str(toy / "toy.ipynb"),
        "parameters": {"folder": str(toy)},
        "metrics": {"loss": "min curve.validation"},
    }
    return common | {"grid": {"width": [2, 4, 8]}} | fields


def write(toy: Path, **fields) -> Path:
    path = toy / "sweep.yaml"
    path.write_text(yaml.safe_dump(definition(toy, **fields), sort_keys=False))
    return path


def begin(toy: Path, **fields) -> Sweep:
    path = write(toy, **fields)
    return define_sweep(plan_sweep(load_definition(path)), path.read_text())


def here(sweep: Sweep, parallel: int = 2, failed_too: bool = False) -> list[str]:
    """Run by script, which starts faster; lines of progress."""
    lines: list[str] = []
    run_local(sweep, parallel, "script", failed_too, {}, lines.append)
    return lines


def statuses(sweep: Sweep) -> list[str]:
    return [state.status for state in sweep.states({})]


def starts(toy: Path) -> list[str]:
    path = toy / "starts"
    return path.read_text().splitlines() if path.exists() else []


def wait_until(what, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# ---- a summary

CLOSING = """\
from pathlib import Path
from aqnet.jobs.runs import RunFolder
from aqnet.jobs.sweeps.folder import Sweep
run = RunFolder.for_notebook(run_dir, "closing", {})
assert not (Path(folder) / "bad-summary").exists(), "the summary is bad"
states = Sweep.open(sweep).states({})
run.write_metrics({"complete": sum(s.status == "complete" for s in states), "word": word})
run.finish()
"""


def closing(toy: Path) -> dict:
    """A section `summary`, whose notebook fails while `bad-summary` is there."""
    parameters = 'sweep: str = ""\nfolder: str = ""\nword: str = ""\n'
    make_notebook(toy / "closing.ipynb", parameters, CLOSING)
    return {"notebook": str(toy / "closing.ipynb"), "parameters": {"folder": str(toy), "word": "x"}}


def summary_of(sweep: Sweep) -> PointState:
    return sweep.summary_state(sweep.states({}), {})
