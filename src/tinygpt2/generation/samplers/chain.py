"""What all samplers have in common that leave the choice to another one."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from tinygpt2.generation.samplers.checks import check_shape
from tinygpt2.generation.samplers.protocol import Sampler, check_sampler, with_tokens


class ChainedSampler(ABC):
    """A sampler that changes the logits and lets another one, ``then``, choose from them. Subclasses are dataclasses.

    They check their own fields in ``__post_init__``, which calls this one.
    """

    then: Sampler

    def __post_init__(self) -> None:
        check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    @abstractmethod
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        """Returns changed logits, (B, V), of checked ones and of the text so far, (B, T), which is not checked yet."""

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses a token for each row with ``then``, from the changed logits; see `Sampler`."""
        return self._then(self._changed(check_shape(logits), tokens), tokens=tokens, generator=generator)
