"""glibc's allocator, told to keep the memory that training will need again a moment later."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST = (1 << 31) - 1  # what an int holds

_state = {"kept": False}

SWITCH = "TINYGPT2_KEEP_MEMORY"


def keep_memory() -> bool:
    """Makes glibc keep freed blocks of any size for the process; returns whether it was glibc, and was not told not to.

    By default glibc gives each large block back to the system when it is freed and asks for it anew, and the kernel
    zeroes its pages each time. A training step on the CPU frees and asks for the same large blocks again and again. The
    setting holds for the whole process and cannot be read back; ``TINYGPT2_KEEP_MEMORY=0`` in the environment leaves
    the allocator as it is.

    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux") or os.environ.get(SWITCH) == "0":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # another libc, musl for instance
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST))
    _state["kept"] = [libc.mallopt(name, value) for name, value in settings] == [1, 1, 1]
    return _state["kept"]


def memory_is_kept() -> bool:
    """Returns whether `keep_memory` was called in this process and took effect."""
    return _state["kept"]
