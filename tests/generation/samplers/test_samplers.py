"""Samplers: which tokens can come, how often they come, and what is refused."""

import copy
import dataclasses
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import (
    BannedTokensSampler,
    EtaSampler,
    FrequencyPenaltySampler,
    GreedySampler,
    LogitBiasSampler,
    MinPSampler,
    MultinomialSampler,
    NoRepeatNGramSampler,
    PresencePenaltySampler,
    RepetitionPenaltySampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
    TypicalSampler,
)
from tinygpt2.generation.samplers.checks import check_generator
from tinygpt2.generation.samplers.protocol import with_tokens

INF = math.inf
FP16_MAX = torch.finfo(torch.float16).max

OF_LOGITS: list[Sampler] = [
    GreedySampler(),
    MultinomialSampler(),
    TopKSampler(3),
    TemperatureSampler(0.7),
    TopPSampler(0.8),
    MinPSampler(0.1),
    TypicalSampler(0.8),
    EtaSampler(0.1),
    LogitBiasSampler({0: -1.5}),
    TopKSampler(5, then=TopPSampler(0.9, then=MinPSampler(0.05, then=TemperatureSampler(1.4)))),
]
OF_TEXT: list[Sampler] = [
    RepetitionPenaltySampler(1.3),
    PresencePenaltySampler(0.5, prompt_tokens=2),
    FrequencyPenaltySampler(-0.5),
    NoRepeatNGramSampler(2),
    BannedTokensSampler([(0, 0)]),
    RepetitionPenaltySampler(1.3, then=NoRepeatNGramSampler(3, then=TypicalSampler(0.9, then=TopKSampler(5)))),
]
EVERY_SAMPLER = [*OF_LOGITS, *OF_TEXT]
BY_NAME = pytest.mark.parametrize("sampler", EVERY_SAMPLER, ids=repr)


class Captured:
    """A sampler that keeps what a filter passes on to it, and chooses as greedy does."""

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        self.logits, self.tokens, self.generator = logits, tokens, generator
        return logits.argmax(dim=-1)


FILTERS: dict[str, Callable[[Sampler], Sampler]] = {
    "top-k 1": lambda then: TopKSampler(1, then=then),
    "top-k 3": lambda then: TopKSampler(3, then=then),
    "cold": lambda then: TemperatureSampler(0.01, then=then),
    "hot": lambda then: TemperatureSampler(50.0, then=then),
    "top-p": lambda then: TopPSampler(0.7, then=then),
    "min-p": lambda then: MinPSampler(0.2, then=then),
    "eta": lambda then: EtaSampler(0.2, then=then),
}
"""Those that keep the most probable token."""
OTHERS: dict[str, Callable[[Sampler], Sampler]] = {
    "typical": lambda then: TypicalSampler(0.7, then=then),
    "bias": lambda then: LogitBiasSampler({0: 1.5}, then=then),
    "repetition": lambda then: RepetitionPenaltySampler(1.5, then=then),
    "presence": lambda then: PresencePenaltySampler(1.5, then=then),
    "frequency": lambda then: FrequencyPenaltySampler(1.5, then=then),
    "n-grams": lambda then: NoRepeatNGramSampler(2, then=then),
    "banned tokens": lambda then: BannedTokensSampler([(0, 0)], then=then),
}
BY_FILTER = pytest.mark.parametrize("make", (FILTERS | OTHERS).values(), ids=FILTERS | OTHERS)
BY_KEEPING = pytest.mark.parametrize("make", FILTERS.values(), ids=FILTERS)


def passed_on(make: Callable[[Sampler], Sampler], logits: Tensor) -> Tensor:
    captured = Captured()
    make(captured)(logits)
    return captured.logits


def survivors(make: Callable[[Sampler], Sampler], logits: Tensor) -> list[set[int]]:
    """Returns for each row the tokens that a filter leaves."""
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in passed_on(make, logits)]


