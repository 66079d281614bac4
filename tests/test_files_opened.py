"""Files that a process opens until its first update: a parallel file system pays for each.

An image keeps the environment off that file system. What is in it is counted as well: it is time
until the first update, and what an environment without an image would cost.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from notebook_tools import ROOT
from opened_files import Opened, of_interpreter, opened_by, package_of
from test_problem import recorded  # noqa: F401  a fixture

from aqnet.jobs.compile import compile_notebook
from aqnet.jobs.stage import stage

# Counted with torch 2.13, lightning 2.6.6 and zarr 3.1.6; each beyond what is named before it.
LIGHTNING = 1500  # 1,437 beyond torch: it imports torchmetrics, and that scipy and matplotlib
OWN = 300  # 287 beyond these and the interpreter: zarr, pydantic, netCDF4, aqnet, and the script
LOGS = 200  # 171: TensorBoard and the run's records, of the first process alone
A_YEAR = 20  # 18 of each yearly store: arrays and their metadata, two shards
STATION_STORE = 200  # 184: its arrays are read whole, a file a month
OUTSIDE = 300  # of the image, which `aqnet.jobs.prediction` counts with: code, records and stores

# No process opens a file of these before its first update. scipy and matplotlib come with
# Lightning, but aqnet asks for neither (scipy: for a fit in closed form, with stations alone).
ABSENT = {"IPython", "bottleneck", "jinja2", "nbformat", "pandas", "papermill"}
ABSENT |= {"pyproj", "rasterio", "scores", "shapely", "xarray"}
ASKED = {"lightning", "numpy", "pydantic", "safetensors", "threadpoolctl", "torch", "yaml", "zarr"}

# One step of a network of torch's own, with its optimiser, DDP and loader.
TORCH = """
import torch, torch.distributed as dist
from torch.utils.data import DataLoader
dist.init_process_group("gloo")
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
best = torch.optim.AdamW(net.parameters())
for batch in DataLoader(torch.ones(4, 2), 2):
    net(batch).sum().backward()
    best.step()
"""
# The same with Lightning's Fabric.
FABRIC = """
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader
fabric = Fabric(accelerator="cpu", strategy="ddp", devices=1)
fabric.launch()
net = torch.nn.Linear(2, 2)
net, best = fabric.setup(net, torch.optim.AdamW(net.parameters()))
for batch in fabric.setup_dataloaders(DataLoader(torch.ones(4, 2), 2)):
    fabric.backward(net(batch).sum())
    best.step()
"""
# The compiled script, until its optimiser has made a step.
START = """
import runpy
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: told_so_far())
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FOUR_DAYS = """
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.years.format import year_times
GridManifest.times = lambda self, year: year_times(year, 8)[:96]
"""
SMALL = {"width": 16, "depth": 1, "heads": 2, "max_steps": 1, "batch_size": 2, "drop_path": 0.0}


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> dict[str, set[Path]]:
    """Files of torch's own start, and those that Lightning adds."""
    folder = tmp_path_factory.mktemp("known")
    torch, fabric = (opened_by(source, folder / name, {})[0].files
                     for name, source in (("torch", TORCH), ("fabric", FABRIC)))  # fmt: skip
    return {"torch": torch, "lightning": fabric - torch}


def started(folder: Path, values: dict, before: str = "") -> tuple[Path, list[Opened]]:
    """Stage the training notebook, and start its script as two processes."""
    run = folder / "run"
    run.mkdir()
    script = compile_notebook(ROOT / "nbs/train/forecast.ipynb")
    stage(run, ROOT, {"script.py": script, "parameters.yaml": yaml.safe_dump(SMALL | values)})
    staged = run / "staged"
    subprocess.run([sys.executable, "-m", "compileall", "-q", staged / "aqnet"], check=True)
    argv = [staged / "script.py", "--params", staged / "parameters.yaml"]
    argv += ["--run-dir", folder / "begun"]
    places = {"AQNET_ROOT": str(staged), "PYTHONPATH": str(staged), "MPLBACKEND": "Agg"}
    start = before + START.format(argv=[str(each) for each in argv])
    return staged, opened_by(start, folder / "told", places, staged, ranks=2)


def counted(opened: Opened, known: dict, store: Path, staged: Path) -> dict[str, set[Path]]:
    """What a process opened, in the groups of the limits; `own` has that of the logs in it."""
    rest = opened.files - known["torch"] - known["lightning"]
    rest = {path for path in rest if not of_interpreter(path) and package_of(path) != "torch"}
    stores = {path for path in rest if store in path.parents}
    code = {path for path in rest if staged in path.parents}
    return {"own": rest - stores, "stores": stores, "code": code,
            "outside": {path for path in rest if package_of(path) is None}}  # fmt: skip


def told(groups: dict[str, Iterable[Path]]) -> str:
    """How many of each group, and the largest packages."""
    packages = Counter(package_of(path) for path in groups["own"])
    sizes = {name: len(set(files)) for name, files in groups.items()}
    return f"{sizes}, {packages.most_common(12)}"


def require_few(ranks: list[dict[str, set[Path]]], stores: int) -> None:
    """Compare two processes with the limits."""
    first, other = ranks
    assert len(other["code"]) > 60 and len(other["stores"]) > 30, told(other)  # they are seen
    assert len(other["own"]) <= OWN, told(other)
    assert len(first["own"]) <= OWN + LOGS, told(first)
    assert max(len(rank["stores"]) for rank in ranks) <= stores, told(first)


def require_asked(opened: list[Opened], also: set[tuple[str, str]]) -> None:
    """Packages that no process may open, and those that aqnet may ask for before its update."""
    for rank in opened:
        assert not {package_of(path) for path in rank.files} & ABSENT
        asked = {(m, p) for m, p in rank.asked if m.split(".")[0] == "aqnet" and p != "aqnet"}
        asked = {(m, p) for m, p in asked if p not in sys.stdlib_module_names | ASKED}
        assert asked == also


def test_lightning_opens_what_it_did(known):
    packages = Counter(package_of(path) for path in known["lightning"])
    print(len(known["torch"]), packages.most_common(20))
    assert len(known["lightning"]) <= LIGHTNING, packages.most_common(20)


def test_a_process_of_a_gridded_training_opens_few_files(recorded, known, tmp_path):  # noqa: F811
    manifest, folder = recorded
    values = {"preset": "china_small", "lead_times_h": [6, 24], "patch": 4,
              "manifest": str(manifest), "folder": str(folder)}  # fmt: skip
    staged, opened = started(tmp_path, values, FOUR_DAYS)
    ranks = [counted(rank, known, folder, staged) for rank in opened]
    print(*map(told, ranks), sep="\n")
    require_few(ranks, 3 * A_YEAR)
    assert all(len(rank["outside"]) <= OUTSIDE for rank in ranks)
    require_asked(opened, {("aqnet.data.statistics.file", "netCDF4")})


@pytest.mark.slow
def test_a_process_of_the_beijing_preset_opens_few_files(store, known, tmp_path):
    values = {"preset": "beijing", "lead_times_h": [12], "max_train_samples": 64,
              "max_validation_samples": 32, "store": str(store.path)}  # fmt: skip
    staged, opened = started(tmp_path, values)
    ranks = [counted(rank, known, store.path, staged) for rank in opened]
    print(*map(told, ranks), sep="\n")
    require_few(ranks, STATION_STORE)
    require_asked(opened, {("aqnet.data.climatology", "scipy")})
