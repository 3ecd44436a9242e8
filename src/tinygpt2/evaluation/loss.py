"""The loss of a model over a data set."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, check_int, check_iterable
from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import device_of
from tinygpt2.data.batches import Batch, BatchCheck
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.losses import IGNORE_INDEX, perplexity
from tinygpt2.model.checks import not_finite
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.model.objective import NextTokenLoss, vocab_size_of


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        loss: Mean cross-entropy, nats per token; infinite if the model gives a target a probability of zero.
        perplexity: exp(loss).
        tokens: Number of targets that ``loss`` is the mean of.

    >>> import math
    >>> result = Evaluation(loss=2.0, perplexity=math.exp(2.0), tokens=1000)
    >>> f"{result.loss / math.log(2):.2f} bits per token"
    '2.89 bits per token'
    """

    loss: float
    perplexity: float
    tokens: int


def evaluate(model: nn.Module, loader: Iterable[Any], *, max_batches: int | None = None) -> Evaluation:
    """Returns the loss of a model over a data set, in which every token counts equally, whatever the batch sizes.

    Dropout is off, and the model stays in its mode.

    Args:
        model: Any module from tokens (B, T) to logits (B, T, V), such as a `GPT2Model`.
        loader: (inputs, targets), both (B, T) int64; targets of -100 do not count. Or dicts of ``input_ids`` and
            ``labels`` in the convention of Hugging Face: unshifted. Moved to the model's device. A ``UserWarning``
            says so if the targets are not shifted by one.
        max_batches: Maximum number of batches to read; ``None`` for all.

    Raises:
        NonFiniteLossError: If the loss is NaN, or infinite because of the weights; the error names the first weight
            that is not finite.
        TypeError: If an argument is of the wrong type, or a batch has another form.
        ValueError: If the loader has no batch, or no target that counts, or an id is outside the vocabulary.

    >>> from tinygpt2 import GPT2Config, GPT2Model, make_dataloader
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> loader = make_dataloader(range(100), batch_size=4, context_length=16)
    >>> evaluate(model, loader).tokens
    96
    """
    check_instance("model", model, nn.Module, "a torch.nn.Module")
    check_iterable("loader", loader, "an iterable of batches")
    max_batches = None if max_batches is None else check_int("max_batches", max_batches)
    check = BatchCheck(vocab_size_of(model))
    return evaluate_batches(model, (check(batch, f"batch {i}") for i, batch in enumerate(islice(loader, max_batches))))


def evaluate_batches(model: nn.Module, batches: Iterable[Batch], name: str | None = None) -> Evaluation:
    """Returns what `evaluate` does, of batches that were checked.

    Args:
        model: As in `evaluate`.
        batches: (inputs, targets), both (B, T) int64.
        name: Name of the data in error messages.
    """
    of = f" of {name}" if name else ""
    device = device_of(model)
    objective = NextTokenLoss(model)
    losses: list[Tensor] = []
    counts: list[Tensor] = []
    with torch.no_grad(), evaluation_mode(model), fast_products():
        for inputs, targets in batches:
            losses.append(objective(inputs.to(device), targets.to(device)))
            counts.append((targets != IGNORE_INDEX).sum())
    if not losses:
        raise ValueError(
            "there is nothing to evaluate: the loader has no batches; with drop_last=True, a data set smaller than one "
            "batch has none"
        )
    # The sums stay on the device until all are computed, so that no batch waits for the one before it.
    tokens = sum(int(count) for count in counts)
    if tokens == 0:
        raise ValueError(f"there is nothing to evaluate: every target{of} is {IGNORE_INDEX}, which does not count")
    loss = math.fsum(torch.stack(losses).tolist()) / tokens
    if not math.isfinite(loss):
        reason = not_finite(model)
        if math.isnan(loss) and not reason:
            reason = (
                "all weights are finite, so the computation overflows; they are too large, for instance after training "
                "at too high a learning rate, or the precision is too low"
            )
        if reason:
            raise NonFiniteLossError(f"the loss{of} is {loss:g}: {reason}")
    return Evaluation(loss=loss, perplexity=perplexity(loss), tokens=tokens)
