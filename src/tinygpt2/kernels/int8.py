"""Linear layers with weights of 8 bits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2.kernels.switch import enabled, usable

LEVELS = 127
"""Integers on each side of zero in a byte."""

_SMALLEST = 1e-30  # so that a row of zeros is not divided by zero


def rounded(rows: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Returns rows of numbers as integers and the factor of each row: symmetric, the largest number becomes ``levels``.

    Args:
        rows: (..., N), floating point.
        levels: Integers on each side of zero, at most `LEVELS`; fewer are coarser, and compress better.

    Returns:
        (..., N) int8, and (..., 1) in the dtype of the rows.
    """
    factors = rows.abs().amax(dim=-1, keepdim=True).clamp_(min=_SMALLEST).mul_(1 / levels)
    return (rows * factors.reciprocal()).round_().to(torch.int8), factors


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
    out = _on_integers(input.reshape(-1, input.shape[-1]).float(), weight, scale, bias)
    return out.to(input.dtype).view(*input.shape[:-1], len(weight))


def int8_row_product(weight: Tensor, scale: Tensor, bias: Tensor | None, row: Tensor) -> Callable[[], Tensor]:
    """Returns what computes `int8_linear` for whatever a row then holds, as `row_product` does for other weights."""
    line = row.view(1, -1)
    result = row.new_empty(len(weight))
    if row.dtype != torch.float32 or not enabled("int8") or weight.shape[1] == 1:
        return lambda: result.copy_(int8_linear(line, weight, scale, bias).view(-1))
    return lambda: result.copy_(_on_integers(line, weight, scale, bias).view(-1))


def _on_integers(rows: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Returns the product of fp32 rows, (R, N), rounded, and a weight, in fp32."""
    integers, factors = rounded(rows)
    # torchao calls it, too.
    out = torch._int_mm(integers, weight.t()) * scale.float()  # noqa: SLF001 # pyright: ignore[reportPrivateImportUsage]
    return out.mul_(factors) if bias is None else torch.addcmul(bias.float(), out, factors)
