"""Windows of passages, in which each target counts once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tinygpt2._internal.checks import check_instance, check_int
from tinygpt2.config import GPT2Config
from tinygpt2.data.batches import Batch, as_batch
from tinygpt2.evaluation.passages import Passage
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.model.gpt2 import GPT2Model

_GROUP = 64  # batches whose windows are sorted by their lengths: enough for similar ones, and little memory


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive tokens that a model sees at once.

    Attributes:
        tokens: (T + 1,) ids: the inputs are all but the last, the targets all but the first.
        counted: Number of the last targets that count; those before them do in earlier windows.
        first: Whether it is the first of a passage.
    """

    tokens: npt.NDArray[np.int64]
    counted: int
    first: bool


class Windows:
    """The windows of passages for a model, and their batches.

    Args:
        model: The model.
        stride: Tokens between the beginnings of windows; ``None`` for the context length.
        batch_size: Full windows in a batch; of shorter ones as many as have the same number of tokens.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range.
    """

    def __init__(self, model: GPT2Model, stride: int | None, batch_size: int) -> None:
        config = getattr(model, "config", None)
        if not isinstance(config, GPT2Config):  # what wraps a model, and has its attributes, will do
            check_instance("model", model, GPT2Model, "a GPT2Model")
        self.context_length, self.vocab_size = model.config.context_length, model.config.vocab_size
        self.stride = self.context_length
        if stride is not None:
            self.stride = check_int("stride", stride, maximum=self.context_length)
        self.tokens_per_batch = check_int("batch_size", batch_size) * self.context_length

    def of(self, passage: Passage) -> Iterator[Window]:
        """Yields the windows of a passage, in which each target counts once.

        The first counts all its targets, each other only those after the end of the one before.
        """
        count, counted = len(passage.targets), 0
        for begin in range(0, count, self.stride):
            end = min(begin + self.context_length, count)
            yield Window(passage.part(begin, end), end - counted, first=begin == 0)
            counted = end
            if end == count:
                break

    def groups(self, passages: Iterable[Passage]) -> Iterator[list[Window]]:
        """Yields the windows of passages in order, in lists of bounded size."""
        group: list[Window] = []
        size = 0
        for passage in passages:
            for window in self.of(passage):
                group.append(window)
                size += len(window.tokens)
                if size >= _GROUP * self.tokens_per_batch:
                    yield group
                    group, size = [], 0
        if group:
            yield group

    def batches(self, group: Sequence[Window]) -> Iterator[tuple[list[int], Batch]]:
        """Yields batches of windows of similar lengths, each with the places in the group that its rows come from."""
        places: list[int] = []
        for place in sorted(range(len(group)), key=lambda i: len(group[i].tokens)):
            if places and (len(places) + 1) * (len(group[place].tokens) - 1) > self.tokens_per_batch:
                yield places, self._batch([group[i] for i in places])
                places = []
            places.append(place)
        if places:
            yield places, self._batch([group[i] for i in places])

    def _batch(self, windows: Sequence[Window]) -> Batch:
        """Returns windows as rows, padded on the right."""
        width = max(len(window.tokens) for window in windows) - 1
        inputs = np.zeros((len(windows), width), dtype=np.int64)
        targets = np.full((len(windows), width), IGNORE_INDEX, dtype=np.int64)
        for row, window in enumerate(windows):
            end = len(window.tokens) - 1
            inputs[row, :end] = window.tokens[:-1]
            targets[row, end - window.counted : end] = window.tokens[-window.counted :]
        return as_batch((torch.from_numpy(inputs), torch.from_numpy(targets)), "the text", self.vocab_size)
