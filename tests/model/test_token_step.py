"""The step on one token without modules, held against the model's own."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tinygpt2.kernels.linear
from tinygpt2 import GPT2Config, GPT2Model, KVCache, generate
from tinygpt2.generation import steps
from tinygpt2.generation.options import Overflow
from tinygpt2.kernels.switch import without_kernels
from tinygpt2.model.gpt2 import ACTIVATIONS
from tinygpt2.model.token_step import TokenStep

WINDOW = 12
SHAPE = GPT2Config(vocab_size=31, context_length=WINDOW, n_layer=2, n_head=2, n_embd=8, dropout=0.1)


def new_model(config: GPT2Config = SHAPE, dtype: torch.dtype = torch.float32) -> GPT2Model:
    torch.manual_seed(0)
    model = GPT2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model.to(dtype)


def in_steps(model: GPT2Model, tokens: Tensor, *, fast: bool, prompt: int = 1) -> Tensor:
    """Returns the logits after each token from the prompt on, (T, V)."""
    cache = KVCache(model.config, 1, dtype=model.wpe.weight.dtype)
    with torch.no_grad():
        found = [model.last_logits(tokens[:, :prompt], cache)]
        step = TokenStep(model, cache) if fast else lambda token: model.last_logits(token, cache)
        found += [step(tokens[:, i : i + 1]) for i in range(prompt, tokens.shape[1])]
    assert cache.length == tokens.shape[1]
    return torch.cat(found)


@given(
    changes=st.fixed_dictionaries(
        {
            "tie_weights": st.booleans(),
            "qkv_bias": st.booleans(),
            "scale_attn_weights": st.booleans(),
            "scale_attn_by_inverse_layer_idx": st.booleans(),
            "activation_function": st.sampled_from(sorted(ACTIVATIONS)),
            "n_head": st.sampled_from([1, 2, 4]),
            "n_inner": st.sampled_from([None, 5, 48]),
        }
    ),
    prompt=st.integers(1, WINDOW - 1),
    threads=st.integers(1, 3),
    smallest=st.sampled_from([0, 2**13]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 9),
)
def test_its_logits_are_the_models(
    changes: dict[str, object], *, prompt: int, threads: int, smallest: int, dtype: torch.dtype, seed: int
) -> None:
    model = new_model(replace(SHAPE, **changes), dtype)  # type: ignore[arg-type]
    tokens = torch.randint(31, (1, WINDOW), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        patch.setattr(torch, "set_num_threads", lambda _: None)
        patch.setattr(tinygpt2.kernels.linear, "_SMALL", smallest)
        found = in_steps(model, tokens, fast=True, prompt=prompt)
    torch.testing.assert_close(found, in_steps(model, tokens, fast=False, prompt=prompt), rtol=1e-5, atol=1e-5)


def test_so_they_are_in_bf16() -> None:
    model, tokens = new_model(dtype=torch.bfloat16), torch.randint(31, (1, WINDOW))
    found, expected = (in_steps(model, tokens, fast=fast) for fast in (True, False))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_step_reads_the_weights_and_the_cache_as_they_are_then() -> None:
    model, tokens = new_model(), torch.randint(31, (1, WINDOW))
    cache = KVCache(SHAPE, 1)
    with torch.no_grad():
        model.last_logits(tokens[:, :4], cache)
        step = TokenStep(model, cache)
        step(tokens[:, 4:5])
        cache.length = 4  # the last one is discarded
        for parameter in model.parameters():
            parameter.mul_(1.1)
        found = step(tokens[:, 4:5])
        cache.length = 4
        torch.testing.assert_close(found, model.last_logits(tokens[:, 4:5], cache), rtol=1e-5, atol=1e-5)


def test_results_stay_when_the_next_step_is_made() -> None:
    model, cache = new_model(), KVCache(SHAPE, 1)
    with torch.no_grad():
        model.last_logits(torch.tensor([[1]]), cache)
        step = TokenStep(model, cache)
        first = step(torch.tensor([[2]]))
        before = first.clone()
        step(torch.tensor([[3]]))
    assert torch.equal(first, before)


def test_it_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        in_steps(new_model(), torch.tensor([[1, 2, 3]]), fast=True)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("overflow", ["slide", "restart"])
@pytest.mark.parametrize(("texts", "used"), [(1, True), (2, False)])
def test_generation_uses_it_for_one_text_and_writes_the_same(
    texts: int, used: bool, overflow: Overflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Counted(TokenStep):
        def __call__(self, tokens: Tensor) -> Tensor:
            calls.append(1)
            return super().__call__(tokens)

    monkeypatch.setattr(steps, "TokenStep", Counted)
    model, prompts = new_model(), torch.arange(2 * texts).view(texts, 2)

    def written() -> list[list[int]]:
        found: list[list[int]] = generate(model, prompts, max_new_tokens=3 * WINDOW, overflow=overflow).tolist()
        return found

    with without_kernels("linear"):
        plain = written()
    assert not calls
    assert written() == plain
    assert bool(calls) == used
