"""What a file of tokens knows about its text and its tokenizer."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken

import tinygpt2.data.pieces
from tinygpt2 import (
    CharTokenizer,
    TokenFile,
    Tokenizer,
    gpt2_tokenizer,
    make_dataloader,
    sample_text,
    tokenize_to_file,
    trim_vocabulary,
)
from tinygpt2.tokenizers.identity import tokenizer_identity

END = "<|endoftext|>"
TEXT = sample_text()
LETTERS = CharTokenizer("abc")


def byte_pairs(**options: Any) -> tiktoken.Encoding:  # noqa: ANN401
    gpt2 = gpt2_tokenizer()
    same: dict[str, Any] = {
        "pat_str": gpt2._pat_str,
        "mergeable_ranks": gpt2._mergeable_ranks,
        "special_tokens": {END: gpt2.eot_token},
    }
    return tiktoken.Encoding("ours", **(same | options))


def test_each_document_is_ended_and_all_are_counted(tmp_path: Path) -> None:
    documents = ["ab", "", "c", "", ""]
    file = tokenize_to_file(iter(documents), tmp_path / "out", tokenizer=LETTERS, documents=True)
    assert file.tokens.tolist() == [0, 1, 3, 2, 3]
    assert (file.documents, file.empty_documents, file.bytes, file.eot_token) == (2, 3, 3, 3)
    joined = tokenize_to_file(iter(documents), tmp_path / "joined", tokenizer=LETTERS)
    assert joined.tokens.tolist() == [0, 1, 2]
    assert (joined.documents, joined.empty_documents, joined.bytes, joined.eot_token) == (None, None, 3, 3)


def test_bytes_are_those_of_the_text_in_utf_8(tmp_path: Path) -> None:
    for documents in (False, True):
        file = tokenize_to_file(["é好", "😀", "a"], tmp_path / "out", documents=documents)
        assert file.bytes == 2 + 3 + 4 + 1
    (tmp_path / "text").write_bytes("\ufeffé\r\n".encode())
    assert tokenize_to_file([tmp_path / "text"], tmp_path / "out").bytes == 3


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_file_does_not_depend_on_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    expected = [
        tokenize_to_file(TEXT.split("\n"), tmp_path / "out", documents=it).path.read_bytes() for it in (False, True)
    ]
    monkeypatch.setattr(tinygpt2.data.pieces, "_PIECE", 700)
    for documents in (False, True):
        file = tokenize_to_file(TEXT.split("\n"), tmp_path / "out", documents=documents, threads=threads)
        assert file.path.read_bytes() == expected[documents]


def test_a_part_knows_what_holds_for_it(tmp_path: Path) -> None:
    file = tokenize_to_file(["ab", "", "c"], tmp_path / "out", tokenizer=LETTERS, documents=True)
    part = file[:2]
    assert (part.documents, part.empty_documents, part.bytes) == (None, None, None)
    assert (part.eot_token, part.tokenizer_sha256) == (3, tokenizer_identity(LETTERS))
    assert (file[:].documents, file[:].empty_documents, file[:].bytes) == (2, 1, 3)
    for it in (part, part[:], file):
        again = [pickle.loads(pickle.dumps(it)), copy.copy(it)]  # noqa: S301 - this test's own
        assert [(each.documents, each.bytes) for each in again] == [(it.documents, it.bytes)] * 2


def test_no_documents_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no tokens to write: there are no documents"):
        tokenize_to_file([], tmp_path / "out", documents=True)
    with pytest.raises(ValueError, match="there are no tokens to write: all 2 documents are empty"):
        tokenize_to_file(["", ""], tmp_path / "out", documents=True)
    with pytest.raises(ValueError, match=r"must have the token <\|endoftext\|>"):
        tokenize_to_file(["a"], tmp_path / "out", documents=True, tokenizer=byte_pairs(special_tokens={}))
    with pytest.raises(TypeError, match="documents must be True or False, got 1"):
        tokenize_to_file(["a"], tmp_path / "out", documents=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"source\[1\].* must be a str, got 3"):
        tokenize_to_file(["a", 3], tmp_path / "out", documents=True)  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_ends_no_text_makes_a_file_of_one_text(tmp_path: Path) -> None:
    file = tokenize_to_file(["a b"], tmp_path / "out", tokenizer=byte_pairs(special_tokens={}))
    assert file.eot_token is None
    assert TokenFile(file.path).tokens.tolist() == gpt2_tokenizer().encode_ordinary("a b")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[str]:
        for _ in range(30):
            yield TEXT
        raise KeyboardInterrupt

    for documents in (False, True):
        with pytest.raises(KeyboardInterrupt):
            tokenize_to_file(interrupted(), tmp_path / "out", documents=documents)
    assert list(tmp_path.iterdir()) == []


# --- the identity of a tokenizer ---


class Foreign:
    """A tokenizer of another library, whose wrapper may know its serialised form."""

    n_vocab, eot_token = 4, 3

    def __init__(self, form: str | None) -> None:
        self.form = form

    def encode_ordinary(self, text: str, /) -> list[int]:
        return LETTERS.encode_ordinary(text)

    def decode(self, tokens: Any, /) -> str:  # noqa: ANN401
        return LETTERS.decode(tokens)

    def identity(self) -> str | None:
        return self.form


def test_tokenizers_that_give_other_ids_have_other_identities() -> None:
    gpt2 = gpt2_tokenizer()
    swapped = dict(gpt2._mergeable_ranks)
    swapped[b"a"], swapped[b"b"] = swapped[b"b"], swapped[b"a"]
    different: list[Any] = [
        gpt2,
        byte_pairs(mergeable_ranks=swapped),
        byte_pairs(pat_str=r"\S+|\s+"),
        byte_pairs(special_tokens={END: 50_257}),
        trim_vocabulary(gpt2, TEXT),
        LETTERS,
        CharTokenizer("acb"),
        Foreign("one"),
        Foreign("two"),
    ]
    identities = [tokenizer_identity(tokenizer) for tokenizer in different]
    assert len(set(identities)) == len(different)
    assert None not in identities


def test_the_same_tokenizer_has_the_same_identity() -> None:
    assert tokenizer_identity(byte_pairs()) == tokenizer_identity(gpt2_tokenizer())
    theirs = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    assert tokenizer_identity(byte_pairs(pat_str=theirs)) == tokenizer_identity(gpt2_tokenizer())
    assert tokenizer_identity(CharTokenizer("abc")) == tokenizer_identity(LETTERS)
    assert tokenizer_identity(Foreign("one")) == tokenizer_identity(Foreign("one"))
    assert tokenizer_identity(Foreign(None)) is None


def test_another_tokenizer_of_the_same_size_is_an_error(tmp_path: Path) -> None:
    """The ids were taken for those of the other one, in silence."""
    file = tokenize_to_file(["abcabcabc"], tmp_path / "out", tokenizer=LETTERS)
    for it in (file, TokenFile(file.path), file[2:]):
        it.check_tokenizer(CharTokenizer("abc"))
        with pytest.raises(ValueError, match=r"out was made with another tokenizer, .* of 4 has the same size; load"):
            it.check_tokenizer(CharTokenizer("acb"))
        with pytest.raises(
            ValueError, match=r"out has tokens of a vocabulary of 4, but the tokenizer has 50,257; load"
        ):
            it.check_tokenizer(gpt2_tokenizer())
        with pytest.raises(TypeError, match="tokenizer must be an object with"):
            it.check_tokenizer(CharTokenizer)  # type: ignore[arg-type]
    make_dataloader(file, batch_size=1, context_length=2, tokenizer=LETTERS)
    with pytest.raises(ValueError, match="was made with another tokenizer"):
        make_dataloader(file, batch_size=1, context_length=2, tokenizer=CharTokenizer("acb"))


def test_where_an_identity_is_not_known_the_size_decides(tmp_path: Path) -> None:
    known = tokenize_to_file(["abc"], tmp_path / "known", tokenizer=LETTERS)
    unknown = tokenize_to_file(["abc"], tmp_path / "unknown", tokenizer=Foreign(None))
    assert unknown.tokenizer_sha256 is None
    either: list[tuple[TokenFile, Tokenizer]] = [(known, Foreign(None)), (unknown, LETTERS)]
    for file, tokenizer in either:
        file.check_tokenizer(tokenizer)
        with pytest.raises(ValueError, match="has tokens of a vocabulary of 4"):
            file.check_tokenizer(CharTokenizer("ab"))


@pytest.mark.parametrize(("count", "dtype"), [(65_535, "<u2"), (65_536, "<u4")])
def test_the_type_is_the_smallest_at_the_border(tmp_path: Path, count: int, dtype: str) -> None:
    tokenizer = CharTokenizer("".join(map(chr, range(0x10000, 0x10000 + count))))
    file = tokenize_to_file([tokenizer.characters[-1]], tmp_path / "out", tokenizer=tokenizer, documents=True)
    assert (file.n_vocab, file.tokens.dtype) == (count + 1, np.dtype(dtype))
    assert file.tokens.tolist() == [count - 1, count]
