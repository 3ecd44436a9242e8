"""The product of a matrix and a row on all cores, held against PyTorch's."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from typing_extensions import override

import tinygpt2.kernels.linear
from tinygpt2.kernels.linear import linear, project
from tinygpt2.kernels.switch import without_kernels
from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import GPT2Model


@pytest.fixture(autouse=True, scope="module")
def _small_weights_count_as_large() -> Iterator[None]:
    """So that the kernel is used on what a test can compute in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.kernels.linear, "_LARGE", 64)
        yield


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 40),
    leading=st.lists(st.integers(0, 2), max_size=3).map(tuple),
    threads=st.integers(1, 4),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**32),
)
def test_it_is_pytorchs(
    height: int, width: int, leading: tuple[int, ...], threads: int, *, biased: bool, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(*leading, width, dtype=dtype), torch.randn(height, width, dtype=dtype)
    bias = torch.randn(height, dtype=dtype) if biased else None
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "get_num_threads", lambda: threads)
        out = linear(x, weight, bias)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(out, F.linear(x, weight, bias), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("height", [63, 128, 192, 1001])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24), (2, 24), (1, 0, 24)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_gradients_are_pytorchs(
    height: int, shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, weight = torch.randn(shape), torch.randn(height, 24, requires_grad=True)
    out = linear(x, weight)
    assert out.requires_grad
    assert torch.equal(out, F.linear(x, weight))


def test_shapes_that_do_not_fit_are_refused_as_by_pytorch() -> None:
    """A column of as many numbers as the matrix is wide was taken for a row, where the height allowed it."""
    with torch.no_grad():
        for shape in ((24, 1), (2, 12), (1, 24, 1)):
            with pytest.raises(RuntimeError, match="cannot be multiplied"):
                linear(torch.randn(shape), torch.randn(100, 24))


@pytest.mark.parametrize("layout", ["transposed", "every other"])
def test_any_layout_of_the_weight_will_do(layout: str) -> None:
    weight = torch.randn(24, 200).t() if layout == "transposed" else torch.randn(400, 24)[::2]
    x = torch.randn(1, 24)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


def test_a_row_that_is_a_view_will_do() -> None:
    x, weight = torch.randn(5, 24, 3)[2, :, 1], torch.randn(200, 24)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


def test_autocast_gives_bfloat16_as_in_pytorch() -> None:
    x, weight = torch.randn(1, 24), torch.randn(200, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear(x, weight)
        assert torch.equal(found, F.linear(x, weight))
    assert found.dtype == torch.bfloat16


def count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the work is divided."""
    counts = [0]
    is_row = tinygpt2.kernels.linear._is_row

    def counted(x: Tensor, weight: Tensor) -> bool:
        answer = is_row(x, weight)
        counts[0] += answer
        return answer

    monkeypatch.setattr(tinygpt2.kernels.linear, "_is_row", counted)
    return counts


def test_a_plain_layer_is_projected_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Linear(24, 200), torch.randn(1, 24)
    counts = count_products(monkeypatch)
    with torch.no_grad():
        expected = layer(x)
        torch.testing.assert_close(project(layer, x), expected)
        assert counts == [1]
        with without_kernels("linear"):
            assert torch.equal(project(layer, x), expected)
    torch.testing.assert_close(project(layer, x), expected)  # with gradients it is the layer
    assert counts == [1]


def test_a_model_reads_token_by_token_as_it_does_with_pytorchs(model: GPT2Model) -> None:
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        expected, cache = model(tokens), KVCache(model.config, 1)
        found = torch.cat([model(token.view(1, 1), cache) for token in tokens[0]], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_small_layer_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dividing the work of a small one would take longer than the work."""
    monkeypatch.setattr(tinygpt2.kernels.linear, "_LARGE", 24 * 200 + 1)
    counts = count_products(monkeypatch)
    layer, x = nn.Linear(24, 200), torch.randn(1, 24)
    with torch.no_grad():
        assert torch.equal(project(layer, x), layer(x))
        assert torch.equal(linear(x, layer.weight, layer.bias), layer(x))
    assert counts == [0]


def test_a_layer_that_is_more_than_linear_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast path is an optimisation of the module's own call, never instead of it."""
    counts = count_products(monkeypatch)
    layer, x = nn.Linear(24, 200), torch.randn(1, 24)
    layer.register_forward_hook(lambda _, __, out: out + 1)

    class Doubled(nn.Linear):
        @override
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    with torch.no_grad():
        assert torch.equal(project(layer, x), layer(x))
        assert torch.equal(project(doubled := Doubled(24, 200), x), doubled(x))
    assert counts == [0]
