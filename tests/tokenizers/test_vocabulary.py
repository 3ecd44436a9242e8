"""Vocabularies that are learned from text, against a slow definition and a second implementation."""

import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygpt2.tokenizers.vocabulary
from tinygpt2 import gpt2_tokenizer, load_tokenizer, sample_text, save_tokenizer
from tinygpt2.tokenizers.byte_pairs import LONGEST_TOKEN, MOST_TOKENS, SPLIT_PATTERN
from tinygpt2.tokenizers.identity import token_bytes
from tinygpt2.tokenizers.vocabulary import add_special_tokens, count_words, train_tokenizer

END_OF_TEXT = "<|endoftext|>"
PROSE = " ".join(topics.values())[:100_000]
CHINESE = "黑云压城城欲摧，甲光向日金鳞开。角声满天秋色里，塞上燕脂凝夜紫。\n" * 3
MANY = 2000  # more tokens than the texts of hypothesis support

# Unassigned characters are left out: which of them are letters depends on the version of Unicode.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
FEW = st.text("ab '你🙂\n", min_size=1, max_size=200)  # in which pairs occur again, and overlap
TEXTS = FEW | st.text(CHARACTERS, min_size=1) | st.text("ab", min_size=1, max_size=200)


def learned(documents: Any, vocab_size: int = MANY, **options: Any) -> tiktoken.Encoding:  # noqa: ANN401
    """Returns the tokenizer, whether or not the text supports so many tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return train_tokenizer(documents, vocab_size, **options)


def tokens_of(tokenizer: tiktoken.Encoding) -> list[bytes]:
    return [tokenizer.decode_single_token_bytes(i) for i in range(len(tokenizer._mergeable_ranks))]


def merges_by_definition(text: str, most: int) -> tuple[list[tuple[int, int]], list[bytes]]:
    """Returns the merges and all tokens, with the pairs counted anew before each merge."""
    words = [list(word.encode()) for word in regex.findall(SPLIT_PATTERN, text)]
    tokens, merges = [bytes([byte]) for byte in range(256)], []
    while len(tokens) < most:
        counts = Counter(pair for word in words for pair in pairwise(word))
        count, first, second = min(((-count, *pair) for pair, count in counts.items()), default=(0, 0, 0))
        if count > -2:
            break
        words = [merged(word, first, second, len(tokens)) for word in words]
        tokens.append(tokens[first] + tokens[second])
        merges.append((first, second))
    return merges, tokens


def merged(word: list[int], first: int, second: int, new: int) -> list[int]:
    result: list[int] = []
    for token in word:
        if result and (result[-1], token) == (first, second):
            result[-1] = new
        else:
            result.append(token)
    return result


@given(text=TEXTS)
@settings(max_examples=100)
def test_tokens_are_those_of_the_definition(text: str) -> None:
    assert tokens_of(learned(text)) == merges_by_definition(text, MANY)[1]


@given(text=TEXTS, other=TEXTS)
def test_ids_are_those_that_merging_in_order_gives(text: str, other: str) -> None:
    merges, _ = merges_by_definition(text, MANY)
    expected: list[int] = []
    for word in regex.findall(SPLIT_PATTERN, other):
        ids = list(word.encode())
        for i, (first, second) in enumerate(merges):
            ids = merged(ids, first, second, 256 + i)
        expected += ids
    assert learned(text).encode_ordinary(other) == expected


def test_a_long_text_has_the_tokens_of_the_definition() -> None:
    text = sample_text()[:5_000] + CHINESE
    assert tokens_of(train_tokenizer(text, 331)) == merges_by_definition(text, 330)[1]


@pytest.mark.parametrize(("text", "size"), [(PROSE, 2000), (sample_text(), 1500), (CHINESE, 400), ("a" * 999, 264)])
def test_tokens_are_those_of_a_second_implementation(text: str, size: int) -> None:
    """It merges pairs that occur once, too, so that it may have more."""
    rustbpe = pytest.importorskip("rustbpe")
    other = rustbpe.Tokenizer()
    other.train_from_iterator(iter([text]), size - 1, pattern=SPLIT_PATTERN)
    tokens = tokens_of(learned(text, size))
    assert len(tokens) > 260
    assert tokens == [token for token, _ in other.get_mergeable_ranks()][: len(tokens)]


@given(text=TEXTS, other=st.text())
def test_every_text_is_lossless(text: str, other: str) -> None:
    tokenizer = learned(text, special_tokens=["<|user|>"])
    ids = tokenizer.encode_ordinary(other)
    assert tokenizer.decode(ids) == other
    assert all(0 <= i < len(tokenizer._mergeable_ranks) for i in ids)


@given(documents=st.lists(TEXTS, min_size=1, max_size=5))
def test_learning_is_deterministic_whatever_brings_the_documents(documents: list[str]) -> None:
    tokens = tokens_of(learned(documents))
    assert tokens == tokens_of(learned(iter(documents)))
    assert tokens == tokens_of(learned(["", *documents[::-1]]))  # nor does their order matter
    assert tokens_of(learned(documents[0])) == tokens_of(learned([documents[0]]))


def test_no_token_crosses_from_a_document_into_the_next() -> None:
    tokenizer = learned(["the end", "the end"])
    assert b" end" in tokens_of(tokenizer)
    assert not any(b"dt" in token for token in tokens_of(tokenizer))


@given(text=st.text("a \n你,", min_size=1), piece=st.integers(0, 9))
def test_a_long_text_is_cut_where_no_word_is(text: str, piece: int) -> None:
    whole = Counter(regex.findall(SPLIT_PATTERN, text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.tokenizers.vocabulary, "_PIECE", piece)
        assert count_words("text", text) == whole


def test_documents_are_read_one_at_a_time() -> None:
    read: list[int] = []

    def documents() -> Iterator[str]:
        for i in range(3):
            read.append(i)
            yield "abc abc"
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train_tokenizer(documents(), 300)
    assert read == [0, 1, 2]


# --- sizes ---


def test_the_size_is_that_of_the_whole_vocabulary() -> None:
    tokenizer = train_tokenizer(PROSE, 1000)
    assert (tokenizer.n_vocab, tokenizer.eot_token, tokenizer.decode([999])) == (1000, 999, END_OF_TEXT)
    assert tokenizer._pat_str == gpt2_tokenizer()._pat_str
    assert tokens_of(tokenizer)[:256] == [bytes([byte]) for byte in range(256)]
    sizes = token_bytes(tokenizer)
    assert sizes is not None
    assert sum(sizes[i] for i in tokenizer.encode_ordinary(PROSE)) == len(PROSE.encode())
    assert len(tokenizer.encode_ordinary(PROSE)) < 0.45 * len(PROSE)


def test_the_smallest_vocabulary_has_the_bytes_and_the_end() -> None:
    tokenizer = train_tokenizer(PROSE, 257)
    assert tokenizer.n_vocab == 257
    assert tokenizer.encode_ordinary("é") == [0xC3, 0xA9]


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one() -> None:
    assert tokens_of(train_tokenizer(PROSE, 900)) == tokens_of(train_tokenizer(PROSE, 1000))[:899]


def test_a_vocabulary_that_the_text_does_not_support_is_cut_with_a_warning() -> None:
    with pytest.warns(
        UserWarning, match="the vocabulary has 259 tokens, 741 fewer than vocab_size: no other pair"
    ) as w:
        tokenizer = train_tokenizer("abc abc", 1000)
    assert w[0].filename == __file__
    assert tokens_of(tokenizer)[256:] == [b"ab", b"abc"]
    with pytest.warns(UserWarning, match="has 257 tokens, 743 fewer"):
        assert train_tokenizer("abcdef", 1000).n_vocab == 257


def test_no_token_is_longer_than_tokens_may_be() -> None:
    tokenizer = learned("=" * 10_000)
    assert max(map(len, tokens_of(tokenizer))) == LONGEST_TOKEN
    assert tokenizer.decode(tokenizer.encode_ordinary("=" * 9_999)) == "=" * 9_999


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (256, ValueError, "vocab_size must be at least 257, got 256"),
        (-1, ValueError, "vocab_size must be at least 257, got -1"),
        (MOST_TOKENS + 1, ValueError, "vocab_size must be at most 524288, got 524289"),
        (300.0, TypeError, r"vocab_size must be an integer, got 300\.0 \(float\)"),
        (True, TypeError, r"vocab_size must be an integer, got True \(bool\)"),
    ],
)
def test_wrong_sizes_are_refused(size: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        train_tokenizer(PROSE, size)


# --- special tokens ---


def test_special_tokens_come_last_and_the_end_of_text_after_them() -> None:
    tokenizer = train_tokenizer(PROSE, 500, special_tokens=["<|user|>", "<|assistant|>"])
    assert tokenizer.n_vocab == 500
    assert tokenizer._special_tokens == {"<|user|>": 497, "<|assistant|>": 498, END_OF_TEXT: 499}
    assert tokens_of(tokenizer) == tokens_of(train_tokenizer(PROSE, 498))
    text = f"<|user|>{END_OF_TEXT}"
    assert tokenizer.encode(text, allowed_special="all") == [497, 499]
    assert not {497, 498, 499} & set(tokenizer.encode_ordinary(text))
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text
    with pytest.raises(ValueError, match="vocab_size must be at least 259, got 258"):
        train_tokenizer(PROSE, 258, special_tokens=["<|user|>", "<|assistant|>"])


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([""], ValueError, r"special_tokens\[0\] is empty: ''; leave it out"),
        (["<a>", "<a>"], ValueError, r"special_tokens\[1\] occurs twice: '<a>'; leave it out"),
        ([END_OF_TEXT], ValueError, r"special_tokens\[0\] is always a special token: '<\|endoftext\|>'; leave it out"),
        (["\ud800"], ValueError, r"special_tokens\[0\] has a lone surrogate"),
        (["<a>", 1], TypeError, r"special_tokens\[1\] must be a str, got 1 \(int\)"),
        ("<a>", TypeError, r"special_tokens must be several str, got '<a>' \(str\)"),
        (None, TypeError, r"special_tokens must be several str, got None \(NoneType\)"),
    ],
)
def test_wrong_special_tokens_are_refused(names: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        train_tokenizer(PROSE, 500, special_tokens=names)


# --- what is no text ---


@pytest.mark.parametrize("documents", ["", [], [""], iter(["", ""])])
def test_nothing_is_learned_from_nothing(documents: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="documents must have some text to learn a vocabulary from, got none"):
        train_tokenizer(documents, 300)


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        (b"ab", TypeError, r"documents must be a str, got b'ab' \(bytes\); decode it"),
        (None, TypeError, r"documents must be a str, got None"),
        (["a", 1], TypeError, r"documents\[1\] must be a str, got 1 \(int\)"),
        ({"a": "b"}, TypeError, r"documents must be several str, got {'a': 'b'} \(dict\); pass its values"),
        ("ab\udc80", ValueError, r"documents has a lone surrogate, U\+DC80, at position 2"),
        (["", "ab\udc80"], ValueError, r"documents\[1\] has a lone surrogate, U\+DC80, at position 2"),
    ],
)
def test_what_is_no_text_is_refused(documents: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        train_tokenizer(documents, 300)


@given(
    names=st.lists(st.text(CHARACTERS, min_size=1).filter(lambda name: name != END_OF_TEXT), unique=True, max_size=4)
)
def test_added_special_tokens_change_no_id_and_are_never_in_a_text(names: list[str]) -> None:
    before = learned(PROSE[:3000], 400, special_tokens=["<|system|>"])
    names = [name for name in names if name != "<|system|>"]
    after = add_special_tokens(before, names)
    assert after.n_vocab == before.n_vocab + len(names)
    assert after.eot_token == before.eot_token
    text = PROSE[:500] + "".join(names) + "<|system|>"
    assert after.encode_ordinary(text) == before.encode_ordinary(text)
    for i, name in enumerate(names):
        assert after.encode(name, allowed_special={name}, disallowed_special=()) == [before.n_vocab + i]
    assert after.encode_single_token("<|system|>") == before.encode_single_token("<|system|>")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("<|system|>", "'<|system|>' is a special token of the tokenizer already; leave it out"),
        (END_OF_TEXT, "special_tokens[0] is always a special token"),
        ("", "special_tokens[0] is empty"),
    ],
)
def test_a_special_token_that_is_there_is_not_added(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=regex.escape(message)):
        add_special_tokens(learned("abcabc", 300, special_tokens=["<|system|>"]), [name])


def test_added_special_tokens_are_saved_and_transformers_has_the_same_ids(tmp_path: Path) -> None:
    tokenizer = add_special_tokens(gpt2_tokenizer(), ["<|user|>", "<|bot|>"])
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, tiktoken.Encoding)
    text = "<|user|>Hello 你好<|bot|>"
    ids = tokenizer.encode(text, allowed_special="all")
    assert again.encode(text, allowed_special="all") == ids
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).encode(text) == ids
