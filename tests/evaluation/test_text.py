"""Whole texts: every byte counts once, held against a loop over single tokens."""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    NonFiniteLossError,
    TokenFile,
    evaluate,
    evaluate_text,
    gpt2_tokenizer,
    make_dataloader,
    tokenize_to_file,
)
from tinygpt2.evaluation import windows
from tinygpt2.tokenizers.byte_pairs import byte_pair_encoding
from tinygpt2.tokenizers.protocol import Tokenizer

LETTERS = CharTokenizer("abé好 \n")
LENGTH = 8
texts = st.text(LETTERS.characters, min_size=1, max_size=40)
strides = st.integers(1, LENGTH)


@pytest.fixture(scope="module")
def model() -> GPT2Model:
    """A model whose probabilities differ clearly, and by position."""
    torch.manual_seed(0)
    model = GPT2Model(
        GPT2Config(vocab_size=LETTERS.n_vocab, context_length=LENGTH, n_layer=2, n_head=2, n_embd=16, dropout=0.5)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.double()


def nats_by_hand(model: GPT2Model, ids: Sequence[int], stride: int) -> list[float]:
    """Returns the surprisal of each id but the first, one forward pass each: the definition of a sliding window."""
    nats = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for target in range(1, len(ids)):
            late = max(0, target - LENGTH)
            begin = math.ceil(late / stride) * stride  # of the first window that reaches the target
            logits = model(torch.tensor([ids[begin:target]]))[0, -1]
            nats.append(-logits.log_softmax(-1)[ids[target]].item())
    model.train(was_training)
    return nats


def ids_of(text: str, *, end: bool = False) -> list[int]:
    return [LETTERS.eot_token, *LETTERS.encode_ordinary(text), *([LETTERS.eot_token] if end else [])]


@given(texts, st.none() | strides, st.integers(1, 3))
@example("a", None, 1)
@example("ab" * 20, 1, 2)
@example("a" * LENGTH, LENGTH, 1)
@example("a" * (LENGTH + 1), 3, 1)
def test_each_token_of_a_text_counts_once(model: GPT2Model, text: str, stride: int | None, batch_size: int) -> None:
    nats = nats_by_hand(model, ids_of(text), LENGTH if stride is None else stride)
    result = evaluate_text(model, LETTERS, text, stride=stride, batch_size=batch_size)
    assert result.tokens == len(text)
    assert result.bytes == len(text.encode())
    assert result.words == len(text.split())
    assert result.documents is None
    assert result.loss == pytest.approx(math.fsum(nats) / len(text), rel=1e-9)
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    assert result.bits_per_byte == pytest.approx(math.fsum(nats) / len(text.encode()) / math.log(2), rel=1e-9)
    words = len(text.split())
    assert result.word_perplexity == (pytest.approx(math.exp(math.fsum(nats) / words)) if words else None)


@given(st.lists(texts | st.just(""), min_size=1, max_size=12), st.none() | strides, st.integers(1, 3))
@example(["a", "", "b" * 30, "好"], 2, 1)
def test_documents_begin_anew_and_their_ends_are_predicted(
    model: GPT2Model, documents: list[str], stride: int | None, batch_size: int
) -> None:
    kept = [text for text in documents if text]
    if not kept:
        with pytest.raises(ValueError, match="nothing to evaluate: there are no documents, or none has any text"):
            evaluate_text(model, LETTERS, documents)
        return
    nats = [nat for text in kept for nat in nats_by_hand(model, ids_of(text, end=True), stride or LENGTH)]
    result = evaluate_text(model, LETTERS, documents, stride=stride, batch_size=batch_size)
    assert result.tokens == len(nats) == sum(len(text) + 1 for text in kept)
    assert result.bytes == len("\n".join([*kept, ""]).encode())
    assert result.words == sum(len(text.split()) for text in kept)
    assert result.documents == len(kept)
    assert result.loss == pytest.approx(math.fsum(nats) / len(nats), rel=1e-9)


def test_the_order_of_documents_and_the_size_of_a_batch_make_no_difference(model: GPT2Model) -> None:
    documents = ["ab" * n for n in range(1, 30)]
    expected = evaluate_text(model, LETTERS, documents)
    for batch_size in (1, 2, 100):
        result = evaluate_text(model, LETTERS, reversed(documents), batch_size=batch_size)
        assert result.loss == pytest.approx(expected.loss, rel=1e-12)


def test_a_stride_of_the_context_length_is_the_default(model: GPT2Model) -> None:
    text = "ab é好" * 9
    assert evaluate_text(model, LETTERS, text, stride=LENGTH) == evaluate_text(model, LETTERS, text)


def test_the_windows_are_those_of_a_loader_with_a_token_before_and_the_tail(model: GPT2Model) -> None:
    text = "ab é好" * 9
    ids = ids_of(text)
    loader = list(make_dataloader(ids, batch_size=1, context_length=LENGTH))
    tail = len(loader) * LENGTH
    rest = torch.tensor([ids[tail:]])
    assert len(rest[0]) > 1
    expected = evaluate(model, [*loader, (rest[:, :-1], rest[:, 1:])])
    result = evaluate_text(model, LETTERS, text)
    assert result.tokens == expected.tokens
    assert result.loss == pytest.approx(expected.loss, rel=1e-12)


def test_documents_are_read_a_few_at_a_time(model: GPT2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus larger than memory can be measured."""
    monkeypatch.setattr(windows, "_GROUP", 2)
    read, computed = 0, []

    def documents() -> Iterator[str]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield "abab"

    hook = model.register_forward_pre_hook(lambda *_: computed.append(read))
    try:
        result = evaluate_text(model, LETTERS, documents(), batch_size=1)
    finally:
        hook.remove()
    assert result.documents == 100
    assert computed[0] < 10
    assert all(later - earlier < 10 for earlier, later in pairwise(computed))


def test_short_documents_share_a_batch(model: GPT2Model) -> None:
    sizes = []
    hook = model.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape)))
    try:
        evaluate_text(model, LETTERS, ["a"] * 40 + ["b" * 20] * 3, batch_size=4)
    finally:
        hook.remove()
    assert max(rows for rows, _ in sizes) == 16  # of two tokens each: four full windows
    assert all(rows * width <= 4 * LENGTH for rows, width in sizes)


def test_the_model_keeps_its_mode_and_dropout_is_off(model: GPT2Model) -> None:
    model.train()
    assert evaluate_text(model, LETTERS, "abab" * 5) == evaluate_text(model, LETTERS, "abab" * 5)
    assert model.training


def test_end_of_text_typed_in_a_text_is_text() -> None:
    tokenizer = gpt2_tokenizer()
    model = GPT2Model(GPT2Config(context_length=16, n_layer=1, n_head=2, n_embd=8))
    result = evaluate_text(model, tokenizer, ["a<|endoftext|>b"])
    assert result.documents == 1
    assert result.bytes == len("a<|endoftext|>b") + 1
    assert result.tokens == len(tokenizer.encode_ordinary("a<|endoftext|>b")) + 1


# --- tokenizers ---


def endless() -> tiktoken.Encoding:
    """Returns an encoding of bytes and of one pair, without an end of text."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    return tiktoken.Encoding("endless", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={})


def small_model(vocab_size: int) -> GPT2Model:
    return GPT2Model(GPT2Config(vocab_size=vocab_size, context_length=LENGTH, n_layer=1, n_head=2, n_embd=8)).double()


def test_without_an_end_of_text_the_first_token_and_its_bytes_are_left_out() -> None:
    model, tokenizer = small_model(257), endless()
    text = "abé" * 5
    ids = tokenizer.encode_ordinary(text)
    assert len(ids) == 15  # ab, and the two bytes of é
    result = evaluate_text(model, tokenizer, text, stride=3)
    assert (result.tokens, result.bytes) == (14, 20 - 2)
    assert result.loss == pytest.approx(math.fsum(nats_by_hand(model, ids, 3)) / 14, rel=1e-9)
    with pytest.raises(ValueError, match="nothing to evaluate: the text has no token to predict"):
        evaluate_text(model, tokenizer, "ab")
    with pytest.raises(ValueError, match=r"tokenizer must have the token <\|endoftext\|>"):
        evaluate_text(model, tokenizer, ["ab"])


class Foreign:
    """A tokenizer of another library: whole words, in small letters, and one token for all others."""

    n_vocab = 5
    eot_token = 4
    words = ("the", "cat", "sat", "[UNK]", "[END]")

    def encode_ordinary(self, text: str, /) -> list[int]:
        return [self.words.index(word) if word in self.words else 3 for word in text.lower().split()]

    def decode(self, tokens: Sequence[int], /) -> str:
        return " ".join(self.words[token] for token in tokens)


def test_bytes_are_those_of_the_text_whatever_the_tokenizer() -> None:
    result = evaluate_text(small_model(5), Foreign(), ["the cat", "sat"])
    assert (result.tokens, result.bytes, result.words) == (5, 12, 3)
    assert evaluate_text(small_model(5), Foreign(), "the cat").bytes == 7


def test_a_tokenizer_that_loses_text_is_told() -> None:
    """Its figures are too good: nobody has to predict which letters were capitals."""
    message = "does not keep all of the text: document 1 decodes to another one, and so do 2 more"
    with pytest.warns(UserWarning, match=message) as caught:
        evaluate_text(small_model(5), Foreign(), ["the cat", "The cat", "sat", "the dog", "sat  sat"])
    assert Path(caught[0].filename) == Path(__file__)
    with pytest.warns(UserWarning, match="does not keep all of the text: the text decodes to another one. What"):
        evaluate_text(small_model(5), Foreign(), "The cat")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_gpt2s_tokenizer_keeps_every_text(text: str) -> None:
    tokenizer = byte_pair_encoding("bytes", r"\w+|\W", [bytes([byte]) for byte in range(256)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_text(small_model(257), tokenizer, text).bytes == len(text.encode())


# --- files of tokens ---


def written(tmp_path: Path, tokenizer: Tokenizer, parts: list[str]) -> TokenFile:
    return tokenize_to_file(parts, tmp_path / "a.tokens", tokenizer=tokenizer)


@pytest.mark.parametrize("stride", [None, 3])
def test_a_file_of_tokens_is_measured_as_its_text(tmp_path: Path, model: GPT2Model, stride: int | None) -> None:
    text = "ab é好\n" * 11
    expected = evaluate_text(model, LETTERS, text, stride=stride)
    result = evaluate_text(model, LETTERS, written(tmp_path, LETTERS, [text]), stride=stride)
    assert (result.tokens, result.bytes, result.documents) == (expected.tokens, expected.bytes, None)
    assert result.loss == pytest.approx(expected.loss, rel=1e-12)
    assert result.words is result.word_perplexity is None


def test_a_file_of_documents_is_measured_as_the_documents(
    tmp_path: Path, model: GPT2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ends of text are where the documents end, wherever the pieces are cut in which it is read."""
    monkeypatch.setattr("tinygpt2.evaluation.passages._PIECE", 7)
    documents = ["ab" * 10, "é", "好 a"]
    file = tokenize_to_file(documents, tmp_path / "a.tokens", tokenizer=LETTERS, documents=True)
    expected = evaluate_text(model, LETTERS, documents)
    result = evaluate_text(model, LETTERS, file)
    assert (result.tokens, result.bytes, result.documents) == (expected.tokens, expected.bytes, 3)
    assert result.loss == pytest.approx(expected.loss, rel=1e-12)
    cut = evaluate_text(model, LETTERS, file[:-1])  # the last has no end
    assert (cut.tokens, cut.documents) == (result.tokens - 1, 2)


def test_a_file_of_another_vocabulary_is_told(tmp_path: Path, model: GPT2Model) -> None:
    file = written(tmp_path, gpt2_tokenizer(), ["ab"])
    with pytest.raises(ValueError, match=r"tokens of a vocabulary of 50,257, but the tokenizer has 7"):
        evaluate_text(model, LETTERS, file)
    with pytest.raises(ValueError, match=r"a\.tokens has no token to predict"):
        evaluate_text(model, LETTERS, written(tmp_path, LETTERS, ["a"])[:0])


def test_a_file_knows_its_bytes_where_the_tokenizer_does_not(tmp_path: Path) -> None:
    """But not those of a part."""
    documents = ["the cat", "sat"]
    file = tokenize_to_file(documents, tmp_path / "a.tokens", tokenizer=Foreign(), documents=True)
    assert evaluate_text(small_model(5), Foreign(), file).bytes == 12
    part = evaluate_text(small_model(5), Foreign(), file[:-1])
    assert part.bytes is part.bits_per_byte is part.words is None


# --- what goes wrong ---


@pytest.mark.parametrize("stride", [0, -1, LENGTH + 1])
def test_a_stride_out_of_range_is_told(model: GPT2Model, stride: int) -> None:
    with pytest.raises(ValueError, match=r"stride must be at (least 1|most 8), got"):
        evaluate_text(model, LETTERS, "ab", stride=stride)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": nn.Linear(2, 2)}, TypeError, "model must be a GPT2Model, got Linear"),
        ({"tokenizer": CharTokenizer}, TypeError, "tokenizer must be an object with"),
        ({"source": 3}, TypeError, "source must be several str, got 3"),
        ({"source": b"ab"}, TypeError, "source must be several str, got b'ab'"),
        ({"source": ["a", 3]}, TypeError, r"source\[1\] must be a str, got 3"),
        ({"source": "a\ud800"}, ValueError, r"source has a lone surrogate, U\+D800, at position 1"),
        ({"source": ""}, ValueError, "nothing to evaluate: the text is empty"),
        ({"source": []}, ValueError, "nothing to evaluate: there are no documents, or none has any text"),
        ({"source": "xyz"}, ValueError, "the character 'x'"),
        ({"tokenizer": gpt2_tokenizer()}, ValueError, "model's vocabulary has ids 0 to 6, but the inputs of the text"),
        ({"stride": 1.5}, TypeError, "stride must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_are_told(
    model: GPT2Model, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate_text(**dict[str, Any](model=model, tokenizer=LETTERS, source="ab") | arguments)


def test_weights_that_are_not_finite_are_named() -> None:
    model = small_model(LETTERS.n_vocab)
    with torch.no_grad():
        model.get_parameter("ln_f.weight")[0] = math.nan
    with pytest.raises(NonFiniteLossError, match=r"the loss of the text is nan: 1 of 8 values of the weight ln_f.weig"):
        evaluate_text(model, LETTERS, "ab")
