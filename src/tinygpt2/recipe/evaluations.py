"""How often a run is evaluated, and on how much."""

import math

from tinygpt2.recipe.rules import (
    EVAL_BATCHES,
    EVALUATED_BATCH_TIME,
    EVALUATION_SHARE,
    EVALUATIONS,
    FEW_EVAL_BATCHES,
)


def evaluations(
    steps: int, accumulate: int, batches: tuple[int, int], every: int | None = None, most: int | None = None
) -> tuple[int, int]:
    """Returns the steps between evaluations, and the batches that each reads from each part of the text.

    What is not given is chosen so that all evaluations take at most a tenth of the time: first they read fewer batches,
    then there are fewer of them, and where only the two of the untrained and the final model are left, they read fewer
    still.

    Args:
        steps: Steps of the run.
        accumulate: Batches of a step.
        batches: Number of batches to train on, and to validate on.
        every: Steps between evaluations, if they are given.
        most: Batches that each reads from each part, if they are given.
    """
    affordable = EVALUATION_SHARE / EVALUATED_BATCH_TIME * steps * accumulate

    def read(most: int) -> int:
        return sum(min(most, count) for count in batches)

    if every is None:
        intervals = max(1, min(EVALUATIONS, int(affordable / read(most or FEW_EVAL_BATCHES)) - 1))
        every = math.ceil(steps / intervals)
    count = 1 + math.ceil(steps / every)
    fewest = 1 if count == 2 else FEW_EVAL_BATCHES
    fitting = (each for each in range(EVAL_BATCHES, fewest, -1) if count * read(each) <= affordable)
    return every, most or next(fitting, fewest)
