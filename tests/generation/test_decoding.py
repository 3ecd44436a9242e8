"""Generation, held against a loop of plain forwards, and its text against the bytes of the tokens.

Models are in double precision, where no rounding can turn one greedy choice, or one draw of a seed, into another.
"""

import functools
import inspect
import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
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
    GreedySampler,
    KVCache,
    MinPSampler,
    MultinomialSampler,
    Sampler,
    TemperatureSampler,
    Tokenizer,
    TopKSampler,
    TopPSampler,
    generate,
    generate_text,
    gpt2_tokenizer,
    stream,
    stream_text,
    tensor_to_text,
)
from tinygpt2.generation import decoding
from tinygpt2.generation.pieces import Continuation

WINDOW = 8
VOCAB_SIZE = 31
CHARACTERS = CharTokenizer("".join(chr(ord("a") + i) for i in range(24)) + "你好世界，。")


@dataclass(frozen=True)
class Repeated:
    """A penalty on what the text has already (Keskar et al. 2019)."""

    penalty: float
    then: Sampler = field(default_factory=GreedySampler)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        assert tokens is not None
        changed = logits.clone()
        for row, text in zip(changed, tokens, strict=True):
            seen = text[text >= 0].unique()
            row[seen] = torch.where(row[seen] > 0, row[seen] / self.penalty, row[seen] * self.penalty)
        return self.then(changed, tokens=tokens, generator=generator)


SAMPLERS: list[Sampler] = [
    GreedySampler(),
    MultinomialSampler(),
    TemperatureSampler(0.7),
    TopKSampler(5, then=TemperatureSampler(1.4)),
    TopPSampler(0.9),
    MinPSampler(0.05),
    TopKSampler(9, then=Repeated(2.5)),
]

batches = st.integers(1, 3)
prompt_widths = st.integers(1, 2 * WINDOW)  # up to twice as long as the window
lengths = st.integers(0, WINDOW + 3)
seeds = st.integers(0, 2**32)
prompts = st.text(alphabet=CHARACTERS.characters, max_size=2 * WINDOW)


def random_model(config: GPT2Config) -> GPT2Model:
    """In which no weight and no bias is zero, or one, and whose logits differ clearly."""
    torch.manual_seed(0)
    model = GPT2Model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@functools.cache
def model() -> GPT2Model:
    assert CHARACTERS.n_vocab == VOCAB_SIZE
    return random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16))


@functools.cache
def bytes_model() -> GPT2Model:
    """Over GPT-2's own vocabulary."""
    return random_model(GPT2Config(context_length=WINDOW, n_layer=1, n_head=1, n_embd=4))


