"""Several texts of one prompt, the best of them, and rows with generators of their own.

Models are in double precision, where no rounding can turn one draw of a seed into another.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GenerationOptions,
    GPT2Config,
    GPT2Model,
    KVCache,
    MultinomialSampler,
    Sampler,
    TopKSampler,
    generate,
    generate_text,
    stream,
    stream_text,
)
from tinygpt2.generation.options import Overflow

WINDOW = 8
LETTERS = CharTokenizer("abcdefg\n")
SHAPE = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=WINDOW, n_layer=2, n_head=2, n_embd=8)

prompts = st.text("abcdefg", max_size=2 * WINDOW)
lengths = st.integers(0, 2 * WINDOW)
overflows = st.sampled_from(["slide", "restart"])
seeds = st.integers(0, 2**32)


class Counted(GPT2Model):
    """Notes the shape of what it reads."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.read: list[tuple[int, int]] = []

    @override
    def last_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        self.read.append((tokens.shape[0], tokens.shape[1]))
        return super().last_logits(tokens, cache)


@functools.cache
def model() -> Counted:
    torch.manual_seed(0)
    made = Counted(SHAPE).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    made.eval()
    return made


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawing(count: int, overflow: Overflow, seed: int) -> GenerationOptions:
    options: GenerationOptions = {"max_new_tokens": count, "overflow": overflow, "sampler": MultinomialSampler()}
    return options | {"generator": seeded(seed)}


# Several samples


@given(st.integers(1, 2 * WINDOW), lengths, overflows, st.integers(1, 4), seeds)
@example(3, 5, "slide", 3, 0)
@example(WINDOW, 9, "restart", 3, 0)
def test_samples_of_a_prompt_are_those_of_as_many_prompts(
    width: int, count: int, overflow: Overflow, n: int, seed: int
) -> None:
    tokens = torch.randint(LETTERS.n_vocab, (2, width), generator=seeded(seed))
    expected = generate(model(), tokens.repeat_interleave(n, dim=0), **drawing(count, overflow, seed), eos_id=3)
    assert torch.equal(generate(model(), tokens, **drawing(count, overflow, seed), eos_id=3, n=n), expected)


@given(st.lists(prompts, min_size=1, max_size=3), lengths, overflows, st.integers(1, 4), seeds)
@example(["a", "abcdefgabcdefg", ""], 16, "restart", 3, 0)
@example(["a", "abcdefgabcdefg", ""], 9, "slide", 3, 0)
def test_so_are_those_of_prompts_of_unequal_lengths(
    texts: list[str], count: int, overflow: Overflow, n: int, seed: int
) -> None:
    repeated = [text for text in texts for _ in range(n)]
    flat = generate_text(model(), LETTERS, repeated, **drawing(count, overflow, seed), stop="ab")
    expected = [flat[begin : begin + n] for begin in range(0, len(flat), n)]
    found = generate_text(model(), LETTERS, texts, **drawing(count, overflow, seed), stop="ab", n=n)
    assert found == expected
    if len(texts) == 1:
        assert generate_text(model(), LETTERS, texts[0], **drawing(count, overflow, seed), stop="ab", n=n) == found[0]


def test_a_prompt_is_read_once_for_all_of_its_samples() -> None:
    model().read.clear()
    generate(model(), torch.tensor([[1, 2, 3], [4, 5, 6]]), max_new_tokens=3, n=4)
    assert model().read == [(2, 3), (8, 1), (8, 1)]


