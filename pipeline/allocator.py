"""How this process's memory is allocated: what training frees is kept for its next step.

glibc gives memory back to the system where much of it is freed, and asks for it again in the next step, page by page:
up to a fifth of a small network's step on a CPU.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST_TENSOR = 1 << 30  # bytes up to which a tensor lies on the heap; larger ones are worth a mapping of their own
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees, so that it holds the most it ever needed; glibc alone can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_TENSOR)
        mallopt(TRIM_THRESHOLD, NEVER)
