"""What samplers leave of drawn logits and texts, held against the logits processors of transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    BannedTokensSampler,
    EtaSampler,
    LogitBiasSampler,
    MinPSampler,
    NoRepeatNGramSampler,
    ProcessorSampler,
    RepetitionPenaltySampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
    TypicalSampler,
)

transformers = pytest.importorskip("transformers")

SHARES = st.sampled_from([0.03, 0.1, 0.31, 0.5, 0.77, 0.9, 0.99])
LENGTH = 7

Step = tuple[Callable[[Sampler], Sampler], Any]
"""A sampler, given the one that follows, and the processor of transformers that does the same."""


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


def texts(scores: Tensor) -> st.SearchStrategy[Tensor]:
    """Draws (B, T) ids for (B, V) logits."""
    batch, n_vocab = scores.shape
    few = st.integers(0, min(n_vocab, 4) - 1)  # so that they repeat one another
    rows = st.lists(st.lists(few, min_size=LENGTH, max_size=LENGTH), min_size=batch, max_size=batch)
    return rows.map(torch.tensor)


@st.composite
def filters(draw: st.DrawFn) -> Step:
    """Draws a sampler that sees the logits alone."""
    number, share = draw(st.integers(1, 14)), draw(SHARES)
    pairs: list[Step] = [
        (lambda then: TopKSampler(number, then=then), transformers.TopKLogitsWarper(number)),
        (lambda then: TopPSampler(share, then=then), transformers.TopPLogitsWarper(share)),
        (lambda then: MinPSampler(share, then=then), transformers.MinPLogitsWarper(share)),
        (lambda then: TypicalSampler(share, then=then), transformers.TypicalLogitsWarper(share)),
        (lambda then: EtaSampler(share, then=then), transformers.EtaLogitsWarper(share)),
        (lambda then: TemperatureSampler(2 * share, then=then), transformers.TemperatureLogitsWarper(2 * share)),
    ]
    return draw(st.sampled_from(pairs))


@st.composite
def of_text(draw: st.DrawFn, n_vocab: int) -> Step:
    """Draws a sampler that sees the text, or that changes the logits of certain tokens."""
    token = st.integers(0, n_vocab - 1)
    number, penalty = draw(st.integers(1, LENGTH + 1)), draw(st.sampled_from([0.3, 1.0, 1.25, 4.0]))
    sequences = draw(st.lists(st.lists(token, min_size=1, max_size=3), min_size=1, max_size=4))
    bias = draw(st.dictionaries(token, st.integers(-80, 80).map(lambda n: n / 8), min_size=1, max_size=4))
    there = transformers.SequenceBiasLogitsProcessor([[[i], value] for i, value in bias.items()])
    pairs: list[Step] = [
        (
            lambda then: RepetitionPenaltySampler(penalty, then=then),
            transformers.RepetitionPenaltyLogitsProcessor(penalty),
        ),
        (
            lambda then: RepetitionPenaltySampler(penalty, prompt_tokens=number, then=then),
            lambda ids, scores: transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids[:, number:], scores),
        ),
        (lambda then: NoRepeatNGramSampler(number, then=then), transformers.NoRepeatNGramLogitsProcessor(number)),
        (lambda then: BannedTokensSampler(sequences, then=then), transformers.NoBadWordsLogitsProcessor(sequences)),
        (lambda then: LogitBiasSampler(bias, then=then), there),
    ]
    return draw(st.sampled_from(pairs))


def left_by(chain: list[Step], scores: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the logits that samplers leave, and those that the processors leave."""
    captured = Captured()
    sampler: Sampler = captured
    for make, _ in reversed(chain):
        sampler = make(sampler)
    sampler(scores, tokens=text)
    expected = scores
    for _, processor in chain:
        assume((expected > -torch.inf).any(dim=-1).all())  # of a row without tokens each makes something else
        expected = processor(text, expected)
    return captured.logits, expected


@given(scores=logits(), data=st.data())
def test_samplers_leave_the_logits_that_processors_leave(scores: Tensor, data: st.DataObject) -> None:
    """Each alone, exactly, but for a sampler of shifted logits."""
    step = data.draw(of_text(scores.shape[1]) | filters().filter(lambda step: not is_temperature(step)))
    left, expected = left_by([step], scores, data.draw(texts(scores)))
    assert torch.equal(left, expected)


def is_temperature(step: Step) -> bool:
    return isinstance(step[1], transformers.TemperatureLogitsWarper)


@given(scores=logits(), data=st.data())
def test_chains_leave_the_probabilities_that_processors_leave(scores: Tensor, data: st.DataObject) -> None:
    """First what sees the text, then filters and the temperature, in any order: a penalty acts on unshifted logits."""
    chain = data.draw(st.lists(of_text(scores.shape[1]), max_size=2))
    chain += data.draw(st.lists(filters(), max_size=3))
    left, expected = left_by(chain, scores, data.draw(texts(scores)))
    torch.testing.assert_close(left.softmax(-1), expected.softmax(-1), rtol=0, atol=1e-9, equal_nan=True)


@given(scores=logits(), data=st.data())
def test_penalties_of_processors_reach_the_sampler_after_them(scores: Tensor, data: st.DataObject) -> None:
    text = data.draw(texts(scores))
    processors = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(data.draw(st.sampled_from([0.7, 1.0, 1.3]))),
            transformers.NoRepeatNGramLogitsProcessor(data.draw(st.integers(1, 3))),
        ]
    )
    captured = Captured()
    ProcessorSampler(processors, then=captured)(scores, tokens=text)
    torch.testing.assert_close(captured.logits, processors(text, scores), rtol=0, atol=0)
