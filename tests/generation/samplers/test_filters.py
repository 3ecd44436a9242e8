"""Filters by the entropy, held against their definitions in double precision."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import EtaSampler, Sampler, TypicalSampler

INF = math.inf


def survivors(make: Callable[[Sampler], Sampler], logits: Tensor) -> list[set[int]]:
    """Returns for each row the tokens that a filter leaves, as they were."""
    kept: list[Tensor] = []

    def last(left: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del tokens, generator
        kept.append(left)
        return left.argmax(dim=-1)

    make(last)(logits)
    assert torch.equal(kept[0], logits.where(kept[0].isfinite(), -INF))
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in kept[0]]


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """Draws (B, V) logits, some of them -inf, tied or large, with a finite one in each row."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    values = st.floats(-6, 6, width=16) | st.sampled_from([0.0, 1.0, 65504.0, -65504.0, -INF])
    drawn = draw(st.lists(values, min_size=rows * size, max_size=rows * size))
    logits = torch.tensor(drawn, dtype=torch.float64).view(rows, size)
    logits[logits.amax(dim=-1) == -INF, -1] = 0
    return logits.to(draw(st.sampled_from([torch.float16, torch.float32, torch.float64])))


def probabilities(row: Tensor) -> list[float]:
    values: list[float] = row.double().softmax(dim=-1).tolist()
    return values


def information(row: Tensor) -> list[float]:
    values: list[float] = (-row.double().log_softmax(dim=-1)).tolist()
    return values


def entropy(row: Tensor) -> float:
    return sum(p * i for p, i in zip(probabilities(row), information(row), strict=True) if p)


# --- typical ---


@given(logits=batches(), p=st.floats(0.01, 0.999))
def test_typical_keeps_the_fewest_nearest_to_the_entropy_that_have_at_least_p(logits: Tensor, p: float) -> None:
    """With room for the rounding of float32."""
    for row, left in zip(logits, survivors(lambda then: TypicalSampler(p, then=then), logits), strict=True):
        share, expected = probabilities(row), entropy(row)
        distance = [abs(value - expected) for value in information(row)]
        furthest = max(distance[i] for i in left)
        room = 1e-5 + 1e-6 * furthest
        assert sum(share[i] for i in left) >= p - 1e-5
        assert sum(share[i] for i in left if distance[i] < furthest - room) < p + 1e-5
        assert left >= {i for i, value in enumerate(distance) if value < furthest - room}
        assert left <= {i for i, value in enumerate(row.tolist()) if value > -INF}


@given(logits=batches())
def test_typical_of_one_filters_nothing(logits: Tensor) -> None:
    possible = [set((row > -INF).nonzero().flatten().tolist()) for row in logits]
    assert survivors(lambda then: TypicalSampler(1, then=then), logits) == possible


def test_typical_drops_what_is_too_probable() -> None:
    """The entropy is 1.17 nats; the tokens carry 0.69, 1.20, 2.30 and 2.30."""
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()
    assert survivors(lambda then: TypicalSampler(0.2, then=then), logits) == [{1}]
    assert survivors(lambda then: TypicalSampler(0.31, then=then), logits) == [{0, 1}]
    assert survivors(lambda then: TypicalSampler(0.81, then=then), logits) == [{0, 1, 2, 3}]


@given(st.integers(1, 9), st.floats(0.01, 1))
def test_typical_keeps_all_of_equals(size: int, p: float) -> None:
    assert survivors(lambda then: TypicalSampler(p, then=then), torch.zeros(2, size)) == [set(range(size))] * 2


# --- eta ---


@given(logits=batches(), epsilon=st.floats(1e-6, 0.999))
def test_eta_keeps_what_is_as_probable_as_its_threshold_and_the_best(logits: Tensor, epsilon: float) -> None:
    """With room for the rounding of float32."""
    for row, left in zip(logits, survivors(lambda then: EtaSampler(epsilon, then=then), logits), strict=True):
        share = probabilities(row)
        eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(row)))
        best = {i for i, value in enumerate(row.tolist()) if value == row.max()}
        assert best | {i for i, value in enumerate(share) if value >= eta * (1 + 1e-4)} <= left
        assert left <= best | {i for i, value in enumerate(share) if value >= eta * (1 - 1e-4)}


def test_eta_lets_more_tokens_pass_where_more_are_possible() -> None:
    """Beside one likely token, 0.0199 is below epsilon; among forty equals it is below it, too, but not below eta."""
    certain = torch.tensor([[0.9801, 0.0199]]).log()
    assert survivors(lambda then: EtaSampler(0.02, then=then), certain) == [{0}]
    many = torch.tensor([[0.0245] * 40 + [0.0199]]).log()
    assert survivors(lambda then: EtaSampler(0.02, then=then), many) == [set(range(41))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_eta_keeps_the_best_whatever_the_rounding(dtype: torch.dtype) -> None:
    """The best is at least as probable as e to the power of minus the entropy: eta is less, but for rounding."""
    for size in range(2, 300):
        logits = torch.zeros(1, size, dtype=dtype)
        assert survivors(lambda then: EtaSampler(1 - 2**-53, then=then), logits) == [set(range(size))]


# --- what is refused ---


@pytest.mark.parametrize("p", [-1, 0, 1.0001, math.nan, INF])
def test_a_p_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be .* greater than 0 and at most 1, got"):
        TypicalSampler(p)


@pytest.mark.parametrize("epsilon", [-1, 0, 1, math.nan, INF])
def test_an_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon must be .* greater than 0 and less than 1, got"):
        EtaSampler(epsilon)


@pytest.mark.parametrize("make", [TypicalSampler, EtaSampler])
@pytest.mark.parametrize("value", ["1", None, True, [0.5]])
def test_what_is_not_a_number_is_a_type_error(make: Callable[[object], Sampler], value: object) -> None:
    with pytest.raises(TypeError, match="must be a number"):
        make(value)
