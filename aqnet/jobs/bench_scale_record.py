"""What `aqnet bench scale` measured, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aqnet.io import atomic_write_json

__all__ = ["Measured", "Record", "read_record"]


@dataclass(frozen=True)
class Measured:
    """One group of processes.

    Attributes
    ----------
    ranks : int
    gflops : float
        Matrix products of a process alone before the group begins [GFLOP/s]; of one process.
    import_s : float
        From the start of the slowest process to its model [s].
    group_s, first_step_s : float
        Process group; first step [s].
    first_update_s : float
        From the start of all to the end of the first step [s].
    steps_s : tuple of float
        The steps after it [s], of the first process.
    files, own_files : int
        That Python opened before the first update, in all and outside of the environment.
    sum_s, small_sum_s : float
        Sum of a vector of 64 MiB and of one number over the processes, shortest of five [s].
    """

    ranks: int
    gflops: float
    import_s: float
    group_s: float
    first_step_s: float
    first_update_s: float
    steps_s: tuple[float, ...]
    files: int
    own_files: int
    sum_s: float
    small_sum_s: float

    @property
    def step_s(self) -> float:
        """Shortest step [s]: the one that other programs disturbed least."""
        return min(self.steps_s)


@dataclass(frozen=True)
class Record:
    """Measured groups, and where and when."""

    machine: str
    cores: int
    measured_at: str
    groups: tuple[Measured, ...]

    def write(self, path: str | Path) -> None:
        """Write as JSON."""
        atomic_write_json(path, asdict(self))


def read_record(path: str | Path) -> Record:
    """A record that `Record.write` wrote."""
    plain = json.loads(Path(path).read_text())
    groups = [Measured(**g | {"steps_s": tuple(g["steps_s"])}) for g in plain.pop("groups")]
    return Record(**plain, groups=tuple(groups))
