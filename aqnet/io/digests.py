"""Digests of files and of plain values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["sha256_file", "sha256_json"]


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(obj: object) -> str:
    """SHA-256 of `obj` as canonical JSON (sorted keys, no spaces, UTF-8, no NaN).

    Raises
    ------
    ValueError
        `obj` holds NaN or infinity.
    TypeError
        `obj` holds something that JSON does not have.
    """
    text = json.dumps(
        obj, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
