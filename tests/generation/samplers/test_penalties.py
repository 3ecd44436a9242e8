"""Penalties on the tokens of the text so far, held against a loop over its tokens."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    CharTokenizer,
    FrequencyPenaltySampler,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    PresencePenaltySampler,
    RepetitionPenaltySampler,
    Sampler,
    generate,
    generate_text,
)

INF = math.inf
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
PENALTIES = [RepetitionPenaltySampler, PresencePenaltySampler, FrequencyPenaltySampler]
BY_PENALTY = pytest.mark.parametrize("penalty", PENALTIES)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)

Penalty = Callable[..., Sampler]


def passed_on(make: Callable[[Sampler], Sampler], logits: Tensor, text: Tensor | None) -> Tensor:
    """Returns the logits that a penalty passes on."""
    kept: list[Tensor] = []

    def last(left: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del generator
        assert tokens is text
        kept.append(left)
        return left.argmax(dim=-1)

    before = logits.clone()
    make(last)(logits, tokens=text)
    assert torch.equal(logits, before)
    return kept[0]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draws (B, V) logits in float64, some of them -inf, and (B, T) ids, rows of any length padded with -1."""
    rows, size, width = draw(st.integers(1, 4)), draw(st.integers(2, 9)), draw(st.integers(0, 12))
    values = st.floats(-9, 9, width=32) | st.sampled_from([0.0, -0.0, -INF])
    logits = torch.tensor(draw(st.lists(values, min_size=rows * size, max_size=rows * size)), dtype=torch.float64)
    logits = logits.view(rows, size)
    logits[logits.amax(dim=-1) == -INF, -1] = 0
    texts = draw(st.lists(st.lists(st.integers(0, size - 1), max_size=width), min_size=rows, max_size=rows))
    padded = [[-1] * (width - len(text)) + text for text in texts]
    return logits, torch.tensor(padded, dtype=torch.int64).view(rows, width)


def expected(
    change: Callable[[float, int], float], logits: Tensor, tokens: Tensor, prompt_tokens: int = 0
) -> list[list[float]]:
    """Returns the logits after ``change``, of a logit and how often its token is in the text, in a plain loop."""
    changed: list[list[float]] = logits.tolist()
    for row, text in zip(changed, tokens.tolist(), strict=True):
        for token, count in Counter(text[prompt_tokens:]).items():
            if token != -1 and row[token] > -INF:
                row[token] = change(row[token], count)
    return changed


@given(batches(), st.floats(0.1, 10), st.integers(0, 4))
def test_a_repetition_penalty_divides_positive_logits_and_multiplies_others(
    drawn: tuple[Tensor, Tensor], penalty: float, prompt_tokens: int
) -> None:
    logits, tokens = drawn
    actual = passed_on(
        lambda then: RepetitionPenaltySampler(penalty, prompt_tokens=prompt_tokens, then=then), logits, tokens
    )
    plain = expected(lambda x, _: x / penalty if x > 0 else x * penalty, logits, tokens, prompt_tokens)
    assert actual.tolist() == plain


@given(batches(), st.floats(-2, 2), st.integers(0, 4))
def test_a_presence_penalty_is_subtracted_once(
    drawn: tuple[Tensor, Tensor], penalty: float, prompt_tokens: int
) -> None:
    logits, tokens = drawn
    actual = passed_on(
        lambda then: PresencePenaltySampler(penalty, prompt_tokens=prompt_tokens, then=then), logits, tokens
    )
    assert actual.tolist() == expected(lambda x, _: x - penalty, logits, tokens, prompt_tokens)


@given(batches(), st.floats(-2, 2), st.integers(0, 4))
def test_a_frequency_penalty_is_subtracted_for_each_time(
    drawn: tuple[Tensor, Tensor], penalty: float, prompt_tokens: int
) -> None:
    logits, tokens = drawn
    actual = passed_on(
        lambda then: FrequencyPenaltySampler(penalty, prompt_tokens=prompt_tokens, then=then), logits, tokens
    )
    assert actual.tolist() == expected(lambda x, n: x - n * penalty, logits, tokens, prompt_tokens)


