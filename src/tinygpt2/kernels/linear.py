"""The multiplication of a matrix by a single row, on all cores of a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt2.kernels.switch import calls_only, usable

_LARGE = 2**17  # elements of a weight, below which dividing the work costs more than it saves


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - the twin's name
    """Returns `torch.nn.functional.linear`, for a single row in fp32 and without gradients on all cores of a CPU.

    PyTorch multiplies a matrix by a vector on one core, which uses a fraction of the machine's memory bandwidth. It
    spreads a batch of matrices over all cores, so here the weight becomes a batch of blocks of rows.
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
        and weight.shape[0] >= torch.get_num_threads()
        and weight.is_contiguous()
    )


def _on_all_cores(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    height, width = weight.shape
    threads = torch.get_num_threads()
    rest = height % threads
    blocks = (weight[:-rest] if rest else weight).view(threads, -1, width)
    # Laid out as the transpose of a row the vector is four times as fast as as a column.
    column = row.reshape(1, width).t().expand(threads, -1, -1)
    out = torch.bmm(blocks, column).view(-1)
    if rest:
        out = torch.cat([out, weight[-rest:] @ row.view(-1)])
    if bias is not None:
        out += bias
    return out.view(*row.shape[:-1], height)
