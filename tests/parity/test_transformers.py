"""Held against transformers' GPT-2: the same weights give the same logits, gradients and text, and go both ways."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinygpt2 import GPT2Config, GPT2Model, cross_entropy_loss, generate
from tinygpt2.config import Activation
from tinygpt2.formats.huggingface import state_from_huggingface
from tinygpt2.kernels.switch import without_kernels

transformers = pytest.importorskip("transformers")

# That of version 4 ignores scale_attn_weights and scale_attn_by_inverse_layer_idx in all other forms.
ATTENTION = "eager" if transformers.__version__.startswith("4.") else "sdpa"
TOLERANCE = 1e-5  # what the README promises in float32
TINY = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)
WIDTHS = [1, 7, TINY.context_length]
seeds = st.integers(0, 2**32)


def theirs(*, tie_weights: bool = True, attention: str = "sdpa", **options: Any) -> Any:  # noqa: ANN401 - not typed
    """Returns a tiny model of transformers in which no weight and no bias is zero, or one."""
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=16, n_layer=2, n_head=3, n_embd=24, tie_word_embeddings=tie_weights,
        bos_token_id=0, eos_token_id=0, attn_implementation=attention, **options,
    )  # fmt: skip
    return randomise(transformers.GPT2LMHeadModel(config).eval())


def randomise(model: Any) -> Any:  # noqa: ANN401
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def ours(model: Any, **changes: Any) -> GPT2Model:  # noqa: ANN401
    """Returns our model with the weights of theirs, without the way through a file."""
    config = replace(TINY, tie_weights=model.config.tie_word_embeddings, **changes)
    mine = GPT2Model(config)
    mine.load_state_dict(state_from_huggingface(model.state_dict(), config))
    return mine.to(model.dtype).eval()


def random_tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(TINY.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# Logits


@given(st.integers(1, 3), st.integers(1, TINY.context_length), st.booleans(), seeds)
@example(3, 1, True, 0)
@example(3, TINY.context_length, True, 0)
@example(3, TINY.context_length, False, 0)
@settings(max_examples=20)
def test_logits_are_the_same_in_float32(batch: int, width: int, tie_weights: bool, seed: int) -> None:
    torch.manual_seed(seed)
    model = theirs(tie_weights=tie_weights)
    tokens = random_tokens(seed, batch, width)
    with torch.no_grad():
        assert_close(ours(model)(tokens), model(tokens).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("width", WIDTHS)
def test_logits_are_the_same_in_float64(attention: str, width: int) -> None:
    model = theirs(attention=attention).double()
    tokens = random_tokens(0, 3, width)
    with torch.no_grad():
        assert_close(ours(model)(tokens), model(tokens).logits, 1e-12)


@pytest.mark.parametrize("width", WIDTHS)
def test_logits_are_as_near_in_bfloat16_as_its_rounding(width: int) -> None:
    """Both round each of some 20 results to 8 bits, in another order: neither is the truth, and each is near it."""
    model = theirs()
    tokens = random_tokens(0, 3, width)
    with torch.no_grad():
        truth = model(tokens).logits
        model.bfloat16()
        actual, expected = ours(model)(tokens), model(tokens).logits
    assert actual.dtype == expected.dtype == torch.bfloat16
    assert (expected.float() - truth).norm() < 0.05 * truth.norm()
    assert (actual - expected).float().norm() < 0.05 * truth.norm()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("width", WIDTHS)
def test_dropout_is_the_same_in_training(attention: str, width: int) -> None:
    """With PyTorch's dropout a seed drops the same numbers, since the same things are dropped in the same order."""
    model = theirs(attention=attention).train()
    mine = ours(model).train()
    tokens = random_tokens(0, 3, width)
    torch.manual_seed(7)
    with without_kernels("dropout"):  # ours, for a CPU, takes other random numbers
        actual = mine(tokens)
    torch.manual_seed(7)
    assert_close(actual, model(tokens).logits)
    assert (actual - mine.eval()(tokens)).abs().max() > 0.1  # and something was dropped


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tie_weights", [True, False])
def test_gradients_are_the_same(*, width: int, tie_weights: bool) -> None:
    model = theirs(tie_weights=tie_weights)
    mine = ours(model)
    tokens, targets = random_tokens(0, 3, width), random_tokens(1, 3, width)
    loss = cross_entropy_loss(mine(tokens), targets)
    expected = torch.nn.functional.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten())
    torch.autograd.backward(loss)
    torch.autograd.backward(expected)
    assert_close(loss, expected)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    compared = state_from_huggingface(gradients, mine.config)
    assert set(compared) == {name for name, _ in mine.named_parameters()}
    for name, parameter in mine.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, compared[name])


