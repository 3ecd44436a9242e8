"""The ban of strings, held against a search in the text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    BannedStringsSampler,
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    MultinomialSampler,
    TemperatureSampler,
    Tokenizer,
    generate_text,
    gpt2_tokenizer,
    sample_text,
    train_tokenizer,
)

INF = math.inf
END = 0


@dataclass(frozen=True)
class Pieces:
    """A tokenizer whose tokens are the end of text and these, of which it encodes only single characters."""

    pieces: tuple[str, ...]

    @property
    def n_vocab(self) -> int:
        return len(self.pieces) + 1

    @property
    def eot_token(self) -> int:
        return END

    def encode_ordinary(self, text: str, /) -> list[int]:
        return [self.pieces.index(char) + 1 for char in text]

    def decode(self, tokens: Sequence[int], /) -> str:
        return b"".join(map(self.token_texts().__getitem__, tokens)).decode("utf-8", "replace")

    def token_texts(self) -> list[bytes]:
        return [b"", *(piece.encode() for piece in self.pieces)]


PIECES = Pieces(("a", "b", "c", " ", "ab", "ba", " a", "bb ", "abcab", "é", "cé", "caca", "bab"))


def banned(sampler: BannedStringsSampler, tokens: Tensor, n_vocab: int) -> list[set[int]]:
    """Returns for each row the tokens that a sampler excludes."""
    kept: list[Tensor] = []

    def last(left: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del generator
        assert tokens is text
        kept.append(left)
        return left.argmax(dim=-1)

    text = tokens
    logits = torch.randn(len(tokens), n_vocab)
    BannedStringsSampler(sampler.strings, sampler.tokenizer, then=last)(logits, tokens=tokens)
    assert torch.equal(kept[0], logits.where(kept[0] > -INF, -INF))
    return [set((row == -INF).nonzero().flatten().tolist()) for row in kept[0]]


def completing(strings: Sequence[str], ids: Sequence[int]) -> set[int]:
    """Returns the tokens after which a string ends that did not before, by a search in the text."""
    texts = PIECES.token_texts()
    since_end = list(ids)
    for i, token in enumerate(ids):
        if token in (END, -1):
            since_end = list(ids[i + 1 :])
    before = b"".join(texts[token] for token in since_end)
    return {
        token
        for token, text in enumerate(texts)
        for string in strings
        if text and any((before + text).endswith(string.encode(), 0, end) for end in ends(before, text))
    }


def ends(before: bytes, text: bytes) -> range:
    return range(len(before) + 1, len(before) + len(text) + 1)


STRINGS = st.lists(st.text(alphabet="abcé ", min_size=1, max_size=6), max_size=4)


@st.composite
def texts(draw: st.DrawFn) -> Tensor:
    """Draws (B, T) ids, rows of any length padded with -1."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(0, 9))
    token = st.integers(0, PIECES.n_vocab - 1)
    drawn = draw(st.lists(st.lists(token, max_size=width), min_size=rows, max_size=rows))
    padded = [[-1] * (width - len(text)) + text for text in drawn]
    return torch.tensor(padded, dtype=torch.int64).view(rows, width)


@given(STRINGS, texts())
@example(["abab"], torch.tensor([[1, 5]]))  # "a" + "ab": a string that begins anew within itself
@example(["é"], torch.tensor([[1]]))
def test_the_tokens_that_complete_a_string_are_excluded_and_no_others(strings: list[str], tokens: Tensor) -> None:
    expected = [completing(strings, ids) for ids in tokens.tolist()]
    assert banned(BannedStringsSampler(strings, PIECES), tokens, PIECES.n_vocab) == expected


def test_without_a_text_only_tokens_that_have_a_string_are_excluded() -> None:
    logits = torch.zeros(500, PIECES.n_vocab)
    drawn = BannedStringsSampler("ab", PIECES)(logits, generator=torch.Generator().manual_seed(0))
    has_it = {token for token, text in enumerate(PIECES.token_texts()) if b"ab" in text}
    assert set(drawn.tolist()) == set(range(PIECES.n_vocab)) - has_it


def model_of(tokenizer: Tokenizer) -> GPT2Model:
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=16, n_layer=1, n_head=1, n_embd=4)
    return GPT2Model(shape)


@pytest.mark.parametrize(
    ("tokenizer", "prompts", "strings"),
    [
        (CharTokenizer("ab "), ["a", "", "ab ba"], ["ab", "bb "]),
        (CharTokenizer("a", byte_fallback=True), ["a", "b"], ["é", "a", "\N{LATIN SMALL LETTER SHARP S}"]),
        (PIECES, ["ba", "b", " "], ["bab", "a a", "cé"]),
    ],
    ids=["characters", "bytes", "pieces"],
)
def test_no_generated_text_has_a_banned_string(tokenizer: Any, prompts: list[str], strings: list[str]) -> None:  # noqa: ANN401
    sampler = BannedStringsSampler(strings, tokenizer, then=TemperatureSampler(5.0))
    generator, written = torch.Generator().manual_seed(0), model_of(tokenizer)
    for _ in range(5):
        texts = generate_text(written, tokenizer, prompts, max_new_tokens=60, sampler=sampler, generator=generator)
        for prompt, text in zip(prompts, texts, strict=True):
            for string in strings:
                assert string not in text[max(0, len(prompt) - len(string) + 1) :]


