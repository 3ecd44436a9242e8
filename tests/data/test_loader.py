"""Texts become batches: nothing is lost, shifted or reordered but as promised."""

import io
import os
import pickle
import re
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, default_collate
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    TokenDataset,
    TokenFile,
    clean_text,
    gpt2_tokenizer,
    make_dataloader,
    read_text,
    sample_text,
    split_text,
    tensor_to_text,
    tokenize_to_file,
)
from tinygpt2.data.batches import Batch
from tinygpt2.data.order import EpochSampler

CHINESE = "第一次世界大战是一场主要发生在欧洲的战争。👩\u200d👩\u200d👧\n"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draws (number of tokens, context length, stride)."""
    context_length = draw(st.integers(1, 12))
    stride = draw(st.integers(1, 15))
    return context_length + draw(st.integers(1, 60)), context_length, stride


def rows(loader: DataLoader[Batch]) -> list[list[int]]:
    """Returns the inputs of a pass over a loader, window by window."""
    return [row for inputs, _ in loader for row in inputs.tolist()]


def epoch_sampler(loader: DataLoader[Batch]) -> EpochSampler:
    return cast("EpochSampler", loader.sampler)


# --- windows ---


@given(shape=shapes(), batch_size=st.integers(1, 7), shuffle=st.booleans(), drop_last=st.booleans())
@settings(max_examples=200)
def test_targets_are_the_inputs_one_to_the_right(
    shape: tuple[int, int, int], batch_size: int, shuffle: bool, drop_last: bool
) -> None:
    n, context_length, stride = shape
    tokens = [(i * 7919) % 10_007 for i in range(n)]  # no two are the same
    starts = range(0, n - context_length, stride)
    batch_size = min(batch_size, len(starts))
    loader = make_dataloader(
        tokens,
        batch_size=batch_size,
        context_length=context_length,
        stride=stride,
        shuffle=shuffle,
        drop_last=drop_last,
    )
    seen: list[int] = []
    batches = list(loader)
    for inputs, targets in batches:
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == context_length
        for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
            start = tokens.index(row[0])
            assert row == tokens[start : start + context_length]
            assert target == tokens[start + 1 : start + 1 + context_length]
            seen.append(start)
    kept = len(starts) // batch_size * batch_size if drop_last else len(starts)
    assert len(seen) == kept
    assert len(set(seen)) == kept
    assert set(seen) <= set(starts)
    assert shuffle or seen == list(starts[:kept])
    assert len(loader) == len(batches)
    assert [len(inputs) for inputs, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)


@given(n=st.integers(2, 80), context_length=st.integers(1, 12))
def test_with_the_stride_left_out_each_token_but_the_first_is_a_target_once(n: int, context_length: int) -> None:
    context_length = min(context_length, n - 1)
    loader = make_dataloader(range(n), batch_size=3, context_length=context_length)
    targets = torch.cat([targets.flatten() for _, targets in loader]).tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert n - 1 - context_length < len(targets) <= n - 1  # only a tail too short for a window is left out


@given(shape=shapes(), data=st.data())
def test_a_batch_of_windows_is_each_window_alone(shape: tuple[int, int, int], data: st.DataObject) -> None:
    n, context_length, stride = shape
    dataset = TokenDataset(range(n), context_length=context_length, stride=stride)
    indices = data.draw(st.lists(st.integers(-len(dataset), len(dataset) - 1), min_size=1, max_size=9))
    inputs, targets = dataset.__getitems__(indices)
    assert inputs.shape == targets.shape == (len(indices), context_length)
    for i, row, target in zip(indices, inputs, targets, strict=True):
        alone = dataset[i]
        assert torch.equal(row, alone[0])
        assert torch.equal(target, alone[1])


def test_an_index_outside_is_an_index_error_and_ends_a_plain_loop() -> None:
    dataset = TokenDataset(range(9), context_length=4, stride=2)
    assert len(dataset) == 3
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"{index} of 3"):
            dataset[index]
    assert len(list(cast("Sequence[Batch]", dataset))) == 3


@pytest.mark.parametrize("indices", [[1.5], np.array([True]), torch.tensor([0.0]), [[0, 1]], 3, None, "0"])
def test_only_integers_are_indices_of_a_batch(indices: Any) -> None:  # noqa: ANN401
    """1.5 was rounded to 1."""
    with pytest.raises(TypeError, match="indices must be integers in a list, got "):
        TokenDataset(range(9), context_length=4).__getitems__(indices)


@pytest.mark.parametrize("indices", [[1, -3], np.array([1, -3], np.int8), torch.tensor([1, -3]), (np.int64(1), -3)])
def test_integers_of_every_kind_are_indices_of_a_batch(indices: Any) -> None:  # noqa: ANN401
    dataset = TokenDataset(range(9), context_length=4, stride=2)
    assert dataset.__getitems__(indices)[0][:, 0].tolist() == [2, 0]
    assert dataset.__getitems__([])[0].shape == (0, 4)
    with pytest.raises(IndexError, match=f"window {2**64 - 1} of 3"):
        dataset.__getitems__(np.array([2**64 - 1], np.uint64))  # type: ignore[arg-type]


def test_masking_the_targets_in_place_reaches_neither_inputs_nor_tokens() -> None:
    tokens = torch.arange(10)
    loader = make_dataloader(tokens, batch_size=2, context_length=4, stride=1)
    for inputs, targets in loader:
        before = inputs.clone()
        targets.fill_(-100)
        assert torch.equal(inputs, before)
        inputs.fill_(-1)
    assert torch.equal(tokens, torch.arange(10))


READ_ONLY = np.arange(40)
READ_ONLY.flags.writeable = False

SOURCES = {
    "read-only array": READ_ONLY,
    "reversed array": np.arange(40)[::-1].copy()[::-1],
    "array of two-byte ids, unaligned": np.frombuffer(b"x" + np.arange(40, dtype="<u2").tobytes(), "<u2", offset=1),
    "uint64 tensor": torch.arange(40).to(torch.uint64),
    "array": array("H", range(40)),
    "list": list(range(40)),
    "tuple": tuple(range(40)),
    "range": range(40),
    "int64 tensor": torch.arange(40),
    "int32 tensor": torch.arange(40, dtype=torch.int32),
    "uint8 tensor": torch.arange(40, dtype=torch.uint8),
    "strided tensor": torch.arange(80).view(40, 2)[:, 0] // 2,
    "uint16 array": np.arange(40, dtype=np.uint16),
    "big-endian array": np.arange(40, dtype=">i4"),
    "strided array": np.arange(80, dtype=np.uint64)[::2] // np.uint64(2),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_batches(source: Any) -> None:  # noqa: ANN401
    loader = make_dataloader(source, batch_size=2, context_length=4, stride=3)
    for i, (inputs, targets) in enumerate(loader):
        starts = torch.tensor([6 * i, 6 * i + 3])[: len(inputs), None]
        assert torch.equal(inputs, starts + torch.arange(4))
        assert torch.equal(targets, starts + torch.arange(1, 5))
    assert i == 5


def test_a_read_only_memory_map_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    (np.arange(1000) % 700).astype(np.uint16).tofile(path)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    loader = make_dataloader(tokens, batch_size=4, context_length=16, shuffle=True)
    dataset = cast("TokenDataset", loader.dataset)
    assert isinstance(dataset.tokens, np.memmap)
    assert np.shares_memory(dataset.tokens, tokens)
    for inputs, targets in loader:
        assert torch.equal((inputs + 1) % 700, targets)
        inputs.add_(1)  # what comes out is the user's to change
    assert np.array_equal(np.fromfile(path, dtype=np.uint16), np.arange(1000) % 700)


def test_tensors_and_arrays_are_not_copied() -> None:
    tensor, array = torch.arange(10), np.arange(10, dtype=np.uint16)
    assert np.shares_memory(TokenDataset(tensor, context_length=4).tokens, tensor.numpy())
    assert np.shares_memory(TokenDataset(array, context_length=4).tokens, array)


# --- what is refused ---


@given(n=st.integers(1, 30), context_length=st.integers(1, 40))
def test_a_text_too_short_says_how_long_it_is_and_what_would_fit(n: int, context_length: int) -> None:
    if n > context_length:
        assert len(TokenDataset(range(n), context_length=context_length)) >= 1
        return
    with pytest.raises(
        ValueError, match=f"context_length is {context_length}.* has only {n};.* a longer text"
    ) as caught:
        TokenDataset(range(n), context_length=context_length)
    needed = re.search(r"at least (\d+) tokens", str(caught.value))
    assert needed
    assert len(TokenDataset(range(int(needed[1])), context_length=context_length)) == 1
    fitting = re.search(r"context_length=(\d+) or less", str(caught.value))
    assert (fitting is None) == (n <= 16)
    if fitting:
        assert len(TokenDataset(range(n), context_length=int(fitting[1]))) == 1


def test_a_short_text_is_told_in_tokens() -> None:
    with pytest.raises(ValueError, match=r"context_length is 128.* has only 3; pass a longer text$"):
        make_dataloader("Hello, world", batch_size=2, context_length=128)
    with pytest.raises(ValueError, match=r"has only 17; pass context_length=16 or less, or a longer text$"):
        make_dataloader(range(17), batch_size=2, context_length=128)


@pytest.mark.parametrize("source", ["", [], torch.tensor([], dtype=torch.int64), np.array([], dtype=np.uint16)])
def test_an_empty_source_is_refused(source: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="empty"):
        make_dataloader(source, batch_size=2, context_length=4)


@given(n=st.integers(2, 20), context_length=st.integers(1, 19), batch_size=st.integers(1, 20))
def test_dropping_the_only_batch_is_refused(n: int, context_length: int, batch_size: int) -> None:
    context_length = min(context_length, n - 1)
    windows = len(TokenDataset(range(n), context_length=context_length))
    if windows >= batch_size:
        assert len(make_dataloader(range(n), batch_size=batch_size, context_length=context_length, drop_last=True)) >= 1
    else:
        with pytest.raises(ValueError, match=rf"only {windows} windows .* a batch of {batch_size}.* drop_last=False"):
            make_dataloader(range(n), batch_size=batch_size, context_length=context_length, drop_last=True)


@pytest.mark.parametrize("name", ["batch_size", "context_length", "stride", "seed"])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_wrong_numbers_are_refused_by_name(name: str, value: Any, error: type[Exception]) -> None:  # noqa: ANN401
    options: dict[str, Any] = {"batch_size": 2, "context_length": 4, name: value}
    if (name, value) == ("seed", 0):
        make_dataloader(range(40), **options)
        return
    with pytest.raises(error, match=name):
        make_dataloader(range(40), **options)


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_a_seed_may_be_as_large_as_one_of_pytorch(seed: int) -> None:
    loader = make_dataloader(range(40), batch_size=2, context_length=4, shuffle=True, seed=seed)
    assert sorted(rows(loader)) == rows(make_dataloader(range(40), batch_size=2, context_length=4))
    with pytest.raises(ValueError, match=f"seed must be at most {2**64 - 1}, got 18446744073709551616"):
        make_dataloader(range(40), batch_size=2, context_length=4, seed=2**64)  # as in TrainingConfig


@pytest.mark.parametrize("source", [[0.5, 1.0, 2.0], torch.rand(9), [None, 1], np.array([True, False, True])])
def test_what_is_not_a_number_of_a_token_is_a_type_error(source: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="token ids must be integers"):
        make_dataloader(source, batch_size=1, context_length=1)


@pytest.mark.parametrize("texts", [["one", "two"], np.array(["one", "two"], dtype=object)])
def test_windows_are_those_of_ids_and_not_of_texts(texts: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"integers, got .*, beginning with .*'one'.*: encode_documents\(texts\)"):
        TokenDataset(texts, context_length=1)


def test_a_generator_of_ids_is_no_sequence() -> None:
    with pytest.raises(TypeError, match=r"got generator; make a list of it: list\(tokens\)"):
        TokenDataset((i for i in range(9)), context_length=1)  # type: ignore[arg-type]


class Table:
    """A table, such as pandas' ``DataFrame``."""

    columns = ("text",)

    def __getitem__(self, _: object) -> object:
        return self


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([3, 4, "one", "two"], r"integers, but item 2 is 'one' \(str\); pass ids alone, or texts alone"),
        (np.array([None, "one"]), r"integers, but item 1 is 'one' \(str\); pass ids alone"),
        (["one", 3], r"documents\[1\] must be a str, got 3 \(int\)"),
        (["one", None], r"documents\[1\] must be a str, got None"),
        ([b"one", b"two"], r"integers, got \|S3, beginning with np\.bytes_\(b'one'\)"),
        ([True, False], "integers, got bool"),
        ([Path("one.txt")], "integers, got object"),
        (filter(None, ["one"]), r"a filter, which has no length; pass streaming=True"),
        ({1: 2, 3: 4}, "a text or token ids, got dict; pass a text, or its ids as a list"),
        ({1, 2, 3}, "a text or token ids, got set; pass a text, or its ids as a list"),
        (b"some text", r"got bytes; decode it: text\.decode\('utf-8'\)"),
        (Path("book.txt"), r"got \w*Path; read the file: read_text\(path\)"),
        ((i for i in range(9)), r"a generator, which has no length; pass streaming=True .*, or list\(source\) if"),
        (io.StringIO("text"), r"got StringIO; read the file: read_text\(path\)"),
        (None, "got NoneType; pass a text, or its ids"),
        (3, "got int; pass a text, or its ids"),
        (np.arange(9, dtype=object), r"integers, got object, beginning with 0; convert whole numbers to int64"),
        ([1, None], r"integers, got object"),
        ([2**64, 1], r"integers, got (object|float64)"),
        (np.arange(9, dtype="m8[s]"), r"integers, got timedelta64\[s\]"),
        (torch.arange(9, dtype=torch.bfloat16), r"integers, got torch\.bfloat16"),
        (torch.ones(9, dtype=torch.bool), r"integers, got torch\.bool"),
        (torch.ones(9, dtype=torch.complex64), r"integers, got torch\.complex64"),
    ],
)
def test_what_is_neither_a_text_nor_its_ids_is_a_type_error_with_the_fix(source: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=message):
        make_dataloader(source, batch_size=1, context_length=1)


