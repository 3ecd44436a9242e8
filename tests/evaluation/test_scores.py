"""Scores of single tokens: they are those of the logits, and sum up to the loss of the text."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    NonFiniteLossError,
    TokenScore,
    evaluate_text,
    gpt2_tokenizer,
    score,
)
from tinygpt2.evaluation import scores, windows
from tinygpt2.evaluation.passages import Passages
from tinygpt2.evaluation.scores import score_passages
from tinygpt2.evaluation.windows import Windows

LETTERS = CharTokenizer("abé好 \n")
SHAPE = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=8, n_layer=2, n_head=2, n_embd=16, dropout=0.5)


def clear(model: GPT2Model) -> GPT2Model:
    """Makes the probabilities differ clearly."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.double()


@pytest.fixture(scope="module")
def model() -> GPT2Model:
    torch.manual_seed(0)
    return clear(GPT2Model(SHAPE))


def test_a_score_is_that_of_the_logits(model: GPT2Model) -> None:
    text = "a好bé"
    found = score(model, LETTERS, text)
    ids = torch.tensor([[LETTERS.eot_token, *LETTERS.encode_ordinary(text)]])
    with torch.no_grad():
        probabilities = model.eval()(ids[:, :-1])[0].softmax(-1)
    assert [each.token for each in found] == ids[0, 1:].tolist()
    assert [each.text for each in found] == list(text)
    assert [(each.start, each.end) for each in found] == [(0, 1), (1, 4), (4, 5), (5, 7)]
    for each, row in zip(found, probabilities, strict=True):
        assert each.probability == pytest.approx(row[each.token].item(), rel=1e-9)
        assert each.log_probability == pytest.approx(row[each.token].log().item(), rel=1e-9)
        assert row.argsort(descending=True)[each.rank - 1] == each.token


@given(st.text(LETTERS.characters, min_size=1, max_size=40), st.none() | st.integers(1, 8), st.integers(1, 3))
@example("ab" * 20, 3, 1)
def test_the_scores_add_up_to_the_loss_of_the_text(
    model: GPT2Model, text: str, stride: int | None, batch_size: int
) -> None:
    found = score(model, LETTERS, text, stride=stride, batch_size=batch_size)
    result = evaluate_text(model, LETTERS, text, stride=stride)
    assert len(found) == result.tokens
    nats = -math.fsum(each.log_probability for each in found)
    assert nats / len(text.encode()) / math.log(2) == pytest.approx(result.bits_per_byte, rel=1e-9)
    content = text.encode()
    assert b"".join(content[each.start : each.end] for each in found) == content