def test_the_loss_is_theirs() -> None:
    """Theirs moves the targets by one, ours takes them as they are."""
    model = theirs()
    tokens = random_tokens(0, 3, 16)
    targets = tokens.clone()
    targets[1, 5:9] = -100
    loss = cross_entropy_loss(ours(model)(tokens)[:, :-1], targets[:, 1:])
    assert_close(loss, model(tokens, labels=targets).loss)


# Names and files


@pytest.mark.parametrize("tie_weights", [True, False])
def test_names_are_theirs_without_the_prefix(*, tie_weights: bool) -> None:
    model = theirs(tie_weights=tie_weights)
    names = [name.removeprefix("transformer.") for name in model.state_dict()]
    if tie_weights:
        names.remove("lm_head.weight")  # theirs names one tensor twice
    assert list(ours(model).state_dict()) == names
    assert ours(model).num_parameters() == model.num_parameters()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_we_read_what_they_save(tmp_path: Path, *, tie_weights: bool, dtype: torch.dtype) -> None:
    model = theirs(tie_weights=tie_weights).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = GPT2Model.from_pretrained(tmp_path)
    assert loaded.config == replace(TINY, tie_weights=tie_weights)
    tokens = random_tokens(0, 3, 16)
    with torch.no_grad():
        assert_close(loaded(tokens), model.float()(tokens).logits)


def test_we_read_a_model_of_theirs_without_a_head(tmp_path: Path) -> None:
    """``transformers.GPT2Model`` has the blocks alone, and saves them without a prefix."""
    model = theirs()
    model.transformer.save_pretrained(tmp_path)
    tokens = random_tokens(0, 3, 16)
    with torch.no_grad():
        assert_close(GPT2Model.from_pretrained(tmp_path)(tokens), model(tokens).logits)


def test_we_read_every_dropout_they_save(tmp_path: Path) -> None:
    theirs(resid_pdrop=0.25, embd_pdrop=0.25, attn_pdrop=0.25).save_pretrained(tmp_path)
    assert GPT2Model.from_pretrained(tmp_path).config.dropout == 0.25


OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "activation_function": st.sampled_from(get_args(Activation)),
        "scale_attn_by_inverse_layer_idx": st.booleans(),
        "scale_attn_weights": st.booleans(),
        "layer_norm_epsilon": st.sampled_from([1e-6, 1e-5, 1e-3]),
        "n_inner": st.sampled_from([None, 40, 96, 130]),
        "reorder_and_upcast_attn": st.booleans(),
        "tie_weights": st.booleans(),
        "initializer_range": st.sampled_from([0.01, 0.1]),
    },
)


