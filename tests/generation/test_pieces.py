"""Stop strings, held against the text that was generated without them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, MultinomialSampler, generate_text, stream_text
from tinygpt2.generation.pieces import Continuation

LETTERS = CharTokenizer("abcdef\n")
SHAPE = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=8, n_layer=1, n_head=2, n_embd=8)


class Cuts:
    """A tokenizer of a single text: a token is a run of its bytes."""

    def __init__(self, content: bytes, cuts: Sequence[int]) -> None:
        places = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
        self.runs = [content[begin:end] for begin, end in pairwise(places)]
        self.eot_token = len(self.runs)
        self.n_vocab = len(self.runs) + 1

    def encode_ordinary(self, text: str, /) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int], /) -> str:
        return b"".join(self.runs[token] for token in tokens).decode(errors="replace")


def first_place(text: str, stops: Sequence[str]) -> int:
    return min((text.find(stop) for stop in stops if stop in text), default=len(text))


texts = st.text(alphabet="abc\n你好é😀", max_size=20)
several_stops = st.lists(st.text(alphabet="abc\n你好é😀", min_size=1, max_size=4), max_size=4)


@given(texts, st.lists(st.integers(0, 60), max_size=40), several_stops)
@example("xxab", range(9), ["ab", "abc"])  # one is the beginning of the other
@example("abx", range(9), ["abc", "b"])  # a longer one has begun before a shorter one is complete
@example("abc", range(9), ["abc", "b"])
@example("abc", range(9), ["abcd", "b"])  # and the text ends
@example("aab", range(9), ["ab"])
@example("ababac", range(9), ["abac"])
@example("好好你", range(9), ["好你"])
@example("a\n\nb", [], ["\n\n", "\n"])
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut_into_tokens(
    text: str, cuts: Sequence[int], stops: list[str]
) -> None:
    content, tokenizer = text.encode(), Cuts(text.encode(), cuts)
    expected = text[: first_place(text, stops)]
    continuation, shown, read = Continuation([], tokenizer, stops), "", b""
    for token in range(len(tokenizer.runs)):
        shown, read = shown + continuation.add(token), read + tokenizer.runs[token]
        assert expected.startswith(shown)  # nothing beyond it was ever shown, nor had to be taken back
        certain = read.decode(errors="replace").removesuffix("\ufffd")
        found = first_place(certain, stops)
        held = certain[len(shown) :]
        if continuation.ended:
            assert shown == expected
            assert found < len(certain)
            break
        assert not held or any(stop.startswith(held) or held.startswith(stop) for stop in stops) or found < len(certain)
        if len(stops) == 1:
            assert found == len(certain)  # it has ended as soon as the stop string was complete
            assert stops[0].startswith(held)  # and only what may become one is held back
    assert shown + continuation.finish() == expected
    assert "\ufffd" not in shown
    assert "".join(Continuation([], tokenizer, stops).pieces(range(len(tokenizer.runs)))) == expected
    assert content == b"".join(tokenizer.runs)


def model() -> GPT2Model:
    torch.manual_seed(0)
    made = GPT2Model(SHAPE).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made.eval()


@given(
    st.lists(st.text("abcdef", max_size=9), min_size=1, max_size=3),
    st.integers(0, 20),
    st.lists(st.text("abcdef\n", min_size=1, max_size=2), max_size=3),
    st.integers(0, 99),
)
def test_texts_and_streams_are_what_they_would_be_without_up_to_the_stop(
    prompts: list[str], count: int, stops: list[str], seed: int
) -> None:
    options: Any = {"max_new_tokens": count, "sampler": MultinomialSampler()}
    given, same, third = (torch.Generator().manual_seed(seed) for _ in range(3))
    free = generate_text(model(), LETTERS, prompts, **options, generator=given)
    new = [text.removeprefix(prompt) for prompt, text in zip(prompts, free, strict=True)]
    expected = [prompt + text[: first_place(text, stops)] for prompt, text in zip(prompts, new, strict=True)]
    assert generate_text(model(), LETTERS, prompts, **options, generator=same, stop=stops) == expected
    if len(prompts) == 1:
        pieces = stream_text(model(), LETTERS, prompts[0], **options, generator=third, stop=tuple(stops))
        assert prompts[0] + "".join(pieces) == expected[0]


class Script:
    """Chooses the given tokens, a text a row, and counts its calls."""

    def __init__(self, *rows: str) -> None:
        self.columns = list(zip(*(LETTERS.encode_ordinary(row) for row in rows), strict=True))
        self.calls = 0

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        del logits, tokens, generator
        self.calls += 1
        return torch.tensor(self.columns[self.calls - 1])


def test_a_batch_ends_when_its_last_text_has_stopped() -> None:
    script = Script("ab\ncdef", "abcde\nf")
    texts = generate_text(model(), LETTERS, ["x"[:0], "a"], max_new_tokens=7, sampler=script, stop="\n")
    assert texts == ["ab", "aabcde"]
    assert script.calls == 6


def test_a_stream_ends_with_the_stop_string() -> None:
    script = Script("abcdef")
    assert list(stream_text(model(), LETTERS, "a", max_new_tokens=6, sampler=script, stop="cd")) == ["a", "b"]
    assert script.calls == 4


def test_what_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    stream = stream_text(model(), LETTERS, "a", max_new_tokens=6, sampler=Script("abcabd"), stop=["bcb", "abde"])
    assert list(stream) == ["a", "bc", "abd"]


def test_the_prompts_part_of_a_stop_string_does_not_count() -> None:
    assert generate_text(model(), LETTERS, "ab", max_new_tokens=3, sampler=Script("cde"), stop="bc") == "abcde"
    assert generate_text(model(), LETTERS, "ab", max_new_tokens=3, sampler=Script("cde"), stop=["ab", "e"]) == "abcd"


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        ("", ValueError, "stop must be strings of at least one character, got ''"),
        (["a", ""], ValueError, "stop must be strings of at least one character, got ''"),
        ("a\udc80", ValueError, "stop has a lone surrogate"),
        (b"a", TypeError, "stop must be a str, got b'a'"),
        (None, TypeError, "stop must be a str, got None"),
        (["a", 3], TypeError, "stop must be a str, got 3"),
        ({"a": 1}, TypeError, "stop must be a str, got"),
    ],
)
def test_what_is_no_stop_string_is_refused_at_the_call(stop: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    for function in (generate_text, stream_text):
        with pytest.raises(error, match=message):
            function(model(), LETTERS, "a", max_new_tokens=1, stop=stop)
