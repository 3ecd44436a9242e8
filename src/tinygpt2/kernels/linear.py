"""The multiplication of a matrix by a single row, on all cores of a CPU."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt2.kernels.switch import calls_only, enabled, usable

_LARGE = 2**17  # elements of a weight, below which dividing the work costs more than it saves
_SMALL = 2**13  # the same where it is divided in advance
_BLOCKS = 4  # per thread; a single one has a slower function, and more of them share the work more evenly


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - the twin's name
    """Returns `torch.nn.functional.linear`, for a single row in fp32 and without gradients on all cores of a CPU.

    PyTorch multiplies a matrix by a vector on one core, and reads at half the rate that this could. It spreads a batch
    of matrices over all cores, and reads faster, so here the weight becomes a batch of blocks of rows.
    """
    if torch.is_grad_enabled() or not usable("linear", input, weight) or not _is_row(input, weight):
        return F.linear(input, weight, bias)
    return _on_all_cores(input, weight, bias)


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns ``layer(x)``, computed by `linear` where the layer is a plain ``nn.Linear``.

    The layers of a model thus stay PyTorch's own, which tools for quantisation and adapters look for and replace.
    """
    own = vars(layer)
    if (
        own.get("in_features", 0) * own.get("out_features", 0) >= _LARGE  # first, as it spares small layers the rest
        and not torch.is_grad_enabled()
        and usable("linear", x)
        and calls_only(layer, nn.Linear.forward)
        and _is_row(x, weight := own["_parameters"]["weight"])
    ):
        return _on_all_cores(x, weight, own["_parameters"]["bias"])
    out: Tensor = layer(x)
    return out


def _is_row(x: Tensor, weight: Tensor) -> bool:
    """Returns whether the input is a single row, in fp32 on a CPU, and the weight is large enough to divide."""
    return (
        x.numel() == x.shape[-1]
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and x.is_cpu
        and weight.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and weight.numel() >= _LARGE
        and weight.is_contiguous()
    )


def _on_all_cores(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    height, width = weight.shape
    out = row.new_empty(height)
    _in_blocks(row.reshape(width), weight, out)()
    if bias is not None:
        out += bias
    return out.view(*row.shape[:-1], height)


def _in_blocks(row: Tensor, weight: Tensor, out: Tensor) -> Callable[[], object]:
    """Returns what computes ``out`` (M,) as the product of a weight (M, N) and whatever a row (N,) then holds."""
    height, width = weight.shape
    count = min(_BLOCKS * torch.get_num_threads(), height)
    rest = height % count
    whole = height - rest
    blocks, products = weight[:whole].view(count, -1, width), out[:whole].view(count, -1, 1)
    # Laid out as the transpose of a row the vector is four times as fast as as a column.
    column = row.view(1, width).t().expand(count, -1, -1)
    if not rest:
        return partial(torch.bmm, blocks, column, out=products)
    last, last_products = weight[whole:], out[whole:]

    def run() -> None:
        torch.bmm(blocks, column, out=products)
        torch.mv(last, row, out=last_products)

    return run


def row_product(weight: Tensor, bias: Tensor | None, row: Tensor) -> Callable[[], Tensor]:
    """Returns what multiplies a weight by whatever a row then holds, without gradients.

    Args:
        weight: (M, N).
        bias: (M,), or ``None``.
        row: (N,), on a CPU.

    Returns:
        A function that returns the product, (M,), in the same memory each time.
    """
    line, out = row.view(1, -1), row.new_empty(len(weight))
    if weight.dtype != torch.float32 or not weight.is_contiguous() or weight.numel() < _SMALL or not enabled("linear"):
        return lambda: out.copy_(F.linear(line, weight, bias).view(-1))
    multiply = _in_blocks(row, weight, out)

    def product() -> Tensor:
        multiply()
        return out if bias is None else out.add_(bias)

    return product
