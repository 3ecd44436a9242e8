"""Continuation of prompts, one token at a time."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance, check_int
from tinygpt2._internal.cpu import fast_products
from tinygpt2.config import GPT2Config
from tinygpt2.generation.graphs import RecordedStep, recorded
from tinygpt2.generation.samplers import GreedySampler, Sampler, check_generator, checked_ids, with_tokens
from tinygpt2.model.cache import KVCache
from tinygpt2.model.checks import check_ids, check_tokens
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode

_GREEDY = GreedySampler()

_FIRST_TOKENS = 1024  # to allocate; more once they are needed, as a text may end long before ``max_new_tokens``


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

    Beyond the model's context length the window slides: each new token sees the last ``context_length`` tokens. Dropout
    is off, and the model stays in its mode.

    Args:
        model: The model.
        tokens: Prompts, (B, T) int64, T at least 1; moved to the model's device.
        max_new_tokens: Maximum number of tokens to add.
        sampler: Chooses each token.
        eos_id: Id that ends a row; the row is filled with it while the others continue. ``None`` for no such id.
        generator: Source of the sampler's randomness, on the model's device; PyTorch's global one if ``None``.

    Returns:
        (B, T + N) int64 on the model's device. N is ``max_new_tokens``, or less if every row reaches ``eos_id``.

    Raises:
        TypeError: If an argument is of the wrong type, or the sampler returns something other than integers.
        ValueError: If the tokens are not (B, T), ``eos_id`` or a token is outside the vocabulary, a number is out of
            range, the generator is on another device, the model returns logits that are not finite, or the sampler does
            not return one id of the vocabulary per row (on a GPU, ids are not read).

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

    Arguments and errors are those of `generate`; they are checked at the call, before the first token is requested.

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
    check_model(model)
    if eos_id is not None:
        eos_id = check_int("eos_id", eos_id, minimum=0, maximum=model.config.vocab_size - 1)
    decoding = Decoding(max_new_tokens=max_new_tokens, sampler=sampler, eos_id=eos_id, generator=generator)
    return decode(model, tokens, decoding)


def check_model(model: object) -> None:
    """Raises ``TypeError`` if a model cannot generate; what wraps a `GPT2Model` and has its attributes can."""
    if not (isinstance(getattr(model, "config", None), GPT2Config) and hasattr(model, "last_logits")):
        check_instance("model", model, GPT2Model, "a GPT2Model")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The arguments of `generate`, checked.

    Attributes:
        max_new_tokens: Maximum number of tokens to add.
        sampler: Chooses each token.
        eos_id: Id that ends a row.
        generator: Source of the sampler's randomness.
        n_vocab: Number of ids to choose from, where the model has more; ``None`` for all.
    """

    max_new_tokens: int
    sampler: Sampler
    eos_id: int | None
    generator: torch.Generator | None
    n_vocab: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", check_int("max_new_tokens", self.max_new_tokens, minimum=0))
        if self.eos_id is not None:
            check_int("eos_id", self.eos_id, minimum=0)


def decode(model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None = None) -> Iterator[Tensor]:
    """Checks the prompts, then returns an iterator over the new tokens of all rows, (B,) int64 each.

    Args:
        model: The model.
        prompts: (B, T) int64.
        decoding: How to continue them.
        padding: (B,) int64 on the CPU, number of tokens to ignore on the left of each row; ``None`` for none.
    """
    check_model(model)
    window = model.config.context_length
    recent = prompts
    if isinstance(prompts, Tensor):  # otherwise the check below raises
        recent = prompts[:, -window:] if prompts.dim() == 2 else prompts
    check_tokens(recent, model.config)
    check_ids(prompts, model.config)  # of the whole text, which the sampler sees
    for name, device in (("the model", model.device), ("tokens", prompts.device)):
        if device.type == "meta":
            raise ValueError(f"{name} must have values to generate with, got some on the meta device, which has none")
    check_generator(decoding.generator, model.device)
    with torch.inference_mode(mode=False):  # tensors made in inference mode cannot be written to outside it
        texts = _Texts(model, prompts, decoding, padding)
    return _steps(texts)


