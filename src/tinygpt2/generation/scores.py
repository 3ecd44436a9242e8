"""How probable a model finds the tokens that were chosen."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tinygpt2.generation.samplers.checks import as_float32


class Step(NamedTuple):
    """One more token of each row.

    Attributes:
        ids: The tokens, (B,) int64.
        logits: The model's logits from which they were chosen, as they were before the sampler, (B, V).
        counts: Whether each row had not ended before, (B,).
    """

    ids: Tensor
    logits: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class Scored:
    """Tokens with how probable the model found each new one, under its own distribution: before the sampler.

    Logarithms are natural ones. Where a row had ended, and only repeats its end, ``counts`` is ``False`` and all else
    is 0. `generate` returns it with ``return_scores=True``.

    Attributes:
        tokens: Prompts with their continuations, (B, T + N) int64.
        log_probabilities: Log-probability of each new token, (B, N).
        entropies: Entropy in nats of the distribution that each was chosen from, (B, N): 0 if the model was sure.
        top_ids: Ids of the K most probable tokens, the first one first, (B, N, K) int64.
        top_log_probabilities: Their log-probabilities, (B, N, K).
        counts: Whether a token belongs to its row, (B, N).

    >>> import torch
    >>> from tinygpt2 import GPT2Config, GPT2Model, generate
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=4
    ... ))
    >>> found = generate(
    ...     model, torch.tensor([[1, 2]]), max_new_tokens=3, return_scores=True
    ... )
    >>> torch.equal(found.top_ids[:, :, 0], found.tokens[:, 2:])  # greedy
    True
    """

    tokens: Tensor
    log_probabilities: Tensor
    entropies: Tensor
    top_ids: Tensor
    top_log_probabilities: Tensor
    counts: Tensor

    @property
    def mean_log_probabilities(self) -> Tensor:
        """Mean log-probability of the new tokens of each row, (B,); 0 if there are none."""
        return self.log_probabilities.sum(dim=1) / self.counts.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class ScoredPiece:
    """A piece of generated text, and how probable the model found it.

    Attributes:
        text: The characters that a token completes.
        log_probability: Natural logarithm of the probability of that token, and of those before it that are part of the
            same character, under the model's own distribution: before the sampler.

    >>> ScoredPiece(" world", log_probability=-2.3).probability
    0.10025884372280375
    """

    text: str
    log_probability: float

    @property
    def probability(self) -> float:
        """The probability that the model gave the piece."""
        return math.exp(self.log_probability)


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Returns the log-probability of each row's token, (B,), at least in float32."""
    logits = as_float32(logits)
    return logits.gather(1, ids.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=1)


def scored(prompts: Tensor, steps: Iterable[Step], top: int) -> Scored:
    """Returns prompts, (B, T), with what follows them, and the scores of that.

    Args:
        prompts: (B, T) int64, on the model's device.
        steps: The new tokens.
        top: Number of the most probable tokens to keep of each step, K, as far as there are so many.
    """
    with torch.inference_mode(mode=False), torch.no_grad():
        empty = torch.zeros((len(prompts), 0), device=prompts.device)
        tops = torch.zeros((len(prompts), 0, top), device=prompts.device)
        found = [prompts, empty, empty, tops.long(), tops, empty.bool()]
        rows = [(step.ids, *_scores(step, top), step.counts) for step in steps]
        if rows:
            found = [torch.stack(column, dim=1) for column in zip(*rows, strict=True)]
            found[0] = torch.cat([prompts, found[0]], dim=1)
    return Scored(*found)


def _scores(step: Step, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns a token's log-probability (B,), the entropy (B,), and the most probable ids and theirs (B, K)."""
    known = torch.log_softmax(as_float32(step.logits), dim=1)
    chosen = known.gather(1, step.ids.unsqueeze(1)).squeeze(1)
    best = known.topk(min(top, known.shape[1]), dim=1)
    entropy = torch.special.entr(known.exp()).sum(dim=1)  # a probability of 0 adds nothing
    ended = ~step.counts
    row = ended.unsqueeze(1)
    return (
        chosen.masked_fill(ended, 0),
        entropy.masked_fill(ended, 0),
        best.indices.masked_fill(row, 0),
        best.values.masked_fill(row, 0),
    )
