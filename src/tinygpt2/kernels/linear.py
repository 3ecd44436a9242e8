"""The multiplication of a matrix by a single row, on all cores of a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt2.kernels.switch import calls_only, is_plain_computation, usable

_ROWS_PER_THREAD = 64  # of the weight, below which splitting the work costs more than it saves


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - the twin's name
    """Returns `torch.nn.functional.linear`, for a single row in fp32 and without gradients on all cores of a CPU.

    PyTorch multiplies a matrix by a vector on one core, which uses a fraction of the machine's memory bandwidth. It
    spreads a batch of matrices over all cores, so here the weight becomes a batch of blocks of rows.
    """
    if torch.is_grad_enabled() or not _is_usable(input, weight):
        return F.linear(input, weight, bias)
    height, width = weight.shape
    threads = torch.get_num_threads()
    rest = height % threads
    blocks = (weight[:-rest] if rest else weight).view(threads, -1, width)
    # As the transpose of a row, the vector is multiplied four times as fast as in the layout of a column.
    column = input.reshape(1, width).t().expand(threads, -1, -1)
    out = torch.bmm(blocks, column).view(-1)
    if rest:
        out = torch.cat([out, weight[-rest:] @ input.view(-1)])
    if bias is not None:
        out += bias
    return out.view(*input.shape[:-1], height)


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns ``layer(x)``, computed by `linear` where the layer is a plain ``nn.Linear``.

    The layers of a model thus stay PyTorch's own, which tools for quantisation and adapters look for and replace.
    """
    if (
        not torch.is_grad_enabled()
        and is_plain_computation()  # before shapes, which are symbolic when traced
        and x.numel() == x.shape[-1]
        and calls_only(layer, nn.Linear.forward)
    ):
        return linear(x, layer.weight, layer.bias)  # type: ignore[arg-type]
    out: Tensor = layer(x)
    return out


def _is_usable(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and usable("linear", x, weight)  # before shapes, which are symbolic when traced
        and weight.dim() == 2
        and x.shape[-1:] == weight.shape[1:]
        and x.numel() == weight.shape[1]
        and weight.shape[0] >= _ROWS_PER_THREAD * torch.get_num_threads()
        and weight.is_contiguous()
    )