def test_ids_of_several_texts_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"one dimension, \(T,\), got sequences of several lengths; join them into one"
    ):
        make_dataloader([[1, 2], [3]], batch_size=1, context_length=1)


def test_an_id_that_does_not_fit_into_a_batch_is_refused() -> None:
    """Batches are int64, in which it became negative."""
    with pytest.raises(ValueError, match=f"at most {2**63 - 1}, got {2**63}"):
        make_dataloader(np.array([1, 2**63, 3], dtype=np.uint64), batch_size=1, context_length=1)
    (inputs, targets), *_ = make_dataloader(np.array([1, 2**63 - 1], dtype=">u8"), batch_size=1, context_length=1)
    assert (inputs.item(), targets.item()) == (1, 2**63 - 1)


@pytest.mark.parametrize("shape", [(1, 9), (3, 3), (), (1, 1, 9)])
def test_ids_in_more_or_less_than_one_dimension_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one dimension"):
        make_dataloader(torch.zeros(shape, dtype=torch.int64), batch_size=1, context_length=1)


@given(tokens=st.lists(st.integers(-3, 12), min_size=2, max_size=9), alphabet=st.integers(1, 9))
def test_ids_outside_the_vocabulary_are_refused(tokens: list[int], alphabet: int) -> None:
    tokenizer = CharTokenizer("abcdefghi"[:alphabet])
    options: dict[str, Any] = {"batch_size": 1, "context_length": 1, "tokenizer": tokenizer}
    if min(tokens) < 0:
        with pytest.raises(ValueError, match=f"at least 0, got {min(tokens)}"):
            make_dataloader(tokens, **options)
    elif max(tokens) >= tokenizer.n_vocab:
        with pytest.raises(ValueError, match=f"{tokenizer.n_vocab} tokens, .* has id {max(tokens)}"):
            make_dataloader(tokens, **options)
    else:
        make_dataloader(tokens, **options)