@pytest.mark.parametrize("make", [RepetitionPenaltySampler(1), PresencePenaltySampler(0), FrequencyPenaltySampler(0)])
@given(drawn=batches())
def test_no_penalty_changes_nothing(make: Sampler, drawn: tuple[Tensor, Tensor]) -> None:
    logits, tokens = drawn
    assert torch.equal(passed_on(lambda then: type(make)(make.penalty, then=then), logits, tokens), logits)  # type: ignore[attr-defined, call-arg]


@BY_PENALTY
@given(drawn=batches())
def test_where_there_is_no_text_nothing_changes(penalty: Penalty, drawn: tuple[Tensor, Tensor]) -> None:
    logits, tokens = drawn
    for text in (None, tokens[:, :0], torch.full_like(tokens, -1)):
        assert torch.equal(passed_on(lambda then: penalty(1.7, then=then), logits, text), logits)


@BY_PENALTY
@given(drawn=batches())
def test_a_row_does_not_depend_on_its_padding(penalty: Penalty, drawn: tuple[Tensor, Tensor]) -> None:
    logits, tokens = drawn
    together = passed_on(lambda then: penalty(1.7, then=then), logits, tokens)
    for row, text, of_batch in zip(logits, tokens, together, strict=True):
        alone = passed_on(lambda then: penalty(1.7, then=then), row[None], text[text >= 0][None])
        assert torch.equal(of_batch, alone[0])


@BY_PENALTY
def test_an_id_beyond_the_logits_is_not_counted(penalty: Penalty) -> None:
    """A tokenizer may have fewer tokens than the model, whose logits are cut."""
    logits = torch.tensor([[1.0, 2.0]])
    changed = passed_on(lambda then: penalty(2.0, then=then), logits, torch.tensor([[7, 0, 2]]))
    assert changed[0, 0] < 1
    assert changed[0, 1] == 2


@BY_PENALTY
@BY_DTYPE
@pytest.mark.parametrize("strength", [5e-324, 1e-38, 3e38, 1e300])
def test_no_penalty_makes_a_token_impossible_or_a_logit_infinite(
    penalty: Penalty, dtype: torch.dtype, strength: float
) -> None:
    """Neither in half precision, nor where float32 would round the penalty to 0 or to infinity."""
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, 0.0, 3.0, -3.0, -INF]], dtype=dtype)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 5] * 3])
    signs = [strength] if penalty is RepetitionPenaltySampler else [strength, -strength]
    for each in signs:
        changed = passed_on(lambda then, each=each: penalty(each, then=then), logits, tokens)  # type: ignore[misc]
        assert changed[0, :5].isfinite().all()
        assert changed[0, 5] == -INF
        assert penalty(each)(logits, tokens=tokens) < 5


@BY_PENALTY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precisions_are_penalised_in_float32(penalty: Penalty, dtype: torch.dtype) -> None:
    logits, tokens = torch.randn(3, 50).to(dtype), torch.randint(50, (3, 90))
    changed = passed_on(lambda then: penalty(1.3, then=then), logits, tokens)
    assert torch.equal(changed, passed_on(lambda then: penalty(1.3, then=then), logits.float(), tokens))
    assert changed.dtype == torch.float32


@BY_PENALTY
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_ids_of_any_integers_are_counted(penalty: Penalty, dtype: torch.dtype) -> None:
    logits, tokens = torch.randn(3, 50), torch.randint(50, (3, 90))
    changed = passed_on(lambda then: penalty(1.3, then=then), logits, tokens.to(dtype))
    assert torch.equal(changed, passed_on(lambda then: penalty(1.3, then=then), logits, tokens))


# --- in generation ---

LETTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz ")


@functools.cache
def model() -> GPT2Model:
    """In which no weight is zero and whose logits differ clearly, in double precision."""
    torch.manual_seed(1)
    shape = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.0)
    made = GPT2Model(shape).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


@BY_PENALTY
@given(texts=st.lists(st.text(alphabet=LETTERS.characters, max_size=12), min_size=1, max_size=4))
def test_a_text_does_not_depend_on_the_lengths_of_its_neighbours(penalty: Penalty, texts: list[str]) -> None:
    written, sampler = model(), penalty(1.9, then=GreedySampler())
    alone = [generate_text(written, LETTERS, text, max_new_tokens=9, sampler=sampler) for text in texts]
    assert generate_text(written, LETTERS, texts, max_new_tokens=9, sampler=sampler) == alone


