"""Preflight: sound jobs pass, hopeless ones are refused with the reason and exit code 2."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from notebook_tools import ROOT
from test_problem import recorded  # noqa: F401  a fixture
from test_profiles import LUMI, SITE

from aqnet.cli.console import Group
from aqnet.cli.preflight import preflight as preflight_command
from aqnet.cli.submit import submit as submit_command
from aqnet.errors import ParameterError
from aqnet.jobs import preflight as module
from aqnet.jobs.checks import Check, attempt
from aqnet.jobs.estimates import (
    Reading,
    check_cost,
    check_host,
    check_loader,
    check_memory,
    check_start,
    check_time,
    read_samples,
)
from aqnet.jobs.preflight import preflight, refuse_hopeless
from aqnet.jobs.profiles import load_profile
from aqnet.jobs.submission import prepare
from aqnet.training.cost import work_of
from aqnet.training.experiment import experiment
from aqnet.training.loop import train
from aqnet.training.problem import open_problem

CACHES = {"physics_ridge": True, "scan_mode": "region", "scan_rank_embedding": True,
          "scan_regions": [4, 4]}  # fmt: skip
NOTEBOOK = "nbs/train/forecast.ipynb"
SMALL = {"preset": "china_small", "lead_times_h": [6, 24], "patch": 4, "width": 16, "depth": 2,
         "heads": 2, "max_steps": 4, "batch_size": 2, "effective_batch": 4, "seed": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The notebook by its relative path; runs in a temporary folder; one thread."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("AQNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(module.shutil, "which", lambda name: None)  # no sbatch
    torch.set_num_threads(1)


@pytest.fixture
def values(recorded):  # noqa: F811
    """Parameters of a training on three recorded years of four days."""
    manifest, folder = recorded
    return SMALL | {"manifest": str(manifest), "folder": str(folder)}


def checks_of(values: dict, **settings: str) -> dict[str, Check]:
    ready = prepare(NOTEBOOK, "cpu", 2, values, settings=SITE | settings)
    return {check.name: check for check in preflight(ready, samples=20)}


def refused(found: dict[str, Check]) -> list[str]:
    return [name for name, check in found.items() if check.status == "refused"]


# ---- data, caches, a checkpoint


def test_a_sound_job_passes(values):
    found = checks_of(values)
    assert refused(found) == []
    assert {"manifest", "stores", "statistics", "wind scan", "terrain"} <= {"manifest", *found}
    assert found["stores"].text.startswith("SYNTHETIC, 3 years, 288 hours")
    assert "training split" in found["statistics"].text
    assert "parameters, " in found["problem"].text and "20 samples in" in found["loader"].text
    # the calendar has more hours than the stores
    assert found["samples"].status in ("passed", "warning")
    # the profile states no figures: it is said, not guessed
    assert found["memory"].status == found["time"].status == "warning"
    assert "does not state" in found["time"].text


def test_what_is_wrong_with_the_data_is_refused_and_ends_the_list(values, tmp_path):
    folder = Path(values["folder"])
    other = tmp_path / "twin"
    other.mkdir()
    for store in folder.glob("*.zarr"):
        (other / store.name).symlink_to(store)
    found = checks_of(values | {"folder": str(other)})
    assert refused(found) == [list(found)[-1]] and "statistics" in found["stores"].text

    content = (folder / "statistics.nc").read_bytes()
    (other / "statistics.nc").write_bytes(content)
    (other / "data_2014_china_32x64_masked.zarr").unlink()
    found = checks_of(values | {"folder": str(other)})
    assert refused(found) == ["stores"] and "2014" in found["stores"].text
    found = checks_of(values | {"folder": str(tmp_path / "nowhere")})
    assert refused(found) == ["stores"]


def test_a_cache_that_is_missing_is_refused_with_its_command(values, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    found = checks_of(values | CACHES)
    assert refused(found) == ["wind scan"]
    assert "aqnet wind-scan build" in found["wind scan"].text
    assert "problem" not in found


def test_a_checkpoint_to_resume_from_must_be_whole_and_of_the_same_run(values, tmp_path):
    plain = {k: v for k, v in values.items() if k != "preset"}
    chosen = experiment(values["preset"], **plain)
    train(open_problem(chosen), chosen.training.model_copy(update={"max_steps": 2}),
          tmp_path / "other", echo=lambda line: None)  # fmt: skip
    last = tmp_path / "other" / "last.ckpt"
    found = checks_of(values | {"resume": str(last)})
    assert refused(found) == ["resume"] and "steps" in found["resume"].text

    found = checks_of(values | {"resume": str(last), "max_steps": 2})
    assert "nothing is left to train" in found["resume"].text
    found = checks_of(values | {"resume": str(last), "max_steps": 2, "width": 24})
    assert refused(found) == ["resume"] and "width" in found["resume"].text

    found = checks_of(values | {"parent": str(last)})
    assert refused(found) == [] and found["parent"].status == "passed"
    found = checks_of(values | {"parent": str(last), "dropout": 0.3})
    assert "dropout" in found["parent"].text and found["parent"].status == "warning"
    assert refused(checks_of(values | {"parent": str(last), "width": 24})) == ["parent"]
    last.write_bytes(last.read_bytes()[:-100])
    (last.parent / "last-previous.ckpt").unlink(missing_ok=True)
    found = checks_of(values | {"resume": str(last), "max_steps": 2})
    assert refused(found) == ["resume"]
    assert checks_of(values | {"resume": "auto"})["resume"].status == "passed"


# ---- memory


def job(profile: str = "lumi", gpus: int = 400, **changes: object) -> SimpleNamespace:
    """What the estimates read of a job."""
    settings = (LUMI if profile == "lumi" else SITE) | changes.pop("settings", {})
    chosen = load_profile(profile).given(settings)
    size = SimpleNamespace(gpus=gpus, tasks_per_node=8, seconds=3600, clock="01:00:00",
                           rehearsal=False)  # fmt: skip
    vars(size).update({k: changes.pop(k) for k in list(changes) if hasattr(size, k)})
    return SimpleNamespace(profile=chosen, size=size, resumable=True, **changes)


@pytest.fixture(scope="module")
def small():
    """Work and settings of the small network at full grid."""
    chosen = experiment("china_small", manifest="twin")
    return work_of(chosen), chosen.training


def test_memory_is_compared_with_that_of_the_gpu(small):
    work, training = small
    total = work.memory(training.batch_size, training.precision).total / 1e9
    for memory, status in [
        (total * 2, "passed"),
        (total * 1.05, "warning"),
        (total * 0.9, "refused"),
    ]:
        found = check_memory(work, training, job(settings={"gpu_memory_gb": f"{memory:.6f}"}))
        assert found.status == status, found
    assert check_memory(work, training, job("cpu")).status == "warning"
    more = check_memory(work, training.model_copy(update={"batch_size": 64}), job())
    assert float(more.text.split("\n")[1].split()[0]) > 4 * total


def test_readers_count_as_memory_of_the_node(small):
    work, training = small
    reading, many = Reading(100, 1.0, 10**9), training.model_copy(update={"workers": 7})
    assert check_host(reading, work, training, job()).status == "passed"
    assert check_host(replace(reading, resident=8 * 10**9), work, many, job()).status == "refused"


def test_activations_that_are_not_stored_take_no_memory_of_a_node_of_cpus(small):
    work, training = small
    told = [
        check_host(Reading(100, 1.0, 10**9), work, training.model_copy(
            update={"batch_size": 64, "activation_checkpointing": checkpointing}), job("cpu")).text
        for checkpointing in (False, True)
    ]  # fmt: skip
    whole, less = (float(text.split()[0]) for text in told)
    assert less < whole


# ---- the loader


class Slow(torch.utils.data.Dataset):
    """Samples that take a while."""

    seconds = 0.002

    def __len__(self) -> int:
        return 50

    def __getitems__(self, numbers):
        time.sleep(self.seconds * len(numbers))
        return {"n": torch.tensor(numbers)}


def test_samples_are_read_in_whole_batches_and_the_first_is_not_counted():
    assert read_samples(Slow(), 8, 20).samples == 16
    assert read_samples(Slow(), 8, 1000).samples == 40
    assert read_samples(Slow(), 50, 100).samples == 50
    assert read_samples(Slow(), 90, 100).samples == 50  # fewer than a batch
    assert 100 < read_samples(Slow(), 8, 40).rate < 500


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4), st.integers(0, 16))
def test_what_a_rank_is_fed(rate, needed, workers):
    share = Reading(100, 100 / rate, 0).fed(workers, needed)
    assert 0 < share <= 1
    if workers:
        assert share == pytest.approx(min(1, workers * rate / needed))
    else:  # it reads, then trains: half of the time each at the same speed
        assert (share < 0.5) == (rate < needed) or rate == pytest.approx(needed)


@pytest.mark.parametrize(
    ("rate", "workers", "status"),
    [(1.0, 4, "passed"), (0.8, 4, "warning"), (0.4, 4, "refused"), (1.0, 100, "passed"),
     (0.25, 100, "refused")],  # of 100 workers the 7 cores of a rank
)  # fmt: skip
def test_a_loader_that_cannot_feed_half_is_refused(small, rate, workers, status):
    training = small[1].model_copy(update={"workers": workers})
    plan = SimpleNamespace(batch_size=2, passes=2)  # 4 samples a second
    found = check_loader(Reading(100, 100 / rate, 0), training, plan, job(), 1.0)
    assert found.status == status, found
    assert check_loader(Reading(1, 1, 0), training, plan, job(), None).status == "warning"


# ---- time and cost


@dataclass(frozen=True)
class Predicted:
    step_s: float = 2.0
    efficiency: float = 0.9
    epoch_s: float = 100.0
    hours: float = 0.5
    gpu_hours: float = 200.0
    first_update_s: float = 100.0


PLAN = SimpleNamespace(steps=900)


@pytest.mark.parametrize(
    ("hours", "changes", "status"),
    [
        (0.5, {}, "passed"),
        (8.0, {}, "warning"),
        (8.9, {}, "refused"),  # 11 jobs of 1 h less 600 s for the stop and 100 s for the start
        (8.0, {"rehearsal": True}, "refused"),
        (8.0, {"resumable": False}, "refused"),
    ],
)
def test_a_run_that_cannot_end_is_refused(hours, changes, status):
    resumable = changes.pop("resumable", True)
    asked = job(**changes)
    asked.resumable = resumable
    found = check_time(Predicted(hours=hours), PLAN, asked)
    assert found.status == status, found


def test_a_job_too_short_for_a_step_is_refused():
    found = check_time(Predicted(step_s=4000.0), PLAN, job())
    assert found.status == "refused" and "not one step" in found.text


def test_cost_is_compared_with_the_allocation():
    assert check_cost(Predicted(), job()).status == "passed"
    for left, status in [("101", "passed"), ("99", "refused")]:  # billed by half
        found = check_cost(Predicted(), job(settings={"allocation_gpu_hours": left}))
        assert found.status == status and "billed as 100.0" in found.text
    assert check_start(Predicted(first_update_s=200)).status == "warning"
    assert check_start(Predicted()).status == "passed"


# ---- commands


def invoke(*arguments: str):
    group = Group("aqnet")
    for command in (preflight_command, submit_command):
        group.add_command(command)
    sized = [f"--set={name}={value}" for name, value in SITE.items()]
    command, *others = arguments
    base = [command, NOTEBOOK, "--profile", "cpu", "--gpus", "2"]
    return CliRunner().invoke(group, [*base, *sized, *others])


def given_as(values: dict) -> list[str]:
    return [part for name, value in values.items() for part in ("-p", f"{name}={value}")]


def test_the_command_lists_the_checks(values):
    found = invoke("preflight", *given_as(values), "--samples", "10")
    assert found.exit_code == 0, found.output
    lines = [line.split()[1] for line in found.output.splitlines() if line.startswith("passed")]
    assert {"parameters", "image", "stores", "statistics", "resume", "room"} <= set(lines)


def test_a_hopeless_job_ends_with_code_2_and_is_not_submitted(values, tmp_path):
    arguments = [*given_as(values), "--set=gpu_memory_gb=0.001"]
    for command in ("preflight", "submit"):
        found = invoke(command, *arguments)
        assert found.exit_code == 2 and "this job is hopeless" in found.output
        assert "memory:" in found.output
    assert not (tmp_path / "runs").exists()
    skipped = invoke("submit", *arguments, "--no-preflight", "--dry-run")
    assert skipped.exit_code == 0 and "passed" not in skipped.output


def test_a_long_warm_up_is_refused(values):
    found = invoke("preflight", *given_as(values | {"warmup_steps": 3}))
    assert found.exit_code == 2 and "longer than a tenth" in found.output


def test_an_image_that_is_not_there_is_refused(values):
    settings = LUMI | {"image": "/nowhere/aqnet.sif"}
    ready = prepare(NOTEBOOK, "lumi", 8, values | {"effective_batch": 16}, settings=settings)
    found = next(check for check in preflight(ready) if check.name == "image")
    assert found.status == "refused" and "/nowhere/aqnet.sif does not exist" in found.text


def test_with_all_figures_stated_time_and_cost_are_predicted(values, tmp_path):
    image = tmp_path / "aqnet.sif"
    image.write_bytes(b"image")
    settings = LUMI | {"image": str(image), "allocation_gpu_hours": "1000"}
    ready = prepare(NOTEBOOK, "lumi", 8, values | {"effective_batch": 16}, settings=settings)
    found = {check.name: check for check in preflight(ready, samples=20)}
    # a GPU trains this toy faster than one process reads for it
    assert refused(found) == ["loader"] and "cannot feed half" in found["loader"].text
    assert found["image"].text.startswith(str(image))
    assert {"loader", "time", "cost", "start"} <= set(found)
    assert "fed to" in found["loader"].text and "1 job of 24:00:00" in found["time"].text
    assert "of 1,000.0 that are left" in found["cost"].text


def test_the_time_of_a_judgement_is_that_of_the_samples_that_are_judged(values, monkeypatch):
    asked = []
    predicted = module.predict
    monkeypatch.setattr(
        module, "predict", lambda *given: asked.append(given[-1]) or predicted(*given)
    )
    given = values | {"effective_batch": 16, "max_validation_samples": 5}
    ready = prepare(NOTEBOOK, "lumi", 8, given, settings=LUMI)
    list(preflight(ready, samples=20))
    assert asked == [5]


def test_the_queue_is_told_in_hours(monkeypatch):
    answers = ["sbatch: Job 7 to start at 2026-03-01T15:30:00 using 16 processors", "odd", None]
    monkeypatch.setattr(module, "dry_submit", lambda submission: answers.pop(0))
    at = datetime(2026, 3, 1, 12, 0)
    assert "in 3.5 h" in module.check_queue(None, at).text
    assert module.check_queue(None, at).text == "odd"
    assert module.check_queue(None, at).status == "warning"


def test_refusing():
    good = [Check("a", "passed", "x"), Check("b", "warning", "y")]
    refuse_hopeless(good)
    with pytest.raises(ParameterError, match="c: z"):
        refuse_hopeless([*good, Check("c", "refused", "z\nmore")])

    def fails():
        raise ParameterError("no")

    assert attempt("d", fails) == Check("d", "refused", "no")
