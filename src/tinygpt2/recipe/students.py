"""Students: models that learn from teachers, the first models that were trained on a text."""

import math
from dataclasses import replace

from tinygpt2._internal.ranges import Int, Optional
from tinygpt2.config import TrainingConfig
from tinygpt2.recipe.rules import EVALUATIONS, STUDENT_BATCH, STUDENT_DECAY, ema_decay_for

TEACHERS = Int(minimum=0, maximum=16)
"""The range of the number of teachers."""
STUDENT_STEPS = Optional(Int())
"""The range of a student's steps."""


def student_training(training: TrainingConfig, steps: int) -> TrainingConfig:
    """Returns the configuration of a student's training.

    It learns probabilities, which it cannot memorise, so it needs little weight decay; its batches are twice as large.

    Args:
        training: Configuration of its teachers.
        steps: Steps of the student.
    """
    return replace(
        training,
        epochs=1,
        max_steps=steps,
        gradient_accumulation_steps=STUDENT_BATCH * training.gradient_accumulation_steps,
        weight_decay=min(training.weight_decay, STUDENT_DECAY),
        ema_decay=ema_decay_for(steps) if training.ema_decay else 0.0,
        eval_every=math.ceil(steps / EVALUATIONS),
    )