def test_negative_ids_are_refused_without_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="at least 0, got -100"):
        make_dataloader([1, 2, -100, 3], batch_size=1, context_length=1)


# --- texts ---


@pytest.mark.parametrize("tokenizer", [None, gpt2_tokenizer(), CharTokenizer.from_text(CHINESE)])
def test_chinese_text_comes_back_from_the_batches(tokenizer: CharTokenizer | None) -> None:
    text = CHINESE * 3
    used = tokenizer or gpt2_tokenizer()
    loader = make_dataloader(text, batch_size=4, context_length=1, tokenizer=tokenizer)
    tokens = torch.cat([next(iter(loader))[0][0], *(targets.flatten() for _, targets in loader)])
    assert tensor_to_text(tokens, used) == text


@pytest.mark.parametrize("function", [clean_text, split_text])
def test_only_one_text_is_cleaned_or_split(function: Callable[[Any], object]) -> None:
    """A list was split as a list, and cleaning one was an AttributeError."""
    for several in (["one", "two"], ("one", "two"), np.array(["one", "two"])):
        with pytest.raises(TypeError, match=r"text must be a str, got .*; join several: '\\n'\.join\(texts\)"):
            function(several)
    with pytest.raises(TypeError, match=r"got b'one' \(bytes\); decode it: text\.decode\('utf-8'\)"):
        function(b"one")
    with pytest.raises(TypeError, match=r"\(\w*Path\); read the file: read_text\(path\)"):
        function(Path("book.txt"))
    with pytest.raises(TypeError, match=r"\(Table\); join one column: '\\n'\.join\(table\['text'\]\)"):
        function(Table())
    with pytest.raises(TypeError, match=r"got None \(NoneType\)"):
        function(None)


