"""Weights as bytes that a page unpacks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinygpt2.config import GPT2Config
from tinygpt2.kernels.int8 import LEVELS
from tinygpt2.model.gpt2 import GPT2Model, checked_state
from tinygpt2.model.rounding import rounded_weights


def page_config(config: GPT2Config, vocabulary: int) -> dict[str, Any]:
    """Returns what a page needs to know of a model's shape, with the ids that its tokenizer has."""
    scale = config.head_width**-0.5 if config.scale_attn_weights else 1.0
    by_layer = config.scale_attn_by_inverse_layer_idx
    return {
        "vocabulary": vocabulary,
        "context": config.context_length,
        "layers": config.n_layer,
        "heads": config.n_head,
        "width": config.n_embd,
        "inner": config.inner_width,
        "activation": config.activation_function,
        "epsilon": config.layer_norm_epsilon,
        "scales": [scale / (layer + 1) if by_layer else scale for layer in range(config.n_layer)],
    }


def plain_weights(model: GPT2Model) -> dict[str, Tensor]:
    """Returns a model's weights in floating point, also of one with weights of 8 bits.

    Raises:
        ValueError: If it has others than its class makes, for instance an adapter's.
    """
    state = checked_state(model)
    scales = {name.removesuffix(".scale"): scale for name, scale in state.items() if name.endswith(".scale")}
    plain = {name: weight for name, weight in state.items() if not name.endswith(".scale")}
    for name, scale in scales.items():
        plain[f"{name}.weight"] = plain[f"{name}.weight"].to(scale.dtype) * scale.unsqueeze(1)
    return plain


def used_weights(state: Mapping[str, Tensor], vocabulary: int) -> dict[str, Tensor]:
    """Returns the weights without the rows of ids that a tokenizer does not have."""
    return {
        name: tensor[:vocabulary] if name in {"wte.weight", "lm_head.weight"} else tensor
        for name, tensor in state.items()
    }


def page_shapes(state: Mapping[str, Tensor]) -> list[tuple[str, int, int]]:
    """Returns the name, the rows and the columns of each weight, no columns for a vector; in the order of the bytes."""
    return [(name, len(tensor), tensor.shape[1] if tensor.dim() == 2 else 0) for name, tensor in state.items()]


def page_weights(state: Mapping[str, Tensor], levels: int = LEVELS) -> bytes:
    """Returns weights as bytes: vectors and the scales of rows in float32, then the integers of matrices."""
    packed = rounded_weights(state, levels)
    floats = [packed[name if tensor.dim() == 1 else f"{name}.scale"] for name, tensor in state.items()]
    integers = [packed[name].flatten() for name, tensor in state.items() if tensor.dim() == 2]
    return torch.cat(floats).numpy().astype("<f4").tobytes() + torch.cat(integers).numpy().tobytes()
