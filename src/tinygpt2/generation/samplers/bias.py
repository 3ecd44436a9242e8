"""The sampler that adds to logits."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import check_instance, check_int, check_number
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import as_float32, changed_where
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import Sampler


class _Bias(Mapping[int, float]):
    """A dict that cannot change, so that it has a hash."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._bias = {
            check_int("a token id in bias", i, minimum=0): check_number("a number in bias", value, minimum=-math.inf)
            for i, value in bias.items()
        }

    @override
    def __getitem__(self, token: int) -> float:
        return self._bias[token]

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(self._bias)

    @override
    def __len__(self) -> int:
        return len(self._bias)

    @override
    def __hash__(self) -> int:
        return hash(frozenset(self._bias.items()))

    @override
    def __repr__(self) -> str:
        return repr(self._bias)


@dataclass(frozen=True)
class LogitBiasSampler(ChainedSampler):
    """Adds to the logits of some tokens, as OpenAI's ``logit_bias``.

    Logits are logarithms: a bias multiplies a token's odds against others by e to its power. To exclude tokens, take
    a `BannedTokensSampler`.

    Attributes:
        bias: What to add, for each token id; any finite number. It is copied, and cannot be changed.
        then: The sampler that chooses from the changed logits.

    Raises:
        TypeError: If the bias is no mapping from integers to numbers.
        ValueError: If a number is not finite, or an id is negative, or, at a call, outside the vocabulary.

    >>> import torch
    >>> sampler = LogitBiasSampler({2: 5.0}, then=GreedySampler())
    >>> sampler(torch.tensor([[1.0, 2.0, 0.0]]))
    tensor([2])
    >>> sampler
    LogitBiasSampler(bias={2: 5.0}, then=GreedySampler())
    """

    bias: Mapping[int, float]
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        check_instance("bias", self.bias, Mapping, "a mapping from token ids to numbers, such as {50: 1.5}")
        object.__setattr__(self, "bias", _Bias(self.bias))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        logits = as_float32(logits)
        size = logits.shape[-1]
        if self.bias and max(self.bias) >= size:
            raise ValueError(
                f"bias must be for token ids of the vocabulary, less than {size}, got {max(self.bias)}; take the ids "
                "from the model's own tokenizer"
            )
        added = torch.zeros(size, dtype=logits.dtype)
        added[list(self.bias)] = torch.tensor([*self.bias.values()], dtype=logits.dtype)
        added = added.to(logits.device)
        return changed_where(added != 0, logits + added, logits)