def test_half_a_character_is_refused_wherever_a_text_enters() -> None:
    """tiktoken replaced it in silence by U+FFFD, or joined two halves."""
    for text, position in (("ab\ud83d", 2), ("\ude00", 0), ("\ud83d\ude00", 0), ("🙂" * 9 + "\udc80", 9)):
        for function in (
            clean_text,
            split_text,
            lambda text: make_dataloader(text, batch_size=1, context_length=1),
            lambda text: make_dataloader(text, batch_size=1, context_length=1, tokenizer=CharTokenizer("ab")),
        ):
            with pytest.raises(ValueError, match=rf"lone surrogate, U\+D[89A-F]\w\w, at position {position}, .*utf-16"):
                function(text)
    fixed = "ab\ud83d\ude00\udc80".encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as the message says
    assert fixed == "ab\U0001f600\ufffd"


def test_special_tokens_in_a_text_are_ordinary_text() -> None:
    loader = make_dataloader("one<|endoftext|>two" * 9, batch_size=4, context_length=8)
    assert all(50256 not in inputs and 50256 not in targets for inputs, targets in loader)


@given(text=TEXTS)
def test_clean_lines_have_no_white_space_at_their_ends_and_no_word_is_lost(text: str) -> None:
    clean = clean_text(text)
    assert all(line and line == line.strip() for line in clean.split("\n") if clean)
    assert clean.split() == text.split()
    assert clean_text(clean) == clean


def test_cleaning_keeps_what_is_inside_a_line() -> None:
    assert clean_text("\ufeff\n") == "\ufeff"
    assert clean_text(" 第一　次\t世界 \r\n\r\n \u3000\n大战\n\n") == "第一　次\t世界\n大战"
    assert clean_text(" \n\t\n") == ""


@given(text=TEXTS, ratio=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_two_parts_are_the_text_in_the_ratio_asked_for(text: str, ratio: float) -> None:
    if not 1 <= int(ratio * len(text)) < len(text):
        with pytest.raises(ValueError, match=f"a text of {len(text)} characters"):
            split_text(text, train_ratio=ratio)
        return
    first, second = split_text(text, train_ratio=ratio)
    assert first + second == text
    assert first
    assert second
    assert abs(len(first) - ratio * len(text)) < 1


@pytest.mark.parametrize("ratio", [0, 1, 0.0, 1.0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="train_ratio"):
        split_text("abc" * 99, train_ratio=ratio)


def test_a_ratio_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="train_ratio"):
        split_text("abc" * 99, train_ratio="0.8")  # type: ignore[arg-type]


# --- documents ---


DOCUMENTS = ["Emma", "", "Olivia", "你好", "a", "one<|endoftext|>two", "Ada\nLovelace"]
CHARACTERS = CharTokenizer.from_text("".join(DOCUMENTS))


class Names(Sequence[str]):
    """A column of a table: no list, but with a length and items."""

    def __len__(self) -> int:
        return len(DOCUMENTS)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    @override
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return DOCUMENTS[index]


KINDS: dict[str, Callable[[list[str]], Any]] = {
    "list": list, "tuple": tuple, "array": np.array, "array of objects": lambda texts: np.array(texts, dtype=object),
    "column": lambda _: Names(), "deque": deque,
}  # fmt: skip


def ids_of(loader: DataLoader[Batch]) -> list[int]:
    """Returns all ids of an unshuffled loader whose windows do not overlap."""
    batches = list(loader)
    return [int(batches[0][0][0, 0]), *(token for _, targets in batches for token in targets.flatten().tolist())]


@pytest.mark.parametrize("kind", KINDS)
def test_several_texts_are_documents_and_each_ends(kind: str) -> None:
    loader = make_dataloader(KINDS[kind](DOCUMENTS), batch_size=3, context_length=1, tokenizer=CHARACTERS)
    expected = [[*CHARACTERS.encode_ordinary(text), CHARACTERS.eot_token] for text in DOCUMENTS if text]
    assert ids_of(loader) == [token for document in expected for token in document]


def test_documents_are_in_gpt2s_vocabulary_by_default_and_one_text_has_no_end() -> None:
    end = gpt2_tokenizer().eot_token
    assert ids_of(make_dataloader(["a b", "c"], batch_size=1, context_length=1)) == [64, 275, end, 66, end]
    assert ids_of(make_dataloader("a b", batch_size=1, context_length=1)) == [64, 275]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([""], "nothing to encode: there are no documents, or all are empty"),
        (["", ""], "nothing to encode: there are no documents, or all are empty"),
        (["a", "b"], "context_length is 9.* has only 4; pass a longer text"),
        (["a", "b\ud800"], r"documents\[1\] has a lone surrogate"),
    ],
)
def test_documents_without_enough_text_are_refused(source: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_dataloader(source, batch_size=1, context_length=9)


def test_a_tokenizer_that_ends_no_text_is_for_one_text_alone() -> None:
    endless = tiktoken.Encoding("endless", pat_str=".", mergeable_ranks={b"a": 0, b"b": 1}, special_tokens={})
    assert ids_of(make_dataloader("abab", batch_size=1, context_length=3, tokenizer=endless)) == [0, 1, 0, 1]
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"must have the token <\|endoftext\|>, at which a generated text ends"):
            make_dataloader(["ab"], batch_size=1, context_length=1, tokenizer=endless, streaming=streaming)


