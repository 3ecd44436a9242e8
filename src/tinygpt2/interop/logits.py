"""Samplers and transformers' logits processors, each in the place of the other."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance, of_type
from tinygpt2.generation.samplers.checks import checked_ids, checked_logits, checked_text
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import NO_TOKEN, Sampler, with_tokens


@dataclass(frozen=True)
class ProcessorSampler:
    """Applies a logits processor of transformers, or a list of them, and passes the logits on: a filter among samplers.

    Attributes:
        processor: Function of the text so far, (B, T) int64, and the logits, (B, V), that returns logits, such as a
            ``LogitsProcessor``, a ``LogitsProcessorList`` or a function of one's own. It is called with one row after
            the other, without padding, if prompts of a batch differ in length.
        then: The sampler that chooses among them.

    Raises:
        TypeError: If one of them cannot be called.

    >>> import torch
    >>> forbid_zero = lambda ids, logits: logits.index_fill(
    ...     1, torch.tensor([0]), -float("inf")
    ... )
    >>> from tinygpt2 import GreedySampler
    >>> sampler = ProcessorSampler(forbid_zero, then=GreedySampler())
    >>> sampler(torch.tensor([[5.0, 1.0, 2.0]]), tokens=torch.tensor([[1]]))
    tensor([2])
    """

    processor: Callable[[Tensor, Tensor], Tensor]
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        if isinstance(self.processor, type) or not callable(self.processor):
            raise TypeError(f"processor must be callable, a function or an object, got {of_type(self.processor)}")
        with_tokens(self.then)  # raises if it is no sampler

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses a token for each row; see `Sampler`.

        Raises:
            ValueError: If there are no ``tokens``, which a processor reads.
        """
        if tokens is None:
            raise ValueError(
                "tokens must be the text so far, which a logits processor reads, got None; generate and stream pass it "
                "by themselves"
            )
        values = checked_logits(logits).clone()  # some change what they are given
        text = checked_text(tokens, values)
        if (text == NO_TOKEN).any():
            rows = zip(text, values, strict=True)
            values = torch.cat([self.processor(ids[ids != NO_TOKEN][None], row[None]) for ids, row in rows])
        else:
            values = self.processor(text, values)
        return with_tokens(self.then)(values, tokens=tokens, generator=generator)


@dataclass(frozen=True)
class SamplerProcessor:
    """Makes transformers choose as a sampler does: a logits processor, for ``generate(logits_processor=[...])``.

    The token that the sampler chooses is left with the logit 0, all others with -inf, so that ``do_sample`` does not
    matter. It should be the last of the list, and transformers' own options for sampling be at their defaults.

    Attributes:
        sampler: The sampler.
        generator: Source of its randomness; PyTorch's global one if ``None``.

    Raises:
        TypeError: If the sampler cannot be called, or the generator is none.

    >>> import torch
    >>> from tinygpt2 import GreedySampler
    >>> processor = SamplerProcessor(GreedySampler())
    >>> processor(torch.tensor([[1]]), torch.tensor([[5.0, 1.0, 2.0]]))
    tensor([[0., -inf, -inf]])
    """

    sampler: Sampler
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        with_tokens(self.sampler)  # raises if it is none
        if self.generator is not None:
            check_instance("generator", self.generator, torch.Generator, "a torch.Generator")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns logits that leave one token of each row, (B, V).

        Args:
            input_ids: The text so far, (B, T) int64.
            scores: Logits, (B, V).
        """
        chosen = with_tokens(self.sampler)(checked_logits(scores), tokens=input_ids, generator=self.generator)
        ids = checked_ids(self.sampler, chosen, scores)
        return torch.full_like(scores, -math.inf).scatter(1, ids.unsqueeze(1), 0.0)
