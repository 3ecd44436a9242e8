"""Recorded steps of decoding, held against plain ones.

There is no GPU: what is recorded is repeated by calling it, in the same memory and the same shapes.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinygpt2 import GPT2Config, GPT2Model, MultinomialSampler, generate, generate_text, stream
from tinygpt2.generation import graphs, steps
from tinygpt2.tokenizers.characters import CharTokenizer

WINDOW, VOCAB_SIZE = 24, 31
SHAPE = GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=8, dropout=0.1)


def new_model(**changes: Any) -> GPT2Model:  # noqa: ANN401
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(**{**vars(SHAPE), **changes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(9)
    return model


class Recorder:
    """Stands in for CUDA: repeats a step by calling it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor] = lambda logits: logits
    ) -> None:
        self.repeated = 0
        monkeypatch.setattr(steps, "is_recordable", lambda _: True)
        monkeypatch.setattr(steps, "LEAST_STEPS", 2)
        monkeypatch.setattr(graphs, "record", self.record)
        monkeypatch.setattr(steps, "_failed", set())
        self.change = change

    def record(self, step: Callable[[], Tensor], rewind: Callable[[], None]) -> Callable[[], Tensor]:
        for _ in range(3):
            rewind()
            step()

        def repeat() -> Tensor:
            self.repeated += 1
            return self.change(step())

        return repeat


@given(
    batch=st.integers(1, 3),
    width=st.integers(1, WINDOW + 3),
    max_new_tokens=st.integers(0, WINDOW + 3),
    seed=st.integers(0, 9),
)
def test_recorded_steps_write_what_plain_ones_write(batch: int, width: int, max_new_tokens: int, seed: int) -> None:
    model = new_model()
    prompts = torch.randint(VOCAB_SIZE, (batch, width), generator=torch.Generator().manual_seed(seed))

    def written() -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        options: Any = {"max_new_tokens": max_new_tokens, "sampler": MultinomialSampler(), "generator": generator}
        found: Tensor = generate(model, prompts, **options)
        return found

    plain = written()
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = Recorder(monkeypatch)
        assert written().tolist() == plain.tolist()
    room = min(max_new_tokens, WINDOW - width)
    assert recorder.repeated == (min(max_new_tokens - 1, room) if room >= 2 else 0)


@given(texts=st.lists(st.text("abc", max_size=9), min_size=1, max_size=3), max_new_tokens=st.integers(3, 9))
def test_so_do_prompts_of_unequal_lengths(texts: list[str], max_new_tokens: int) -> None:
    tokenizer = CharTokenizer("".join(chr(ord("a") + i) for i in range(VOCAB_SIZE - 1)))
    model = new_model(vocab_size=tokenizer.n_vocab)
    plain = generate_text(model, tokenizer, texts, max_new_tokens=max_new_tokens)
    with pytest.MonkeyPatch.context() as monkeypatch:
        Recorder(monkeypatch)
        assert generate_text(model, tokenizer, texts, max_new_tokens=max_new_tokens) == plain


def fails(_: Tensor) -> Tensor:
    raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (fails, "CUDA error: operation not permitted"),
        (lambda logits: 2 * logits, "a fast step has other logits than a plain one"),
    ],
)
def test_where_recording_does_not_work_steps_are_plain_and_that_is_said_once(
    change: Callable[[Tensor], Tensor],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, prompt = new_model(), torch.tensor([[1, 2, 3]])
    plain = generate(model, prompt, max_new_tokens=12)
    recorder = Recorder(monkeypatch, change)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert generate(model, prompt, max_new_tokens=12).tolist() == plain.tolist()
    assert recorder.repeated == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"decoding with plain steps, which is slower: {reason}"
    ]


class Own(nn.Linear):
    """A layer of somebody else's."""


def with_a_hook(model: GPT2Model) -> None:
    model.get_submodule("h.1.mlp").register_forward_hook(lambda *_: None)


def with_a_layer_of_others(model: GPT2Model) -> None:
    model.set_submodule("h.0.mlp.c_fc", Own(8, 32).double())


def with_a_forward_of_its_own(model: GPT2Model) -> None:
    model.h[0].forward = model.h[0].forward


@pytest.mark.parametrize("change", [with_a_hook, with_a_layer_of_others, with_a_forward_of_its_own])
def test_code_of_others_is_called_in_every_step(
    change: Callable[[GPT2Model], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model()
    change(model)
    recorder = Recorder(monkeypatch)
    generate(model, torch.tensor([[1]]), max_new_tokens=9)
    assert recorder.repeated == 0


def test_few_steps_and_other_devices_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    monkeypatch.setattr(steps, "LEAST_STEPS", 9)
    generate(new_model(), torch.tensor([[1]]), max_new_tokens=8)
    assert recorder.repeated == 0
    generate(new_model(), torch.tensor([[1]]), max_new_tokens=9)
    assert recorder.repeated == 8  # the first is on the prompt
    monkeypatch.undo()
    monkeypatch.setattr(graphs, "record", None)  # would fail if it were called
    generate(new_model(), torch.tensor([[1]]), max_new_tokens=WINDOW)


@pytest.mark.parametrize("moved", [False, True])
def test_the_model_may_be_changed_between_two_tokens(moved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> list[int]:
        model, found = new_model(), []
        for ids in stream(model, torch.tensor([[1, 2]]), max_new_tokens=12):
            found.append(int(ids))
            with torch.no_grad():
                if len(found) == 4:
                    model.wte.weight.mul_(-1)
                if len(found) == 8 and moved:
                    first = model.get_parameter("h.0.mlp.c_fc.weight")
                    first.data = first.flip(0)
        return found

    plain = written()
    recorder = Recorder(monkeypatch)
    assert written() == plain
    assert recorder.repeated == (7 if moved else 11)
