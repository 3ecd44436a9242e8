"""The head and the loss in one, held against the head and then the loss."""

import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tinygpt2.kernels.cross_entropy
from tinygpt2.kernels.cross_entropy import linear_cross_entropy
from tinygpt2.kernels.switch import without_kernels

IGNORED = -100
Reduction = Literal["mean", "sum"]

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
reductions = st.sampled_from(["mean", "sum"])


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, reduction: Reduction = "mean", ignore_index: int = IGNORED
) -> Tensor:
    """Returns the loss as PyTorch computes it, in two steps and in at least float32."""
    logits = (hidden @ weight.T).reshape(-1, len(weight))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, targets.reshape(-1), reduction=reduction, ignore_index=ignore_index)


def problem(
    shape: tuple[int, ...], width: int, vocab_size: int, *, dtype: torch.dtype = torch.float64, ignored: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(*shape, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab_size, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocab_size, shape)
    return hidden, weight, targets.masked_fill(torch.rand(shape) < ignored, IGNORED)


@pytest.fixture(params=[1, 2**22], ids=["in parts", "at once"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 16 rows of logits at once, the last of them fewer; or all."""
    monkeypatch.setattr(tinygpt2.kernels.cross_entropy, "_LOGITS_AT_ONCE_CPU", request.param)


@given(
    shape=shapes,
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 2**32),
    reduction=reductions,
    factors=st.tuples(st.sampled_from([1.0, -0.5, 1 / 3]), st.sampled_from([1.0, 3.0])),
    ignored=st.sampled_from([0.0, 0.5]),
    needed=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_head_and_loss_fused_are_head_then_loss(
    *,
    shape: tuple[int, ...],
    sizes: tuple[int, int],
    seed: int,
    reduction: Reduction,
    factors: tuple[float, float],
    ignored: float,
    needed: tuple[bool, bool],
) -> None:
    """Of no rows at all too, on which it failed; and the mean in float64, which had the precision of float32."""
    torch.manual_seed(seed)
    scale, factor = factors
    hidden, weight, targets = problem(shape, *sizes, ignored=ignored)

    def losses_and_gradients(*, fused: bool) -> list[Tensor]:
        hidden.requires_grad_(needed[0])
        weight.requires_grad_(needed[1])
        if fused:
            loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction, scale=scale)
        else:
            loss = plain(hidden, weight, targets, reduction=reduction) * scale
        leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
        return [loss.detach(), *torch.autograd.grad(factor * loss, leaves)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.kernels.cross_entropy, "_LOGITS_AT_ONCE_CPU", 1)  # 16 rows are one part
        found = losses_and_gradients(fused=True)
    expected = losses_and_gradients(fused=False)
    if reduction == "mean" and not (targets != IGNORED).any():
        assert found[0].isnan()
        return
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_targets_that_do_not_count_cost_nothing_in_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a window that slides by a few tokens, or of padded texts, most do not count."""
    hidden, weight, targets = problem((4, 10), 8, 50)
    targets[:, :7] = IGNORED
    expected = plain(hidden, weight, targets)
    rows = []
    multiply = torch.mm

    def watched(left: Tensor, *others: Tensor, **options: Tensor) -> Tensor:
        rows.append(len(left))
        return multiply(left, *others, **options)

    monkeypatch.setattr(torch, "mm", watched)
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), expected)
    assert sum(rows) == 12


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_several_parts_are_right(reduction: Reduction) -> None:
    hidden, weight, targets = problem((5, 13), 6, 61, dtype=torch.float32)
    targets[1, 2:9] = IGNORED
    expected = plain(hidden, weight, targets, reduction=reduction)
    fused = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(
        torch.autograd.grad(fused, (hidden, weight)),
        torch.autograd.grad(expected, (hidden, weight)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="PyTorch has none before 2.13")
@given(
    shape=st.tuples(st.integers(1, 40)),
    seed=st.integers(0, 2**32),
    reduction=reductions,
    ignored=st.sampled_from([0.0, 0.3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_is_pytorchs_function_of_the_same_name(
    shape: tuple[int], seed: int, reduction: Reduction, ignored: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    hidden, weight, targets = problem(shape, 6, 11, dtype=dtype, ignored=ignored)
    targets[0] = 3  # one counts, or there is no mean
    twin: Any = F.linear_cross_entropy
    results = []
    for function in (linear_cross_entropy, twin):
        loss: Tensor = function(hidden, weight, targets, reduction=reduction, ignore_index=IGNORED)
        results.append((loss.detach(), *torch.autograd.grad(loss, (hidden, weight))))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_another_index_may_be_ignored(reduction: Reduction) -> None:
    hidden, weight = torch.randn(4, 3), torch.randn(5, 3)
    targets = torch.tensor([0, 3, 0, 2])
    fused = linear_cross_entropy(hidden, weight, targets, reduction=reduction, ignore_index=0)
    torch.testing.assert_close(fused, plain(hidden, weight, targets, reduction=reduction, ignore_index=0))
    torch.testing.assert_close(fused, plain(hidden[1::2], weight, targets[1::2], reduction=reduction))


def test_if_no_target_counts_the_mean_is_nan_and_the_sum_and_its_gradients_are_zero() -> None:
    hidden, weight, targets = problem((2, 3), 4, 5, ignored=1.0)
    assert linear_cross_entropy(hidden, weight, targets).isnan()
    loss = linear_cross_entropy(hidden, weight, targets, reduction="sum")
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (hidden, weight)))


def test_it_changes_none_of_its_inputs() -> None:
    inputs = problem((4,), 3, 5, ignored=0.3)
    before = [tensor.detach().clone() for tensor in inputs]
    linear_cross_entropy(*inputs).backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))


def test_without_gradients_it_is_the_same() -> None:
    hidden, weight, targets = problem((4,), 3, 5, ignored=0.3)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, linear_cross_entropy(hidden, weight, targets).detach())


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_of_bfloat16_it_is_summed_in_float32(reduction: Reduction, *, autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    hidden, weight, targets = problem((70,), 32, 50, dtype=dtype, ignored=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        fused = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
        expected = plain(hidden, weight, targets, reduction=reduction)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, expected)
    got = torch.autograd.grad(fused, (hidden, weight))
    assert [gradient.dtype for gradient in got] == [dtype, dtype]
    for gradient, other in zip(got, torch.autograd.grad(expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(gradient, other, rtol=0.02, atol=0.02 * other.abs().max().item())  # 8 bits


def test_autocast_leaves_float64_alone_as_it_does_elsewhere() -> None:
    hidden, weight, targets = problem((7,), 8, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), plain(hidden, weight, targets))


def test_large_logits_do_not_overflow() -> None:
    hidden, weight = torch.tensor([[1e4, 0.0], [-1e4, 0.0]]), torch.eye(2)
    assert linear_cross_entropy(hidden, weight, torch.tensor([0, 0]), reduction="sum").item() == 1e4


@pytest.mark.parametrize("shape", [(1,), (3, 2), (2, 4)])
def test_targets_that_do_not_fit_are_told(shape: tuple[int, ...]) -> None:
    """One target was broadcast over all positions, and (3, 2) taken for (2, 3), without complaint."""
    with pytest.raises(ValueError, match="need targets of shape"):
        linear_cross_entropy(torch.randn(2, 3, 4), torch.randn(5, 4), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [-1, 5, -101])
def test_a_target_outside_the_vocabulary_is_told(wrong: int) -> None:
    """Whoever masks with -1, as nanoGPT does, was told of an index out of bounds."""
    with pytest.raises(ValueError, match=rf"from 0 to 4, but one is {wrong}; .* does not count use -100"):
        linear_cross_entropy(torch.randn(2, 3), torch.randn(5, 3), torch.tensor([2, wrong]))


def test_meta_tensors_have_a_loss() -> None:
    """PyTorch knows no autocast for them, and said so."""
    with torch.device("meta"):
        loss = linear_cross_entropy(torch.randn(2, 3), torch.randn(5, 3), torch.zeros(2, dtype=torch.int64))
    assert (loss.device.type, loss.shape) == ("meta", ())


def test_a_second_gradient_of_one_loss_is_refused() -> None:
    """The first scales both gradients in place, so that the second would be scaled twice."""
    hidden, weight, targets = problem((4,), 3, 5)
    loss = linear_cross_entropy(hidden, weight, targets)
    (2 * loss).backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which PyTorch itself uses for these
def test_forward_mode_gradients_are_those_of_the_two_steps() -> None:
    """PyTorch's function has them; this one said that a custom Function has no jvp."""
    hidden, weight, targets = problem((4,), 3, 5)
    direction = torch.randn_like(hidden)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(hidden.detach(), direction)  # type: ignore[no-untyped-call]
        loss = linear_cross_entropy(dual, weight.detach(), targets)
        tangent = torch.autograd.forward_ad.unpack_dual(loss).tangent  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), hidden)
    torch.testing.assert_close(tangent, (gradient * direction).sum())


def test_a_second_derivative_is_refused_and_not_forgotten() -> None:
    """A penalty on the gradient had no gradient itself, without a word."""
    hidden, weight, targets = problem((4,), 3, 5)
    with pytest.raises(RuntimeError, match=r'no second derivative; .*without_kernels\("cross_entropy"\)'):
        torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), hidden, create_graph=True)


def test_switched_off_it_is_differentiable_twice_as_its_twin_is() -> None:
    hidden, weight, targets = problem((4,), 3, 5)
    with without_kernels("cross_entropy"):
        assert torch.autograd.gradgradcheck(lambda x, w: linear_cross_entropy(x, w, targets), (hidden, weight))


def test_equal_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    loss = linear_cross_entropy(torch.zeros(3, 4), torch.randn(50257, 4), torch.tensor([0, 7, 50256]))
    assert loss.item() == pytest.approx(math.log(50257))
