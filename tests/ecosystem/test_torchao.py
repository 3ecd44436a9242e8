"""Quantisation by torchao and by PyTorch: every linear layer, any batch, generation, saving and loading."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinygpt2 import GPT2Model, generate

torchao = pytest.importorskip("torchao.quantization")

pytestmark = pytest.mark.ecosystem

CONFIGS = ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]


def quantised(model: GPT2Model, name: str) -> GPT2Model:
    """Returns a quantised copy."""
    if name == "quantize_dynamic":
        quantize: Any = torch.ao.quantization.quantize_dynamic
        whole: GPT2Model = quantize(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
        return whole
    model = copy.deepcopy(model)
    torchao.quantize_(model, getattr(torchao, name)())
    return model


def number_of_quantised(model: nn.Module) -> int:
    """Returns how many layers have a quantised weight."""
    parameters = [type(value.data).__module__ for value in model.parameters()]
    modules = [type(module).__module__ for module in model.modules()]
    return sum(name.startswith("torchao") for name in parameters) + sum(
        name == "torch.ao.nn.quantized.dynamic.modules.linear" for name in modules
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", [*CONFIGS, "quantize_dynamic"])
@torch.no_grad()
def test_every_linear_layer_is_quantised_and_used(
    new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor, name: str, *, tied: bool
) -> None:
    """None was, and nothing said so; and a single row failed with int8 weights."""
    model = new_model(tie_weights=tied)
    small = quantised(model, name)
    assert number_of_quantised(small) == sum(isinstance(module, nn.Linear) for module in model.modules())
    expected = model(ids)
    scale = expected.abs().max()
    assert not torch.equal(small(ids), expected)
    for tokens in ids, ids[:1], ids[:1, :1], ids[1:, :1]:
        near(small(tokens) / scale, model(tokens) / scale, 0.2)
    written = generate(small, ids[:1, :4], max_new_tokens=6)
    for n in range(4, 10) if name in CONFIGS else ():  # PyTorch's depend on all tokens that are read at once
        assert written[0, n] == small(written[:, :n])[0, -1].argmax()


@torch.no_grad()
def test_weights_of_8_bits_give_the_logits_of_the_weights_that_they_stand_for(
    new_model: Callable[..., GPT2Model], near: Callable[..., None], ids: Tensor
) -> None:
    small, plain = quantised(new_model(), "Int8WeightOnlyConfig"), new_model()
    weights = {name: value.dequantize() for name, value in small.state_dict().items()}
    assert sum(not torch.equal(weights[name], value) for name, value in plain.state_dict().items()) == 8
    plain.load_state_dict(weights)
    for tokens in ids, ids[:1], ids[:1, :1]:
        near(small(tokens), plain(tokens), 1e-3)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_is_saved_is_loaded(new_model: Callable[..., GPT2Model], ids: Tensor, tmp_path: Path, name: str) -> None:
    """With `torch.save`; `save_pretrained` refuses, since `from_pretrained` reads floating-point weights."""
    small = quantised(new_model(), name)
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    loaded = new_model()
    weights: Any = torch.load(tmp_path / "weights.pt", weights_only=False)
    loaded.load_state_dict(weights, assign=True)
    assert torch.equal(loaded(ids), small(ids))
    with pytest.raises((ValueError, TypeError, NotImplementedError, RuntimeError)):
        small.save_pretrained(tmp_path / "model")
