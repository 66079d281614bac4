"""Every random number of a training comes from one seed and from where it is used."""

from __future__ import annotations

import hashlib

__all__ = ["derive"]


def derive(seed: int, purpose: str, *place: int) -> int:
    """Seed for one purpose at one place: a pure function, the same on every machine.

    Parameters
    ----------
    seed : int
        The one seed of the run.
    purpose : str
        For example "model", "order", "noise", "workers".
    place : int
        Where: step, pass and rank for "noise"; epoch and rank for "workers".

    Returns
    -------
    int
        0 to 2**63 - 1: the first bits of a SHA-256. Neighbouring arguments give unrelated seeds,
        which sums such as seed + rank do not.
    """
    text = " ".join([str(int(seed)), purpose, *(str(int(number)) for number in place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
