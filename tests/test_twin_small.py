"""The shortest way to a training on fields: the commands of README.md, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from notebook_tools import ROOT

from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.splits import init_times, splits_of
from aqnet.data.twin.recipe import settings_of, twin_config, twin_manifest
from aqnet.jobs.runs import latest_run
from aqnet.training.checkpoint import load_checkpoint
from aqnet.training.experiment import EXPERIMENT_PRESETS

WAY = (
    "aqnet data twin --manifest twin_small --years 2013-2014",
    "aqnet data stats twin_small",
    "aqnet data record twin_small",
    "aqnet run nbs/train/forecast.ipynb -p preset=china_small",
)


def test_the_small_twin_is_the_world_of_the_twin_on_another_grid():
    small, whole = twin_manifest("twin_small"), twin_manifest("twin")
    theirs = settings_of(twin_config(whole)) | {"grid": "china_32x64"}
    assert settings_of(twin_config(small)) == theirs
    assert small.recipe.command == WAY[0] and small.years == (2013, 2014)
    assert EXPERIMENT_PRESETS["china_small"].manifest == "twin_small"
    splits = splits_of(load_manifest(resolve_manifest("twin_small")))
    assert len(init_times(splits["train"], 96, 0)) == 8760 - 96
    assert len(init_times(splits["validation"], 96, 0)) == 181 * 24 - 96


def test_the_readme_shows_it():
    text = re.sub(r" +#.*", "", (ROOT / "README.md").read_text()).replace("$B ", "aqnet ")
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if line in WAY] == list(WAY)


@pytest.mark.slow
def test_the_way_leads_to_a_forecaster_that_has_learned(tmp_path):
    root = tmp_path / "root"
    (root / "data_manifests").mkdir(parents=True)
    for path in (ROOT / "settings.ini", ROOT / "nbs", *(ROOT / "data_manifests").iterdir()):
        if not path.name.endswith(".record.yaml"):  # that of another machine's stores
            (root / path.relative_to(ROOT)).symlink_to(path)
    places = {"AQNET_ROOT": root, "AQNET_DATA": tmp_path / "data", "AQNET_RUNS": tmp_path / "runs"}
    environment = os.environ | {name: str(path) for name, path in places.items()}
    short = " -p max_steps=60 -p max_validation_samples=64 -p validate_every=30"
    for command in (*WAY[:3], WAY[3] + short):
        program = [sys.executable, "-c", "from aqnet.cli import main; main()"]
        done = subprocess.run(
            [*program, *shlex.split(command)[1:]], cwd=root, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    run = latest_run(tmp_path / "runs", "train/forecast")
    curve = run.read_metrics()["curve"]
    assert curve["step"] == [0, 30, 60]
    assert curve["validation"][-1] < 0.95 * curve["validation"][0]
    loaded = load_checkpoint(run.checkpoints / "best.ckpt")
    assert loaded.checkpoint.identity.synthetic and loaded.model.domain.grid.name == "china_32x64"