def test_documents_are_scored_in_their_order_whatever_the_batches(
    model: GPT2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are sorted by their lengths, and come back."""
    monkeypatch.setattr(windows, "_GROUP", 2)
    documents = ["ab" * (n * 7 % 13) + "é" for n in range(25)]
    parts = Windows(model, 5, 2)
    found = list(score_passages(model, Passages(LETTERS, documents), parts))
    for i, text in enumerate(documents):
        alone = [each for number, each in score_passages(model, Passages(LETTERS, [text]), parts)]
        mine = [each for number, each in found if number == i]
        assert [(each.token, each.rank, each.start) for each in mine] == [
            (each.token, each.rank, each.start) for each in alone
        ]
        assert [each.log_probability for each in mine] == pytest.approx([each.log_probability for each in alone])
        assert mine[-1].token == LETTERS.eot_token
        assert (mine[-1].start, mine[-1].end) == (len(text.encode()), len(text.encode()) + 1)


def test_logits_are_computed_a_few_at_a_time(model: GPT2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = score(model, LETTERS, "ab é好" * 9)
    sizes = []
    head = GPT2Model.head

    def watched(self: GPT2Model, hidden: Tensor) -> Tensor:
        sizes.append(len(hidden))
        return head(self, hidden)

    monkeypatch.setattr(GPT2Model, "head", watched)
    monkeypatch.setattr(scores, "_LOGITS_AT_ONCE", 3 * LETTERS.n_vocab)
    monkeypatch.setattr(GPT2Model, "splits", lambda _: True)
    found = score(model, LETTERS, "ab é好" * 9)
    assert [(each.token, each.rank) for each in found] == [(each.token, each.rank) for each in expected]
    assert sum(sizes) == len(found)
    assert max(sizes) == 3


def test_a_forward_of_ones_own_is_called() -> None:
    class Forbidding(GPT2Model):
        @override
        def forward(self, tokens: Tensor, cache: object = None) -> Tensor:
            return super().forward(tokens).index_fill(-1, torch.tensor(1), -math.inf)

    found = score(clear(Forbidding(SHAPE)), LETTERS, "ab")
    assert found[0].log_probability > -math.inf
    assert (found[1].log_probability, found[1].probability, found[1].rank) == (-math.inf, 0.0, LETTERS.n_vocab)


def test_equally_likely_tokens_have_the_rank_of_the_first() -> None:
    model = GPT2Model(SHAPE)
    with torch.no_grad():
        model.get_parameter("wte.weight").zero_()
    found = score(model, LETTERS, "ab")
    assert [each.rank for each in found] == [1, 1]
    assert [each.probability for each in found] == pytest.approx([1 / 7] * 2)


def test_parts_of_a_character_have_offsets_and_a_sign_for_what_is_missing() -> None:
    model = GPT2Model(GPT2Config(context_length=8, n_layer=1, n_head=2, n_embd=8))
    found = score(model, gpt2_tokenizer(), "a🦊")
    assert "".join(each.text for each in found[1:]) != "🦊"
    assert all("\ufffd" in each.text for each in found[1:])
    assert [each.start for each in found] == [0, *[each.end for each in found[:-1]]]
    assert found[-1].end == len("a🦊".encode())


class Words:
    """A tokenizer that does not say how many bytes a token stands for."""

    n_vocab = 3
    eot_token = 2
    words = ("ab", " b", "")

    def encode_ordinary(self, text: str, /) -> list[int]:
        return [self.words.index(text[i : i + 2]) for i in range(0, len(text), 2)]

    def decode(self, tokens: Sequence[int], /) -> str:
        return "".join(self.words[token] for token in tokens)


class Endless(Words):
    """One that has no end of text, but knows its bytes."""

    @property
    def eot_token(self) -> int:  # type: ignore[override]
        raise KeyError("none")

    def token_bytes(self) -> list[int]:
        return [2, 2, 0]


def test_places_are_unknown_if_the_tokenizer_does_not_say() -> None:
    model = GPT2Model(GPT2Config(vocab_size=3, context_length=8, n_layer=1, n_head=2, n_embd=8))
    assert [(each.text, each.start, each.end) for each in score(model, Words(), "ab b")] == [
        ("ab", None, None),
        (" b", None, None),
    ]


def test_without_an_end_of_text_the_first_token_has_no_score() -> None:
    model = GPT2Model(GPT2Config(vocab_size=3, context_length=8, n_layer=1, n_head=2, n_embd=8))
    assert [(each.text, each.start, each.end) for each in score(model, Endless(), "ab bab")] == [
        (" b", 2, 4),
        ("ab", 4, 6),
    ]


def test_a_score_is_a_value() -> None:
    one = TokenScore(token=1, text="a", log_probability=-math.log(4), rank=2, start=0, end=1)
    assert one == TokenScore(token=1, text="a", log_probability=-math.log(4), rank=2, start=0, end=1)
    assert one.probability == pytest.approx(0.25)


def test_wrong_arguments_are_told(model: GPT2Model) -> None:
    with pytest.raises(TypeError, match=r"text must be a str, got \['a'\] \(list\); join several"):
        score(model, LETTERS, ["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to evaluate: the text is empty"):
        score(model, LETTERS, "")
    with pytest.raises(ValueError, match="stride must be at most 8, got 9"):
        score(model, LETTERS, "ab", stride=9)


def test_weights_that_are_not_finite_are_named() -> None:
    model = GPT2Model(SHAPE)
    with torch.no_grad():
        model.get_parameter("ln_f.weight")[0] = math.nan
    with pytest.raises(NonFiniteLossError, match=r"the loss of the text is nan: 1 of 16 values of the weight ln_f.we"):
        score(model, LETTERS, "ab")