def test_a_column_of_numbers_has_ids() -> None:
    pandas = pytest.importorskip("pandas")
    ids = pandas.Series([5, 6, 7, 8, 9])[1:]  # whose first item is not number 0
    assert ids_of(make_dataloader(ids, batch_size=1, context_length=1)) == [6, 7, 8, 9]
    texts = pandas.Series(DOCUMENTS)[1:]
    loader = make_dataloader(texts, batch_size=1, context_length=1, tokenizer=CHARACTERS)
    assert ids_of(loader) == ids_of(
        make_dataloader(DOCUMENTS[1:], batch_size=1, context_length=1, tokenizer=CHARACTERS)
    )


def test_columns_of_datasets_have_documents_or_ids() -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": DOCUMENTS, "number": list(range(7))})
    assert ids_of(make_dataloader(table["number"], batch_size=2, context_length=1)) == list(range(7))
    loader = make_dataloader(table["text"], batch_size=1, context_length=1, tokenizer=CHARACTERS)
    assert ids_of(loader) == ids_of(make_dataloader(DOCUMENTS, batch_size=1, context_length=1, tokenizer=CHARACTERS))
    with pytest.raises(TypeError, match="source is a IterableDataset, which has no length; pass streaming=True"):
        make_dataloader(table.to_iterable_dataset(), batch_size=1, context_length=1)


def test_a_field_is_the_name_of_a_column() -> None:
    with pytest.raises(TypeError, match=r"field must be a str, the name of a column, got 3 \(int\)"):
        make_dataloader(DOCUMENTS, batch_size=1, context_length=1, field=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="field must be the name of a column, got ''"):
        make_dataloader(DOCUMENTS, batch_size=1, context_length=1, field="")


# --- tables and rows ---


def test_tables_of_pandas_have_documents_in_a_column() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": DOCUMENTS, "title": ["a"] * len(DOCUMENTS)})
    options: dict[str, Any] = {"batch_size": 1, "context_length": 1, "tokenizer": CHARACTERS}
    expected = ids_of(make_dataloader(DOCUMENTS, **options))
    for streaming in (False, True):
        assert ids_of(make_dataloader(table, streaming=streaming, **options)) == expected
    assert (
        ids_of(make_dataloader(table, field="title", **options))
        == [*CHARACTERS.encode_ordinary("a"), CHARACTERS.eot_token] * 7
    )
    with pytest.raises(ValueError, match="'missing'"):
        make_dataloader(table, field="missing", **options)


def test_data_sets_of_hugging_face_have_documents_in_a_column() -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": DOCUMENTS, "number": list(range(7))})
    options: dict[str, Any] = {"batch_size": 1, "context_length": 1, "tokenizer": CHARACTERS}
    expected = ids_of(make_dataloader(DOCUMENTS, **options))
    assert ids_of(make_dataloader(table, **options)) == expected
    for source in (table, table.to_iterable_dataset(), table.to_iterable_dataset()["text"]):
        assert ids_of(make_dataloader(source, streaming=True, **options)) == expected


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_have_documents_in_a_field(streaming: bool) -> None:
    options: dict[str, Any] = {"batch_size": 1, "context_length": 1, "tokenizer": CHARACTERS, "streaming": streaming}
    rows = [{"name": text, "number": 3} for text in DOCUMENTS]
    expected = ids_of(make_dataloader(DOCUMENTS, **options))
    assert ids_of(make_dataloader(rows, field="name", **options)) == expected


def test_columns_of_pyarrow_have_documents_or_ids() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    options: dict[str, Any] = {"batch_size": 1, "context_length": 1, "tokenizer": CHARACTERS}
    expected = ids_of(make_dataloader(DOCUMENTS, **options))
    assert ids_of(make_dataloader(pyarrow.array(DOCUMENTS), **options)) == expected
    assert ids_of(make_dataloader(pyarrow.table({"text": DOCUMENTS}), **options)) == expected
    assert ids_of(make_dataloader(pyarrow.chunked_array([[1, 2], [3]]), **options)) == [1, 2, 3]


# --- files of tokens ---