FINITE = st.floats(-FP16_MAX, FP16_MAX, width=16) | st.floats(-8, 8, width=16) | st.sampled_from([0.0, 1.0, FP16_MAX])
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """Draws (B, V) logits: small, up to fp16's maximum, tied and -inf, with a finite one in each row."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    values = draw(st.lists(FINITE | st.just(-INF), min_size=rows * size, max_size=rows * size))
    logits = torch.tensor(values, dtype=torch.float64).view(rows, size)
    logits[logits.amax(dim=-1) == -INF, -1] = 0
    return logits.to(draw(DTYPES))


@BY_NAME
@given(logits=batches(), seed=st.integers(0, 2**32))
def test_a_sampler_chooses_a_possible_token_for_each_row_and_changes_nothing(
    sampler: Sampler, logits: Tensor, seed: int
) -> None:
    before = logits.clone()
    ids = sampler(logits, generator=torch.Generator().manual_seed(seed))
    assert (ids.dtype, ids.shape) == (torch.int64, logits.shape[:1])
    probabilities = logits.double().softmax(dim=-1)
    assert (probabilities.gather(1, ids.unsqueeze(1)) > 0).all()
    assert torch.equal(logits, before)
    assert torch.equal(sampler(logits, generator=torch.Generator().manual_seed(seed)), ids)


@BY_FILTER
@given(logits=batches())
def test_a_filter_treats_each_row_of_a_batch_as_if_it_were_alone(
    make: Callable[[Sampler], Sampler], logits: Tensor
) -> None:
    together = passed_on(make, logits)
    alone = torch.cat([passed_on(make, row.unsqueeze(0)) for row in logits])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


@BY_KEEPING
@given(logits=batches())
def test_a_filter_keeps_the_most_probable_token_and_brings_none_back(
    make: Callable[[Sampler], Sampler], logits: Tensor
) -> None:
    for row, left in zip(logits, survivors(make, logits), strict=True):
        assert int(row.argmax()) in left
        assert all(row[i] > -INF for i in left)


@pytest.mark.parametrize("name", ["top-k 3", "top-p", "min-p", "eta"])
@given(logits=batches())
def test_a_filter_leaves_survivors_as_they_are_and_equal_logits_share_their_fate(name: str, logits: Tensor) -> None:
    filtered = passed_on(FILTERS[name], logits)
    assert torch.equal(filtered, torch.where(filtered.isfinite(), logits, torch.tensor(-INF, dtype=logits.dtype)))
    for row, left in zip(logits.tolist(), survivors(FILTERS[name], logits), strict=True):
        lowest = min(row[i] for i in left)
        assert left == {i for i, value in enumerate(row) if value >= lowest and value > -INF}


@given(logits=batches(), seed=st.integers(0, 2**32), rows=st.integers(1, 5))
def test_a_batch_is_drawn_as_its_rows_are_one_after_the_other(logits: Tensor, seed: int, rows: int) -> None:
    logits = logits[:1].expand(rows, -1)
    together = MultinomialSampler()(logits, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    alone = [MultinomialSampler()(row.unsqueeze(0), generator=generator) for row in logits]
    assert torch.equal(together, torch.cat(alone))


# --- greedy ---


@given(logits=batches())
def test_greedy_takes_the_first_of_the_largest(logits: Tensor) -> None:
    assert GreedySampler()(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_greedy_takes_the_first_of_many_equal() -> None:
    assert GreedySampler()(torch.zeros(3, 50257)).tolist() == [0, 0, 0]


@given(logits=batches().filter(lambda logits: all(row.count(max(row)) == 1 for row in logits.tolist())))
@pytest.mark.parametrize(
    "sampler",
    [TopKSampler(1), TopPSampler(1e-9), TopPSampler(5e-324), MinPSampler(1), TemperatureSampler(5e-324)],
    ids=repr,
)
def test_the_limit_of_every_sampler_is_greedy(sampler: Sampler, logits: Tensor) -> None:
    assert torch.equal(sampler(logits), GreedySampler()(logits))


# --- top-k ---


@given(logits=batches(), k=st.integers(1, 12))
def test_top_k_keeps_all_that_are_at_least_the_kth(logits: Tensor, k: int) -> None:
    for row, left in zip(logits.tolist(), survivors(lambda then: TopKSampler(k, then=then), logits), strict=True):
        kth = sorted(row, reverse=True)[min(k, len(row)) - 1]
        assert left == {i for i, value in enumerate(row) if value >= kth and value > -INF}


@given(logits=batches(), beyond=st.sampled_from([0, 1, 10**9]))
def test_a_k_of_the_vocabulary_or_more_filters_nothing(logits: Tensor, beyond: int) -> None:
    k = logits.shape[-1] + beyond
    assert torch.equal(passed_on(lambda then: TopKSampler(k, then=then), logits), logits)


def test_ties_at_the_kth_logit_all_come() -> None:
    sampler, logits = TopKSampler(2), torch.tensor([[1.0, 2.0, 1.0, 0.0, 1.0]]).expand(500, -1)
    assert set(sampler(logits, generator=torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2, 4}


# --- top-p and min-p ---


@given(logits=batches(), p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_that_have_at_least_p(logits: Tensor, p: float) -> None:
    """In float64, with room for the rounding of float32."""
    probabilities = logits.double().softmax(dim=-1)
    all_left = survivors(lambda then: TopPSampler(p, then=then), logits)
    for row, values, left in zip(probabilities, logits.tolist(), all_left, strict=True):
        lowest = min(values[i] for i in left)
        fewer = [i for i, value in enumerate(values) if value > lowest]
        assert row[list(left)].sum() >= p - 1e-6
        assert row[fewer].sum() < p + 1e-6


@pytest.mark.parametrize(("p", "left"), [(0.4, {2}), (0.5, {2}), (0.51, {2, 0}), (0.75, {2, 0}), (0.76, {2, 0, 1, 3})])
def test_top_p_at_probabilities_that_binary_fractions_hold(p: float, left: set[int]) -> None:
    logits = torch.tensor([[0.25, 0.125, 0.5, 0.125]]).log()
    assert survivors(lambda then: TopPSampler(p, then=then), logits) == [left]


@given(logits=batches())
def test_a_p_of_one_filters_nothing(logits: Tensor) -> None:
    assert torch.equal(passed_on(lambda then: TopPSampler(1, then=then), logits), logits)


def test_a_p_of_one_keeps_the_rarest_of_a_large_vocabulary() -> None:
    """The running sum of 50,257 probabilities passes 1 by rounding long before its end."""
    logits = torch.randn(1, 50257) * 5
    assert len(survivors(lambda then: TopPSampler(1.0, then=then), logits)[0]) == 50257


@given(logits=batches(), p=st.floats(1e-6, 1))
def test_min_p_keeps_those_at_least_p_times_as_probable_as_the_best(logits: Tensor, p: float) -> None:
    """In float64, but for those so near that float32 cannot tell; there the gap at fp16's maximum is 1/128."""
    for row, left in zip(logits.tolist(), survivors(lambda then: MinPSampler(p, then=then), logits), strict=True):
        best, room = max(row), 1 / 128 if abs(max(row)) > 100 else 1e-4
        must = {i for i, value in enumerate(row) if value - best >= math.log(p) + room or value == best}
        may = {i for i, value in enumerate(row) if value - best >= math.log(p) - room}
        assert must <= left <= may


