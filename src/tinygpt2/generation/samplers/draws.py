"""Samplers that choose a token: the end of a chain."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt2.generation.samplers.checks import check_generator, checked_logits


@dataclass(frozen=True)
class GreedySampler:
    """Chooses the most probable token; the first of several with the same logit.

    >>> import torch
    >>> GreedySampler()(torch.tensor([[0.1, 2.0, 1.0]]))
    tensor([1])
    """

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Returns the index of each row's largest logit; see `Sampler`."""
        return checked_logits(logits).argmax(dim=-1)


@dataclass(frozen=True)
class MultinomialSampler:
    """Draws a token with its probability under the softmax of the logits.

    >>> import torch
    >>> generator = torch.Generator().manual_seed(123)
    >>> MultinomialSampler()(torch.zeros(5, 50), generator=generator).shape
    torch.Size([5])
    """

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws one token per row; see `Sampler`."""
        probabilities = torch.softmax(checked_logits(logits), dim=-1)
        check_generator(generator, logits.device)
        return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)
