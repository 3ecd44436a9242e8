"""The bias of logits, held against a loop over its tokens."""

import copy
import dataclasses
import math
import pickle
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import GreedySampler, LogitBiasSampler, MultinomialSampler

INF = math.inf


def passed_on(bias: dict[int, float], logits: Tensor) -> Tensor:
    """Returns the logits that the sampler passes on."""
    kept: list[Tensor] = []

    def last(left: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        del tokens, generator
        kept.append(left)
        return left.argmax(dim=-1)

    before = logits.clone()
    LogitBiasSampler(bias, then=last)(logits)
    assert torch.equal(logits, before)
    return kept[0]


@given(st.dictionaries(st.integers(0, 6), st.floats(-100, 100), max_size=7), st.data())
def test_a_bias_is_added_to_the_logits_of_its_tokens(bias: dict[int, float], data: st.DataObject) -> None:
    values = st.lists(st.floats(-9, 9) | st.just(-INF), min_size=14, max_size=14)
    logits = torch.tensor(data.draw(values), dtype=torch.float64).view(2, 7)
    expected: list[list[float]] = logits.tolist()
    for row in expected:
        for token, value in bias.items():
            row[token] += value
    assert passed_on(bias, logits).tolist() == expected


def test_a_bias_multiplies_the_odds() -> None:
    """In 10,000 draws, 3/12 have a standard deviation of 0.0043: five of them fail in one of a million runs."""
    draws = LogitBiasSampler({2: math.log(3)})(torch.zeros(10_000, 10), generator=torch.Generator().manual_seed(0))
    assert (draws == 2).float().mean().item() == pytest.approx(3 / 12, abs=0.022)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("strength", [1e30, 3e38, 1e300, -1e30, -1e300])
def test_no_bias_makes_a_token_impossible_or_a_logit_infinite(dtype: torch.dtype, strength: float) -> None:
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, 0.0, -INF]], dtype=dtype)
    changed = passed_on(dict.fromkeys(range(4), strength), logits)
    assert changed[0, :3].isfinite().all()
    assert changed[0, 3] == -INF


def test_half_precisions_are_biased_in_float32() -> None:
    logits = torch.randn(2, 5).half()
    assert torch.equal(passed_on({1: 0.001}, logits), passed_on({1: 0.001}, logits.float()))


def test_a_bias_of_nothing_changes_nothing() -> None:
    logits = torch.randn(2, 5)
    for bias in ({}, {3: 0.0}):
        assert torch.equal(passed_on(bias, logits), logits)


# --- values and what is refused ---


def test_the_bias_is_a_copy_that_cannot_change_and_has_a_hash() -> None:
    given: dict[Any, Any] = {3: 1, np.int64(1): np.float32(0.5)}
    sampler = LogitBiasSampler(given)
    given[4] = 2
    assert sampler.bias == {3: 1.0, 1: 0.5}
    assert repr(sampler) == "LogitBiasSampler(bias={3: 1.0, 1: 0.5}, then=MultinomialSampler())"
    with pytest.raises(TypeError):
        sampler.bias[3] = 2.0  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.bias = {}  # type: ignore[misc]
    for other in (
        LogitBiasSampler({1: 0.5, 3: 1.0}),
        LogitBiasSampler(MappingProxyType({1: 0.5, 3: 1.0}), then=MultinomialSampler()),
        LogitBiasSampler(sampler.bias),
        copy.deepcopy(sampler),
        pickle.loads(pickle.dumps(sampler)),  # noqa: S301
    ):
        assert other == sampler
        assert hash(other) == hash(sampler)
    assert LogitBiasSampler({1: 0.5}) != sampler
    assert LogitBiasSampler({1: 0.5, 3: 1.0}, then=GreedySampler()) != sampler


@pytest.mark.parametrize("bias", [None, [(1, 2.0)], 3, "a", {1, 2}, torch.zeros(5)], ids=repr)
def test_what_is_no_mapping_is_told(bias: object) -> None:
    with pytest.raises(TypeError, match="bias must be a mapping from token ids to numbers"):
        LogitBiasSampler(bias)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        ({"5": 1.0}, TypeError, "a token id in bias must be an integer, got '5'"),
        ({True: 1.0}, TypeError, "a token id in bias must be an integer"),
        ({-1: 1.0}, ValueError, "a token id in bias must be at least 0, got -1"),
        ({1: "2"}, TypeError, "a number in bias must be a number"),
        ({1: -INF}, ValueError, "a number in bias must be a finite number"),
        ({1: math.nan}, ValueError, "a number in bias must be a finite number"),
    ],
)
def test_what_cannot_be_added_is_told(bias: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LogitBiasSampler(bias)  # type: ignore[arg-type]


def test_a_token_outside_the_vocabulary_is_told() -> None:
    with pytest.raises(ValueError, match="token ids of the vocabulary, less than 5, got 7; take the ids"):
        LogitBiasSampler({7: 1.0, 2: 1.0})(torch.zeros(1, 5))
