"""Memory that a training on a processor has freed."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["KEPT_BYTES", "LARGE_BYTES", "set_heap_limits"]

LARGE_BYTES = 32 * 2**20  # the most that every glibc takes
KEPT_BYTES = 2**30  # at the end of the heap
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # mallopt(3)


def set_heap_limits() -> None:
    """Keep freed blocks of up to 32 MB for the next ones, give larger ones back; glibc only.

    A training step at full size makes hundreds of tensors of 25 MB. By itself glibc gives the end
    of its heap back whenever 64 MB of it are free, and the next step takes it anew, page by page.
    To give back each such tensor, too, needed 2.8 GB instead of 3.9, and a tenth more time, in a
    virtual machine, where a new page is dear.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        # to set one limit fixes the other at 128 kB, and each freed block would go back
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
