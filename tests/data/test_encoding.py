"""Encoding in pieces: the ids are those of each document, or of the whole text, encoded by itself."""

import random
import time
from collections.abc import Iterator, Sequence
from threading import active_count, current_thread, main_thread
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2.data.encoding
import tinygpt2.data.fast
import tinygpt2.data.pieces
from tinygpt2 import CharTokenizer, Tokenizer, encode_documents, gpt2_tokenizer, sample_text, trim_vocabulary
from tinygpt2.data.encoding import encode_pieces
from tinygpt2.data.fast import FastEncoder, fast_encoder
from tinygpt2.data.pieces import Piece, pieces_of_documents, pieces_of_text

END = "<|endoftext|>"
SIGNS = (
    " \n\t\r\u3000\u00a0\u2009'`.,;0-9aestlmAZé你好，。！？：、；０Ωßａ\U00020000\u0600😀\u200d\x00\x1c\x85\u2028\ufeff"
)
TEXT = sample_text()


def byte_pairs(**options: Any) -> tiktoken.Encoding:  # noqa: ANN401
    gpt2 = gpt2_tokenizer()
    given_: dict[str, Any] = {"pat_str": gpt2._pat_str, "special_tokens": {END: gpt2.eot_token}} | options
    return tiktoken.Encoding("ours", mergeable_ranks=gpt2._mergeable_ranks, **given_)


class Letters:
    """A tokenizer of one's own, of which nothing more is known."""

    n_vocab, eot_token = 1 << 20, 7

    def encode_ordinary(self, text: str, /) -> list[int]:
        assert current_thread() is main_thread()
        return [ord(char) for char in text]

    def decode(self, tokens: Sequence[int], /) -> str:
        return "".join(map(chr, tokens))


TOKENIZERS: dict[str, Tokenizer] = {
    "gpt2": gpt2_tokenizer(),
    "trimmed": trim_vocabulary(gpt2_tokenizer(), TEXT),
    "characters": CharTokenizer.from_text(TEXT + SIGNS + END),
    "another pattern": byte_pairs(pat_str=r"\S+\s+\S+|[\s\S]"),
    "another library": Letters(),
}


def expected(documents: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    return [
        id_ for document in documents if document for id_ in [*tokenizer.encode_ordinary(document), tokenizer.eot_token]
    ]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(documents=st.lists(st.text(SIGNS, max_size=30) | st.just(f"a {END} b") | st.just(TEXT[:100]), min_size=1))
def test_every_document_is_encoded_by_itself_and_ended(kind: str, documents: list[str]) -> None:
    """Short ones share a piece, long ones have several."""
    tokenizer = TOKENIZERS[kind]
    if not any(documents):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.data.pieces, "_PIECE", 20)
        ids = encode_documents(documents, tokenizer)
    assert ids.tolist() == expected(documents, tokenizer)
    assert ids.dtype == (np.uint16 if tokenizer.n_vocab <= 65_536 else np.uint32)


def test_the_end_of_text_in_a_document_is_text() -> None:
    tokenizer = gpt2_tokenizer()
    documents = [f"one{END}", "two", END, f"<|endof{END}text|>"]
    assert encode_documents(documents).tolist() == expected(documents, tokenizer)
    assert encode_documents(documents).tolist().count(tokenizer.eot_token) == 4


def test_nothing_to_encode_is_an_error() -> None:
    nothing: list[list[str]] = [[], [""], ["", ""]]
    for documents in nothing:
        with pytest.raises(ValueError, match="there are no documents, or all are empty"):
            encode_documents(documents)
    with pytest.raises(ValueError, match=r"must have the token <\|endoftext\|>"):
        encode_documents(["a"], byte_pairs(special_tokens={}))
    with pytest.raises(ValueError, match=r"'好' \(U\+597D\) at position 1 is not among the 2"):
        encode_documents(["ab", "a好"], CharTokenizer("ab"))
    with pytest.raises(ValueError, match=r"documents\[1\] has a lone surrogate"):
        encode_documents(["ab", "a\ud800"], CharTokenizer("ab"))