def test_samples_have_the_scores_of_the_plain_texts() -> None:
    tokens = torch.tensor([[1, 2, 3]])
    found = generate(model(), tokens, **drawing(5, "slide", 0), n=3, return_scores=True)
    assert found.tokens.shape == (3, 8)
    with torch.no_grad():
        known = model()(found.tokens).log_softmax(dim=-1)[:, 2:-1]
    expected = known.gather(2, found.tokens[:, 3:].unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(found.log_probabilities, expected)


def test_a_list_of_texts_takes_the_place_of_each() -> None:
    options: GenerationOptions = {"max_new_tokens": 0}
    assert generate_text(model(), LETTERS, "ab", **options) == "ab"
    assert generate_text(model(), LETTERS, "ab", **options, n=1) == ["ab"]
    assert generate_text(model(), LETTERS, ["ab", ""], **options, n=2) == [["ab", "ab"], ["", ""]]
    assert generate_text(model(), LETTERS, [], **options, n=2) == []
    assert generate_text(model(), LETTERS, "ab", **options, best_of=3) == "ab"
    assert generate_text(model(), LETTERS, ["ab", ""], **options, best_of=3) == ["ab", ""]


# The best ones


class OneEnd:
    """Draws, but never one of the end of text and a line break, so that it is known with which a text has ended."""

    ends = (LETTERS.eot_token, *LETTERS.encode_ordinary("\n"))

    def __init__(self, end: int) -> None:
        self.end = end

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        (never,) = set(self.ends) - {self.end}
        logits = logits.index_fill(1, torch.tensor([never]), -torch.inf)
        return MultinomialSampler()(logits, tokens=tokens, generator=generator)

    def mean_log_probability(self, prompt: str, text: str, count: int) -> float:
        """Returns that of a text with at most ``count`` new tokens."""
        begin = LETTERS.encode_ordinary(prompt) or [LETTERS.eot_token]
        new = LETTERS.encode_ordinary(text.removeprefix(prompt))
        new += [self.end] * (len(new) < count)
        with torch.no_grad():
            known = model()(torch.tensor([begin + new]))[0, len(begin) - 1 : -1].log_softmax(dim=-1)
        return float(known.gather(1, torch.tensor([new]).t()).mean())


@given(
    st.lists(st.text("abcdefg", max_size=3), min_size=1, max_size=2),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from(OneEnd.ends),
)
def test_the_best_are_those_of_the_largest_mean_log_probability(
    texts: list[str], count: int, best_of: int, end: int
) -> None:
    """Of all texts that are drawn with a seed, without being ranked."""
    sampler = OneEnd(end)

    def written(**numbers: int) -> Any:  # noqa: ANN401 - lists of texts, or lists of lists
        options = drawing(count, "slide", best_of) | {"sampler": sampler}
        return generate_text(model(), LETTERS, texts, **options, stop="\n", **numbers)

    drawn = written(n=best_of)
    for prompt, group in zip(texts, drawn, strict=True):
        group.sort(key=lambda text, prompt=prompt: sampler.mean_log_probability(prompt, text, count), reverse=True)
    for n in range(1, best_of + 1):
        assert written(n=n, best_of=best_of) == [group[:n] for group in drawn]
    assert written(best_of=best_of) == [group[0] for group in drawn]


# A generator for each row


class Frequent:
    """Draws a token more often the more often the text has it: what a row draws depends on all of its text."""

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        assert tokens is not None
        counts = torch.zeros_like(logits).scatter_add(1, tokens, torch.ones_like(tokens, dtype=logits.dtype))
        return MultinomialSampler()(logits + counts, generator=generator)


@given(
    st.lists(st.tuples(prompts, seeds), min_size=1, max_size=4),
    lengths,
    overflows,
    st.sampled_from([MultinomialSampler(), TopKSampler(3), Frequent()]),
)
@example([("", 1), ("abcdefgabcdefg", 2), ("ab", 1)], 16, "restart", Frequent())
def test_the_text_of_a_row_with_its_own_generator_is_the_same_in_every_batch(
    rows: Sequence[tuple[str, int]], count: int, overflow: Overflow, sampler: Sampler
) -> None:
    """Also where others end before it, or it before them."""

    def written(batch: Sequence[tuple[str, int]]) -> list[str]:
        options = drawing(count, overflow, 0) | {"sampler": sampler, "generator": [seeded(seed) for _, seed in batch]}
        return generate_text(model(), LETTERS, [text for text, _ in batch], **options, stop=["\n", "ga"])

    assert written(rows) == [text for row in rows for text in written([row])]


def test_each_sample_of_a_prompt_may_have_its_own_generator() -> None:
    options = drawing(9, "slide", 0)
    alone = [generate_text(model(), LETTERS, "ab", **options | {"generator": seeded(seed)}) for seed in range(4)]
    generators = [seeded(seed) for seed in range(4)]
    assert generate_text(model(), LETTERS, "ab", **options | {"generator": generators}, n=4) == alone
    pieces = stream_text(model(), LETTERS, "ab", **options | {"generator": [seeded(2)]})
    assert "ab" + "".join(pieces) == alone[2]
    tokens = torch.tensor([LETTERS.encode_ordinary("ab")])
    generators = [seeded(seed) for seed in range(4)]
    whole = generate(model(), tokens, **options | {"generator": tuple(generators)}, n=4, eos_id=LETTERS.eot_token)
    assert [LETTERS.decode(row).split("<|endoftext|>")[0] for row in whole.tolist()] == alone


@pytest.mark.parametrize(
    ("generator", "error", "message"),
    [
        ([], ValueError, "or a list of 4, a different one for each row; got a list of 0 with 0 different"),
        ([seeded(0)], ValueError, "or a list of 4, a different one for each row; got a list of 1 with 1 different"),
        ([seeded(0)] * 4, ValueError, "or a list of 4, a different one for each row; got a list of 4 with 1 different"),
        ([seeded(0), None, seeded(0), seeded(0)], TypeError, r"each generator must be a torch.Generator, got None"),
        ("abcd", TypeError, "generator must be a torch.Generator or None, got 'abcd'"),
    ],
)
def test_what_is_not_a_generator_for_each_row_is_refused(
    generator: Any,  # noqa: ANN401
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        generate(model(), torch.tensor([[1], [2]]), max_new_tokens=1, n=2, generator=generator)
    with pytest.raises(error, match=message):
        stream(model(), torch.tensor([[1], [2], [3], [4]]), max_new_tokens=1, generator=generator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": 10**9}, "n must be at most 65536, got 1000000000"),
        ({"best_of": 0}, "best_of must be at least 1, got 0"),
        ({"n": 3, "best_of": 2}, "best_of must be at least n=3, got 2"),
    ],
)
def test_numbers_of_samples_are_checked_at_the_call(options: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        generate_text(model(), LETTERS, [], max_new_tokens=1, **options)
