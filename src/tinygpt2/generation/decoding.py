"""Continuation of prompts, one token at a time."""

import math
import time
from collections.abc import Collection, Iterator
from operator import attrgetter
from typing import Literal, Unpack, overload

import torch
from torch import Generator, Tensor

from tinygpt2._internal.checks import check_bool, check_instance, check_int
from tinygpt2.config import GPT2Config
from tinygpt2.generation.options import Decoding, GenerationOptions, check_samples, end_ids, takes_options
from tinygpt2.generation.samplers.checks import checked_ids
from tinygpt2.generation.samplers.protocol import NO_TOKEN, with_tokens
from tinygpt2.generation.scores import Scored, Step, scored
from tinygpt2.generation.window import Window
from tinygpt2.model.checks import check_ids, check_tokens
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode

_FIRST_TOKENS = 1024  # to allocate; more once they are needed, as a text may end long before ``max_new_tokens``


@overload
def generate(
    model: GPT2Model,
    tokens: Tensor,
    *,
    eos_id: int | Collection[int] | None = None,
    n: int = 1,
    return_scores: Literal[False] = False,
    top: int = 5,
    **options: Unpack[GenerationOptions],
) -> Tensor: ...
@overload
def generate(
    model: GPT2Model,
    tokens: Tensor,
    *,
    eos_id: int | Collection[int] | None = None,
    n: int = 1,
    return_scores: Literal[True],
    top: int = 5,
    **options: Unpack[GenerationOptions],
) -> Scored: ...
@takes_options
def generate(
    model: GPT2Model,
    tokens: Tensor,
    *,
    eos_id: int | Collection[int] | None = None,
    n: int = 1,
    return_scores: bool = False,
    top: int = 5,
    **options: Unpack[GenerationOptions],
) -> Tensor | Scored:
    """Returns ``tokens`` with their continuations, and on request how probable the model found these.

    A text may be longer than the model's context length: see ``overflow``. Dropout is off, and the model stays in its
    mode.

    Args:
        model: The model.
        tokens: Prompts, (B, T) int64, T at least 1; moved to the model's device.
        eos_id: Id that ends a row, or several; the row is filled with the one that ended it while the others continue.
            ``None`` for no such id.
        n: Number of continuations of each prompt, which follow one another. The prompt is read once.
        return_scores: Whether to return the scores of the new tokens with them.
        top: Number of the most probable tokens whose ids and log-probabilities are among the scores.
        **options: Those of `GenerationOptions`; ``max_new_tokens`` must be given.

    Returns:
        (B * n, T + N) int64 on the model's device. N is ``max_new_tokens``, or less if every row reaches ``eos_id``, or
            ``max_time`` is over. With ``return_scores``, a `Scored` with these tokens.

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
    check_bool("return_scores", return_scores)
    top = check_int("top", top, minimum=0)
    n = check_samples("n", n)
    steps = _of_arguments(model, tokens, eos_id, options, n)
    prompts = tokens.to(model.device, torch.int64).repeat_interleave(n, dim=0)
    if return_scores:
        return scored(prompts, steps, min(top, model.config.vocab_size))
    return torch.cat([prompts, *(step.ids.unsqueeze(1) for step in steps)], dim=1)


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
    return map(attrgetter("ids"), _of_arguments(model, tokens, eos_id, options))


def _of_arguments(
    model: GPT2Model, tokens: Tensor, eos_id: int | Collection[int] | None, options: GenerationOptions, n: int = 1
) -> Iterator[Step]:
    check_model(model)
    ends = end_ids(eos_id, maximum=model.config.vocab_size - 1)
    return decode(model, tokens, Decoding.of(options, ends=ends), n=n)


def check_model(model: object) -> None:
    """Raises ``TypeError`` if a model cannot generate; what wraps a `GPT2Model` and has its attributes can."""
    if not (isinstance(getattr(model, "config", None), GPT2Config) and hasattr(model, "last_logits")):
        check_instance("model", model, GPT2Model, "a GPT2Model")


def decode(
    model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None = None, *, n: int = 1
) -> Iterator[Step]:
    """Checks the prompts, then returns an iterator over the new tokens of all rows.

    Args:
        model: The model.
        prompts: (B, T) int64.
        decoding: How to continue them.
        padding: (B,) int64 on the CPU, number of tokens to ignore on the left of each row; ``None`` for none.
        n: Number of rows for each prompt, which follow one another.
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
    with torch.inference_mode(mode=False):  # tensors made in inference mode cannot be written to outside it
        texts = _Texts(model, prompts, decoding, padding, n)
    return _steps(texts)


