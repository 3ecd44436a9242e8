"""Checks of a model's inputs and weights."""

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, check_number, of_type
from tinygpt2.config import GPT2Config
from tinygpt2.kernels.switch import is_plain_computation
from tinygpt2.model.cache import KVCache


def check_weight_names(found: Iterable[str], expected: Iterable[str]) -> None:
    """Raises ``ValueError`` if a model's weights are not those that its class makes, for instance an adapter's."""
    if differing := sorted(set(found) ^ set(expected)):
        names = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise ValueError(
            f"the model's weights are not those of its class, so from_pretrained could not read them: {names}. "
            "Merge adapters into the model first (peft: merge_and_unload()), save a quantised model before it is "
            "quantised, or save model.state_dict() yourself"
        )


def not_finite(model: nn.Module) -> str | None:
    """Returns a clause that names the first weight of a model with a NaN or an infinity; ``None`` if there is none."""
    for name, weight in model.named_parameters():
        values = weight.detach()
        # The extremes of values with a NaN are NaN, and are found in a fraction of the time that isfinite() takes.
        if values.numel() and not (values.min().isfinite() and values.max().isfinite()):
            count = values.numel() - int(values.isfinite().sum())
            verb = "is" if count == 1 else "are"
            return f"{count:,} of {values.numel():,} values of the weight {name} {verb} not finite"
    return None


def check_memory(config: GPT2Config) -> None:
    """Raises ``ValueError`` if the weights of such a model are larger than the memory in which they would be made."""
    weight = torch.empty(0)
    if type(weight) is not Tensor or weight.device.type != "cpu" or not hasattr(os, "sysconf"):
        return  # other devices say so themselves, and fake tensors take no memory
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = number_of_weights(config)
    if count * weight.element_size() > memory:
        raise ValueError(
            f"a model of this shape has {count:,} weights, {count * weight.element_size() / 2**30:,.0f} GiB, but this "
            f"computer has a memory of {memory / 2**30:,.0f} GiB; choose a smaller shape, or make the model without "
            'weights: with torch.device("meta")'
        )


def number_of_weights(config: GPT2Config) -> int:
    """Returns the number of parameters of a model of this shape."""
    width, rows = config.n_embd, config.vocab_size * (1 if config.tie_weights else 2) + config.context_length
    attention = 4 * width * width + (4 if config.qkv_bias else 1) * width
    mlp = 2 * width * config.inner_width + config.inner_width + width
    return rows * width + config.n_layer * (attention + mlp + 4 * width) + 2 * width


def check_inputs(tokens: Tensor, cache: KVCache | None, config: GPT2Config) -> None:
    """Raises ``TypeError`` or ``ValueError`` if a model of this shape cannot be called with these inputs."""
    if not is_plain_computation():  # values cannot be read, and shapes may be symbolic
        return
    check_tokens(tokens, config)
    if cache is not None:
        check_cache(tokens, cache, config)


def check_tokens(tokens: Tensor, config: GPT2Config) -> None:
    """Raises an error if ``tokens`` is not an input for such a model; values are read only where that is free.

    Raises:
        TypeError: If ``tokens`` is not a tensor.
        ValueError: If its shape, dtype or ids are wrong.
    """
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"expected tokens as a tensor of shape (B, T), got {type(tokens).__name__}; pass torch.tensor(...)"
        )
    if tokens.dim() != 2 or tokens.shape[1] == 0 or tokens.dtype not in (torch.int64, torch.int32):
        fix = "; for one sequence pass tokens.unsqueeze(0)" if tokens.dim() == 1 else ""
        raise ValueError(f"expected tokens of shape (B, T), int64, got {tokens.dtype} of {tuple(tokens.shape)}{fix}")
    if tokens.shape[1] > config.context_length:
        raise ValueError(
            f"the model's context_length is {config.context_length}, but {tokens.shape[1]} tokens were given; pass the "
            "last ones, tokens[:, -context_length:], or build the model with a longer context_length"
        )
    check_ids(tokens, config)


def check_ids(tokens: Tensor, config: GPT2Config) -> None:
    """Raises ``ValueError`` if a token is outside the vocabulary; tokens are read only on a CPU, where that is free."""
    if type(tokens) is Tensor and tokens.device.type == "cpu" and tokens.numel():  # elsewhere this would wait or fail
        lowest, highest = (int(value) for value in tokens.aminmax())
        if lowest < 0 or highest >= config.vocab_size:
            raise ValueError(
                f"the model's vocabulary has ids 0 to {config.vocab_size - 1}, but the tokens go from {lowest} to "
                f"{highest}; build the model with vocab_size=tokenizer.n_vocab of the tokenizer that made them"
            )


