"""One check of a job that has not started: passed, a warning, or a reason to refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aqnet.errors import AqnetError

__all__ = ["Check", "Status", "attempt"]

Status = Literal["passed", "warning", "refused"]


@dataclass(frozen=True)
class Check:
    """Outcome of one check; `text` holds the numbers, or the reason."""

    name: str
    status: Status
    text: str

    def __str__(self) -> str:
        first, *more = self.text.splitlines()
        lines = [f"{self.status:8} {self.name:12} {first}", *(" " * 22 + line for line in more)]
        return "\n".join(lines)


def attempt(name: str, look: Callable[[], tuple[Status, str]]) -> Check:
    """A check by a function that returns status and text, or raises why it refuses."""
    try:
        return Check(name, *look())
    except AqnetError as error:
        return Check(name, "refused", str(error))
