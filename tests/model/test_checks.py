"""What is said of weights that are not finite."""

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tinygpt2 import GPT2Model
from tinygpt2.model.checks import not_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_first_weight_that_is_not_finite_is_named(model: GPT2Model, value: float, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    assert not_finite(model) is None
    with torch.no_grad():
        model.get_parameter("ln_f.bias")[0] = value
        model.get_parameter("h.1.attn.c_attn.weight")[3, 4:6] = value
    assert not_finite(model) == "2 of 1,728 values of the weight h.1.attn.c_attn.weight are not finite"


def test_of_large_empty_or_no_weights_nothing_is_said() -> None:
    module = nn.Module()
    assert not_finite(module) is None
    module.empty = nn.Parameter(torch.empty(0))
    module.large = nn.Parameter(torch.tensor([3e38, -3e38]))  # whose sum, and whose difference, overflow
    module.integers = nn.Parameter(torch.tensor([1]), requires_grad=False)
    assert not_finite(module) is None


def test_a_model_that_was_saved_broken_is_loaded_with_a_warning(
    model: GPT2Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was loaded without a word, and its losses were nan."""
    caplog.set_level(logging.WARNING)
    model.save_pretrained(tmp_path)
    GPT2Model.from_pretrained(tmp_path)
    assert not caplog.records
    with torch.no_grad():
        model.get_parameter("wpe.weight")[1, 2] = math.nan
    model.save_pretrained(tmp_path)
    loaded = GPT2Model.from_pretrained(tmp_path)
    assert loaded.get_parameter("wpe.weight").isnan().sum() == 1
    (record,) = caplog.records
    expected = f"the model in {tmp_path} cannot be used: 1 of 384 values of the weight wpe.weight is not finite"
    assert record.getMessage() == expected
