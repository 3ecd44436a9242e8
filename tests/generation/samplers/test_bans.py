"""Bans of tokens, sequences and n-grams, held against a loop over the text."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    BannedTokensSampler,
    FrequencyPenaltySampler,
    GreedySampler,
    LogitBiasSampler,
    MultinomialSampler,
    NoRepeatNGramSampler,
    RepetitionPenaltySampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
    TypicalSampler,
)

INF = math.inf
SIZE = 5


def banned(make: Callable[[Sampler], Sampler], logits: Tensor, text: Tensor | None) -> list[set[int]]:
    """Returns for each row the tokens that a sampler excludes; the others it leaves as they are."""
    kept: list[Tensor] = []

    def last(left: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del generator
        assert tokens is text
        kept.append(left)
        return left.argmax(dim=-1)

    before = logits.clone()
    make(last)(logits, tokens=text)
    assert torch.equal(logits, before)
    assert torch.equal(kept[0], logits.where(kept[0] > -INF, -INF))
    assert kept[0].dtype == logits.dtype
    return [set((row == -INF).nonzero().flatten().tolist()) for row in kept[0]]


@st.composite
def texts(draw: st.DrawFn) -> Tensor:
    """Draws (B, T) ids, rows of any length padded with -1."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(0, 20))
    token = st.integers(0, draw(st.integers(0, SIZE - 1)))
    drawn = draw(st.lists(st.lists(token, max_size=width), min_size=rows, max_size=rows))
    padded = [[-1] * (width - len(text)) + text for text in drawn]
    return torch.tensor(padded, dtype=torch.int64).view(rows, width)


def without_padding(tokens: Tensor) -> Iterator[list[int]]:
    for text in tokens.tolist():
        yield [token for token in text if token != -1]


def logits_for(tokens: Tensor) -> Tensor:
    return torch.randn(len(tokens), SIZE)


# --- n-grams ---


def repeating(text: list[int], n: int) -> set[int]:
    """Returns the tokens after which the last n tokens are a sequence that the text has already."""
    there = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
    return {token for token in range(SIZE) if tuple([*text, token][-n:]) in there and len(text) >= n - 1}


@given(texts(), st.integers(1, 6))
def test_the_tokens_that_repeat_an_n_gram_are_excluded_and_no_others(tokens: Tensor, n: int) -> None:
    expected = [repeating(text, n) for text in without_padding(tokens)]
    assert banned(lambda then: NoRepeatNGramSampler(n, then=then), logits_for(tokens), tokens) == expected


@given(st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 3))
def test_a_text_without_repeated_n_grams_has_none(n: int, seed: int, prompt: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randperm(SIZE, generator=generator)[None, :prompt]  # no token twice
    sampler = NoRepeatNGramSampler(n, then=MultinomialSampler())
    for _ in range(SIZE):  # so many tokens there are always
        ids = sampler(torch.randn(1, SIZE, generator=generator), tokens=text, generator=generator)
        text = torch.cat([text, ids[None]], dim=1)
        grams = [tuple(text[0, i : i + n].tolist()) for i in range(text.shape[1] - n + 1)]
        assert len(set(grams)) == len(grams)
        if text.shape[1] == SIZE:
            return


# --- tokens and sequences ---

SEQUENCES = st.lists(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=4), max_size=6)


@given(texts(), SEQUENCES)
def test_the_last_token_of_a_sequence_is_excluded_after_the_others(tokens: Tensor, sequences: list[list[int]]) -> None:
    expected = [
        {ids[-1] for ids in sequences if text[len(text) - len(ids) + 1 :] == ids[:-1] and len(text) >= len(ids) - 1}
        for text in without_padding(tokens)
    ]
    assert banned(lambda then: BannedTokensSampler(sequences, then=then), logits_for(tokens), tokens) == expected


def test_without_a_text_only_single_tokens_are_excluded() -> None:
    assert banned(lambda then: BannedTokensSampler([3, (1, 2)], then=then), torch.zeros(2, SIZE), None) == [{3}, {3}]


def test_a_large_vocabulary_and_many_sequences() -> None:
    sequences = [(i, i + 1) for i in range(0, 50_000, 5)]
    tokens = torch.tensor([[7, 10], [7, 11]])
    ids = [banned(lambda then: BannedTokensSampler([*sequences, 50_256], then=then), torch.zeros(2, 50_257), tokens)]
    assert ids == [[{11, 50_256}, {50_256}]]


