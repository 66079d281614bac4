"""For commands that start processes: the code these import, and stop signals while they run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aqnet

__all__ = ["noting_stop_signals", "python_path"]

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def python_path() -> str:
    """PYTHONPATH for a process that is to import this very package, wherever it starts."""
    package_parent = str(Path(aqnet.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))


@contextmanager
def noting_stop_signals() -> Iterator[list[int]]:
    """Collect stop signals instead of acting on them. nohup's ignored hang-up stays ignored."""
    received: list[int] = []
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    numbers = [n for n in _STOPPING if n != signal.SIGHUP or not ignored]
    before = {n: signal.signal(n, lambda n, _frame: received.append(n)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
