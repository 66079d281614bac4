"""Files that a Python process opens: those of `open`, imported libraries, and what is mapped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Paths that `open` is asked for (imports and numpy among it), and at the end what is mapped: the
# dynamic linker and C libraries open files without Python. Other processes are not counted.
_WATCH = """
import atexit, os, sys
seen = set()
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        seen.add(os.path.abspath(os.fsdecode(arguments[0])))
sys.addaudithook(note)
def write():
    with open("/proc/self/maps") as maps:
        seen.update(line.split(maxsplit=5)[5].strip() for line in maps if "/" in line)
    with open({out!r}, "w") as out:
        out.write("\\n".join(sorted(seen)))
atexit.register(write)
"""


def opened_by(
    source: str, folder: Path, environment: Mapping[str, str], cwd: Path | None = None
) -> set[Path]:
    """Regular files that a program opens which exist at its end; `folder` takes the list."""
    out = folder / "opened.txt"
    command = [sys.executable, "-B", "-c", _WATCH.format(out=str(out)) + source]
    done = subprocess.run(
        command, env=os.environ | environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path for path in map(Path, out.read_text().splitlines()) if path.is_file()}


def in_environment(path: Path) -> bool:
    """Part of the interpreter, its packages or the system: in a container, of the image."""
    system = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/opt")
    places = [*map(Path, system), Path(sys.prefix), Path(sys.base_prefix)]
    return any(place in path.parents for place in places)
