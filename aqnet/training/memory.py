"""Memory that a training on a processor has freed."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["LARGE_BYTES", "return_freed_memory"]

LARGE_BYTES = 16 * 2**20
KEPT_BYTES = 2**30  # at the end of the heap, of smaller blocks
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)


def return_freed_memory() -> None:
    """Let the C library give large blocks back when they are freed; glibc only.

    By itself glibc raises its limit for such blocks to 32 MB as soon as one was freed, and takes
    smaller ones from a heap that fragments: a training step at full size, whose tensors are of 25
    MB, reached 5.1 GB, and 3.1 GB with this.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        # to set one limit fixes the other at 128 kB, and each freed block would go back
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
