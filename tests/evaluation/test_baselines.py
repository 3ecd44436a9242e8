"""Baselines, held against a slow model of n-grams and against the definitions."""

import json
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    evaluate_text,
    gpt2_tokenizer,
    sample_text,
    split_text,
)
from tinygpt2.evaluation import baselines as module
from tinygpt2.evaluation import ngrams
from tinygpt2.evaluation.baselines import Baselines, baselines

END = 256
texts = st.text("abé好 ", min_size=1, max_size=60)


def symbols(texts: Sequence[str], *, ends: bool) -> list[list[int]]:
    return [[*text.encode(), *([END] if ends else [])] for text in texts]


def bits_by_hand(training: list[list[int]], held_out: list[list[int]], order: int, *, ends: bool) -> float:
    """Returns the bits of all symbols, from dicts of counts and the recursive definition."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    first = (END,) if ends else ()

    def contexts(before: Sequence[int]) -> list[tuple[int, ...]]:
        before = (*first, *before)
        return [tuple(before[len(before) - length :]) for length in range(min(order, len(before)) + 1)]

    for document in training:
        for i, symbol in enumerate(document):
            for context in contexts(document[:i]):
                counts[context][symbol] += 1

    def probability(symbol: int, found: list[tuple[int, ...]]) -> float:
        if not found:
            return 1 / (257 if ends else 256)
        *shorter, context = found
        seen = counts.get(context, Counter())
        if not seen:
            return probability(symbol, shorter)
        return (seen[symbol] + len(seen) * probability(symbol, shorter)) / (seen.total() + len(seen))

    return -sum(
        math.log2(probability(symbol, contexts(document[:i])))
        for document in held_out
        for i, symbol in enumerate(document)
    )


# --- n-grams ---


@given(texts, texts, st.integers(1, 6))
@example("a", "好", 6)
@example("ab" * 30, "ab" * 30, 1)
def test_the_ngrams_of_a_text_are_those_of_the_definition(training: str, held_out: str, order: int) -> None:
    result = baselines(training, held_out, order=order)
    expected = bits_by_hand(symbols([training], ends=False), symbols([held_out], ends=False), order, ends=False)
    assert result.ngram == pytest.approx(expected / len(held_out.encode()))


@given(st.lists(texts, min_size=1, max_size=5), st.lists(texts, min_size=1, max_size=5), st.integers(1, 6))
@example(["a"], ["", "a"], 3)
def test_the_ends_of_documents_are_predicted_and_no_context_reaches_beyond(
    training: list[str], held_out: list[str], order: int
) -> None:
    result = baselines(training, held_out, order=order)
    documents = symbols([text for text in held_out if text], ends=True)
    expected = bits_by_hand(symbols(training, ends=True), documents, order, ends=True)
    assert result.bytes == sum(map(len, documents))
    assert result.ngram == pytest.approx(expected / result.bytes)


@given(texts, texts, st.integers(1, 50))
def test_pieces_of_the_held_out_text_change_nothing(training: str, held_out: str, piece: int) -> None:
    whole = baselines(training, [held_out, training])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_PIECE", piece)
        assert baselines(training, [held_out, training]).ngram == pytest.approx(whole.ngram)


def test_the_probabilities_after_any_context_add_up_to_one() -> None:
    training = np.frombuffer(b"abracadabra " * 3, np.uint8).astype(np.uint16)
    for context in (b"", b"a", b"bra", b"zzzz"):
        given_context = np.frombuffer(context, np.uint8).astype(np.uint16)
        before = ngrams.ngram_bits(training, given_context, order=4, vocab_size=256)
        after = [
            ngrams.ngram_bits(training, np.append(given_context, np.uint16(s)), order=4, vocab_size=256)
            for s in range(256)
        ]
        assert sum(2 ** (before - bits) for bits in after) == pytest.approx(1)


def test_the_figures_of_the_sample_text_are_the_known_ones() -> None:
    result = baselines(*split_text(sample_text(), 0.9))
    assert (f"{result.ngram:.2f}", f"{result.xz:.2f}", result.untrained) == ("2.76", "2.99", None)
    assert (result.bytes, result.training_bytes, result.training_bytes_in_all) == (9369, 84274, 84274)


# --- xz ---


@pytest.mark.parametrize("ends", [False, True])
def test_xz_is_what_the_held_out_text_adds(ends: bool) -> None:
    training, held_out = split_text(sample_text()[:9000], 0.5)
    result = baselines([training] if ends else training, [held_out] if ends else held_out)
    end = "\n" if ends else ""
    known, both = (training + end).encode(), (training + end + held_out + end).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    sizes = [len(lzma.compress(content, lzma.FORMAT_RAW, filters=filters)) for content in (known, both)]
    assert result.xz * result.bytes == pytest.approx(8 * (sizes[1] - sizes[0]))


def test_xz_looks_back_over_all_of_the_training_text() -> None:
    """With a dictionary smaller than the text, a copy of its beginning would cost as much as new text."""
    noise = np.random.default_rng(0).integers(32, 127, 100_000, dtype=np.uint8).tobytes().decode()
    assert baselines(noise, noise[:5000]).xz < 0.1


# --- the untrained model ---


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("tokenizer", [CharTokenizer("abé好 \n"), gpt2_tokenizer()], ids=["char", "gpt2"])
def test_the_untrained_model_is_one_whose_logits_are_equal(tokenizer: Any, documents: bool) -> None:  # noqa: ANN401
    """And bytes are those that `evaluate_text` counts."""
    text = "é好 ab" * 9
    source = [text, "", "b"] if documents else text
    model = GPT2Model(GPT2Config(vocab_size=tokenizer.n_vocab, context_length=16, n_layer=1, n_head=1, n_embd=8))
    for parameter in model.parameters():
        parameter.data.zero_()
    expected = evaluate_text(model, tokenizer, source)
    result = baselines("ab", source, tokenizer=tokenizer)
    assert result.bytes == expected.bytes
    assert result.untrained == pytest.approx(expected.bits_per_byte)


# --- long texts ---


def test_of_a_long_text_the_last_bytes_are_used() -> None:
    training, held_out = split_text(sample_text(), 0.9)
    result = baselines(training, held_out, most_bytes=5000)
    assert (result.training_bytes, result.training_bytes_in_all) == (5000, 84274)
    last = baselines(training.encode()[-5000:].decode(), held_out)
    assert (result.ngram, result.xz) == (last.ngram, last.xz)


def test_of_many_documents_the_last_whole_ones_are_used() -> None:
    training = [f"document {i}" for i in range(50)]
    result = baselines(training, ["document 3"], most_bytes=35)
    last = baselines(training[-2:], ["document 3"])
    assert replace(result, training_bytes_in_all=0) == replace(last, training_bytes_in_all=0)
    assert (result.training_bytes, result.training_bytes_in_all) == (24, sum(len(text) + 1 for text in training))


def test_a_text_is_cut_at_a_whole_character() -> None:
    result = baselines("好" * 10, "好", most_bytes=8)
    assert (result.training_bytes, result.training_bytes_in_all) == (6, 30)
    assert baselines(["好" * 10], ["好"], most_bytes=8).training_bytes == 7  # with its end


# --- the result ---


def test_it_is_printed_as_a_table_and_comes_back_from_json() -> None:
    result = baselines("abc" * 9, "abd", tokenizer=CharTokenizer("abcd"))
    assert str(result).splitlines() == [
        f"byte n-gram, 4 bytes of context  {result.ngram:.3f} bits per byte",
        f"xz                               {result.xz:.3f} bits per byte",
        f"untrained model                  {result.untrained:.3f} bits per byte",
    ]
    assert Baselines.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert "untrained" not in str(replace(result, untrained=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ngram": "2"}, "ngram is '2', which is not a <class 'float'>"),
        ({"ngram": math.nan}, "ngram is nan"),
        ({"xz": -1.0}, "xz is -1.0"),
        ({"bytes": 1.5}, "bytes is 1.5"),
        ({"order": True}, "order is True"),
        ({"ngram": None}, "ngram is None"),
        ({"other": 1}, "expected an object with ngram, order, xz"),
    ],
)
def test_a_dict_of_anything_else_is_refused(change: dict[str, Any], message: str) -> None:
    content = asdict(baselines("ab", "ab"))
    with pytest.raises(ValueError, match=message):
        Baselines.from_dict(content | change)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"training": ""}, ValueError, "training has no text; expected at least one character"),
        ({"held_out": ["", ""]}, ValueError, "held_out has no text"),
        ({"training": 7}, TypeError, "training must be several str"),
        ({"held_out": ["a", 7]}, TypeError, "held_out"),
        ({"training": "\ud800"}, ValueError, "training has a lone surrogate"),
        ({"order": 0}, ValueError, "order must be at least 1"),
        ({"order": 7}, ValueError, "order must be at most 6"),
        ({"most_bytes": 0}, ValueError, "most_bytes must be at least 1"),
        ({"tokenizer": 7}, TypeError, "tokenizer"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        baselines(**{"training": "ab", "held_out": "ab"} | arguments)


def test_the_default_bound_is_said_in_megabytes() -> None:
    assert module._MOST == 4 << 20
    assert "4 MiB" in (baselines.__doc__ or "")
