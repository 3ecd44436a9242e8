"""How often a run is evaluated, and on how much."""

import pytest

from tinygpt2.recipe.evaluations import evaluations


@pytest.mark.parametrize("batches", [(36, 4), (1000, 110), (1, 1)])
@pytest.mark.parametrize("steps", [1, 2, 20, 50, 100, 300, 540, 2400, 100_000])
@pytest.mark.parametrize("accumulate", [1, 8])
def test_evaluations_take_at_most_a_tenth_of_the_time(steps: int, batches: tuple[int, int], accumulate: int) -> None:
    """Of 41 seconds for 20 steps, 29 were evaluations."""
    every, most = evaluations(steps, accumulate, batches)
    count = 1 + -(-steps // every)
    read = count * sum(min(most, part) for part in batches)
    assert 2 <= count <= 21
    assert 1 <= most <= 20
    assert read / 2 <= max(0.1 * steps * accumulate, 2)  # an evaluated batch takes half of a training one's time


@pytest.mark.parametrize(
    ("steps", "given", "expected"),
    [
        (20, {}, (20, 1)),
        (540, {}, (45, 4)),
        (2400, {}, (120, 18)),
        (2400, {"most": 30}, (185, 30)),
        (540, {"most": 20}, (180, 20)),
        (20, {"most": 20}, (20, 20)),
        (540, {"every": 10}, (10, 4)),
        (540, {"every": 540}, (540, 20)),
        (2400, {"every": 800}, (800, 20)),
        (20, {"every": 1, "most": 7}, (1, 7)),
    ],
)
def test_evaluations_become_smaller_then_fewer_and_what_is_given_counts(
    steps: int, given: dict[str, int], expected: tuple[int, int]
) -> None:
    assert evaluations(steps, 1, (36, 4), **given) == expected
