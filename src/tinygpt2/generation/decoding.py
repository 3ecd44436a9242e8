"""From a prompt to a continuation, one token at a time."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.cpu import fast_products
from tinygpt2.generation.samplers import GreedySampler, Sampler
from tinygpt2.model.cache import KVCache
from tinygpt2.model.checks import check_tokens
from tinygpt2.model.gpt2 import GPT2Model, linear
from tinygpt2.model.modes import evaluation_mode

_GREEDY = GreedySampler()


def generate(
    model: GPT2Model,
    tokens: Tensor,
    *,
    max_new_tokens: int,
    sampler: Sampler = _GREEDY,
    eos_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns ``tokens`` with their continuations.

    Past the model's context length the window slides: each new token sees the last ``context_length`` ones. Dropout is
    off, and the model is left in the mode it was in.

    Args:
        model: The model.
        tokens: Prompts, (B, T) int64, T at least 1; moved to the model's device.
        max_new_tokens: How many tokens to add at most.
        sampler: Chooses each token.
        eos_id: Id that ends a row; the row is filled up with it while others go on. ``None`` for no such id.
        generator: Source of the sampler's randomness, on the model's device; PyTorch's global one if ``None``.

    Returns:
        (B, T + N) int64 on the model's device. N is ``max_new_tokens``, or less if every row met ``eos_id`` before.

    Raises:
        ValueError: If the tokens are not (B, T) or outside the vocabulary, a number is out of range, or the model gives
            logits that are not finite.

    >>> from tinygpt2 import GPT2Config
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> generate(model, torch.tensor([[1, 2, 3]]), max_new_tokens=20).shape
    torch.Size([1, 23])
    """
    new = stream(model, tokens, max_new_tokens=max_new_tokens, sampler=sampler, eos_id=eos_id, generator=generator)
    return torch.cat([tokens.to(model.device, torch.int64), *(ids.unsqueeze(1) for ids in new)], dim=1)


def stream(
    model: GPT2Model,
    tokens: Tensor,
    *,
    max_new_tokens: int,
    sampler: Sampler = _GREEDY,
    eos_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yields the tokens of `generate` as they are chosen, (B,) int64 each.

    Arguments and errors are those of `generate`; they are checked at the call, before the first token is asked for.

    >>> from tinygpt2 import GPT2Config
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> prompts = torch.tensor([[1], [2]])
    >>> [ids.shape for ids in stream(model, prompts, max_new_tokens=3)]
    [torch.Size([2]), torch.Size([2]), torch.Size([2])]
    """
    padding = torch.zeros(tokens.shape[:1], dtype=torch.int64)
    return _decode(
        model, tokens, padding, max_new_tokens=max_new_tokens, sampler=sampler, eos_id=eos_id, generator=generator
    )


def _decode(
    model: GPT2Model,
    prompts: Tensor,
    padding: Tensor,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    eos_id: int | None,
    generator: torch.Generator | None,
    n_vocab: int | None = None,
) -> Iterator[Tensor]:
    """Checks the arguments, then returns an iterator over the new tokens of all rows, (B,), below ``n_vocab``."""
    check_int("max_new_tokens", max_new_tokens, minimum=0)
    if eos_id is not None:
        check_int("eos_id", eos_id, minimum=0)
    window = model.config.context_length
    check_tokens(prompts[:, -window:] if prompts.dim() == 2 else prompts, model.config)
    batch, width = prompts.shape
    tokens = torch.zeros((batch, width + max_new_tokens), dtype=torch.int64, device=model.device)
    tokens[:, :width] = prompts
    finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
    cache = KVCache(
        model.config,
        batch,
        capacity=min(window, width + max_new_tokens),
        device=model.device,
        dtype=model.wte.weight.dtype,
    )

    modules = list(model.modules())

    def steps() -> Iterator[Tensor]:
        for end in range(width, width + max_new_tokens):
            fresh = cache.length in (0, window)
            # A single row is not multiplied faster by oneDNN, but by all cores: see model.linear.
            products = fast_products() if fresh or batch > 1 else nullcontext()
            with torch.no_grad(), evaluation_mode(model, modules), products:
                if fresh:
                    # Once the window is full it slides with each token: every position shifts, so all is computed anew.
                    start = max(0, end - window)
                    unused = (padding - start).clamp(min=0)
                    cache.reset(unused if unused.any() else None)
                    hidden = model.hidden_states(tokens[:, start:end], cache)
                else:
                    hidden = model.hidden_states(tokens[:, end - 1 : end], cache)
                ids = sampler(linear(hidden[:, -1], model.head_weight[:n_vocab]), generator=generator)
            if eos_id is not None:
                ids = torch.where(finished, eos_id, ids)
                finished.logical_or_(ids == eos_id)
            tokens[:, end] = ids
            yield ids
            if eos_id is not None and finished.all():
                return

    return steps()
