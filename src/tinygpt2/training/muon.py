"""Muon: orthogonal updates of the hidden matrices, and AdamW's of all other parameters."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from typing_extensions import override

from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import computes_bf16
from tinygpt2.distributed.ranks import ALONE, Ranks

MOMENTUM = 0.95
UPDATE_RMS = 0.2  # about that of AdamW's updates: Liu et al. 2025, arXiv 2502.16982, section 2.2

COEFFICIENTS = (
    (7.942387823, -22.28729349, 15.82385721),
    (3.587511835, -2.584460653, 0.4893433582),
    (2.660379803, -1.913439496, 0.4194215478),
)
"""The odd polynomials ax + bx³ + cx⁵ that are applied to the singular values one after the other.

Each has the least largest distance from one on the interval that the one before leaves, from 0.01 to 1 at first, with a
margin of 0.02 for rounding (Amsel et al. 2025, arXiv 2505.16932). A test computes them.
"""

SMALLEST, TOLERANCE = 0.01, 0.29
"""Singular values from the first number to 1 end within the second of one."""

WithGradient = tuple[Tensor, Tensor]  # a parameter, and its gradient

_BATCH = 1 << 24  # elements that are orthogonalised at once: enough for any device, in little memory


def hidden_matrices(model: nn.Module) -> dict[nn.Parameter, int]:
    """Returns the trainable weights of the linear layers in a model's blocks, with the number of matrices in each.

    A block is whatever is in an `nn.ModuleList`, as in `GPT2Model` and most other models. This excludes embeddings,
    positions and the head, even one that shares the weight of an embedding. ``c_attn`` has three matrices, for query,
    key and value.
    """
    hidden: dict[nn.Parameter, int] = {}
    for blocks in model.modules():
        if not isinstance(blocks, nn.ModuleList):
            continue
        for name, module in blocks.named_modules():
            if isinstance(module, nn.Linear):
                weight: object = module.weight
                if isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.requires_grad:
                    hidden[weight] = 3 if name.endswith("c_attn") and weight.shape[0] % 3 == 0 else 1
    return hidden


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) with Nesterov momentum, for groups with ``matrices``, and fused AdamW for the others.

    Muon's updates are orthogonalised and scaled to the size of AdamW's, so that a learning rate and a decoupled weight
    decay mean the same for both (Liu et al. 2025).

    Args:
        groups: Groups of parameters. In one with an option ``matrices``, each parameter is a matrix, which consists of
            so many of equal height that are orthogonalised one by one.
        lr: Learning rate.
        betas: AdamW's decay rates of the first and second moments.
    """

    ranks: Ranks = ALONE
    """The processes that divide the orthogonalisation among them."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": 0.0, "fused": True}
        super().__init__(groups, defaults | {"matrices": 0, "momentum": MOMENTUM})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates the parameters that have a gradient.

        Args:
            closure: Computes the loss and its gradients anew, as for PyTorch's optimizers.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with fast_products():
            for group in self.param_groups:
                trained = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
                if group["matrices"]:
                    self._update_matrices(trained, group)
                elif trained:
                    self._update_others(trained, group)
        return loss

    def _update_matrices(self, trained: Sequence[WithGradient], group: dict[str, Any]) -> None:
        rate, momentum = float(group["lr"]), group["momentum"]
        for parameter, gradient in trained:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            self.state[parameter]["momentum_buffer"].lerp_(gradient, 1 - momentum)
        for batch in _batches(trained):
            # Nesterov's: the average once more with the gradient, as if a step ahead.
            updates = torch.stack([grad.lerp(self.state[p]["momentum_buffer"], momentum) for p, grad in batch])
            matrices = updates.view(-1, updates.shape[1] // group["matrices"], updates.shape[2])
            directions = self.ranks.divided(orthogonalised, matrices).view_as(updates)
            scale = UPDATE_RMS * math.sqrt(max(matrices.shape[1:]))
            for (parameter, _), direction in zip(batch, directions, strict=True):
                parameter.mul_(1 - rate * group["weight_decay"]).add_(direction, alpha=-rate * scale)

    def _update_others(self, trained: Sequence[WithGradient], group: dict[str, Any]) -> None:
        for parameter, _ in trained:
            if not self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        parameters, gradients = zip(*trained, strict=True)
        adamw_step(parameters, gradients, [self.state[parameter] for parameter in parameters], group)


def adamw_step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[dict[str, Any]], group: dict[str, Any]
) -> None:
    """Makes a step of fused AdamW, given its states and the options of the group."""
    adamw(
        list(parameters),
        list(gradients),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],  # of amsgrad
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _batches(trained: Iterable[WithGradient]) -> Iterator[list[WithGradient]]:
    """Yields the parameters in batches of equal shape, dtype and device, in their order."""
    equal: dict[object, list[WithGradient]] = defaultdict(list)
    for parameter, gradient in trained:
        equal[parameter.shape, parameter.dtype, parameter.device].append((parameter, gradient))
    for each in equal.values():
        size = max(1, _BATCH // max(1, each[0][0].numel()))
        yield from (each[start : start + size] for start in range(0, len(each), size))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Returns matrices with the same singular vectors, and singular values near one.

    It computes in bf16 on GPUs that have instructions for it, and elsewhere in fp32, or the dtype of the matrices if
    that is wider.

    Args:
        matrices: (N, rows, columns).

    Returns:
        (N, rows, columns). A singular value of at least `SMALLEST` times the norm (the eighth root of the sum of the
        eighth powers, which is at most 2.4 times the largest of 1,000) is within `TOLERANCE` of one; smaller ones grow
        in proportion, up to 76-fold. Zero stays zero.
    """
    low = matrices.device.type == "cuda" and computes_bf16(matrices.device)
    return _orthogonalised(matrices, torch.bfloat16 if low else torch.promote_types(matrices.dtype, torch.float32))


