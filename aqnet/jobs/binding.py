"""Check that each process of a node runs beside its GPU: `srun ... python -m aqnet.jobs.binding`.

Arguments: the NUMA node that GPU 0, 1, ... is expected at; none compares cores and GPU only. Every
process prints one line, and ends with code 1 if something is not as it should be.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from aqnet.errors import RunError, explain

__all__ = ["check_binding", "cpu_list", "gpu_address", "main", "nodes_of"]


def cpu_list(text: str) -> set[int]:
    """CPUs of a list as Linux writes it, such as `48-55,112`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def nodes_of(cpus: set[int], sysfs: Path) -> set[int]:
    """NUMA nodes of some CPUs."""
    folders = (sysfs / "devices/system/node").glob("node[0-9]*")
    return {
        int(folder.name.removeprefix("node"))
        for folder in folders
        if cpus & cpu_list((folder / "cpulist").read_text())
    }


def gpu_address(number: int) -> str:
    """Address of a GPU on the PCI bus, as in `/sys/bus/pci/devices`."""
    import torch  # slow to import, and not needed to check a table

    found = torch.cuda.get_device_properties(number)
    return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"


def check_binding(
    local_rank: int,
    cpus: set[int],
    address: str,
    expected: Sequence[int] = (),
    sysfs: Path = Path("/sys"),
) -> str:
    """One line that says where a process and its GPU are.

    Parameters
    ----------
    local_rank : int
        Of the process on its node, and number of its GPU.
    cpus : set of int
        That the process may run on.
    address : str
        Of the GPU on the PCI bus.
    expected : sequence of int
        NUMA node by number of the GPU; empty: any.

    Raises
    ------
    RunError
        They are on different NUMA nodes, or not on the expected one.
    """
    gpu = int((sysfs / "bus/pci/devices" / address / "numa_node").read_text())
    found = nodes_of(cpus, sysfs)
    wanted = expected[local_rank] if expected else gpu
    line = (
        f"{socket.gethostname()}, local rank {local_rank}: {len(cpus)} CPUs on NUMA node "
        f"{','.join(map(str, sorted(found)))}; GPU {address} on NUMA node {gpu}"
    )
    if gpu == wanted and found == {gpu}:
        return line
    raise RunError(explain(
        "a process is not bound to cores beside its GPU", expected=f"both on NUMA node {wanted}",
        found=line, remedy="correct cpu_masks and gpu_numa of the profile",
    ))  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this process; returns the exit code."""
    expected = [int(text) for text in (sys.argv[1:] if arguments is None else arguments)]
    rank = int(os.environ["SLURM_LOCALID"])
    try:
        print(check_binding(rank, os.sched_getaffinity(0), gpu_address(rank), expected), flush=True)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
