"""Files that Python processes open: those of `open`, imported libraries, and what is mapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ranks import free_port

# Paths that `open` is asked for (imports and numpy among it), and at the end what is mapped: the
# dynamic linker and C libraries open files without Python. Other processes are not counted.
# `told_so_far` ends the list before the program does.
_WATCH = """
import atexit, builtins, json, os, sys
seen, asked, plain = set(), set(), builtins.__import__
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        seen.add(os.path.abspath(os.fsdecode(arguments[0])))
def ask(name, globals=None, locals=None, fromlist=(), level=0):
    if globals and not level:
        asked.add((str(globals.get("__name__")), name.split(".")[0]))
    return plain(name, globals, locals, fromlist, level)
def told_so_far():
    if os.path.exists({out!r}):
        return
    with open("/proc/self/maps") as maps:
        seen.update(line.split(maxsplit=5)[5].strip() for line in maps if "/" in line)
    told = [sorted(seen), sorted(asked)]
    with open({out!r}, "w") as out:
        json.dump(told, out)
sys.addaudithook(note)
builtins.__import__ = ask
atexit.register(told_so_far)
"""


@dataclass(frozen=True)
class Opened:
    """What a process opened.

    Attributes
    ----------
    files : set of Path
        Regular files that are there at its end.
    asked : set of (str, str)
        A module, and a package that it imports by name, at its top or in a function.
    """

    files: set[Path]
    asked: set[tuple[str, str]]


def opened_by(
    source: str,
    folder: Path,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    ranks: int = 1,
) -> list[Opened]:
    """Run a program in processes as torchrun would start them; `folder` takes what they tell."""
    place = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": 1}
    place |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0}
    folder.mkdir(parents=True, exist_ok=True)
    outs = [folder / f"opened-{rank}.json" for rank in range(ranks)]
    processes = []
    for rank, out in enumerate(outs):
        mine = place | {"RANK": rank, "LOCAL_RANK": rank}
        with (folder / f"said-{rank}.txt").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-B", "-c", _WATCH.format(out=str(out)) + source],
                env=os.environ | {k: str(v) for k, v in mine.items()} | environment,
                cwd=cwd, stdout=said, stderr=said,
            )  # fmt: skip
        processes.append(process)
    try:
        codes = [process.wait(500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join(path.read_text() for path in folder.glob("said-*.txt"))
    return [_read(out) for out in outs]


def _read(out: Path) -> Opened:
    files, asked = json.loads(out.read_text())
    there = {path for path in map(Path, files) if path.is_file()} - {out}
    return Opened(there, {(module, package) for module, package in asked})


def of_interpreter(path: Path) -> bool:
    """Part of the interpreter or the system, its packages left out."""
    system = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/opt")
    places = [*map(Path, system), Path(sys.prefix), Path(sys.base_prefix)]
    return "site-packages" not in path.parts and any(place in path.parents for place in places)


def package_of(path: Path) -> str | None:
    """Name in site-packages; None for files elsewhere."""
    parts = path.parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else None
