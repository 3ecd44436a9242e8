"""The learning rate of each step."""

import math

from tinygpt2._internal.checks import check_instance, check_int
from tinygpt2.config import TrainingConfig


def learning_rate_at(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Returns the learning rate of a step.

    During the warm-up it rises linearly, and reaches ``config.learning_rate`` at the last warm-up step; then it stays
    there, or falls along half a cosine or a straight line to ``config.min_learning_rate`` at the last step.

    Args:
        step: Counted from 1.
        total_steps: Number of steps in the run.
        config: Its ``learning_rate``, ``min_learning_rate``, ``schedule`` and ``warmup_steps`` are read.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is less than 1.

    >>> config = TrainingConfig(
    ...     learning_rate=1.0, schedule="cosine", warmup_steps=2,
    ...     min_learning_rate=0.0,
    ... )
    >>> [round(learning_rate_at(step, 6, config), 3) for step in range(1, 7)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    check_instance("config", config, TrainingConfig, "a TrainingConfig")
    step, total_steps = check_int("step", step), check_int("total_steps", total_steps)
    return config.learning_rate * multiplier_at(step, total_steps, config)


def multiplier_at(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Returns a step's learning rate as a fraction of the highest, from 0 to 1; arguments as in `learning_rate_at`."""
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    if config.schedule == "constant" or total_steps <= config.warmup_steps:
        return 1.0
    if config.min_learning_rate is None:
        lowest = 0.1 if config.schedule == "cosine" else 0.0
    else:
        lowest = config.min_learning_rate / config.learning_rate
    progress = min((step - config.warmup_steps) / (total_steps - config.warmup_steps), 1.0)
    height = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return lowest + (1 - lowest) * height
