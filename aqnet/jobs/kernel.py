"""A Jupyter kernel of this interpreter that can be signalled, whatever kernels are installed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

__all__ = ["Kernel", "kernel_class"]


class Kernel(AsyncKernelManager):
    """Kernel of this interpreter, which notes itself in `started` so that it can be signalled."""

    started: list[Kernel]
    environment: dict[str, str]

    @property
    def kernel_spec(self) -> KernelSpec:
        """That of `sys.executable`."""
        return KernelSpec(**get_kernel_dict())

    async def start_kernel(self, **options: object) -> None:
        """Start it with `environment` on top of what is asked for."""
        # jupyter_client before 8.9 has no encryption of the local sockets
        if self.has_trait("transport_encryption") and zmq.has("curve"):
            self.transport_encryption = "auto"
        environment = dict(options.pop("env", None) or os.environ)
        await super().start_kernel(env=environment | self.environment, **options)
        self.started.append(self)

    def signal_group(self, number: int) -> None:
        """Signal the kernel and its workers (jupyter starts it as leader of a session)."""
        process = getattr(self.provisioner, "process", None)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)


def kernel_class(environment: Mapping[str, str]) -> type[Kernel]:
    """Class of kernels of one run.

    Parameters
    ----------
    environment : mapping
        What they see besides the environment of this process.
    """
    return type("Kernel", (Kernel,), {"started": [], "environment": dict(environment)})