@pytest.mark.parametrize(("count", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_the_type_holds_every_id(count: int, dtype: type) -> None:
    """The end of text has the largest id: 65,535, then 65,536."""
    tokenizer = CharTokenizer("".join(map(chr, range(0x10000, 0x10000 + count))))
    ids = encode_documents([tokenizer.characters[-1]], tokenizer)
    assert ids.dtype == dtype
    assert ids.tolist() == [count - 1, count]


@pytest.mark.parametrize("wrong", [-1, 300, 70_000])
def test_an_id_outside_the_vocabulary_is_an_error(wrong: int) -> None:
    """It was written as another id, by the remainder of 65,536."""

    class Wrong(Letters):
        n_vocab = 300

        def encode_ordinary(self, text: str, /) -> list[int]:
            return [1, wrong] if text else []

    with pytest.raises(ValueError, match=r"a vocabulary of 300 but gave ids from .*; its n_vocab must be larger"):
        encode_documents(["a"], Wrong())


def test_many_short_documents_are_few_calls_and_a_long_one_is_several() -> None:
    tokenizer = gpt2_tokenizer()
    pieces = list(pieces_of_documents(["Emma"] * 300_000, tokenizer))
    assert [len(piece.texts) for piece in pieces] == [52_429] * 5 + [37_855]
    long = TEXT * 30
    parts = list(pieces_of_documents(["a", long, "b"], tokenizer))
    assert "".join(text for part in parts[1:-1] for text in part.texts) == long
    assert [part.ended for part in parts] == [True, *[False] * (len(parts) - 3), True, True]
    assert max(len(part.texts[0]) for part in parts) <= 1 << 18
    assert len(list(pieces_of_documents([long], Letters()))) == 1


def test_a_long_stretch_that_cannot_be_cut_is_one_piece() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.data.pieces, "_PIECE", 4)
        pieces = list(pieces_of_text(["a bc d", "x" * 100, " c d e f"], gpt2_tokenizer()))
    texts = [piece.texts[0] for piece in pieces]
    assert "".join(texts) == "a bc d" + "x" * 100 + " c d e f"
    assert len(texts) > 2
    assert sum("x" in text for text in texts) == 1


def test_an_error_in_the_source_ends_the_threads() -> None:
    def pieces() -> Iterator[Piece]:
        for _ in range(20):
            yield Piece([TEXT], ended=False)
        raise KeyboardInterrupt

    before = active_count()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        list(encode_pieces(pieces(), gpt2_tokenizer(), 2))
    assert active_count() == before
    assert time.perf_counter() - began < 60


# --- with gigatoken ---


def drawn(rng: random.Random) -> str:
    """Returns a text of one kind or another: signs at which the pattern turns, any characters, runs, words."""
    kinds = [
        lambda: "".join(rng.choice(SIGNS) for _ in range(rng.randint(1, 40))),
        lambda: "".join(
            rng.choice([chr(rng.randrange(0xD800)), chr(rng.randrange(0xE000, 0x110000))]) for _ in range(20)
        ),
        lambda: "".join(chr(rng.randrange(0x300)) for _ in range(rng.randint(1, 30))),
        lambda: rng.choice(SIGNS) * rng.randint(1, 400),
        lambda: "".join(chr(rng.randrange(0x4E00, 0x9FA6)) for _ in range(rng.randint(1, 60))),
        lambda: TEXT[(begin := rng.randrange(len(TEXT))) : begin + rng.randint(1, 200)],
        lambda: "".join(rng.choice(["'s", " 'll", "I'VE", "  ", "\n\n", END, "don't", "\r\n"]) for _ in range(9)),
    ]
    return rng.choice(kinds)()


@pytest.mark.parametrize("kind", ["gpt2", "trimmed", "trained", "as OpenAI writes the pattern"])
def test_gigatoken_gives_the_same_ids(kind: str) -> None:
    pytest.importorskip("gigatoken")
    tokenizers: dict[str, Any] = {
        **TOKENIZERS,
        "as OpenAI writes the pattern": byte_pairs(
            pat_str=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        ),
    }
    if kind == "trained":
        rustbpe = pytest.importorskip("rustbpe")
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator([TEXT], vocab_size=1500, pattern=gpt2_tokenizer()._pat_str)
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        tokenizers[kind] = tiktoken.Encoding(
            "trained", pat_str=gpt2_tokenizer()._pat_str, mergeable_ranks=ranks, special_tokens={END: len(ranks)}
        )
    tokenizer = tokenizers[kind]
    encode = fast_encoder(tokenizer)
    assert encode is not None
    rng = random.Random(0)  # noqa: S311
    texts = [drawn(rng) for _ in range(500)]
    assert encode(Piece(texts, ended=True)).tolist() == expected(texts, tokenizer)
    for text in texts:
        assert encode(Piece([text], ended=False)).tolist() == tokenizer.encode_ordinary(text)


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_pairs(pat_str=r"\S+|\s+"),
        tiktoken.Encoding(
            "unreachable",
            pat_str=gpt2_tokenizer()._pat_str,
            mergeable_ranks={bytes([byte]): byte for byte in range(256)} | {b"abcd": 256, b"bc": 257},
            special_tokens={END: 258},
        ),
        tiktoken.Encoding(
            "gap",
            pat_str=gpt2_tokenizer()._pat_str,
            mergeable_ranks={bytes([byte]): byte for byte in range(256)} | {b"ab": 300},
            special_tokens={END: 301},
        ),
    ],
    ids=["another pattern", "a token that no merges make", "ids with a gap"],
)
def test_gigatoken_is_not_used_where_its_ids_may_differ(tokenizer: tiktoken.Encoding) -> None:
    pytest.importorskip("gigatoken")
    assert fast_encoder(tokenizer) is None