@given(options=OPTIONS, seed=seeds)
@settings(max_examples=30)
def test_their_options_give_the_same_logits_both_ways(options: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    model, tokens = theirs(attention=ATTENTION, **options), random_tokens(seed, 2, TINY.context_length)
    with TemporaryDirectory() as first, TemporaryDirectory() as second, torch.no_grad():
        model.save_pretrained(first)
        mine = GPT2Model.from_pretrained(first)
        expected = model(tokens).logits
        assert_close(mine(tokens), expected, TOLERANCE * max(1.0, expected.abs().max().item()))
        mine.save_pretrained(second)
        back = transformers.GPT2LMHeadModel.from_pretrained(
            second, local_files_only=True, attn_implementation=ATTENTION
        )
        assert_close(back(tokens).logits, expected, TOLERANCE * max(1.0, expected.abs().max().item()))
        cached = generate(mine, tokens[:, :5], max_new_tokens=11)
        assert torch.equal(cached[:, -1:], mine(cached[:, :-1])[:, -1:].argmax(-1))


def test_we_refuse_what_they_save_and_we_do_not_have(tmp_path: Path) -> None:
    theirs(add_cross_attention=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="add_cross_attention"):
        GPT2Model.from_pretrained(tmp_path)


def test_they_read_our_shards(tmp_path: Path) -> None:
    model, tokens = randomise(GPT2Model(TINY).eval()), random_tokens(0, 2, 16)
    model.save_pretrained(tmp_path, max_shard_size=10_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    back = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, local_files_only=True).eval()
    with torch.no_grad():
        assert_close(back(tokens).logits, model(tokens))


@pytest.mark.parametrize("size", [10**3, 10**4])
def test_we_read_their_shards(tmp_path: Path, size: int) -> None:
    model, tokens = theirs(), random_tokens(0, 2, 16)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.no_grad():
        assert_close(GPT2Model.from_pretrained(tmp_path)(tokens), model(tokens).logits)


def test_we_refuse_a_llama(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=3, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        GPT2Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_they_read_what_we_save(tmp_path: Path, *, tie_weights: bool, qkv_bias: bool, dtype: torch.dtype) -> None:
    config = replace(TINY, tie_weights=tie_weights, qkv_bias=qkv_bias, dropout=0.2)
    mine = randomise(GPT2Model(config).eval()).to(dtype)
    mine.save_pretrained(tmp_path)
    model, report = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path, output_loading_info=True, local_files_only=True, dtype="auto"
    )
    assert {key: list(found) for key, found in report.items() if found} == {}  # nothing missing, unexpected, misshapen
    assert model.dtype == dtype
    assert (model.config.n_positions, model.config.attn_pdrop, model.config.embd_pdrop) == (16, 0.2, 0.2)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tie_weights
    tokens = random_tokens(0, 3, 16)
    with torch.no_grad():
        assert_close(model.float().eval()(tokens).logits, mine.float()(tokens))


def test_they_find_the_class_by_themselves(tmp_path: Path) -> None:
    randomise(GPT2Model(TINY)).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert type(model).__name__ == "GPT2LMHeadModel"


def test_what_we_save_names_no_token_that_is_not_there(tmp_path: Path) -> None:
    """Without a word of ours they take 50256 as beginning and end of text, and warn that the vocabulary has no such."""
    randomise(GPT2Model(TINY)).save_pretrained(tmp_path)
    config = transformers.GPT2Config.from_pretrained(tmp_path, local_files_only=True)
    for token in (config.bos_token_id, config.eos_token_id):
        assert token is None or 0 <= token < TINY.vocab_size


def test_what_goes_through_both_is_unchanged(tmp_path: Path) -> None:
    mine = randomise(GPT2Model(TINY).eval())
    mine.save_pretrained(tmp_path / "ours")
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", local_files_only=True)
    model.save_pretrained(tmp_path / "theirs")
    loaded = GPT2Model.from_pretrained(tmp_path / "theirs")
    assert loaded.config == mine.config
    state = mine.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in loaded.state_dict().items())


def test_biases_that_they_have_trained_are_not_lost(tmp_path: Path) -> None:
    """Our model without the bias of queries, keys and values is theirs with zeros, which they then train.

    They keep our ``qkv_bias: false`` in the config that they save; to believe it gave other logits without a word.
    """
    randomise(GPT2Model(replace(TINY, qkv_bias=False))).save_pretrained(tmp_path / "ours")
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    randomise(model).save_pretrained(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))["qkv_bias"] is False
    tokens = random_tokens(0, 3, 16)
    with torch.no_grad():
        assert_close(GPT2Model.from_pretrained(tmp_path / "theirs")(tokens), model(tokens).logits)


# Generation


@pytest.mark.parametrize("width", [1, 5, TINY.context_length - 1])
def test_greedy_text_is_the_same(width: int) -> None:
    model = theirs().double()
    tokens = random_tokens(0, 3, width)
    length = TINY.context_length - width
    expected = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=length, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(generate(ours(model), tokens, max_new_tokens=length), expected)


def test_the_rest_of_a_row_that_has_ended_is_the_same() -> None:
    model = theirs().double()
    tokens = random_tokens(0, 3, 2)
    free = generate(ours(model), tokens, max_new_tokens=14)
    eos_id = int(free[1, 6])
    expected = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=14, do_sample=False, eos_token_id=eos_id,
        pad_token_id=eos_id,
    )  # fmt: skip
    assert torch.equal(generate(ours(model), tokens, max_new_tokens=14, eos_id=eos_id), expected)
