"""What samplers leave of drawn logits, held against the logits processors of transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import MinPSampler, ProcessorSampler, Sampler, TemperatureSampler, TopKSampler, TopPSampler

transformers = pytest.importorskip("transformers")

SHARES = st.sampled_from([0.03, 0.1, 0.31, 0.5, 0.77, 0.9, 0.99])


class Captured:
    """A sampler that keeps what is passed on to it, and chooses as greedy does."""

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        self.logits, self.tokens, self.generator = logits, tokens, generator
        return logits.argmax(dim=-1)


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    """Draws (B, V) of which none are equal in a row: those that tie survive here, and in part there.

    In float64, so that they are compared and not their rounding: in float32, logits at a temperature of 0.06 differ by
    more than the tolerance.
    """
    n_vocab = draw(st.integers(2, 12))
    numbers = st.lists(st.integers(-300, 300), min_size=n_vocab, max_size=n_vocab, unique=True)
    return torch.tensor(draw(st.lists(numbers, min_size=1, max_size=3)), dtype=torch.float64) / 32


@st.composite
def steps(draw: st.DrawFn) -> tuple[Callable[[Sampler], Sampler], Any]:
    """Draws a sampler, given the one that follows, and the processor of transformers that does the same."""
    number, share = draw(st.integers(1, 14)), draw(SHARES)
    pairs: list[tuple[Callable[[Sampler], Sampler], Any]] = [
        (lambda then: TopKSampler(number, then=then), transformers.TopKLogitsWarper(number)),
        (lambda then: TopPSampler(share, then=then), transformers.TopPLogitsWarper(share)),
        (lambda then: MinPSampler(share, then=then), transformers.MinPLogitsWarper(share)),
        (lambda then: TemperatureSampler(2 * share, then=then), transformers.TemperatureLogitsWarper(2 * share)),
    ]
    drawn: tuple[Callable[[Sampler], Sampler], Any] = draw(st.sampled_from(pairs))
    return drawn


@given(scores=logits(), chain=st.lists(steps(), min_size=1, max_size=3))
def test_samplers_leave_the_probabilities_that_processors_leave(scores: Tensor, chain: list[Any]) -> None:
    captured = Captured()
    sampler: Sampler = captured
    for make, _ in reversed(chain):
        sampler = make(sampler)
    sampler(scores)
    expected = scores
    for _, processor in chain:
        expected = processor(None, expected)
    torch.testing.assert_close(captured.logits.softmax(-1), expected.softmax(-1), rtol=0, atol=1e-9)


@given(scores=logits(), data=st.data())
def test_penalties_of_processors_reach_the_sampler_after_them(scores: Tensor, data: st.DataObject) -> None:
    batch, n_vocab = scores.shape
    ids = st.lists(st.integers(0, n_vocab - 1), min_size=5, max_size=5)
    text = torch.tensor(data.draw(st.lists(ids, min_size=batch, max_size=batch)))
    processors = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(data.draw(st.sampled_from([0.7, 1.0, 1.3]))),
            transformers.NoRepeatNGramLogitsProcessor(data.draw(st.integers(1, 3))),
        ]
    )
    captured = Captured()
    ProcessorSampler(processors, then=captured)(scores, tokens=text)
    torch.testing.assert_close(captured.logits, processors(text, scores), rtol=0, atol=0)
