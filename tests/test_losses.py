"""Losses against the definition, written out in float64."""

import math

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


def test_a_model_that_is_sure_of_wrong_tokens_is_worse_than_guessing() -> None:
    loss = cross_entropy_loss(torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([1]))
    assert perplexity(loss) > 3
