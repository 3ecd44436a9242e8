"""What is minimised, and how it is reported."""

import math
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from tinygpt2._internal.cpu import memory_is_kept

IGNORE_INDEX = -100  # PyTorch's: a target that does not count


def cross_entropy_loss(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the mean negative log-likelihood of the targets, in nats per token.

    Args:
        logits: (..., V), floating point; half precisions are computed in float32.
        targets: (...), int64, each from 0 to V - 1 or ``ignore_index``.
        ignore_index: A target that does not count. If none counts, the mean is NaN.

    Returns:
        A scalar, differentiable in ``logits``.

    Raises:
        ValueError: If the shapes do not fit.

    An untrained model gives each of the V tokens about the same probability, so its loss is close to ln V:

    >>> logits = torch.zeros(2, 3, 50257)
    >>> targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    >>> round(cross_entropy_loss(logits, targets).item(), 4)
    10.8249
    """
    flat_logits, flat_targets = _flatten(logits, targets)
    return F.cross_entropy(flat_logits, flat_targets, ignore_index=ignore_index)


def summed_cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the summed negative log-likelihood in nats, what means over several batches are made of."""
    flat_logits, flat_targets = _flatten(logits, targets)
    return F.cross_entropy(flat_logits, flat_targets, ignore_index=ignore_index, reduction="sum")


def summed_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX, scale: float = 1.0
) -> Tensor:
    """Returns ``scale * summed_cross_entropy(hidden @ weight.T, targets)`` without ever holding all the logits.

    GPT-2's logits are the largest tensor of a training step by far: (B, T, 50257), twice with their gradient. Here they
    are made, used and overwritten a few rows at a time, and both gradients are ready when the loss is.

    Args:
        hidden: (..., C), what the head reads.
        weight: (V, C), of the head.
        targets: (...), int64.
        ignore_index: A target that does not count.
        scale: Multiplied with the loss; here it costs nothing, and afterwards a pass over the weight's gradient.

    Returns:
        A scalar in at least float32, differentiable once in ``hidden`` and ``weight``.

    Raises:
        ValueError: If the shapes do not fit.

    >>> hidden, weight = torch.randn(2, 3, 8), torch.randn(50, 8)
    >>> targets = torch.randint(50, (2, 3))
    >>> plain = summed_cross_entropy(hidden @ weight.T, targets)
    >>> torch.allclose(summed_linear_cross_entropy(hidden, weight, targets), plain)
    True
    """
    _check_shapes(hidden, targets)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    flat = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = _SummedLinearCrossEntropy.apply(flat, weight, targets.reshape(-1), ignore_index, scale)  # type: ignore[no-untyped-call]
    return loss


# Logits held at once: enough rows for fast products of matrices, little beside a model. On the CPU that is 64 MB in
# fp32 where freed memory is kept. Elsewhere glibc hands out again what is below 32 MB, and the kernel has to zero anew
# what is larger, which takes longer than the arithmetic saves.
_LOGITS_AT_ONCE_CPU_KEPT = 2**24
_LOGITS_AT_ONCE_CPU = 2**22
_LOGITS_AT_ONCE_GPU = 2**26


def _logits_at_once(device: torch.device) -> int:
    if device.type != "cpu":
        return _LOGITS_AT_ONCE_GPU
    return _LOGITS_AT_ONCE_CPU_KEPT if memory_is_kept() else _LOGITS_AT_ONCE_CPU


class _SummedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, scale: float) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        loss = torch.zeros((), dtype=dtype, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if of_hidden else None
        grad_weight: Tensor | None = None
        rows = max(16, _logits_at_once(hidden.device) // len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = hidden[start : start + rows]  # (n, C)
                target = targets[start : start + rows].unsqueeze(1)  # (n, 1)
                counts = target != ignore_index
                target = target.where(counts, 0)
                logits = (part @ weight.t()).to(dtype)  # (n, V)
                largest = logits.amax(dim=-1, keepdim=True)
                at_target = logits.gather(1, target)
                exponentials = logits.sub_(largest).exp_()
                total = exponentials.sum(dim=-1, keepdim=True)
                loss += (largest + total.log() - at_target).where(counts, 0).sum()
                if not (of_hidden or of_weight):
                    continue
                # The gradient of the logits: softmax, less 1 at the target, nothing where the target does not count.
                factor = counts.to(dtype) * scale
                gradient = exponentials.mul_(factor / total).scatter_add_(1, target, -factor).to(hidden.dtype)
                if grad_hidden is not None:
                    grad_hidden[start : start + rows] = gradient @ weight
                if of_weight and grad_weight is None:  # rather than zeros to add to
                    grad_weight = (gradient.t() @ part).to(dtype)
                elif grad_weight is not None and weight.dtype == dtype:
                    grad_weight.addmm_(gradient.t(), part)
                elif grad_weight is not None:
                    grad_weight += gradient.t() @ part
        if of_weight and grad_weight is None:
            grad_weight = torch.zeros_like(weight, dtype=dtype)
        ctx.gradients = (grad_hidden, grad_weight)
        return loss * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.gradients is None:
            raise RuntimeError("this loss can be differentiated only once; compute it again")
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = None  # they are scaled in place, so that there is no second time
        if grad.device.type != "cpu" or grad != 1:  # elsewhere the question would wait for the device
            grad_hidden, grad_weight = (None if g is None else g.mul_(grad) for g in (grad_hidden, grad_weight))
        return grad_hidden, grad_weight, None, None, None


def _check_shapes(scores: Tensor, targets: Tensor) -> None:
    if scores.dim() < 1 or scores.shape[:-1] != targets.shape:
        raise ValueError(
            "logits of shape (..., V), or hidden states of shape (..., C), need targets of shape (...), "
            f"got {tuple(scores.shape)} and {tuple(targets.shape)}"
        )


def _flatten(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    _check_shapes(logits, targets)
    flat = logits.reshape(-1, logits.shape[-1])
    half = flat.dtype in (torch.float16, torch.bfloat16)
    return flat.float() if half else flat, targets.reshape(-1)


@overload
def perplexity(loss: Tensor) -> Tensor: ...
@overload
def perplexity(loss: float) -> float: ...
def perplexity(loss: Tensor | float) -> Tensor | float:
    """Returns exp(loss): among how many equally likely tokens the model hesitates.

    It can exceed the size of the vocabulary, when the model is sure of wrong tokens.

    Args:
        loss: Mean cross-entropy in nats per token, a tensor of any shape or a float.

    Returns:
        A tensor for a tensor, a float for a float; infinity where the exponential overflows.

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
