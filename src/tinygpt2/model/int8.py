"""Layers with weights of 8 bits, in place of those of PyTorch: half of the memory of bf16."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2.kernels.int8 import int8_linear, rounded

WEIGHT, SCALE = ".weight", ".scale"

_EMBEDDING, _HEAD = "wte", "lm_head"
_LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class _Int8(nn.Module):
    """A weight of integers, with a factor for each row.

    Attributes:
        weight: (M, N) int8.
        scale: (M,), floating point.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, rows: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, width, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.ones(rows, dtype=dtype, device=device))


class Int8Linear(_Int8):
    """A linear layer whose weight has 8 bits."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.out_features, layer.in_features, layer.weight.device, layer.weight.dtype)
        self.bias = layer.bias

    @override
    def forward(self, x: Tensor) -> Tensor:
        return int8_linear(x, self.weight, self.scale, self.bias)


class Int8Embedding(_Int8):
    """An embedding of 8 bits, which is the head as well where the two are tied."""

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__(layer.num_embeddings, layer.embedding_dim, layer.weight.device, layer.weight.dtype)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens].to(self.scale.dtype) * self.scale[tokens].unsqueeze(-1)

    def head(self, hidden: Tensor) -> Tensor:
        """Returns the logits, (..., V), of hidden states, (..., C)."""
        return int8_linear(hidden, self.weight, self.scale)


def quantized_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a model's weights with those of its embedding, its head and its linear layers as integers and factors."""
    result = dict[str, Tensor]()
    for name, weight in state.items():
        layer = name.removesuffix(WEIGHT)
        if layer not in {_EMBEDDING, _HEAD} and not layer.endswith(_LINEAR):
            result[name] = weight
            continue
        integers, factors = rounded(weight.float())
        result[name] = integers
        result[layer + SCALE] = factors.squeeze(-1).to(weight.dtype)
    return result


def is_quantized(state: Mapping[str, Tensor]) -> bool:
    """Returns whether weights are those that `quantized_weights` returns."""
    return _EMBEDDING + SCALE in state


def replace_layers(model: nn.Module) -> None:
    """Puts layers of 8 bits, without values yet, in place of those that `quantized_weights` has integers of."""
    for name, layer in list(model.named_modules()):
        if name == _EMBEDDING and isinstance(layer, nn.Embedding):
            model.set_submodule(name, Int8Embedding(layer))
        elif (name == _HEAD or name.endswith(_LINEAR)) and isinstance(layer, nn.Linear):
            model.set_submodule(name, Int8Linear(layer))
