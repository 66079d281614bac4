"""A process of its own for tests that kill it or take its room, and what it left."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(code: str, *arguments: object) -> subprocess.Popen:
    """Run code in a fresh process that takes SIGINT even if the test runner ignores it."""
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", program + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
