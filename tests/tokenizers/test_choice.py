"""The choice of a tokenizer for a text."""

import random
import warnings
from itertools import pairwise, product
from pydoc_data.topics import topics
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import CharTokenizer, gpt2_tokenizer, sample_text, trim_vocabulary
from tinygpt2.tokenizers.choice import TokenizerChoice, choose_tokenizer, tokens_for, tokens_of_characters
from tinygpt2.tokenizers.vocabulary import train_tokenizer

ENGLISH = " ".join(topics.values())[:50_000]
CHARACTERS = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少床前明月光疑是地上霜举头望低思故乡"
CHINESE = "".join(random.Random(0).choices(CHARACTERS + "，。\n", k=3000))  # noqa: S311


def ranks(tokenizer: "tiktoken.Encoding | CharTokenizer") -> dict[bytes, int]:
    assert isinstance(tokenizer, tiktoken.Encoding)
    return tokenizer._mergeable_ranks


def test_each_kind_is_what_its_own_function_returns() -> None:
    chosen = {kind: choose_tokenizer(ENGLISH, kind) for kind in ("bpe", "trimmed", "gpt2", "char")}
    assert [choice.name for choice in chosen.values()] == list(chosen)
    assert chosen["gpt2"].tokenizer is gpt2_tokenizer()
    assert chosen["char"].tokenizer == CharTokenizer.from_text(ENGLISH, byte_fallback=True)
    assert ranks(chosen["trimmed"].tokenizer) == ranks(trim_vocabulary(gpt2_tokenizer(), ENGLISH))
    size = chosen["bpe"].tokenizer.n_vocab
    assert size <= tokens_for(len(ENGLISH.encode()))  # as many as the text supports
    assert ranks(chosen["bpe"].tokenizer) == ranks(train_tokenizer(ENGLISH, size))
    assert all((choice.per_byte, choice.alternatives) == (None, {}) for choice in chosen.values())


@pytest.mark.parametrize("kind", ["auto", "bpe"])
def test_a_given_size_means_byte_pairs_of_that_size(kind: str) -> None:
    choice = choose_tokenizer(ENGLISH, kind, 700)
    assert (choice.name, choice.tokenizer.n_vocab) == ("bpe", 700)
    assert ranks(choice.tokenizer) == ranks(train_tokenizer(ENGLISH, 700))
    with pytest.warns(UserWarning, match="fewer than vocab_size"):
        choose_tokenizer("abc abc", kind, 700)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, sample_text()[:5000], "ab", "你"], ids=len)
def test_what_is_said_of_each_vocabulary_is_true(text: str) -> None:
    choice = choose_tokenizer(text)
    assert choice.name not in choice.alternatives
    assert {choice.name, *choice.alternatives} == {"bpe", "char", "trimmed", "gpt2"}
    size = len(text.encode())
    assert choice.per_byte == len(choice.tokenizer.encode_ordinary(text)) / size
    for name, (tokens, per_byte) in choice.alternatives.items():
        if name != "bpe":
            tokenizer = choose_tokenizer(text, name).tokenizer
            assert tokens == tokenizer.n_vocab
            assert per_byte == len(tokenizer.encode_ordinary(text)) / size


@pytest.mark.parametrize("kind", ["auto", "bpe", "trimmed", "char"])
def test_documents_are_read_once_whatever_brings_them(kind: str) -> None:
    documents = [ENGLISH[:2000], "", CHINESE[:200]]
    once, again = choose_tokenizer(iter(documents), kind), choose_tokenizer(documents, kind)
    assert str(once) == str(again)
    assert getattr(once.tokenizer, "_mergeable_ranks", None) == getattr(again.tokenizer, "_mergeable_ranks", None)


@given(text=st.text(min_size=1))
def test_the_choice_encodes_every_text_without_loss_and_without_a_warning(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = choose_tokenizer("the cat and the hat").tokenizer
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text


@given(sizes=st.lists(st.integers(1, 10**12), min_size=2).map(sorted))
def test_more_text_never_has_a_smaller_vocabulary(sizes: list[int]) -> None:
    assert all(tokens_for(less) <= tokens_for(more) for less, more in pairwise(sizes))
    assert all(257 <= tokens_for(size) <= 32_768 for size in sizes)


def test_a_list_of_names_is_read_in_characters_if_these_are_few() -> None:
    pieces = ["an", "be", "la", "ro", "mi", "ne", "to", "sa", "ti", "el", "fo", "gu", "hi"]
    names = ["".join(three).title() for three in product(pieces, repeat=3)]
    choice = choose_tokenizer(names * 2)
    assert choice.name == "bpe"
    assert choice.tokenizer.n_vocab > 512
    for documents in (names, "\n".join(names)):
        choice = choose_tokenizer(documents)
        assert choice.reason.endswith("KB, names in Latin letters")
        assert choice.name == "char"
        assert choose_tokenizer(documents, "bpe").tokenizer.n_vocab <= 512
    many = [f"{name}{chr(0x4E00 + number % 500)}" for number, name in enumerate(names)]
    choice = choose_tokenizer(many)
    assert (choice.name, choice.tokenizer.n_vocab) == ("bpe", 512)


@given(characters=st.sets(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_tokens_of_characters_are_counted_before_there_is_a_tokenizer(characters: set[str]) -> None:
    tokenizer = choose_tokenizer("".join(sorted(characters)), "char").tokenizer
    assert tokenizer.n_vocab == tokens_of_characters(len(characters))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENGLISH, "50 KB, Latin letters"),
        ("hello world 你", "15 bytes, mostly Latin letters"),
        ("你好，世界" * 100, "1.5 KB, Chinese characters"),
        ("こんにちは" * 10 + "世界", "156 bytes, mostly kana"),
        ("привет" + "hello", "17 bytes, Cyrillic letters and Latin letters"),
        ("ቋንቋ", "9 bytes, letters of another script"),
        ("1 + 2 = 3", "9 bytes, no letters"),
    ],
)
def test_the_reason_has_the_size_and_the_script(text: str, reason: str) -> None:
    assert choose_tokenizer(text).reason == reason


def test_a_choice_reads_as_a_line() -> None:
    choice = choose_tokenizer(ENGLISH)
    assert isinstance(choice, TokenizerChoice)
    assert str(choice).startswith(f"byte pairs, {choice.tokenizer.n_vocab:,} tokens, 0.")
    assert "(characters: " in str(choice)
    assert "GPT-2's: 50,257 tokens, 0." in str(choice)
    assert str(choose_tokenizer("ab", "gpt2")) == "GPT-2's, 50,257 tokens: as asked for"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("ab", "bpee"), ValueError, "kind must be one of 'auto', 'bpe', 'trimmed', 'gpt2', 'char', got 'bpee'"),
        (("ab", None), ValueError, "kind must be one of .*, got None"),
        (("ab", "char", 300), ValueError, "vocab_size is for kind='bpe', got 300 with kind='char'; leave it out"),
        (("ab", "bpe", 200), ValueError, "vocab_size must be at least 257, got 200"),
        (("ab", "bpe", "300"), TypeError, r"vocab_size must be an integer, got '300' \(str\)"),
        (("",), ValueError, "documents must have some text"),
        (([],), ValueError, "documents must have some text"),
        (("", "char"), ValueError, "at least one character"),
        ((None,), TypeError, "documents must be a str, got None"),
        ((["a", 1],), TypeError, r"documents\[1\] must be a str, got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        choose_tokenizer(*arguments)
