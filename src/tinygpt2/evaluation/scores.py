"""Scores of single tokens."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import torch
from torch import Tensor

from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import device_of, moved
from tinygpt2._internal.texts import check_text
from tinygpt2.evaluation.loss import check_finite
from tinygpt2.evaluation.passages import Passages
from tinygpt2.evaluation.windows import Window, Windows
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer

_LOGITS_AT_ONCE = 1 << 24  # 64 MB in fp32


@dataclass(frozen=True)
class TokenScore:
    """How well a model predicted a token of a text.

    Attributes:
        token: Its id.
        text: Its text; bytes that are only part of a character become U+FFFD.
        log_probability: Natural logarithm of the probability that the model gave it, given the tokens before it. With
            the sign changed this is its surprisal in nats, its part of the loss.
        rank: 1 if it was the likeliest token, 2 if one was likelier, and so on.
        start: Where it begins in the text, in bytes of UTF-8; ``None`` if the tokenizer does not say how many bytes a
            token stands for.
        end: Where it ends, likewise.

    >>> TokenScore(
    ...     token=995, text=" world", log_probability=-2.3, rank=3, start=6, end=12
    ... ).probability
    0.10025884372280375
    """

    token: int
    text: str
    log_probability: float
    rank: int
    start: int | None
    end: int | None

    @property
    def probability(self) -> float:
        """The probability that the model gave the token."""
        return math.exp(self.log_probability)


def score(
    model: GPT2Model,
    tokenizer: AnyTokenizer,
    text: str,
    *,
    stride: int | None = None,
    batch_size: int = 8,
) -> list[TokenScore]:
    """Returns how probable a model finds each token of a text.

    Tokens and windows are those of `evaluate_text`: the sum of the log-probabilities is its loss times its number of
    tokens, with the sign changed. Tokens that are equally likely share the best rank among them.

    Args:
        model: The model.
        tokenizer: The one that the model was trained with.
        text: The text.
        stride: As in `evaluate_text`: a small one gives every token a long context.
        batch_size: Windows of the context length that are computed at once.

    Raises:
        NonFiniteLossError: If the model's logits are NaN, or a weight is not finite.
        TypeError: If an argument is of the wrong type.
        ValueError: If there is nothing to predict, the tokenizer cannot encode the text, its ids are outside the
            model's vocabulary, or a number is out of range.

    The surprisal of each word, in bits, with the space before it and the signs after it:

    >>> import math
    >>> from tinygpt2 import GPT2Config, gpt2_tokenizer
    >>> model = GPT2Model(GPT2Config(
    ...     context_length=16, n_layer=1, n_head=2, n_embd=32
    ... ))
    >>> text = "The naïve fox jumps."
    >>> surprisals = [0.0] * len(text.split())
    >>> for token in score(model, gpt2_tokenizer(), text):
    ...     word = len(text.encode()[: token.end].split()) - 1
    ...     surprisals[word] -= token.log_probability / math.log(2)
    >>> len(surprisals)
    4
    """
    windows = Windows(model, stride, batch_size)
    passages = Passages(as_tokenizer(tokenizer), check_text("text", text))
    return [found for _, found in score_passages(model, passages, windows)]


def score_passages(model: GPT2Model, passages: Passages, windows: Windows) -> Iterator[tuple[int, TokenScore]]:
    """Yields the score of each token with the number of its passage, in order, a group of windows at a time."""
    tokenizer, sizes = passages.tokenizer, passages.sizes
    text = cache(lambda token: tokenizer.decode([token]))
    number, end = -1, 0
    for group in windows.groups(passages):
        for window, scores in zip(group, _of_group(model, windows, group), strict=True):
            if window.first:
                number += 1
                end = 0 if sizes is None or passages.before is not None else sizes[window.tokens[0]]
            targets: list[int] = window.tokens[-window.counted :].tolist()
            for token, (log_probability, rank) in zip(targets, scores, strict=True):
                start, end = end, end + (0 if sizes is None else sizes[token])
                place = (None, None) if sizes is None else (start, end)
                yield number, TokenScore(token, text(token), log_probability, rank, *place)


def _of_group(model: GPT2Model, windows: Windows, group: Sequence[Window]) -> list[list[tuple[float, int]]]:
    """Returns the log-probability and the rank of each target that counts in each window."""
    found: list[list[tuple[float, int]]] = [[] for _ in group]
    device = device_of(model)
    with torch.no_grad(), evaluation_mode(model), fast_products():
        for places, (inputs, targets) in windows.batches(group):
            scores = _of_batch(model, moved(inputs, device), moved(targets, device))
            for place in places:
                found[place] = list(islice(scores, group[place].counted))
    return found


def _of_batch(model: GPT2Model, inputs: Tensor, targets: Tensor) -> Iterator[tuple[float, int]]:
    """Yields the log-probability and the rank of each target that counts, row by row."""
    counts = targets != IGNORE_INDEX
    wanted = targets[counts].unsqueeze(1)  # (n, 1)
    splits = model.splits()
    rows = (model.hidden_states(inputs) if splits else model(inputs))[counts]  # (n, C) or (n, V)
    at_once = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
    for begin in range(0, len(rows), at_once):
        part = rows[begin : begin + at_once]
        logits = model.head(part) if splits else part
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # (n, V)
        at_target = logits.gather(1, wanted[begin : begin + at_once])
        log_probabilities = at_target.squeeze(1) - logits.logsumexp(dim=1)
        check_finite(model, -float(log_probabilities.sum()), " of the text")
        yield from zip(log_probabilities.tolist(), (1 + (logits > at_target).sum(dim=1)).tolist(), strict=True)
