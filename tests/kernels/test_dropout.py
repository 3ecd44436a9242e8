"""Dropout as it is made on a CPU, held against what dropout is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.kernels.dropout import Dropout, dropout

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(shape=SHAPES, p=st.floats(0, 1, exclude_max=True), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_elements_are_zero_or_scaled(shape: tuple[int, ...], p: float, dtype: torch.dtype) -> None:
    x = torch.rand(shape, dtype=dtype) + 1
    out = dropout(x, p)
    assert out.shape == x.shape
    assert out.dtype == dtype
    levels = max(round((1 - p) * 65536), 1)
    torch.testing.assert_close(out, torch.where(out == 0, 0, x * (65536 / levels)))


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.5, 0.9, 0.999])
def test_as_many_elements_are_dropped_as_asked_and_the_mean_stays(p: float) -> None:
    n = 1_000_000
    x = torch.ones(1000, 1000)
    out = dropout(x, p)
    deviation = math.sqrt(n * p * (1 - p))
    assert abs((out == 0).sum().item() - n * p) < 5 * deviation + n / 65536
    assert abs(out.mean().item() - 1) < 5 * deviation / n / (1 - p)
    # no row, no column and no quarter of a random number has another share than the others
    for shares in (out.mean(0), out.mean(1), out.view(-1, 4).mean(0)):
        count = n / len(shares)
        spread = math.sqrt(p / (1 - p) / count)
        assert (shares - 1).abs().max() < 6 * spread


def test_neighbours_are_dropped_independently() -> None:
    kept = (dropout(torch.ones(4_000_000), 0.5) != 0).double()
    for distance in (1, 2, 3, 4, 5, 8, 624):
        both = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(kept))


def test_the_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(7, 33, requires_grad=True)
    out = dropout(x, 0.4)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)
    assert 0 < (gradient == 0).sum() < gradient.numel()


def test_the_same_seed_drops_the_same_and_any_layout_will_do() -> None:
    x = torch.randn(5, 6, 7).transpose(0, 2)
    assert not x.is_contiguous()
    torch.manual_seed(3)
    first = dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3), first)
    assert not torch.equal(dropout(x, 0.3), first)


def test_dropping_next_to_nothing_drops_nothing() -> None:
    x = torch.randn(100)
    assert dropout(x, 0.0) is x
    assert dropout(x, 1e-6) is x


def test_half_precision_stays() -> None:
    out = dropout(torch.ones(1000, dtype=torch.bfloat16), 0.5)
    assert out.dtype == torch.bfloat16
    assert set(out.tolist()) == {0.0, 2.0}


def test_the_module_is_off_in_evaluation() -> None:
    x, module = torch.ones(1000), Dropout(0.5)
    assert isinstance(module, torch.nn.Dropout)
    assert (module(x) == 0).any()
    assert module.eval()(x) is x


@pytest.mark.parametrize("p", [1.0, -0.1, 1.1])
def test_dropping_everything_or_more_is_pytorchs(p: float) -> None:
    """With p = 1 one of 65536 elements stayed, 65536 times as large; other numbers were taken for 0 or 1."""
    x = torch.ones(1000, 1000)
    if p == 1:
        assert not dropout(x, p).any()
    else:
        with pytest.raises(ValueError, match="has to be between 0 and 1"):
            dropout(x, p)


def test_a_seed_gives_the_same_numbers_and_leaves_the_global_generator_alone() -> None:
    x = torch.randn(5, 100)
    before = torch.get_rng_state()
    first = dropout(x, 0.3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(dropout(x, 0.3, seed=7), first)
    assert not torch.equal(dropout(x, 0.3, seed=8), first)


def test_the_module_draws_by_its_seed_while_it_has_one() -> None:
    x, module = torch.ones(1000), Dropout(0.5)
    module.seed = 2**63 - 1
    before = torch.get_rng_state()
    assert torch.equal(module(x), module(x))
    assert torch.equal(torch.get_rng_state(), before)
    module.seed = None
    assert not torch.equal(module(x), module(x))
