"""The model's step on one token of one sequence, as operations in a row: for CPUs.

A step calls a hundred modules and makes as many temporary tensors, which takes longer than the arithmetic of a small
model. Here the weights and the places of all intermediate results are looked up once, for all steps.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tinygpt2._internal.cpu import threads
from tinygpt2.kernels.int8 import int8_row_product
from tinygpt2.kernels.linear import row_product
from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import Block, GPT2Model
from tinygpt2.model.int8 import Int8Embedding, Int8Linear

_SMALL = 1 << 24  # bytes of weights, which a core's share of the cache holds: a second thread gains little


class TokenStep:
    """The step on the next token of one sequence, which is added to a cache.

    It gives what `GPT2Model.last_logits` gives where the model consists of its own modules, in evaluation mode and
    without gradients; the caller sees to that.

    Args:
        model: The model, on a CPU.
        cache: Its cache, of one sequence without padding, in the dtype of the model.
    """

    LEAST_STEPS = 8
    """Steps from which on preparing one is repaid."""

    def __init__(self, model: GPT2Model, cache: KVCache) -> None:
        config = model.config
        like = model.wpe.weight
        self._model, self._cache = model, cache
        weights = (*model.parameters(), *model.buffers())
        self._threads = 1 if sum(weight.nbytes for weight in weights) <= _SMALL else None
        self._nothing = like.new_zeros(())  # what the product of matrices is added to
        self._stream = like.new_empty(config.n_embd)  # (C,), the residual stream
        self._input = like.new_empty(config.n_embd)  # (C,), of each product
        mixed, inner = like.new_empty(config.n_embd), like.new_empty(config.inner_width)
        self._mixed, self._inner = mixed.view(config.n_head, 1, config.head_width), inner
        with threads(self._threads):
            blocks = cast("Iterable[Block]", model.h)
            self._blocks = [_Block.of(block, self._stream, self._input, mixed, inner) for block in blocks]
            self._normalise = _normalised(model.ln_f, self._stream, self._input)
            head: nn.Module = model.wte if model.lm_head is None else model.lm_head
            self._head = _product(head, self._input)

    @staticmethod
    def fits(cache: KVCache) -> bool:
        """Returns whether a cache is of one sequence without padding, on a CPU."""
        return cache.keys.is_cpu and cache.batch_size == 1 and not cache.has_padding

    def __call__(self, tokens: Tensor) -> Tensor:
        """Returns the logits after the next token, (1, 1), as (1, V)."""
        with threads(self._threads):
            return self._logits(tokens)

    def rewind(self) -> None:
        """Does nothing: each step begins at the end of the cache."""

    def _logits(self, tokens: Tensor) -> Tensor:
        model, cache, stream = self._model, self._cache, self._stream
        slot, token = cache.length, tokens.view(1)
        end = slot + 1
        torch.add(model.wte(token).view(-1), model.wpe.weight[slot], out=stream)
        # The views of all blocks at once: (H, D) of the next slot, (H, D, S) and (H, S, D) of all.
        new_keys, new_values = cache.keys[:, 0, :, slot].unbind(0), cache.values[:, 0, :, slot].unbind(0)
        keys, values = cache.keys[:, 0, :, :end].transpose(2, 3).unbind(0), cache.values[:, 0, :, :end].unbind(0)
        for layer, block in enumerate(self._blocks):
            block.normalise()
            block.attend()
            new_keys[layer].copy_(block.key)
            new_values[layer].copy_(block.value)
            scores = torch.baddbmm(self._nothing, block.query, keys[layer], beta=0, alpha=block.scale)  # (H, 1, S)
            torch.bmm(torch.softmax(scores, dim=-1), values[layer], out=self._mixed)
            stream.add_(block.project())
            block.normalise_again()
            self._inner.copy_(block.activation(block.expand()))
            stream.add_(block.contract())
        self._normalise()
        cache.advance(1)
        return self._head().view(1, -1).clone()  # the next step overwrites it


def _normalised(norm: nn.LayerNorm, stream: Tensor, out: Tensor) -> Callable[[], object]:
    """Returns what puts the normalised residual stream, (C,), where the next product reads it."""
    shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda: out.copy_(torch.layer_norm(stream, shape, weight, bias, eps))


def _product(layer: nn.Module, row: Tensor) -> Callable[[], Tensor]:
    """Returns what multiplies the weight of a linear layer, or of an embedding, by whatever a row then holds."""
    if isinstance(layer, Int8Linear | Int8Embedding):
        return int8_row_product(layer.weight, layer.scale, getattr(layer, "bias", None), row)
    return row_product(cast("Tensor", layer.weight), getattr(layer, "bias", None), row)


@dataclass(frozen=True)
class _Block:
    """The operations of a block, each with its place for the result.

    Attributes:
        normalise: Puts the normalised residual stream where ``attend`` reads it.
        attend: Computes query, key and value.
        query: (H, 1, D).
        key: (H, D).
        value: (H, D).
        project: Returns what attention adds to the residual stream, (C,).
        normalise_again: Puts it where ``expand`` reads it.
        expand: Returns what the activation is applied to, (4C,).
        contract: Returns what the MLP adds, (C,).
    """

    normalise: Callable[[], object]
    attend: Callable[[], Tensor]
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    project: Callable[[], Tensor]
    normalise_again: Callable[[], object]
    expand: Callable[[], Tensor]
    activation: Callable[[Tensor], Tensor]
    contract: Callable[[], Tensor]

    @classmethod
    def of(cls, block: Block, stream: Tensor, source: Tensor, mixed: Tensor, inner: Tensor) -> "_Block":
        """Returns the operations of a block: the inputs of its products are in ``source``, ``mixed`` and ``inner``."""
        attention, mlp = block.attn, block.mlp
        attend = _product(attention.c_attn, source)
        heads = attend().view(3, attention.n_head, -1)  # (3, H, D), a view of where the result always is
        width = heads.shape[-1]
        return cls(
            normalise=_normalised(block.ln_1, stream, source),
            attend=attend,
            query=heads[0].unsqueeze(1),
            key=heads[1],
            value=heads[2],
            scale=width**-0.5 if attention.scale is None else attention.scale,
            project=_product(attention.c_proj, mixed),
            normalise_again=_normalised(block.ln_2, stream, source),
            expand=_product(mlp.c_fc, source),
            activation=mlp.activation,
            contract=_product(mlp.c_proj, inner),
        )
