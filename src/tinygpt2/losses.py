"""The cross-entropy loss and perplexity."""

import math
from numbers import Real
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2._internal.checks import check_int
from tinygpt2.kernels.cross_entropy import checked_targets

IGNORE_INDEX = -100  # PyTorch's value for a target that does not count


def cross_entropy_loss(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the mean negative log-likelihood of the targets, in nats per token.

    Args:
        logits: (..., V), floating point; half precisions are computed in float32.
        targets: (...), of any integer type, each from 0 to V - 1 or ``ignore_index``.
        ignore_index: A target that does not count. If none counts, the mean is NaN.

    Returns:
        A scalar, differentiable in ``logits``; NaN if a logit is.

    Raises:
        TypeError: If one of them is not a tensor.
        ValueError: If the shapes, dtypes or devices do not fit, or, on a CPU, a target is outside the vocabulary.

    An untrained model gives each of the V tokens about the same probability, so its loss is close to ln V:

    >>> import torch
    >>> logits = torch.zeros(2, 3, 50257)
    >>> targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    >>> round(cross_entropy_loss(logits, targets).item(), 4)
    10.8249
    """
    flat_logits, flat_targets = _flatten(logits, targets, ignore_index)
    return F.cross_entropy(flat_logits, flat_targets, ignore_index=ignore_index)


def summed_cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the summed negative log-likelihood in nats, from which means over several batches are computed."""
    flat_logits, flat_targets = _flatten(logits, targets, ignore_index)
    return F.cross_entropy(flat_logits, flat_targets, ignore_index=ignore_index, reduction="sum")


def _check(logits: object, targets: object) -> None:
    if not (isinstance(logits, Tensor) and isinstance(targets, Tensor)):
        raise TypeError(f"expected logits and targets as tensors, got {_kind(logits)} and {_kind(targets)}")
    if logits.dim() < 1 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            "logits of shape (..., V) need targets of shape (...), "
            f"got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if not (logits.is_floating_point() and logits.shape[-1]):
        raise ValueError(
            "logits must be floating point, (..., V) with a V of at least 1, "
            f"got {logits.dtype} of {tuple(logits.shape)}"
        )
    if logits.device != targets.device:
        raise ValueError(
            f"logits and targets must be on one device, got {logits.device} and {targets.device}; "
            "pass targets.to(logits.device)"
        )


def _kind(value: object) -> str:
    return type(value).__name__


def _flatten(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    _check(logits, targets)
    ignore_index = check_int("ignore_index", ignore_index, minimum=-(2**63), maximum=2**63 - 1)
    targets = checked_targets(targets, logits.shape[-1], ignore_index)
    flat = logits.reshape(-1, logits.shape[-1])
    half = flat.dtype in (torch.float16, torch.bfloat16)
    return flat.float() if half else flat, targets.reshape(-1)


@overload
def perplexity(loss: Tensor) -> Tensor: ...
@overload
def perplexity(loss: float) -> float: ...
def perplexity(loss: Tensor | float) -> Tensor | float:
    """Returns exp(loss): the number of equally likely tokens that would give the same loss.

    It can exceed the size of the vocabulary, if the model is confident of wrong tokens.

    Args:
        loss: Mean cross-entropy in nats per token, a tensor of any shape or a number.

    Returns:
        A tensor for a tensor, a float for a number; infinity where the exponential overflows, NaN for NaN.

    Raises:
        TypeError: If the loss is neither a tensor of numbers nor a number.

    >>> import torch
    >>> perplexity(0.0)
    1.0
    >>> perplexity(torch.tensor([0.0, float("inf")]))
    tensor([1., inf])
    """
    if isinstance(loss, Tensor):
        if loss.dtype == torch.bool or loss.is_complex():
            raise TypeError(f"loss must be a tensor of numbers, got {loss.dtype}")
        return loss.exp()
    if not isinstance(loss, Real) or isinstance(loss, bool):
        raise TypeError(f"loss must be a number or a tensor, got {loss!r:.50} ({_kind(loss)})")
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf if loss > 0 else 0.0  # an integer can be below all floats
