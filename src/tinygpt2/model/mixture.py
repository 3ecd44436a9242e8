"""Mixtures of models, whose probabilities are averaged."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import check_instance, check_iterable, check_number, of_type
from tinygpt2.config import GPT2Config
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.model.ngram import NGramModel


def probabilities_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Returns the probabilities of the token after each position, (B, T, V), in at least float32, to be changed freely.

    Args:
        model: Any module from tokens (B, T) to logits (B, T, V).
        tokens: (B, T) int64.
    """
    if isinstance(model, NGramModel | Mixture):
        return model.probabilities(tokens)
    return as_probabilities(model(tokens))


def as_probabilities(logits: Tensor) -> Tensor:
    """Returns the probabilities that logits, (..., V), stand for, in at least float32."""
    return torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


class Mixture(nn.Module):
    """A model whose probabilities are a weighted mean of those of several others: an ensemble.

    Called like a GPT-2: (B, T) ids give (B, T, V) logits, which here are log-probabilities; so `evaluate` and
    `evaluate_text` measure it. The models compute without dropout and without gradients: a mixture is not trained, but
    can teach another model (`DistillationLoss`).

    Args:
        models: The models, at least one: each a `GPT2Model`, an `NGramModel`, another mixture, or any module from
            tokens (B, T) to logits (B, T, V).
        weights: The weight of each, at least 0, with a sum of 1; all alike by default.

    Raises:
        TypeError: If a model is no module, or a weight no number.
        ValueError: If there is no model, there are not as many weights, they do not sum to 1, or the models have
            vocabularies of different sizes.

    >>> import torch
    >>> from tinygpt2 import GPT2Config, NGramModel
    >>> shape = GPT2Config(
    ...     vocab_size=3, context_length=8, n_layer=1, n_head=2, n_embd=4
    ... )
    >>> pairs = NGramModel([0, 1, 0, 1, 0, 2], vocab_size=3, order=2)
    >>> mixture = Mixture([GPT2Model(shape), pairs], [0.7, 0.3])
    >>> mixture(torch.tensor([[0, 1]])).exp().sum(dim=-1).round(decimals=3)
    tensor([[1., 1.]])
    """

    weights: Tensor

    def __init__(self, models: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        check_iterable("models", models, "a list of models")
        for i, model in enumerate(models):
            check_instance(f"models[{i}]", model, nn.Module, "a torch.nn.Module")
        if not len(models):
            raise ValueError("a mixture needs at least one model, got none")
        self.models = nn.ModuleList(models)
        if weights is not None and not isinstance(weights, list | tuple):
            raise TypeError(f"weights must be a list of numbers, got {of_type(weights)}")
        given = [1 / len(models)] * len(models) if weights is None else list(weights)
        given = [check_number(f"weights[{i}]", weight, minimum=0.0) for i, weight in enumerate(given)]
        if len(given) != len(models):
            raise ValueError(f"each model needs a weight, but there are {len(models)} models and {len(given)} weights")
        if not math.isclose(math.fsum(given), 1, abs_tol=1e-6):
            raise ValueError(f"the weights must sum to 1, got {given}, with a sum of {math.fsum(given):g}")
        sizes = {size for model in models if (size := vocab_size_in(model)) is not None}
        if len(sizes) > 1:
            raise ValueError(
                f"the models have vocabularies of {' and '.join(map(str, sorted(sizes)))} tokens; a mixture needs "
                "models of one tokenizer"
            )
        self.register_buffer("weights", torch.tensor(given, dtype=torch.float64))
        self.shares = tuple(given)  # the same as numbers, which need no waiting for a GPU

    @property
    def config(self) -> GPT2Config:
        """The configuration of its GPT-2 with the shortest context length, which bounds that of the mixture.

        Raises:
            AttributeError: If it has no GPT-2.
        """
        found = [module.config for module in self.modules() if isinstance(module, GPT2Model)]
        if not found:
            raise AttributeError("a mixture without a GPT-2 has no config")
        return min(found, key=lambda config: config.context_length)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logarithm of the `probabilities`, (B, T, V)."""
        return self.probabilities(tokens).log_()

    @torch.no_grad()
    def probabilities(self, tokens: Tensor) -> Tensor:
        """Returns the probabilities of the token after each position, (B, T, V), in at least float32.

        Args:
            tokens: (B, T) int64.

        Raises:
            ValueError: If a model cannot be called with ``tokens``.
        """
        with evaluation_mode(self):
            return weighted_sum((probabilities_of(model, tokens) for model in self.models), self.shares)


def weighted_sum(parts: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns the weighted sum of the probabilities of several models, which are overwritten."""
    total: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        total = part.mul_(weight) if total is None else total.add_(part, alpha=weight)
    assert total is not None  # noqa: S101 - there is at least one model
    return total


def vocab_size_in(model: nn.Module) -> int | None:
    """Returns the size of a model's vocabulary; ``None`` if it is not known."""
    for part in model.modules():
        if isinstance(part, GPT2Model):
            return part.config.vocab_size
        if isinstance(part, NGramModel):
            return part.vocab_size
    return None