def _steps(texts: "_Texts") -> Iterator[Step]:
    modules = list(texts.model.modules())
    over = math.inf if texts.decoding.max_time is None else time.monotonic() + texts.decoding.max_time
    for _ in range(texts.decoding.max_new_tokens):
        # Entered for each token: between two tokens the caller may do anything, including training the model.
        with torch.inference_mode(mode=False), torch.no_grad(), evaluation_mode(texts.model, modules):
            step = texts.grow()
        yield step
        if texts.ended() or time.monotonic() >= over:
            return


class _Texts:
    """A growing batch of texts: their tokens, which of them have ended, and what the model sees of them."""

    def __init__(self, model: GPT2Model, prompts: Tensor, decoding: Decoding, padding: Tensor | None, n: int) -> None:
        count, width = prompts.shape
        batch, longest = count * n, width + decoding.max_new_tokens
        self.model, self.decoding = model, decoding
        unused = torch.zeros(count, dtype=torch.int64, device="cpu") if padding is None else padding
        self.choose = _Choice(decoding, unused.repeat_interleave(n), model.device)
        room = width + min(decoding.max_new_tokens, _FIRST_TOKENS)
        self.tokens = torch.zeros((batch, room), dtype=torch.int64, device=model.device)
        self.tokens[:, :width] = prompts.repeat_interleave(n, dim=0)
        self.length, self.least = width, width + decoding.min_new_tokens
        self.ends = torch.tensor(decoding.ends, dtype=torch.int64, device=model.device)
        self.finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
        self.window = Window(model, count, copies=n, longest=longest, padding=padding, overflow=decoding.overflow)

    def grow(self) -> Step:
        """Adds the next token to each row."""
        decoding, counts = self.decoding, ~self.finished
        text = self.tokens[:, : self.length]
        logits = before = self.window.logits(text)
        if decoding.n_vocab is not None:
            logits = logits[:, : decoding.n_vocab]
        if decoding.ends and self.length < self.least:
            logits = logits.index_fill(1, self.ends, -math.inf)
        ids = self.choose(logits, text)
        if decoding.ends:
            ids = torch.where(self.finished, self.tokens[:, self.length - 1], ids)  # an ended row repeats its end
            self.finished.logical_or_(torch.isin(ids, self.ends))
        if self.length == self.tokens.shape[1]:
            self.tokens = torch.cat([self.tokens, torch.zeros_like(self.tokens)], dim=1)
        self.tokens[:, self.length] = ids
        self.length += 1
        return Step(ids, before, counts)

    def ended(self) -> bool:
        """Returns whether every row has reached an end; waits for the device only if there is such an id."""
        return bool(self.decoding.ends) and bool(self.finished.all())


class _Choice:
    """A call of the sampler: for all rows together, or for one after another where each has its own generator.

    Args:
        decoding: The options.
        padding: (B,) int64 on the CPU, tokens on the left of each row that are not of its text.
        device: Device of the generators.
    """

    def __init__(self, decoding: Decoding, padding: Tensor, device: torch.device) -> None:
        self._given, self._sampler = decoding.sampler, with_tokens(decoding.sampler)
        self._shared, self._own = decoding.generators(len(padding), device)
        self._begins: list[int] = padding.tolist()
        self._padding = padding.to(device).unsqueeze(1) if padding.any() else None

    def __call__(self, logits: Tensor, text: Tensor) -> Tensor:
        """Returns an id for each row of logits, (B, V), and texts, (B, T), as (B,) int64."""
        if self._own:
            rows = enumerate(zip(self._begins, self._own, strict=True))
            return torch.cat([self._ids(logits[i : i + 1], text[i : i + 1, begin:], own) for i, (begin, own) in rows])
        if self._padding is not None:
            places = torch.arange(text.shape[1], device=text.device)
            text = text.masked_fill(places < self._padding, NO_TOKEN)
        return self._ids(logits, text, self._shared)

    def _ids(self, logits: Tensor, text: Tensor, generator: Generator | None) -> Tensor:
        chosen = self._sampler(logits, tokens=text, generator=generator)
        return checked_ids(self._given, chosen, logits)
