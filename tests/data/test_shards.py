"""Corpora in several files: an interrupted call continues, and its files are those of a call that was not."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import CharTokenizer, TokenFile, gpt2_tokenizer, sample_text, tokenize_to_file
from tinygpt2.data.shards import check_complete, tokenize_to_shards

TEXT = sample_text()[:30_000]
LINES = TEXT.splitlines(keepends=True)
DOCUMENTS = [line for line in TEXT.splitlines() if line]
OPTIONS: dict[bool, dict[str, Any]] = {
    False: {"shard_bytes": 4000},
    True: {"shard_bytes": 4000, "documents": True},
}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def interrupted(texts: Iterable[str], after: int) -> Iterator[str]:
    """Yields so many characters and is then interrupted."""
    for text in texts:
        yield text
        after -= len(text)
        if after < 0:
            raise KeyboardInterrupt


@given(
    parts=st.lists(st.text(" \n\taé好，。😀x", max_size=30), min_size=1),
    shard_bytes=st.integers(1, 60),
)
def test_the_ids_of_all_files_are_those_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], shard_bytes: int
) -> None:
    """And where the files end does not depend on the parts in which the text comes."""
    text = "".join(parts)
    if not text:
        return
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    shards = tokenize_to_shards(parts, one, shard_bytes=shard_bytes)
    tokenize_to_shards(iter(text), two, shard_bytes=shard_bytes, threads=1)
    assert contents(one) == contents(two)
    ids = np.concatenate([shard.tokens for shard in shards]).tolist()
    assert ids == gpt2_tokenizer().encode_ordinary(text)
    assert sum(shard.bytes or 0 for shard in shards) == len(text.encode())
    assert all((shard.bytes or 0) >= shard_bytes for shard in shards[:-1])


def test_a_file_ends_soon_after_so_many_bytes(tmp_path: Path) -> None:
    shards = tokenize_to_shards([TEXT], tmp_path, shard_bytes=4000)
    assert len(shards) == 8
    assert all(4000 <= (shard.bytes or 0) < 4050 for shard in shards[:-1])
    assert [shard.path.name for shard in shards[:2]] == ["00000.tokens", "00001.tokens"]


def test_a_document_is_in_one_file(tmp_path: Path) -> None:
    documents = ["", "one two", "", "", "three", "x" * 50, "", "four", ""]
    shards = tokenize_to_shards(iter(documents), tmp_path, shard_bytes=10, documents=True, tokenizer=gpt2_tokenizer())
    texts = [gpt2_tokenizer().decode(shard.tokens.tolist()) for shard in shards]
    assert texts == ["one two<|endoftext|>three<|endoftext|>", "x" * 50 + "<|endoftext|>", "four<|endoftext|>"]
    assert [shard.documents for shard in shards] == [2, 1, 1]
    assert [shard.empty_documents for shard in shards] == [3, 1, 1]
    assert [shard.bytes for shard in shards] == [12, 50, 4]


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("after", [0, 4500, 9000, 29_000])
def test_an_interrupted_call_continues(tmp_path: Path, documents: bool, after: int) -> None:
    texts, options = DOCUMENTS if documents else LINES, OPTIONS[documents]
    tokenize_to_shards(texts, tmp_path / "straight", **options)
    expected = contents(tmp_path / "straight")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tokenize_to_shards(interrupted(texts, after), tmp_path / "resumed", **options)
        made = contents(tmp_path / "resumed")
        assert after // 5000 <= len(made) <= after // 4000
        assert made.items() <= expected.items()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "resumed").iterdir()}
    shards = tokenize_to_shards(texts, tmp_path / "resumed", threads=1, **options)
    assert contents(tmp_path / "resumed") == expected
    assert [len(shard) for shard in shards] == [
        len(TokenFile(path)) for path in sorted((tmp_path / "resumed").iterdir())
    ]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize("documents", [False, True])
def test_a_finished_corpus_reads_no_text(tmp_path: Path, documents: bool) -> None:
    def none() -> Iterator[str]:
        pytest.fail("the text was read")
        yield ""

    texts, options = DOCUMENTS if documents else LINES, OPTIONS[documents]
    shards = tokenize_to_shards(texts, tmp_path, **options)
    again = tokenize_to_shards(none(), tmp_path, **options)
    assert [shard.sha256 for shard in again] == [shard.sha256 for shard in shards]


def test_files_of_another_text_or_with_other_options_are_told(tmp_path: Path) -> None:
    def again(texts: Iterable[str], **changes: Any) -> None:  # noqa: ANN401
        tokenize_to_shards(
            texts, tmp_path, **{"shard_bytes": 4000, "tokenizer": CharTokenizer.from_text(TEXT), **changes}
        )

    with pytest.raises(KeyboardInterrupt):
        again(interrupted(LINES, 9000))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"00001\.tokens was made of another text than this one"):
        again([TEXT[:5000], "x", TEXT[5001:]])
    with pytest.raises(ValueError, match=r"00000\.tokens was made of another text than this one"):
        again([TEXT[:3000]])
    with pytest.raises(ValueError, match="was made with shard_bytes=4000, not 5000; pass the same to continue"):
        again(LINES, shard_bytes=5000)
    with pytest.raises(ValueError, match="was made with documents=False, not True"):
        again(DOCUMENTS, documents=True)
    other = CharTokenizer("".join(reversed(CharTokenizer.from_text(TEXT).characters)))
    with pytest.raises(ValueError, match=r"00000\.tokens was made with another tokenizer"):
        again(LINES, tokenizer=other)
    with pytest.raises(ValueError, match=r"00000\.tokens has tokens of a vocabulary of"):
        again(LINES, tokenizer=gpt2_tokenizer())
    assert contents(tmp_path) == before
    again(LINES)
    assert len(contents(tmp_path)) == 8


def test_files_in_the_way_are_told(tmp_path: Path) -> None:
    shards = tokenize_to_shards(LINES, tmp_path, shard_bytes=4000)
    shards[3].path.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"00004\.tokens does not belong to the files before it; delete it"):
        tokenize_to_shards(LINES, tmp_path, shard_bytes=4000)
    (tmp_path / "elsewhere").rename(shards[3].path)
    short = tokenize_to_shards([TEXT[:9000]], tmp_path / "short", shard_bytes=4000)
    short[2].path.replace(shards[2].path)
    with pytest.raises(ValueError, match=r"00007\.tokens does not belong to the files before it"):
        tokenize_to_shards(LINES, tmp_path, shard_bytes=4000)
    tokenize_to_file(["a"], shards[0].path)
    with pytest.raises(ValueError, match=r"00000\.tokens is not file 0 of a corpus"):
        tokenize_to_shards(LINES, tmp_path, shard_bytes=4000)
    shards[0].path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"00000\.tokens is not a file of tokens"):
        tokenize_to_shards(LINES, tmp_path, shard_bytes=4000)


def test_what_cannot_be_divided_is_told(tmp_path: Path) -> None:
    gpt2 = gpt2_tokenizer()
    other = tiktoken.Encoding(
        "ours", pat_str=r"\S+|\s+", mergeable_ranks=gpt2._mergeable_ranks, special_tokens={"<|endoftext|>": 50256}
    )
    with pytest.raises(ValueError, match=r"it is not known where a text can be cut .*; pass documents=True, or use"):
        tokenize_to_shards(["text"], tmp_path / "new", tokenizer=other)
    assert (
        len(tokenize_to_shards(["one", "two"], tmp_path / "new", tokenizer=other, documents=True, shard_bytes=2)) == 2
    )
    for empty in (False, True):
        with pytest.raises(ValueError, match="there are no tokens to write: "):
            tokenize_to_shards([""], tmp_path / f"empty{empty}", documents=empty)
    with pytest.raises(ValueError, match="shard_bytes must be at least 1, got 0"):
        tokenize_to_shards(["text"], tmp_path / "new", shard_bytes=0)


# --- shares ---


@pytest.mark.parametrize("documents", [False, True])
def test_shares_are_the_files_of_one_call(tmp_path: Path, *, documents: bool) -> None:
    texts, options = (DOCUMENTS if documents else [TEXT]), OPTIONS[documents]
    whole = tokenize_to_shards(texts, tmp_path / "whole", **options)
    for share in ((2, 3), (3, 3), (2, 3), (1, 3)):  # in any order, also again
        shards = tokenize_to_shards(texts, tmp_path / "shared", share=share, **options)
    assert len(shards) == len(whole) > 3
    for one, other in zip(whole, shards, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
    check_complete(shards)
    assert tokenize_to_shards(iter(()), tmp_path / "shared", **options)[0].sha256 == whole[0].sha256


def test_a_share_writes_its_files_alone(tmp_path: Path) -> None:
    shards = tokenize_to_shards([TEXT], tmp_path, shard_bytes=4000, share=(2, 3))
    assert [shard.path.name for shard in shards] == ["00001.tokens", "00004.tokens", "00007.tokens"]


def test_an_incomplete_corpus_is_told_with_what_is_missing(tmp_path: Path) -> None:
    shards = tokenize_to_shards([TEXT], tmp_path / "a", shard_bytes=4000)
    check_complete(shards)
    with pytest.raises(ValueError, match=r"00003.tokens is missing: there are files up to 00007; run the same"):
        check_complete(shards[:3] + shards[4:])
    with pytest.raises(ValueError, match=r"ends before its text does: it has no file after 00006.tokens"):
        check_complete(shards[:-1])
    other = tokenize_to_shards([TEXT], tmp_path / "b", shard_bytes=5000)
    other[2].path.replace(shards[2].path)
    with pytest.raises(ValueError, match=r"00002.tokens is of another corpus than .*00000.tokens"):
        check_complete([TokenFile(shard.path) for shard in shards])


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ((0, 3), "share\\[0\\] must be at least 1, got 0"),
        ((4, 3), "share\\[0\\] must be at most 3, got 4"),
        ((1, 0), "share\\[1\\] must be at least 1, got 0"),
        ("1/3", "share must be \\(k, n\\), the k-th of n, got '1/3'"),
    ],
)
def test_a_share_that_is_none_is_told(share: Any, message: str, tmp_path: Path) -> None:  # noqa: ANN401
    with pytest.raises((TypeError, ValueError), match=message):
        tokenize_to_shards([TEXT], tmp_path, share=share)
