"""Continuation of prompts, as text."""

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor

from tinygpt2._internal.texts import check_texts
from tinygpt2.generation.decoding import decode
from tinygpt2.generation.options import Decoding, GenerationOptions, takes_options
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer, byte_token_ids
from tinygpt2.tokenizers.protocol import Tokenizer, encoded

Prompt = TypeVar("Prompt", str, list[str], Iterable[str])

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders put it for bytes that are not, or not yet, a character


@takes_options
def generate_text(
    model: GPT2Model, tokenizer: AnyTokenizer, prompt: Prompt, **options: Unpack[GenerationOptions]
) -> Prompt:
    """Returns a prompt with its continuation, or each of several prompts with its own.

    Several prompts, of any lengths, go through the model as one batch, and each is continued as it would be alone
    (except that the draws of a random sampler share one generator). A text ends where the model puts the tokenizer's
    end-of-text token, which is left out. An empty prompt begins a new text.

    Args:
        model: The model.
        tokenizer: The one that the model was trained with.
        prompt: A text, or several in a list, a tuple, a column of a table or another iterable.
        **options: Those of `GenerationOptions`; ``max_new_tokens`` must be given.

    Returns:
        A text for a text, a list for several texts.

    Raises:
        TypeError: If an argument is of the wrong type, or the sampler returns something other than integers.
        ValueError: If a prompt has a lone surrogate or cannot be encoded, the tokenizer has no end-of-text token or its
            ids are outside the model's vocabulary, a number is out of range, the model returns logits that are not
            finite, or the sampler does not return one id per row.

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
    tokenizer = as_tokenizer(tokenizer, ends=True)
    decoding = _decoding(tokenizer, options)
    if isinstance(prompt, str):
        return _continued(model, tokenizer, [prompt], decoding)[0]
    return _continued(model, tokenizer, _listed(prompt), decoding)  # pyright: ignore[reportReturnType] - an iterable


def _listed(prompt: object) -> list[Any]:
    """Returns several prompts as a list, and anything else, which `_encode` rejects, as a list of one."""
    several = isinstance(prompt, Iterable) and not isinstance(prompt, bytes | bytearray)
    return list(check_texts("prompt", prompt)) if several else [prompt]


def _continued(model: GPT2Model, tokenizer: Tokenizer, prompts: Sequence[str], decoding: Decoding) -> list[str]:
    rows = _encode(prompts, tokenizer)
    if not rows:
        return []
    tokens, padding = _flush_right(rows, tokenizer.eot_token)
    columns = [ids.tolist() for ids in decode(model, tokens, decoding, padding)]
    return [
        prompt + "".join(_whole_characters((ids[i] for ids in columns), row, tokenizer))
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]


@takes_options
def stream_text(
    model: GPT2Model, tokenizer: AnyTokenizer, prompt: str, **options: Unpack[GenerationOptions]
) -> Iterator[str]:
    """Yields the continuation of `generate_text` in pieces as it is generated, never part of a character.

    A character whose bytes are spread over several tokens is held back until it is complete. Joined, the pieces are
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
    tokenizer = as_tokenizer(tokenizer, ends=True)
    decoding = _decoding(tokenizer, options)
    rows = _encode([prompt], tokenizer)
    tokens, padding = _flush_right(rows, tokenizer.eot_token)
    steps = decode(model, tokens, decoding, padding)
    return _whole_characters((int(ids) for ids in steps), rows[0], tokenizer)


def _decoding(tokenizer: Tokenizer, options: GenerationOptions) -> Decoding:
    """Returns the decoding that stops at the end-of-text token and chooses only ids of the tokenizer."""
    return Decoding.of(options, ends=(tokenizer.eot_token,), n_vocab=tokenizer.n_vocab)


def _encode(prompts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(
                f"expected a prompt as a str, got {prompt!r} ({type(prompt).__name__}); for token ids call generate or "
                "stream, and for several prompts pass a list of str to generate_text"
            )
    return [encoded(tokenizer, prompt) for prompt in prompts]


def _flush_right(rows: Sequence[Sequence[int]], end_of_text: int) -> tuple[Tensor, Tensor]:
    """Returns the prompts as a batch, (B, T) int64, and the padding on the left of each, (B,) int64.

    An empty prompt becomes the end-of-text token. That token is also the padding, for samplers that look at the text so
    far: it is the only token that never occurs within a text.
    """
    rows = [row or [end_of_text] for row in rows]
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    tokens = [[end_of_text] * unused + [*row] for unused, row in zip(padding, rows, strict=True)]
    return torch.tensor(tokens, device="cpu"), torch.tensor(padding, device="cpu")


_CONTEXT = 4  # tokens, at least one byte each: more than an incomplete character has


def _whole_characters(new: Iterable[int], prompt: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yields the text of ``new`` up to the end of text, in pieces, as it reads after the prompt.

    Tokens are decoded together with a few before them: with some tokenizers a token's text depends on the token before
    it (for instance, a space at the beginning is dropped). Text before those few no longer changes. A run of tokens for
    single bytes is decoded when it ends, since SentencePiece's vocabularies read all of it otherwise if one is invalid.
    """
    together = byte_token_ids(tokenizer)
    held = _last(prompt, together)
    shown = len(tokenizer.decode(held)) if held else 0
    for token in new:
        if token == tokenizer.eot_token:
            break
        held.append(token)
        if token in together:
            continue
        text = tokenizer.decode(held)
        # Only the last character can change with the bytes that follow: invalid bytes before it stay invalid.
        certain = len(text) - text.endswith(_REPLACEMENT)
        if certain > shown:
            yield text[shown:certain]
            shown = certain
        if len(held) >= 4 * _CONTEXT:
            held = _last(held, together)
            text = tokenizer.decode(held)
            shown = len(text) - text.endswith(_REPLACEMENT)
    if held and (rest := tokenizer.decode(held)[shown:]):
        yield rest


def _last(tokens: Sequence[int], together: Container[int]) -> list[int]:
    """Returns the last few tokens, which do not begin within a run of those that are decoded together."""
    start = max(len(tokens) - _CONTEXT, 0)
    while start > 0 and tokens[start] in together:
        start -= 1
    return list(tokens[start:])
