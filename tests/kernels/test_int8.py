"""Linear layers with weights of 8 bits, held against integer arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.kernels.int8 import int8_linear, rounded
from tinygpt2.kernels.switch import without_kernels


@given(
    rows=st.integers(0, 9),
    width=st.integers(2, 40),
    height=st.integers(1, 70),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**32),
)
def test_it_multiplies_the_integers_exactly(
    *, rows: int, width: int, height: int, biased: bool, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(rows, 1, width, dtype=dtype)
    weight, scale = torch.randint(-127, 128, (height, width), dtype=torch.int8), torch.rand(height, dtype=dtype)
    bias = torch.randn(height, dtype=dtype) if biased else None
    found = int8_linear(x, weight, scale, bias)
    assert found.dtype == dtype
    integers, factors = rounded(x.float())
    expected = (integers.long() @ weight.long().t()).double() * scale.double() * factors.double()
    expected += 0 if bias is None else bias.double()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 40),
    factor=st.floats(1e-20, 1e20),
    seed=st.integers(0, 2**32),
)
def test_rounding_moves_no_number_by_more_than_half_a_step(rows: int, width: int, factor: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(rows, width) * factor
    integers, factors = rounded(x)
    assert integers.abs().max() == 127
    error = (integers * factors - x).abs()
    assert (error <= factors * 0.5001).all()


def test_a_column_of_single_numbers_is_multiplied_too() -> None:
    x, weight, scale = torch.randn(3, 1), torch.randint(-127, 128, (5, 1), dtype=torch.int8), torch.rand(5)
    torch.testing.assert_close(int8_linear(x, weight, scale), x @ (weight * scale.unsqueeze(1)).t())


def test_a_row_of_zeros_gives_zeros() -> None:
    weight, scale = torch.randint(-127, 128, (5, 8), dtype=torch.int8), torch.rand(5)
    assert torch.equal(int8_linear(torch.zeros(2, 8), weight, scale), torch.zeros(2, 5))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_spoils_its_row_alone(value: float) -> None:
    x, weight, scale = torch.randn(3, 8), torch.randint(-127, 128, (5, 8), dtype=torch.int8), torch.rand(5)
    whole = int8_linear(x, weight, scale)
    x[1, 4] = value
    found = int8_linear(x, weight, scale)
    assert torch.equal(found[::2], whole[::2])
    assert not found[1].isfinite().any()


@given(st.integers(2, 6))
def test_a_row_does_not_depend_on_the_rows_beside_it(rows: int) -> None:
    x = torch.randn(rows, 24) * torch.logspace(0, 6, rows).unsqueeze(1)
    weight, scale = torch.randint(-127, 128, (50, 24), dtype=torch.int8), torch.rand(50)
    together = int8_linear(x, weight, scale)
    assert torch.equal(together, torch.cat([int8_linear(row.unsqueeze(0), weight, scale) for row in x]))


def test_without_the_kernel_only_the_weight_is_rounded() -> None:
    x, weight, scale = torch.randn(3, 24), torch.randint(-127, 128, (50, 24), dtype=torch.int8), torch.rand(50)
    expected = F.linear(x, weight * scale.unsqueeze(1))
    with without_kernels("int8"):
        torch.testing.assert_close(int8_linear(x, weight, scale), expected)
    found = int8_linear(x, weight, scale)
    assert 0 < (found - expected).abs().max() < 0.02 * expected.abs().max()
