"""Where the time of a run goes, and how much it still needs."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tqdm import tqdm

Work = Literal["training", "evaluations", "samples", "checkpoints"]


class Timing:
    """Seconds that a run has spent on each kind of work since it began or resumed.

    Every instant counts for one kind, so that nothing is missing: for training, unless it is inside a `during`.

    Attributes:
        seconds: Seconds of each kind, up to the last change of kinds.
        times: Blocks of each kind that have ended.
        longest: Seconds of the longest block of each kind.
    """

    def __init__(self) -> None:
        self.seconds: Counter[Work] = Counter()
        self.times: Counter[Work] = Counter()
        self.longest: dict[Work, float] = {}
        self._work: Work = "training"
        self._since = time.perf_counter()
        self._first_save = 0.0

    @contextmanager
    def during(self, work: Work) -> Iterator[None]:
        """Counts the time of the block for one kind of work."""
        outer, before = self._work, self.seconds[work]
        self._switch(work)
        try:
            yield
        finally:
            self._switch(outer)
            self.times[work] += 1
            self.longest[work] = max(self.longest.get(work, 0.0), self.seconds[work] - before)

    def total(self) -> float:
        """Returns the seconds of all kinds until now."""
        self._switch(self._work)
        return sum(self.seconds.values())

    def begin_steps(self) -> None:
        """Tells apart what was saved before the first step from what is saved beside the steps."""
        self._first_save = self.seconds["checkpoints"]

    def left(self, steps_made: int, *, steps: int, evaluations: int, samples: int) -> float:
        """Returns an estimate of the seconds that the rest of a run takes.

        Args:
            steps_made: Steps made so far, at least 1.
            steps: Steps left; they include reading the data, step callbacks, and checkpoints in proportion.
            evaluations: Evaluations left.
            samples: Ends of epochs left.
        """
        self._switch(self._work)
        beside = self.seconds["checkpoints"] - self._first_save
        return (
            steps * (self.seconds["training"] + beside) / steps_made
            + evaluations * self._mean("evaluations")
            + samples * self._mean("samples")
            + self.longest.get("checkpoints", 0.0)  # the last
        )

    def summary(self) -> str:
        """Returns a line that says where the time went."""
        total = self.total()
        kinds: tuple[Work, ...] = ("training", "evaluations", "samples", "checkpoints")
        shares = [(kind, f"{self.seconds[kind] / (total or 1):.0%}") for kind in kinds]
        parts = ", ".join(f"{kind} {share}" for kind, share in shares if share != "0%")
        return f"time {tqdm.format_interval(total)}: {parts}"

    def _switch(self, work: Work) -> None:
        now = time.perf_counter()
        self.seconds[self._work] += now - self._since  # type: ignore[assignment]
        self._work, self._since = work, now

    def _mean(self, work: Work) -> float:
        times = self.times[work] + (self._work == work)
        return self.seconds[work] / times if times else 0.0
