"""The order of a data set's items."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler as IndexSampler
from typing_extensions import override

from tinygpt2._internal.checks import LARGEST_SEED, check_int
from tinygpt2._internal.random import seeded_generator


class EpochSampler(IndexSampler[int]):
    """The order of a data set's items, a pure function of (seed, epoch).

    Each iteration advances to the next epoch, so a plain loop sees a new order each time; ``set_epoch`` chooses an
    epoch. Lightning and accelerate call it, as they do for PyTorch's ``DistributedSampler``.

    Args:
        size: Number of items.
        shuffle: Whether to permute them; otherwise every epoch is 0, 1, 2, ...
        seed: Seed of the permutations.

    >>> sampler = EpochSampler(5, shuffle=True, seed=0)
    >>> first, second = list(sampler), list(sampler)
    >>> sampler.set_epoch(0)
    >>> list(sampler) == first != second
    True
    """

    def __init__(self, size: int, *, shuffle: bool, seed: int) -> None:
        self.size = check_int("size", size)
        self.shuffle = shuffle
        self.seed = check_int("seed", seed, minimum=0, maximum=LARGEST_SEED)
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Sets the epoch of the next iteration, counted from 0, which skips its first ``start`` items."""
        self.epoch = check_int("epoch", epoch, minimum=0)
        self.start = check_int("start", start, minimum=0)

    def __len__(self) -> int:
        return self.size

    @override
    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        start, self.start = self.start, 0
        if not self.shuffle:
            return iter(range(start, self.size))
        order = torch.randperm(self.size, generator=seeded_generator(self.seed, epoch), device="cpu")
        # In pieces: as Python integers, the order of a large corpus would take several times the memory.
        return (i for piece in torch.split(order[start:], 4096) for i in piece.tolist())


class PassSampler(EpochSampler):
    """The same order, of a data set that is different in each epoch: item i of epoch e is ``e * size + i``.

    >>> sampler = PassSampler(3, shuffle=False, seed=0)
    >>> list(sampler), list(sampler)
    ([0, 1, 2], [3, 4, 5])
    """

    @override
    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.size
        return (first + i for i in super().__iter__())
