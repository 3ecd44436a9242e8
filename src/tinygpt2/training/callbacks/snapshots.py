"""Snapshots: the weights after some steps of a run, in a byte each, to look back on how it learned."""

from functools import partial

from typing_extensions import override

from tinygpt2._internal.files import atomic_write, make_directories, write_chunks
from tinygpt2.distributed.sharding import all_whole
from tinygpt2.formats.safetensors import safetensors_chunks
from tinygpt2.model.rounding import rounded_weights
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.state import TrainState


def snapshot_steps(total_steps: int, count: int, *, beginning: bool) -> list[int]:
    """Returns the steps after which to keep the weights: most of them early, when most changes.

    The last is the last step of the run; the quotient of neighbours is about the same. There are fewer than ``count``
    in a run that is short.

    Args:
        total_steps: Steps of the run.
        count: How many to keep.
        beginning: Whether step 0 is one of them.

    >>> snapshot_steps(500, 8, beginning=True)
    [0, 2, 6, 14, 35, 85, 206, 500]
    """
    first = [0] if beginning and count > 0 else []
    left = count - len(first)
    return sorted({*first, *(round(total_steps ** (i / left)) for i in range(1, left + 1))})


class Snapshots(Callback):
    """Keeps the weights that would be evaluated after some steps, a byte for each and a file for each step.

    Args:
        run: Directory of the run.
        count: How many to keep at most.
        beginning: Whether the weights before the first step are among them.
        writes: Whether this process writes them, of several that train together.
    """

    every_rank = True  # the weights may be divided among them

    def __init__(self, run: RunDirectory, count: int, *, beginning: bool = True, writes: bool = True) -> None:
        self.run, self.count, self.beginning, self.writes = run, count, beginning, writes
        self.steps: list[int] = []

    @override
    def on_start(self, state: TrainState) -> None:
        self.steps = snapshot_steps(state.total_steps, self.count, beginning=self.beginning)
        if state.step == 0:
            self._keep(state)

    @override
    def on_step(self, state: TrainState) -> None:
        self._keep(state)

    def _keep(self, state: TrainState) -> None:
        if state.step not in self.steps:
            return
        with state.averaged():
            weights = rounded_weights(all_whole(state.model.state_dict()))
        if self.writes:
            path = self.run.snapshot(state.step)
            make_directories(path.parent)
            atomic_write(path, partial(write_chunks, chunks=safetensors_chunks(weights)))
