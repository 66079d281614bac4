"""A copy of what a process prints, in the log of its start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

__all__ = ["copy_output", "end_copy"]


class _Copied:
    """A stream that writes to a log, too; in all else it is the stream."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self.stream, self.log = stream, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def copy_output(path: Path) -> None:
    """From now on write what Python prints to a file, too; instead of the last one, if any."""
    end_copy()
    path.parent.mkdir(parents=True, exist_ok=True)
    # by lines, so that a process forked later inherits no text to write a second time
    log = path.open("a", encoding="utf-8", buffering=1)
    sys.stdout, sys.stderr = _Copied(sys.stdout, log), _Copied(sys.stderr, log)


def end_copy() -> None:
    """Write to the streams alone again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Copied):
            setattr(sys, name, stream.stream)
            stream.log.close()