@pytest.fixture
def files(tmp_path: Path) -> list[TokenFile]:
    texts = ["abcdefghijk", "lmnopqrs", "tuvwx"]
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz")
    return [
        tokenize_to_file([text], tmp_path / f"{i}.tokens", tokenizer=tokenizer, threads=1)
        for i, text in enumerate(texts)
    ]


@given(context_length=st.integers(1, 4), stride=st.integers(1, 6), batch_size=st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # which is only read
def test_windows_of_several_files_are_those_of_each(
    files: list[TokenFile], context_length: int, stride: int, batch_size: int
) -> None:
    def read(source: Any, *, shuffle: bool = False) -> list[tuple[list[int], list[int]]]:  # noqa: ANN401
        loader = make_dataloader(
            source, batch_size=batch_size, context_length=context_length, stride=stride, shuffle=shuffle
        )
        found = [pair for batch in loader for pair in zip(*(part.tolist() for part in batch), strict=True)]
        assert len(found) == len(cast("Sized", loader.dataset))
        return found

    expected = [window for file in files for window in read(file)]
    assert read(files) == read(tuple(files)) == expected
    assert sorted(read(files, shuffle=True)) == sorted(expected)
    assert read([files[1]]) == read(files[1])


def test_parts_of_files_may_be_joined_and_pickled(files: list[TokenFile]) -> None:
    loader = make_dataloader([files[2], files[0][3:6]], batch_size=9, context_length=2)
    (inputs, targets), *_ = loader
    assert inputs.tolist() == [[19, 20], [21, 22], [3, 4]]
    again = pickle.loads(pickle.dumps(loader.dataset))  # noqa: S301 - our own
    assert torch.equal(again.__getitems__([2, -2, 0])[1], targets[[2, 1, 0]])
    with pytest.raises(IndexError, match="window 3 of 3"):
        again.__getitems__([3])


def test_files_of_several_tokenizers_are_refused(files: list[TokenFile], tmp_path: Path) -> None:
    other = tokenize_to_file(["abc"], tmp_path / "other.tokens", tokenizer=CharTokenizer("abc"), threads=1)
    with pytest.raises(ValueError, match=r"other\.tokens was made with another tokenizer than .*0\.tok.* 4 and 27 tok"):
        make_dataloader([*files, other], batch_size=1, context_length=1)
    with pytest.raises(ValueError, match=r"0\.tokens has tokens of a vocabulary of 27, but the tokenizer has 4"):
        make_dataloader(files, batch_size=1, context_length=1, tokenizer=CharTokenizer("abc"))
    for file, value in zip(files, "abc", strict=True):  # of the same size, but other characters
        file.__dict__["tokenizer_sha256"] = value
    with pytest.raises(ValueError, match=r"1\.tokens was made with another tokenizer than .*0\.tokens; tokenize all"):
        make_dataloader(files[:2], batch_size=1, context_length=1)


def test_a_list_of_files_has_only_files(files: list[TokenFile]) -> None:
    with pytest.raises(TypeError, match=r"source\[1\] must be a TokenFile, as source\[0\] is, got 'a' \(str\)"):
        make_dataloader([files[0], "a"], batch_size=1, context_length=1)


def test_a_file_too_short_for_a_window_is_left_out_as_a_tail_is(files: list[TokenFile]) -> None:
    """The last of several files may be as short as it likes."""
    assert rows(make_dataloader(files, batch_size=1, context_length=8)) == [list(range(8))]
    with pytest.raises(ValueError, match=r"context_length is 11.* has only 11"):
        make_dataloader(files, batch_size=1, context_length=11)


# --- order ---


@given(size=st.integers(1, 60), seed=st.integers(0, 2**64 - 1), epochs=st.lists(st.integers(0, 99), max_size=4))
def test_the_order_is_a_permutation_and_a_pure_function_of_seed_and_epoch(
    size: int, seed: int, epochs: list[int]
) -> None:
    sampler = EpochSampler(size, shuffle=True, seed=seed)
    for i, epoch in enumerate(epochs):
        torch.manual_seed(i)
        np.random.seed(i)  # noqa: NPY002 - the global state is what must not matter
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(size))
        fresh = EpochSampler(size, shuffle=True, seed=seed)
        fresh.set_epoch(epoch)
        assert list(fresh) == order
    assert len(sampler) == size


def test_neighbouring_seeds_and_epochs_have_different_orders() -> None:
    orders = []
    for seed in range(20):
        sampler = EpochSampler(30, shuffle=True, seed=seed)
        orders += [tuple(sampler) for _ in range(20)]
    assert len(set(orders)) == 400


def test_no_item_prefers_a_place() -> None:
    """Chi-squared of where item 0 goes in 6,000 epochs: 1 in a million correct shuffles would fail; this seed never."""
    sampler = EpochSampler(6, shuffle=True, seed=0)
    counts = torch.bincount(torch.tensor([list(sampler).index(0) for _ in range(6000)]), minlength=6)
    statistic = ((counts - 1000.0) ** 2 / 1000).sum()
    assert torch.special.gammaincc(torch.tensor(2.5), statistic / 2) > 1e-6


def test_a_plain_loop_sees_another_order_each_epoch_and_set_epoch_repeats_one() -> None:
    loader = make_dataloader(range(100), batch_size=3, context_length=2, shuffle=True)
    first, second, third = rows(loader), rows(loader), rows(loader)
    assert first != second != third != first
    assert sorted(first) == sorted(second) == sorted(third)
    epoch_sampler(loader).set_epoch(1)
    assert [rows(loader), rows(loader)] == [second, third]
    fresh = make_dataloader(range(100), batch_size=3, context_length=2, shuffle=True)
    assert rows(fresh) == first


