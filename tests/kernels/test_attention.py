"""Causal attention as it is computed on a CPU, held against PyTorch's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinygpt2 import GPT2Config, GPT2Model, KVCache
from tinygpt2.kernels.attention import LONG, scaled_dot_product_attention
from tinygpt2.kernels.switch import without_kernels
from tinygpt2.model.gpt2 import Block
from tinygpt2.training.step import seeded_dropout

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 4e-3}


def heads(*shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]


def outputs_and_gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)]


@given(
    batch=st.integers(0, 3),
    n_heads=st.integers(1, 3),
    n=st.sampled_from([0, 1, 2, 3, 17, LONG, LONG + 1]),
    width=st.integers(1, 9),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**32),
)
def test_it_is_pytorchs(*, batch: int, n_heads: int, n: int, width: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    leaves = heads(batch, n_heads, n, width, dtype=dtype)
    out = scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], is_causal=True)
    expected = F.scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], is_causal=True)
    assert out.dtype == dtype
    for found, wanted in zip(outputs_and_gradients(out, leaves), outputs_and_gradients(expected, leaves), strict=True):
        largest = wanted.abs().max().item() if wanted.numel() else 0.0
        torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE[dtype] * max(1.0, largest))


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)),
        ((2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 4)),
        ((3, 5, 8), (3, 5, 8), (3, 5, 8)),
        ((2, 1, 3, 5, 8), (2, 1, 3, 5, 8), (2, 1, 3, 5, 8)),
    ],
    ids=["more keys", "narrow values", "no batch", "two batches"],
)
def test_other_shapes_are_pytorchs_too(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> None:
    """All of them failed, although the function says that its arguments are PyTorch's."""
    q, k, v = (torch.randn(shape) for shape in (query, key, value))
    found = scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_a_mask_counts_beside_causality() -> None:
    """It was passed over."""
    query, key, value = heads(2, 3, 5, 8)
    mask = torch.rand(5, 5) < 0.5
    mask.fill_diagonal_(fill_value=True)
    found = scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, mask))
    try:
        expected = F.scaled_dot_product_attention(query, key, value, mask, is_causal=True)
    except RuntimeError:  # some versions of PyTorch refuse both
        return
    torch.testing.assert_close(scaled_dot_product_attention(query, key, value, mask, is_causal=True), expected)


def test_autocast_gives_bfloat16_as_in_pytorch() -> None:
    query, key, value = heads(2, 3, 5, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
        expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)


def test_dropout_keeps_the_mean_of_the_weights() -> None:
    """Each of 20,000 draws of a weighted mean of ones is 1 on average; five standard errors: 6e-7 false alarms."""
    ones = torch.ones(20_000, 1, 4, 1)
    out = scaled_dot_product_attention(torch.zeros_like(ones), torch.zeros_like(ones), ones, None, 0.25, is_causal=True)
    for t in range(4):
        deviation = (0.25 / 0.75 / (t + 1)) ** 0.5
        assert out[:, 0, t].mean().item() == pytest.approx(1, abs=5 * deviation / 20_000**0.5 + 1e-5)
        assert out[:, 0, t].std().item() == pytest.approx(deviation, rel=0.1)


def test_a_seed_gives_the_same_dropout_and_leaves_the_global_generator_alone() -> None:
    query, key, value = heads(2, 3, 9, 8)

    def out(seed: int | None) -> Tensor:
        return scaled_dot_product_attention(query, key, value, None, 0.5, is_causal=True, seed=seed)

    before = torch.get_rng_state()
    first = out(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(out(7), first)
    assert not torch.equal(out(8), first)
    assert not torch.equal(out(None), out(None))


def test_a_single_position_drops_by_its_seed_too() -> None:
    """It was left to PyTorch and its global generator."""
    query, key, value = heads(50, 3, 1, 1)
    out = scaled_dot_product_attention(query, key, value, None, 0.5, is_causal=True, seed=7)
    torch.rand(3)
    assert torch.equal(out, scaled_dot_product_attention(query, key, value, None, 0.5, is_causal=True, seed=7))
    assert set((out / value).flatten().tolist()) == {0.0, 2.0}


def test_switched_off_it_is_pytorchs_bit_for_bit() -> None:
    query, key, value = heads(2, 3, 9, 8, dtype=torch.float32)
    with without_kernels("attention"):
        torch.manual_seed(3)
        found = scaled_dot_product_attention(query, key, value, None, 0.5, is_causal=True, seed=1)
        torch.manual_seed(3)
        assert torch.equal(found, F.scaled_dot_product_attention(query, key, value, None, 0.5, is_causal=True))


# In the model

TINY = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)


def random_model() -> GPT2Model:
    model = GPT2Model(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.mark.parametrize("n", [2, 3, 16])
@pytest.mark.parametrize("cached", [False, True])
def test_attention_on_few_positions_is_that_on_many(n: int, *, cached: bool) -> None:
    """On a CPU the two have code of their own: the same logits and gradients come out."""
    model = random_model().eval()
    tokens = torch.randint(61, (2, n))

    def logits_and_gradients() -> list[Tensor]:
        logits = model(tokens, KVCache(TINY, 2) if cached else None)
        if cached:
            return [logits.detach()]
        return [logits.detach(), *torch.autograd.grad(logits.logsumexp(-1).sum(), list(model.parameters()))]

    few = logits_and_gradients()
    with without_kernels("attention"):
        many = logits_and_gradients()
    for actual, expected in zip(few, many, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("seeds", [None, (3,)], ids=["global", "seeded"])
def test_recomputing_a_block_gives_the_gradients_of_keeping_it(seeds: tuple[int] | None, *, reentrant: bool) -> None:
    """Activation checkpointing runs the forward pass twice: the second has to drop what the first did."""
    block = random_model().h[0]
    assert isinstance(block, Block)
    x = torch.randn(2, 9, 24, requires_grad=True)
    torch.manual_seed(5)
    states = torch.get_rng_state()

    def gradients(*, recomputed: bool) -> tuple[Tensor, ...]:
        torch.set_rng_state(states)
        with seeded_dropout(block, seeds, None):
            if recomputed:
                out: Tensor = checkpoint(block, x, 0, None, None, use_reentrant=reentrant)
                parameters = list(block.parameters())
                for leaf in (x, *parameters):
                    leaf.grad = None
                out.square().sum().backward()  # type: ignore[no-untyped-call]
                return tuple(leaf.grad for leaf in (x, *parameters) if leaf.grad is not None)
            return torch.autograd.grad(block(x, 0, None, None).square().sum(), [x, *block.parameters()])

    torch.testing.assert_close(gradients(recomputed=True), gradients(recomputed=False), rtol=0, atol=0)


def test_the_dropout_of_attention_is_off_when_its_module_is() -> None:
    """Switching off every ``nn.Dropout`` by itself, as is done to hold a model still, left that of attention on."""
    model = random_model().train()
    tokens = torch.randint(61, (2, 16))
    assert not torch.equal(model(tokens), model(tokens))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_a_device_that_is_wrong_for_strided_tensors_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own is silently wrong on Apple's GPUs for the views that a model makes of its queries and keys."""
    monkeypatch.setattr("tinygpt2.kernels.attention.WRONG_IF_STRIDED", {"cpu"})
    strided = [torch.randn(2, 700, 3, 8).transpose(1, 2) for _ in range(3)]
    given: list[bool] = []

    def attention(*arguments: Any, **options: Any) -> Tensor:  # noqa: ANN401 - whatever it is given
        given.extend(each.is_contiguous() for each in arguments[:3])
        return F.scaled_dot_product_attention(*arguments, **options)

    expected = F.scaled_dot_product_attention(strided[0], strided[1], strided[2], is_causal=True)
    twin = SimpleNamespace(scaled_dot_product_attention=attention)
    monkeypatch.setattr("tinygpt2.kernels.attention.F", twin)
    found = scaled_dot_product_attention(strided[0], strided[1], strided[2], is_causal=True)
    assert given == [True] * 3
    torch.testing.assert_close(found, expected)
