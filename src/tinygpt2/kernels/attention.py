"""Causal attention that, on a CPU, computes its weights explicitly where that is faster: with dropout or if short."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt2.kernels.dropout import dropout
from tinygpt2.kernels.switch import usable

LONG = 512  # positions, above which the fused kernel is faster on a CPU

WRONG_IF_STRIDED = frozenset({"mps"})
"""Kinds of devices on which PyTorch's own attention is wrong for permuted tensors (pytorch issues 163597, 181133)."""


def scaled_dot_product_attention(  # noqa: PLR0917 - the twin's arguments
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    seed: int | None = None,
) -> Tensor:
    """Returns `torch.nn.functional.scaled_dot_product_attention`, (B, H, T, D).

    With dropout PyTorch does not use its fused kernel, and on few positions that kernel's matrix multiplications are
    small.

    Args:
        query: (B, H, T, D).
        key: (B, H, S, D).
        value: (B, H, S, D).
        attn_mask: The keys that each query sees, broadcast to (B, H, T, S); ``None`` for all.
        dropout_p: Probability of dropout on the attention weights.
        is_causal: Whether query t sees only the keys up to t.
        scale: Factor of the scores; ``None`` for 1 / sqrt(D).
        seed: Seed of the kernel's dropout, on a CPU; ``None`` for PyTorch's global random numbers.
    """
    if (
        query.device.type != "cpu"
        or not is_causal
        or attn_mask is not None
        or not usable("attention", query, key, value)
        or not (query.dim() == 4 and query.shape == key.shape == value.shape)
        or not (dropout_p or 1 < query.shape[2] <= LONG)
    ):
        if query.device.type in WRONG_IF_STRIDED:
            query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    shape, n = query.shape, query.shape[2]
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))  # (B * H, T, D)
    later = torch.full((n, n), -math.inf, dtype=query.dtype, device="cpu").triu_(1)
    scale = 1 / math.sqrt(shape[3]) if scale is None else scale
    weights = torch.baddbmm(later, query, key.transpose(1, 2), alpha=scale).softmax(dim=-1)
    weights = dropout(weights, dropout_p, seed=seed)
    return (weights.to(value.dtype) @ value).view(shape)
