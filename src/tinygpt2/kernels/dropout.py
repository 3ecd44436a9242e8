"""Dropout that, on a CPU, uses all threads and a quarter of a random number per element."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2.kernels.switch import usable

_LEVELS = 2**16  # a quarter of a 64-bit random number decides on each element


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` that calls `dropout`.

    Attributes:
        seed: Seed of its random numbers on a CPU; each call draws the same ones until it changes. ``None`` for
            PyTorch's global ones.
    """

    seed: int | None = None

    @property
    def usable_seed(self) -> int | None:
        """The seed, where it can be used: compiled code would be recompiled for each seed."""
        return None if torch.compiler.is_compiling() else self.seed

    @override
    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, seed=self.usable_seed) if self.training else input


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, seed: int | None = None) -> Tensor:  # noqa: A002 - the twin's
    """Returns `torch.nn.functional.dropout`: zeroes elements with probability ``p`` and scales others by 1 / (1 - p).

    On a CPU ``p`` is rounded to a multiple of 1 / 65536, and the others are scaled by the rounded value.

    Args:
        input: Any shape, floating point.
        p: From 0 to 1.
        training: Whether to drop anything.
        seed: Seed of the kernel's random numbers; ``None`` for PyTorch's global ones.

    Source: Srivastava et al. 2014.
    """
    if not (training and 0 <= p < 1 and input.device.type == "cpu" and usable("dropout", input)):
        return F.dropout(input, p, training)
    kept = round((1 - p) * _LEVELS)
    if kept == _LEVELS:
        return input
    # PyTorch's bernoulli_ draws a number from the Mersenne Twister for each element, on one thread except on Intel
    # processors. Here one draw serves four elements, and the remaining work uses vector instructions and all threads.
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    draws = torch.empty((input.numel() + 3) // 4, dtype=torch.int64, device="cpu")
    draws.random_(-(2**63), None, generator=generator)
    levels = draws.view(torch.int16)[: input.numel()].view(input.shape)
    mask = torch.empty(input.shape, dtype=input.dtype, device="cpu")
    torch.lt(levels, max(kept, 1) - _LEVELS // 2, out=mask)
    return input * mask.mul_(_LEVELS / max(kept, 1))
