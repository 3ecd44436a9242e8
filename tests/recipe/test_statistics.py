"""What a recipe depends on in a text."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import CharTokenizer, gpt2_tokenizer, sample_text
from tinygpt2.recipe import statistics
from tinygpt2.recipe.statistics import TextStatistics

CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。" * 40


@given(documents=st.lists(st.text(), min_size=1))
def test_sizes_are_those_of_what_is_not_empty(documents: list[str]) -> None:
    size = sum(len(text.encode()) for text in documents)
    if not size:
        with pytest.raises(ValueError, match="must have some text"):
            TextStatistics.of(documents)
        return
    found = TextStatistics.of(iter(documents))
    assert (found.bytes, found.documents) == (size, sum(map(bool, documents)))
    assert 0 <= found.repetition <= 1


@pytest.mark.parametrize(
    ("text", "script"), [("one two", "Latin letters"), (CHINESE, "Chinese characters"), ("1 2 3", "no letters")]
)
def test_the_script_is_that_of_the_letters(text: str, script: str) -> None:
    assert TextStatistics.of(text).script == script


def test_repetition_is_what_a_compressor_saves() -> None:
    prose, fox = TextStatistics.of(sample_text()), TextStatistics.of("the quick brown fox " * 1000)
    noise = TextStatistics.of("".join(map("{:x}".format, torch.randint(16, (10_000,)).tolist())))
    assert noise.repetition < 0.5 < prose.repetition < 0.7
    assert fox.repetition > 0.99


def test_tokens_are_counted_with_the_ends_of_documents() -> None:
    text = sample_text()
    assert TextStatistics.of(text, gpt2_tokenizer()).tokens == len(gpt2_tokenizer().encode_ordinary(text))
    documents = text.splitlines(keepends=True)
    ids = sum(len(gpt2_tokenizer().encode_ordinary(line)) for line in documents)
    assert TextStatistics.of(documents, gpt2_tokenizer()).tokens == ids + len(documents)


@pytest.mark.parametrize("split", [False, True])
def test_of_a_large_text_a_sample_is_enough(split: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_PIECE", 100)
    monkeypatch.setattr(statistics, "_SAMPLE", 5_000)
    text = sample_text()
    source: Any = text.splitlines(keepends=True) if split else text
    found = TextStatistics.of(source, CharTokenizer.from_text(text))
    assert found.bytes == len(text.encode())
    assert found.tokens == pytest.approx(len(text) + (found.documents if split else 0), rel=0.03)


def test_names_are_recognised() -> None:
    names = [f"{first}{last}".capitalize() for first in "abcdefghijklmnop" for last in map(chr, range(0x100, 0x180))]
    assert TextStatistics.of(names).names
    assert not TextStatistics.of(sample_text()).names


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"bytes": 0}, ValueError, "bytes must be at least 1, got 0"),
        ({"bytes": 1.5}, TypeError, "bytes must be an integer"),
        ({"bytes": 1, "repetition": 2}, ValueError, "repetition must be"),
        ({"bytes": 1, "tokens": 0}, ValueError, "tokens must be at least 1"),
        ({"bytes": 1, "names": "no"}, TypeError, "names must be True or False"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TextStatistics(**values)


@pytest.mark.parametrize("documents", [None, 3, b"text", [1], {"a": "text"}])
def test_what_is_no_text_is_an_error(documents: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError):
        TextStatistics.of(documents)
