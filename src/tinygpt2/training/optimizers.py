"""How the weights move: AdamW with its groups, and the learning rate of each step."""

import math

import torch
from torch import nn

from tinygpt2.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Returns AdamW (Loshchilov and Hutter 2019) over the model's trainable parameters, with PyTorch's fused kernel.

    Matrices and embeddings decay; biases and layer norms, which have one dimension, do not unless
    ``config.decay_all_parameters``.

    Args:
        model: Any module; parameters without ``requires_grad`` are left out.
        config: Its ``learning_rate``, ``betas``, ``weight_decay`` and ``decay_all_parameters`` are read.

    Raises:
        ValueError: If the model has nothing to train.

    >>> config = TrainingConfig(weight_decay=0.1)
    >>> optimizer = make_optimizer(nn.Linear(3, 2), config)
    >>> groups = optimizer.param_groups
    >>> [(group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 1), (0.0, 1)]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no parameter to train: each has requires_grad=False")
    if config.decay_all_parameters:
        groups = [(trainable, config.weight_decay)]
    else:
        groups = [
            ([p for p in trainable if p.dim() >= 2], config.weight_decay),
            ([p for p in trainable if p.dim() < 2], 0.0),
        ]
    return torch.optim.AdamW(
        [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def learning_rate_at(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Returns the learning rate of a step.

    During the warm-up it rises linearly and reaches ``config.learning_rate`` at the last warm-up step; then it stays
    there, or falls along half a cosine to ``config.min_learning_rate`` at the last step of all.

    Args:
        step: Counted from 1.
        total_steps: The last step.
        config: Its ``learning_rate``, ``min_learning_rate``, ``schedule`` and ``warmup_steps`` are read.

    >>> config = TrainingConfig(
    ...     learning_rate=1.0, schedule="cosine", warmup_steps=2,
    ...     min_learning_rate=0.0,
    ... )
    >>> [round(learning_rate_at(step, 6, config), 3) for step in range(1, 7)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    peak = config.learning_rate
    if step <= config.warmup_steps:
        return peak * step / config.warmup_steps
    if config.schedule == "constant" or total_steps <= config.warmup_steps:
        return peak
    floor = peak / 10 if config.min_learning_rate is None else config.min_learning_rate
    progress = (step - config.warmup_steps) / (total_steps - config.warmup_steps)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