def test_min_p_of_one_keeps_all_that_tie_with_the_best() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 2.999]])
    assert survivors(lambda then: MinPSampler(1, then=then), logits) == [{0, 2}]


# --- temperature ---


@given(logits=batches(), temperature=st.floats(0.05, 100))
def test_temperature_divides_the_logits(logits: Tensor, temperature: float) -> None:
    scaled = passed_on(lambda then: TemperatureSampler(temperature, then=then), logits)
    expected = (logits.double() / temperature).softmax(dim=-1)
    torch.testing.assert_close(scaled.double().softmax(dim=-1), expected, rtol=1e-3, atol=1e-6)


@given(logits=batches(), temperature=st.sampled_from([5e-324, 1e-300, 1e-45, 1e-38, 1e-9]))
def test_a_tiny_temperature_leaves_only_the_best(logits: Tensor, temperature: float) -> None:
    scaled = passed_on(lambda then: TemperatureSampler(temperature, then=then), logits)
    for row, probabilities in zip(logits.tolist(), scaled.softmax(dim=-1).tolist(), strict=True):
        others = [p for value, p in zip(row, probabilities, strict=True) if max(row) - value > 1e-6]
        assert not any(others)
        assert sum(probabilities) == pytest.approx(1)


@given(logits=batches(), temperature=st.sampled_from([1e9, 1e38, 1e39, 1e300]))
def test_a_huge_temperature_makes_possible_tokens_equal_and_impossible_ones_stay_so(
    logits: Tensor, temperature: float
) -> None:
    """From 1e39 on float32 divides by infinity, and -inf / inf is NaN."""
    scaled = passed_on(lambda then: TemperatureSampler(temperature, then=then), logits)
    possible = logits > -INF
    expected = possible.double() / possible.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(scaled.double().softmax(dim=-1), expected, atol=1e-3, rtol=0)


