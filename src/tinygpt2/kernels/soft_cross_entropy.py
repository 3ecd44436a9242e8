"""The head and the cross-entropy against probabilities computed together."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from typing_extensions import override

from tinygpt2.kernels.cross_entropy import gradients_for
from tinygpt2.kernels.linear import linear
from tinygpt2.kernels.switch import usable


def linear_soft_cross_entropy(hidden: Tensor, weight: Tensor, probabilities: Tensor, factors: Tensor) -> Tensor:
    """Returns the weighted sum of cross-entropies of probabilities under ``softmax(hidden @ weight.T)``.

    The gradients are ready with the loss, and only one array of the size of the logits is held beside the
    probabilities.

    Args:
        hidden: (N, C), the input of the head.
        weight: (V, C), the weight of the head.
        probabilities: (N, V), each row with a sum of 1.
        factors: (N,), the factor of each row; 0 for one that does not count.

    Returns:
        A scalar in at least float32, differentiable once in ``hidden`` and ``weight``.

    Raises:
        RuntimeError: If it is differentiated twice.

    >>> import torch
    >>> hidden, weight = torch.randn(6, 8), torch.randn(50, 8)
    >>> targets = torch.randn(6, 50).softmax(dim=-1)
    >>> plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    >>> factors = torch.full((6,), 1 / 6)
    >>> loss = linear_soft_cross_entropy(hidden, weight, targets, factors)
    >>> torch.allclose(loss, plain)
    True
    """
    if not usable("cross_entropy", hidden, weight, probabilities) or forward_ad._current_level >= 0:  # noqa: SLF001
        return soft_cross_entropy(linear(hidden, weight), probabilities, factors)
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    loss: Tensor = _LinearSoftCrossEntropy.apply(hidden, weight, probabilities, factors)  # type: ignore[no-untyped-call]
    return loss


def soft_cross_entropy(logits: Tensor, probabilities: Tensor, factors: Tensor) -> Tensor:
    """Returns the weighted sum of cross-entropies of probabilities, (N, V), under the softmax of logits, (N, V).

    >>> import torch
    >>> uniform = torch.full((1, 4), 0.25)
    >>> loss = soft_cross_entropy(torch.zeros(1, 4), uniform, torch.ones(1))
    >>> round(loss.exp().item(), 4)
    4.0
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    expected: Tensor = torch.linalg.vecdot(probabilities.to(logits.dtype), logits)
    return ((logits.logsumexp(dim=-1) - expected) * factors).sum()


class _LinearSoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, probabilities: Tensor, factors: Tensor) -> Tensor:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            probabilities, factors = probabilities.to(dtype), factors.to(dtype)
            logits = (hidden @ weight.t()).to(dtype)  # (N, V)
            logsumexp = logits.logsumexp(dim=-1, keepdim=True)
            expected = torch.linalg.vecdot(probabilities, logits)
            loss = torch.dot(logsumexp.squeeze(1) - expected, factors)
            softmax = logits.sub_(logsumexp).exp_()
            gradient = softmax.sub_(probabilities).mul_(factors.unsqueeze(1)).to(hidden.dtype)
            of_hidden, of_weight = ctx.needs_input_grad[:2]
            ctx.gradients = (
                gradient @ weight if of_hidden else None,
                gradient.t() @ hidden if of_weight else None,
            )
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 # pyright: ignore[reportIncompatibleMethodOverride]
        return (*gradients_for(ctx, grad), None, None)
