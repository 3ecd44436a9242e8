"""Scores of generated tokens, held against a plain forward pass over the whole text."""

import functools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    CharTokenizer,
    GenerationOptions,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    MultinomialSampler,
    Sampler,
    ScoredPiece,
    TemperatureSampler,
    TopKSampler,
    generate,
    stream_text,
)
from tinygpt2.generation.pieces import Continuation

WINDOW, VOCAB_SIZE = 16, 31
SAMPLERS = [GreedySampler(), MultinomialSampler(), TopKSampler(3, then=TemperatureSampler(0.5))]


@functools.cache
def model() -> GPT2Model:
    """In single precision."""
    torch.manual_seed(0)
    made = GPT2Model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made.eval()


def plain(tokens: Tensor, width: int) -> Tensor:
    """Returns the log-probabilities of all ids after each position from the prompt's last one on, (B, N, V)."""
    with torch.no_grad():
        logits: Tensor = model()(tokens)
    return logits.float().log_softmax(dim=-1)[:, width - 1 : -1]


@given(
    st.integers(1, 3), st.integers(1, 8), st.integers(0, 8), st.sampled_from(SAMPLERS), st.integers(0, VOCAB_SIZE + 1)
)
@example(2, 3, 0, GreedySampler(), 4)
@example(2, 3, 8, GreedySampler(), 0)
def test_scores_are_those_of_a_plain_forward_pass(
    batch: int, width: int, count: int, sampler: Sampler, top: int
) -> None:
    prompts = torch.randint(VOCAB_SIZE, (batch, width), generator=torch.Generator().manual_seed(top))
    options: GenerationOptions = {"max_new_tokens": count, "sampler": sampler, "min_new_tokens": count // 2}

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(count)

    found = generate(model(), prompts, eos_id=3, **options | {"generator": seeded()}, return_scores=True, top=top)
    tokens = generate(model(), prompts, eos_id=3, **options | {"generator": seeded()})
    assert torch.equal(found.tokens, tokens)
    new = tokens[:, width:]
    assert found.counts.tolist() == [[3 not in row[:at] for at in range(len(row))] for row in new.tolist()]
    expected = plain(tokens, width) * found.counts.unsqueeze(2)
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-5)
    close(found.log_probabilities, expected.gather(2, new.unsqueeze(2)).squeeze(2))
    close(found.entropies, -(expected.exp() * expected).sum(dim=2))
    best = min(top, VOCAB_SIZE)
    assert found.top_ids.shape == (batch, new.shape[1], best)
    close(found.top_log_probabilities, expected.topk(best, dim=2).values)
    close(found.top_log_probabilities, expected.gather(2, found.top_ids))
    close(found.mean_log_probabilities, found.log_probabilities.sum(dim=1) / found.counts.sum(dim=1).clamp(min=1))


def test_what_is_not_asked_for_is_not_returned() -> None:
    assert type(generate(model(), torch.tensor([[1]]), max_new_tokens=2)) is Tensor
    with pytest.raises(TypeError, match="return_scores must be True or False, got 1"):
        generate(model(), torch.tensor([[1]]), max_new_tokens=2, return_scores=1)  # type: ignore[call-overload]


def test_a_token_that_is_excluded_has_no_share_in_the_entropy() -> None:
    class Sure(GPT2Model):
        def last_logits(self, tokens: Tensor, cache: object = None) -> Tensor:
            del cache
            return torch.full((len(tokens), VOCAB_SIZE), -math.inf).index_fill(1, torch.tensor([4]), 0.5)

    found = generate(Sure(model().config), torch.tensor([[1]]), max_new_tokens=2, return_scores=True)
    assert (found.entropies.tolist(), found.log_probabilities.tolist()) == ([[0.0, 0.0]], [[0.0, 0.0]])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_scores_have_no_gradients_and_can_be_used_anywhere(mode: type[torch.no_grad]) -> None:
    with mode():
        found = generate(model(), torch.tensor([[1, 2]]), max_new_tokens=2, return_scores=True)
    assert not any(each.requires_grad or each.is_inference() for each in vars(found).values())


