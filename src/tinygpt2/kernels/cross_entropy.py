"""The head and the loss computed together, without ever holding all the logits."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from typing_extensions import override

from tinygpt2.kernels.switch import is_plain_computation, usable

# Logits held at once: enough rows for fast matrix multiplications, little memory beside a model. On a CPU this is 64 MB
# in fp32, in one buffer for all pieces, because the operating system would zero a new one each time.
_LOGITS_AT_ONCE_CPU = 2**24
_LOGITS_AT_ONCE_GPU = 2**26

INTEGER_DTYPES = frozenset(
    (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
)


def linear_cross_entropy(
    input: Tensor,  # noqa: A002 - the twin's name
    linear_weight: Tensor,
    target: Tensor,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    ignore_index: int = -100,
    scale: float = 1.0,
) -> Tensor:
    """Returns ``scale * F.cross_entropy(input @ linear_weight.T, target)`` without ever holding all the logits.

    The twin is `torch.nn.functional.linear_cross_entropy`, new in PyTorch 2.13. GPT-2's logits are the largest tensor
    of a training step by far: (B, T, 50257), twice with their gradient. Here they are computed, used and overwritten a
    few rows at a time, and both gradients are ready with the loss.

    Args:
        input: (..., C), the input of the head.
        linear_weight: (V, C), the weight of the head.
        target: (...), of any integer type, each from 0 to V - 1 or ``ignore_index``.
        reduction: ``"mean"`` or ``"sum"`` over the targets that count.
        ignore_index: A target that does not count.
        scale: Factor of the loss; it costs nothing here, but a pass over the weight's gradient if applied afterwards.

    Returns:
        A scalar in at least float32, differentiable once in ``input`` and ``linear_weight``.

    Raises:
        RuntimeError: If it is differentiated twice; `without_kernels` makes that possible.
        ValueError: If the shapes do not fit, the targets are not integers, or, on a CPU, one is outside the vocabulary.

    >>> import torch
    >>> hidden, weight = torch.randn(2, 3, 8), torch.randn(50, 8)
    >>> targets = torch.randint(50, (2, 3))
    >>> logits = (hidden @ weight.T).flatten(0, 1)
    >>> plain = F.cross_entropy(logits, targets.flatten())
    >>> torch.allclose(linear_cross_entropy(hidden, weight, targets), plain)
    True
    """
    if input.shape[:-1] != target.shape:
        raise ValueError(
            f"inputs of shape {tuple(input.shape[:-1])} need targets of shape {tuple(input.shape[:-1])}, "
            f"got {tuple(target.shape)}"
        )
    target = checked_targets(target, len(linear_weight), ignore_index)
    rows, flat_target = input.reshape(-1, input.shape[-1]), target.reshape(-1)
    if not usable("cross_entropy", input, linear_weight, target) or forward_ad._current_level >= 0:  # noqa: SLF001
        logits = F.linear(rows, linear_weight)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        return F.cross_entropy(logits, flat_target, ignore_index=ignore_index, reduction=reduction) * scale
    device = input.device.type
    if device == "cpu" and not (counts := flat_target != ignore_index).all():  # elsewhere the device would have to wait
        rows, flat_target = rows[counts], flat_target[counts]
    if torch.is_autocast_enabled(device) and input.dtype != torch.float64:  # float64 is not autocast
        dtype = torch.get_autocast_dtype(device)
        rows, linear_weight = rows.to(dtype), linear_weight.to(dtype)
    of_one: Tensor | float = scale
    if reduction == "mean":
        of_one = scale / (flat_target != ignore_index).sum().to(torch.promote_types(input.dtype, torch.float32))
    loss: Tensor = _LinearCrossEntropy.apply(rows, linear_weight, flat_target, ignore_index, of_one)  # type: ignore[no-untyped-call]
    return loss


def checked_targets(targets: Tensor, vocab_size: int, ignore_index: int) -> Tensor:
    """Returns targets as int64.

    Raises:
        ValueError: If they are not integers, or, on a CPU, where it is free to look, one is neither an id nor
            ``ignore_index``.
    """
    if targets.dtype not in INTEGER_DTYPES:
        raise ValueError(f"targets must be ids, int64, got {targets.dtype}; convert them with targets.long()")
    targets = targets.long()
    if targets.device.type == "cpu":
        wrong = id_outside(targets, vocab_size, ignore_index)
        if wrong is not None:
            raise ValueError(
                f"targets must be ids of the vocabulary, from 0 to {vocab_size - 1}, but one is {wrong}; for a "
                f"target that does not count use {ignore_index}"
            )
    return targets


def id_outside(ids: Tensor, vocab_size: int | None, ignore_index: int | None = None) -> int | None:
    """Returns the first id that is outside the vocabulary, if there is one and values can be read.

    Args:
        ids: Of any shape, int64.
        vocab_size: Size of the vocabulary, V; ``None`` if it is not known.
        ignore_index: The one value outside it that is allowed.
    """
    if type(ids) is not Tensor or ids.is_meta or not is_plain_computation():
        return None
    wrong = ids < 0 if vocab_size is None else (ids < 0) | (ids >= vocab_size)
    if ignore_index is not None:
        wrong &= ids != ignore_index
    found = ids[wrong]
    return int(found[0]) if len(found) else None


def gradients_for(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401 - PyTorch's own
    """Returns the gradients that were computed with a loss, of the input and of the weight, times that of the loss.

    Raises:
        RuntimeError: If the loss is differentiated twice.
    """
    if torch.is_grad_enabled():  # create_graph: the gradients are constants here, so theirs would be missing
        raise RuntimeError(
            "the head and the loss computed together have no second derivative; compute the loss within "
            'tinygpt2.kernels.switch.without_kernels("cross_entropy")'
        )
    if ctx.gradients is None:
        raise RuntimeError("this loss can be differentiated only once; compute it again")
    grad_hidden, grad_weight = ctx.gradients
    ctx.gradients = None  # they are scaled in place, so there is no second time
    if grad.device.type != "cpu" or grad != 1:  # elsewhere the comparison would wait for the device
        grad_hidden, grad_weight = (None if g is None else g.mul_(grad) for g in (grad_hidden, grad_weight))
    return grad_hidden, grad_weight


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, scale: Tensor | float
    ) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        loss = torch.zeros((), dtype=dtype, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if of_hidden else None
        grad_weight: Tensor | None = None
        at_once = _LOGITS_AT_ONCE_CPU if hidden.device.type == "cpu" else _LOGITS_AT_ONCE_GPU
        rows = max(1, min(max(16, at_once // len(weight)), len(hidden)))
        buffer = torch.empty((rows, len(weight)), dtype=hidden.dtype, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part = hidden[start : start + rows]  # (n, C)
                target = targets[start : start + rows].unsqueeze(1)  # (n, 1)
                counts = target != ignore_index
                target = target.where(counts, 0)
                logits = torch.mm(part, weight.t(), out=buffer[: len(part)]).to(dtype)  # (n, V)
                largest = logits.amax(dim=-1, keepdim=True)
                at_target = logits.gather(1, target)
                exponentials = logits.sub_(largest).exp_()
                total = exponentials.sum(dim=-1, keepdim=True)
                loss += (largest + total.log() - at_target).where(counts, 0).sum()
                if not (of_hidden or of_weight):
                    continue
                # The gradient of the logits: softmax, less 1 at the target; zero where the target does not count.
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 # pyright: ignore[reportIncompatibleMethodOverride]
        return (*gradients_for(ctx, grad), None, None, None)
