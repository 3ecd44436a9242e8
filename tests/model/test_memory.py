"""A model that cannot fit into memory is refused before any is taken."""

import os
from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tinygpt2 import GPT2Config, GPT2Model
from tinygpt2.config import PRESETS
from tinygpt2.model.checks import number_of_weights

HUGE = GPT2Config(vocab_size=2**31, context_length=8, n_layer=1, n_head=1, n_embd=2**20)


@pytest.mark.parametrize("name", PRESETS)
def test_the_weights_are_counted_without_a_model(name: str) -> None:
    for tie_weights, qkv_bias in product((True, False), repeat=2):
        config = GPT2Config.preset(name, tie_weights=tie_weights, qkv_bias=qkv_bias, vocab_size=1013)
        with torch.device("meta"):
            assert number_of_weights(config) == GPT2Model(config).num_parameters()


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows does not say how much memory there is")
@pytest.mark.parametrize(
    "config",
    [
        HUGE,
        GPT2Config(n_layer=10_000, n_embd=2**20, n_head=1),
        GPT2Config(context_length=2**31, n_embd=2**20, n_head=1),
    ],
)
def test_a_model_that_cannot_fit_is_told_before_it_takes_memory(config: GPT2Config) -> None:
    """The system used to end the process once its memory was full."""
    with pytest.raises(ValueError, match=r"a model of this shape has [0-9,]+ weights, [0-9,]+ GiB, but this computer"):
        GPT2Model(config)


def test_where_weights_take_no_memory_a_model_has_any_size() -> None:
    with torch.device("meta"):
        assert GPT2Model(HUGE).num_parameters() == number_of_weights(HUGE) > 2**51
    with FakeTensorMode():
        assert GPT2Model(HUGE).num_parameters() == number_of_weights(HUGE)
