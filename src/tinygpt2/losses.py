"""The cross-entropy loss and perplexity."""

import math
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2.kernels.cross_entropy import check_targets

IGNORE_INDEX = -100  # PyTorch's value for a target that does not count


def cross_entropy_loss(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the mean negative log-likelihood of the targets, in nats per token.

    Args:
        logits: (..., V), floating point; half precisions are computed in float32.
        targets: (...), int64, each from 0 to V - 1 or ``ignore_index``.
        ignore_index: A target that does not count. If none counts, the mean is NaN.

    Returns:
        A scalar, differentiable in ``logits``.

    Raises:
        ValueError: If the shapes do not fit, or, on a CPU, a target is outside the vocabulary.

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


def _check_shapes(scores: Tensor, targets: Tensor) -> None:
    if scores.dim() < 1 or scores.shape[:-1] != targets.shape:
        raise ValueError(
            "logits of shape (..., V) need targets of shape (...), "
            f"got {tuple(scores.shape)} and {tuple(targets.shape)}"
        )


def _flatten(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    _check_shapes(logits, targets)
    check_targets(targets, logits.shape[-1], ignore_index)
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
        loss: Mean cross-entropy in nats per token, a tensor of any shape or a float.

    Returns:
        A tensor for a tensor, a float for a float; infinity where the exponential overflows.

    >>> import torch
    >>> perplexity(0.0)
    1.0
    >>> perplexity(torch.tensor([0.0, float("inf")]))
    tensor([1., inf])
    """
    if isinstance(loss, Tensor):
        return loss.exp()
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
