"""Continuation of prompts, one token at a time."""

import math
import time
from collections.abc import Collection, Iterator
from typing import Unpack

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance
from tinygpt2.config import GPT2Config
from tinygpt2.generation.options import Decoding, GenerationOptions, end_ids, takes_options
from tinygpt2.generation.samplers.checks import check_generator, checked_ids
from tinygpt2.generation.samplers.protocol import NO_TOKEN, with_tokens
from tinygpt2.generation.window import Window
from tinygpt2.model.checks import check_ids, check_tokens
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode

_FIRST_TOKENS = 1024  # to allocate; more once they are needed, as a text may end long before ``max_new_tokens``


@takes_options
def generate(
    model: GPT2Model,
    tokens: Tensor,
    *,
    eos_id: int | Collection[int] | None = None,
    **options: Unpack[GenerationOptions],
) -> Tensor:
    """Returns ``tokens`` with their continuations.

    A text may be longer than the model's context length: see ``overflow``. Dropout is off, and the model stays in its
    mode.

    Args:
        model: The model.
        tokens: Prompts, (B, T) int64, T at least 1; moved to the model's device.
        eos_id: Id that ends a row, or several; the row is filled with the one that ended it while the others continue.
            ``None`` for no such id.
        **options: Those of `GenerationOptions`; ``max_new_tokens`` must be given.

    Returns:
        (B, T + N) int64 on the model's device. N is ``max_new_tokens``, or less if every row reaches ``eos_id``, or
            ``max_time`` is over.

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
    new = stream(model, tokens, eos_id=eos_id, **options)
    return torch.cat([tokens.to(model.device, torch.int64), *(ids.unsqueeze(1) for ids in new)], dim=1)


@takes_options
def stream(
    model: GPT2Model,
    tokens: Tensor,
    *,
    eos_id: int | Collection[int] | None = None,
    **options: Unpack[GenerationOptions],
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
    ends = end_ids(eos_id, maximum=model.config.vocab_size - 1)
    return decode(model, tokens, Decoding.of(options, ends=ends))


def check_model(model: object) -> None:
    """Raises ``TypeError`` if a model cannot generate; what wraps a `GPT2Model` and has its attributes can."""
    if not (isinstance(getattr(model, "config", None), GPT2Config) and hasattr(model, "last_logits")):
        check_instance("model", model, GPT2Model, "a GPT2Model")


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
    over = math.inf if texts.decoding.max_time is None else time.monotonic() + texts.decoding.max_time
    for _ in range(texts.decoding.max_new_tokens):
        # Entered for each token: between two tokens the caller may do anything, including training the model.
        with torch.inference_mode(mode=False), torch.no_grad(), evaluation_mode(texts.model, modules):
            ids = texts.grow()
        yield ids
        if texts.ended() or time.monotonic() >= over:
            return


class _Texts:
    """A growing batch of texts: their tokens, which of them have ended, and what the model sees of them."""

    def __init__(self, model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None) -> None:
        batch, width = prompts.shape
        room = width + min(decoding.max_new_tokens, _FIRST_TOKENS)
        self.model, self.decoding = model, decoding
        self.text_starts = padding.to(model.device).unsqueeze(1) if padding is not None and padding.any() else None
        self.sampler = with_tokens(decoding.sampler)
        self.tokens = torch.zeros((batch, room), dtype=torch.int64, device=model.device)
        self.tokens[:, :width] = prompts
        self.length, self.least = width, width + decoding.min_new_tokens
        self.ends = torch.tensor(decoding.ends, dtype=torch.int64, device=model.device)
        self.finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
        longest = width + decoding.max_new_tokens
        self.window = Window(model, prompts, longest=longest, padding=padding, overflow=decoding.overflow)

    def grow(self) -> Tensor:
        """Adds the next token to each row and returns these tokens, (B,) int64."""
        decoding = self.decoding
        text = self.tokens[:, : self.length]
        logits = self.window.logits(text)
        if decoding.n_vocab is not None:
            logits = logits[:, : decoding.n_vocab]
        if decoding.ends and self.length < self.least:
            logits = logits.index_fill(1, self.ends, -math.inf)
        chosen = self.sampler(logits, tokens=self._seen(text), generator=decoding.generator)
        ids = checked_ids(decoding.sampler, chosen, logits)
        if decoding.ends:
            ids = torch.where(self.finished, self.tokens[:, self.length - 1], ids)  # an ended row repeats its end
            self.finished.logical_or_(torch.isin(ids, self.ends))
        if self.length == self.tokens.shape[1]:
            self.tokens = torch.cat([self.tokens, torch.zeros_like(self.tokens)], dim=1)
        self.tokens[:, self.length] = ids
        self.length += 1
        return ids

    def _seen(self, text: Tensor) -> Tensor:
        """Returns the text so far as a sampler sees it, (B, T): without padding, so that a row is as it is alone."""
        if self.text_starts is None:
            return text
        return text.masked_fill(torch.arange(self.length, device=text.device) < self.text_starts, NO_TOKEN)

    def ended(self) -> bool:
        """Returns whether every row has reached an end; waits for the device only if there is such an id."""
        return bool(self.decoding.ends) and bool(self.finished.all())
