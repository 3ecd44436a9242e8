"""Losses against the definition, written out in float64."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tinygpt2.kernels.cross_entropy
from tinygpt2 import cross_entropy_loss, perplexity
from tinygpt2.kernels.cross_entropy import linear_cross_entropy
from tinygpt2.losses import IGNORE_INDEX, summed_cross_entropy

summed_linear_cross_entropy = partial(linear_cross_entropy, reduction="sum")

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
    assert summed_linear_cross_entropy(torch.randn(2, 3, 4), torch.randn(5, 4), targets) == 0


@pytest.mark.parametrize(
    ("logits", "targets"), [((2, 3, 5), (2, 4)), ((2, 3, 5), (6,)), ((2, 3, 5), (3, 2)), ((6, 5), (2, 3)), ((), ())]
)
def test_shapes_that_do_not_fit_are_told(logits: tuple[int, ...], targets: tuple[int, ...]) -> None:
    for loss in (cross_entropy_loss, summed_cross_entropy):
        with pytest.raises(ValueError, match="need targets of shape") as caught:
            loss(torch.zeros(logits), torch.zeros(targets, dtype=torch.int64))
        assert str(logits) in str(caught.value)
        assert str(targets) in str(caught.value)


# --- head and loss fused ---


@given(
    shape=SHAPES,
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 2**32),
    weights=st.tuples(st.sampled_from([1.0, -0.5, 3.0]), st.sampled_from([0.0, 0.5])),
    needed=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_head_and_loss_fused_are_head_then_loss(
    shape: tuple[int, ...], sizes: tuple[int, int], seed: int, weights: tuple[float, float], needed: tuple[bool, bool]
) -> None:
    (width, vocab_size), (factor, ignored) = sizes, weights
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(vocab_size, width, dtype=torch.float64, generator=generator)
    targets = torch.randint(vocab_size, shape, generator=generator)
    targets.masked_fill_(torch.rand(shape, generator=generator) < ignored, IGNORE_INDEX)

    def losses_and_gradients(*, fused: bool) -> list[Tensor | None]:
        leaves = [leaf.clone().requires_grad_(need) for leaf, need in zip((hidden, weight), needed, strict=True)]
        if fused:
            loss = summed_linear_cross_entropy(leaves[0], leaves[1], targets)
        else:
            loss = summed_cross_entropy(leaves[0] @ leaves[1].T, targets)
        (loss * factor).backward()  # type: ignore[no-untyped-call]
        return [loss.detach(), leaves[0].grad, leaves[1].grad]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tinygpt2.kernels.cross_entropy, "_LOGITS_AT_ONCE_CPU", 1
        )  # so that 16 rows are one part, the last one ragged
        for got, expected in zip(losses_and_gradients(fused=True), losses_and_gradients(fused=False), strict=True):
            assert (got is None) == (expected is None)
            if got is not None:
                torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("parts", [1, 2**22], ids=["in parts", "at once"])
def test_fused_gradients_of_several_parts_are_right(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    monkeypatch.setattr(tinygpt2.kernels.cross_entropy, "_LOGITS_AT_ONCE_CPU", parts)
    hidden = torch.randn(5, 13, 6, requires_grad=True)
    weight = torch.randn(61, 6, requires_grad=True)
    targets = torch.randint(61, (5, 13))
    targets[1, 2:9] = IGNORE_INDEX
    plain = summed_cross_entropy(hidden @ weight.T, targets)
    fused = summed_linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(fused, plain)
    expected = torch.autograd.grad(plain, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(fused, (hidden, weight)), expected, rtol=1e-5, atol=1e-5)


def test_another_index_may_be_ignored_by_the_fused_loss() -> None:
    hidden, weight, targets = torch.randn(4, 3), torch.randn(5, 3), torch.tensor([0, 3, 0, 2])
    fused = summed_linear_cross_entropy(hidden, weight, targets, ignore_index=0)
    torch.testing.assert_close(fused.double(), by_hand(hidden @ weight.T, targets, ignore_index=0).sum())


def test_the_fused_loss_changes_none_of_its_inputs() -> None:
    inputs = [
        torch.randn(4, 3, requires_grad=True),
        torch.randn(5, 3, requires_grad=True),
        torch.tensor([0, -100, 4, 2]),
    ]
    before = [tensor.detach().clone() for tensor in inputs]
    summed_linear_cross_entropy(*inputs).backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, before, strict=True))


def test_without_gradients_the_fused_loss_is_the_same() -> None:
    hidden, weight, targets = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True), torch.tensor([0, -100, 4, 2])
    with torch.no_grad():
        loss = summed_linear_cross_entropy(hidden, weight, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, summed_linear_cross_entropy(hidden, weight, targets).detach())


@pytest.mark.parametrize("autocast", [False, True])
def test_the_fused_loss_of_bfloat16_is_summed_in_float32(autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    hidden = torch.randn(7, 32, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 32, dtype=dtype, requires_grad=True)
    targets = torch.randint(50, (7,))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        fused = summed_linear_cross_entropy(hidden, weight, targets)
        plain = summed_cross_entropy(hidden @ weight.T, targets)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, plain)
    got = torch.autograd.grad(fused, (hidden, weight))
    expected = torch.autograd.grad(plain, (hidden, weight))
    assert [gradient.dtype for gradient in got] == [dtype, dtype]
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits


def test_large_logits_do_not_overflow_in_the_fused_loss() -> None:
    hidden, weight = torch.tensor([[1e4, 0.0], [-1e4, 0.0]]), torch.eye(2)
    targets = torch.tensor([0, 0])
    assert summed_linear_cross_entropy(hidden, weight, targets).item() == 1e4


@pytest.mark.parametrize("shape", [(1,), (3, 2), (2, 4)])
def test_the_fused_loss_refuses_targets_that_do_not_fit(shape: tuple[int, ...]) -> None:
    """One target was broadcast over all positions, and (3, 2) taken for (2, 3), without complaint."""
    with pytest.raises(ValueError, match="need targets of shape"):
        summed_linear_cross_entropy(torch.randn(2, 3, 4), torch.randn(5, 4), torch.zeros(shape, dtype=torch.int64))


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
