"""Files that each process opens before its first step: a parallel file system pays for each."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml
from notebook_tools import ROOT
from opened_files import in_environment, opened_by
from ranks import free_port
from test_problem import recorded  # noqa: F401  a fixture

from aqnet.jobs.compile import compile_notebook
from aqnet.jobs.stage import stage

LIMIT = 300  # outside of the image, beside what torch opens for itself
VALUES = {"preset": "china_small", "lead_times_h": [6, 24], "patch": 4, "width": 16, "depth": 1}
VALUES |= {"heads": 2, "max_steps": 1, "batch_size": 2, "drop_path": 0.0}
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
# The compiled script; its stores have four days, not a year.
START = """
import runpy
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.years import year_times
GridManifest.times = lambda self, year: year_times(year, 8)[:96]
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
RANK |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
RANK |= {"TORCHELASTIC_RESTART_COUNT": "0", "OMP_NUM_THREADS": "1"}


def test_each_process_opens_few_files(recorded, tmp_path):  # noqa: F811
    manifest, folder = recorded
    run = tmp_path / "run"
    run.mkdir()
    values = VALUES | {"manifest": str(manifest), "folder": str(folder)}
    script = compile_notebook(ROOT / "nbs/train/forecast.ipynb")
    stage(run, ROOT, {"script.py": script, "parameters.yaml": yaml.safe_dump(values)})
    staged = run / "staged"
    subprocess.run([sys.executable, "-m", "compileall", "-q", staged / "aqnet"], check=True)
    argv = [staged / "script.py", "--params", staged / "parameters.yaml"]
    argv += ["--run-dir", tmp_path / "begun"]
    places = {"AQNET_ROOT": str(staged), "PYTHONPATH": str(staged), "MPLBACKEND": "Agg"}
    rank = RANK | {"MASTER_PORT": str(free_port())}
    torch = opened_by(TORCH, tmp_path, rank)
    start = START.format(argv=[str(each) for each in argv])
    found = opened_by(start, tmp_path, rank | places, cwd=staged) - torch

    outside = {path for path in found if not in_environment(path)}
    code = {path for path in outside if staged in path.parents}
    stores = {path for path in outside if folder in path.parents}
    told = f"{len(code)} of code, {len(stores)} of 3 yearly stores, {len(outside)} in all"
    assert len(code) > 100 and len(stores) > 30, told  # they are seen
    assert len(outside) <= LIMIT, f"{told}: {sorted(map(str, outside))}"
    packages = Counter(package_of(path) for path in found - outside)
    print(f"{told}; in the image {sum(packages.values())}: {packages.most_common(20)}")


def package_of(path: Path) -> str:
    """Name of the package in site-packages, or the file itself."""
    parts = path.parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else "others"
