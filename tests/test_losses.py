"""Losses against the definition, written out in float64."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import cross_entropy_loss, perplexity
from tinygpt2.losses import IGNORE_INDEX, summed_cross_entropy

SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def by_hand(logits: Tensor, targets: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Returns the negative log-likelihood of each target that counts, in float64."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    likelihoods = []
    for row, target in zip(rows, targets.flatten().tolist(), strict=True):
        if target != ignore_index:
            likelihoods.append((row - row.max()).exp().sum().log() + row.max() - row[target])
    return torch.stack(likelihoods) if likelihoods else torch.empty(0, dtype=torch.float64)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draws logits of (..., V) in float64, of any size, and targets of which some are ignored."""
    shape, vocab_size = draw(SHAPES), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.0, 1.0, 30.0, 1e4]))
    logits = scale * torch.randn(*shape, vocab_size, dtype=torch.float64, generator=generator)
    targets = torch.randint(vocab_size, shape, generator=generator)
    ignored = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
    return logits, targets.masked_fill(ignored, IGNORE_INDEX)


@given(problem=problems())
def test_the_loss_is_the_mean_negative_log_likelihood_of_the_targets_that_count(problem: tuple[Tensor, Tensor]) -> None:
    logits, targets = problem
    expected = by_hand(logits, targets)
    torch.testing.assert_close(cross_entropy_loss(logits, targets), expected.mean(), equal_nan=True)
    torch.testing.assert_close(summed_cross_entropy(logits, targets), expected.sum())


@given(problem=problems(), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_half_precisions_are_computed_in_float32(problem: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    logits, targets = problem[0].clamp(-6e4, 6e4).to(dtype), problem[1]
    loss = cross_entropy_loss(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), by_hand(logits, targets).mean(), equal_nan=True, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, IGNORE_INDEX, 4], [0, 0, 3]])
    assert torch.autograd.gradcheck(lambda x: cross_entropy_loss(x, targets), logits)
    assert torch.autograd.gradcheck(lambda x: summed_cross_entropy(x, targets), logits)


def test_the_gradient_is_softmax_less_one_at_the_target_and_nothing_where_ignored() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy_loss(logits, torch.tensor([2, IGNORE_INDEX, 0]))
    expected = logits.detach().softmax(dim=-1)
    expected[0, 2] -= 1
    expected[2, 0] -= 1
    expected[1] = 0
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected / 2)


@given(vocab_size=st.integers(1, 60_000))
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(vocab_size: int) -> None:
    loss = cross_entropy_loss(torch.full((2, vocab_size), 7.0, dtype=torch.float64), torch.tensor([0, vocab_size - 1]))
    assert loss.item() == pytest.approx(math.log(vocab_size), abs=1e-12)
    assert perplexity(loss).item() == pytest.approx(vocab_size)


def test_another_index_may_be_ignored() -> None:
    logits, targets = torch.randn(4, 5), torch.tensor([0, 3, 0, 2])
    expected = by_hand(logits, targets, ignore_index=0)
    assert len(expected) == 2
    assert cross_entropy_loss(logits, targets, ignore_index=0).item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_if_no_target_counts_the_mean_is_nan_and_the_sum_zero() -> None:
    logits, targets = torch.randn(2, 3, 5), torch.full((2, 3), IGNORE_INDEX)
    assert cross_entropy_loss(logits, targets).isnan()
    assert summed_cross_entropy(logits, targets) == 0


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_target_outside_the_vocabulary_is_told(wrong: int) -> None:
    for loss in (cross_entropy_loss, summed_cross_entropy):
        with pytest.raises(ValueError, match=rf"from 0 to 4, but one is {wrong}; .* does not count use -100"):
            loss(torch.zeros(1, 2, 5), torch.tensor([[2, wrong]]))


def test_targets_of_any_integer_type_are_ids() -> None:
    logits, targets = torch.randn(2, 3, 200), torch.tensor([[0, 199, 5], [156, 1, 2]])  # as uint8, 156 equals -100
    expected = cross_entropy_loss(logits, targets)
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32):
        assert torch.equal(cross_entropy_loss(logits, targets.to(dtype)), expected)
    assert torch.equal(cross_entropy_loss(logits, targets.where(targets != 5, -1), ignore_index=-1), cross_entropy_loss(
        logits, targets.where(targets != 5, -100)
    ))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16, torch.complex64])
def test_targets_of_no_integer_type_are_refused(dtype: torch.dtype) -> None:
    for loss in (cross_entropy_loss, summed_cross_entropy):
        with pytest.raises(ValueError, match=rf"targets must be ids, int64, got {dtype}; convert .*targets\.long"):
            loss(torch.zeros(2, 3), torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_logits_of_no_floating_point_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"logits must be floating point, .* got {dtype} of \(2, 3\)"):
        cross_entropy_loss(torch.zeros(2, 3, dtype=dtype), torch.zeros(2).long())


