"""Byte pairs with dropout: every cut spells the same words, and how often each comes is what the paper says."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import CharTokenizer, gpt2_tokenizer, sample_text, train_tokenizer, trim_vocabulary
from tinygpt2.data.cuts import LONGEST_WORD, Words
from tinygpt2.data.pieces import Piece, pieces_of_documents, pieces_of_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TOKENIZERS: dict[str, tiktoken.Encoding] = {
    "gpt2": gpt2_tokenizer(),
    "trained": train_tokenizer(sample_text()[:20_000], 700, special_tokens=["<|user|>"]),
    "trimmed": trim_vocabulary(gpt2_tokenizer(), sample_text()[:5_000]),
}


def cut(text: str | Sequence[str], tokenizer: tiktoken.Encoding, dropout: float, seed: int = 0) -> list[int]:
    if isinstance(text, str):
        parts: Iterable[Piece] = pieces_of_text([text], tokenizer)
    else:
        parts = pieces_of_documents(text, tokenizer)
    ids: list[int] = Words(parts, tokenizer).encode(dropout, np.random.default_rng(seed)).tolist()
    return ids


@pytest.mark.parametrize("name", ["trained", "trimmed"])
@given(text=TEXTS)
def test_without_dropout_the_ids_are_the_tokenizers(name: str, text: str) -> None:
    assert cut(text, TOKENIZERS[name], 0.0) == TOKENIZERS[name].encode_ordinary(text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_without_dropout_the_ids_of_a_whole_text_are_the_tokenizers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several blocks, some of which may end where a word does and some elsewhere."""
    text = sample_text()[:50_000] + "你好，世界。" * 50 + " naïve\r\n\t  🦊"
    monkeypatch.setattr("tinygpt2.data.cuts._BLOCK", 1000)
    assert cut(text, TOKENIZERS[name], 0.0) == TOKENIZERS[name].encode_ordinary(text)


@given(text=TEXTS, dropout=st.floats(0, 1), seed=st.integers(0, 9))
def test_every_cut_spells_the_text(text: str, dropout: float, seed: int) -> None:
    tokenizer = TOKENIZERS["trained"]
    ids = cut(text, tokenizer, dropout, seed)
    assert tokenizer.decode(ids) == text
    assert ids == cut(text, tokenizer, dropout, seed)


@given(text=TEXTS)
def test_with_all_merges_dropped_each_byte_is_a_token(text: str) -> None:
    tokenizer = TOKENIZERS["trained"]
    assert tokenizer.decode_tokens_bytes(cut(text, tokenizer, 1.0)) == [bytes([byte]) for byte in text.encode()]


@given(documents=st.lists(TEXTS.filter(bool), max_size=6), dropout=st.sampled_from([0.0, 0.5, 1.0]))
def test_each_document_has_its_end(documents: list[str], dropout: float) -> None:
    """Also if it spells out the end of a text, whose characters are ordinary ones."""
    tokenizer = TOKENIZERS["trained"]
    documents = [*documents, "<|endoftext|>"]
    ids = cut(documents, tokenizer, dropout)
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eot_token]
    begins = [0, *(end + 1 for end in ends[:-1])]
    assert ends[-1] == len(ids) - 1
    assert [tokenizer.decode(ids[begin:end]) for begin, end in zip(begins, ends, strict=True)] == documents


@pytest.mark.parametrize("length", [LONGEST_WORD - 1, LONGEST_WORD, LONGEST_WORD + 1, 1000])
def test_words_that_are_too_long_stay_as_they_are(length: int) -> None:
    """The time would grow with the square of their length."""
    tokenizer = TOKENIZERS["trained"]
    word = "th" * (length // 2) + "e" * (length % 2)
    text = f"the {word} the"
    ids = cut(text, tokenizer, 0.9)
    assert tokenizer.decode(ids) == text
    inner = tokenizer.encode_ordinary(f" {word}")
    whole = any(ids[i : i + len(inner)] == inner for i in range(len(ids)))
    assert whole == (length + 1 > LONGEST_WORD)


def test_each_cut_comes_as_often_as_it_should() -> None:
    """Of abc, whose merges are ab, bc, and abc from either, in this order.

    Each is skipped with probability p, and a word is done when all that it could merge are. Of 20,000 words each share
    is within five standard deviations of the expected one, with a false alarm in less than a hundred thousand runs.
    """
    bytes_ = [bytes([byte]) for byte in range(256)]
    tokens = [*bytes_, b"ab", b"bc", b"abc"]
    tokenizer = tiktoken.Encoding(
        "abc",
        pat_str=r"\w+|\s",
        mergeable_ranks={token: i for i, token in enumerate(tokens)},
        special_tokens={"<|endoftext|>": len(tokens)},
    )
    count, p = 20_000, 0.3
    words = "abc " * count
    spelled = "/".join(token.decode() for token in tokenizer.decode_tokens_bytes(cut(words, tokenizer, p)))
    found = Counter(spelled.split("/ "))
    expected = {
        "abc": (1 - p) ** 2 + p * (1 - p) ** 2,
        "ab/c": (1 - p) * p,
        "a/bc": p * (1 - p) * p,
        "a/b/c": p * p,
    }
    shares = {word.strip("/"): times for word, times in found.items() if word.strip("/")}
    assert set(shares) == set(expected)
    for word, share in expected.items():
        assert abs(shares[word] / count - share) < 5 * np.sqrt(share * (1 - share) / count), word


@pytest.mark.parametrize(
    "tokenizer",
    [
        CharTokenizer("ab"),
        tiktoken.Encoding("few", pat_str=r"\w+", mergeable_ranks={b"a": 0, b"b": 1}, special_tokens={}),
    ],
)
def test_a_tokenizer_without_merges_of_bytes_is_refused(tokenizer: CharTokenizer | tiktoken.Encoding) -> None:
    with pytest.raises(ValueError, match="which has none; pass one of train_tokenizer, trim_vocabulary or gpt2_tok"):
        Words([], tokenizer)
