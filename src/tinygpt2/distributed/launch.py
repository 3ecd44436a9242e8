"""The start of a process among others: what ``torchrun`` has told it, and PyTorch's process group."""

import atexit
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from tinygpt2._internal.devices import choose_device
from tinygpt2.distributed.ranks import ALONE, TIMEOUT, Ranks

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_KNOWN: dict[object, Ranks] = {}  # by process group


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this process is one of several, by its environment or its process group.

    Raises:
        ValueError: If a launcher has set some of the variables that PyTorch needs, but not all.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    size = environment.get("WORLD_SIZE", "1")
    if size in {"", "1"}:
        return False
    if missing := [name for name in _NEEDED if not environment.get(name)]:
        raise ValueError(
            f"WORLD_SIZE is {size}, so this is one of several processes, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; start it with torchrun, or unset WORLD_SIZE"
        )
    for name in ("RANK", "WORLD_SIZE"):
        if not environment[name].isdecimal():
            raise ValueError(f"{name} must be a number, got {environment[name]!r}; start it with torchrun")
    return True


def ranks_here(device: torch.device | str | None = None) -> tuple[Ranks, torch.device]:
    """Returns the processes that train together, of which this is one, and its device.

    The process group is the one there is, or is made for the rest of the process: NCCL for GPUs, gloo for CPUs.

    Args:
        device: As in `choose_device`; of several GPUs, each process has that of its ``LOCAL_RANK``.

    Raises:
        ValueError: If this is one of several processes without what it needs, or two of them have the same GPU, or the
            device is one that PyTorch cannot use from several processes.
    """
    if not launched():
        return ALONE, choose_device(device)
    target = _own_gpu(choose_device(device))
    if target.type not in {"cpu", "cuda"}:
        raise ValueError(
            f"PyTorch trains with several processes on CPUs and on NVIDIA's and AMD's GPUs, not on {target.type}; "
            'pass device="cpu", or start one process'
        )
    store = None if dist.is_initialized() else _begin(target)
    world = dist.group.WORLD
    if world not in _KNOWN:
        atexit.register(_end, world)
        _KNOWN[world] = Ranks(dist.get_rank(), dist.get_world_size(), store=store)
    ranks = _KNOWN[world]
    places = ranks.gathered((platform.node(), str(target)))
    for rank, place in enumerate(places):
        if target.type == "cuda" and places.index(place) != rank:
            raise ValueError(
                f"ranks {places.index(place)} and {rank} have the same GPU, {place[1]} of {place[0]}; start at most as "
                "many processes on a machine as it has GPUs"
            )
    return ranks, target


def sha256_of_code() -> str:
    """Returns the SHA-256 of the library's own files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _own_gpu(device: torch.device) -> torch.device:
    if device.type != "cuda" or device.index is not None:
        return device
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"this is process {index} of its machine, counted from 0, which has {torch.cuda.device_count()} GPUs; "
            "start at most as many processes on a machine as it has GPUs"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _begin(device: torch.device) -> "Store":
    """Makes the process group, and returns the store through which the processes have found each other."""
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415 - some builds of PyTorch have none

    store: Store
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return store


def _end(world: object) -> None:
    """Ends a process group at the end of the process; PyTorch aborts if anything still holds one of gloo's."""
    _KNOWN.pop(world).leave()
