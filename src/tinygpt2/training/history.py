"""History of a training run: its losses as numbers, as JSON and as a plot."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from tinygpt2._internal.checks import check_path, shown
from tinygpt2._internal.files import read_json, write_text
from tinygpt2._internal.ranges import Check, Int, Loss, Many, Number, Optional, Text
from tinygpt2.plotting import plot_losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tinygpt2.evaluation.baselines import Baselines

_LIMIT = 32 << 20  # bytes; holds hundreds of thousands of evaluations, and bounds the cost of a hostile file

_RANGES: Mapping[str, Check] = MappingProxyType(  # of each entry
    {
        "steps": Int(minimum=0),
        "epochs": Number(),
        "tokens_seen": Int(minimum=0),
        "train_losses": Loss(),
        "val_losses": Optional(Loss()),
        "learning_rates": Number(),
        "train_bits_per_byte": Optional(Loss()),
        "val_bits_per_byte": Optional(Loss()),
        "seconds": Optional(Number()),
    }
)
_MAY_BE_ABSENT = ("train_bits_per_byte", "val_bits_per_byte", "seconds")  # from older files
_STOPPED = "stopped"  # likewise


@dataclass
class TrainingHistory:
    """Evaluations of a training run, as aligned lists with one entry per evaluation.

    Attributes:
        steps: Optimizer steps made so far; 0 for the untrained model.
        epochs: Passes over the training data so far, including fractions.
        tokens_seen: Training tokens read so far.
        train_losses: Loss on training data, without dropout, in nats per token.
        val_losses: Loss on validation data, likewise; ``None`` in a run without validation data.
        learning_rates: Learning rate of the last step; 0.0 before the first.
        train_bits_per_byte: Loss on training data in bits per byte of text; ``None`` if the bytes are not known,
            because `train` was not given the tokenizer. Lists that are left out have ``None`` for each evaluation.
        val_bits_per_byte: Likewise, on validation data.
        seconds: Seconds that the run had taken when the evaluation began, with those before it was resumed, without
            those in which it was stopped; ``None`` if they are not known. They are no part of a comparison with ``==``:
            two runs that are otherwise equal to the last bit do not take the same time.
        stopped: Why a callback ended the run before its last step, for instance that the validation loss has not fallen
            for three evaluations; ``None`` if none did.

    >>> history = TrainingHistory()
    >>> history.append(
    ...     step=0, epoch=0.0, tokens_seen=0,
    ...     train_loss=10.8, val_loss=10.8, learning_rate=0.0,
    ... )
    >>> history.train_losses
    [10.8]
    >>> history.steps[history.best]
    0
    """

    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    tokens_seen: list[int] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float | None] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    train_bits_per_byte: list[float | None] = field(default_factory=list)
    val_bits_per_byte: list[float | None] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list, compare=False)
    stopped: str | None = None

    def __post_init__(self) -> None:
        for name in _MAY_BE_ABSENT:
            values = getattr(self, name)
            if isinstance(values, list) and not values:
                setattr(self, name, [None] * len(self.steps))

    @property
    def best(self) -> int | None:
        """The index of the evaluation with the lowest validation loss, the first of equal ones; ``None`` without any.

        ``best``, in a directory of checkpoints, and ``train(..., keep_best=True)`` have the model of that evaluation.
        """
        losses = ((loss, i) for i, loss in enumerate(self.val_losses) if loss is not None and not math.isnan(loss))
        return min(losses, default=(math.nan, None))[1]

    def append(
        self,
        *,
        step: int,
        epoch: float,
        tokens_seen: int,
        train_loss: float,
        val_loss: float | None,
        learning_rate: float,
        train_bits_per_byte: float | None = None,
        val_bits_per_byte: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Adds one evaluation; NumPy's and PyTorch's numbers become plain ones.

        Raises:
            TypeError: If a value is of the wrong type.
            ValueError: If a value is out of range: only a loss may be negative, NaN or infinite.
        """
        entry = {
            "step": step,
            "epoch": epoch,
            "tokens_seen": tokens_seen,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "learning_rate": learning_rate,
            "train_bits_per_byte": train_bits_per_byte,
            "val_bits_per_byte": val_bits_per_byte,
            "seconds": seconds,
        }
        checked = [each.check(*value) for each, value in zip(_RANGES.values(), entry.items(), strict=True)]
        for name, value in zip(_RANGES, checked, strict=True):  # all of them, or none
            getattr(self, name).append(value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the lists as JSON, atomically; a loss that is not a number becomes ``NaN``, which Python can read.

        NumPy's numbers become plain ones.

        Raises:
            OSError: If it cannot be written; an existing file stays intact.
            TypeError: If it is not a path.
            ValueError: If ``load`` would refuse it, for instance because the steps do not increase.
        """
        write_text(check_path("path", path), json.dumps(vars(self.from_dict(vars(self))), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a history that ``save`` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If it is not a path.
            ValueError: If the file holds anything else.
        """
        path = check_path("path", path)
        try:
            return cls.from_dict(read_json(path, limit=_LIMIT, links=True))
        except ValueError as error:
            raise ValueError(f"{path} is not a training history: {error}") from error

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Returns the history in a dict made by ``dataclasses.asdict``.

        Raises:
            ValueError: If it is anything else.
        """
        needed = _RANGES.keys() - set(_MAY_BE_ABSENT)
        if not (isinstance(content, dict) and needed <= content.keys() <= {*_RANGES, _STOPPED}):
            raise ValueError(f"expected an object with {', '.join(_RANGES)}, got {shown(content)}")
        try:
            stopped = Optional(Text()).check(_STOPPED, content.get(_STOPPED))
            lists = {name: value for name, value in content.items() if name != _STOPPED}
            values = {name: list(Many(_RANGES[name]).check(name, value)) for name, value in lists.items()}
        except TypeError as error:
            raise ValueError(str(error)) from error
        if len({len(each) for each in values.values()}) > 1:
            lengths = ", ".join(f"{name} {len(each)}" for name, each in values.items())
            raise ValueError(f"its lists differ in length: {lengths}")
        for earlier, later in pairwise(values["steps"]):
            if later <= earlier:
                raise ValueError(f"steps must increase, but {later} follows {earlier}")
        return cls(**values, stopped=stopped)

    def plot(self, baselines: "Baselines | None" = None) -> "Figure":
        """Returns the figure that `plot_losses` draws of this history, which a notebook shows; errors are its."""
        return plot_losses(self, baselines)


def lowest_loss(history: TrainingHistory) -> float:
    """Returns the lowest validation loss; infinity without any."""
    best = None if history.best is None else history.val_losses[history.best]
    return math.inf if best is None else best
