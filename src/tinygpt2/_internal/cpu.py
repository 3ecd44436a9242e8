"""Settings of PyTorch and the C library that make training on a CPU faster."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST = (1 << 31) - 1  # the largest int

_ZEN_5 = 26  # the number of the family at AMD

KEEP_MEMORY = "TINYGPT2_KEEP_MEMORY"
ONEDNN = "TINYGPT2_ONEDNN"


def keep_memory() -> None:
    """Makes glibc keep freed blocks of any size for the process, unless the environment forbids it.

    By default glibc returns each large block to the system when it is freed and requests it again later, and the kernel
    zeroes its pages each time. A training step on the CPU frees and allocates the same large blocks repeatedly. The
    setting applies to the whole process and cannot be read back; ``TINYGPT2_KEEP_MEMORY=0`` in the environment leaves
    the allocator unchanged.

    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux") or os.environ.get(KEEP_MEMORY) == "0":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):  # other C libraries, musl for instance, differ
        for name, value in ((_M_MMAP_THRESHOLD, _LARGEST), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST)):
            libc.mallopt(name, value)


@contextmanager
def fast_products() -> Iterator[None]:
    """Lets oneDNN multiply fp32 matrices within the block, on processors where MKL uses half of the vector unit.

    PyTorch multiplies with MKL, which on AMD's Zen 5 uses only AVX2. oneDNN, which PyTorch also ships, uses AVX-512 and
    is twice as fast. PyTorch uses it for fp32 matrix multiplications only where it may round to bf16, which oneDNN does
    only on processors with Intel's matrix unit (AMX): here the results stay fp32, as a test checks.
    ``TINYGPT2_ONEDNN=0`` in the environment, or a precision set by the user, leaves matrix multiplications to MKL.

    Source: PyTorch's "Numerical accuracy", oneDNN's "Primitive attributes: floating-point math mode".
    """
    if os.environ.get(ONEDNN) == "0" or not _mkl_is_slow(Path("/proc/cpuinfo")):
        yield
        return
    with _precision.lock:  # threads share the setting: the first to enter makes it, the last to leave undoes it
        if not _precision.holders:
            _precision.before = _matmul().fp32_precision
            if _precision.before == "none":
                _matmul().fp32_precision = "bf16"
        _precision.holders += 1
    try:
        yield
    finally:
        with _precision.lock:
            _precision.holders -= 1
            if not _precision.holders:
                _matmul().fp32_precision = _precision.before


class _Precision:
    """oneDNN's precision before tinygpt2 changed it, and the number of blocks that need the change."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.before = "none"


_precision = _Precision()


def _matmul() -> Any:  # noqa: ANN401 - untyped settings
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.matmul


@cache
def _mkl_is_slow(cpuinfo: Path) -> bool:
    """Returns whether the processor is an AMD Zen 5 or later, with AVX-512 and without AMX."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:  # not Linux
        return False
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = facts.get("flags", "").split()
    return (
        facts.get("vendor_id") == "AuthenticAMD"
        and int(facts.get("cpu family", 0)) >= _ZEN_5
        and "avx512f" in flags
        and not any(flag.startswith("amx") for flag in flags)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )
