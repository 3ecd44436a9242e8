"""The sampler that scales logits."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import check_number
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import as_float32, in_float32
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import Sampler


@dataclass(frozen=True)
class TemperatureSampler(ChainedSampler):
    """Divides the logits by a temperature: below 1, probable tokens gain probability; above 1, improbable ones do.

    Attributes:
        temperature: Greater than 0. Towards 0 the choice becomes greedy; towards infinity, uniform.
        then: The sampler that chooses from the scaled logits.

    >>> import torch
    >>> TemperatureSampler(1e-6)(torch.tensor([[0.0, 3.0, 1.0]]))
    tensor([1])
    >>> TemperatureSampler(0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be a finite number greater than 0, got 0; for temperature 0 take GreedySampler()
    """

    temperature: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        try:
            temperature = check_number("temperature", self.temperature, above_minimum=True)
        except ValueError as error:
            raise ValueError(f"{error}; for temperature 0 take GreedySampler()") from None
        object.__setattr__(self, "temperature", temperature)
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        logits = as_float32(logits)
        # Shifting a row does not change its softmax; with the maximum at 0, no temperature can overflow to +inf.
        largest = logits.amax(dim=-1, keepdim=True)
        shifted = logits - largest.masked_fill(largest.isinf(), 0)  # inf - inf is NaN, which would hide the reason
        return shifted / in_float32(self.temperature)
