"""Continuation of prompts, as text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_bool
from tinygpt2._internal.texts import check_texts
from tinygpt2.generation.decoding import decode
from tinygpt2.generation.options import Decoding, GenerationOptions, check_samples, takes_options
from tinygpt2.generation.pieces import Continuation, stop_strings
from tinygpt2.generation.scores import ScoredPiece, log_probabilities
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer, encoded


@overload
def generate_text(  # type: ignore[overload-overlap]  # a str, too, is an iterable of str
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str,
    *,
    stop: str | Sequence[str] = (),
    n: None = None,
    best_of: int | None = None,
    **options: Unpack[GenerationOptions],
) -> str: ...
@overload
def generate_text(  # type: ignore[overload-overlap]  # a str, too, is an iterable of str
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str,
    *,
    stop: str | Sequence[str] = (),
    n: int,
    best_of: int | None = None,
    **options: Unpack[GenerationOptions],
) -> list[str]: ...
@overload
def generate_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: Iterable[str],
    *,
    stop: str | Sequence[str] = (),
    n: None = None,
    best_of: int | None = None,
    **options: Unpack[GenerationOptions],
) -> list[str]: ...
@overload
def generate_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: Iterable[str],
    *,
    stop: str | Sequence[str] = (),
    n: int,
    best_of: int | None = None,
    **options: Unpack[GenerationOptions],
) -> list[list[str]]: ...
@takes_options
def generate_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str | Iterable[str],
    *,
    stop: str | Sequence[str] = (),
    n: int | None = None,
    best_of: int | None = None,
    **options: Unpack[GenerationOptions],
) -> str | list[str] | list[list[str]]:
    """Returns a prompt with its continuation, or each of several prompts with its own.

    Several prompts, of any lengths, go through the model as one batch, and each is continued as it would be alone
    (except that the draws of a random sampler share one generator, unless each row has its own). A text ends where the
    model puts the tokenizer's end-of-text token, and before the first ``stop`` string; both are left out. An empty
    prompt begins a new text.

    Args:
        model: The model.
        tokenizer: The one that the model was trained with.
        prompt: A text, or several in a list, a tuple, a column of a table or another iterable.
        stop: A string before which a text ends, or several: before the first place where one of them begins. They are
            looked for in the new text alone: one that begins in the prompt does not count. A batch ends with its last
            text.
        n: Number of continuations of each prompt, which is read once; ``None`` for one.
        best_of: Number of continuations to generate of each prompt, of which the ``n`` best are returned, the best one
            first: those whose new tokens have the largest mean log-probability under the model's own distribution.
        **options: Those of `GenerationOptions`; ``max_new_tokens`` must be given.

    Returns:
        A text for a text, a list for several texts. With ``n``, a list of so many texts in place of each.

    Raises:
        TypeError: If an argument is of the wrong type, or the sampler returns something other than integers.
        ValueError: If a stop string is empty, a prompt has a lone surrogate or cannot be encoded, the tokenizer has no
            end-of-text token or its ids are outside the model's vocabulary, a number is out of range, the model returns
            logits that are not finite, or the sampler does not return one id per row.

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
    decoding, stops = _decoding(tokenizer, options), stop_strings(stop)
    kept = 1 if n is None else check_samples("n", n)
    drawn = kept if best_of is None else check_samples("best_of", best_of)
    if drawn < kept:
        raise ValueError(f"best_of must be at least n={kept}, got {drawn}")
    prompts = [prompt] if isinstance(prompt, str) else _listed(prompt)
    groups = _samples(model, tokenizer, prompts, stops, decoding, count=drawn, ranked=best_of is not None)
    texts: list[Any] = [[sample.text() for sample in group[:kept]] for group in groups]
    if n is None:
        texts = [text for (text,) in texts]
    return texts[0] if isinstance(prompt, str) else texts