ROUNDS = st.lists(
    st.sampled_from(
        [
            lambda then: TopKSampler(2, then=then),
            lambda then: TopPSampler(0.5, then=then),
            lambda then: TypicalSampler(0.5, then=then),
            lambda then: TemperatureSampler(3.0, then=then),
            lambda then: RepetitionPenaltySampler(0.2, then=then),
            lambda then: FrequencyPenaltySampler(-2.0, then=then),
            lambda then: LogitBiasSampler({0: 1e9, 1: 1e9}, then=then),
        ]
    ),
    max_size=3,
)


@given(texts(), st.sets(st.integers(0, SIZE - 1), max_size=SIZE - 1), ROUNDS, st.integers(0, 2**32))
def test_no_sampler_after_a_ban_brings_a_token_back(
    tokens: Tensor, ids: set[int], chain: list[Callable[[Sampler], Sampler]], seed: int
) -> None:
    sampler: Sampler = MultinomialSampler()
    for make in chain:
        sampler = make(sampler)
    logits = logits_for(tokens).repeat(20, 1)
    generator = torch.Generator().manual_seed(seed)
    chosen = BannedTokensSampler(ids, then=sampler)(logits, tokens=tokens.repeat(20, 1), generator=generator)
    assert not ids & set(chosen.tolist())


def test_where_all_tokens_are_excluded_is_an_error() -> None:
    text, logits = torch.tensor([[0, 1, 2]]), torch.zeros(1, 3)
    message = "a row of logits has only -inf: what comes before this sampler excludes every token"
    for sampler in (BannedTokensSampler([0, 1, (1, 2, 2)]), NoRepeatNGramSampler(1)):
        with pytest.raises(ValueError, match=message):
            sampler(logits, tokens=text)
    with pytest.raises(ValueError, match=message):  # a ban after a filter, which left only what is excluded
        TopKSampler(1, then=BannedTokensSampler([2]))(torch.tensor([[0.0, 1.0, 2.0]]))
    assert BannedTokensSampler([2], then=TopKSampler(1))(torch.tensor([[0.0, 1.0, 2.0]])).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_precision_stays(dtype: torch.dtype) -> None:
    tokens = torch.tensor([[0, 1, 0]])
    logits = torch.randn(1, SIZE).to(dtype)
    assert banned(lambda then: NoRepeatNGramSampler(2, then=then), logits, tokens) == [{1}]
    assert banned(lambda then: BannedTokensSampler([(0, 3)], then=then), logits, tokens) == [{3}]


# --- values and what is refused ---


def test_sequences_are_kept_as_tuples_whatever_they_were() -> None:
    expected = BannedTokensSampler(((1,), (2, 3)))
    same: list[Any] = [
        [1, [2, 3]],
        ((2, 3), 1, 1),
        {1, (2, 3)},
        (each for each in ([2, 3], np.int64(1))),
        [torch.tensor(1), torch.tensor([2, 3])],
        [np.array([2, 3]), [1]],
    ]
    for sequences in same:
        sampler = BannedTokensSampler(sequences)
        assert sampler == expected
        assert hash(sampler) == hash(expected)
        assert sampler.sequences == ((1,), (2, 3))
    assert BannedTokensSampler([]).sequences == ()


@pytest.mark.parametrize("sequences", [None, 3, "bad", b"bad", {3: 1.0}], ids=repr)
def test_what_holds_no_tokens_is_told(sequences: object) -> None:
    with pytest.raises(TypeError, match="sequences must be token ids and sequences of them"):
        BannedTokensSampler(sequences)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        (
            ["bad"],
            TypeError,
            r"sequences must have token ids, got 'bad'; .* BannedStringsSampler\(strings, tokenizer\)",
        ),
        ([1.5], TypeError, "a token id in sequences must be an integer, got 1.5"),
        ([True], TypeError, "a token id in sequences must be an integer"),
        ([[1, "a"]], TypeError, "a token id in sequences must be an integer"),
        ([-1], ValueError, "a token id in sequences must be at least 0, got -1"),
        ([[]], ValueError, "at least one token each, got an empty one"),
    ],
)
def test_what_is_no_token_is_told(sequences: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        BannedTokensSampler(sequences)


@pytest.mark.parametrize("sequences", [[5], [(5, 1)], [1, (2, 3, 5)]])
def test_a_token_outside_the_vocabulary_is_told(sequences: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="token ids of the vocabulary, less than 5, got 5; take the ids"):
        BannedTokensSampler(sequences, then=GreedySampler())(torch.zeros(1, SIZE))


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_an_n_that_is_no_length_is_refused(n: Any, error: type[Exception]) -> None:  # noqa: ANN401
    with pytest.raises(error, match="n must be"):
        NoRepeatNGramSampler(n)