LETTERS = CharTokenizer("".join(chr(ord("a") + i) for i in range(VOCAB_SIZE - 1)))


def test_each_character_of_a_stream_has_the_score_of_its_token() -> None:
    prompt = torch.tensor([LETTERS.encode_ordinary("abc")])
    generator = torch.Generator()
    options: GenerationOptions = {"max_new_tokens": 9, "sampler": MultinomialSampler(), "generator": generator}
    generator.manual_seed(0)
    expected = generate(model(), prompt, **options, eos_id=LETTERS.eot_token, return_scores=True)
    generator.manual_seed(0)
    pieces = list(stream_text(model(), LETTERS, "abc", **options, return_scores=True))
    assert len(pieces) == 9
    assert "".join(piece.text for piece in pieces) == LETTERS.decode(expected.tokens[0, 3:].tolist())
    found = torch.tensor([piece.log_probability for piece in pieces])
    torch.testing.assert_close(found, expected.log_probabilities[0], rtol=0, atol=1e-5)
    assert pieces[0].probability == math.exp(pieces[0].log_probability)


class Script:
    """Chooses the given tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = iter(tokens)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        del tokens, generator
        return torch.full((len(logits),), next(self.tokens))


BYTES = CharTokenizer("ab", byte_fallback=True)


@functools.cache
def bytes_model() -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=BYTES.n_vocab, context_length=64, n_layer=1, n_head=1, n_embd=8)).eval()


@given(st.text("abé好😀", max_size=12), st.lists(st.sampled_from(["ba", "é好", "aab", "b"]), max_size=2), st.booleans())
@example("a好b", ["ba"], False)
@example("aab", ["aabb"], False)
def test_scored_pieces_are_the_streams_and_share_its_log_probability(text: str, stops: list[str], ends: bool) -> None:
    tokens = BYTES.encode_ordinary(text) + [BYTES.eot_token] * ends

    def pieces() -> list[ScoredPiece]:
        options: GenerationOptions = {"max_new_tokens": len(tokens), "sampler": Script(tokens)}
        return list(stream_text(bytes_model(), BYTES, "a", **options, stop=stops, return_scores=True))

    found = pieces()
    expected = "".join(
        stream_text(bytes_model(), BYTES, "a", max_new_tokens=len(tokens), sampler=Script(tokens), stop=stops)
    )
    assert "".join(piece.text for piece in found) == expected
    assert [piece.text for piece in found] == list(expected)  # a token completes one character at most
    with torch.no_grad():
        known = bytes_model()(torch.tensor([[BYTES.encode_ordinary("a")[0], *tokens]]))[0].log_softmax(dim=-1)
    begin = 0
    for piece in found:
        count = len(BYTES.encode_ordinary(piece.text))
        alone = sum(float(known[at, tokens[at]]) for at in range(begin, begin + count))
        assert math.isclose(piece.log_probability, alone, abs_tol=1e-5)
        begin += count


class Syllables:
    """A tokenizer whose tokens have several characters."""

    syllables = ("abc", "d", "x", "")
    n_vocab, eot_token = 4, 3

    def encode_ordinary(self, text: str, /) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int], /) -> str:
        return "".join(self.syllables[token] for token in tokens)


def test_a_token_that_is_held_back_in_part_is_two_pieces_with_its_score() -> None:
    def pieces(*tokens: int) -> list[tuple[str, float]]:
        scored = Continuation([], Syllables(), ["cx"]).scored_pieces((token, -1.0 - token) for token in tokens)
        return [(piece.text, piece.log_probability) for piece in scored]

    assert pieces(0, 1, 0, 3) == [("ab", -1.0), ("c", -1.0), ("d", -2.0), ("ab", -1.0), ("c", -1.0)]
    assert pieces(1, 0, 2) == [("d", -2.0), ("ab", -1.0)]