@BY_PENALTY
def test_without_the_prompt_only_what_was_generated_counts(penalty: Penalty) -> None:
    """The prompt of the first row is that of the second but for what they begin with, which the window has left."""
    written, prompts = model(), torch.randint(LETTERS.n_vocab, (1, 30)).repeat(2, 1)
    prompts[1, :10] = prompts[0, :10].flip(0) // 2

    def rows(**options: int) -> list[list[int]]:
        sampler = penalty(3.0, then=GreedySampler(), **options)
        new: list[list[int]] = generate(written, prompts, max_new_tokens=12, sampler=sampler)[:, 30:].tolist()
        return new

    first, second = rows(prompt_tokens=30)
    assert first == second
    first, second = rows()
    assert first != second


@pytest.mark.parametrize("penalty", [PresencePenaltySampler(1e9, then=GreedySampler()),
                                     FrequencyPenaltySampler(1e9, then=GreedySampler())])  # fmt: skip
def test_a_strong_penalty_repeats_no_token_while_there_are_others(penalty: Sampler) -> None:
    new = generate(model(), torch.tensor([[0], [5]]), max_new_tokens=27, sampler=penalty)
    assert all(len(set(row)) == LETTERS.n_vocab for row in new.tolist())


# --- values and what is refused ---


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = RepetitionPenaltySampler(np.float32(1.5), prompt_tokens=np.int64(3))  # type: ignore[arg-type]
    assert (type(made.penalty), made.penalty) == (float, 1.5)
    assert (type(made.prompt_tokens), made.prompt_tokens) == (int, 3)


@pytest.mark.parametrize("penalty", [0, -1, math.nan, INF])
def test_a_repetition_penalty_that_is_no_factor_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match=r"penalty must be a finite number greater than 0, got"):
        RepetitionPenaltySampler(penalty)


@pytest.mark.parametrize("make", PENALTIES[1:])
@pytest.mark.parametrize("penalty", [math.nan, INF, -INF])
def test_a_penalty_that_is_not_finite_is_refused(make: Penalty, penalty: float) -> None:
    with pytest.raises(ValueError, match=r"penalty must be a finite number of any size, got"):
        make(penalty)


@BY_PENALTY
@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_what_is_not_a_number_is_a_type_error(penalty: Penalty, value: object) -> None:
    with pytest.raises(TypeError, match="penalty must be a number"):
        penalty(value)
    with pytest.raises(TypeError, match="prompt_tokens must be an integer"):
        penalty(1.5, prompt_tokens=value)


@BY_PENALTY
def test_a_negative_number_of_tokens_is_refused(penalty: Penalty) -> None:
    with pytest.raises(ValueError, match="prompt_tokens must be at least 0, got -1"):
        penalty(1.5, prompt_tokens=-1)


BAD_TEXTS: Sequence[tuple[object, type[Exception], str]] = [
    ([[0], [1]], TypeError, r"tokens must be a tensor, \(B, T\), or None, got"),
    (torch.zeros(2, 3), TypeError, r"tokens must be integers, .* got torch.float32 of \(2, 3\)"),
    (torch.zeros(2, 3, dtype=torch.bool), TypeError, r"tokens must be integers, .* got torch.bool"),
    (torch.zeros(3, 2, dtype=torch.int64), ValueError, r"a row for each row of logits, \(2, T\), got \(3, 2\)"),
    (torch.zeros(2, dtype=torch.int64), ValueError, r"a row for each row of logits, \(2, T\), got \(2,\)"),
    (torch.zeros(2, 3, dtype=torch.int64, device="meta"), ValueError, "on the device of the logits, cpu, got some on"),
]


@BY_PENALTY
@pytest.mark.parametrize(("tokens", "error", "message"), BAD_TEXTS)
def test_what_is_no_text_is_told(penalty: Penalty, tokens: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        penalty(1.5)(torch.zeros(2, 5), tokens=tokens)  # type: ignore[arg-type]
