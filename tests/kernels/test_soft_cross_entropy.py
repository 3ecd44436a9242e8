"""The head and the cross-entropy against probabilities computed together."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2.kernels.soft_cross_entropy import linear_soft_cross_entropy
from tinygpt2.kernels.switch import without_kernels


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, logits = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((6, 4), (9, 4), (6, 9))
    )
    factors = torch.tensor([0.5, 0, 1, 2, 0.1, 0.3], dtype=dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), logits.softmax(-1), factors


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_are_those_of_the_plain_formula(kernel: bool, dtype: torch.dtype) -> None:
    hidden, weight, probabilities, factors = inputs(dtype)
    plain = (F.cross_entropy(hidden @ weight.T, probabilities, reduction="none") * factors).sum() * 3
    expected = torch.autograd.grad(plain, (hidden, weight))
    if kernel:
        loss = linear_soft_cross_entropy(hidden, weight, probabilities, factors) * 3
    else:
        with without_kernels():
            loss = linear_soft_cross_entropy(hidden, weight, probabilities, factors) * 3
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), expected)


def test_gradients_of_one_alone() -> None:
    hidden, weight, probabilities, factors = inputs()
    linear_soft_cross_entropy(hidden, weight.detach(), probabilities, factors).backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    other, again, _, _ = inputs()
    linear_soft_cross_entropy(other.detach(), again, probabilities, factors).backward()  # type: ignore[no-untyped-call]
    assert again.grad is not None
    assert torch.isfinite(again.grad).all()


def test_a_second_derivative_is_refused() -> None:
    hidden, weight, probabilities, factors = inputs()
    loss = linear_soft_cross_entropy(hidden, weight, probabilities, factors)
    with pytest.raises(RuntimeError, match="have no second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)
    loss = linear_soft_cross_entropy(hidden, weight, probabilities, factors)
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="differentiated only once"):
        loss.backward()  # type: ignore[no-untyped-call]