def test_an_epoch_left_early_counts_as_one() -> None:
    loader = make_dataloader(range(100), batch_size=3, context_length=2, shuffle=True)
    whole = make_dataloader(range(100), batch_size=3, context_length=2, shuffle=True)
    next(iter(loader))
    rows(whole)
    assert rows(loader) == rows(whole)


def test_the_seed_chooses_the_orders() -> None:
    def shuffled(seed: int) -> list[list[int]]:
        return rows(make_dataloader(range(100), batch_size=3, context_length=2, shuffle=True, seed=seed))

    assert shuffled(1) == shuffled(1) != shuffled(2)


def test_without_shuffling_every_epoch_is_in_the_order_of_the_text() -> None:
    loader = make_dataloader(range(100), batch_size=3, context_length=2)
    assert rows(loader) == rows(loader) == [[i, i + 1] for i in range(0, 98, 2)]


def test_more_items_than_one_piece_of_the_order() -> None:
    order = list(EpochSampler(10_000, shuffle=True, seed=0))
    assert sorted(order) == list(range(10_000))
    assert all(type(i) is int for i in order[:5])


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (3, -1)])
def test_an_order_of_nothing_is_refused(size: int, seed: int) -> None:
    with pytest.raises(ValueError, match="size" if size == 0 else "seed"):
        EpochSampler(size, shuffle=True, seed=seed)
    with pytest.raises(ValueError, match="epoch"):
        EpochSampler(3, shuffle=True, seed=0).set_epoch(-1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_iterating_leaves_the_global_random_state_alone(shuffle: bool) -> None:
    torch_state, numpy_state = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    loader = make_dataloader(range(100), batch_size=3, context_length=2, shuffle=shuffle)
    rows(loader)
    rows(loader)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert pickle.dumps(np.random.get_state()) == numpy_state  # noqa: NPY002


# --- what PyTorch does with it ---


def test_the_loader_is_a_real_one_with_what_others_need_to_rebuild_it() -> None:
    loader = make_dataloader(range(100), batch_size=3, context_length=4, shuffle=True, drop_last=True)
    assert isinstance(loader, DataLoader)
    assert type(loader).__init__ is DataLoader.__init__  # whose arguments Lightning rebuilds it from
    assert (loader.batch_size, loader.drop_last, loader.num_workers) == (3, True, 0)
    assert isinstance(loader.dataset, TokenDataset)
    assert isinstance(loader.sampler, EpochSampler)
    assert pickle.dumps((loader.dataset, loader.sampler, loader.collate_fn))  # what a spawned worker gets


def test_a_default_device_does_not_reach_the_loader() -> None:
    """PyTorch draws the seed of a pass there, by the loader's generator, which lies on the CPU: iterating failed."""
    loader = make_dataloader(range(100), batch_size=3, context_length=4, shuffle=True)
    with torch.device("meta"):
        first = pairs(iter(loader))
        again = make_dataloader(range(100), batch_size=3, context_length=4, shuffle=True)
        assert_same(iter(again), first)
    assert {inputs.device.type for inputs, _ in first} == {"cpu"}


def test_batches_are_gathered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_dataloader(range(100), batch_size=8, context_length=4, stride=1)
    asked: list[int] = []
    gather = TokenDataset.__getitems__

    def counting(dataset: TokenDataset, indices: Sequence[int]) -> Batch:
        asked.append(len(indices))
        return gather(dataset, indices)

    monkeypatch.setattr(TokenDataset, "__getitems__", counting)
    monkeypatch.setattr(TokenDataset, "__getitem__", lambda *_: pytest.fail("a window was read alone"))
    assert len(rows(loader)) == 96
    assert asked == [8] * 12


def pairs(batches: Iterator[Any]) -> list[tuple[Tensor, Tensor]]:
    return [(inputs, targets) for inputs, targets in batches]


def assert_same(batches: Iterator[Any], expected: list[tuple[Tensor, Tensor]]) -> None:
    got = pairs(batches)
    assert len(got) == len(expected)
    for (inputs, targets), (wanted_inputs, wanted_targets) in zip(got, expected, strict=True):
        assert torch.equal(inputs, wanted_inputs)
        assert torch.equal(targets, wanted_targets)


@pytest.mark.parametrize("batch_size", [1, 2, 5])  # a pair of (2, T) must not be taken for two samples
def test_a_loader_with_pytorchs_own_collate_gives_the_same(batch_size: int) -> None:
    expected = pairs(iter(make_dataloader(range(60), batch_size=batch_size, context_length=4)))
    dataset = TokenDataset(range(60), context_length=4)
    generator = torch.Generator()
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=default_collate, generator=generator)
    assert_same(iter(loader), expected)
    assert_same(iter(DataLoader(dataset, batch_size=batch_size)), expected)


def test_a_subset_gives_the_windows_it_names() -> None:
    dataset = TokenDataset(range(60), context_length=4)
    indices = [3, 0, 7, 7, -1]
    subset = Subset(dataset, indices)
    expected = [dataset[i] for i in indices]
    assert_same(iter([subset[i] for i in range(5)]), expected)
    together = next(iter(DataLoader(subset, batch_size=5)))
    assert_same(zip(*together, strict=True), expected)