def check_cache(tokens: Tensor, cache: KVCache, config: GPT2Config) -> None:
    """Raises an error if ``tokens`` cannot continue the sequences in the cache.

    Raises:
        TypeError: If ``cache`` is not a cache.
        ValueError: If it is for another model, another batch or another device, or is full.
    """
    check_instance("cache", cache, KVCache, "a KVCache or None")
    batch, n = tokens.shape
    if tokens.device != cache.keys.device:
        raise ValueError(
            f"the cache is on {cache.keys.device}, but the tokens are on {tokens.device}; make it with "
            "KVCache(model.config, ..., device=model.device)"
        )
    if batch != cache.batch_size:
        raise ValueError(f"the cache is for a batch of {cache.batch_size}, but {batch} sequences were given")
    layers, _, heads, capacity, width = cache.keys.shape
    if (layers, heads, width) != (config.n_layer, config.n_head, config.head_width) or capacity > config.context_length:
        raise ValueError("the cache was made for a model of another shape; make it with KVCache(model.config, ...)")
    if cache.length + n > cache.capacity:
        raise ValueError(
            f"the cache has {cache.capacity} slots and {cache.length} are filled, so {n} more tokens do not fit; "
            "reset it and start again with the last tokens"
        )


def checked_scale(targets: Tensor, scale: float) -> float:
    """Returns the factor of a loss as a number, a tensor's as it is: its value would make a GPU wait.

    Raises:
        TypeError: If ``targets`` is not a tensor, or ``scale`` not a number.
        ValueError: If ``scale`` is an integer too large for a ``float``.
    """
    check_instance("targets", targets, Tensor, "a tensor of ids, (B, T)")
    if isinstance(scale, float) or (isinstance(scale, Tensor) and scale.dim() == 0 and scale.dtype != torch.bool):
        return scale
    return check_number("scale", scale, minimum=-math.inf)


def check_hidden(hidden: Tensor, config: GPT2Config) -> None:
    """Raises ``TypeError`` or ``ValueError`` if ``hidden`` is not an input for the head of such a model."""
    if not is_plain_computation():
        return
    check_instance("hidden", hidden, Tensor, "a tensor, (..., C)")
    if hidden.dim() == 0 or hidden.shape[-1] != config.n_embd or not hidden.is_floating_point():
        raise ValueError(
            f"hidden must be floating point, (..., {config.n_embd}), got {hidden.dtype} of {tuple(hidden.shape)}"
        )


def ids_of_text(tokens: Any, vocab_size: int | None) -> npt.NDArray[np.int64]:  # noqa: ANN401 - any sequence of ids
    """Returns the ids of a text as an array, (N,), perhaps without any.

    Args:
        tokens: A list, an array or a tensor.
        vocab_size: Size of the vocabulary; ``None`` if it is not known.

    Raises:
        TypeError: If they are not integers in a sequence.
        ValueError: If they are not one-dimensional, or one is outside the vocabulary.
    """
    if not isinstance(tokens, list | tuple | range | np.ndarray | Tensor):
        raise TypeError(f"tokens must be the ids of a text, got {of_type(tokens)}; encode a text with its tokenizer")
    if isinstance(tokens, Tensor) and tokens.is_meta:
        raise ValueError("tokens must have values, got a tensor on the meta device, which has none")
    try:
        ids = np.asarray(tokens.detach().cpu() if isinstance(tokens, Tensor) else tokens)
    except ValueError:
        raise ValueError("expected token ids in one dimension, (N,), got sequences of several lengths") from None
    if ids.ndim != 1:
        raise ValueError(f"expected token ids in one dimension, (N,), got shape {ids.shape}")
    if not ids.size:
        return np.zeros(0, dtype=np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"token ids must be integers, got {ids.dtype}, beginning with {ids[0]!r}")
    check_id_range(int(ids.min()), int(ids.max()), vocab_size)
    return ids.astype(np.int64)


def check_id_range(lowest: int, highest: int, vocab_size: int | None) -> None:
    """Raises ``ValueError`` if ids are outside the vocabulary."""
    if vocab_size is None and lowest < 0:
        raise ValueError(f"token ids must be at least 0, got {lowest}")
    if vocab_size is not None and (lowest < 0 or highest >= vocab_size):
        raise ValueError(
            f"the vocabulary has ids 0 to {vocab_size - 1}, but the tokens go from {lowest} to {highest}; pass "
            "vocab_size=tokenizer.n_vocab of the tokenizer that made them"
        )