def _orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    if matrices.shape[1] > matrices.shape[2]:
        transposed: Tensor = _orthogonalised(matrices.mT, dtype).mT
        return transposed
    largest = torch.linalg.vector_norm(matrices, math.inf, (1, 2), keepdim=True)
    x: Tensor = (matrices / largest.clamp(min=torch.finfo(largest.dtype).tiny)).to(dtype)
    gram = x @ x.mT  # (N, rows, rows)
    square = gram @ gram
    norm = torch.linalg.vector_norm(square, dim=(1, 2), keepdim=True).pow(1 / 4)
    norm = norm.clamp(min=1)  # a smaller one is that of zeros
    x, gram, square = x / norm, gram / norm**2, square / norm**4
    # Products of the Gram matrices alone are fewer if these are much smaller, but need the digits of fp32.
    if dtype != torch.bfloat16 and 2 * x.shape[2] > 3 * x.shape[1]:
        return torch.bmm(_factor(gram, square), x)
    for i, (a, b, c) in enumerate(COEFFICIENTS):
        if i:
            gram = x @ x.mT
            square = gram @ gram
        x = torch.baddbmm(x, torch.add(b * gram, square, alpha=c), x, beta=a)
    return x


def _factor(gram: Tensor, square: Tensor) -> Tensor:
    """Returns the matrix that orthogonalises another one, given that one's Gram matrix and the square of it.

    The polynomials are x q(x²); with G = XXᵀ, the next X is q(G)X, and the next G is q(G)Gq(G).
    """
    q = factor = _quadratic(gram, square, COEFFICIENTS[0])
    for coefficients in COEFFICIENTS[1:]:
        gram = q @ gram @ q
        q = _quadratic(gram, gram @ gram, coefficients)
        factor = q @ factor
    return factor


def _quadratic(gram: Tensor, square: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    a, b, c = coefficients
    q = torch.add(b * gram, square, alpha=c)
    q.diagonal(dim1=1, dim2=2).add_(a)
    return q
