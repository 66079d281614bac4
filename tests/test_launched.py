"""Who is a rank: processes of torchrun and of srun, and not a Python that a job script calls."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch

from aqnet.errors import ParameterError
from aqnet.launch import Launch, this_launch
from aqnet.training import processes
from aqnet.training.config import TrainingConfig
from aqnet.training.processes import _launched, open_fabric

# What sbatch gives a job script of 2 nodes x 2 tasks; what srun adds (SLURM 22.05).
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash", "SLURM_NNODES": "2", "SLURM_NTASKS": "4"}
JOB |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"TORCHELASTIC_RUN_ID": "x"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No variables of a launcher."""
    for name in (*JOB, *STEP, *TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_python_in_a_job_script_is_alone(nowhere):
    for name, value in JOB.items():
        nowhere.setenv(name, value)
    assert this_launch() == Launch() and _launched() is None


@pytest.mark.parametrize("job", [JOB, {k: v for k, v in JOB.items() if k != "SLURM_NTASKS"}])
def test_a_python_in_the_shell_of_salloc_is_alone(nowhere, job):
    """With `use_interactive_step` that shell is a step, whose number is reserved."""
    for name, value in (job | STEP | {"SLURM_STEP_ID": "4294967290"}).items():
        nowhere.setenv(name, value)
    assert this_launch() == Launch() and _launched() is None


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "neither torchrun nor srun"),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}, "no LOCAL_RANK"),
        (STEP | {"SLURM_NTASKS": "4"}, "no SLURM_NNODES"),
        (JOB | STEP | {"SLURM_NTASKS": "5"}, "5 processes, not the same number"),
        (TORCHRUN | {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "4"}, "6 processes, 4 on this node"),
    ],
)
def test_what_is_no_launch_is_refused_in_words(nowhere, variables, words):
    """Each process would take itself for the only one, or for one of another number."""
    for name, value in variables.items():
        nowhere.setenv(name, value)
    with pytest.raises(ParameterError, match=words):
        this_launch()


def test_one_process_of_something_else_is_alone(nowhere):
    nowhere.setenv("RANK", "0")
    nowhere.setenv("WORLD_SIZE", "1")
    assert this_launch() == Launch()


def test_a_task_of_srun_is_a_rank_whatever_the_job_is_called(nowhere):
    for name, value in (JOB | STEP).items():
        nowhere.setenv(name, value)
    assert this_launch() == Launch("srun", 3, 4, 1, 2)
    environment, devices, nodes = _launched()
    assert (devices, nodes) == (2, 2) and environment.global_rank() == 3
    nowhere.setenv("SLURM_NTASKS", "1")  # srun -n1
    assert _launched() is None


def test_torchrun_goes_first(nowhere):
    for name, value in (JOB | STEP | TORCHRUN).items():
        nowhere.setenv(name, value)
    assert this_launch() == Launch("torchrun", 5, 6, 1, 2)
    assert _launched()[1:] == (2, 3)


def test_collectives_have_the_timeout_of_the_settings(nowhere):
    """It is that of the DDP strategy: a library's own default would be another."""
    seen: dict = {}

    class Launched:
        device = torch.device("cuda")

        def __init__(self, **options: object) -> None:
            seen.update(options)

        def launch(self) -> None:
            pass

    nowhere.setattr(processes, "Fabric", Launched)
    for name, value in (JOB | STEP).items():
        nowhere.setenv(name, value)
    open_fabric(TrainingConfig(collective_timeout_minutes=7))
    assert seen["strategy"]._timeout == timedelta(minutes=7)
    assert (seen["devices"], seen["num_nodes"]) == (2, 2)