def random_tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(VOCAB_SIZE, shape, generator=seeded(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_loop(tokens: Tensor, max_new_tokens: int, sampler: Sampler, generator: torch.Generator | None) -> Tensor:
    """Generates as a tutorial does: a whole forward on the last tokens for each new one, and no cache."""
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model()(tokens[:, -WINDOW:])[:, -1]
        tokens = torch.cat([tokens, sampler(logits, tokens=tokens, generator=generator).unsqueeze(1)], dim=1)
    return tokens


class Script:
    """A sampler that does not look at the logits: the rows it emits are given, and it counts its calls."""

    def __init__(self, *rows: Sequence[int]) -> None:
        self.columns = list(zip(*rows, strict=True))
        self.calls = 0

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        assert len(logits) == len(self.columns[0])
        self.calls += 1
        return torch.tensor(self.columns[self.calls - 1])


class Reader:
    """A greedy sampler that keeps the texts that it was shown."""

    def __init__(self) -> None:
        self.texts: list[Tensor] = []

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        assert tokens is not None
        self.texts.append(tokens)
        return GreedySampler()(logits, tokens=tokens, generator=generator)


# Tokens


@given(batches, prompt_widths, lengths, st.sampled_from(SAMPLERS), seeds)
@example(3, 1, WINDOW + 3, GreedySampler(), 0)  # from one token past the window
@example(3, WINDOW - 3, 3, GreedySampler(), 0)  # up to the window
@example(3, WINDOW, 3, GreedySampler(), 0)  # from the window on
@example(3, 2 * WINDOW, 3, GreedySampler(), 0)  # from a prompt beyond the window
@example(3, 1, WINDOW + 3, MultinomialSampler(), 0)
def test_generate_equals_a_loop_of_plain_forwards(
    batch: int, width: int, max_new_tokens: int, sampler: Sampler, seed: int
) -> None:
    tokens = random_tokens(seed, batch, width)
    expected = plain_loop(tokens, max_new_tokens, sampler, seeded(seed))
    actual = generate(model(), tokens, max_new_tokens=max_new_tokens, sampler=sampler, generator=seeded(seed))
    assert torch.equal(actual, expected)


def test_a_window_of_one_token() -> None:
    one = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=1, n_layer=1, n_head=2, n_embd=16))
    tokens = random_tokens(0, 2, 3)
    for _ in range(4):
        tokens = torch.cat([tokens, one(tokens[:, -1:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(one, tokens[:, :3], max_new_tokens=4), tokens)


@given(st.integers(2, 4), prompt_widths, lengths, seeds)
@example(3, 1, WINDOW + 3, 0)
def test_a_batch_equals_each_row_alone(batch: int, width: int, max_new_tokens: int, seed: int) -> None:
    tokens = random_tokens(seed, batch, width)
    alone = [generate(model(), row.unsqueeze(0), max_new_tokens=max_new_tokens) for row in tokens]
    assert torch.equal(generate(model(), tokens, max_new_tokens=max_new_tokens), torch.cat(alone))


@given(batches, prompt_widths, lengths, seeds, st.data())
def test_a_row_ends_at_its_end_of_text_and_all_when_the_last_one_does(
    batch: int, width: int, max_new_tokens: int, seed: int, data: st.DataObject
) -> None:
    """``idx_next == eos_id`` is an error, or ends every row with the first, in much code for a batch of one."""
    tokens = random_tokens(seed, batch, width)
    free = plain_loop(tokens, max_new_tokens, GreedySampler(), None)[:, width:].tolist()
    ids = st.sampled_from(sorted({0}.union(*free)))
    eos_id = data.draw(ids | st.lists(ids, max_size=3) | st.frozensets(ids, max_size=3), label="eos_id")
    ends = {eos_id} if isinstance(eos_id, int) else set(eos_id)
    kept = [next((at + 1 for at, token in enumerate(row) if token in ends), max_new_tokens) for row in free]
    expected = [
        row[:count] + row[count - 1 : count] * (max(kept) - count) for row, count in zip(free, kept, strict=True)
    ]
    actual = generate(model(), tokens, max_new_tokens=max_new_tokens, eos_id=eos_id)
    assert actual[:, width:].tolist() == expected
    assert torch.equal(actual[:, :width], tokens)


def test_no_token_is_computed_once_every_row_has_ended() -> None:
    script = Script([5, 9, 7, 7, 7, 7], [1, 2, 3, 9, 7, 7], [9, 9, 4, 4, 4, 4])
    new = generate(model(), random_tokens(0, 3, 2), max_new_tokens=6, sampler=script, eos_id=9)[:, 2:]
    assert new.tolist() == [[5, 9, 9, 9], [1, 2, 3, 9], [9, 9, 9, 9]]
    assert script.calls == 4


@given(batches, lengths, st.integers(0, WINDOW), st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=20))
@example(2, WINDOW + 3, WINDOW, set(range(VOCAB_SIZE - 1)))  # which leaves one token to choose
def test_no_end_is_chosen_before_min_new_tokens(batch: int, most: int, least: int, ends: set[int]) -> None:
    least, tokens = min(least, most), random_tokens(len(ends), batch, 3)

    def longer(logits: Tensor, *, tokens: Tensor, generator: object) -> Tensor:
        del generator
        early = tokens.shape[1] < 3 + least
        return logits.index_fill(1, torch.tensor(sorted(ends)), -torch.inf if early else torch.inf).argmax(dim=-1)

    actual = generate(model(), tokens, max_new_tokens=most, min_new_tokens=least, eos_id=ends)
    assert actual.shape[1] == 3 + most or actual.shape[1] > 3 + least
    expected = plain_loop(tokens, least, longer, None)  # type: ignore[arg-type]
    assert torch.equal(actual[:, : 3 + least], expected)
    assert not ends & set(actual[:, 3 : 3 + least].flatten().tolist())


def test_a_limit_of_time_ends_after_the_token_in_which_it_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the first token, not from the call."""
    now = 100.0
    script = Script([3, 1, 4, 1, 5])

    def slow(logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        nonlocal now
        now += 1.0
        return script(logits, tokens=tokens, generator=generator)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    for seconds, count in ((0.5, 1), (1.0, 1), (1.5, 2), (4.5, 5), (99.0, 5)):
        script.calls = 0
        steps = stream(model(), random_tokens(0, 1, 3), max_new_tokens=5, sampler=slow, max_time=seconds)
        now += 50.0
        assert [int(ids) for ids in steps] == [3, 1, 4, 1, 5][:count]
    script.calls = 0
    text = generate_text(model(), CHARACTERS, "a", max_new_tokens=5, sampler=slow, max_time=1.5)
    assert text == "a" + CHARACTERS.decode([3, 1])


def test_an_end_of_text_in_the_prompt_ends_nothing() -> None:
    script = Script([1, 2])
    assert generate(model(), torch.tensor([[4, 9]]), max_new_tokens=2, sampler=script, eos_id=9).shape == (1, 4)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("max_new_tokens", [0, 1])
def test_the_result_is_new_and_int64_however_many_tokens_are_added(dtype: torch.dtype, max_new_tokens: int) -> None:
    tokens = random_tokens(0, 2, 3).to(dtype)
    before = tokens.clone()
    result = generate(model(), tokens, max_new_tokens=max_new_tokens)
    assert result.shape == (2, 3 + max_new_tokens)
    assert result.dtype == torch.int64
    result.zero_()
    assert torch.equal(tokens, before)


def test_dropout_is_off_and_every_module_gets_its_mode_back() -> None:
    trained = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16,
                                      dropout=0.9)).train()  # fmt: skip
    trained.get_submodule("h.0").eval()
    modes = [module.training for module in trained.modules()]
    tokens = random_tokens(0, 2, 3)
    results = [generate(trained, tokens, max_new_tokens=WINDOW) for _ in range(2)]
    assert [module.training for module in trained.modules()] == modes
    for _ in stream(trained, tokens, max_new_tokens=2):
        assert [module.training for module in trained.modules()] == modes
    with pytest.raises(IndexError):
        generate(trained, tokens, max_new_tokens=2, sampler=Script([1], [1]))  # its script is too short
    assert [module.training for module in trained.modules()] == modes
    results.append(generate(trained.eval(), tokens, max_new_tokens=WINDOW))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_dropout_is_off_also_where_only_a_part_of_the_model_is_in_training_mode() -> None:
    """Whoever trains one block of an otherwise frozen model leaves the model itself in evaluation mode."""
    part = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16,
                                   dropout=0.9))  # fmt: skip
    tokens = random_tokens(0, 2, 3)
    expected = generate(part, tokens, max_new_tokens=WINDOW)
    part.get_submodule("h.0").train()
    assert torch.equal(generate(part, tokens, max_new_tokens=WINDOW), expected)
    assert part.get_submodule("h.0").training


def test_no_graph_is_built_and_the_callers_gradients_stay_on() -> None:
    tokens = random_tokens(0, 2, 3)

    def sampler(logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        assert not logits.requires_grad
        assert logits.grad_fn is None
        return GreedySampler()(logits, tokens=tokens, generator=generator)

    expected = plain_loop(tokens, WINDOW, GreedySampler(), None)
    for ids in stream(model(), tokens, max_new_tokens=WINDOW, sampler=sampler):
        assert not ids.requires_grad
        assert torch.is_grad_enabled()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(generate(model(), tokens, max_new_tokens=WINDOW, sampler=sampler), expected)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model().parameters())


def test_a_generator_decides_the_draws_and_nothing_else_is_touched() -> None:
    tokens = random_tokens(0, 2, 3)

    def draw(seed: int) -> Tensor:
        return generate(model(), tokens, max_new_tokens=12, sampler=MultinomialSampler(), generator=seeded(seed))

    state = torch.get_rng_state()
    first = draw(1)
    generate(model(), tokens, max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(draw(1), first)
    assert not torch.equal(draw(2), first)


def test_without_a_generator_the_global_seed_decides() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return generate(model(), random_tokens(0, 2, 3), max_new_tokens=12, sampler=MultinomialSampler())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@given(batches, prompt_widths, lengths, st.none() | st.integers(0, VOCAB_SIZE - 1), seeds)
def test_stream_yields_the_columns_of_generate(
    batch: int, width: int, max_new_tokens: int, eos_id: int | None, seed: int
) -> None:
    tokens = random_tokens(seed, batch, width)
    columns = list(stream(model(), tokens, max_new_tokens=max_new_tokens, eos_id=eos_id))
    assert all(ids.shape == (batch,) and ids.dtype == torch.int64 for ids in columns)
    whole = generate(model(), tokens, max_new_tokens=max_new_tokens, eos_id=eos_id)
    assert [ids.tolist() for ids in columns] == whole[:, width:].t().tolist()


def test_stream_computes_a_token_when_it_is_asked_for() -> None:
    script = Script([3, 1, 4, 1, 5])
    steps = stream(model(), random_tokens(0, 1, 3), max_new_tokens=5, sampler=script)
    assert script.calls == 0
    for number in range(1, 4):
        next(steps)
        assert script.calls == number


def test_changing_what_stream_yields_does_not_change_what_follows() -> None:
    tokens = random_tokens(0, 2, 3)
    expected = list(stream(model(), tokens, max_new_tokens=WINDOW))
    actual = []
    for ids in stream(model(), tokens, max_new_tokens=WINDOW):
        actual.append(ids.clone())
        ids.zero_()
        tokens.zero_()  # the prompt was read at the call
    assert torch.equal(torch.stack(actual), torch.stack(expected))


def test_autocast_and_other_dtypes_generate() -> None:
    tokens = random_tokens(0, 2, 3)
    config = GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16)
    single = random_model(config).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert generate(single, tokens, max_new_tokens=WINDOW).shape == (2, 3 + WINDOW)
    assert generate(single.bfloat16(), tokens, max_new_tokens=WINDOW).shape == (2, 3 + WINDOW)


# What a sampler sees


@given(batches, prompt_widths, lengths, seeds)
@example(2, 2 * WINDOW, WINDOW, 0)  # the window slides, the text stays whole
def test_a_sampler_sees_the_text_so_far(batch: int, width: int, max_new_tokens: int, seed: int) -> None:
    tokens, reader = random_tokens(seed, batch, width), Reader()
    whole = generate(model(), tokens, max_new_tokens=max_new_tokens, sampler=reader)
    assert len(reader.texts) == max_new_tokens
    for end, text in enumerate(reader.texts, start=width):
        assert torch.equal(text, whole[:, :end])


def test_a_sampler_sees_no_token_where_a_shorter_prompt_is_padded() -> None:
    """The padding was the end of text, which a penalty then made less probable in a row with a longer neighbour."""
    reader, end = Reader(), CHARACTERS.eot_token
    generate_text(model(), CHARACTERS, ["abcd", "", "b"], max_new_tokens=1, sampler=reader)
    assert reader.texts[0].tolist() == [[0, 1, 2, 3], [-1, -1, -1, end], [-1, -1, -1, 1]]


@given(st.lists(prompts, min_size=1, max_size=4), lengths)
@example(["a", "你好，世界。" * 3, "", "ab"], WINDOW + 3)
def test_a_penalty_on_repetition_treats_a_row_of_a_batch_as_if_it_were_alone(
    texts: list[str], max_new_tokens: int
) -> None:
    sampler = Repeated(2.5)
    alone = [generate_text(model(), CHARACTERS, [t], max_new_tokens=max_new_tokens, sampler=sampler)[0] for t in texts]
    assert generate_text(model(), CHARACTERS, texts, max_new_tokens=max_new_tokens, sampler=sampler) == alone


def test_a_penalty_on_repetition_ends_the_repetition() -> None:
    tokens = random_tokens(0, 3, 2)
    free = generate(model(), tokens, max_new_tokens=20)
    penalised = generate(model(), tokens, max_new_tokens=20, sampler=Repeated(1e9))
    for row, other in zip(free.tolist(), penalised.tolist(), strict=True):
        assert len(set(row)) < len(set(other))


def second_best(logits: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:
    assert generator is not None
    return logits.topk(2, dim=-1).indices[:, 1]


class SecondBest(torch.nn.Module):
    @override
    def forward(self, logits: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:
        return second_best(logits, generator=generator)


class Wrapped:
    """As a decorator makes it, without and with the signature of what it wraps."""

    def __init__(self, sampler: Callable[..., Tensor]) -> None:
        self.sampler = sampler

    def __call__(self, *args: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        return self.sampler(*args, **options)


WITHOUT_TOKENS: list[Callable[..., Tensor]] = [
    second_best,
    SecondBest(),
    functools.partial(second_best),
    functools.wraps(second_best)(Wrapped(second_best)),
    Wrapped(lambda logits, tokens, generator: second_best(logits, generator=generator)),  # noqa: ARG005
    TopKSampler(2, then=TopPSampler(1, then=second_best)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("sampler", WITHOUT_TOKENS, ids=lambda sampler: type(sampler).__name__)
def test_a_sampler_that_takes_no_tokens_is_called_without(sampler: Callable[..., Tensor]) -> None:
    tokens = random_tokens(0, 2, 3)
    actual = generate(model(), tokens, max_new_tokens=WINDOW, sampler=sampler, generator=seeded(0))
    for _ in range(WINDOW):
        new = model()(tokens[:, -WINDOW:])[:, -1].topk(2, dim=-1).indices[:, 1:]
        tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(actual, tokens)


def test_the_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    signature = inspect.signature

    def counted(sampler: Callable[..., object]) -> inspect.Signature:
        read.append(sampler)
        return signature(sampler)

    sampler = TopKSampler(2, then=second_best)  # type: ignore[arg-type]
    monkeypatch.setattr(inspect, "signature", counted)
    generate(model(), random_tokens(0, 2, 3), max_new_tokens=5, sampler=sampler, generator=seeded(0))
    assert read == [sampler, second_best]


def test_an_error_inside_of_a_sampler_is_its_own() -> None:
    """To call it, catch the TypeError and call it anew would hide it, and draw twice."""
    calls: list[Tensor] = []

    def broken(
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG001
        generator: torch.Generator | None = None,  # noqa: ARG001
    ) -> Tensor:
        calls.append(logits)
        raise TypeError("unexpected keyword argument 'tokens'")

    with pytest.raises(TypeError, match="unexpected keyword argument 'tokens'"):
        generate(model(), random_tokens(0, 2, 3), max_new_tokens=5, sampler=broken)
    assert len(calls) == 1


# What a sampler returns


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_ids_may_be_a_column_of_any_integers(dtype: torch.dtype, column: bool, batch: int) -> None:
    """``torch.multinomial`` returns (B, 1)."""
    tokens = random_tokens(0, batch, 3)

    def sampler(logits: Tensor, /, **_: object) -> Tensor:
        return logits.argmax(dim=-1, keepdim=column).to(dtype)

    steps = list(stream(model(), tokens, max_new_tokens=WINDOW, sampler=sampler))
    assert all((ids.shape, ids.dtype) == ((batch,), torch.int64) for ids in steps)
    expected = generate(model(), tokens, max_new_tokens=WINDOW)
    assert torch.equal(torch.cat([tokens, torch.stack(steps, dim=1)], dim=1), expected)
    assert torch.equal(generate(model(), tokens, max_new_tokens=WINDOW, sampler=sampler), expected)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(
    ("returned", "error", "got"),
    [
        (lambda logits: logits.argmax(-1).double(), TypeError, "float64 of .*argmax"),
        (lambda logits: logits.argmax(-1) > 3, TypeError, "torch.bool of"),
        (lambda logits: logits.argmax(-1).tolist(), TypeError, r"\(list\); return a tensor"),
        (lambda _: None, TypeError, r"None \(NoneType\)"),
        (lambda _: torch.tensor(3), ValueError, r"torch.int64 of \(\)"),
        (lambda logits: logits.argmax(-1)[None, None], ValueError, r"of \(1, 1, \d\)"),
        (lambda logits: logits.argsort(-1), ValueError, r"of \(\d, 31\)"),
        (lambda logits: logits.argmax(-1)[1:], ValueError, r"of \(\d,\); return one id per row"),
    ],
)
def test_what_is_not_an_id_a_row_names_the_sampler(
    batch: int, returned: Callable[[Tensor], Any], error: type[Exception], got: str
) -> None:
    def my_sampler(
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG001
        generator: torch.Generator | None = None,  # noqa: ARG001
    ) -> Tensor:
        chosen: Tensor = returned(logits)
        return chosen

    message = rf"the sampler my_sampler must return .* shape \({batch},\), int64, got .*{got}"
    with pytest.raises(error, match=message):
        generate(model(), random_tokens(0, batch, 3), max_new_tokens=2, sampler=my_sampler)


@pytest.mark.parametrize("wrong", [-1, VOCAB_SIZE, 2**40])
@pytest.mark.parametrize("max_new_tokens", [1, 2])
def test_an_id_outside_the_vocabulary_names_the_sampler(wrong: int, max_new_tokens: int) -> None:
    """The last one was returned, and an earlier one was told as a mistake of the prompt."""

    def my_sampler(
        logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        del tokens, generator
        return torch.tensor([4, wrong]) if len(logits) == 2 else torch.tensor([[wrong]])

    tokens = random_tokens(0, 2, 3)
    for batch in (1, 2):
        with pytest.raises(
            ValueError, match=rf"the sampler my_sampler must return token ids from 0 to 30, got .*{wrong}"
        ):
            generate(model(), tokens[:batch], max_new_tokens=max_new_tokens, sampler=my_sampler)
    with pytest.raises(
        ValueError, match="ids from 0 to 30"
    ):  # as many as the tokenizer has, of more that the model has
        generate_text(bytes_model(), CHARACTERS, "a", max_new_tokens=1, sampler=my_sampler)


def test_an_object_is_named_as_it_prints() -> None:
    @dataclass(frozen=True)
    class Constant:
        value: float

        def __call__(self, logits: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
            return torch.full(logits.shape[:1], self.value)

    with pytest.raises(TypeError, match=r"the sampler test_.*Constant\(value=0.5\) must return"):
        generate(model(), random_tokens(0, 2, 3), max_new_tokens=2, sampler=Constant(0.5))  # type: ignore[call-overload]


@pytest.mark.parametrize("function", [generate, stream])
def test_what_is_no_sampler_is_an_error_at_the_call(function: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"got <class '.*GreedySampler'>; pass an instance, GreedySampler\(\.\.\.\)"):
        function(model(), FOUR_TOKENS, max_new_tokens=2, sampler=GreedySampler)
    with pytest.raises(TypeError, match=r"expected a sampler, such as GreedySampler\(\) .*, got 'greedy'"):
        function(model(), FOUR_TOKENS, max_new_tokens=2, sampler="greedy")


# Who else uses the model


def test_threads_generate_with_one_model_as_one_alone_does() -> None:
    """Each used to give the modules their dropout back while the others computed: 11 texts of 30 were wrong."""
    config = GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16, dropout=0.5)
    shared = random_model(config).train()
    tokens = [random_tokens(seed, 1, 3) for seed in range(30)]
    expected = [generate(shared, each, max_new_tokens=20) for each in tokens]
    with ThreadPoolExecutor(6) as pool:
        actual = list(pool.map(lambda each: generate(shared, each, max_new_tokens=20), tokens))
    assert [ids.tolist() for ids in actual] == [ids.tolist() for ids in expected]
    assert all(module.training for module in shared.modules())


def test_the_model_may_be_trained_between_two_tokens() -> None:
    """The next tokens are chosen by the weights as they then are; the keys of earlier positions stay."""
    trained = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16))
    optimizer = torch.optim.SGD(trained.train().parameters(), lr=0.5)
    tokens = random_tokens(0, 2, WINDOW)
    for count, ids in enumerate(stream(trained, random_tokens(1, 2, 3), max_new_tokens=WINDOW)):
        assert torch.is_grad_enabled()
        assert all(module.training for module in trained.modules())
        loss = -trained(tokens)[:, -1].log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in trained.parameters()), count
        optimizer.step()
    untouched = generate(trained, tokens, max_new_tokens=3)
    assert torch.equal(untouched, generate(trained.eval(), tokens, max_new_tokens=3))


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("iterated", [True, False])
@pytest.mark.parametrize("made", [True, False])
def test_inference_mode_may_begin_and_end_wherever_the_caller_likes(called: bool, iterated: bool, made: bool) -> None:
    """What is made in inference mode cannot be written to outside of it, and so the second token used to fail."""
    with torch.inference_mode(made):
        weights = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=2, n_head=2, n_embd=16))
        tokens = random_tokens(0, 2, 3)
    expected = plain_loop(tokens.clone(), WINDOW, GreedySampler(), None)
    with torch.inference_mode(called):
        steps = stream(weights, tokens, max_new_tokens=WINDOW)
        whole = generate(weights, tokens, max_new_tokens=WINDOW)
        text = generate_text(weights, CHARACTERS, ["ab", "a"], max_new_tokens=3)
    with torch.inference_mode(iterated):
        first, second = next(steps), next(steps)
        assert torch.is_inference_mode_enabled() == iterated
    with torch.inference_mode(not iterated):
        rest = list(steps)
    assert not any(ids.is_inference() for ids in (first, second, *rest))
    assert torch.equal(torch.stack([first, second, *rest], dim=1), expected[:, 3:])
    assert torch.equal(whole, expected)
    assert text == generate_text(weights, CHARACTERS, ["ab", "a"], max_new_tokens=3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_nothing_is_made_on_the_default_device(sampler: Sampler) -> None:
    """Which is another one than the model's, for whoever has called ``torch.set_default_device("cuda")``."""
    tokens = random_tokens(0, 2, 1)
    prompts = ["a", "bcd", ""]

    def everything() -> tuple[list[list[int]], list[str], str]:
        whole = generate(model(), tokens, max_new_tokens=WINDOW - 1, sampler=sampler, generator=seeded(0), eos_id=3)
        texts = generate_text(
            model(), CHARACTERS, prompts, max_new_tokens=WINDOW - 3, sampler=sampler, generator=seeded(0)
        )
        pieces = stream_text(model(), CHARACTERS, "a", max_new_tokens=WINDOW - 1, sampler=sampler, generator=seeded(0))
        return whole.tolist(), texts, "".join(pieces)

    expected = everything()
    with torch.device("meta"):
        assert everything() == expected
    torch.set_default_device("meta")
    try:
        assert everything() == expected
    finally:
        torch.set_default_device(None)


def test_the_models_own_logits_decide() -> None:
    """A fast path is an optimisation of the model's call, never instead of it."""
    calls: list[tuple[int, int]] = []

    class Reversed(GPT2Model):
        @override
        def last_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
            assert cache is not None
            calls.append((tokens.shape[1], cache.length))
            return -super().last_logits(tokens, cache)

    upside_down = Reversed(model().config).double()
    upside_down.load_state_dict(model().state_dict())
    tokens = random_tokens(0, 2, WINDOW - 2)
    expected = tokens
    for _ in range(4):
        with torch.no_grad():
            new = model()(expected[:, -WINDOW:])[:, -1].argmin(dim=-1, keepdim=True)
        expected = torch.cat([expected, new], dim=1)
    assert torch.equal(generate(upside_down, tokens, max_new_tokens=4), expected)
    assert calls == [(6, 0), (1, 6), (1, 7), (8, 0)]  # the prompt, two tokens, and the window once it has slid


FOUR_TOKENS = torch.zeros(2, 4, dtype=torch.int64)


@pytest.mark.parametrize("function", [generate, stream])
@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (FOUR_TOKENS, {"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
        (FOUR_TOKENS, {"eos_id": -1}, "eos_id must be at least 0, got -1"),
        (FOUR_TOKENS, {"eos_id": [3, VOCAB_SIZE]}, "eos_id must be at most 30, got 31"),
        (FOUR_TOKENS, {"min_new_tokens": -1}, "min_new_tokens must be at least 0, got -1"),
        (FOUR_TOKENS, {"min_new_tokens": 4}, "min_new_tokens must be at most max_new_tokens=3, got 4"),
        (FOUR_TOKENS, {"max_time": 0}, "max_time must be a finite number greater than 0, got 0"),
        (FOUR_TOKENS, {"eos_id": VOCAB_SIZE}, "eos_id must be at most 30, got 31"),
        (FOUR_TOKENS, {"eos_id": 2**63}, "eos_id must be at most 30, got"),
        (FOUR_TOKENS.to("meta"), {}, "tokens must have values to generate with, got some on the meta device"),
        (FOUR_TOKENS[0], {}, r"shape \(B, T\).*got torch.int64 of \(4,\).*tokens.unsqueeze\(0\)"),
        (FOUR_TOKENS[0, 0], {}, r"shape \(B, T\).*got torch.int64 of \(\)"),
        (FOUR_TOKENS[:, :0], {}, r"shape \(B, T\).*of \(2, 0\)"),
        (FOUR_TOKENS[:0], {}, "at least 1, got 0"),
        (FOUR_TOKENS.float(), {}, "int64, got torch.float32"),
        (FOUR_TOKENS + VOCAB_SIZE, {}, "ids 0 to 30, but .* vocab_size=tokenizer.n_vocab"),
        (FOUR_TOKENS - 1, {}, "ids 0 to 30, but"),
        (torch.arange(VOCAB_SIZE + 1).unsqueeze(0), {}, "ids 0 to 30, but the tokens go .* to 31"),
        (torch.tensor([[VOCAB_SIZE] + [0] * WINDOW]), {}, "ids 0 to 30, but the tokens go from 0 to 31"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(
    function: Callable[..., object], tokens: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(model(), tokens, **({"max_new_tokens": 3} | options))


def test_numbers_of_the_wrong_type_are_told_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"max_new_tokens must be an integer, got 2\.5"):
        stream(model(), FOUR_TOKENS, max_new_tokens=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unknown option 'max_tokens'; expected some of max_new_tokens, sampler, "):
        stream(model(), FOUR_TOKENS, max_tokens=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_new_tokens must be given: the maximum number of tokens to add"):
        generate(model(), FOUR_TOKENS)  # type: ignore[call-overload]
    for wrong in ("", b"ab", {1: 2}, [None], torch.zeros(2, 3)):
        with pytest.raises(TypeError, match="eos_id must be an integer"):
            stream(model(), FOUR_TOKENS, max_new_tokens=2, eos_id=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="eos_id must be an integer"):
        stream(model(), FOUR_TOKENS, max_new_tokens=2, eos_id="<|endoftext|>")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [generate, stream])
@pytest.mark.parametrize("generator", [0, "cpu", torch.Generator])
def test_what_is_no_generator_is_told_even_where_nothing_is_drawn(
    function: Callable[..., object], generator: object
) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None, got"):
        function(model(), FOUR_TOKENS, max_new_tokens=1, generator=generator)


@pytest.mark.parametrize("other", [None, "gpt2", GPT2Model, torch.nn.Linear(2, 2), GPT2Config()], ids=repr)
def test_what_is_no_model_is_told(other: Any) -> None:  # noqa: ANN401
    for function in (generate, stream):
        with pytest.raises(TypeError, match="model must be a GPT2Model, got"):
            function(other, FOUR_TOKENS, max_new_tokens=1)
    with pytest.raises(TypeError, match="model must be a GPT2Model, got"):
        generate_text(other, CHARACTERS, "ab", max_new_tokens=1)


def test_a_model_without_values_is_told() -> None:
    with torch.device("meta"):
        empty = GPT2Model(model().config)
    with pytest.raises(ValueError, match="the model must have values to generate with, got some on the meta device"):
        generate(empty, FOUR_TOKENS, max_new_tokens=1)


class Wrapping:
    """As libraries of adapters wrap a model: everything else is asked of it."""

    def __init__(self, wrapped: GPT2Model) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.wrapped, name)


def test_what_wraps_a_model_is_one() -> None:
    wrapping: Any = Wrapping(model())
    expected = generate(model(), FOUR_TOKENS, max_new_tokens=3)
    assert torch.equal(generate(wrapping, FOUR_TOKENS, max_new_tokens=3), expected)


@pytest.mark.parametrize("first", [1, 2, 7])
def test_the_memory_of_a_text_grows_with_it(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    tokens, reader = random_tokens(0, 2, 3), Reader()
    expected = plain_loop(tokens, 2 * WINDOW, GreedySampler(), None)
    monkeypatch.setattr(decoding, "_FIRST_TOKENS", first)
    assert torch.equal(generate(model(), tokens, max_new_tokens=2 * WINDOW, sampler=reader), expected)
    for end, text in enumerate(reader.texts, start=3):
        assert torch.equal(text, expected[:, :end])


@pytest.mark.parametrize("max_new_tokens", [2**31, 2**62])
def test_a_text_may_go_on_until_it_ends(max_new_tokens: int) -> None:
    """Room for all tokens was allocated at the beginning: gigabytes."""
    tokens, script = random_tokens(0, 1, 3), Script([5, 9, 7])
    new = generate(model(), tokens, max_new_tokens=max_new_tokens, eos_id=9, sampler=script)
    assert new[0, 3:].tolist() == [5, 9]
    steps = stream(model(), tokens, max_new_tokens=max_new_tokens)
    assert [int(next(steps)) for _ in range(3)] == plain_loop(tokens, 3, GreedySampler(), None)[0, 3:].tolist()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_a_model_that_has_diverged_is_told(sampler: Sampler) -> None:
    broken = random_model(GPT2Config(vocab_size=VOCAB_SIZE, context_length=WINDOW, n_layer=1, n_head=2, n_embd=16))
    with torch.no_grad():
        broken.ln_f.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        generate(broken, FOUR_TOKENS, max_new_tokens=1, sampler=sampler)


# Text


@given(prompts.filter(bool), lengths)
@example("a", WINDOW + 3)
@example("你好" * WINDOW, 3)
def test_generate_text_is_the_text_of_generate(prompt: str, max_new_tokens: int) -> None:
    tokens = torch.tensor([CHARACTERS.encode_ordinary(prompt)])
    whole = generate(model(), tokens, max_new_tokens=max_new_tokens, eos_id=CHARACTERS.eot_token)
    text = tensor_to_text(whole, CHARACTERS).removesuffix("<|endoftext|>")
    assert generate_text(model(), CHARACTERS, prompt, max_new_tokens=max_new_tokens) == text


@given(st.lists(prompts, min_size=1, max_size=4), lengths)
@example(["a", "你好，世界。" * 3, "", "ab"], WINDOW + 3)
@example(["a", "bcdefgh"], WINDOW + 3)
@example(["same", "same"], 3)
def test_prompts_of_any_lengths_come_out_as_each_would_alone(texts: list[str], max_new_tokens: int) -> None:
    """Left padding with learned positions goes wrong in many libraries: the shorter rows come out changed."""
    alone = [generate_text(model(), CHARACTERS, text, max_new_tokens=max_new_tokens) for text in texts]
    assert generate_text(model(), CHARACTERS, texts, max_new_tokens=max_new_tokens) == alone


@given(st.lists(prompts, min_size=2, max_size=4), lengths)
@example(["a", "你好，世界。" * 3, "", "ab"], WINDOW + 3)
def test_logits_of_prompts_of_any_lengths_are_those_of_each_alone(texts: list[str], max_new_tokens: int) -> None:
    """The text of a greedy choice hides small errors; what the sampler is shown does not."""

    def shown(batch: list[str]) -> Tensor:
        seen: list[Tensor] = []

        def sampler(
            logits: Tensor,
            /,
            *,
            tokens: Tensor | None = None,  # noqa: ARG001
            generator: torch.Generator | None = None,  # noqa: ARG001
        ) -> Tensor:
            seen.append(logits)
            return logits[:, :-1].argmax(dim=-1)  # never the end of text, so that all rows go on

        generate_text(model(), CHARACTERS, batch, max_new_tokens=max_new_tokens, sampler=sampler)
        return torch.stack(seen, dim=1) if seen else torch.zeros(len(batch), 0)

    torch.testing.assert_close(shown(texts), torch.cat([shown([text]) for text in texts]), rtol=0, atol=1e-10)


def test_a_text_ends_before_the_end_of_text_while_others_go_on() -> None:
    end = CHARACTERS.eot_token
    script = Script([0, 1, end, 2, 2], [3, 3, 3, 3, 3], [end, 5, 5, 5, 5])
    texts = generate_text(model(), CHARACTERS, ["x", "你好", ""], max_new_tokens=5, sampler=script)
    assert texts == ["xab", "你好ddddd", ""]


def test_an_empty_prompt_begins_a_text() -> None:
    start = torch.tensor([[CHARACTERS.eot_token]])
    whole = generate(model(), start, max_new_tokens=6, eos_id=CHARACTERS.eot_token)
    expected = CHARACTERS.decode(whole[0, 1:].tolist()).removesuffix("<|endoftext|>")
    assert generate_text(model(), CHARACTERS, "", max_new_tokens=6) == expected


def test_a_text_for_a_text_and_a_list_for_a_list() -> None:
    assert generate_text(model(), CHARACTERS, "abc", max_new_tokens=0) == "abc"
    assert generate_text(model(), CHARACTERS, ["abc"], max_new_tokens=0) == ["abc"]
    assert generate_text(model(), CHARACTERS, ["abc", ""], max_new_tokens=0) == ["abc", ""]
    assert generate_text(model(), CHARACTERS, [], max_new_tokens=5) == []
    assert list(stream_text(model(), CHARACTERS, "abc", max_new_tokens=0)) == []


def test_any_sequence_of_texts_is_as_good_as_a_list() -> None:
    expected = generate_text(model(), CHARACTERS, ["abc", "", "你好"], max_new_tokens=5)
    assert generate_text(model(), CHARACTERS, ("abc", "", "你好"), max_new_tokens=5) == expected
    assert generate_text(model(), CHARACTERS, deque(["abc", "", "你好"]), max_new_tokens=5) == expected
    assert generate_text(model(), CHARACTERS, (), max_new_tokens=5) == []


@pytest.mark.parametrize(
    ("prompt", "got"),
    [(None, "None"), (b"ab", "b'ab'"), ([1, 2], "1"), (["ab", None], "None"), (torch.tensor([1]), "tensor")],
)
def test_what_is_no_text_is_an_error_that_says_so(prompt: Any, got: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=rf"expected a prompt as a str, got {got}.*for token ids call generate"):
        generate_text(model(), CHARACTERS, prompt, max_new_tokens=1)
    with pytest.raises(TypeError, match="expected a prompt as a str"):
        stream_text(model(), CHARACTERS, prompt, max_new_tokens=1)


class Column:
    """A column of a table, such as pandas' ``Series``, whose truth value is an error."""

    def __iter__(self) -> Iterator[str]:
        return iter(["abc", "", "你好"])

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a column is ambiguous")


class Table(Column):
    """A table, such as pandas' ``DataFrame``: iterating over it gives the names of its columns."""

    columns = ("abc", "", "你好")


def test_a_column_of_texts_is_as_good_as_a_list() -> None:
    """Its truth value was asked for."""
    expected = generate_text(model(), CHARACTERS, ["abc", "", "你好"], max_new_tokens=5)
    for prompts in (Column(), np.array(["abc", "", "你好"]), iter(["abc", "", "你好"])):
        assert generate_text(model(), CHARACTERS, prompts, max_new_tokens=5) == expected


@pytest.mark.parametrize(
    ("prompt", "fix"),
    [(Table(), "pass one column"), ({"abc": 1}, "pass its values"), ({"abc"}, "a set has no order"),
     (io.StringIO("abc"), "pass the path")],
)  # fmt: skip
def test_what_holds_texts_but_not_as_a_list_does_is_refused(prompt: Any, fix: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=f"prompt must be several str, got .*; .*{fix}"):
        generate_text(model(), CHARACTERS, prompt, max_new_tokens=1)


@pytest.mark.parametrize("tokenizer", [CHARACTERS, gpt2_tokenizer()], ids=["characters", "gpt2"])
def test_half_a_character_in_a_prompt_is_refused(tokenizer: Tokenizer) -> None:
    """tiktoken replaced it in silence."""
    for prompts in ("ab\udc80", ["a", "ab\udc80"]):
        with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80, at position 2"):
            generate_text(model(), tokenizer, prompts, max_new_tokens=1)
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80, at position 2"):
        stream_text(model(), tokenizer, "ab\udc80", max_new_tokens=1)


def test_one_text_at_a_time_is_streamed() -> None:
    with pytest.raises(TypeError, match=r"got \['ab'\] .*pass a list of str to generate_text"):
        stream_text(model(), CHARACTERS, ["ab"], max_new_tokens=1)  # type: ignore[call-overload]


def test_options_are_checked_even_where_there_is_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0"):
        generate_text(model(), CHARACTERS, [], max_new_tokens=-1)


def test_the_name_of_the_end_of_text_is_ordinary_in_a_prompt() -> None:
    """tiktoken's own ``encode`` refuses a text that has it."""
    prompt = "ab<|endoftext|>cd"
    text = generate_text(bytes_model(), gpt2_tokenizer(), prompt, max_new_tokens=2, sampler=Script([11, 11]))
    assert text == prompt + ",,"


@pytest.mark.parametrize("function", [generate_text, stream_text])
@pytest.mark.parametrize(
    ("tokenizer", "prompt", "max_new_tokens", "message"),
    [
        (CHARACTERS, "abc", -1, "max_new_tokens must be at least 0"),
        (CHARACTERS, "ab!", 3, "'!'.*position 2"),
        (gpt2_tokenizer(), "Hello", 3, "ids 0 to 30, but the tokens go .* to 15496.*vocab_size=tokenizer.n_vocab"),
    ],
)
def test_wrong_arguments_of_text_are_told_at_the_call(
    function: Callable[..., object], tokenizer: object, prompt: str, max_new_tokens: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(model(), tokenizer, prompt, max_new_tokens=max_new_tokens)


def test_the_generator_reaches_the_sampler_of_texts() -> None:
    def draw(seed: int) -> str:
        sampler = MultinomialSampler()
        generator = seeded(seed)
        return generate_text(model(), CHARACTERS, "abc", max_new_tokens=12, sampler=sampler, generator=generator)

    def draw_pieces(seed: int) -> str:
        sampler = MultinomialSampler()
        generator = seeded(seed)
        return "".join(stream_text(model(), CHARACTERS, "abc", max_new_tokens=12, sampler=sampler, generator=generator))

    state = torch.get_rng_state()
    assert draw(1) == draw(1) == "abc" + draw_pieces(1)
    assert draw(1) != draw(2)
    assert torch.equal(torch.get_rng_state(), state)


# Text in pieces


def byte_tokens(content: bytes) -> list[int]:
    """Returns one GPT-2 token for each byte."""
    return [gpt2_tokenizer().encode_single_token(bytes([byte])) for byte in content]


def shown_after_each_token(tokens: list[int]) -> Iterator[str]:
    """Yields what ``stream_text`` has shown once each of these tokens was chosen, and at last when it has ended."""
    script = Script(tokens)
    shown = [""] * (len(tokens) + 1)
    steps = stream_text(bytes_model(), gpt2_tokenizer(), "", max_new_tokens=len(tokens), sampler=script)
    calls = 0
    while calls < len(tokens):  # the last token's piece comes before the iterator knows that it was the last
        piece = next(steps, None)
        if piece is None:
            break
        calls = script.calls
        assert piece
        shown[calls - 1] += piece
    shown[-1] += "".join(steps)
    yield from accumulate(shown)


texts_and_noise = st.lists(
    st.one_of(
        st.text(max_size=4).map(str.encode),
        st.text(alphabet="人工智能é😀\ufffd", max_size=4).map(str.encode),
        st.binary(max_size=3),
    ),
    max_size=4,
).map(b"".join)


@given(texts_and_noise)
@example("人工智能改变世界。😀".encode())
@example("世".encode()[:2])
@example("a😀".encode()[:-1] + b"b")
@example(b"\xff\xff\xe4\xb8a\xf0\x9f\x98\x80")
@example("\ufffd\ufffdx\ufffd".encode())
def test_text_is_shown_as_soon_as_it_is_certain_and_never_before(content: bytes) -> None:
    if not content:
        return
    *during, final = shown_after_each_token(byte_tokens(content))
    assert final == content.decode(errors="replace")
    for count, shown in enumerate(during, start=1):
        assert final.startswith(shown)  # nothing shown had to be taken back
        so_far = content[:count].decode(errors="replace")
        assert len(shown) >= len(so_far.removesuffix("\ufffd"))  # at most the last character is held back


class Words:
    """A tokenizer that writes a space before each word but the first, as those of sentencepiece do."""

    words = ("the", "war", "was", "long", "<end>")
    n_vocab = len(words)
    eot_token = 4

    def encode_ordinary(self, text: str, /) -> list[int]:
        return [self.words.index(word) for word in text.split()]

    def decode(self, tokens: Sequence[int], /) -> str:
        return " ".join(self.words[token] for token in tokens)


@pytest.mark.parametrize("prompt", ["the war", "the", "the war was long the war was long", ""])
def test_the_text_of_a_token_may_depend_on_the_one_before(prompt: str) -> None:
    small = random_model(GPT2Config(vocab_size=5, context_length=WINDOW, n_layer=1, n_head=1, n_embd=4))
    new = [2, 3, 0, 1] * 10
    whole = generate_text(small, Words(), prompt, max_new_tokens=40, sampler=Script(new))
    assert whole == " ".join([prompt, Words().decode(new)]).strip()
    pieces = stream_text(small, Words(), prompt, max_new_tokens=40, sampler=Script(new))
    assert prompt + "".join(pieces) == whole


class Measured:
    """One token a byte, and how many tokens were decoded at once at most."""

    n_vocab = 257
    eot_token = 256

    def __init__(self) -> None:
        self.most = 0

    def encode_ordinary(self, text: str, /) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int], /) -> str:
        self.most = max(self.most, len(tokens))
        return bytes(tokens).decode(errors="replace")


@given(
    st.lists(
        st.sampled_from(
            [b"\x80", b"\xe4", b"\xf0\x9f", b"\xe4\xb8\xad", b"a", "😀".encode(), b"\xff", "\ufffd".encode()]
        ),
        max_size=60,
    ).map(b"".join),
    st.sampled_from(["", "x", "中文", "😀"]),
)
@example(b"\x80" * 200, "x")
@example(b"\xf0\x9f\x98" * 60, "中文")
@example("\ufffd".encode() * 60, "")
@example("中".encode() * 60, "")
def test_a_long_run_of_bytes_is_decoded_a_few_at_a_time(content: bytes, prompt: str) -> None:
    """An untrained model over bytes makes no characters, and all of its text used to be decoded anew at each token."""
    tokenizer = Measured()
    pieces = list(Continuation(tokenizer.encode_ordinary(prompt), tokenizer).pieces(content))
    assert "".join(pieces) == content.decode(errors="replace")
    assert all(pieces)
    assert tokenizer.most <= 16


@pytest.mark.parametrize("text", ["人工智能改变世界。", "Zürich — 3 € 😀👩‍👩‍👧 ok", "แมว, 고양이 и кошка"])
def test_pieces_of_a_text_are_whole_characters(text: str) -> None:
    """The text is cut where GPT-2's vocabulary cuts it, which is inside most of these characters."""
    tokens = gpt2_tokenizer().encode_ordinary(text)
    length, script = len(tokens), Script(tokens)
    pieces = list(stream_text(bytes_model(), gpt2_tokenizer(), "提示：", max_new_tokens=length, sampler=script))
    assert "".join(pieces) == text
    assert all(pieces)
    assert "\ufffd" not in "".join(pieces)
    script = Script(tokens)
    whole = generate_text(bytes_model(), gpt2_tokenizer(), "提示：", max_new_tokens=length, sampler=script)
    assert whole == "提示：" + text


@given(st.text(alphabet="a 你好，世界😀é", max_size=12), st.integers(0, 2 * WINDOW), seeds)
@example("", 2 * WINDOW, 0)
def test_pieces_together_are_what_generate_text_adds(prompt: str, max_new_tokens: int, seed: int) -> None:
    """Of bytes drawn at random, few make characters."""
    sampler = MultinomialSampler()
    first, second = seeded(seed), seeded(seed)
    whole = generate_text(
        bytes_model(), gpt2_tokenizer(), prompt, max_new_tokens=max_new_tokens, sampler=sampler, generator=first
    )
    pieces = stream_text(
        bytes_model(), gpt2_tokenizer(), prompt, max_new_tokens=max_new_tokens, sampler=sampler, generator=second
    )
    assert prompt + "".join(pieces) == whole


@given(prompts, lengths)
def test_pieces_of_characters_together_are_what_generate_text_adds(prompt: str, max_new_tokens: int) -> None:
    whole = generate_text(model(), CHARACTERS, prompt, max_new_tokens=max_new_tokens)
    pieces = stream_text(model(), CHARACTERS, prompt, max_new_tokens=max_new_tokens)
    assert prompt + "".join(pieces) == whole


def test_a_replacement_character_of_the_vocabulary_is_a_character() -> None:
    tokenizer = CharTokenizer("a\ufffd" + CHARACTERS.characters[2:])
    pieces = stream_text(model(), tokenizer, "a", max_new_tokens=5, sampler=Script([0, 1, 1, 0, 1]))
    assert "".join(pieces) == "a\ufffd\ufffda\ufffd"


@pytest.mark.parametrize("before", ["", "世界", "世界".encode()[:4]])
def test_pieces_stop_at_the_end_of_text(before: str | bytes) -> None:
    content = before.encode() if isinstance(before, str) else before
    tokens = byte_tokens(content)
    script = Script([*tokens, gpt2_tokenizer().eot_token, 11, 11])
    pieces = stream_text(bytes_model(), gpt2_tokenizer(), "x", max_new_tokens=len(tokens) + 3, sampler=script)
    assert "".join(pieces) == content.decode(errors="replace")
    assert script.calls == len(tokens) + 1


def test_pieces_are_computed_when_they_are_asked_for() -> None:
    script = Script([0, 1, 2, 3])
    pieces = stream_text(model(), CHARACTERS, "x", max_new_tokens=4, sampler=script)
    assert script.calls == 0
    assert next(pieces) == "a"
    assert script.calls == 1
    assert next(pieces) == "b"
    assert script.calls == 2


def test_a_vocabulary_padded_for_speed_draws_no_id_without_a_text() -> None:
    """A model with more ids than its tokenizer could draw one that nothing decodes."""
    tokenizer = CharTokenizer("ab")
    padded = GPT2Model(GPT2Config(vocab_size=64, context_length=8, n_layer=1, n_head=1, n_embd=8))
    generator = torch.Generator().manual_seed(0)
    text = generate_text(padded, tokenizer, "a", max_new_tokens=30, sampler=MultinomialSampler(), generator=generator)
    assert set(text) <= {"a", "b"}


def test_a_list_is_told_to_become_a_tensor(model: GPT2Model) -> None:
    with pytest.raises(TypeError, match=r"got list; pass torch\.tensor"):
        model([[1, 2]])