def test_gigatoken_is_made_anew_and_several_threads_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It remembers every word, without end; and one of its methods fails while another thread is in it."""
    pytest.importorskip("gigatoken")
    made = []

    def make(encoder: FastEncoder) -> Any:  # noqa: ANN401
        made.append(encoder)
        return original(encoder)

    original = FastEncoder._make
    monkeypatch.setattr(FastEncoder, "_make", make)
    monkeypatch.setattr(tinygpt2.data.fast, "_MOST_REMEMBERED", 50_000)
    monkeypatch.setattr(tinygpt2.data.pieces, "_PIECE", 1000)
    tokenizer = gpt2_tokenizer()
    pieces = [*pieces_of_text([TEXT], tokenizer), *pieces_of_documents(TEXT.split(), tokenizer)]
    ids = [part.ids.tolist() for part in encode_pieces(pieces, tokenizer, 4)]
    assert len(made) > 2
    for piece, found in zip(pieces, ids, strict=True):
        whole = tokenizer.encode_ordinary(piece.texts[0])
        assert found == (expected(piece.texts, tokenizer) if piece.ended else whole)


def test_many_pieces_are_encoded_by_gigatoken_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    made = []

    def make(tokenizer: tiktoken.Encoding) -> Any:  # noqa: ANN401
        made.append(tokenizer)
        return fast_encoder(tokenizer)

    monkeypatch.setattr(tinygpt2.data.encoding, "fast_encoder", make)
    monkeypatch.setattr(tinygpt2.data.pieces, "_PIECE", 1000)
    assert encode_documents([TEXT[:2000]]).tolist() == expected([TEXT[:2000]], gpt2_tokenizer())
    assert not made
    assert encode_documents([TEXT]).tolist() == expected([TEXT], gpt2_tokenizer())
    assert made == [gpt2_tokenizer()]