def test_a_word_is_excluded_however_it_is_spelt() -> None:
    """The word with and without a space before it, in its usual token, in letters, and as a part of others."""
    tokenizer = gpt2_tokenizer()
    sampler, n_vocab = BannedStringsSampler("German", tokenizer), tokenizer.n_vocab

    def excluded(text: str, token: str) -> bool:
        (last,) = tokenizer.encode_ordinary(token)
        before = torch.tensor([[tokenizer.encode_ordinary(char)[0] for char in text]], dtype=torch.int64)
        return last in banned(sampler, before.view(1, -1), n_vocab)[0]

    for text, token in (("", "German"), ("", " German"), ("", " Germans"), ("Germa", "n"), ("the Germ", "an"),
                        (" G", "erman"), ("Ger", "many"), (" Ger", "mann")):  # fmt: skip
        assert excluded(text, token), (text, token)
    for text, token in (("", " Ger"), (" germ", "an"), ("Ger", "m"), ("Germa", "t"), ("German", "y")):
        assert not excluded(text, token), (text, token)


def test_byte_pairs_of_ones_own_have_their_texts() -> None:
    tokenizer = train_tokenizer(sample_text(), vocab_size=400)
    sampler = BannedStringsSampler(["the", " a"], tokenizer, then=MultinomialSampler())
    text = generate_text(
        model_of(tokenizer), tokenizer, "War", max_new_tokens=300, sampler=sampler, generator=torch.Generator()
    )
    assert "the" not in text
    assert " a" not in text


def test_where_all_tokens_are_excluded_is_an_error() -> None:
    letters = CharTokenizer("ab")
    sampler = BannedStringsSampler(["a", "b"], letters)
    assert sampler(torch.zeros(1, 3)).tolist() == [letters.eot_token]  # which has no text
    with pytest.raises(ValueError, match="what comes before this sampler excludes every token"):
        sampler(torch.tensor([[0.0, 0.0, -INF]]))


# --- values and what is refused ---


def test_strings_are_kept_as_a_tuple_whatever_they_were() -> None:
    letters = CharTokenizer("ab")
    expected = BannedStringsSampler(("a", "bb"), letters)
    for strings in (["bb", "a"], {"a", "bb"}, (each for each in ["bb", "a", "a"])):
        sampler = BannedStringsSampler(strings, letters)
        assert sampler == expected
        assert hash(sampler) == hash(expected)
        assert sampler.strings == ("a", "bb")
    assert BannedStringsSampler("bb", letters).strings == ("bb",)
    assert BannedStringsSampler([], letters, then=GreedySampler())(torch.tensor([[0.0, 2.0, 1.0]])).tolist() == [1]


@pytest.mark.parametrize("strings", [None, 3, b"a", {"a": 1}], ids=repr)
def test_what_holds_no_strings_is_told(strings: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="strings must be a str, or several"):
        BannedStringsSampler(strings, PIECES)


def test_what_is_no_string_is_told() -> None:
    with pytest.raises(TypeError, match="strings must be a str, got 5"):
        BannedStringsSampler(["a", 5], PIECES)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="strings has a lone surrogate"):
        BannedStringsSampler("\ud800", PIECES)
    for empty in ("", ["a", ""]):
        with pytest.raises(ValueError, match="at least one character each, got ''"):
            BannedStringsSampler(empty, PIECES)


@dataclass(frozen=True)
class Opaque:
    """A tokenizer that does not say what its tokens stand for."""

    n_vocab: int = 3
    eot_token: int = 0

    def encode_ordinary(self, text: str, /) -> list[int]:
        return [1 for _ in text]

    def decode(self, tokens: Sequence[int], /) -> str:
        return "x" * len(tokens)


def test_a_tokenizer_that_cannot_say_what_its_tokens_stand_for_is_told() -> None:
    with pytest.raises(ValueError, match=r"what text each token stands for, got .*Opaque.* take a BannedTokensSampler"):
        BannedStringsSampler("a", Opaque())
    with pytest.raises(TypeError, match="tokenizer must be an object with n_vocab"):
        BannedStringsSampler("a", CharTokenizer)


def test_a_tokenizer_of_another_model_is_told() -> None:
    with pytest.raises(ValueError, match=r"tokenizer has 14 tokens, but there are 13 logits; pass the tokenizer"):
        BannedStringsSampler("a", PIECES)(torch.zeros(1, 13))
    assert BannedStringsSampler("a", PIECES, then=GreedySampler())(torch.arange(15.0)[None]).tolist() == [14]
