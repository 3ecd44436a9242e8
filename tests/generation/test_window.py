"""What a model sees of a text longer than its context, held against a loop of plain forwards.

Models are in double precision, where no rounding can turn one greedy choice, or one draw of a seed, into another.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GenerationOptions,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    KVCache,
    MultinomialSampler,
    Sampler,
    generate,
    generate_text,
    stream,
)
from tinygpt2.generation import graphs, steps
from tinygpt2.generation.options import Overflow

CHARACTERS = CharTokenizer("abcdefg")
VOCAB_SIZE = CHARACTERS.n_vocab
OVERFLOWS = ("slide", "restart")

windows = st.integers(1, 9)


@functools.cache
def model(window: int) -> GPT2Model:
    torch.manual_seed(0)
    made = GPT2Model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=window, n_layer=2, n_head=2, n_embd=8)).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made.eval()


def prompt_of(seed: int, *shape: int) -> Tensor:
    return torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def seen(window: int, width: int, count: int, overflow: str) -> list[int]:
    """Returns how many of its last tokens each new token of a text sees."""
    sizes: list[int] = []
    for _ in range(count):
        if overflow == "restart" and sizes and sizes[-1] == window:
            sizes.append((window + 1) // 2)
        else:
            sizes.append(min(window, sizes[-1] + 1 if sizes else width))
    return sizes


def plain(tokens: Tensor, window: int, options: GenerationOptions) -> Tensor:
    sizes = seen(window, tokens.shape[1], options["max_new_tokens"], options.get("overflow", ""))
    for size in sizes:
        with torch.no_grad():
            logits = model(window)(tokens[:, -size:])[:, -1]
        generator = options["generator"]
        assert isinstance(generator, torch.Generator)
        chosen = options["sampler"](logits, tokens=tokens, generator=generator)
        tokens = torch.cat([tokens, chosen.unsqueeze(1)], dim=1)
    return tokens


def test_the_newest_half_is_kept() -> None:
    assert seen(8, 6, 9, "restart") == [6, 7, 8, 4, 5, 6, 7, 8, 4]
    assert seen(8, 20, 3, "restart") == [8, 4, 5]
    assert seen(1, 3, 3, "restart") == [1, 1, 1]
    assert seen(2, 3, 4, "restart") == [2, 1, 2, 1]


@pytest.mark.parametrize("overflow", OVERFLOWS)
@given(windows, st.integers(1, 20), st.integers(0, 30), st.sampled_from([GreedySampler(), MultinomialSampler()]))
@example(1, 3, 5, GreedySampler())
@example(2, 1, 9, GreedySampler())
@example(8, 8, 20, MultinomialSampler())
@example(8, 17, 20, GreedySampler())
def test_texts_past_the_window_equal_a_loop_of_plain_forwards(
    overflow: Overflow, window: int, width: int, count: int, sampler: Sampler
) -> None:
    tokens = prompt_of(width + count, 2, width)

    def options() -> GenerationOptions:
        generator = torch.Generator().manual_seed(count)
        return {"max_new_tokens": count, "overflow": overflow, "sampler": sampler, "generator": generator}

    expected = plain(tokens, window, options())
    assert torch.equal(generate(model(window), tokens, **options()), expected)


texts = st.lists(st.text("abcdefg", max_size=20), min_size=1, max_size=4)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@given(windows, texts, st.integers(0, 30))
@example(8, ["a", "abcdefg" * 3, "", "abcabc"], 30)
@example(1, ["a", "ab", ""], 9)
@example(2, ["a", "ab", ""], 9)
def test_each_prompt_of_a_batch_goes_on_as_it_would_alone_past_the_window(
    overflow: Overflow, window: int, prompts: list[str], count: int
) -> None:
    """Rows of other lengths fill the window at other times."""

    def shown(batch: Sequence[str]) -> Tensor:
        found: list[Tensor] = []

        def never_ending(logits: Tensor, /, **_: object) -> Tensor:
            found.append(logits)
            return logits[:, :-1].argmax(dim=-1)

        options: GenerationOptions = {"max_new_tokens": count, "overflow": overflow, "sampler": never_ending}
        generate_text(model(window), CHARACTERS, list(batch), **options)
        return torch.stack(found, dim=1) if found else torch.zeros(len(batch), 0)

    torch.testing.assert_close(shown(prompts), torch.cat([shown([text]) for text in prompts]), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("slide", [(6, 0), (1, 6), (1, 7), (8, 0), (8, 0)]),
        ("restart", [(6, 0), (1, 6), (1, 7), (3, 0), (1, 3), (1, 4)]),  # half of the window, with the last token
    ],
)
def test_a_restart_computes_half_of_the_window_once(overflow: Overflow, expected: list[tuple[int, int]]) -> None:
    calls: list[tuple[int, int]] = []

    class Counted(GPT2Model):
        @override
        def last_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
            assert cache is not None
            calls.append((tokens.shape[1], cache.length))
            return super().last_logits(tokens, cache)

    counted = Counted(model(8).config)
    generate(counted, prompt_of(0, 2, 6), max_new_tokens=5, overflow=overflow)
    assert calls == expected


@given(windows, texts, st.integers(0, 40))
@example(8, ["a", "abcdefg" * 3, "", "abcabc"], 40)
@example(8, ["ab"], 40)
@example(2, ["a", "ab", ""], 9)
def test_a_recorded_step_goes_on_after_a_restart(window: int, prompts: list[str], count: int) -> None:
    """Its slot and its padding are in memory that was recorded, so they have to go back to where the cache is."""

    def written() -> list[list[str]]:
        options: GenerationOptions = {"max_new_tokens": count, "overflow": "restart", "sampler": not_the_end}
        return generate_text(model(window), CHARACTERS, prompts, **options, n=2)

    def not_the_end(logits: Tensor, /, **_: object) -> Tensor:
        return logits[:, :-1].argmax(dim=-1)

    expected = written()
    repeated = 0

    def record(step: Any, rewind: Any) -> Any:  # noqa: ANN401 - as a graph is recorded, where there is no GPU
        for _ in range(3):
            rewind()
            step()

        def repeat() -> Tensor:
            nonlocal repeated
            repeated += 1
            found: Tensor = step()
            return found

        return repeat

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(steps, "is_recordable", lambda _: True)
        monkeypatch.setattr(steps, "LEAST_STEPS", 2)
        monkeypatch.setattr(graphs, "record", record)
        assert written() == expected
    assert repeated == (count - 1 if count >= 2 else 0)


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_autocast_goes_past_the_window(overflow: Overflow) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = GPT2Model(model(8).config)
        assert generate(single, prompt_of(0, 2, 3), max_new_tokens=20, overflow=overflow).shape == (2, 23)


@pytest.mark.parametrize("wrong", ["cut", "", None, 1, True])
def test_another_overflow_is_refused_at_the_call(wrong: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="overflow must be one of 'slide', 'restart', got"):
        stream(model(8), prompt_of(0, 1, 2), max_new_tokens=1, overflow=wrong)