def _steps(texts: "_Texts") -> Iterator[Tensor]:
    modules = list(texts.model.modules())
    for _ in range(texts.decoding.max_new_tokens):
        # Entered for each token: between two tokens the caller may do anything, including training the model.
        with torch.inference_mode(mode=False), torch.no_grad(), evaluation_mode(texts.model, modules):
            ids = texts.grow()
        yield ids
        if texts.ended():
            return


class _Texts:
    """A growing batch of texts: their tokens, which of them have ended, and the keys and values of the window."""

    def __init__(self, model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None) -> None:
        batch, width = prompts.shape
        room = width + min(decoding.max_new_tokens, _FIRST_TOKENS)
        self.model, self.decoding, self.padding = model, decoding, padding
        self.sampler = with_tokens(decoding.sampler)
        self.window = model.config.context_length
        self.tokens = torch.zeros((batch, room), dtype=torch.int64, device=model.device)
        self.tokens[:, :width] = prompts
        self.length = width
        self.finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
        capacity = min(self.window, width + decoding.max_new_tokens)
        self.cache = KVCache(model.config, batch, capacity=capacity, device=model.device)
        self.steps: RecordedStep | Literal["new", "plain"] = "new"  # those on the last token

    def grow(self) -> Tensor:
        """Adds the next token to each row and returns these tokens, (B,) int64."""
        decoding = self.decoding
        logits = self._logits()
        if decoding.n_vocab is not None:
            logits = logits[:, : decoding.n_vocab]
        chosen = self.sampler(logits, tokens=self.tokens[:, : self.length], generator=decoding.generator)
        ids = checked_ids(decoding.sampler, chosen, logits)
        if decoding.eos_id is not None:
            ids = torch.where(self.finished, decoding.eos_id, ids)
            self.finished.logical_or_(ids == decoding.eos_id)
        if self.length == self.tokens.shape[1]:
            self.tokens = torch.cat([self.tokens, torch.zeros_like(self.tokens)], dim=1)
        self.tokens[:, self.length] = ids
        self.length += 1
        return ids

    def ended(self) -> bool:
        """Returns whether every row has reached ``eos_id``; waits for the device only if there is such an id."""
        return self.decoding.eos_id is not None and bool(self.finished.all())

    def _logits(self) -> Tensor:
        """Returns the logits of each row's next token, (B, V)."""
        # Once the window is full, it slides with each token: every position shifts, so everything is recomputed.
        if self.cache.length in (0, self.window):
            return self._read_window()
        return self._read_last()

    def _read_window(self) -> Tensor:
        """Refills the cache, with the prompt or with the window after it has slid, and returns the last logits."""
        start = max(0, self.length - self.window)
        unused = None if self.padding is None else (self.padding - start).clamp(min=0)
        self.cache.reset(unused if unused is not None and unused.any() else None)
        with fast_products():
            return self.model.last_logits(self.tokens[:, start : self.length], self.cache)

    def _read_last(self) -> Tensor:
        """Adds the last token to the cache and returns its logits."""
        # For a single row, not oneDNN but the use of all cores is faster: see kernels.linear.
        with fast_products() if len(self.tokens) > 1 else nullcontext():
            return self._logits_after(self.tokens[:, self.length - 1 : self.length])

    def _logits_after(self, last: Tensor) -> Tensor:
        if self.steps == "new":
            step, logits = recorded(self.model, self.cache, last, self.cache.capacity - self.cache.length)
            self.steps = step or "plain"
            return logits
        if isinstance(self.steps, RecordedStep):
            found = self.steps(last)
            if found is not None:
                return found
            self.steps = "plain"
        return self.model.last_logits(last, self.cache)
