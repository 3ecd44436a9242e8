"""One optimizer step."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, check_iterable
from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import autocast, device_of, moved
from tinygpt2._internal.random import mixed_seed, random_states_kept, seed_everywhere
from tinygpt2.config import TRAINING_RANGES, Precision
from tinygpt2.data.batches import Batch, as_batch
from tinygpt2.distributed.ranks import ALONE, Ranks, without_averaging
from tinygpt2.distributed.sharding import whole
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.kernels.dropout import Dropout
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.model.checks import not_finite
from tinygpt2.model.objective import vocab_size_of


@dataclass(frozen=True)
class StepResult:
    """Result of an optimizer step.

    Attributes:
        loss: Mean loss over the targets of all micro-batches, before the step, in nats per token.
        grad_norm: Norm of the gradient, before clipping.
        tokens: Number of tokens read.

    >>> StepResult(loss=2.5, grad_norm=1.0, tokens=256).tokens
    256
    """

    loss: float
    grad_norm: float
    tokens: int


def training_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Any],
    *,
    max_grad_norm: float | None = 1.0,
    precision: Precision = "auto",
    seed: int | None = None,
) -> StepResult:
    """Makes one step as `train` does, for custom loops, or raises an error and leaves the weights unchanged.

    The loss is the summed loss over the targets of all micro-batches, divided by the number of targets: several
    micro-batches, even of unequal size, act as one big batch. The optimizer's learning rates do not change.

    Args:
        objective: Maps (inputs, targets, scale) to the scaled sum of the losses; `NextTokenLoss` or a wrapper of it.
        optimizer: Optimizer of its parameters.
        micro_batches: Each (inputs, targets), both (B, T) int64, or a dict of ``input_ids`` and ``labels``; at least
            one. They are moved to the objective's device.
        max_grad_norm: Gradients with a larger norm are scaled down to it; ``None`` leaves them unchanged.
        precision: As in `TrainingConfig`.
        seed: Seed of dropout; ``None`` uses PyTorch's global random numbers.

    Raises:
        NonFiniteLossError: If the loss or its gradient is NaN or infinite.
        TypeError: If an argument is of the wrong type, or a batch has another form.
        ValueError: If there is no micro-batch, no target counts, an id is outside the vocabulary, or an option is out
            of range.

    >>> import torch
    >>> from tinygpt2 import (
    ...     GPT2Config, GPT2Model, NextTokenLoss, TrainingConfig, make_optimizer
    ... )
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=4
    ... ))
    >>> optimizer = make_optimizer(model, TrainingConfig())
    >>> batch = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])
    >>> training_step(NextTokenLoss(model), optimizer, [batch]).tokens
    3
    """
    check_instance("objective", objective, nn.Module, "a torch.nn.Module, such as a NextTokenLoss")
    check_instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
    check_iterable("micro_batches", micro_batches, "a list of batches")
    max_grad_norm = TRAINING_RANGES["max_grad_norm"].check("max_grad_norm", max_grad_norm)
    precision = TRAINING_RANGES["precision"].check("precision", precision)
    seeds = None if seed is None else (TRAINING_RANGES["seed"].check("seed", seed),)
    vocab_size = vocab_size_of(objective)
    batches = [as_batch(batch, f"micro-batch {i}", vocab_size) for i, batch in enumerate(micro_batches)]
    if not batches:
        raise ValueError("there is nothing to learn from: a step needs at least one micro-batch, got none")
    count = targets_that_count(batches)
    if not count:
        raise ValueError(f"every target of a step is {IGNORE_INDEX}, which does not count: nothing to learn from")
    with fast_products(), nullcontext() if seed is None else random_states_kept(device_of(objective)):
        result, norm = backward(objective, batches, count, precision=precision, seeds=seeds, seed_global=True)
    check_finite(result, objective)
    clip(objective, result, norm, max_grad_norm)
    optimizer.step()
    return result


def backward(
    objective: nn.Module,
    batches: Sequence[Batch],
    count: int,
    *,
    precision: Precision,
    seeds: Sequence[int] | None,
    seed_global: bool,
    ranks: Ranks = ALONE,
) -> tuple[StepResult, Tensor]:
    """Computes the gradients of a step; returns its result, and their norm as a tensor on the device.

    Args:
        objective: As in `training_step`; old gradients are cleared, even of parameters that no optimizer has.
        batches: The micro-batches of the step, checked; of each, every rank computes its rows.
        count: Number of their targets that count, at least 1.
        precision: Precision of the forward pass.
        seeds: Seeds of dropout, to which the index of the micro-batch is appended.
        seed_global: Whether they also seed PyTorch's global random numbers.
        ranks: The processes that compute the step together.
    """
    device = device_of(objective)
    objective.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    own = () if ranks.first else (ranks.rank,)
    for i, batch in enumerate(batches):
        inputs, targets = ranks.rows(batch, IGNORE_INDEX)
        last = i == len(batches) - 1
        with (
            seeded_dropout(objective, None if seeds is None else (*seeds, i, *own), device if seed_global else None),
            nullcontext() if last else without_averaging(objective),
        ):
            with autocast(device, precision):
                loss = objective(moved(inputs, device), moved(targets, device), ranks.size / count)
            loss.backward()
        losses.append(loss.detach())
    norm = torch.nn.utils.get_total_norm(p.grad for p in objective.parameters() if p.grad is not None)
    if not isinstance(norm, Tensor):  # no parameter had a gradient
        norm = torch.zeros((), device=device)
    norm = whole(norm)
    tokens = sum(inputs.numel() for inputs, _ in batches)
    loss = torch.stack(losses).sum()
    own_loss, grad_norm = torch.stack([loss, norm.to(loss)]).tolist()  # the only wait of a step for a GPU
    total = ranks.sums([own_loss / ranks.size])[0]
    return StepResult(loss=total, grad_norm=grad_norm, tokens=tokens), norm


def targets_that_count(batches: Iterable[Batch]) -> int:
    """Returns the number of targets other than -100."""
    return sum(int((targets != IGNORE_INDEX).sum()) for _, targets in batches)


def check_finite(result: StepResult, objective: nn.Module) -> None:
    """Raises `NonFiniteLossError` if the loss or its gradient is NaN or infinite; it names a weight that is so."""
    if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
        reason = not_finite(objective)
        raise NonFiniteLossError(
            f"the loss is {result.loss:g} and its gradient norm {result.grad_norm:g}; the weights are unchanged"
            + (f": {reason}" if reason else "")
        )


def clip(objective: nn.Module, result: StepResult, norm: Tensor, max_grad_norm: float | None) -> None:
    """Scales the gradients down to ``max_grad_norm`` if their norm, here as a tensor on the device, is larger."""
    if max_grad_norm is not None and result.grad_norm > max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(objective.parameters(), max_grad_norm, norm)


@contextmanager
def seeded_dropout(model: nn.Module, seeds: Sequence[int] | None, device: torch.device | None) -> Iterator[None]:
    """Seeds each dropout of a model from ``seeds`` and its index, within the block.

    Args:
        model: The model.
        seeds: Numbers to derive the seeds from; ``None`` changes nothing.
        device: Device on which to seed PyTorch's global random numbers, too, for dropout without a seed of its own;
            ``None`` leaves them alone.
    """
    if seeds is None:
        yield
        return
    if device is not None:
        seed_everywhere(device, mixed_seed(*seeds))
    modules = [module for module in model.modules() if isinstance(module, Dropout) and module.p]
    before = [module.seed for module in modules]
    states = np.random.SeedSequence(seeds).generate_state(max(1, len(modules)), np.uint64)
    for module, state in zip(modules, states.tolist(), strict=False):
        module.seed = state >> 1
    try:
        yield
    finally:
        for module, seed in zip(modules, before, strict=True):
            module.seed = seed
