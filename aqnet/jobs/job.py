"""What a job script is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aqnet.jobs.profiles import Profile
from aqnet.jobs.scale import Size

__all__ = ["JOB_FILE", "Array", "Element", "Job", "Summary"]

JOB_FILE = "job.sbatch"  # in the run folder


@dataclass(frozen=True)
class Element:
    """One job of an array: name of its run folder, and SHA-256 of its `parameters.yaml`."""

    run: str
    parameters_sha256: str


@dataclass(frozen=True)
class Array:
    """Jobs that differ in their run folders and parameters only.

    Attributes
    ----------
    elements : tuple of Element
        In the order of SLURM_ARRAY_TASK_ID, from 0.
    throttle : int or None
        How many run at once; None: as many as SLURM lets.
    code : Path
        Folder that holds the one `staged/` of all.
    script : str
        File in `staged/`, of a name without special characters.
    """

    elements: tuple[Element, ...]
    throttle: int | None
    code: Path
    script: str

    @property
    def indices(self) -> str:
        """Value of sbatch's `--array`."""
        most = "" if self.throttle is None else f"%{self.throttle}"
        return f"0-{len(self.elements) - 1}{most}"


@dataclass(frozen=True)
class Summary:
    """What the element that completes a sweep submits.

    Attributes
    ----------
    sweep : Path
        Folder of the sweep.
    run : str
        Name of the summary's run folder.
    script : Path
        Its job script.
    """

    sweep: Path
    run: str
    script: Path


@dataclass(frozen=True)
class Job:
    """What a job script is made from.

    Attributes
    ----------
    name : str
    run : Path
        Absolute path of the run folder, which holds `staged/` (aqnet.jobs.stage); of an array
        the folder of its job script, with the run folders below `runs`.
    profile : Profile
    size : Size
    python : str
        Interpreter, in the container if there is one.
    data, runs, root : Path
        Folders of the data, of the runs, and the repository; the last for relative paths in
        parameters.
    resumable : bool
        The notebook has a parameter `resume`.
    follow_up : Path or None
        Job script to submit when this one ends well; of an array for the same element.
    array : Array or None
    summary : Summary or None
        Of an array whose elements may be the last of a sweep.
    gradient_mb : float or None
        Gradients of a process [MB], for the check of the network in a rehearsal.
    """

    name: str
    run: Path
    profile: Profile
    size: Size
    python: str
    data: Path
    runs: Path
    root: Path
    resumable: bool
    follow_up: Path | None = None
    array: Array | None = None
    summary: Summary | None = None
    gradient_mb: float | None = None
