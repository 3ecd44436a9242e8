"""The training configuration that the options of a run choose: its rates and its evaluations."""

import math

from tinygpt2.cli.train_options import (
    EVAL_BATCHES,
    EVALUATED_BATCH_TIME,
    EVALUATION_TIME,
    EVALUATIONS,
    FEW_EVAL_BATCHES,
    RATE_TIMES_WIDTH,
    WARMUP_STEPS,
    TrainOptions,
)
from tinygpt2.config import TrainingConfig


def training_config(options: TrainOptions, prompt: str | None, batches: tuple[int, int], width: int) -> TrainingConfig:
    """Returns the configuration that options choose.

    Args:
        options: Options of the run.
        prompt: Prompt of its samples; ``None`` for no samples.
        batches: Number of batches to train on, and to validate on.
        width: Width of the model.
    """
    steps = options.max_steps or options.epochs * math.ceil(batches[0] / options.accumulate)
    # The first steps all push the shared part of the logits the same way: a rate that rises faster overshoots.
    warmup = max(1, min(WARMUP_STEPS, steps // 2))
    usual_rate = RATE_TIMES_WIDTH / width * math.sqrt(warmup / WARMUP_STEPS)
    eval_every, eval_batches = _evaluations(options, steps, batches)
    return TrainingConfig(
        epochs=options.epochs,
        max_steps=options.max_steps,
        optimizer=options.optimizer,
        spelling=options.spelling,
        learning_rate=options.learning_rate or usual_rate * (1 if options.from_pretrained is None else 0.1),
        schedule=options.schedule,
        warmup_steps=warmup if options.warmup_steps is None else options.warmup_steps,
        weight_decay=options.weight_decay,
        gradient_accumulation_steps=options.accumulate,
        precision=options.precision,
        compile=options.compile,
        eval_every=eval_every,
        eval_batches=eval_batches,
        sample_prompt=prompt,
        seed=options.seed,
    )


def _evaluations(options: TrainOptions, steps: int, batches: tuple[int, int]) -> tuple[int, int]:
    """Returns the steps between evaluations, and the batches that each reads from each part of the text.

    What is not given is chosen so that all evaluations take at most a tenth of the time: first they read fewer batches,
    then there are fewer of them, and where only the two of the untrained and the final model are left, they read fewer
    still.
    """
    affordable = EVALUATION_TIME / EVALUATED_BATCH_TIME * steps * options.accumulate

    def read(most: int) -> int:
        return sum(min(most, count) for count in batches)

    if options.eval_every is None:
        usual = options.eval_batches or FEW_EVAL_BATCHES
        intervals = max(1, min(EVALUATIONS, int(affordable / read(usual)) - 1))
        every = math.ceil(steps / intervals)
    else:
        every = options.eval_every
    count = 1 + math.ceil(steps / every)
    fewest = 1 if count == 2 else FEW_EVAL_BATCHES
    fitting = (most for most in range(EVAL_BATCHES, fewest, -1) if count * read(most) <= affordable)
    return every, options.eval_batches or next(fitting, fewest)