# --- frequencies ---

DRAWS = 10_000


def p_value(ids: Tensor, probabilities: Tensor) -> float:
    """Returns how likely correct draws are to differ from ``probabilities`` so (chi-squared); 0 if impossible."""
    possible = probabilities > 0
    counts = torch.bincount(ids, minlength=len(probabilities)).double()
    if counts[~possible].any():
        return 0.0
    expected = probabilities[possible] * len(ids)
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    degrees = torch.tensor(float(possible.sum() - 1), dtype=torch.float64)
    return float(torch.special.gammaincc(degrees / 2, statistic / 2)) if degrees else 1.0


@settings(max_examples=30)
@given(
    weights=st.lists(st.sampled_from([0, 2, 3, 5, 9]), min_size=2, max_size=8).filter(any),
    which=st.sampled_from(["multinomial", "top-k", "temperature", "top-p", "min-p", "top-k, temperature"]),
    seed=st.integers(0, 2**32),
)
def test_tokens_come_as_often_as_they_are_probable(weights: list[int], which: str, seed: int) -> None:
    """Chi-squared over 10,000 draws. A correct sampler fails one example in 1e10, so one run in 3e8."""
    weight = torch.tensor(weights, dtype=torch.float64)
    best, kth, likeliest = weight.max(), weight.sort(descending=True).values[1], weight / weight.sum()
    choices: dict[str, tuple[Sampler, Tensor]] = {
        "multinomial": (MultinomialSampler(), weight),
        "top-k": (TopKSampler(2), weight * (weight >= kth)),
        "temperature": (TemperatureSampler(0.5), weight**2),
        "top-p": (TopPSampler(float(likeliest.max()) / 2), weight * (weight == best)),
        "min-p": (MinPSampler(0.45), weight * (weight > 0.45 * best)),
        "top-k, temperature": (TopKSampler(2, then=TemperatureSampler(2.0)), (weight * (weight >= kth)).sqrt()),
    }
    sampler, expected = choices[which]
    generator = torch.Generator().manual_seed(seed)
    ids = sampler((weight.log() + 5).float().expand(DRAWS, -1), generator=generator)
    assert p_value(ids, expected / expected.sum()) > 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_precisions_draw_with_the_same_probabilities(dtype: torch.dtype) -> None:
    """Chi-squared, as above; the logits are exact in every precision."""
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -INF, 1.5], dtype=dtype)
    ids = TopKSampler(4)(logits.expand(DRAWS, -1), generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([0.0, 1.0, -INF, 0.5, -INF, 1.5], dtype=torch.float64).softmax(dim=-1)
    assert p_value(ids, expected) > 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_drawn_from_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(20_000, 50).to(dtype)
    drawn = [
        MultinomialSampler()(each, generator=torch.Generator().manual_seed(0)) for each in (logits, logits.float())
    ]
    assert torch.equal(drawn[0], drawn[1])


def test_the_chi_squared_test_notices_a_wrong_sampler() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.multinomial(torch.tensor([0.30, 0.33, 0.37]), DRAWS, replacement=True, generator=generator)
    assert p_value(ids, torch.full((3,), 1 / 3, dtype=torch.float64)) < 1e-10
    assert p_value(ids, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)) == 0


