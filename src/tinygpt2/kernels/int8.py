"""Linear layers with weights of 8 bits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2.kernels.switch import usable

_LARGEST = 127


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows of numbers as integers and the factor of each row: symmetric, the largest number becomes 127.

    Args:
        rows: (..., N), floating point.

    Returns:
        (..., N) int8, and (..., 1) in the dtype of the rows.
    """
    scale = rows.abs().amax(dim=-1, keepdim=True).div_(_LARGEST)
    smallest = torch.finfo(rows.dtype).tiny  # so that a row of zeros is not divided by zero
    return (rows / scale.clamp(min=smallest)).round_().to(torch.int8), scale


def int8_linear(input: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - the twin's name
    """Returns ``F.linear(input, weight * scale, bias)`` for a weight of integers.

    On a CPU, each row of the input is rounded to 8 bits as well, and the integers are multiplied as they are, without
    a copy of the weight in floating point: a fraction of the time and of the memory read (Dettmers et al. 2022, section
    2.2). A row's result does not depend on the rows beside it. Elsewhere only the weight is rounded.

    Args:
        input: (..., N), floating point.
        weight: (M, N) int8.
        scale: (M,), the factor of each row of the weight, floating point.
        bias: (M,), or ``None``.

    Returns:
        (..., M), in the dtype of the input.
    """
    # Of columns of a single number, PyTorch multiplies others than those that there are.
    if not (input.is_cpu and usable("int8", input)) or weight.shape[1] == 1:
        return F.linear(input, weight.to(input.dtype) * scale.to(input.dtype).unsqueeze(1), bias)
    integers, factors = rounded(input.reshape(-1, input.shape[-1]).float())
    out = torch._int_mm(integers, weight.t()).float().mul_(scale.float()).mul_(factors)  # noqa: SLF001 - as torchao calls it
    if bias is not None:
        out += bias
    return out.to(input.dtype).view(*input.shape[:-1], len(weight))