@pytest.mark.parametrize(("logits", "targets"), [([[0.0]], [0]), (np.zeros((1, 2)), torch.zeros(1)), (None, "a")])
def test_what_is_no_tensor_is_a_type_error(logits: Any, targets: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(TypeError, match=f"logits and targets as tensors, got {type(logits).__name__} and"):
        cross_entropy_loss(logits, targets)


@pytest.mark.parametrize("ignore_index", ["-100", None, 1.5, True])
def test_another_index_is_an_integer(ignore_index: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="ignore_index must be an integer, got"):
        cross_entropy_loss(torch.zeros(2, 3), torch.zeros(2).long(), ignore_index=ignore_index)
    with pytest.raises(ValueError, match="ignore_index must be at most"):
        cross_entropy_loss(torch.zeros(2, 3), torch.zeros(2).long(), ignore_index=2**63)


def test_tensors_on_two_devices_are_told() -> None:
    with pytest.raises(ValueError, match=r"on one device, got meta and cpu; pass targets\.to\(logits\.device\)"):
        cross_entropy_loss(torch.zeros(2, 3, device="meta"), torch.zeros(2).long())


def test_of_no_rows_the_mean_is_nan_and_no_classes_are_refused() -> None:
    assert cross_entropy_loss(torch.zeros(0, 3), torch.zeros(0).long()).isnan()
    assert summed_cross_entropy(torch.zeros(2, 0, 3), torch.zeros(2, 0).long()) == 0
    with pytest.raises(ValueError, match=r"a V of at least 1, got torch.float32 of \(2, 0\)"):
        cross_entropy_loss(torch.zeros(2, 0), torch.full((2,), -100))


def test_logits_that_are_not_numbers_have_no_loss_and_minus_infinity_is_impossible() -> None:
    assert cross_entropy_loss(torch.tensor([[0.0, math.nan]]), torch.tensor([0])).isnan()
    logits = torch.tensor([[0.0, -math.inf]])
    assert cross_entropy_loss(logits, torch.tensor([0])).item() == 0
    assert cross_entropy_loss(logits, torch.tensor([1])).item() == math.inf


@pytest.mark.parametrize(
    ("logits", "targets"), [((2, 3, 5), (2, 4)), ((2, 3, 5), (6,)), ((2, 3, 5), (3, 2)), ((6, 5), (2, 3)), ((), ())]
)
def test_shapes_that_do_not_fit_are_told(logits: tuple[int, ...], targets: tuple[int, ...]) -> None:
    for loss in (cross_entropy_loss, summed_cross_entropy):
        with pytest.raises(ValueError, match="need targets of shape") as caught:
            loss(torch.zeros(logits), torch.zeros(targets, dtype=torch.int64))
        assert str(logits) in str(caught.value)
        assert str(targets) in str(caught.value)


# --- perplexity ---


@given(loss=st.floats(-50, 700))
def test_perplexity_is_the_exponential_for_floats_and_tensors(loss: float) -> None:
    value = perplexity(loss)
    assert type(value) is float
    assert math.log(value) == pytest.approx(loss, abs=1e-12)
    tensor = perplexity(torch.tensor([loss, 0.0], dtype=torch.float64))
    assert tensor.tolist() == pytest.approx([value, 1.0])


@pytest.mark.parametrize("loss", [710, 1e9, math.inf])
def test_perplexity_overflows_to_infinity(loss: float) -> None:
    assert perplexity(loss) == perplexity(torch.tensor(loss, dtype=torch.float64)).item() == math.inf


def test_perplexity_of_nan_is_nan() -> None:
    assert math.isnan(perplexity(math.nan))
    assert perplexity(torch.tensor(math.nan)).isnan()


@pytest.mark.parametrize("loss", [-1, 2, np.float32(0.5), np.float64(-3), np.int64(4), Fraction(1, 3), -math.inf])
def test_perplexity_of_any_number_is_a_float(loss: Any) -> None:  # noqa: ANN401 - any number
    value = perplexity(loss)
    assert type(value) is float
    assert value == pytest.approx(math.exp(float(loss)))


def test_perplexity_of_integers_beyond_all_floats() -> None:
    assert perplexity(10**400) == math.inf
    assert perplexity(-(10**400)) == 0


@pytest.mark.parametrize("loss", [True, "1.0", None, 1j, [1.0], np.zeros(2), np.bool_(True)])
def test_perplexity_of_no_number_is_a_type_error(loss: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="loss must be a number or a tensor, got"):
        perplexity(loss)


def test_perplexity_of_tensors() -> None:
    assert perplexity(torch.zeros(0, 3)).shape == (0, 3)
    assert perplexity(torch.tensor([0, 1])).tolist() == pytest.approx([1, math.e])
    for wrong in (torch.tensor(True), torch.tensor(1j)):
        with pytest.raises(TypeError, match="loss must be a tensor of numbers, got"):
            perplexity(wrong)


def test_a_model_that_is_sure_of_wrong_tokens_is_worse_than_guessing() -> None:
    loss = cross_entropy_loss(torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([1]))
    assert perplexity(loss) > 3
