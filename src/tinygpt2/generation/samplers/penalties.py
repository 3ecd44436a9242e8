"""Samplers that make the tokens of the text so far less probable.

They count the whole text, prompt and all, but for the first ``prompt_tokens`` of ``tokens``, and never the padding of a
batch. They come before filters and the temperature, which would change what they act on.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import check_int, check_number
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import as_float32, changed_where, checked_text, in_float32
from tinygpt2.generation.samplers.counts import counted
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import Sampler


@dataclass(frozen=True)
class RepetitionPenaltySampler(ChainedSampler):
    """Makes the tokens of the text so far less probable, each once (Keskar et al. 2019).

    A positive logit is divided by the penalty, and a negative one multiplied, so it matters which logits are 0: this
    sampler comes first, before any that shifts them. The prompt counts, as in the paper and in transformers, and so
    does the end-of-text token with which an empty prompt begins.

    Attributes:
        penalty: Greater than 0. 1 changes nothing; the paper takes 1.2; below 1, repetition is encouraged.
        prompt_tokens: Number of tokens on the left of ``tokens`` that do not count. With the length of the prompt, in a
            batch that of the longest, only what was generated counts.
        then: The sampler that chooses from the changed logits.

    >>> import torch
    >>> logits, text = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([[0, 2, 0]])
    >>> RepetitionPenaltySampler(1.2, then=GreedySampler())(logits, tokens=text)
    tensor([1])
    """

    penalty: float
    prompt_tokens: int = field(default=0, kw_only=True)
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalty", check_number("penalty", self.penalty, above_minimum=True))
        object.__setattr__(self, "prompt_tokens", check_int("prompt_tokens", self.prompt_tokens, minimum=0))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        logits = as_float32(logits)
        seen = _counts(tokens, logits, self.prompt_tokens) > 0
        penalty = in_float32(self.penalty)
        lowered = torch.where(logits < 0, logits * penalty, logits / penalty)
        return changed_where(seen, lowered, logits)


@dataclass(frozen=True)
class PresencePenaltySampler(ChainedSampler):
    """Subtracts a penalty from the logits of the tokens in the text so far, as OpenAI's ``presence_penalty``.

    A token's odds against those that the text does not have are divided by e to the power of the penalty, once, however
    often it occurs.

    Attributes:
        penalty: Any number. 0 changes nothing; OpenAI allows -2 to 2; below 0, repetition is encouraged.
        prompt_tokens: Number of tokens on the left of ``tokens`` that do not count. OpenAI counts only what was
            generated: pass the length of the prompt, in a batch that of the longest.
        then: The sampler that chooses from the changed logits.

    >>> import torch
    >>> logits, text = torch.tensor([[2.0, 1.9, 0.0]]), torch.tensor([[0, 2, 0]])
    >>> PresencePenaltySampler(0.5, then=GreedySampler())(logits, tokens=text)
    tensor([1])
    """

    penalty: float
    prompt_tokens: int = field(default=0, kw_only=True)
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalty", check_number("penalty", self.penalty, minimum=-math.inf))
        object.__setattr__(self, "prompt_tokens", check_int("prompt_tokens", self.prompt_tokens, minimum=0))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        logits = as_float32(logits)
        seen = _counts(tokens, logits, self.prompt_tokens) > 0
        return changed_where(seen, logits - self.penalty, logits)


@dataclass(frozen=True)
class FrequencyPenaltySampler(ChainedSampler):
    """Subtracts a penalty from a token's logit for each time that the text so far has it, as OpenAI's.

    That is ``frequency_penalty`` there. In a long text the commonest tokens, such as a space, become impossible in
    effect; where the prompt is long, leave it out.

    Attributes:
        penalty: Any number. 0 changes nothing; OpenAI allows -2 to 2; below 0, repetition is encouraged.
        prompt_tokens: Number of tokens on the left of ``tokens`` that do not count. OpenAI counts only what was
            generated: pass the length of the prompt, in a batch that of the longest.
        then: The sampler that chooses from the changed logits.

    >>> import torch
    >>> logits, text = torch.tensor([[2.0, 1.3, 0.0]]), torch.tensor([[0, 2, 0]])
    >>> FrequencyPenaltySampler(0.5, then=GreedySampler())(logits, tokens=text)
    tensor([1])
    """

    penalty: float
    prompt_tokens: int = field(default=0, kw_only=True)
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalty", check_number("penalty", self.penalty, minimum=-math.inf))
        object.__setattr__(self, "prompt_tokens", check_int("prompt_tokens", self.prompt_tokens, minimum=0))
        super().__post_init__()

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        logits = as_float32(logits)
        counts = _counts(tokens, logits, self.prompt_tokens)
        lowered = logits - counts.to(logits.dtype) * self.penalty
        return changed_where(counts > 0, lowered, logits)


def _counts(tokens: Tensor | None, logits: Tensor, prompt_tokens: int) -> Tensor:
    """Returns how often each token is in what counts of the text, (B, V) int64."""
    return counted(checked_text(tokens, logits)[:, prompt_tokens:], logits.shape[-1])
