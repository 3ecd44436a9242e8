"""The memory that is free on a device."""

import os
from pathlib import Path

import torch

_UNKNOWN = 4 << 30  # where the system does not say


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a device; on a CPU, those of the machine or of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    available = _of_the_machine(Path("/proc/meminfo"))
    limit, used = (_number_in(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else max(1, min(available, limit - used))


def _of_the_machine(meminfo: Path) -> int:
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):  # another system
        if not hasattr(os, "sysconf"):
            return _UNKNOWN
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is no such limit
        return None
