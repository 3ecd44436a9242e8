"""Models with weights of 8 bits: what they compute, what is saved, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    NextTokenLoss,
    TrainingConfig,
    evaluate,
    generate,
    make_dataloader,
    quantize,
    train,
)
from tinygpt2.kernels.switch import without_kernels

SHAPE = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.1)
SHAPES = [SHAPE, replace(SHAPE, tie_weights=False), replace(SHAPE, qkv_bias=False, n_inner=50)]
TOKENS = torch.randint(61, (2, 16), generator=torch.Generator().manual_seed(0))


def new_model(config: GPT2Config = SHAPE) -> GPT2Model:
    torch.manual_seed(0)
    model = GPT2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def rounded_model(model: GPT2Model) -> GPT2Model:
    """Returns the model of plain layers whose weights are those of the quantised one."""
    state = model.state_dict()
    weights: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dtype == torch.int8:
            weights[name] = weight * state[name.removesuffix(".weight") + ".scale"].unsqueeze(1)
        elif not name.endswith(".scale"):
            weights[name] = weight
    plain = GPT2Model(model.config).eval()
    plain.load_state_dict(weights)
    return plain


@pytest.mark.parametrize("config", SHAPES)
def test_without_the_kernel_it_is_the_model_of_the_rounded_weights(config: GPT2Config) -> None:
    model = quantize(new_model(config))
    with torch.no_grad(), without_kernels("int8"):
        torch.testing.assert_close(model(TOKENS), rounded_model(model)(TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", SHAPES)
def test_its_logits_are_near_those_of_the_model(config: GPT2Config) -> None:
    model = new_model(config)
    small = quantize(model)
    with torch.no_grad():
        expected, found = model(TOKENS), small(TOKENS)
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
    weights = [weight for name, weight in small.state_dict().items() if name.endswith("weight") and weight.dim() == 2]
    assert [weight.dtype for weight in weights].count(torch.int8) == len(weights) - 1  # all but the positions
    assert small.is_quantized
    assert not model.is_quantized
    assert small.num_parameters() == model.num_parameters()
    assert small.config == model.config


@pytest.mark.parametrize("config", SHAPES)
def test_the_model_that_is_passed_stays_as_it_is(config: GPT2Config) -> None:
    model = new_model(config).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    quantize(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


@given(
    config=st.sampled_from(SHAPES),
    batch=st.integers(1, 3),
    width=st.integers(1, 18),
    max_new_tokens=st.integers(0, 20),
)
def test_it_writes_what_its_own_whole_passes_say(
    config: GPT2Config, batch: int, width: int, max_new_tokens: int
) -> None:
    """With a cache, in fast steps or plain ones, for one text or several."""
    model = quantize(new_model(config))
    prompts = torch.randint(61, (batch, width), generator=torch.Generator().manual_seed(batch))
    tokens = prompts
    with torch.no_grad():
        for _ in range(max_new_tokens):
            logits = model(tokens[:, -16:])[:, -1]
            tokens = torch.cat([tokens, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert generate(model, prompts, max_new_tokens=max_new_tokens).tolist() == tokens.tolist()


@pytest.mark.parametrize("config", SHAPES)
def test_the_loss_is_that_of_its_logits(config: GPT2Config) -> None:
    model = quantize(new_model(config))
    inputs, targets = TOKENS[:, :-1], TOKENS[:, 1:]
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        torch.testing.assert_close(NextTokenLoss(model)(inputs, targets) / targets.numel(), expected)
    assert evaluate(model, [(inputs, targets)]).loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("config", SHAPES)
def test_what_is_saved_is_small_and_comes_back(config: GPT2Config, tmp_path: Path) -> None:
    model = new_model(config)
    small = quantize(model)
    small.save_pretrained(tmp_path / "small")
    model.save_pretrained(tmp_path / "large")
    again = GPT2Model.from_pretrained(tmp_path / "small")
    assert again.is_quantized
    for name, weight in small.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    with torch.no_grad():
        assert torch.equal(again(TOKENS), small(TOKENS))
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "large")]
    assert sizes[0] < 0.5 * sizes[1]  # of so small a model, whose names and factors count
    again.save_pretrained(tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "small" / file).read_bytes()


def test_other_libraries_are_told_by_the_configuration(tmp_path: Path) -> None:
    """They would take the integers for weights."""
    quantize(new_model()).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert content["model_type"] == "tinygpt2-int8"
    assert content["dtype"] == "float32"
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="tinygpt2-int8"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_half_of_the_weights_is_an_error(tmp_path: Path) -> None:
    quantize(new_model()).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["transformer.h.0.mlp.c_fc.scale"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"h\.0\.mlp\.c_fc\.weight is torch\.int8, not floating point"):
        GPT2Model.from_pretrained(tmp_path)


def test_a_model_in_bf16_becomes_one_with_the_rest_in_bf16() -> None:
    small = quantize(new_model().bfloat16())
    assert small.wpe.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert small(TOKENS).dtype == torch.bfloat16
    prompt = torch.tensor([[1]])
    assert generate(small, prompt, max_new_tokens=20).shape == (1, 21)


def test_it_cannot_be_quantised_again_trained_or_changed() -> None:
    small = quantize(new_model())
    with pytest.raises(ValueError, match="have 8 bits already"):
        quantize(small)
    with pytest.raises(ValueError, match="cannot be changed"):
        small.with_vocab_size(99)
    loader = make_dataloader(torch.arange(61), batch_size=1, context_length=16)
    with pytest.raises(ValueError, match="no trainable parameter"):
        train(small, loader, config=TrainingConfig(max_steps=1), device="cpu", progress=False)


def test_a_model_with_an_adapter_is_refused() -> None:
    model = new_model()
    model.extra = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"not those of its class.*extra\.bias"):
        quantize(model)
