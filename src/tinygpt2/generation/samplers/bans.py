"""Samplers that exclude tokens, alone or after certain others.

They come before filters, which could leave only tokens that are excluded. Where none is left, the sampler at the end of
the chain raises ``ValueError``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import can_be_iterated, check_int, check_iterable, shown
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import checked_text
from tinygpt2.generation.samplers.counts import counted
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import NO_TOKEN, Sampler


@dataclass(frozen=True)
class NoRepeatNGramSampler(ChainedSampler):
    """Excludes each token that would repeat a sequence of ``n`` tokens of the text so far (Paulus et al. 2018).

    The prompt counts, as in transformers, and the padding of a batch does not.

    Attributes:
        n: Length of the sequences, at least 1; 1 excludes every token that the text has.
        then: The sampler that chooses among the others.

    >>> import torch
    >>> logits, text = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1, 2, 0, 1]])
    >>> NoRepeatNGramSampler(2, then=GreedySampler())(logits, tokens=text)
    tensor([1])
    """

    n: int
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_int("n", self.n))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        text = checked_text(tokens, logits)
        places = text.shape[1] - self.n + 1  # where a sequence of n tokens begins
        if places > 0:
            begins = torch.ones((len(text), places), dtype=torch.bool, device=text.device)
            for i in range(self.n - 1):  # like the last n - 1 tokens
                begins &= text[:, i : i + places] == text[:, places + i, None]
            logits = _without(logits, text[:, self.n - 1 :].where(begins, NO_TOKEN))
        return logits


@dataclass(frozen=True)
class BannedTokensSampler(ChainedSampler):
    """Excludes tokens, and the last token of each sequence where the text so far ends with the others.

    The prompt counts: the last token of a sequence is excluded where the prompt ends with the others. A sequence is
    one spelling of a string in tokens; to exclude the string, however it is spelt, take a `BannedStringsSampler`.

    Attributes:
        sequences: Token ids and sequences of token ids. They are kept as tuples, sorted.
        then: The sampler that chooses among the others.

    Raises:
        TypeError: If they are anything but integers and sequences of integers.
        ValueError: If a sequence is empty, or an id is negative, or, at a call, outside the vocabulary.

    >>> import torch
    >>> sampler = BannedTokensSampler([2, (0, 1)], then=GreedySampler())
    >>> sampler(torch.tensor([[0.0, 1.0, 2.0]]), tokens=torch.tensor([[1, 0]]))
    tensor([0])
    >>> sampler
    BannedTokensSampler(sequences=((0, 1), (2,)), then=GreedySampler())
    """

    sequences: Iterable[int | Iterable[int]]
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        check_iterable("sequences", self.sequences, "token ids and sequences of them, such as [50, (3, 7)]")
        object.__setattr__(self, "sequences", tuple(sorted({_sequence(each) for each in self.sequences})))
        super().__post_init__()

    @cached_property
    def _by_length(self) -> list[Tensor]:
        """The sequences of each length, (N, length) int64."""
        sequences = cast("tuple[tuple[int, ...], ...]", self.sequences)
        lengths = sorted({len(each) for each in sequences})
        return [torch.tensor([each for each in sequences if len(each) == length], device="cpu") for length in lengths]

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        text = checked_text(tokens, logits)
        size, length = logits.shape[-1], text.shape[1]
        banned = [text[:, :0]]
        for sequences in self._by_length:
            if (largest := int(sequences.max())) >= size:
                raise ValueError(
                    f"sequences must have token ids of the vocabulary, less than {size}, got {largest}; take the ids "
                    "from the model's own tokenizer"
                )
            before = sequences.shape[1] - 1
            if before <= length:
                there = sequences.to(logits.device)
                ends = (text[:, None, length - before :] == there[:, :-1]).all(dim=-1)  # (B, N)
                banned.append(there[:, -1].where(ends, NO_TOKEN))
        return _without(logits, torch.cat(banned, dim=1))


def _sequence(value: object) -> tuple[int, ...]:
    """Returns a banned token, or a sequence of tokens, as a tuple."""
    if isinstance(value, str | bytes):
        raise TypeError(
            f"sequences must have token ids, got {shown(value)}; to exclude strings take "
            "BannedStringsSampler(strings, tokenizer)"
        )
    ids = tuple(value) if can_be_iterated(value) else (value,)
    if not ids:
        raise ValueError("sequences must have at least one token each, got an empty one; leave it out")
    return tuple(check_int("a token id in sequences", i, minimum=0) for i in ids)


def _without(logits: Tensor, ids: Tensor) -> Tensor:
    """Returns logits in which the ids of each row, (B, N), are excluded."""
    return logits.masked_fill(counted(ids, logits.shape[-1]) > 0, -math.inf)
