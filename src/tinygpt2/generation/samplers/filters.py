"""Samplers that keep some tokens, by their probabilities, for the next sampler to choose from.

They compose in the order in which logits flow through them: ``TopKSampler(3, then=TemperatureSampler(1.4))`` keeps
the three best tokens, then scales, then draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import check_int, check_number
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import as_float32
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import Sampler


@dataclass(frozen=True)
class TopKSampler(ChainedSampler):
    """Keeps each row's ``k`` largest logits (Fan et al. 2018) and passes them on.

    All tokens that tie with the k-th survive, as in transformers. A ``k`` beyond the vocabulary keeps everything.

    Attributes:
        k: Number of tokens to keep, at least 1.
        then: The sampler that chooses among them.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    >>> TopKSampler(1)(logits)
    tensor([1])
    >>> TopKSampler(3, then=TemperatureSampler(1.4))
    TopKSampler(k=3, then=TemperatureSampler(temperature=1.4, then=MultinomialSampler()))
    """

    k: int
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_int("k", self.k))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        kth = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
        return logits.masked_fill(logits < kth, -math.inf)


@dataclass(frozen=True)
class TopPSampler(ChainedSampler):
    """Keeps the fewest most probable tokens with total probability at least ``p`` (nucleus, Holtzman et al. 2020).

    All tokens that tie with the last of them survive; the most probable one always does.

    Attributes:
        p: Greater than 0, at most 1; 1 keeps everything.
        then: The sampler that chooses among them.

    >>> import torch
    >>> TopPSampler(0.5)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([0])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, maximum=1, above_minimum=True))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        if self.p == 1:  # rounding of the cumulative sum must not drop the rarest tokens
            return logits
        descending = logits.sort(dim=-1, descending=True).values
        probabilities = torch.softmax(as_float32(descending), dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # total probability of the more probable tokens
        kept = (before < self.p).sum(dim=-1, keepdim=True).clamp(min=1)  # (B, 1)
        last = descending.gather(-1, kept - 1)
        return logits.masked_fill(logits < last, -math.inf)


@dataclass(frozen=True)
class MinPSampler(ChainedSampler):
    """Keeps tokens at least ``p`` times as probable as the most probable one (Nguyen et al. 2024).

    Attributes:
        p: Greater than 0, at most 1; 1 keeps only the most probable token and those that tie with it.
        then: The sampler that chooses among them.

    >>> import torch
    >>> MinPSampler(0.6)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([0])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, maximum=1, above_minimum=True))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        values = as_float32(logits)
        threshold = values.amax(dim=-1, keepdim=True) + math.log(self.p)
        return logits.masked_fill(values < threshold, -math.inf)


@dataclass(frozen=True)
class TypicalSampler(ChainedSampler):
    """Keeps the fewest typical tokens with total probability at least ``p`` (Meister et al. 2022).

    A token is the more typical, the nearer its information, minus the logarithm of its probability, is to the entropy:
    to the information that is expected. The most probable token may be dropped for carrying too little. All tokens that
    tie with the last of them survive, as in transformers.

    Attributes:
        p: Greater than 0, at most 1; 1 keeps everything.
        then: The sampler that chooses among them.

    >>> import torch
    >>> TypicalSampler(0.2)(torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log())
    tensor([1])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, maximum=1, above_minimum=True))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        if self.p == 1:  # as in `TopPSampler`
            return logits
        log_probabilities = torch.log_softmax(as_float32(logits), dim=-1)
        probabilities = log_probabilities.exp()
        distances = (log_probabilities + _entropy(probabilities)).abs()  # inf for -inf, which comes last
        ascending, order = distances.sort(dim=-1)
        ordered = probabilities.gather(-1, order)
        before = ordered.cumsum(dim=-1) - ordered  # total probability of the more typical tokens
        kept = (before < self.p).sum(dim=-1, keepdim=True).clamp(min=1)  # (B, 1)
        last = ascending.gather(-1, kept - 1)
        return logits.masked_fill(distances > last, -math.inf)


@dataclass(frozen=True)
class EtaSampler(ChainedSampler):
    """Keeps tokens with a probability of at least eta, which is small where many are possible (Hewitt et al. 2022).

    Eta is ``epsilon`` or, if that is smaller, the square root of ``epsilon`` times e to the power of minus the entropy
    in nats. The most probable token survives, and those that tie with it.

    Attributes:
        epsilon: Greater than 0, less than 1; the paper takes from 0.0003 to 0.004.
        then: The sampler that chooses among them.

    >>> import torch
    >>> EtaSampler(0.2)(torch.tensor([[0.8, 0.15, 0.05]]).log())
    tensor([0])
    """

    epsilon: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        epsilon = check_number("epsilon", self.epsilon, maximum=1, above_minimum=True, below_maximum=True)
        object.__setattr__(self, "epsilon", epsilon)
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        log_probabilities = torch.log_softmax(as_float32(logits), dim=-1)
        largest = log_probabilities.amax(dim=-1, keepdim=True)
        log_epsilon = math.log(self.epsilon)
        log_eta = (log_epsilon / 2 - _entropy(log_probabilities.exp())).clamp(max=log_epsilon)
        improbable = log_probabilities < torch.minimum(log_eta, largest)  # which is larger, but for rounding
        return logits.masked_fill(improbable, -math.inf)


def _entropy(probabilities: Tensor) -> Tensor:
    """Returns the entropy of each row in nats, (B, 1)."""
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1, keepdim=True)
    return entropy
