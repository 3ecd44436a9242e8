"""An exponential moving average of a model's weights, which is better than the last of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tinygpt2.distributed.sharding import share_of
from tinygpt2.model.gpt2 import GPT2Model

_LAST = "last weights "


class WeightAverage:
    """The exponential moving average of a model's weights (Polyak and Juditsky 1992).

    The average of the first steps is their mean, until that many make up the decay.

    Args:
        model: The model.
        decay: Weight of the average before a step, from 0 to 1.

    Attributes:
        weights: The average of each parameter, by its name; empty before the first step.
    """

    def __init__(self, model: GPT2Model, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after a step, counted from 1, into the average."""
        if not self.weights:
            self.weights = self._weights_of_model()
            return
        trained = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        averages = [self.weights[name] for name in trained]
        share = max(1 - self.decay, 1 / step)
        torch._foreach_lerp_(averages, list(trained.values()), share)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Gives the model the average within the block."""
        last = self._weights_of_model() if self.weights else {}
        try:
            self.apply()
            yield
        finally:
            self._load(last)

    def apply(self) -> None:
        """Gives the model the average."""
        self._load(self.weights)

    def last_weights(self) -> dict[str, Tensor]:
        """Returns the weights of the model, which the next step changes, under names of their own."""
        return {f"{_LAST}{name}": weight for name, weight in self._weights_of_model().items()} if self.weights else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the weights of the model as the average, and gives it its last weights, if they are among tensors."""
        last = {name.removeprefix(_LAST): tensor for name, tensor in tensors.items() if name.startswith(_LAST)}
        if last:
            self.weights = self._weights_of_model()
            self._load(last)

    def _weights_of_model(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, weight in weights.items():
            parameters[name].copy_(share_of(weight, parameters[name]))
