"""From a prompt to its continuation, as text."""

from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from tinygpt2.generation.decoding import _decode
from tinygpt2.generation.samplers import GreedySampler, Sampler
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.text.tokenizers import Tokenizer

_GREEDY = GreedySampler()

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what decoders put for bytes that are not, or not yet, a character


@overload
def generate_text(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    sampler: Sampler = ...,
    generator: torch.Generator | None = ...,
) -> str: ...


@overload
def generate_text(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompt: list[str],
    *,
    max_new_tokens: int,
    sampler: Sampler = ...,
    generator: torch.Generator | None = ...,
) -> list[str]: ...


def generate_text(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompt: str | list[str],
    *,
    max_new_tokens: int,
    sampler: Sampler = _GREEDY,
    generator: torch.Generator | None = None,
) -> str | list[str]:
    """Returns a prompt with its continuation, or each of several.

    Several prompts, of whatever lengths, go through the model as one batch, and each comes out as it would alone
    (with a sampler that draws, as it could alone: the draws share one generator). A text ends where the model puts the
    tokenizer's end-of-text token, which is left out. An empty prompt begins a new text.

    Args:
        model: The model.
        tokenizer: The one that the model was trained with.
        prompt: A text, or several.
        max_new_tokens: How many tokens to add to each at most.
        sampler: Chooses each token.
        generator: Source of the sampler's randomness, on the model's device; PyTorch's global one if ``None``.

    Returns:
        A text for a text, a list for several.

    Raises:
        ValueError: If the tokenizer's ids are outside the model's vocabulary, a number is out of range, or the model
            gives logits that are not finite.

    >>> from tinygpt2 import CharTokenizer, GPT2Config
    >>> tokenizer = CharTokenizer.from_text("abc ")
    >>> shape = GPT2Config(
    ...     vocab_size=tokenizer.n_vocab, context_length=8,
    ...     n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> text = generate_text(model, tokenizer, "a cab", max_new_tokens=10)
    >>> text.startswith("a cab")
    True
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not prompts:
        return []
    tokens, padding = _encode(prompts, tokenizer)
    steps = _decode(
        model,
        tokens,
        padding,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        eos_id=tokenizer.eot_token,
        n_vocab=tokenizer.n_vocab,
        generator=generator,
    )
    rows = [list(row) for row in zip(*(ids.tolist() for ids in steps), strict=True)] or [[] for _ in prompts]
    texts = [
        text + tokenizer.decode(row[: row.index(tokenizer.eot_token)] if tokenizer.eot_token in row else row)
        for text, row in zip(prompts, rows, strict=True)
    ]
    return texts[0] if isinstance(prompt, str) else texts


def stream_text(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    sampler: Sampler = _GREEDY,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yields the continuation of `generate_text` in pieces as it comes, never half a character.

    A character whose bytes are spread over several tokens is held back until it is complete. The pieces together are
    what `generate_text` adds to the prompt. Arguments and errors are those of `generate_text`.

    >>> from tinygpt2 import CharTokenizer, GPT2Config
    >>> tokenizer = CharTokenizer.from_text("abc ")
    >>> shape = GPT2Config(
    ...     vocab_size=tokenizer.n_vocab, context_length=8,
    ...     n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> pieces = list(stream_text(model, tokenizer, "a cab", max_new_tokens=10))
    >>> text = generate_text(model, tokenizer, "a cab", max_new_tokens=10)
    >>> "a cab" + "".join(pieces) == text
    True
    """
    tokens, padding = _encode([prompt], tokenizer)
    steps = _decode(
        model,
        tokens,
        padding,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        eos_id=tokenizer.eot_token,
        n_vocab=tokenizer.n_vocab,
        generator=generator,
    )
    return _whole_characters(steps, tokenizer)


def _whole_characters(steps: Iterator[Tensor], tokenizer: Tokenizer) -> Iterator[str]:
    held: list[int] = []  # tokens since the text last ended with a complete character
    shown = 0  # characters of theirs that were yielded
    for ids in steps:
        token = int(ids)
        if token == tokenizer.eot_token:
            break
        held.append(token)
        text = tokenizer.decode(held)
        # Only the last character can change with the bytes that follow: what is wrong before it stays wrong.
        complete = len(text) - text.endswith(_REPLACEMENT)
        if complete > shown:
            yield text[shown:complete]
            shown = complete
        if complete == len(text):
            held, shown = [], 0
    if rest := tokenizer.decode(held)[shown:]:
        yield rest


def _encode(prompts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Returns the prompts flush right, (B, T) int64, and how much padding each has on its left, (B,) int64."""
    rows = [tokenizer.encode_ordinary(prompt) or [tokenizer.eot_token] for prompt in prompts]
    width = max(map(len, rows))
    padding = torch.tensor([width - len(row) for row in rows])
    return torch.tensor([[0] * (width - len(row)) + row for row in rows]), padding