def _listed(prompt: object) -> list[Any]:
    """Returns several prompts as a list, and anything else, which `_encode` rejects, as a list of one."""
    several = isinstance(prompt, Iterable) and not isinstance(prompt, bytes | bytearray)
    return list(check_texts("prompt", prompt)) if several else [prompt]


@dataclass
class _Sample:
    """A continuation of a prompt."""

    prompt: str
    continuation: Continuation
    pieces: list[str] = field(default_factory=list)
    log_probability: float = 0.0
    tokens: int = 0

    def add(self, token: int, log_probability: float) -> None:
        """Adds a token, unless the text has ended."""
        if not self.continuation.ended:
            self.pieces.append(self.continuation.add(token))
            self.log_probability += log_probability
            self.tokens += 1

    def mean_log_probability(self) -> float:
        """Returns that of the new tokens."""
        return self.log_probability / max(1, self.tokens)

    def text(self) -> str:
        """Returns the prompt with its continuation, which then ends."""
        return "".join([self.prompt, *self.pieces, self.continuation.finish()])


def _samples(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    stops: Sequence[str],
    decoding: Decoding,
    *,
    count: int,
    ranked: bool,
) -> list[list[_Sample]]:
    """Returns continuations of each prompt, the most probable one first if they are ranked."""
    rows = _encode(prompts, tokenizer)
    if not rows:
        return []
    groups = [
        [_Sample(prompt, Continuation(row, tokenizer, stops)) for _ in range(count)]
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    samples = list(chain.from_iterable(groups))
    tokens, padding = _flush_right(rows, tokenizer.eot_token)
    for step in decode(model, tokens, decoding, padding, n=count):
        scores = log_probabilities(step.logits, step.ids).tolist() if ranked else [0.0] * len(samples)
        for sample, token, score in zip(samples, step.ids.tolist(), scores, strict=True):
            sample.add(token, score)
        if all(sample.continuation.ended for sample in samples):
            break
    if ranked:
        for group in groups:
            group.sort(key=_Sample.mean_log_probability, reverse=True)
    return groups


@overload
def stream_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str,
    *,
    stop: str | Sequence[str] = (),
    return_scores: Literal[False] = False,
    **options: Unpack[GenerationOptions],
) -> Iterator[str]: ...
@overload
def stream_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str,
    *,
    stop: str | Sequence[str] = (),
    return_scores: Literal[True],
    **options: Unpack[GenerationOptions],
) -> Iterator[ScoredPiece]: ...
@takes_options
def stream_text(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    prompt: str,
    *,
    stop: str | Sequence[str] = (),
    return_scores: bool = False,
    **options: Unpack[GenerationOptions],
) -> Iterator[str] | Iterator[ScoredPiece]:
    """Yields the continuation of `generate_text` in pieces as it is generated, never part of a character.

    A character whose bytes are spread over several tokens is held back until it is complete, and so is what may become
    a ``stop`` string. Joined, the pieces are what `generate_text` adds to the prompt.

    With ``return_scores`` each piece is a `ScoredPiece`, of the characters that a token completes. The other arguments
    and the errors are those of `generate_text`.

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
    decoding, stops = _decoding(tokenizer, options), stop_strings(stop)
    rows = _encode([prompt], tokenizer)
    check_bool("return_scores", return_scores)
    tokens, padding = _flush_right(rows, tokenizer.eot_token)
    steps = decode(model, tokens, decoding, padding)
    continuation = Continuation(rows[0], tokenizer, stops)
    if return_scores:
        return continuation.scored_pieces(
            (int(step.ids), float(log_probabilities(step.logits, step.ids))) for step in steps
        )
    return continuation.pieces(int(step.ids) for step in steps)


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

    An empty prompt becomes the end-of-text token. That token is also the padding, which neither the model nor a sampler
    reads.
    """
    rows = [row or [end_of_text] for row in rows]
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    tokens = [[end_of_text] * unused + [*row] for unused, row in zip(padding, rows, strict=True)]
    return torch.tensor(tokens, device="cpu"), torch.tensor(padding, device="cpu")
