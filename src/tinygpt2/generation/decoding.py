"""From a prompt to a continuation, one token at a time."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.cpu import fast_products
from tinygpt2.generation.samplers import GreedySampler, Sampler, checked_ids, with_tokens
from tinygpt2.model.cache import KVCache
from tinygpt2.model.checks import check_tokens
from tinygpt2.model.gpt2 import GPT2Model
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
        TypeError: If an argument is of the wrong type, or the sampler returns something other than integers.
        ValueError: If the tokens are not (B, T) or outside the vocabulary, a number is out of range, the model gives
            logits that are not finite, or the sampler does not return an id for each row.

    >>> import torch
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

    >>> import torch
    >>> from tinygpt2 import GPT2Config
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> prompts = torch.tensor([[1], [2]])
    >>> [ids.shape for ids in stream(model, prompts, max_new_tokens=3)]
    [torch.Size([2]), torch.Size([2]), torch.Size([2])]
    """
    decoding = Decoding(max_new_tokens=max_new_tokens, sampler=sampler, eos_id=eos_id, generator=generator)
    return decode(model, tokens, decoding)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What is asked of a generation: the arguments of `generate`, checked.

    Attributes:
        max_new_tokens: As there, and so the next three.
        sampler: Chooses each token.
        eos_id: Id that ends a row.
        generator: Source of the sampler's randomness.
        n_vocab: How many ids can be chosen, where the model has more; ``None`` for all of them.
    """

    max_new_tokens: int
    sampler: Sampler
    eos_id: int | None
    generator: torch.Generator | None
    n_vocab: int | None = None

    def __post_init__(self) -> None:
        check_int("max_new_tokens", self.max_new_tokens, minimum=0)
        if self.eos_id is not None:
            check_int("eos_id", self.eos_id, minimum=0)


def decode(model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None = None) -> Iterator[Tensor]:
    """Checks the prompts, then returns an iterator over the new tokens of all rows, (B,) int64 each.

    Args:
        model: The model.
        prompts: (B, T) int64.
        decoding: What to do with them.
        padding: (B,) int64 on the CPU, how many tokens on the left of each row do not count; ``None`` for none.
    """
    window = model.config.context_length
    recent = prompts
    if isinstance(prompts, Tensor):  # else the check says so
        recent = prompts[:, -window:] if prompts.dim() == 2 else prompts
    check_tokens(recent, model.config)
    with torch.inference_mode(mode=False):  # what is made in inference mode cannot be written to outside of it
        texts = _Texts(model, prompts, decoding, padding)
    return _steps(texts)


def _steps(texts: "_Texts") -> Iterator[Tensor]:
    modules = list(texts.model.modules())
    for _ in range(texts.decoding.max_new_tokens):
        # Entered for each token, since between two of them the caller may do anything, training the model included.
        with torch.inference_mode(mode=False), torch.no_grad(), evaluation_mode(texts.model, modules):
            ids = texts.grow()
        yield ids
        if texts.ended():
            return


class _Texts:
    """A batch of texts that grow: their tokens, which of them have ended, and the keys and values of the window."""

    def __init__(self, model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None) -> None:
        batch, width = prompts.shape
        room = width + decoding.max_new_tokens
        self.model, self.decoding, self.padding = model, decoding, padding
        self.sampler = with_tokens(decoding.sampler)
        self.window = model.config.context_length
        self.tokens = torch.zeros((batch, room), dtype=torch.int64, device=model.device)
        self.tokens[:, :width] = prompts
        self.length = width
        self.finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
        self.cache = KVCache(model.config, batch, capacity=min(self.window, room), device=model.device)

    def grow(self) -> Tensor:
        """Returns the next token of each row, (B,) int64, once it is added."""
        decoding = self.decoding
        logits = self._logits()[:, : decoding.n_vocab]
        chosen = self.sampler(logits, tokens=self.tokens[:, : self.length], generator=decoding.generator)
        ids = checked_ids(decoding.sampler, chosen, logits)
        if decoding.eos_id is not None:
            ids = torch.where(self.finished, decoding.eos_id, ids)
            self.finished.logical_or_(ids == decoding.eos_id)
        self.tokens[:, self.length] = ids
        self.length += 1
        return ids

    def ended(self) -> bool:
        """Returns whether every row has met the id that ends it; only where there is one does this wait."""
        return self.decoding.eos_id is not None and bool(self.finished.all())

    def _logits(self) -> Tensor:
        """Returns the logits of each row's next token, (B, V)."""
        # Once the window is full it slides with each token: every position shifts, so all is computed anew.
        if self.cache.length in (0, self.window):
            return self._read_window()
        return self._read_last()

    def _read_window(self) -> Tensor:
        """Fills the cache anew: with the prompt, and with each window after it has slid."""
        start = max(0, self.length - self.window)
        unused = None if self.padding is None else (self.padding - start).clamp(min=0)
        self.cache.reset(unused if unused is not None and unused.any() else None)
        with fast_products():
            return self.model.last_logits(self.tokens[:, start : self.length], self.cache)

    def _read_last(self) -> Tensor:
        """Adds the last token to the cache."""
        # A single row is not multiplied faster by oneDNN, but by all cores: see kernels.linear.
        with fast_products() if len(self.tokens) > 1 else nullcontext():
            return self.model.last_logits(self.tokens[:, self.length - 1 : self.length], self.cache)