# --- the tutorial's numbers ---


@pytest.fixture
def tutorial() -> Tensor:
    torch.manual_seed(123)
    return torch.normal(0, 4, (8,))


def test_the_tutorials_logits(tutorial: Tensor) -> None:
    expected = [-0.4459, 0.4815, -1.4785, -0.9617, -4.7877, 0.8371, -3.8894, -3.0202]
    assert [round(value, 4) for value in tutorial.tolist()] == expected


@pytest.mark.parametrize(
    ("sampler", "counts"),
    [(MultinomialSampler(), [11, 31, 7, 4, 0, 46, 1, 0]), (TopKSampler(3), [13, 34, 0, 0, 0, 53, 0, 0])],
    ids=repr,
)
@pytest.mark.parametrize("at_once", [1, 10, 100])
def test_the_tutorials_frequencies(tutorial: Tensor, sampler: Sampler, counts: list[int], at_once: int) -> None:
    generator = torch.Generator().manual_seed(123)
    ids = [sampler(tutorial.expand(at_once, -1), generator=generator) for _ in range(100 // at_once)]
    assert torch.bincount(torch.cat(ids), minlength=8).tolist() == counts


def test_the_tutorials_top_3_probabilities(tutorial: Tensor) -> None:
    filtered = passed_on(lambda then: TopKSampler(3, then=then), tutorial.unsqueeze(0))
    probabilities = [round(value, 4) for value in filtered.softmax(dim=-1)[0].tolist()]
    assert probabilities == [0.1402, 0.3543, 0, 0, 0, 0.5056, 0, 0]


def test_without_a_generator_the_global_one_is_used(tutorial: Tensor) -> None:
    torch.manual_seed(123)
    ids = MultinomialSampler()(tutorial.expand(100, -1))
    assert torch.bincount(ids, minlength=8).tolist() == [11, 31, 7, 4, 0, 46, 1, 0]


def test_with_a_generator_the_global_one_is_left_alone(tutorial: Tensor) -> None:
    state = torch.get_rng_state()
    for sampler in EVERY_SAMPLER:
        sampler(tutorial.unsqueeze(0), generator=torch.Generator())
    GreedySampler()(tutorial.unsqueeze(0))
    assert torch.equal(torch.get_rng_state(), state)


# --- what is refused ---


@BY_NAME
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ([math.nan, 0.0, 1.0], "NaN: the model"),
        ([0.0, INF, 1.0], r"\+inf: the model"),
        ([-INF] * 3, "only -inf: what comes before"),
        ([math.nan, INF, -INF], "NaN: the model"),
        ([-INF, math.nan, -INF], "NaN: the model"),
        ([INF] * 3, r"\+inf: the model"),
    ],
    ids=str,
)
def test_a_row_from_which_nothing_can_be_drawn_is_refused_wherever_it_is(
    sampler: Sampler, dtype: torch.dtype, bad: list[float], found: str
) -> None:
    for rows in ([bad], [[0.0, 1.0, 2.0], bad], [bad, [0.0, 1.0, 2.0]]):
        with pytest.raises(ValueError, match=f"a row of logits has {found}"):
            sampler(torch.tensor(rows, dtype=dtype))


@pytest.mark.parametrize("logits", [None, [[0.0, 1.0]], np.zeros((1, 2)), lambda: None], ids=repr)
@BY_NAME
def test_logits_that_are_no_tensor_are_told(sampler: Sampler, logits: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"logits must be a tensor, \(B, V\), got .* \(\w+\)"):
        sampler(logits)


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = [TopKSampler(np.int64(5)), TopPSampler(np.float32(0.5)), TemperatureSampler(np.int32(2)), MinPSampler(1)]  # type: ignore[arg-type]
    values = [made[0].k, made[1].p, made[2].temperature, made[3].p]  # type: ignore[attr-defined]
    assert [(type(value), value) for value in values] == [(int, 5), (float, 0.5), (float, 2.0), (float, 1.0)]


def accepts_nothing() -> None: ...


