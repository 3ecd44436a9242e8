"""Settings of PyTorch and the C library that make training on a CPU faster."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST = (1 << 31) - 1  # the largest int

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
    """Lets oneDNN multiply fp32 matrices within the block, on processors where MKL is slower.

    PyTorch multiplies with MKL, which on AMD's processors uses only AVX2. oneDNN, which PyTorch also ships, uses
    AVX-512: on Zen 5 it is twice as fast, and on Zen 4 a tenth, but twice on few rows, which MKL multiplies badly.
    PyTorch uses it for fp32 matrix multiplications only where it may round to bf16, which oneDNN does only on
    processors with Intel's matrix unit (AMX): here the results stay fp32, as a test checks. ``TINYGPT2_ONEDNN=0`` in
    the environment, or a precision set by the user, leaves matrix multiplications to MKL.

    Source: PyTorch's "Numerical accuracy", oneDNN's "Primitive attributes: floating-point math mode".
    """
    if os.environ.get(ONEDNN) == "0" or not _mkl_is_slow(Path("/proc/cpuinfo")):
        yield
        return
    with _precision.held():
        yield


@contextmanager
def fast_rows(dtype: torch.dtype) -> Iterator[None]:
    """Lets PyTorch itself multiply a single bf16 row by matrices within the block, where oneDNN is slower.

    On AMD's processors with AVX-512, oneDNN reads a bf16 matrix at a third of the memory's rate for a single row.
    PyTorch's own function, which sums in fp32 as well, uses all of it.
    """
    if dtype != torch.bfloat16 or not _mkl_is_slow(Path("/proc/cpuinfo")):
        yield
        return
    with _enabled.held():
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Lets PyTorch use that many threads within the block; ``None`` for as many as before."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Setting:
    """A setting of PyTorch's that threads share: the first to need another value sets it, the last restores it.

    Args:
        read: Returns the value.
        write: Sets it.
        usual: The value that is changed; a user's own is left alone.
        other: What it becomes.
    """

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], None], usual: object, other: object) -> None:
        self._read, self._write, self._usual, self._other = read, write, usual, other
        self._lock = threading.Lock()
        self._holders = 0
        self._before = usual

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the value the other one within the block."""
        with self._lock:
            if not self._holders:
                self._before = self._read()
                if self._before == self._usual:
                    self._write(self._other)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._write(self._before)


def _set_precision(value: str) -> None:
    _matmul().fp32_precision = value


def _matmul() -> Any:  # noqa: ANN401 - untyped settings
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.matmul


_precision = _Setting(lambda: _matmul().fp32_precision, _set_precision, "none", "bf16")
_enabled = _Setting(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, usual=True, other=False)  # noqa: SLF001 - torch.backends.mkldnn.flags sets more


@cache
def _mkl_is_slow(cpuinfo: Path) -> bool:
    """Returns whether the processor is one of AMD's with AVX-512, from Zen 4 on, and without AMX."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:  # not Linux
        return False
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = facts.get("flags", "").split()
    return (
        facts.get("vendor_id") == "AuthenticAMD"
        and "avx512f" in flags
        and not any(flag.startswith("amx") for flag in flags)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )
