"""The switch of the kernels, and that nothing but it and the arguments decides what comes out."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tinygpt2._internal.cpu
from tinygpt2 import GPT2Config, GPT2Model, NextTokenLoss, TrainingConfig, evaluate, make_dataloader, train
from tinygpt2.kernels.attention import scaled_dot_product_attention
from tinygpt2.kernels.cross_entropy import linear_cross_entropy
from tinygpt2.kernels.dropout import dropout
from tinygpt2.kernels.int8 import int8_linear
from tinygpt2.kernels.linear import linear
from tinygpt2.kernels.switch import NAMES, enabled, usable, without_kernels

CONFIG = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)

X, WEIGHT = torch.randn(1, 24), torch.randn(200, 24)
HEADS = torch.randn(2, 3, 5, 8)
INTEGERS, SCALE = torch.randint(-127, 128, (200, 24), dtype=torch.int8), torch.rand(200)
ROWS, TARGETS = torch.randn(7, 24), torch.randint(200, (7,))

# Each kernel and its twin, on what the kernel was made for.
PAIRS: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "attention": (
        lambda: scaled_dot_product_attention(HEADS, HEADS, HEADS, None, 0.3, is_causal=True),
        lambda: F.scaled_dot_product_attention(HEADS, HEADS, HEADS, None, 0.3, is_causal=True),
    ),
    "cross_entropy": (
        lambda: linear_cross_entropy(ROWS, WEIGHT, TARGETS, reduction="sum"),
        lambda: F.cross_entropy(F.linear(ROWS, WEIGHT), TARGETS, reduction="sum"),
    ),
    "dropout": (lambda: dropout(ROWS, 0.3), lambda: F.dropout(ROWS, 0.3)),
    "int8": (
        lambda: int8_linear(ROWS, INTEGERS, SCALE),
        lambda: F.linear(ROWS, INTEGERS.float() * SCALE.unsqueeze(1)),
    ),
    "linear": (lambda: linear(X, WEIGHT), lambda: F.linear(X, WEIGHT)),
}


def same(name: str) -> bool:
    """Returns whether a kernel and its twin are the same, bit for bit and random number for random number."""
    results = []
    for function in PAIRS[name]:
        torch.manual_seed(3)
        with torch.no_grad():
            results.append((function(), torch.get_rng_state()))
    (found, state), (expected, other) = results
    return torch.equal(found, expected) and torch.equal(state, other)


def test_every_kernel_has_a_name() -> None:
    assert sorted(PAIRS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_switched_off_a_kernel_is_its_twin_and_the_others_stay(name: str) -> None:
    with without_kernels(name):
        assert [kernel for kernel in NAMES if not enabled(kernel)] == [name]
        assert same(name)
    assert enabled(name)
    with without_kernels():
        assert all(same(kernel) for kernel in NAMES)


def test_on_they_are_not_so_that_these_tests_see_something() -> None:
    assert not same("dropout")
    assert not same("attention")
    assert not same("int8")


def test_the_environment_switches_all_off_for_a_process() -> None:
    code = "from tinygpt2.kernels.switch import NAMES, enabled; print([name for name in NAMES if enabled(name)])"
    for value, expected in (("0", "[]"), ("1", str(list(NAMES)))):
        environment = os.environ | {"TINYGPT2_KERNELS": value}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == expected


def test_switching_is_undone_by_an_error_and_seen_by_no_other_thread() -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(enabled("dropout")))
    with without_kernels("dropout"):
        thread.start()
        thread.join()
    assert seen == [True]
    with pytest.raises(KeyError), without_kernels("dropout"):
        raise KeyError
    assert enabled("dropout")


def test_a_kernel_that_is_not_there_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match=r"no kernels \['layernorm'\]; expected some of attention, "), \
         without_kernels("layernorm"):  # fmt: skip
        pass


def test_subclasses_of_tensor_take_the_twin() -> None:
    class Other(Tensor):
        pass

    assert usable("dropout", torch.randn(3), torch.nn.Parameter(torch.randn(3)))
    assert not usable("dropout", torch.randn(3).as_subclass(Other))
    assert isinstance(dropout(torch.randn(3).as_subclass(Other), 0.5), Other)


def test_all_kernels_off_change_the_loss_and_gradients_by_rounding_alone() -> None:
    model = GPT2Model(CONFIG).double().eval()
    tokens = torch.randint(61, (2, 17))

    def loss_and_gradients() -> list[Tensor]:
        loss = NextTokenLoss(model)(tokens[:, :-1], tokens[:, 1:], 1 / 32)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    found = loss_and_gradients()
    with without_kernels():
        expected = loss_and_gradients()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("slow_mkl", [False, True])
def test_an_evaluation_has_the_same_bits_after_an_unrelated_training(
    *, slow_mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train` left PyTorch's products on another library for the process, and every later loss was another."""
    monkeypatch.setattr(tinygpt2._internal.cpu, "_mkl_is_slow", lambda _: slow_mkl)
    model = GPT2Model(GPT2Config(vocab_size=61, context_length=64, n_layer=2, n_head=4, n_embd=64)).eval()
    loader = make_dataloader(torch.randint(61, (1000,)), batch_size=4, context_length=64)
    before = evaluate(model, loader)
    with torch.no_grad():
        logits = model(next(iter(loader))[0])
    other = GPT2Model(CONFIG)
    data = make_dataloader(torch.randint(61, (200,)), batch_size=4, context_length=16, shuffle=True)
    train(other, data, config=TrainingConfig(max_steps=3), device="cpu", progress=False)
    assert evaluate(model, loader) == before
    with torch.no_grad():
        assert torch.equal(model(next(iter(loader))[0]), logits)
