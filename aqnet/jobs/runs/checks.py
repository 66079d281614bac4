"""What one digest of a run came to when it was computed anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "compared", "unchecked"]

Outcome = Literal["ok", "mismatch", "changed", "unchecked"]


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes
    ----------
    name : str
    status : str
        `mismatch`: what the run recorded is not so. `changed`: the run folder is right, but the
        work tree or the environment here is no longer that of the run. `unchecked`: `detail` says
        why.
    detail : str
    """

    name: str
    status: Outcome
    detail: str


def compared(
    name: str, recorded: str, found: str, where: str, other: Outcome = "mismatch"
) -> Check:
    """Compare a digest, or a text of digests; `other` where they differ."""
    if found == recorded:
        return Check(name, "ok", where)
    return Check(name, other, f"{where}: recorded {recorded}, found {found}")


def unchecked(name: str, reason: str) -> Check:
    """Nothing could be computed."""
    return Check(name, "unchecked", reason)
