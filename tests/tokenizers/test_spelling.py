"""The features of spellings: which tokens have which, in every kind of tokenizer."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import CharTokenizer, gpt2_tokenizer
from tinygpt2.tokenizers.byte_pairs import SPLIT_PATTERN
from tinygpt2.tokenizers.foreign import as_tokenizer
from tinygpt2.tokenizers.spelling import MOST_FEATURES, Spelling, spelling_of, token_texts


def byte_pairs(*tokens: bytes) -> tiktoken.Encoding:
    ranks = {bytes([byte]): byte for byte in range(256)} | {token: 256 + i for i, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "own", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
    )


def features_of(spelling: Spelling, token: int) -> set[int]:
    return set(spelling.features[spelling.starts[token] : spelling.starts[token + 1]].tolist())


def by_the_book(text: str) -> set[tuple[object, ...]]:
    """Returns the features of a token's text, as the docstring tells them."""
    if not text:
        return set()
    word, marked = text.strip(), ["begin", *text.lower(), "end"]
    found: set[tuple[object, ...]] = {("without spaces and case", word.lower())} if word else set()
    found |= {("a space first", text.startswith(" ")), ("a capital first", word[:1].isupper())}
    found |= {("length", min(8, len(word)))}
    found |= {("part", *marked[i:j]) for i in range(len(marked)) for j in range(i + 1, min(i + 4, len(marked)) + 1)}
    return found | {(side, part) for n in (1, 2, 3) for side, part in (("first", text[:n]), ("last", text[-n:]))}


@given(tokens=st.lists(st.text(st.sampled_from("aAbÉé好 .\x00"), min_size=2, max_size=6), unique=True, max_size=12))
def test_they_are_those_of_the_book_that_two_tokens_have(tokens: list[str]) -> None:
    tokenizer = byte_pairs(*(token.encode() for token in tokens))
    spelling = spelling_of(tokenizer)
    assert spelling is not None
    texts = [bytes([byte]).decode("utf-8", "surrogateescape") for byte in range(256)] + tokens + [""]
    expected = [by_the_book(text) for text in texts]
    shared = {feature for feature, n in Counter(f for of in expected for f in of).items() if n >= 2}
    assert spelling.count == len(shared)
    assert np.diff(spelling.starts).tolist() == [len(of & shared) for of in expected]
    columns = Counter(frozenset(i for i, of in enumerate(expected) if feature in of) for feature in shared)
    found: list[list[int]] = [[] for _ in range(spelling.count)]
    for token in range(len(texts)):
        for feature in features_of(spelling, token):
            found[feature].append(token)
    assert Counter(map(frozenset, found)) == columns


def test_words_that_differ_in_case_and_spaces_share_most() -> None:
    spelling = spelling_of(byte_pairs(b"the", b" the", b"The", b"xyz"))
    assert spelling is not None
    the, spaced, capital, other, end = (features_of(spelling, i) for i in range(256, 261))
    assert len(the & spaced) > 10
    assert len(the & capital) > 10
    assert len(the & other) < 8
    assert end == set()


def test_parts_of_characters_are_alike_only_if_their_bytes_are() -> None:
    spelling = spelling_of(byte_pairs(*(character.encode()[:2] for character in "好外你")))
    assert spelling is not None
    good, outside, you = (features_of(spelling, i) for i in range(256, 259))
    assert len(good & outside) > len(good & you)  # E5 A5 and E5 A4, E4 BD


def test_the_commonest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_pairs(b"the", b" the", b"The", b"they")
    everything = spelling_of(tokenizer)
    monkeypatch.setattr("tinygpt2.tokenizers.spelling.MOST_FEATURES", 10)
    spelling = spelling_of(tokenizer)
    assert everything is not None
    assert spelling is not None
    assert (spelling.count, spelling.features.max()) == (10, 9)
    assert everything.features[everything.features < 10].tolist() == spelling.features.tolist()
    frequencies = np.bincount(everything.features)
    assert (np.diff(frequencies) <= 0).all()
    assert frequencies[-1] >= 2


def test_gpt2s_has_fewer_than_the_most() -> None:
    spelling = spelling_of(gpt2_tokenizer())
    assert spelling is not None
    assert 40_000 < spelling.count < MOST_FEATURES
    assert len(spelling.starts) == 50258
    assert spelling.starts[-2] == spelling.starts[-1] == len(spelling.features)


def test_every_process_finds_the_same() -> None:
    """The order of a set of strings differs from one to the next."""
    spelling, other = (spelling_of(CharTokenizer(characters, byte_fallback=True)) for characters in ("aAbé", "aAcé"))
    assert spelling is not None
    assert other is not None
    assert spelling.identity == "3cdc43fe0670d87fea9cdc3df380f0a13fe7d8060e01d313e09aa6b53c80ba38"
    assert other.identity != spelling.identity


def test_the_texts_of_tokens_are_their_bytes() -> None:
    assert token_texts(CharTokenizer("é", byte_fallback=True)) == ["é".encode(), *(bytes([i]) for i in range(256)), b""]
    texts = token_texts(gpt2_tokenizer())
    assert texts is not None
    assert (texts[464], texts[50256]) == (b"The", b"")


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, another end", "byte fallback, no prefix"])
def test_the_texts_of_other_libraries_tokens_make_up_a_text(foreign: Any, kind: str) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(foreign(kind))
    texts = token_texts(tokenizer)
    assert texts is not None
    assert len(texts) == tokenizer.n_vocab
    text = "the fox, don't 你好 é 🦊 <|endoftext|>"
    assert b"".join(texts[i] for i in tokenizer.encode_ordinary(text)) == text.encode()
    assert texts[tokenizer.eot_token] == b""
    assert spelling_of(tokenizer) is not None


@pytest.mark.parametrize("kind", ["word pieces", "unigram, prefix always", "sentencepiece"])
def test_where_a_text_is_changed_they_are_not_known(foreign: Any, kind: str) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(foreign(kind))
    assert token_texts(tokenizer) is None
    assert spelling_of(tokenizer) is None