def accepts_only_logits(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


@pytest.mark.parametrize("sampler", [accepts_nothing, accepts_only_logits, print])
def test_a_function_that_cannot_be_called_as_a_sampler_is_told(sampler: Any) -> None:  # noqa: ANN401
    name = sampler.__name__
    with pytest.raises(TypeError, match=rf"must accept \(logits, \*, .* got {name}, which accepts \("):
        with_tokens(sampler)
    with pytest.raises(TypeError, match=name):
        TopKSampler(2, then=sampler)(torch.zeros(1, 3))


@pytest.mark.parametrize("sampler", EVERY_SAMPLER[1:], ids=repr)
@pytest.mark.parametrize("generator", [0, "cpu", torch.Generator, np.random.default_rng(0)], ids=repr)
def test_what_is_no_generator_is_told(sampler: Sampler, generator: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None, got"):
        sampler(torch.zeros(1, 3), generator=generator)


def test_a_generator_of_another_device_is_told() -> None:
    with pytest.raises(ValueError, match=r"device of the model, cuda:0, got one on cpu; .*torch\.Generator\('cuda'\)"):
        check_generator(torch.Generator(), torch.device("cuda:0"))
    check_generator(torch.Generator("cpu"), torch.device("cpu"))


@BY_NAME
@pytest.mark.parametrize(
    "logits",
    [torch.zeros(5), torch.zeros(2, 3, 5), torch.zeros(2, 0), torch.zeros(2, 5).long(), torch.zeros(())],
    ids=lambda logits: f"{logits.dtype}, {tuple(logits.shape)}",
)
def test_anything_but_a_batch_of_logits_is_refused(sampler: Sampler, logits: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(B, V\), got .*logits\[:, -1\]") as caught:
        sampler(logits)
    assert str(tuple(logits.shape)) in str(caught.value)


@BY_NAME
def test_no_rows_are_no_tokens(sampler: Sampler) -> None:
    assert sampler(torch.zeros(0, 5)).shape == (0,)


@BY_NAME
def test_a_vocabulary_of_one_token_always_gives_it(sampler: Sampler) -> None:
    assert sampler(torch.tensor([[3.0], [-FP16_MAX]])).tolist() == [0, 0]


NUMBERS = [-1, -0.5, 0, math.nan, INF, -INF]


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        TopKSampler(k)


@pytest.mark.parametrize("temperature", NUMBERS)
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be .* greater than 0, got"):
        TemperatureSampler(temperature)


@pytest.mark.parametrize("p", [*NUMBERS, 1.0001])
@pytest.mark.parametrize("make", [TopPSampler, MinPSampler])
def test_a_p_out_of_range_is_refused(make: Callable[[float], Sampler], p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be .* greater than 0 and at most 1, got"):
        make(p)


@pytest.mark.parametrize("value", ["1", None, True, [1]])
@pytest.mark.parametrize("make", [TopKSampler, TemperatureSampler, TopPSampler, MinPSampler])
def test_what_is_not_a_number_is_a_type_error(make: Callable[[object], Sampler], value: object) -> None:
    with pytest.raises(TypeError, match="must be"):
        make(value)


def test_a_temperature_of_zero_is_told_of_greedy() -> None:
    with pytest.raises(ValueError, match="take GreedySampler"):
        TemperatureSampler(0)


def test_k_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match="k must be an integer"):
        TopKSampler(3.0)  # type: ignore[arg-type]


# --- values ---


@BY_NAME
def test_a_sampler_is_a_frozen_value_that_its_repr_rebuilds(sampler: Sampler) -> None:
    rebuilt = eval(repr(sampler))  # noqa: S307
    assert rebuilt == sampler
    assert hash(rebuilt) == hash(sampler)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.k = 1  # type: ignore[attr-defined]


def test_a_plain_function_is_a_sampler() -> None:
    def last(logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del tokens, generator
        return torch.full(logits.shape[:1], logits.shape[-1] - 1)

    sampler: Sampler = last
    assert isinstance(sampler, Sampler)
    assert TopKSampler(2, then=sampler)(torch.zeros(3, 5)).tolist() == [4, 4, 4]


def test_samplers_act_in_the_order_in_which_they_are_written() -> None:
    """At temperature 0.1 the nucleus of 0.8 is the best token alone; before it, all but the worst."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    cold_first, cold_last = Captured(), Captured()
    TemperatureSampler(0.1, then=TopPSampler(0.9, then=cold_first))(logits)
    TopPSampler(0.9, then=TemperatureSampler(0.1, then=cold_last))(logits)
    assert cold_first.logits.isfinite().sum() == 1
    assert cold_last.logits.isfinite().sum() == 3


@BY_NAME
def test_logits_that_want_a_gradient_can_be_drawn_from(sampler: Sampler) -> None:
    assert not sampler(torch.randn(2, 5, requires_grad=True)).requires_grad


# --- the text so far ---


@BY_FILTER
@given(logits=batches(), width=st.integers(0, 3))
def test_a_filter_passes_on_the_text_so_far_and_the_generator(
    make: Callable[[Sampler], Sampler], logits: Tensor, width: int
) -> None:
    captured, generator = Captured(), torch.Generator()
    tokens = torch.zeros(len(logits), width, dtype=torch.int64)
    for sampler in (make(captured), TopKSampler(4, then=make(TemperatureSampler(0.9, then=captured)))):
        sampler(logits, tokens=tokens, generator=generator)
        assert captured.tokens is tokens
        assert captured.generator is generator
        sampler(logits)
        assert captured.tokens is None
        assert captured.generator is None


@pytest.mark.parametrize("sampler", OF_LOGITS, ids=repr)
@given(logits=batches(), seed=st.integers(0, 2**32))
def test_what_is_a_function_of_logits_does_not_look_at_the_text(sampler: Sampler, logits: Tensor, seed: int) -> None:
    first, second = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(logits), 1, dtype=torch.int64)
    assert torch.equal(sampler(logits, tokens=tokens, generator=first), sampler(logits, generator=second))


def only_logits(logits: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:
    del generator
    return logits.argmax(dim=-1)


@BY_FILTER
def test_a_filter_spares_the_next_one_the_text_that_it_does_not_take(make: Callable[[Any], Sampler]) -> None:
    logits = torch.randn(3, 7)
    sampler = make(only_logits)
    expected = make(Captured())(logits, tokens=torch.zeros(3, 1, dtype=torch.int64))
    for each in (sampler, copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):  # noqa: S301
        assert torch.equal(each(logits, tokens=torch.zeros(3, 1, dtype=torch.int64)), expected)
        assert each == sampler
        assert repr(each) == repr(make(only_logits))


@BY_FILTER
@pytest.mark.parametrize("then", [GreedySampler, None, 3])
def test_what_comes_next_is_a_sampler(make: Callable[[Any], Sampler], then: object) -> None:
    """A class in the place of its instance is an easy slip, and its error used to come from deep inside."""
    with pytest.raises(TypeError, match=r"expected a sampler, such as GreedySampler\(\)"):
        make(then)


class OnlyLogits:
    def __call__(self, logits: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:
        return only_logits(logits, generator=generator)


def positional(logits: Tensor, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    del tokens, generator
    return logits.argmax(dim=-1)


def anything(logits: Tensor, **options: object) -> Tensor:
    del options
    return logits.argmax(dim=-1)


@pytest.mark.parametrize("sampler", [GreedySampler(), TopKSampler(3), Captured(), positional, anything])
def test_what_takes_the_text_is_called_as_it_is(sampler: Any) -> None:  # noqa: ANN401
    assert with_tokens(sampler) is sampler


@pytest.mark.parametrize("sampler", [only_logits, OnlyLogits(), functools.partial(only_logits)])
def test_what_takes_logits_alone_is_called_with_them(sampler: Any) -> None:  # noqa: ANN401
    logits = torch.randn(2, 5)
    called = with_tokens(sampler)
    assert called(logits, tokens=torch.zeros(2, 1), generator=torch.Generator()).tolist() == logits.argmax(-1).tolist()
    assert with_tokens(called) is called


def test_a_sampler_without_a_signature_is_trusted() -> None:
    builtin: Any = torch.argmax
    assert with_tokens(builtin) is builtin
