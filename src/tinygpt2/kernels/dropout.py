"""Dropout, which on a CPU is not left to PyTorch's one thread and its one random number an element."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

_LEVELS = 2**16  # a quarter of a 64-bit random number decides about an element


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with `dropout`."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input


def dropout(x: Tensor, p: float) -> Tensor:
    """Returns ``x`` with each element zero with probability ``p``, and the others larger by 1 / (1 - p).

    On a CPU ``p`` is rounded to a multiple of 1 / 65536, and the others are scaled by what it then is.

    Source: Srivastava et al. 2014.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    kept = round((1 - p) * _LEVELS)
    if kept == _LEVELS:
        return x
    # PyTorch's bernoulli_ draws a number of the Mersenne Twister for each element, on one thread but for Intel's
    # processors. One draw here serves four elements, and what remains uses vectors and all threads.
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[: x.numel()].view(x.shape)
    mask = torch.lt(levels, max(kept, 1) - _LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
    return x * mask.mul_(_LEVELS / max(kept, 1))
