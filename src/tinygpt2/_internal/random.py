"""Seeds, separate generators, and PyTorch's global random states."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def seeded_generator(*seeds: int) -> torch.Generator:
    """Returns a generator on the CPU, seeded with all ``seeds``, each of any size."""
    return torch.Generator().manual_seed(mixed_seed(*seeds))


def numpy_generator(*seeds: int) -> np.random.Generator:
    """Returns a generator of NumPy's, seeded with all ``seeds``, each of any size."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))


def mixed_seed(*seeds: int) -> int:
    """Returns one seed, of at most 63 bits, that differs when any of ``seeds`` does."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1


def seed_everywhere(device: torch.device, seed: int) -> None:
    """Seeds PyTorch's global random numbers on the CPU and on a device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Returns PyTorch's global random states of the CPU and of a device, by the kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Restores what `random_states` returned; ignores the states of other kinds of devices.

    Raises:
        RuntimeError: If a state is invalid.
        TypeError: Likewise.
    """
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Restores the global random states at the end of the block."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(device, states)