def test_data_sets_can_be_put_end_to_end() -> None:
    one, two = TokenDataset(range(20), context_length=4), TokenDataset(range(100, 130), context_length=4)
    inputs, targets = next(iter(DataLoader(ConcatDataset([one, two]), batch_size=99)))
    assert torch.equal(inputs, torch.cat([one.__getitems__(range(4))[0], two.__getitems__(range(7))[0]]))
    assert torch.equal(targets, inputs + 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and 3.13, since torch has threads
def test_workers_give_the_same_batches_in_the_same_order() -> None:
    loader = make_dataloader(range(200), batch_size=3, context_length=4, shuffle=True)
    expected = [pairs(iter(loader)), pairs(iter(loader))]
    epoch_sampler(loader).set_epoch(0)
    state = torch.get_rng_state()
    parallel = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
        num_workers=2,
        persistent_workers=True,
    )
    assert_same(iter(parallel), expected[0])
    assert_same(iter(parallel), expected[1])
    assert torch.equal(torch.get_rng_state(), state)


# --- files ---


FILE_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))  # a NUL byte is refused


@given(text=FILE_TEXTS, mark=st.booleans())
def test_a_file_is_read_as_utf8(tmp_path_factory: pytest.TempPathFactory, text: str, mark: bool) -> None:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    if not mark:
        text = text.removeprefix("\ufeff")  # a byte order mark all the same
    assert read_text(path) == read_text(str(path)) == text.replace("\r\n", "\n")


@given(before=FILE_TEXTS, after=FILE_TEXTS, mark=st.booleans(), byte=st.sampled_from([0xFF, 0xFE, 0xC0, 0xC1, 0xF8]))
def test_a_byte_that_is_not_utf8_is_told_with_its_offset(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, mark: bool, byte: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    start = (b"\xef\xbb\xbf" if mark else b"") + before.encode()
    path.write_bytes(start + bytes([byte]) + after.encode())
    with pytest.raises(ValueError, match=rf"text\.txt is not UTF-8: byte 0x{byte:02x} at offset {len(start)};.*iconv"):
        read_text(path)


def test_another_encoding_and_a_character_cut_in_two_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "大战.txt"
    path.write_bytes("大战".encode("gb18030"))
    with pytest.raises(ValueError, match=r"大战\.txt is not UTF-8: byte 0xb4 at offset 0"):
        read_text(path)
    path.write_bytes("大战".encode()[:-1])
    with pytest.raises(ValueError, match="at offset 3"):
        read_text(path)
    path.write_bytes("大战".encode("utf-16"))
    with pytest.raises(ValueError, match="0xff at offset 0"):
        read_text(path)


def test_line_ends_of_windows_become_those_of_unix(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\nc\rd")
    assert read_text(tmp_path / "text.txt") == "a\n\nb\nc\rd"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        read_text(tmp_path / "missing.txt")


IN_ANOTHER_LOCALE = """
import locale, sys
from pathlib import Path
from tinygpt2 import *
assert locale.getpreferredencoding(False).lower().replace("-", "") != "utf8", "the test tests nothing"
directory = Path(sys.argv[1])
text = read_text(directory / "text.txt")
save_tokenizer(CharTokenizer.from_text(text), directory)
assert load_tokenizer(directory).decode(gpt2_tokenizer().encode_ordinary("")) == ""
assert load_tokenizer(directory).characters == "".join(sorted(set(text)))
TrainingHistory().save(directory / "history.json")
TrainingHistory.load(directory / "history.json")
print(ascii(text), len(sample_text()), gpt2_tokenizer().encode_ordinary(text) == eval(sys.argv[2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="the C locale")
def test_files_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    text = CHINESE.strip()
    (tmp_path / "text.txt").write_bytes(text.encode())
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    arguments = [str(tmp_path), repr(gpt2_tokenizer().encode_ordinary(text))]
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_LOCALE, *arguments],
        env={**os.environ, **locale}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stderr == ""
    assert result.stdout.strip() == f"{text!a} {len(sample_text())} True"


def test_the_sample_text_is_as_long_as_promised_and_clean() -> None:
    text = sample_text()
    assert text.splitlines()[0] == "The First World War"
    assert 80_000 <= len(text) <= 100_000
    assert "\r" not in text
    assert "\ufffd" not in text
    assert gpt2_tokenizer().decode(gpt2_tokenizer().encode_ordinary(text)) == text


@pytest.mark.parametrize("integer", [np.int64, np.uint8, np.array, torch.tensor])
def test_numbers_of_numpy_and_pytorch_are_plain_ones(integer: Any) -> None:  # noqa: ANN401
    """A sweep over ``np.arange`` was told that its batch size is not an integer, by the same digits."""
    expected = list(make_dataloader(range(300), batch_size=2, context_length=100, stride=50, shuffle=True, seed=7))
    found = list(
        make_dataloader(
            range(300), batch_size=integer(2), context_length=integer(100), stride=integer(50), shuffle=True,
            seed=integer(7),
        )
    )  # fmt: skip
    assert all(inputs.equal(same) for (inputs, _), (same, _) in zip(found, expected, strict=True))


def test_the_longest_window_of_a_small_type_does_not_overflow() -> None:
    """255 + 1 is 0 in a byte."""
    ((inputs, targets),) = make_dataloader(range(256), batch_size=1, context_length=np.uint8(255))  # type: ignore[arg-type]
    assert (inputs.shape, targets[0, -1]) == ((1, 255), 255)


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_a_seed_is_any_that_pytorch_takes(seed: int) -> None:
    assert len(list(make_dataloader(range(9), batch_size=2, context_length=2, shuffle=True, seed=seed))) == 2
    with pytest.raises(ValueError, match="seed must be at most 18446744073709551615, got about"):
        make_dataloader(range(9), batch_size=2, context_length=2, seed=10**400)
